// Package redact hides secrets: passwords, tokens, keys, cookies. One table says which names are names of
// secrets (names.go); the functions know how the forms of text look in which they are written: URLs, SQL, the
// arguments of Redis, header fields, lines of logs, labels. Marker stands in place of each secret.
//
// Called by the parsers of protocols before they fill in an event, and by collector/logs for every line:
// nothing that is hidden here leaves the host. It errs by hiding too much, and it is no proof: a secret in an
// unusual place gets through.
//
// Lines of logs quote the other forms, so the functions are nested: what URL hides of a URL, and SQL of a
// statement, Line hides of a line that holds it. Redacting what is redacted changes nothing. Both are tested
// as properties.
package redact

import (
	"cmp"
	"slices"
)

// Marker stands where a secret stood.
const Marker = "REDACTED"

// A Redactor hides secrets in text. It belongs to one goroutine and keeps its buffers: what a method returns
// is valid until the next call of any. Its zero value is ready.
type Redactor struct {
	spans []span
	out   []byte
}

// A span is a part of the text that is hidden.
type span struct{ from, to int }

// hide adds the bytes from:to to what is hidden.
func (r *Redactor) hide(from, to int) {
	if from < to {
		r.spans = append(r.spans, span{from, to})
	}
}

// replaced returns data with marker in place of each span. Spans may overlap and come in any order; each run of
// them is one secret.
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
