package protocols

import (
	"bytes"
	"slices"

	"tidegate/pipeline"
)

// A piece is input that arrived before the protocol was known: size bytes, which are in the tail of dir, a gap
// in dir, or the end of dir.
type piece struct {
	dir  Dir
	end  bool
	gap  bool
	size int
	at   int64
}

// Bounds of the pieces of a connection. Beyond exactPieces the bytes that one side sends in a row share a
// piece, and the time of the last of them. Beyond maxPieces, which takes as many turns, the protocol counts as
// unknown.
const (
	exactPieces = 64
	maxPieces   = 256
)

// startDetection puts c into state detecting. Every protocol that the transport and the ports allow becomes a
// candidate in both directions.
func (c *Conn) startDetection() {
	c.state, c.proto = detecting, noProtocol
	c.candidates, c.searched = [2]uint64{}, 0
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if protocol.Exclude != nil && protocol.Exclude(c.info.Server) {
			continue
		}
		if udp := c.info.Transport == pipeline.Transport_UDP; udp && protocol.UDP || !udp && protocol.TCP {
			c.candidates[0] |= 1 << i
			c.candidates[1] |= 1 << i
		}
	}
	c.candidates[0] &^= c.left
	c.candidates[1] &^= c.left
}

// detectData tries to detect the protocol from the bytes that have just arrived and those buffered before.
// Usually the first bytes decide, and the parser reads them from the caller's slice.
func (c *Conn) detectData(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	if len(c.pieces) == 0 && len(stream.tail) == 0 {
		// Nothing is buffered: match data itself, and copy it only if it does not decide.
		stream.lastAt = at
		proto, lost := c.matchProtocol(dir, data)
		if proto != noProtocol {
			c.openProof(dir, data, at)
			c.selectProtocol(proto, dir, lost)
			c.replayBeginning()
			if c.state == parsing {
				c.parseData(dir, data, at)
			}
			return
		}
		c.bufferData(dir, data, at)
		c.checkCandidates(dir)
		return
	}
	c.bufferData(dir, data, at)
	c.detectBuffered(dir)
}

// bufferData appends data to the tail of dir and to the pieces. Bytes with the same time share a piece.
func (c *Conn) bufferData(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	stream.appendTail(c.set, data, at)
	stream.lastAt = at
	defer c.dropSkipped(dir)
	if count := len(c.pieces); count > 0 {
		last := &c.pieces[count-1]
		if last.dir == dir && (last.at == at || count >= exactPieces) && !last.end && !last.gap {
			last.size += len(data)
			last.at = at
			return
		}
	}
	c.pieces = append(c.pieces, piece{dir: dir, size: len(data), at: at})
}

// minLineBreaks is the number of CRs and LFs at the front of a direction from which on they are dropped. In the
// binary protocols fewer may be the beginning of a message.
const minLineBreaks = 64

// minSkipped is the number of bytes of a direction from which on what Skipped returns is dropped.
const minSkipped = 1 << 10

// dropSkipped drops the bytes at the front of dir that servers skip, if they are many, so that they do not fill the space
// of the detection: line breaks, which servers of text protocols skip in any number, or what the only protocol that is
// left skips.
func (c *Conn) dropSkipped(dir Dir) {
	stream := &c.streams[dir]
	size := 0
	for size < len(stream.tail) && (stream.tail[size] == '\r' || stream.tail[size] == '\n') {
		size++
	}
	if size >= minLineBreaks {
		c.dropFront(dir, size)
	}
	if len(stream.tail) < minSkipped || dir^c.flip != Client || c.info.Transport == pipeline.Transport_UDP {
		return
	}
	for i := range c.set.list {
		if skipped := c.set.list[i].Skipped; c.candidates[dir] == 1<<i && skipped != nil {
			c.dropFront(dir, skipped(stream.tail))
			return
		}
	}
}

// dropFront drops size bytes at the front of dir, which are not replayed.
func (c *Conn) dropFront(dir Dir, size int) {
	stream := &c.streams[dir]
	stream.advance(size)
	stream.dropFront(c.set, size)
	left := size
	for i := range c.pieces {
		if piece := &c.pieces[i]; piece.dir == dir && !piece.end && !piece.gap {
			cut := min(left, piece.size)
			piece.size -= cut
			left -= cut
		}
	}
	c.pieces = slices.DeleteFunc(c.pieces, func(p piece) bool { return p.size == 0 && !p.end && !p.gap })
}

// detectBuffered tries to detect the protocol from the tail of dir.
func (c *Conn) detectBuffered(dir Dir) {
	stream := &c.streams[dir]
	if len(stream.tail) == 0 {
		return
	}
	proto, lost := c.matchProtocol(dir, stream.tail)
	if proto == noProtocol {
		c.checkCandidates(dir)
		return
	}
	c.openProof(dir, stream.tail, stream.firstAt())
	c.selectProtocol(proto, dir, lost)
	c.replayPieces()
}

// checkCandidates ends the detection of a connection that matched no protocol, if no candidate is left or
// DetectBytes were examined. The candidates of both sides count: one side's bytes may be malformed while the
// other side's still match.
func (c *Conn) checkCandidates(dir Dir) {
	enough := len(c.streams[dir].tail) >= int(c.set.cfg.DetectBytes) || len(c.pieces) >= maxPieces
	left := c.candidates[0] | c.candidates[1]
	// After unrecognised bytes the other side's candidates are no evidence for this side, but for the client's those
	// protocols that the server's first answer may be of.
	if c.midStream || c.redetects > 0 {
		left = c.candidates[dir]
		if server := Server ^ c.flip; !c.midStream && dir != server {
			left |= c.candidates[server] & c.answeredAs
		}
	}
	server := Server ^ c.flip
	answered := len(c.streams[server].tail) > 0 && c.candidates[server] == 0
	switch {
	case left != 0 && !enough && (!answered || c.wholeMessage() == noProtocol):
	case c.midStream:
		c.discardMidStream()
	default:
		c.endDetection()
	}
}

// matchProtocol returns the protocol of data, the front of dir, or noProtocol. If several match, one with the
// server's port is preferred. lost reports that data does not begin with a message, but has one further on.
// Protocols that cannot match data are removed from the candidates.
func (c *Conn) matchProtocol(dir Dir, data []byte) (proto int, lost bool) {
	role := dir ^ c.flip
	yes := noProtocol
	for i := range c.set.list {
		if c.candidates[dir]&(1<<i) == 0 {
			continue
		}
		switch c.set.list[i].Detect(role, data) {
		case No:
			c.candidates[dir] &^= 1 << i
		case Yes:
			if role == Client && c.isRefuted(dir.Other(), i) {
				c.candidates[dir] &^= 1 << i
				continue
			}
			if yes == noProtocol || c.hasPort(i) && !c.hasPort(yes) {
				yes = i
			}
		}
	}

	// An answer that may be any bytes may be those of another protocol.
	if role == Server && yes != noProtocol && !c.hasPort(yes) {
		if whole := c.wholeMessage(); whole != noProtocol && c.hasPort(whole) {
			return whole, false
		}
	}

	// No protocol matches in this direction: try other positions in data, and the opposite roles.
	switch {
	case yes != noProtocol:
		return yes, false
	case c.midStream:
		return c.matchMidStream(role, data)
	case role == Server && c.candidates[dir] == 0 && c.info.Transport != pipeline.Transport_UDP:
		return c.matchReversed(dir, data), false
	}
	return noProtocol, false
}

// isRefuted reports whether the server has answered the front of the client's bytes as servers of another protocol do, and
// those of proto do not. Servers of text protocols answer each line: "*1" is one that memcached answers with ERROR, before
// the rest of what looks like a command of Redis has come.
func (c *Conn) isRefuted(server Dir, proto int) bool {
	answered := len(c.streams[server].tail) > 0 && c.candidates[server] != 0
	return answered && !c.midStream && c.candidates[server]&(1<<proto) == 0
}

// matchReversed handles a server whose first bytes match a protocol as those of a client: it flips the
// connection and returns the protocol. Behind a reverse tunnel the side that opened the connection is the one
// that serves.
func (c *Conn) matchReversed(dir Dir, data []byte) int {
	other := &c.streams[dir.Other()]
	first := other.offset == 0 && c.streams[dir].offset == 0
	if len(other.tail) > 0 || c.redetects == 0 && !first {
		return noProtocol
	}
	for i := range c.set.list {
		protocol := &c.set.list[i]
		allowed := protocol.TCP && (protocol.Nested || c.redetects == 0)
		if allowed && protocol.Detect(Client, data) == Yes {
			c.Flip()
			return i
		}
	}
	return noProtocol
}

// matchMidStream is matchProtocol for bytes that may begin in the middle of a message, and whose roles may
// have been inferred wrongly.
func (c *Conn) matchMidStream(role Dir, data []byte) (proto int, lost bool) {
	// If data begins with a message of the other side, the roles were inferred wrongly.
	for i := range c.set.list {
		if protocol := &c.set.list[i]; protocol.TCP && protocol.Detect(role.Other(), data) == Yes && !c.bothSent() {
			c.Flip()
			return i, false
		}
	}

	// A message may start further on in data. Sync alone has false positives, so the port, Detect or the
	// earlier bytes of the connection must agree.
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if !protocol.TCP {
			continue
		}
		skip, match := protocol.Sync(role, data)
		if match != Yes || skip < 0 || skip >= len(data) {
			continue
		}
		if c.hasPort(i) || i == c.lastProto || protocol.Detect(role, data[skip:]) == Yes {
			return i, true
		}
	}
	return noProtocol, false
}

// bothSent reports whether both sides have sent. If so, the roles are not flipped by the bytes of one side.
func (c *Conn) bothSent() bool { return len(c.streams[0].tail) > 0 && len(c.streams[1].tail) > 0 }

// selectProtocol starts the parser of proto, which was recognised in dir. In mid-stream the other
// direction is marked as lost, since it may begin in the middle of a message.
func (c *Conn) selectProtocol(proto int, dir Dir, lost bool) {
	c.streams[dir].lost = lost
	c.streams[dir.Other()].lost = c.midStream
	c.startParser(proto)
	for side := range c.streams {
		// Bytes were lost or discarded before the protocol was known. replayPieces passes a gap among the
		// pieces at its position: which request it follows decides which replies may be missing.
		isGap := func(p piece) bool { return p.gap && p.dir == Dir(side) }
		if c.streams[side].partial && !slices.ContainsFunc(c.pieces, isGap) {
			c.parser.Gap(Dir(side)^c.flip, 1)
		}
	}
}

// replayPieces passes the buffered pieces to the parser, in order of arrival.
func (c *Conn) replayPieces() {
	// parseData appends unread bytes to the tails, so the tails must be empty before the replay.
	var tails, buffers [2][]byte
	var replayed [2]int
	for dir := range c.streams {
		tails[dir], buffers[dir] = c.streams[dir].takeBuffer()
	}
	c.replayBeginning()

	// Invariant: tails[dir][:replayed[dir]] was passed to the parser or, once it switches protocol, moved
	// to the tail.
	for _, piece := range c.pieces {
		if c.state == dropped {
			break
		}
		if piece.end {
			if !c.switching {
				c.parser.End(piece.dir^c.flip, piece.at)
			}
			continue
		}
		if piece.gap {
			if !c.switching {
				c.parser.Gap(piece.dir^c.flip, 1)
			}
			continue
		}
		data := tails[piece.dir][replayed[piece.dir]:][:piece.size]
		replayed[piece.dir] += piece.size
		// The rest of the last bytes stays in its buffer: if the parser hands the connection on behind each message, a
		// copy of the rest for each of them would be quadratic.
		stream, buffer := &c.streams[piece.dir], &buffers[piece.dir]
		last := replayed[piece.dir] == len(tails[piece.dir]) && len(stream.tail) == 0
		owned := false
		switch {
		case c.switching && last: // the rest is for the next protocol and stays unread
			owned = stream.keepRest(c.set, data, *buffer, piece.at)
		case c.switching:
			stream.appendTail(c.set, data, piece.at)
		case last:
			owned = c.parseFirst(piece.dir, data, *buffer, piece.at)
		default:
			c.parseData(piece.dir, data, piece.at)
		}
		if owned {
			*buffer = nil
		}
		if c.switching {
			continue
		}
		if stream := &c.streams[piece.dir.Other()]; stream.reparse {
			c.reparse(piece.dir.Other(), piece.at)
		}
	}

	c.pieces = c.pieces[:0]
	for _, buffer := range buffers {
		c.set.releaseTail(buffer)
	}
}

// detectGap skips size bytes that were lost before the protocol was known. From here on the connection counts
// as picked up in mid-stream.
func (c *Conn) detectGap(dir Dir, size int) {
	stream := &c.streams[dir]

	// The port decides if a parser can use the truncated message before the gap.
	if proto := c.truncatedCandidate(dir); proto != noProtocol {
		c.selectProtocol(proto, dir, false)
		c.replayPieces()
		if c.state == parsing && !c.switching {
			c.parseGap(dir, size)
		}
		return
	}

	// The bytes before the gap are dropped, with their pieces. The gap needs a piece only if the other side has
	// sent something before it.
	stream.offset += uint64(len(stream.tail))
	stream.releaseTail(c.set)
	c.pieces = slices.DeleteFunc(c.pieces, func(p piece) bool { return p.dir == dir && !p.end })
	if len(c.pieces) > 0 {
		c.pieces = append(c.pieces, piece{dir: dir, gap: true})
	}
	stream.offset += uint64(size)
	stream.partial = true
	c.midStream, c.info.MidStream = true, true
}

// minTruncated is the number of bytes from which on the port is accepted as evidence, if the bytes do not
// contradict it: those before a gap (truncatedCandidate), those of a server that has answered (endDetection).
const minTruncated = 5

// truncatedCandidate returns the protocol of the server's port if it is still a candidate for the bytes of
// dir before a gap and its parser is a TruncatedParser, else noProtocol.
func (c *Conn) truncatedCandidate(dir Dir) int {
	if c.midStream || len(c.streams[dir].tail) < minTruncated {
		return noProtocol
	}
	for i := range c.set.list {
		if c.candidates[dir]&(1<<i) == 0 || !c.hasPort(i) {
			continue
		}
		protocol := c.set.takeParser(i)
		_, ok := protocol.(TruncatedParser)
		c.set.releaseParser(i, protocol)
		if ok {
			return i
		}
	}
	return noProtocol
}

// discardMidStream drops the bytes in which no message start was found, and ends the detection after
// ResyncBytes or when both sides have ended.
func (c *Conn) discardMidStream() {
	ended := c.streams[0].ended && c.streams[1].ended
	for dir := range c.streams {
		stream := &c.streams[dir]
		c.searched += len(stream.tail)
		stream.offset += uint64(len(stream.tail))
		stream.partial = stream.partial || len(stream.tail) > 0
		stream.releaseTail(c.set)
	}
	c.pieces = c.pieces[:0]
	seen := c.searched
	if seen >= int(c.set.cfg.ResyncBytes) || ended {
		c.endDetection()
		return
	}
	c.startDetection()
	c.searched = seen
}

// hasPort reports whether the server's port is one of proto.
func (c *Conn) hasPort(proto int) bool {
	return slices.Contains(c.set.list[proto].Ports, c.info.Server.Port())
}

// The detection of a dropped connection is started again at each turn: whatever an unknown client sent first is no reason
// to overlook what it sends next. Behind the first maxRedetects turns, on a port of no protocol, the first bytes of a turn
// are matched without buffering them, so that a protocol that is not known costs little. In mid-stream a turn of
// redetectInterval is searched as a whole, too.
const (
	maxRedetects     = 32
	redetectInterval = 64
)

// redetect starts the detection of a dropped connection again, and reports whether it did. It is called when
// the other side begins to send, with its first bytes: at such a point SOCKS, STARTTLS and the like end, and a known
// protocol may begin. These points do not depend on how the bytes are cut into packets.
func (c *Conn) redetect(dir Dir, data []byte) bool {
	if !c.undetected {
		return false
	}
	c.redetects++
	if c.redetects > maxRedetects && !c.hasKnownPort() && !c.mayBegin(dir, data) {
		return false
	}
	c.undetected = false
	c.startDetection()
	if c.midStream { // one block is searched at a turn
		c.searched = max(0, int(c.set.cfg.ResyncBytes-c.set.cfg.DetectBytes))
	}
	return true
}

// mayBegin reports whether a protocol may begin with data, the first bytes of a turn of dir. Line breaks in front do not
// count: memcached answers an empty line with an error and reads on.
func (c *Conn) mayBegin(dir Dir, data []byte) bool {
	if c.midStream && c.redetects%redetectInterval == 0 {
		return true
	}
	role := dir ^ c.flip
	if role == Client && c.answeredAs != 0 {
		return true // the server may answer nonsense in front of a message, and read on
	}
	if text := bytes.TrimLeft(data, "\r\n"); len(text) > 0 {
		data = text
	}
	for i := range c.set.list {
		protocol := &c.set.list[i]
		isReversed := role == Server && protocol.Nested && protocol.Detect(Client, data) == Yes
		if protocol.TCP && (isReversed || protocol.Detect(role, data) != No) {
			return true
		}
	}
	return false
}

// hasKnownPort reports whether the server's port is one of a protocol.
func (c *Conn) hasKnownPort() bool { return c.anyHasPort(^uint64(0)) }

// anyHasPort reports whether the server's port is one of a protocol of set, bits by index.
func (c *Conn) anyHasPort(set uint64) bool {
	for i := range c.set.list {
		if set&(1<<i) != 0 && c.hasPort(i) {
			return true
		}
	}
	return false
}

// endDetection selects the protocol of the server's port if it is still a candidate in both directions, or for
// the bytes of a server that has answered: the client's may be malformed. Otherwise it drops the connection.
func (c *Conn) endDetection() {
	server := Server ^ c.flip
	asked := len(c.streams[server.Other()].tail) > 0 || c.beginning.bytes != nil
	answered := asked && len(c.streams[server].tail) >= minTruncated
	c.refuteByAnswer(server)
	if proto := c.wholeOnOtherPort(server.Other()); proto != noProtocol {
		c.selectProtocol(proto, server.Other(), false)
		c.replayPieces()
		return
	}
	for i := range c.set.list {
		seen := c.streams[0].tail != nil || c.streams[1].tail != nil
		both := c.candidates[0]&c.candidates[1]&(1<<i) != 0 && c.redetects == 0
		byAnswer := answered && c.candidates[server]&^c.refuted&(1<<i) != 0
		if (both || byAnswer) && c.hasPort(i) && seen {
			client := server.Other()
			if data := c.streams[client].tail; len(data) > 0 { // the server's answer may decide otherwise
				c.openProof(client, data, c.streams[client].firstAt())
			}
			c.selectProtocol(i, c.pieces[0].dir, false)
			c.replayPieces()
			return
		}
	}
	if c.selectBySync(server.Other()) {
		return
	}
	if proto := c.wholeMessage(); proto != noProtocol && len(c.streams[server].tail) > 0 {
		c.selectProtocol(proto, server.Other(), false)
		c.replayPieces()
		return
	}
	if (len(c.pieces) > 0 || c.searched > 0) && c.redetects == 0 {
		c.set.metrics.undetected.Inc()
	}
	c.holdBeginning()
	c.state, c.undetected = dropped, true
}

// wholeOnOtherPort returns a protocol that both sides may have and of which a message begins within the client's
// bytes, if none begins there of the protocol of the server's port. Else it returns noProtocol.
func (c *Conn) wholeOnOtherPort(client Dir) int {
	data := c.streams[client].tail
	both := c.candidates[0] & c.candidates[1]
	if c.midStream || c.info.Transport == pipeline.Transport_UDP || both == 0 ||
		len(data) == 0 || len(c.streams[client.Other()].tail) == 0 && !c.anyHasPort(both) {
		return noProtocol
	}
	found := noProtocol
	for i := range c.set.list {
		if both&(1<<i) == 0 {
			continue
		}
		skip, match := c.set.list[i].Sync(Client, data)
		switch {
		case match != Yes || skip >= len(data):
		case c.hasPort(i):
			return noProtocol
		case found == noProtocol:
			found = i
		}
	}
	return found
}

// refuteByAnswer excludes the protocols that the first bytes of the server do not match.
func (c *Conn) refuteByAnswer(server Dir) {
	if c.streams[server].offset == 0 && len(c.streams[server].tail) > 0 {
		c.refuted = ^c.candidates[server]
		if len(c.streams[server].tail) >= minTruncated {
			c.answeredAs = c.candidates[server]
		}
	}
}

// selectBySync selects a protocol if a message of it starts within the client's bytes, whose beginning is not of it:
// the server may have answered that with an error. It is the protocol of the server's port, or one whose servers send
// what this one has sent. If the bytes are the first ones of the client, the parser reads them all: Redis answers each
// line of nonsense, so none may be missing when replies are paired.
func (c *Conn) selectBySync(client Dir) bool {
	if c.info.Transport == pipeline.Transport_UDP {
		return false
	}
	proto := c.syncedProtocol(client, true)
	if proto == noProtocol && !c.midStream && (len(c.streams[client.Other()].tail) > 0 || c.answeredAs != 0) {
		proto = c.syncedProtocol(client, false)
	}
	if proto == noProtocol {
		return false
	}
	lost := c.midStream || c.redetects > 0 && c.beginning.bytes == nil
	c.streams[client].partial = lost
	c.selectProtocol(proto, client, lost)
	c.replayPieces()
	return true
}

// syncedProtocol returns a protocol of which a message starts within the client's bytes, or noProtocol: of
// those with the server's port, or of those that the server's bytes still match.
func (c *Conn) syncedProtocol(client Dir, byPort bool) int {
	for i := range c.set.list {
		protocol := &c.set.list[i]
		allowed := byPort && c.hasPort(i) || !byPort && c.hasAnsweredAs(client.Other(), i)
		if !allowed || !protocol.TCP || c.refuted&(1<<i) != 0 {
			continue
		}
		held := c.beginning.bytes
		if byPort { // before the answer they were matched once
			held = nil
		}
		for _, data := range [...][]byte{held, c.streams[client].tail} {
			if skip, match := protocol.Sync(Client, data); match == Yes && skip < len(data) {
				return i
			}
		}
	}
	return noProtocol
}

// hasAnsweredAs reports whether the server's bytes may be of proto: those of this detection, or else its first ones.
func (c *Conn) hasAnsweredAs(server Dir, proto int) bool {
	if len(c.streams[server].tail) > 0 {
		return c.candidates[server]&(1<<proto) != 0
	}
	return c.answeredAs&(1<<proto) != 0
}

// endsWithinLine reports whether the client's bytes end within a line. The server has answered the lines before it, and the
// line may be a message of a protocol that the answer matches.
func (c *Conn) endsWithinLine(client Dir) bool {
	data := c.streams[client].tail
	start := bytes.LastIndexByte(data, '\n') + 1
	if start == 0 || start == len(data) || len(data)-start > maxUnfinished || len(c.streams[client.Other()].tail) < minTruncated {
		return false
	}
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if protocol.TCP && c.hasAnsweredAs(client.Other(), i) && protocol.Detect(Client, data[start:]) == More {
			return true
		}
	}
	return false
}

// maxUnfinished is the number of bytes of a message that has begun behind others when the server answers those.
const maxUnfinished = 4 << 10

// matchTurn is called when the client begins to send, after the server's answer to what it sent before. It selects a
// protocol that both have, and ends the detection if there is none: the bytes that come begin anew. An answer that may
// be of the protocol of the port is waited for. An answer of no protocol ends it behind a whole line: what the line could
// begin, as SYNC of Redis, has other answers.
func (c *Conn) matchTurn(client Dir, at int64) {
	defer c.recoverPanic()
	asked, answered := c.candidates[client], c.candidates[client.Other()]
	c.refuteByAnswer(client.Other())
	switch {
	case c.selectBySync(client):
		c.applyRequests(at)
	case c.endsWithinLine(client):
	case asked == 0, answered != 0 && asked&answered == 0 && !c.anyHasPort(answered),
		answered == 0 && bytes.HasSuffix(c.streams[client].tail, []byte{'\n'}) && !c.anyHasPort(asked):
		c.stopBuffering(at)
	}
}

// wholeMessage returns the protocol for whose DetectWhole the client's bytes are a message, or noProtocol. They are
// the first ones of the connection, or those of a turn.
func (c *Conn) wholeMessage() int {
	client := Client ^ c.flip
	if c.midStream || len(c.streams[client].tail) == 0 {
		return noProtocol
	}
	for i := range c.set.list {
		whole := c.set.list[i].DetectWhole
		if whole != nil && c.candidates[client]&(1<<i) != 0 && whole(c.streams[client].tail) {
			return i
		}
	}
	return noProtocol
}

// maxUnrecognised is the number of datagrams of a direction after which the protocol counts as unknown in the
// metrics. The next datagram is looked at all the same, since each stands alone.
const maxUnrecognised = 8

// detectDatagram tries to detect the protocol from the datagram data.
func (c *Conn) detectDatagram(dir Dir, data []byte) {
	if proto := c.matchDatagram(dir, data); proto != noProtocol {
		c.startParser(proto)
		return
	}
	if c.unrecognised[dir]++; c.unrecognised[dir] == maxUnrecognised {
		c.set.metrics.undetected.Inc()
	}
}

// matchDatagram returns the protocol of a datagram, or noProtocol. A datagram has no continuation, so where its
// bytes do not decide the port does: the server's, or the client's if the roles were inferred wrongly.
func (c *Conn) matchDatagram(dir Dir, data []byte) int {
	yes, byPort := noProtocol, noProtocol
	for i := range c.set.list {
		if c.candidates[dir]&(1<<i) == 0 {
			continue
		}
		switch c.set.list[i].Detect(dir^c.flip, data) {
		case Yes:
			if yes == noProtocol || c.hasPort(i) && !c.hasPort(yes) {
				yes = i
			}
		case More:
			if byPort == noProtocol && (c.hasPort(i) || slices.Contains(c.set.list[i].Ports, c.info.Client.Port())) {
				byPort = i
			}
		}
	}
	if yes != noProtocol {
		return yes
	}
	return byPort
}
