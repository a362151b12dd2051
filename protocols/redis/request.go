package redis

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// A request is the command that is being read.
type request struct {
	e     *pipeline.Event
	open  bool // the head of the array was read
	total int64
	index int64  // of the argument that is being read; 0 is the command's name
	inArg bool   // its size was read
	bulk  uint64 // bytes of it that are still to come, without CR LF
	size  uint64 // bytes of it
	hole  bool   // bytes of it were lost
	arg   []byte // its first bytes, where it came in pieces
	kept  int
	key   keyAt

	secrets redact.RedisArguments
}

func (r *request) reset() { *r = request{arg: r.arg[:0]} }

func (r *request) flags() flags {
	if r.e == nil {
		return 0
	}
	switch r.e.Redis.Command {
	case "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE":
		return subscribes
	case "MONITOR", "SYNC", "PSYNC":
		return streams
	}
	return 0
}

// readCommand reads what is there of a command.
func (p *parser) readCommand(b []byte, at int64) (n int, err error) {
	r := &p.request
	if !r.open {
		n, err = p.readHead(b, at)
		if n == 0 || err != nil || !r.open {
			return n, err
		}
	}
	for r.index < r.total {
		k, err := p.readArgument(b[n:])
		n += k
		if n > 0 && (err != nil || k == 0) {
			break // an error comes again, at its own place, wherever the bytes were cut
		}
		if k == 0 || err != nil {
			return 0, err
		}
	}
	p.count(n)
	if r.index == r.total {
		p.sent(at)
	}
	return n, nil
}

// count adds bytes to the command that is being read.
func (p *parser) count(n int) {
	if p.request.e != nil {
		p.request.e.Source.Bytes += uint64(n)
	}
}

// readHead reads "*3\r\n", or an inline command as a whole.
func (p *parser) readHead(b []byte, at int64) (int, error) {
	r := &p.request
	line, n := cutLine(b)
	if n == 0 {
		return 0, p.unfinished(b)
	}
	if len(line) == 0 {
		return n, nil
	}
	if line[0] != '*' {
		if !p.seen && p.c.Info().MidStream && isReply(b) {
			p.c.Flip()
			return 0, nil
		}
		return p.readInline(line, n, at)
	}
	total, ok := integer(line[1:])
	if !ok || total > maxElements {
		return 0, errCommand
	}
	if total <= 0 {
		return n, nil // the server ignores it
	}
	if !p.seen && p.c.Info().MidStream {
		switch m := detectCommand(b); {
		case m == protocols.More:
			return 0, nil
		case m == protocols.No || !knownCommand(b):
			if isReply(b) {
				p.c.Flip()
				return 0, nil
			}
		}
	}
	p.seen = true
	r.open, r.total = true, total
	p.begin()
	return n, nil
}

// begin makes the event of the command that begins.
func (p *parser) begin() {
	e := p.c.Event(protocols.Client)
	e.Redis = pipeline.RedisCommandFromVTPool()
	p.request.e = e
}

// unfinished tells whether a line without its end may still become one.
func (p *parser) unfinished(b []byte) error {
	if len(b) > maxLine {
		return errLine
	}
	return nil
}

// readArgument reads what is there of "$3\r\nfoo\r\n": its head, its bytes, its end. It returns 0 where nothing could be read.
func (p *parser) readArgument(b []byte) (int, error) {
	r := &p.request
	switch {
	case !r.inArg:
		line, n := cutLine(b)
		if n == 0 {
			return 0, p.unfinished(b)
		}
		size, ok := integer(line[min(1, len(line)):])
		if len(line) == 0 || line[0] != '$' || !ok || size < 0 || size > maxBulk {
			return 0, errBulk
		}
		r.inArg, r.hole, r.size, r.bulk, r.arg = true, false, uint64(size), uint64(size), r.arg[:0]
		if rest := b[n:]; uint64(len(rest)) >= r.size+2 && rest[size] == '\r' && rest[size+1] == '\n' {
			p.argument(rest[:size], r.size) // all of it, in place
			r.inArg, r.bulk = false, 0
			n += int(size) + 2
		}
		return n, nil
	case r.bulk > 0:
		n := int(min(r.bulk, uint64(len(b))))
		r.bulk -= uint64(n)
		if room := maxKey - len(r.arg); room > 0 && !r.hole {
			r.arg = append(r.arg, b[:min(n, room)]...)
		}
		return n, nil
	}
	n, err := lineEnd(b)
	if n > 0 {
		p.argument(r.arg, r.size)
		r.inArg, r.hole = false, false
	}
	return n, err
}

// lineEnd reads the CR LF behind a bulk string.
func lineEnd(b []byte) (int, error) {
	switch {
	case len(b) > 0 && b[0] != '\r', len(b) > 1 && b[1] != '\n':
		return 0, errBulk
	case len(b) < 2:
		return 0, nil
	}
	return 2, nil
}

// readInline reads a command that is a line of words (quotes as in sdssplitargs of Redis).
func (p *parser) readInline(line []byte, n int, at int64) (int, error) {
	words := p.split(line)
	if words == 0 {
		return n, nil
	}
	first, rest := nextWord(line, nil)
	if !isName(first) {
		return 0, errCommand
	}
	p.seen = true
	r := &p.request
	r.open, r.total = true, int64(words)
	p.begin()
	p.argument(first, uint64(len(first)))
	var buf []byte
	for len(rest) > 0 {
		buf, rest = nextWord(rest, p.request.arg[:0])
		if buf == nil {
			break
		}
		r.arg = buf
		p.argument(buf, uint64(len(buf)))
	}
	p.count(n)
	p.sent(at)
	return n, nil
}

// split counts the words of an inline command.
func (p *parser) split(line []byte) int {
	n := 0
	buf := p.scratch[:0]
	for len(line) > 0 {
		var w []byte
		if w, line = nextWord(line, buf); w == nil {
			break
		}
		n++
		buf = w[:0]
	}
	return n
}

// nextWord appends the first word of line to buf, without its quotes; nil: there is none.
func nextWord(line, buf []byte) (word, rest []byte) {
	line = bytes.TrimLeft(line, " \t\r\x00")
	if len(line) == 0 {
		return nil, nil
	}
	if buf == nil {
		buf = []byte{}
	}
	var quote byte
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == '"' && c == '\\' && i+3 < len(line) && line[i+1] == 'x' && hexDigit(line[i+2]) >= 0 && hexDigit(line[i+3]) >= 0:
			buf = append(buf, byte(hexDigit(line[i+2])<<4|hexDigit(line[i+3])))
			i += 3
		case quote == '"' && c == '\\' && i+1 < len(line), quote == '\'' && c == '\\' && i+1 < len(line) && line[i+1] == '\'':
			i++
			buf = append(buf, unescape(line[i]))
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			buf = append(buf, c)
		case c == '"' || c == '\'':
			quote = c
		case c == ' ' || c == '\t' || c == '\r' || c == 0:
			return buf, line[i:]
		default:
			buf = append(buf, c)
		}
	}
	return buf, nil
}

func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'b':
		return '\b'
	case 'a':
		return '\a'
	}
	return c
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// cutLine takes a line from b, without CR LF; n is its length with them, 0 where its end is not there.
func cutLine(b []byte) (line []byte, n int) {
	i := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	if i < 0 {
		return nil, 0
	}
	line = b[:i]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, i + 1
}

// integer reads a decimal number.
func integer(b []byte) (v int64, ok bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return v, true
}

// upper gives b in upper case, in buf.
func upper(buf *[]byte, b []byte) []byte {
	out := append((*buf)[:0], b...)
	for i, c := range out {
		if c >= 'a' && c <= 'z' {
			out[i] = c &^ 0x20
		}
	}
	*buf = out
	return out
}
