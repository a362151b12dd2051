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

// detect begins to look for the protocol.
func (c *Conn) detect() {
	c.state, c.proto = detecting, none
	c.open, c.seen = [2]uint64{}, 0
	for i := range c.set.list {
		p := &c.set.list[i]
		if c.turns > 0 && !p.Inside {
			continue
		}
		if !c.hinted(i) && (slices.Contains(p.Not, c.info.Server.Port()) || slices.Contains(p.Not, c.info.Client.Port())) {
			continue
		}
		if c.info.Transport == pipeline.Transport_UDP && p.UDP || c.info.Transport != pipeline.Transport_UDP && p.TCP {
			c.open[0] |= 1 << i
			c.open[1] |= 1 << i
		}
	}
}

// observe looks at bytes of a connection whose protocol is not known yet. In the usual case the first of them tell it, and the
// parser reads them where they lie.
func (c *Conn) observe(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	if len(c.pieces) == 0 && len(s.tail) == 0 {
		s.at = at
		i, lost := c.ask(dir, b)
		if i != none {
			c.choose(i, dir, lost)
			c.feed(dir, b, at)
			return
		}
		c.keep(dir, b, at)
		c.doubt(dir)
		return
	}
	c.keep(dir, b, at)
	c.recognise(dir)
}

// keep puts b behind what came before it.
func (c *Conn) keep(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	s.push(c.set, b, at)
	s.at = at
	if n := len(c.pieces); n > 0 && c.pieces[n-1].dir == dir && c.pieces[n-1].at == at && !c.pieces[n-1].end {
		c.pieces[n-1].n += len(b)
		return
	}
	c.pieces = append(c.pieces, piece{dir: dir, n: len(b), at: at})
}

// recognise asks the protocols about what is known of dir.
func (c *Conn) recognise(dir Dir) {
	s := &c.streams[dir]
	if len(s.tail) == 0 {
		return
	}
	i, lost := c.ask(dir, s.tail)
	if i == none {
		c.doubt(dir)
		return
	}
	c.choose(i, dir, lost)
	c.replay()
}

// doubt gives up on a connection that no protocol claims when none is left or enough was seen. What one side sent may be broken while
// the other still answers in words that we know, so both are heard.
func (c *Conn) doubt(dir Dir) {
	enough := len(c.streams[dir].tail) >= c.set.cfg.Detect || len(c.pieces) >= maxPieces
	left := c.open[0] | c.open[1]
	if c.mid || c.turns > 0 {
		left = c.open[dir]
	}
	switch {
	case left != 0 && !enough:
	case c.mid:
		c.forget()
	default:
		c.giveUp()
	}
}

// ask finds the protocol of which b is the front of dir; lost tells that a message only begins somewhere in b. It also strikes out
// the protocols that b cannot be.
func (c *Conn) ask(dir Dir, b []byte) (proto int, lost bool) {
	role := dir ^ c.flip
	yes := none
	for i := range c.set.list {
		if c.open[dir]&(1<<i) == 0 {
			continue
		}
		switch c.set.list[i].Detect(role, b) {
		case No:
			c.open[dir] &^= 1 << i
		case Yes:
			if yes == none || c.hinted(i) && !c.hinted(yes) {
				yes = i
			}
		}
	}
	switch {
	case yes != none:
		return yes, false
	case c.mid:
		return c.askMidStream(role, b)
	case role == Server && c.open[dir] == 0 && c.info.Transport != pipeline.Transport_UDP:
		return c.askOtherWay(dir, b), false
	}
	return none, false
}

// askOtherWay asks whether b, which is nothing that a server says first, is what a client says first: who opened the connection may
// be the one that serves on it, as behind a proxy that goes backwards, or in an attack.
func (c *Conn) askOtherWay(dir Dir, b []byte) int {
	if s := &c.streams[dir.Other()]; len(s.tail) > 0 || c.turns == 0 && (s.off > 0 || c.streams[dir].off > 0) {
		return none
	}
	for i := range c.set.list {
		if p := &c.set.list[i]; p.TCP && (p.Inside || c.turns == 0) && p.Detect(Client, b) == Yes {
			c.Flip()
			return i
		}
	}
	return none
}

// askMidStream asks as ask does, but b may begin in the middle of a message and the roles may be the other way round.
func (c *Conn) askMidStream(role Dir, b []byte) (proto int, lost bool) {
	for i := range c.set.list {
		if p := &c.set.list[i]; p.TCP && p.Detect(role.Other(), b) == Yes && !c.spoken() {
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
		if m == Yes && skip >= 0 && skip < len(b) && (c.hinted(i) || p.Detect(role, b[skip:]) == Yes) {
			return i, true
		}
	}
	return none, false
}

// spoken tells that both sides have sent: the roles are not changed on the word of one of them then.
func (c *Conn) spoken() bool { return len(c.streams[0].tail) > 0 && len(c.streams[1].tail) > 0 }

// choose begins protocol i, found in dir. In mid-stream the place in the other direction is not known.
func (c *Conn) choose(i int, dir Dir, lost bool) {
	c.streams[dir].lost = lost
	c.streams[dir.Other()].lost = c.mid
	c.begin(i)
	for d := range c.streams {
		if c.streams[d].partial { // bytes were lost or let go before the protocol was known
			c.parser.Gap(Dir(d)^c.flip, 1)
		}
	}
}

// replay gives the parser what came before the protocol was known, in its order.
func (c *Conn) replay() {
	var bufs [2][]byte
	var pos [2]int
	for d := range c.streams {
		s := &c.streams[d]
		bufs[d] = s.tail
		s.tail, s.need, s.marks, s.head = nil, 0, s.marks[:0], 0
	}
	for _, p := range c.pieces {
		if c.state == dropped {
			break
		}
		if p.end {
			if !c.become {
				c.parser.End(p.dir^c.flip, p.at)
			}
			continue
		}
		b := bufs[p.dir][pos[p.dir]:][:p.n]
		pos[p.dir] += p.n
		if c.become { // the rest goes to the next protocol, as what is unread
			c.streams[p.dir].push(c.set, b, p.at)
			continue
		}
		c.feed(p.dir, b, p.at)
		if s := &c.streams[p.dir.Other()]; s.again && !c.become {
			c.repeat(p.dir.Other(), p.at)
		}
	}
	c.pieces = c.pieces[:0]
	for _, b := range bufs {
		c.set.freeTail(b)
	}
}

// observeGap passes bytes that were never seen before the protocol was known: from here on it is as if in mid-stream.
func (c *Conn) observeGap(dir Dir, n int) {
	s := &c.streams[dir]
	if i := c.cutter(dir); i != none {
		c.choose(i, dir, false)
		c.replay()
		if c.state == parsing && !c.become {
			c.gap(dir, n)
		}
		return
	}
	s.off += uint64(len(s.tail))
	s.release(c.set)
	c.pieces = slices.DeleteFunc(c.pieces, func(p piece) bool { return p.dir == dir && !p.end })
	s.off += uint64(n)
	s.partial = true
	c.mid, c.info.MidStream = true, true
}

// minCut is how many bytes must be there for cutter to believe the port.
const minCut = 8

// cutter is the protocol of the port, if what was seen of dir before a gap may be the front of a message of it and its parser can
// read such: it will not become clearer.
func (c *Conn) cutter(dir Dir) int {
	if c.mid || len(c.streams[dir].tail) < minCut {
		return none
	}
	for i := range c.set.list {
		if c.open[dir]&(1<<i) == 0 || !c.hinted(i) {
			continue
		}
		p := c.set.parser(i)
		_, ok := p.(Cutter)
		c.set.freeParser(i, p)
		if ok {
			return i
		}
	}
	return none
}

// forget lets go what was seen in mid-stream and told nothing, until too much was seen.
func (c *Conn) forget() {
	ended := c.streams[0].ended && c.streams[1].ended
	for d := range c.streams {
		s := &c.streams[d]
		c.seen += len(s.tail)
		s.off += uint64(len(s.tail))
		s.partial = s.partial || len(s.tail) > 0
		s.release(c.set)
	}
	c.pieces = c.pieces[:0]
	seen := c.seen
	if seen >= c.set.cfg.MidStream || ended {
		c.giveUp()
		return
	}
	c.detect()
	c.seen = seen
}

// hinted tells that the server's port is one of protocol i.
func (c *Conn) hinted(i int) bool {
	return slices.Contains(c.set.list[i].Ports, c.info.Server.Port())
}

// maxTurns is how often a connection of no protocol is looked at again.
const maxTurns = 32

// lookAgain looks for the protocol of an ignored connection once more when the word passes to the other side: SOCKS, STARTTLS and the
// like come to their end so, and what begins then may be one of ours. That a turn begins does not hang on how the bytes are cut.
func (c *Conn) lookAgain() bool {
	if !c.unknown || c.mid || c.turns >= maxTurns {
		return false
	}
	c.turns++
	c.unknown = false
	c.detect()
	return true
}

// giveUp takes the protocol of the port, where the bytes do not speak against it, or ignores the connection.
func (c *Conn) giveUp() {
	for i := range c.set.list {
		if c.turns > 0 {
			break
		}
		if c.open[0]&c.open[1]&(1<<i) != 0 && c.hinted(i) && (c.streams[0].tail != nil || c.streams[1].tail != nil) {
			c.choose(i, c.pieces[0].dir, false)
			c.replay()
			return
		}
	}
	if (len(c.pieces) > 0 || c.seen > 0) && c.turns == 0 {
		c.set.metrics.undetected.Inc()
	}
	c.state, c.unknown = dropped, true
}

// maxBare is how many datagrams of a connection are looked at before it counts as none of the protocols.
const maxBare = 8

// detectDatagram looks for the protocol of which b is a datagram.
func (c *Conn) detectDatagram(dir Dir, b []byte) {
	i, _ := c.ask(dir, b)
	if i == none {
		i = c.hintedOpen(dir) // no more comes of a datagram: of what looks odd the port decides
	}
	if i != none {
		c.begin(i)
		return
	}
	if c.bare[dir]++; c.bare[dir] >= maxBare {
		c.set.metrics.undetected.Inc()
		c.state = dropped
		return
	}
	c.detect() // each datagram stands for itself
}

// hintedOpen is the protocol of the server's port, or of the client's if the roles were guessed wrong, if the bytes of dir do not
// speak against it.
func (c *Conn) hintedOpen(dir Dir) int {
	for i := range c.set.list {
		ports := c.set.list[i].Ports
		if c.open[dir]&(1<<i) != 0 && (c.hinted(i) || slices.Contains(ports, c.info.Client.Port())) {
			return i
		}
	}
	return none
}
