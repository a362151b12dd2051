package protocols

import "bytes"

// CutLine returns the line at the front of data without its CR LF or LF. length is the length of the line
// with its CR LF or LF, or 0 if there is none in the first most bytes. If length is 0 and data is shorter
// than most, the line is incomplete; otherwise it is too long.
func CutLine(data []byte, most int) (line []byte, length int) {
	end := bytes.IndexByte(data[:min(len(data), most)], '\n')
	if end < 0 {
		return nil, 0
	}
	line = data[:end]
	if end > 0 && line[end-1] == '\r' {
		line = line[:end-1]
	}
	return line, end + 1
}
