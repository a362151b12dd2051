package redact

import "bytes"

// A form of several parts, RFC 7578, has the name of a field in the header of its part, and the value behind
// a blank line:
//
//	--boundary
//	Content-Disposition: form-data; name="password"
//
//	X
//	--boundary--

// formData is the text in front of the name of a field.
var formData = []byte("form-data;")

// isFieldOfForm reports whether front, the text in front of name=, is the header of a part of a form.
func isFieldOfForm(front []byte) bool {
	return bytes.HasSuffix(bytes.TrimRight(front, " \t"), formData)
}

// hidePart hides the value of the part of a form whose header holds pos, and returns the offset behind it,
// or pos if the header does not end.
func (p *namePass) hidePart(pos int) int {
	header := p.text[pos:min(len(p.text), pos+maxScanned)]
	from, width := -1, 0
	for _, blank := range [...]string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(header, []byte(blank)); i >= 0 && (from < 0 || pos+i < from) {
			from, width = pos+i, len(blank)
		}
	}
	if from < 0 {
		return pos
	}
	from += width
	to := len(p.text)
	if end := bytes.Index(p.text[from:], []byte("\n--")); end >= 0 {
		to = from + end
	}
	value := bytes.TrimRight(p.text[from:to], "\r\n")
	if !isPlaceholder(value) {
		p.hide(p.view, from, from+len(value), RuleName)
	}
	return to
}

// formColumn returns the column at which the header of a part begins, which may be behind the front of a
// record.
func formColumn(text []byte) int {
	return max(0, bytes.LastIndex(text, []byte("Content-Disposition")))
}

// hideLineOfPart hides the first line of the value of a part of a form whose header is in the records
// before, and reports whether it was there. The header ends with a blank line, which writers of logs may
// leave out.
func (r *Redactor) hideLineOfPart(data []byte, next *expectation) (ends bool) {
	from := min(next.column, len(data))
	line := bytes.TrimRight(data[from:], " \t\r\"',")
	switch {
	case bytes.HasPrefix(line, []byte("--")):
		return true
	case len(line) == 0:
		next.depth = 1
		return false
	case next.depth == 0 && len(line) > len("Content-") && bytes.EqualFold(line[:len("Content-")], []byte("Content-")):
		return false
	}
	if !isPlaceholder(line) && (next.depth == 1 || looksGenerated(line, len("secret"))) {
		r.hide(view{text: data}, from, from+len(line), RuleName)
	}
	return true
}
