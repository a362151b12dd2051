package decode

import (
	"bytes"
	"unicode/utf8"
)

// Detect returns the format of a file that begins with head; false: the file is not a log.
func Detect(head []byte) (Format, bool) {
	head = bytes.TrimLeft(head, "\x00") // a host that crashed leaves NULs
	line, _, whole := bytes.Cut(head, []byte("\n"))
	var record Record
	isDocker := whole && DockerJSON.New().Decode(bytes.Clone(line), &record)
	if isDocker || bytes.HasPrefix(line, []byte(`{"log":"`)) {
		return DockerJSON, true
	}
	return Text, isText(head)
}

// isText reports whether data is text: UTF-8 without control characters other than line ends, tabs and
// escape. data may end within a character.
func isText(data []byte) bool {
	for i := 0; i < len(data); {
		char, size := utf8.DecodeRune(data[i:])
		switch {
		case char == utf8.RuneError && size == 1:
			return len(data)-i < utf8.UTFMax && !utf8.FullRune(data[i:])
		case char < ' ' && char != '\n' && char != '\r' && char != '\t' && char != '\x1b', char == 0x7f:
			return false
		}
		i += size
	}
	return len(data) > 0
}
