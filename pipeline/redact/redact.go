// Package redact replaces secrets in text (passwords, tokens, keys, cookies) by Marker. The names of secrets
// are in one table (names.go). There is a function for each form of text: URLs, SQL, the arguments of Redis
// commands, header fields, log lines, labels.
//
// It is called by the parsers of protocols before they fill in an event, and by collector/logs for every
// line, so a redacted secret never leaves the host. In doubt a value is hidden. There is no guarantee: a
// secret in an unusual place is not found.
//
// Log lines quote the other forms, so the functions are nested: Line hides everything in a URL or a statement
// that URL or SQL hides. Redaction is idempotent. Both are tested as properties.
package redact

import (
	"cmp"
	"slices"
)

// Marker replaces a secret.
const Marker = "REDACTED"

// A Redactor hides secrets in text. It is used by one goroutine and reuses its buffers: the result of a
// method is valid until the next call of any method. The zero value is ready to use.
type Redactor struct {
	spans []span
	out   []byte
}

// A span is a part of the text that will be replaced.
type span struct{ from, to int }

// hide adds the bytes from:to to the spans.
func (r *Redactor) hide(from, to int) {
	if from < to {
		r.spans = append(r.spans, span{from, to})
	}
}

// replaced returns data with marker in place of each span. Spans may overlap and come in any order; each run
// of them is one secret.
func (r *Redactor) replaced(data []byte, marker string) []byte {
	byStart := func(x, y span) int { return cmp.Compare(x.from, y.from) }
	if !slices.IsSortedFunc(r.spans, byStart) {
		slices.SortFunc(r.spans, byStart)
	}

	// Invariant: out is the redacted form of data[:done].
	out, done := r.out[:0], 0
	for i := 0; i < len(r.spans); {
		from, to := r.spans[i].from, r.spans[i].to
		for i++; i < len(r.spans) && r.spans[i].from < to; i++ {
			to = max(to, r.spans[i].to)
		}
		out = append(append(out, data[done:from]...), marker...)
		done = to
	}
	r.out = append(out, data[done:]...)
	return r.out
}
