package protocols

// feed gives b to the parser, behind what waits of the same direction, and keeps what it leaves unread.
func (c *Conn) feed(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	if len(s.tail) == 0 {
		s.at = at
		n := s.skipped(len(b))
		if n < len(b) {
			n += c.consume(dir, b[n:], at)
		}
		if n < len(b) && c.state == parsing {
			s.push(c.set, b[n:], at)
			c.limit(dir)
		}
		return
	}
	s.push(c.set, b, at)
	s.at = at
	c.reread(dir, at)
}

// reread gives the tail to the parser once more.
func (c *Conn) reread(dir Dir, at int64) {
	s := &c.streams[dir]
	if len(s.tail) == 0 || c.state != parsing {
		return
	}
	n := c.consume(dir, s.tail, at)
	if c.state == parsing {
		s.shift(c.set, n)
		c.limit(dir)
	}
}

// consume has the parser read messages from the front of b while there are any and returns how many bytes of b are done with.
func (c *Conn) consume(dir Dir, b []byte, at int64) (n int) {
	s := &c.streams[dir]
	for n < len(b) && c.state == parsing && !c.become {
		if k := s.skipped(len(b) - n); k > 0 {
			n += k
			continue
		}
		rest := b[n:]
		if len(rest) < s.need {
			return n
		}
		s.need = 0
		if s.lost {
			n += c.resync(dir, rest)
			if s.lost {
				return n
			}
			continue
		}
		flip := c.flip
		k, err := c.parser.Parse(dir^flip, rest, at)
		switch {
		case err != nil || k < 0 || k > len(rest):
			c.fail()
			n++
			c.misread(dir)
		case k > 0:
			n += k
			s.advance(k)
			s.partial = false
			if c.errors > 0 {
				c.errors--
			}
		case c.flip == flip && s.skip == 0 && !c.become:
			s.need = max(s.need, len(rest)+1)
			return n
		}
	}
	return n
}

// errorWeight is how many messages make up for one error.
const errorWeight = 4

// fail counts a parse error and gives up on a connection that has too many.
func (c *Conn) fail() {
	c.set.counts[c.proto].errors.Inc()
	c.errors += errorWeight
	if c.errors > errorWeight*c.set.cfg.Errors {
		c.Count("too_many_errors")
		c.state = dropped
	}
}

// misread loses the place in a stream whose front could not be parsed: one byte is passed, Sync finds what comes next.
func (c *Conn) misread(dir Dir) {
	s := &c.streams[dir]
	s.advance(1)
	s.lost, s.partial, s.need, s.skip = true, true, 0, 0
	c.lose("resync", 1)
	if c.state == parsing {
		c.parser.Gap(dir^c.flip, 1)
	}
}

// maxLost bounds what is kept while the start of a message is looked for.
const maxLost = 8 << 10

// resync looks for the start of a message and returns how many bytes of b lie before it. The place is still lost where the stream's
// lost is still set: more has to come.
func (c *Conn) resync(dir Dir, b []byte) int {
	s := &c.streams[dir]
	skip, m := c.set.list[c.proto].Sync(dir^c.flip, b)
	skip = min(max(skip, 0), len(b))
	switch {
	case m == Yes && skip < len(b):
		s.lost = false
		if skip > 0 {
			s.partial = true
		}
		if s.partial {
			c.set.counts[c.proto].resyncs.Inc()
		}
	case m == More && len(b)-skip <= maxLost:
		s.need = len(b) - skip + 1
	default:
		skip = len(b)
	}
	s.advance(skip)
	c.lose("resync", skip)
	return skip
}

// gap passes n bytes that were never seen, and with them the unread bytes before them.
func (c *Conn) gap(dir Dir, n int) {
	s := &c.streams[dir]
	unread := len(s.tail)
	c.cut(dir)
	c.lose("gap", unread)
	s.release(c.set)
	n += unread
	wanted := s.skip < uint64(n)
	goesOn := c.parser.Gap(dir^c.flip, n)
	s.off += uint64(n - s.skipped(n))
	if wanted && !goesOn {
		s.lost, s.partial, s.skip = true, true, 0
	}
}

// cut shows the parser the unread front of a message of dir whose rest was lost.
func (c *Conn) cut(dir Dir) {
	s := &c.streams[dir]
	if k, ok := c.parser.(Cutter); ok && len(s.tail) > 0 && !s.lost && s.skip == 0 {
		k.Cut(dir^c.flip, s.tail, s.at)
	}
}

// limit drops what waits in a tail that has grown over its cap: the message is larger than we read.
func (c *Conn) limit(dir Dir) {
	s := &c.streams[dir]
	n := len(s.tail)
	if n <= c.set.cfg.Tail {
		return
	}
	c.Count("message_too_long")
	c.lose("too_long", n)
	s.off += uint64(n)
	s.release(c.set)
	if !c.parser.Gap(dir^c.flip, n) {
		s.lost, s.partial = true, true
	}
}

// settle does what a parser asked for while it ran: another look at the other direction, another protocol.
func (c *Conn) settle(at int64) {
	for range 8 {
		switch {
		case c.state == dropped:
			c.abandon(at)
			return
		case c.become:
			c.handOver(at)
		case c.streams[0].again:
			c.repeat(0, at)
		case c.streams[1].again:
			c.repeat(1, at)
		default:
			return
		}
	}
}

// abandon closes the parser of a connection that is ignored from here on.
func (c *Conn) abandon(at int64) {
	if c.parser != nil {
		c.parser.Close(at)
	}
	c.release()
}

func (c *Conn) repeat(dir Dir, at int64) {
	s := &c.streams[dir]
	s.again, s.need = false, 0
	c.reread(dir, at)
}

// handOver gives the connection to the protocol that Become named.
func (c *Conn) handOver(at int64) {
	c.parser.Close(at)
	c.set.freeParser(c.proto, c.parser)
	c.parser, c.ticker = nil, nil
	if c.state == dropped {
		return
	}
	for d := range c.streams {
		s := &c.streams[d]
		s.lost, s.again, s.need, s.skip = false, false, 0, 0
	}
	c.become, c.mid, c.errors = false, false, 0
	c.info.MidStream = false // the beginning of what follows is here
	client := Client ^ c.flip
	if c.name == "" {
		c.detectAgain(client)
		return
	}
	i := c.set.index(c.name)
	if i == none {
		c.Count("unknown_protocol")
		c.state = dropped
		return
	}
	c.begin(i)
	for _, d := range [...]Dir{client, client.Other()} {
		c.reread(d, at)
	}
	for d := range c.streams {
		if c.streams[d].ended && c.state == parsing && !c.become {
			c.parser.End(Dir(d)^c.flip, at)
		}
	}
}

// detectAgain looks for the protocol of what is unread, the client's first.
func (c *Conn) detectAgain(client Dir) {
	c.detect()
	for _, d := range [...]Dir{client, client.Other()} {
		s := &c.streams[d]
		if n := len(s.tail); n > 0 {
			c.pieces = append(c.pieces, piece{dir: d, n: n, at: s.first()})
		}
		if s.ended {
			c.pieces = append(c.pieces, piece{dir: d, end: true, at: s.at})
		}
	}
	c.recognise(client)
	if c.state == detecting {
		c.recognise(client.Other())
	}
}

// begin makes i the protocol of the connection.
func (c *Conn) begin(i int) {
	c.state, c.proto, c.named = parsing, i, i
	c.set.counts[i].connections.Inc()
	c.parser = c.set.parser(i)
	c.ticker, _ = c.parser.(Ticker)
	c.parser.Reset(c)
}
