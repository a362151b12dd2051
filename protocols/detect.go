package protocols

import (
	"slices"

	"tidegate/pipeline"
)

// A piece is something that came before the protocol was known: n bytes, which lie in the tail of dir, or the
// end of dir.
type piece struct {
	dir Dir
	end bool
	n   int
	at  int64
}

// maxPieces is how many pieces are kept. The protocol of a connection with more is unknown.
const maxPieces = 256

// startDetection begins to look for the protocol: every protocol that the transport and the ports allow is a
// candidate in both directions.
func (c *Conn) startDetection() {
	c.state, c.proto = detecting, noProtocol
	c.candidates, c.searched = [2]uint64{}, 0
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if c.redetects > 0 && !protocol.Nested {
			continue
		}
		excluded := slices.Contains(protocol.ExcludePorts, c.info.Server.Port()) ||
			slices.Contains(protocol.ExcludePorts, c.info.Client.Port())
		if excluded && !c.hasPort(i) {
			continue
		}
		if udp := c.info.Transport == pipeline.Transport_UDP; udp && protocol.UDP || !udp && protocol.TCP {
			c.candidates[0] |= 1 << i
			c.candidates[1] |= 1 << i
		}
	}
}

// detectData looks for the protocol of a connection with the bytes that have just come. Usually the first
// bytes decide, and the parser reads them from the caller's slice.
func (c *Conn) detectData(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	if len(c.pieces) == 0 && len(stream.tail) == 0 {
		stream.lastAt = at
		i, lost := c.matchProtocol(dir, data)
		if i != noProtocol {
			c.selectProtocol(i, dir, lost)
			c.parseData(dir, data, at)
			return
		}
		c.bufferData(dir, data, at)
		c.checkCandidates(dir)
		return
	}
	c.bufferData(dir, data, at)
	c.detectBuffered(dir)
}

// bufferData appends b to what has come so far.
func (c *Conn) bufferData(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	stream.appendTail(c.set, data, at)
	stream.lastAt = at
	if n := len(c.pieces); n > 0 && c.pieces[n-1].dir == dir && c.pieces[n-1].at == at && !c.pieces[n-1].end {
		c.pieces[n-1].n += len(data)
		return
	}
	c.pieces = append(c.pieces, piece{dir: dir, n: len(data), at: at})
}

// detectBuffered looks for the protocol with all bytes of dir that have come so far.
func (c *Conn) detectBuffered(dir Dir) {
	stream := &c.streams[dir]
	if len(stream.tail) == 0 {
		return
	}
	i, lost := c.matchProtocol(dir, stream.tail)
	if i == noProtocol {
		c.checkCandidates(dir)
		return
	}
	c.selectProtocol(i, dir, lost)
	c.replayPieces()
}

// checkCandidates ends the detection of a connection that no protocol has matched if no candidate is left or
// enough was seen. What one side sends may be broken while the other still answers in a known protocol, so
// the candidates of both sides count.
func (c *Conn) checkCandidates(dir Dir) {
	enough := len(c.streams[dir].tail) >= int(c.set.cfg.DetectBytes) || len(c.pieces) >= maxPieces
	left := c.candidates[0] | c.candidates[1]
	// Behind bytes that were not recognised the other side's candidates say nothing of this one.
	if c.midStream || c.redetects > 0 {
		left = c.candidates[dir]
	}
	switch {
	case left != 0 && !enough:
	case c.midStream:
		c.discardMidStream()
	default:
		c.endDetection()
	}
}

// matchProtocol returns the protocol that b, the front of dir, is of, or noProtocol; a protocol of the
// server's port comes first. lost reports that a message begins only somewhere in b. Protocols that b cannot
// be of are no candidates any more.
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
			if yes == noProtocol || c.hasPort(i) && !c.hasPort(yes) {
				yes = i
			}
		}
	}
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

// matchReversed returns the protocol of which b is what a client sends first, though it comes from the
// server, and flips the connection. The side that opened the connection may be the one that serves on it, as
// behind a reverse tunnel.
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

// matchMidStream is matchProtocol for bytes that may begin in the middle of a message, and whose roles may be
// the other way round.
func (c *Conn) matchMidStream(role Dir, data []byte) (proto int, lost bool) {
	// b is the start of a message of the other side: the roles were guessed wrong.
	for i := range c.set.list {
		if protocol := &c.set.list[i]; protocol.TCP && protocol.Detect(role.Other(), data) == Yes && !c.bothSent() {
			c.Flip()
			return i, false
		}
	}

	// A message starts somewhere in b. Sync finds many things, so the port or Detect must agree.
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if !protocol.TCP {
			continue
		}
		skip, match := protocol.Sync(role, data)
		if match == Yes && skip >= 0 && skip < len(data) && (c.hasPort(i) || protocol.Detect(role, data[skip:]) == Yes) {
			return i, true
		}
	}
	return noProtocol, false
}

// bothSent reports whether both sides have sent. Then the bytes of one of them do not flip the roles.
func (c *Conn) bothSent() bool { return len(c.streams[0].tail) > 0 && len(c.streams[1].tail) > 0 }

// selectProtocol starts the parser of protocol i, which was recognised in dir. In mid-stream the place in the
// other direction is not known.
func (c *Conn) selectProtocol(i int, dir Dir, lost bool) {
	c.streams[dir].lost = lost
	c.streams[dir.Other()].lost = c.midStream
	c.startParser(i)
	for d := range c.streams {
		if c.streams[d].partial { // bytes were lost or discarded before the protocol was known
			c.parser.Gap(Dir(d)^c.flip, 1)
		}
	}
}

// replayPieces calls the parser for what came before the protocol was known, in its order.
func (c *Conn) replayPieces() {
	// The parser appends to the tails what it leaves unread, so they are taken away first.
	var bufs [2][]byte
	var pos [2]int
	for d := range c.streams {
		stream := &c.streams[d]
		bufs[d] = stream.tail
		stream.tail, stream.need, stream.arrivals, stream.head = nil, 0, stream.arrivals[:0], 0
	}

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
		data := bufs[piece.dir][pos[piece.dir]:][:piece.n]
		pos[piece.dir] += piece.n
		if c.switching { // the rest belongs to the next protocol: it stays unread
			c.streams[piece.dir].appendTail(c.set, data, piece.at)
			continue
		}
		c.parseData(piece.dir, data, piece.at)
		if stream := &c.streams[piece.dir.Other()]; stream.reparse && !c.switching {
			c.reparse(piece.dir.Other(), piece.at)
		}
	}

	c.pieces = c.pieces[:0]
	for _, b := range bufs {
		c.set.releaseTail(b)
	}
}

// detectGap skips bytes that were lost before the protocol was known. From here on the connection is one in
// mid-stream.
func (c *Conn) detectGap(dir Dir, n int) {
	stream := &c.streams[dir]
	if i := c.truncatedCandidate(dir); i != noProtocol {
		c.selectProtocol(i, dir, false)
		c.replayPieces()
		if c.state == parsing && !c.switching {
			c.parseGap(dir, n)
		}
		return
	}
	stream.offset += uint64(len(stream.tail))
	stream.releaseTail(c.set)
	c.pieces = slices.DeleteFunc(c.pieces, func(p piece) bool { return p.dir == dir && !p.end })
	stream.offset += uint64(n)
	stream.partial = true
	c.midStream, c.info.MidStream = true, true
}

// minTruncated is how many bytes must have been seen for truncatedCandidate to trust the port.
const minTruncated = 8

// truncatedCandidate returns the protocol of the server's port, if what was seen of dir before a gap may be
// the front of a message of it and its parser can parse such a front: nothing clearer will come.
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

// discardMidStream drops what was seen in mid-stream without a match, and ends the detection when too much
// was.
func (c *Conn) discardMidStream() {
	ended := c.streams[0].ended && c.streams[1].ended
	for d := range c.streams {
		stream := &c.streams[d]
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

// hasPort reports whether the server's port is one of protocol i.
func (c *Conn) hasPort(i int) bool {
	return slices.Contains(c.set.list[i].Ports, c.info.Server.Port())
}

// maxRedetects is how often the protocol of a connection is looked for again.
const maxRedetects = 32

// redetect looks for the protocol of a dropped connection once more when the other side begins to send: there
// SOCKS, STARTTLS and the like end, and a known protocol may begin. It reports whether the connection is
// looked at again. That a side begins to send does not depend on how the bytes are cut.
func (c *Conn) redetect() bool {
	if !c.undetected || c.midStream || c.redetects >= maxRedetects {
		return false
	}
	c.redetects++
	c.undetected = false
	c.startDetection()
	return true
}

// endDetection selects the protocol of the port if the bytes do not speak against it, or drops the
// connection.
func (c *Conn) endDetection() {
	for i := range c.set.list {
		if c.redetects > 0 {
			break
		}
		seen := c.streams[0].tail != nil || c.streams[1].tail != nil
		if c.candidates[0]&c.candidates[1]&(1<<i) != 0 && c.hasPort(i) && seen {
			c.selectProtocol(i, c.pieces[0].dir, false)
			c.replayPieces()
			return
		}
	}
	if (len(c.pieces) > 0 || c.searched > 0) && c.redetects == 0 {
		c.set.metrics.undetected.Inc()
	}
	c.state, c.undetected = dropped, true
}

// maxUnrecognised is how many datagrams of a direction are looked at before the protocol counts as unknown.
const maxUnrecognised = 8

// detectDatagram looks for the protocol of the datagram b.
func (c *Conn) detectDatagram(dir Dir, b []byte) {
	i, _ := c.matchProtocol(dir, b)
	if i == noProtocol {
		i = c.candidateByPort(dir) // nothing more comes of a datagram, so the port decides
	}
	if i != noProtocol {
		c.startParser(i)
		return
	}
	if c.unrecognised[dir]++; c.unrecognised[dir] >= maxUnrecognised {
		c.set.metrics.undetected.Inc()
		c.state = dropped
		return
	}
	c.startDetection() // of the next datagram every protocol is a candidate again
}

// candidateByPort returns the candidate of dir whose port is the server's, or the client's if the roles were
// guessed wrong.
func (c *Conn) candidateByPort(dir Dir) int {
	for i := range c.set.list {
		ports := c.set.list[i].Ports
		if c.candidates[dir]&(1<<i) != 0 && (c.hasPort(i) || slices.Contains(ports, c.info.Client.Port())) {
			return i
		}
	}
	return noProtocol
}
