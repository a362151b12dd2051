package redis

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// A commandReader is the command that is being read.
type commandReader struct {
	event *pipeline.Event
	open  bool  // the head of the array was read
	total int64 // number of arguments, with the command's name
	index int64 // index of the argument that is being read; 0 is the command's name

	inArg   bool   // the size of the argument was read
	bulk    uint64 // bytes of the argument that are still to come, without CR LF
	size    uint64 // bytes of the argument
	damaged bool   // bytes of the argument were lost
	arg     []byte // the first bytes of the argument, if it came in pieces
	tail    []byte // its last bytes then

	last      [lastArgs][]byte // the last arguments as they will be kept, beyond the first ones
	lastCount int              // arguments that were in last so far
	settings  int              // arguments that are kept since they name or set one of settings
	inSetting bool             // the next argument is the value of such a setting
	argsBytes int              // bytes of arguments that are kept
	unnamed   bool             // the first word cannot be the name of a command
	key       keyPosition
	secrets   redact.RedisArguments
}

func (r *commandReader) reset() { *r = commandReader{arg: r.arg[:0], tail: r.tail[:0], last: r.last} }

// flags returns the flags of the command by its name.
func (r *commandReader) flags() flags {
	if r.event == nil {
		return 0
	}
	switch r.event.Redis.Command {
	case "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE":
		return subscribes
	case "MONITOR":
		return monitors
	case "RESET":
		return resets
	case "SYNC", "PSYNC":
		return replicates
	}
	return 0
}

// readCommand reads the available part of a command, and returns its length.
func (p *parser) readCommand(data []byte, at int64) (read int, err error) {
	cmd := &p.command
	if !cmd.open {
		read, err = p.readArrayHead(data, at)
		if read == 0 || err != nil || !cmd.open {
			return read, err
		}
	}
	for cmd.index < cmd.total {
		length, err := p.readArgument(data[read:])
		read += length
		if read > 0 && (err != nil || length == 0) {
			break // report an error only at its own offset, so that it does not depend on how the bytes were cut
		}
		if length == 0 || err != nil {
			return 0, err
		}
	}
	p.countBytes(read)
	if cmd.index == cmd.total {
		p.finishCommand(at)
	}
	return read, nil
}

// countBytes adds size bytes to the event of the command.
func (p *parser) countBytes(size int) {
	if p.command.event != nil {
		p.command.event.Source.Bytes += uint64(size)
	}
}

// readArrayHead reads "*3\r\n", or a whole inline command. In mid-stream it flips the connection if the bytes
// are those of a server.
func (p *parser) readArrayHead(data []byte, at int64) (int, error) {
	cmd := &p.command
	cut := protocols.CutLine
	if data[0] == '*' {
		cut = cutHeader
	}
	line, length := cut(data, maxLine)
	if length == 0 {
		return 0, p.checkLineLength(data)
	}
	if len(line) == 0 {
		return length, nil // the server ignores empty lines
	}

	// Not an array: an inline command, or in mid-stream a reply.
	if line[0] != '*' {
		if !p.started && p.conn.Info().MidStream && isReply(data) {
			p.conn.Flip()
			return 0, nil
		}
		return p.readInline(line, length, at, false)
	}
	total, ok := integer(line[1:])
	if !ok || total > maxElements {
		return 0, errCommand
	}
	if total <= 0 {
		return length, nil // the server ignores an empty array
	}

	// In mid-stream an array may be a reply: then the roles were inferred wrongly.
	if !p.started && p.conn.Info().MidStream {
		switch match := detectCommand(data); {
		case match == protocols.More:
			return 0, nil
		case match == protocols.No || !knownCommand(data):
			if isReply(data) {
				p.conn.Flip()
				return 0, nil
			}
		}
	}
	p.started = true
	cmd.open, cmd.total = true, total
	p.startEvent()
	return length, nil
}

// startEvent creates the event of the command that begins.
func (p *parser) startEvent() {
	event := p.conn.Event(protocols.Client)
	event.Redis = pipeline.RedisCommandFromVTPool()
	p.command.event = event
}

// checkLineLength returns an error if data, a line without its end, is too long for one.
func (p *parser) checkLineLength(data []byte) error {
	if len(data) > maxLine {
		return errLine
	}
	return nil
}

// readArgument reads the next part of "$3\r\nfoo\r\n": the head (with the rest if it has arrived), bytes of
// the string, or the CR LF. It returns 0 if more bytes are needed.
func (p *parser) readArgument(data []byte) (int, error) {
	cmd := &p.command
	switch {
	case !cmd.inArg:
		line, length := cutHeader(data, maxLine)
		if length == 0 {
			return 0, p.checkLineLength(data)
		}
		size, ok := integer(line[min(1, len(line)):])
		if len(line) == 0 || line[0] != '$' || !ok || size < 0 || size > maxBulk {
			return 0, errBulk
		}

		// Usually the whole argument has arrived and is read in place.
		cmd.inArg, cmd.damaged, cmd.size, cmd.bulk, cmd.arg, cmd.tail = true, false, uint64(size), uint64(size), cmd.arg[:0], cmd.tail[:0]
		if rest := data[length:]; uint64(len(rest)) >= cmd.size+2 {
			p.addArgument(rest[:size], cmd.size)
			cmd.inArg, cmd.bulk = false, 0
			length += int(size) + 2
		}
		return length, nil
	case cmd.bulk > 0:
		length := int(min(cmd.bulk, uint64(len(data))))
		cmd.bulk -= uint64(length)
		if space := maxArg - len(cmd.arg); space > 0 && !cmd.damaged {
			cmd.arg = append(cmd.arg, data[:min(length, space)]...)
		}
		cmd.keepTail(data[:length])
		return length, nil
	}

	// The argument came in pieces, and only its CR LF is left. The server skips any two bytes here.
	if len(data) < 2 {
		return 0, nil
	}
	p.addArgument(cmd.arg, cmd.size)
	cmd.inArg = false
	return 2, nil
}

// keepTail keeps the last bytes of an argument that comes in pieces; data is the next one.
func (r *commandReader) keepTail(data []byte) {
	if r.size <= maxArg {
		return
	}
	data = data[max(0, len(data)-argTail):]
	if surplus := len(r.tail) + len(data) - argTail; surplus > 0 {
		r.tail = r.tail[:copy(r.tail, r.tail[surplus:])]
	}
	r.tail = append(r.tail, data...)
}

// cutHeader returns the header of an array or a bulk string of a client, as the server reads it: up to a CR. The
// server skips the byte after the CR without looking at it.
func cutHeader(data []byte, most int) (line []byte, length int) {
	end := bytes.IndexByte(data[:min(len(data), most)], '\r')
	if end < 0 || end+2 > len(data) {
		return nil, 0
	}
	return data[:end], end + 2
}

// readLineEnd reads the CR LF after a bulk string.
func readLineEnd(data []byte) (int, error) {
	switch {
	case len(data) > 0 && data[0] != '\r', len(data) > 1 && data[1] != '\n':
		return 0, errBulk
	case len(data) < 2:
		return 0, nil
	}
	return 2, nil
}

// readInline reads an inline command: a line of words, quoted as in Redis' sdssplitargs. Whatever the first word
// is, the server answers it, with an error if it is no command, and reads on. cut reports that its end was lost.
func (p *parser) readInline(line []byte, length int, at int64, cut bool) (int, error) {
	words := p.countWords(line)
	if words == 0 {
		return length, nil
	}
	first, rest := nextWord(line, nil)
	p.started = true
	cmd := &p.command
	cmd.open, cmd.total = true, int64(words)
	p.startEvent()
	if cut {
		cmd.event.Partial = true
		cmd.event.AddTag(pipeline.TagTruncated)
	}
	p.addArgument(first, uint64(len(first)))

	// The words share one buffer: addArgument copies what is kept.
	var buf []byte
	for len(rest) > 0 {
		buf, rest = nextWord(rest, p.command.arg[:0])
		if buf == nil {
			break
		}
		cmd.arg = buf
		p.addArgument(buf, uint64(len(buf)))
	}
	p.countBytes(length)
	p.finishCommand(at)
	return length, nil
}

// countWords returns the number of words of an inline command.
func (p *parser) countWords(line []byte) int {
	for words := 0; ; words++ {
		word, rest := nextWord(line, p.scratch[:0])
		if word == nil {
			return words
		}
		line = rest
	}
}

// nextWord appends the first word of line, without its quotes, to buf, and returns it and the rest of line.
// If there is no word it returns nil.
func nextWord(line, buf []byte) (word, rest []byte) {
	line = bytes.TrimLeft(line, " \t\r\n\v\f\x00")
	if len(line) == 0 {
		return nil, nil
	}
	if buf == nil {
		buf = []byte{}
	}
	var quote byte // the open quote, or 0
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == '"' && isHexEscape(line[i:]): // \xNN
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

// isHexEscape reports whether data begins with \x and two hex digits.
func isHexEscape(data []byte) bool {
	return len(data) > 3 && data[0] == '\\' && data[1] == 'x' && hexDigit(data[2]) >= 0 && hexDigit(data[3]) >= 0
}

// unescape returns the character that a backslash and c stand for.
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

// hexDigit returns the value of a hex digit, or −1.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// integer parses a decimal number.
func integer(data []byte) (value int64, ok bool) {
	data, negative := bytes.CutPrefix(data, []byte("-"))
	if len(data) == 0 || len(data) > 18 {
		return 0, false
	}
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, false
		}
		value = value*10 + int64(c-'0')
	}
	if negative {
		value = -value
	}
	return value, true
}

// upper returns data in upper case, in buf.
func upper(buf *[]byte, data []byte) []byte {
	out := append((*buf)[:0], data...)
	for i, c := range out {
		if c >= 'a' && c <= 'z' {
			out[i] = c &^ 0x20
		}
	}
	*buf = out
	return out
}
