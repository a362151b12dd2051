package decode

import "bytes"

// DockerPartBytes is the length at which dockerd cuts a line into records.
const DockerPartBytes = 16384

// DockerJSON is the format of Docker's json-file driver:
// {"log":"…","stream":"stdout","attrs":{…},"time":"…"}.
//
// dockerd cuts lines into parts of 16,384 bytes. The parts of a line have no newline and share one time,
// which is the Group of the record. A line ends with a record that has a newline. It also ends with a record
// that is shorter than a part, which dockerd writes when the container closes the stream within a line.
var DockerJSON = Format{
	Name:   "json-file",
	Dated:  true,
	Prefix: []byte(`{"log":"`),
	New:    func() Decoder { return new(dockerDecoder) },
}

type dockerDecoder struct{ times timeParser }

// Decode implements Decoder.
func (d *dockerDecoder) Decode(data []byte, record *Record) bool {
	var r dockerRecord
	if !r.parse(data, &d.times) {
		return false
	}
	*record = Record{
		Text: r.log, Time: r.time, Group: r.time, Stream: r.stream, Ends: r.newline || r.raw < DockerPartBytes,
	}
	return true
}

// A dockerRecord holds the members of one record.
type dockerRecord struct {
	log     []byte // the payload, unescaped in place and without the newline that ends a line
	newline bool   // the payload ended in a newline
	raw     int    // length as the container wrote it, with the newline; a byte that is not UTF-8 counts as one
	stream  Stream
	time    int64 // ns since 1970; 0: absent or invalid
}

// parse reads data, one record without its newline, into r. It returns false and leaves data unchanged if
// data is not a record. Otherwise escapes in the payload are resolved in data itself. Members may stand in
// any order, unknown ones are skipped, and the last of two with the same name counts.
//
// This is the hot path, with short cuts for records as dockerd writes them. parse is more lenient than JSON:
// it accepts control characters in strings and keeps unknown escapes unchanged.
func (r *dockerRecord) parse(data []byte, times *timeParser) bool {
	*r = dockerRecord{stream: Stdout}
	log, ok := r.parseMembers(data, times)
	if !ok {
		return false
	}

	r.raw = len(log)
	if i := bytes.IndexByte(log, '\\'); i >= 0 {
		// In nearly every line the only escape is the newline that ends it.
		if i == len(log)-2 && log[i+1] == 'n' {
			r.log, r.newline, r.raw = log[:i], true, i+1
			return true
		}
		// dockerd writes \ufffd, three bytes of UTF-8, for each invalid byte of the container. raw counts
		// these as one byte each.
		var invalid int
		log, invalid = unescape(log, i)
		r.raw = len(log) - 2*invalid
	}

	if n := len(log) - 1; n >= 0 && log[n] == '\n' {
		log, r.newline = log[:n], true
	}
	r.log = log
	return true
}

// parseMembers parses the members of the object and returns the value of "log" with its escapes. ok is false
// if data is not an object, has no "log", or has more bytes behind the object. dockerd leaves "log" out of a record
// without a payload, which then consists of a stream and a time.
func (r *dockerRecord) parseMembers(data []byte, times *timeParser) (log []byte, ok bool) {
	i := skipSpace(data, 0)
	if i >= len(data) || data[i] != '{' {
		return nil, false
	}
	if i = skipSpace(data, i+1); i < len(data) && data[i] == '}' {
		return nil, false
	}

	// Invariant: a member begins at data[i].
	found, hasStream, hasOthers := false, false, false
	for {
		key, next := scanString(data, i)
		if next < 0 {
			return nil, false
		}
		if next = skipSpace(data, next); next >= len(data) || data[next] != ':' {
			return nil, false
		}
		start := skipSpace(data, next+1)
		end := scanValue(data, start)
		if end < 0 {
			return nil, false
		}

		value := data[start:end]
		switch {
		case value[0] != '"':
			if string(key) == "log" && string(value) != "null" {
				return nil, false
			}
		case string(key) == "log":
			log, found = value[1:len(value)-1], true
		case string(key) == "stream":
			r.stream, hasStream = Stdout, true
			if string(value) == `"stderr"` {
				r.stream = Stderr
			}
		case string(key) == "time":
			r.time = times.parse(value[1 : len(value)-1])
		default:
			hasOthers = true
		}

		// A comma and another member follow, or the end of the object and of the record.
		i = skipSpace(data, end)
		if i >= len(data) {
			return nil, false
		}
		if data[i] == '}' {
			found = found || hasStream && r.time != 0 && !hasOthers
			return log, found && skipSpace(data, i+1) == len(data)
		}
		if data[i] != ',' {
			return nil, false
		}
		i = skipSpace(data, i+1)
	}
}
