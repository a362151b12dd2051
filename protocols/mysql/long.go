package mysql

import (
	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/pipeline/redact/sqltoken"
	"tidegate/protocols"
)

// Bounds of the text of a statement that is longer than maxPayload.
const (
	maxLongHead = maxQuery - 3*longPart - len("…")
	longPart    = 512 // bytes of each of the two parts of the tail, at least
	longStep    = 256 // bytes that are read between two looks at the parts
)

// A longStatement is a statement that does not fit into maxPayload and is read as it comes. Comments are left out.
// Of the rest the head and the tail are kept, so that neither a comment nor a literal of many KiB hides what stands
// behind it.
//
// The tail is in two parts. When the second is full it becomes the first. The lexical state at the beginning of each
// part is known: a part may begin inside a literal, which may be a secret.
type longStatement struct {
	event *pipeline.Event // nil: none is being read, or it was emitted
	left  int             // bytes of the packet that are still to come
	lexer lexer
	head  []byte
	parts [2][]byte
	begin [2]lexer // the state at the beginning of each part
	cut   bool     // a part was left out between the head and the tail
	lost  bool     // bytes were lost: what follows may be inside a literal
}

// A lexer is the state between two bytes of a statement.
type lexer struct {
	state lexState
	quote byte // the quote of the literal
}

type lexState uint8

const (
	inCode        lexState = iota
	inQuotes               // the quote is in lexer.quote
	behindEscape           // a backslash in quotes
	behindDash             // - in code
	behindDashes           // --
	behindSlash            // /
	commentBegins          // /*: executed if ! or M! follows
	inComment
	behindStar // * in a comment
	inLineComment
)

// read appends the code of data to dst, without comments.
func (l *lexer) read(dst, data []byte) []byte {
	for _, c := range data {
		switch l.state {
		case behindDash, behindSlash, inCode:
			dst = l.readCode(dst, c)
		case inQuotes:
			dst = append(dst, c)
			if c == '\\' && l.quote != '`' {
				l.state = behindEscape
			} else if c == l.quote {
				l.state = inCode
			}
		case behindEscape:
			dst = append(dst, c)
			l.state = inQuotes
		case behindDashes:
			l.state = inLineComment
			if c > ' ' {
				dst = append(dst, '-', '-')
				l.state = inCode
				dst = l.readCode(dst, c)
			}
		case commentBegins:
			l.state = inComment
			switch c {
			case '!', 'M':
				dst = append(dst, '/', '*', c)
				l.state = inCode
			case '*':
				l.state = behindStar
			}
		case inComment, behindStar:
			switch {
			case c == '/' && l.state == behindStar:
				dst = append(dst, ' ')
				l.state = inCode
			case c == '*':
				l.state = behindStar
			default:
				l.state = inComment
			}
		case inLineComment:
			if c == '\n' {
				dst = append(dst, '\n')
				l.state = inCode
			}
		}
	}
	return dst
}

// readCode reads a byte outside of literals and comments.
func (l *lexer) readCode(dst []byte, c byte) []byte {
	switch before := l.state; {
	case before == behindDash && c == '-':
		l.state = behindDashes
		return dst
	case before == behindSlash && c == '*':
		l.state = commentBegins
		return dst
	case before == behindDash:
		dst = append(dst, '-')
	case before == behindSlash:
		dst = append(dst, '/')
	}
	l.state = inCode
	switch c {
	case '-':
		l.state = behindDash
		return dst
	case '/':
		l.state = behindSlash
		return dst
	case '#':
		l.state = inLineComment
		return dst
	case '\'', '"', '`':
		l.state, l.quote = inQuotes, c
	}
	return append(dst, c)
}

// withoutComments appends the code of a whole statement to dst.
func withoutComments(dst, sql []byte) []byte {
	var l lexer
	return l.read(dst, sql)
}

// start begins the statement of event, whose packet has left more bytes.
func (s *longStatement) start(event *pipeline.Event, left int) {
	*s = longStatement{
		event: event, left: left,
		head: s.head[:0], parts: [2][]byte{s.parts[0][:0], s.parts[1][:0]},
	}
}

// read reads the next bytes of the statement.
func (s *longStatement) read(data []byte) {
	for len(data) > 0 && !s.lost {
		step := data[:min(len(data), longStep)]
		data = data[len(step):]
		if len(s.head) < maxLongHead-longStep-4 {
			s.head = s.lexer.read(s.head, step)
			s.begin[1] = s.lexer
			continue
		}
		s.parts[1] = s.lexer.read(s.parts[1], step)
		if len(s.parts[1]) >= longPart {
			s.cut = s.cut || len(s.parts[0]) > 0
			s.parts[0], s.parts[1] = s.parts[1], s.parts[0][:0]
			s.begin[0], s.begin[1] = s.begin[1], s.lexer
		}
	}
}

// tail returns the tail of the statement, from the end of a literal that the first part begins in.
func (s *longStatement) tail() []byte {
	tail := append(append([]byte{}, s.parts[0]...), s.parts[1]...)
	begin := s.begin[0]
	if begin.state != inQuotes && begin.state != behindEscape {
		return tail
	}
	var sink [1]byte
	for i := range tail {
		begin.read(sink[:0], tail[i:i+1])
		if begin.state == inCode {
			return tail[i+1:]
		}
	}
	return nil
}

// readLong reads the next bytes of a long statement.
func (p *parser) readLong(data []byte) int {
	size := min(p.long.left, len(data))
	if p.long.event != nil {
		p.long.read(data[:size])
	}
	if p.long.left -= size; p.long.left == 0 && !p.continues[protocols.Client] {
		p.finishLong()
	}
	return size
}

// finishLong writes the text of the long statement into its event: the head and the tail.
func (p *parser) finishLong() {
	long := &p.long
	event := long.event
	if event == nil {
		return
	}
	long.event = nil
	event.AddTag(pipeline.TagTruncated)
	text, hasSecrets := p.longText()
	event.Mysql.Query = validUTF8(string(text))
	for i := range p.waiting {
		if cmd := &p.waiting[i]; cmd.event == event {
			cmd.hasSecrets = cmd.hasSecrets || hasSecrets
			if cmd.kind == comStmtPrepare {
				cmd.text = event.Mysql.Query
				p.statements.last = prepared{cmd.text, event.Mysql.Method}
			}
		}
	}
}

// longText returns the redacted head and tail of the long statement.
func (p *parser) longText() (text []byte, hasSecrets bool) {
	long := &p.long
	if !long.cut { // nothing but comments was left out
		return p.conn.Redactor().SQL(append(append(long.head, long.parts[0]...), long.parts[1]...))
	}
	redacted, hasSecrets := p.conn.Redactor().SQL(long.head)
	text = append(p.text4K[:0], redacted...)
	if len(text) > maxLongHead {
		text = wholeRunes(text[:maxLongHead])
	}
	tail, more := p.redactTail(long.tail())
	text = append(text, "…"...)
	p.text4K = append(text, tail[max(0, len(tail)-3*longPart):]...)
	return p.text4K, hasSecrets || more
}

// redactTail redacts the tail of a statement. A literal near its beginning is hidden, since what names it as a secret
// may be missing.
func (p *parser) redactTail(tail []byte) (out []byte, hasSecrets bool) {
	scanner := sqltoken.Scanner{SQL: tail}
	for words := 0; words < 2 && scanner.Next(); {
		switch scanner.Kind {
		case sqltoken.Word:
			words++
		case sqltoken.Literal:
			cut := append(append([]byte{}, tail[:scanner.From]...), "'"+redact.Marker+"'"...)
			tail = append(cut, tail[scanner.To:]...)
			out, _ = p.conn.Redactor().SQL(tail)
			return out, true
		default:
		}
	}
	return p.conn.Redactor().SQL(tail)
}
