package protocols

import (
	"slices"

	"tidegate/pipeline"
)

// A piece is something that came before the protocol was known: n bytes, which lie in the tail of dir, or its end.
type piece struct {
	dir Dir
	end bool
	n   int
	at  int64
}

// maxPieces bounds how many are kept; a protocol that is not known by then is not known at all.
const maxPieces = 256

// startDetection begins to look for the protocol.
func (c *Conn) startDetection() {
	c.state, c.proto = detecting, none
	c.candidates, c.searched = [2]uint64{}, 0
	for i := range c.set.list {
		p := &c.set.list[i]
		if c.redetects > 0 && !p.Nested {
			continue
		}
		if !c.hasPort(i) && (slices.Contains(p.ExcludePorts, c.info.Server.Port()) || slices.Contains(p.ExcludePorts, c.info.Client.Port())) {
			continue
		}
		if c.info.Transport == pipeline.Transport_UDP && p.UDP || c.info.Transport != pipeline.Transport_UDP && p.TCP {
			c.candidates[0] |= 1 << i
			c.candidates[1] |= 1 << i
		}
	}
}

// detectData looks at bytes of a connection whose protocol is not known yet. In the usual case the first of them tell it, and the
// parser reads them where they lie.
func (c *Conn) detectData(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	if len(c.pieces) == 0 && len(s.tail) == 0 {
		s.lastAt = at
		i, lost := c.matchProtocol(dir, b)
		if i != none {
			c.selectProtocol(i, dir, lost)
			c.parseData(dir, b, at)
			return
		}
		c.bufferData(dir, b, at)
		c.checkCandidates(dir)
		return
	}
	c.bufferData(dir, b, at)
	c.detectBuffered(dir)
}

// bufferData puts b behind what came before it.
func (c *Conn) bufferData(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	s.appendTail(c.set, b, at)
	s.lastAt = at
	if n := len(c.pieces); n > 0 && c.pieces[n-1].dir == dir && c.pieces[n-1].at == at && !c.pieces[n-1].end {
		c.pieces[n-1].n += len(b)
		return
	}
	c.pieces = append(c.pieces, piece{dir: dir, n: len(b), at: at})
}

// detectBuffered asks the protocols about what is known of dir.
func (c *Conn) detectBuffered(dir Dir) {
	s := &c.streams[dir]
	if len(s.tail) == 0 {
		return
	}
	i, lost := c.matchProtocol(dir, s.tail)
	if i == none {
		c.checkCandidates(dir)
		return
	}
	c.selectProtocol(i, dir, lost)
	c.replayPieces()
}

// checkCandidates gives up on a connection that no protocol claims when none is left or enough was seen. What one side sent may be broken while
// the other still answers in words that we know, so both are heard.
func (c *Conn) checkCandidates(dir Dir) {
	enough := len(c.streams[dir].tail) >= int(c.set.cfg.DetectBytes) || len(c.pieces) >= maxPieces
	left := c.candidates[0] | c.candidates[1]
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

// matchProtocol finds the protocol of which b is the front of dir; lost tells that a message only begins somewhere in b. It also strikes out
// the protocols that b cannot be.
func (c *Conn) matchProtocol(dir Dir, b []byte) (proto int, lost bool) {
	role := dir ^ c.flip
	yes := none
	for i := range c.set.list {
		if c.candidates[dir]&(1<<i) == 0 {
			continue
		}
		switch c.set.list[i].Detect(role, b) {
		case No:
			c.candidates[dir] &^= 1 << i
		case Yes:
			if yes == none || c.hasPort(i) && !c.hasPort(yes) {
				yes = i
			}
		}
	}
	switch {
	case yes != none:
		return yes, false
	case c.midStream:
		return c.matchMidStream(role, b)
	case role == Server && c.candidates[dir] == 0 && c.info.Transport != pipeline.Transport_UDP:
		return c.matchReversed(dir, b), false
	}
	return none, false
}

// matchReversed asks whether b, which is nothing that a server says first, is what a client says first: who opened the connection may
// be the one that serves on it, as behind a proxy that goes backwards, or in an attack.
func (c *Conn) matchReversed(dir Dir, b []byte) int {
	if s := &c.streams[dir.Other()]; len(s.tail) > 0 || c.redetects == 0 && (s.offset > 0 || c.streams[dir].offset > 0) {
		return none
	}
	for i := range c.set.list {
		if p := &c.set.list[i]; p.TCP && (p.Nested || c.redetects == 0) && p.Detect(Client, b) == Yes {
			c.Flip()
			return i
		}
	}
	return none
}

// matchMidStream asks as ask does, but b may begin in the middle of a message and the roles may be the other way round.
func (c *Conn) matchMidStream(role Dir, b []byte) (proto int, lost bool) {
	for i := range c.set.list {
		if p := &c.set.list[i]; p.TCP && p.Detect(role.Other(), b) == Yes && !c.bothSent() {
			c.Flip()
			return i, false
		}
	}
	for i := range c.set.list {
		p := &c.set.list[i]
		if !p.TCP {
			continue
		}
		skip, m := p.Sync(role, b)
		if m == Yes && skip >= 0 && skip < len(b) && (c.hasPort(i) || p.Detect(role, b[skip:]) == Yes) {
			return i, true
		}
	}
	return none, false
}

// bothSent tells that both sides have sent: the roles are not changed on the word of one of them then.
func (c *Conn) bothSent() bool { return len(c.streams[0].tail) > 0 && len(c.streams[1].tail) > 0 }

// selectProtocol begins protocol i, found in dir. In mid-stream the place in the other direction is not known.
func (c *Conn) selectProtocol(i int, dir Dir, lost bool) {
	c.streams[dir].lost = lost
	c.streams[dir.Other()].lost = c.midStream
	c.startParser(i)
	for d := range c.streams {
		if c.streams[d].partial { // bytes were lost or let go before the protocol was known
			c.parser.Gap(Dir(d)^c.flip, 1)
		}
	}
}

// replayPieces gives the parser what came before the protocol was known, in its order.
func (c *Conn) replayPieces() {
	var bufs [2][]byte
	var pos [2]int
	for d := range c.streams {
		s := &c.streams[d]
		bufs[d] = s.tail
		s.tail, s.need, s.arrivals, s.head = nil, 0, s.arrivals[:0], 0
	}
	for _, p := range c.pieces {
		if c.state == dropped {
			break
		}
		if p.end {
			if !c.switching {
				c.parser.End(p.dir^c.flip, p.at)
			}
			continue
		}
		b := bufs[p.dir][pos[p.dir]:][:p.n]
		pos[p.dir] += p.n
		if c.switching { // the rest goes to the next protocol, as what is unread
			c.streams[p.dir].appendTail(c.set, b, p.at)
			continue
		}
		c.parseData(p.dir, b, p.at)
		if s := &c.streams[p.dir.Other()]; s.reparse && !c.switching {
			c.reparse(p.dir.Other(), p.at)
		}
	}
	c.pieces = c.pieces[:0]
	for _, b := range bufs {
		c.set.releaseTail(b)
	}
}

// detectGap passes bytes that were never seen before the protocol was known: from here on it is as if in mid-stream.
func (c *Conn) detectGap(dir Dir, n int) {
	s := &c.streams[dir]
	if i := c.truncatedCandidate(dir); i != none {
		c.selectProtocol(i, dir, false)
		c.replayPieces()
		if c.state == parsing && !c.switching {
			c.parseGap(dir, n)
		}
		return
	}
	s.offset += uint64(len(s.tail))
	s.releaseTail(c.set)
	c.pieces = slices.DeleteFunc(c.pieces, func(p piece) bool { return p.dir == dir && !p.end })
	s.offset += uint64(n)
	s.partial = true
	c.midStream, c.info.MidStream = true, true
}

// minTruncated is how many bytes must be there for cutter to believe the port.
const minTruncated = 8

// truncatedCandidate is the protocol of the port, if what was seen of dir before a gap may be the front of a message of it and its parser can
// read such: it will not become clearer.
func (c *Conn) truncatedCandidate(dir Dir) int {
	if c.midStream || len(c.streams[dir].tail) < minTruncated {
		return none
	}
	for i := range c.set.list {
		if c.candidates[dir]&(1<<i) == 0 || !c.hasPort(i) {
			continue
		}
		p := c.set.takeParser(i)
		_, ok := p.(TruncatedParser)
		c.set.releaseParser(i, p)
		if ok {
			return i
		}
	}
	return none
}

// discardMidStream lets go what was seen in mid-stream and told nothing, until too much was seen.
func (c *Conn) discardMidStream() {
	ended := c.streams[0].ended && c.streams[1].ended
	for d := range c.streams {
		s := &c.streams[d]
		c.searched += len(s.tail)
		s.offset += uint64(len(s.tail))
		s.partial = s.partial || len(s.tail) > 0
		s.releaseTail(c.set)
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

// hasPort tells that the server's port is one of protocol i.
func (c *Conn) hasPort(i int) bool {
	return slices.Contains(c.set.list[i].Ports, c.info.Server.Port())
}

// maxRedetects is how often a connection of no protocol is looked at again.
const maxRedetects = 32

// redetect looks for the protocol of an ignored connection once more when the word passes to the other side: SOCKS, STARTTLS and the
// like come to their end so, and what begins then may be one of ours. That a turn begins does not hang on how the bytes are cut.
func (c *Conn) redetect() bool {
	if !c.undetected || c.midStream || c.redetects >= maxRedetects {
		return false
	}
	c.redetects++
	c.undetected = false
	c.startDetection()
	return true
}

// endDetection takes the protocol of the port, where the bytes do not speak against it, or ignores the connection.
func (c *Conn) endDetection() {
	for i := range c.set.list {
		if c.redetects > 0 {
			break
		}
		if c.candidates[0]&c.candidates[1]&(1<<i) != 0 && c.hasPort(i) && (c.streams[0].tail != nil || c.streams[1].tail != nil) {
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

// maxUnrecognised is how many datagrams of a connection are looked at before it counts as none of the protocols.
const maxUnrecognised = 8

// detectDatagram looks for the protocol of which b is a datagram.
func (c *Conn) detectDatagram(dir Dir, b []byte) {
	i, _ := c.matchProtocol(dir, b)
	if i == none {
		i = c.candidateByPort(dir) // no more comes of a datagram: of what looks odd the port decides
	}
	if i != none {
		c.startParser(i)
		return
	}
	if c.unrecognised[dir]++; c.unrecognised[dir] >= maxUnrecognised {
		c.set.metrics.undetected.Inc()
		c.state = dropped
		return
	}
	c.startDetection() // each datagram stands for itself
}

// candidateByPort is the protocol of the server's port, or of the client's if the roles were guessed wrong, if the bytes of dir do not
// speak against it.
func (c *Conn) candidateByPort(dir Dir) int {
	for i := range c.set.list {
		ports := c.set.list[i].Ports
		if c.candidates[dir]&(1<<i) != 0 && (c.hasPort(i) || slices.Contains(ports, c.info.Client.Port())) {
			return i
		}
	}
	return none
}
