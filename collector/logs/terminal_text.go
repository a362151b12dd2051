package logs

import "bytes"

// maxPlainBuffer is the size up to which a buffer of plainText is kept for the next line.
const maxPlainBuffer = 16 << 10

// plainText returns a line without what a program writes for a terminal: the carriage returns at its end, which
// the pseudo-terminal of a container adds, and the sequences that set colours and erase the rest of the line
// (ECMA-48 section 8.3.117 SGR and 8.3.41 EL). Other sequences stay: they are no text of the program, but may be
// an attack on the terminal of a reader. The result is a part of line, or valid until the next call with buf.
func plainText(line []byte, buf *[]byte) []byte {
	line = bytes.TrimRight(line, "\r")
	escape := bytes.IndexByte(line, 0x1b)
	if escape < 0 {
		return line
	}
	plain := (*buf)[:0]
	for escape >= 0 {
		length := colourLength(line[escape:])
		plain = append(plain, line[:escape]...)
		if length == 0 {
			plain, length = append(plain, 0x1b), 1
		}
		line = line[escape+length:]
		escape = bytes.IndexByte(line, 0x1b)
	}
	plain = append(plain, line...)
	if cap(plain) <= maxPlainBuffer {
		*buf = plain
	}
	return bytes.TrimRight(plain, "\r")
}

// colourLength returns the length of the sequence SGR or EL at the front of data; 0: another sequence.
func colourLength(data []byte) int {
	if len(data) < 3 || data[1] != '[' {
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
