package redact

import "bytes"

// A keyBlock is the state of a private key whose lines are records of a log.
type keyBlock struct {
	open      bool
	disturbed bool   // another line came within the key
	lines     uint16 // that were hidden
	others    uint16 // lines that are not of the key
	front     uint16 // the number of bytes in front of the first line: a time, a quote
}

const (
	maxKeyLines   = 256 // bounds the lines that are hidden without the end of the key
	maxOtherLines = 64  // bounds the lines of other writers within a key
)

// keyLine returns a line of a private key, redacted, or false if data is none.
func (r *Redactor) keyLine(data []byte, block *keyBlock) ([]byte, bool) {
	if bytes.Contains(data, keyEnd) {
		block.open = false
		return data, false
	}
	from, to := keyPart(data, block)
	if from == to {
		if block.open && len(bytes.TrimSpace(data)) > 0 {
			block.disturbed = true
			block.others++
			block.open = block.others < maxOtherLines
		}
		return data, false
	}
	if block.lines++; block.lines >= maxKeyLines {
		block.open = false
	}
	r.spans = r.spans[:0]
	r.hide(view{text: data}, from, to, RulePrivateKey)
	return r.replaced(data), true
}

// keyPart returns the part of a line that may be of a private key. It is the whole line, or what stands behind a front
// as long as that of the first line, or a run of base64 as encoders write it.
func keyPart(data []byte, block *keyBlock) (from, to int) {
	body := bytes.TrimSpace(data)
	switch {
	case len(body) == 0:
		return 0, 0
	case !block.open, block.front == 0 && !block.disturbed && isKeyLine(body), isKeyHeader(body):
		from = bytes.Index(data, body)
		return from, from + len(body)
	}
	from, to = longestBase64(data)
	if run := data[from:to]; isEncoded(run) || len(run) > 0 && run[len(run)-1] == '=' && len(run)%4 == 0 {
		return from, to
	}
	// The last line of a key is short.
	if front := int(block.front); front > 0 && front < len(data) && block.lines > 0 {
		end := base64End(data, front)
		isPart := end > front && (end-front)%4 == 0 && (!block.disturbed || data[end-1] == '=')
		if rest := bytes.Trim(data[end:], "\"'`,+ \t\r\\n}"); isPart && len(rest) == 0 {
			return front, end
		}
	}
	return 0, 0
}

// longestBase64 returns the longest run of base64 in data.
func longestBase64(data []byte) (from, to int) {
	for i := 0; i < len(data); {
		start := i
		for i < len(data) && (folded[data[i]] > separator || data[i] == '+' || data[i] == '/') {
			i++
		}
		for i < len(data) && data[i] == '=' {
			i++
		}
		if i-start > to-from {
			from, to = start, i
		}
		if i == start {
			i++
		}
	}
	return from, to
}

// minEncoded is the length from which a run of base64 among other words is part of a key.
const minEncoded = 32

// isEncoded reports whether run is long and has small letters, capitals and digits, so that it is no word, no name of a
// method and no hexadecimal id.
func isEncoded(run []byte) bool {
	if len(run) < minEncoded {
		return false
	}
	var lower, upper, digit bool
	for _, c := range run {
		lower = lower || c >= 'g' && c <= 'z'
		upper = upper || c >= 'A' && c <= 'Z'
		digit = digit || c >= '0' && c <= '9'
	}
	return lower && upper && digit
}

// isKeyHeader reports whether body is a header of RFC 1421 in a private key.
func isKeyHeader(body []byte) bool {
	return bytes.HasPrefix(body, []byte("Proc-Type:")) || bytes.HasPrefix(body, []byte("DEK-Info:"))
}

// isKeyLine reports whether body may be a line of a private key: base64, or a header of RFC 1421.
func isKeyLine(body []byte) bool {
	if isKeyHeader(body) || len(body) > 128 || !isBase64(body) {
		return isKeyHeader(body)
	}
	return len(body)%4 == 0 || len(body) >= minEncoded || shapeOf(body).digits > 0
}

// isBase64Line reports whether data is a line of the length that encoders of base64 write, with small and
// capital letters and digits, so that it is no hexadecimal id.
func isBase64Line(data []byte) bool {
	return (len(data) == 64 || len(data) == 76) && isBase64(data) && isEncoded(data)
}

func isBase64(data []byte) bool {
	for _, c := range data {
		if folded[c] <= separator && c != '+' && c != '/' && c != '=' {
			return false
		}
	}
	return true
}
