package decode

import "bytes"

// Text is the format of plain text files, as nginx, syslog daemons and most programs write them: a record is
// a line.
//
// A line that begins with a time of RFC 3339 has that time. The tailer sets the time of other lines to that
// of the line before, or to the time of reading in a file without times.
var Text = Format{
	Name: "text",
	New:  func() Decoder { return new(textDecoder) },
}

type textDecoder struct{ times timeParser }

// Decode accepts every line except blank ones and those that contain NUL. A file that was truncated while its
// writer kept its offset begins with NULs up to that offset; a crash of the host may leave NULs anywhere.
func (d *textDecoder) Decode(data []byte, record *Record) bool {
	data = bytes.TrimSuffix(data, []byte("\r"))
	if bytes.IndexByte(data, 0) >= 0 || len(bytes.TrimSpace(data)) == 0 {
		return false
	}
	*record = Record{Text: data, Time: d.leadingTime(data), Ends: true}
	return true
}

// leadingTime returns the time at the front of a line; 0: none. The time may stand in brackets.
func (d *textDecoder) leadingTime(data []byte) int64 {
	data = bytes.TrimPrefix(data, []byte("["))
	if len(data) < len("2006-01-02T15:04:05Z") || data[4] != '-' || data[10] != 'T' {
		return 0
	}

	end := len("2006-01-02T15:04:05")
	for end < len(data) && data[end] != ' ' && data[end] != '\t' && data[end] != ']' && data[end] != ',' {
		end++
	}
	return d.times.parse(data[:end])
}
