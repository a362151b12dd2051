package protocols

import "bytes"

// CutLine returns the line at the front of b without its CR LF or LF, for protocols of lines. n is its length
// with them. It is 0 if the first most bytes hold no end of a line: if b is shorter than that, the end may
// still come; else the line is too long.
func CutLine(data []byte, most int) (line []byte, n int) {
	i := bytes.IndexByte(data[:min(len(data), most)], '\n')
	if i < 0 {
		return nil, 0
	}
	line = data[:i]
	if i > 0 && line[i-1] == '\r' {
		line = line[:i-1]
	}
	return line, i + 1
}
