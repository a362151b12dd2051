package logs

import "bytes"

// maxPlainBuffer is the size up to which a buffer of plainText is kept for the next line.
const maxPlainBuffer = 16 << 10

// plainText returns a line without what a program writes for a terminal: the carriage returns at its end, which
// the pseudo-terminal of a container adds, and the sequences that set colours, erase the rest of the line and select
// a set of characters (ECMA-48 section 8.3.117 SGR, 8.3.41 EL, ECMA-35 section 14.3, of which tput prints one to
// end a colour). Other sequences stay: they are no text of the program, but may be an attack on the terminal of a
// reader. The result is a part of line, or valid until the next call with buf.
func plainText(line []byte, buf *[]byte) []byte {
	line = bytes.TrimRight(line, "\r")
	escape := indexEscape(line)
	if escape < 0 {
		return line
	}
	plain := (*buf)[:0]
	for escape >= 0 {
		length := colourLength(line[escape:])
		plain = append(plain, line[:escape]...)
		if length == 0 {
			plain, length = append(plain, line[escape]), 1
		}
		line = line[escape+length:]
		escape = indexEscape(line)
	}
	plain = append(plain, line...)
	if cap(plain) <= maxPlainBuffer {
		*buf = plain
	}
	return bytes.TrimRight(plain, "\r")
}

// indexEscape returns the index of the first ESC, or of the first byte of a CSI of one character (U+009B); -1: none.
func indexEscape(line []byte) int {
	escape := bytes.IndexByte(line, 0x1b)
	before := line
	if escape >= 0 {
		before = line[:escape]
	}
	if csi := bytes.Index(before, []byte("\u009b")); csi >= 0 {
		return csi
	}
	return escape
}

// colourLength returns the length of the sequence SGR, EL or SCS at the front of data; 0: another sequence.
func colourLength(data []byte) int {
	if len(data) < 3 {
		return 0
	}
	switch {
	case data[0] == 0xc2, data[1] == '[': // CSI
	case data[1] >= '(' && data[1] <= '+' && data[2] >= '0' && data[2] <= '~': // of the sets G0 to G3
		return 3
	default:
		return 0
	}
	const longest = 64 // the parameters of a 24-bit colour take some 20 bytes
	for i := 2; i < min(len(data), longest); i++ {
		switch c := data[i]; {
		case c == 'm' || c == 'K':
			return i + 1
		case c < '0' || c > ';': // parameters: digits, colon, semicolon
			return 0
		}
	}
	return 0
}
