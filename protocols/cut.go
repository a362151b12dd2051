package protocols

import (
	"unicode/utf8"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
)

// ellipsis stands between the head and the tail of a text that was cut.
const ellipsis = "…"

// CutMiddle appends data to dst. Of data longer than limit it appends the head, an ellipsis and the tail, a
// quarter of limit: whoever pads a text hides nothing at its end. Characters stay whole.
func CutMiddle(dst, data []byte, limit int) (out []byte, cut bool) {
	if len(data) <= limit {
		return append(dst, data...), false
	}
	head, tail := limit-limit/4, len(data)-limit/4
	for i := 0; i < utf8.UTFMax-1 && head > 0 && !utf8.RuneStart(data[head]); i++ {
		head--
	}
	for i := 0; i < utf8.UTFMax-1 && tail < len(data) && !utf8.RuneStart(data[tail]); i++ {
		tail++
	}
	dst = append(append(dst, data[:head]...), ellipsis...)
	return append(dst, data[tail:]...), true
}

// Redactor returns the redactor of the connections of this worker. What it returns is valid until it is used again, also
// for another connection.
func (c *Conn) Redactor() *redact.Redactor { return &c.set.redactor }

// Text returns data as a string of valid UTF-8, like Intern. Text longer than limit bytes is cut in its middle,
// which the tag truncated of event says.
func (c *Conn) Text(event *pipeline.Event, data []byte, limit int) string {
	if len(data) <= limit {
		return c.set.intern(data)
	}
	c.set.cut, _ = CutMiddle(c.set.cut[:0], data, limit)
	event.AddTag(pipeline.TagTruncated)
	return c.set.intern(c.set.cut)
}
