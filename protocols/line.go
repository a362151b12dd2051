package protocols

import "bytes"

// CutLine returns the line at the front of data without its CR LF or LF. n is the length of the line with its
// CR LF or LF, or 0 if there is none in the first most bytes. If n is 0 and data is shorter than most, the
// line is incomplete; else it is too long.
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
