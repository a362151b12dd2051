package logs

import (
	"bytes"
	"context"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"tidegate/collector"
	"tidegate/pipeline"
)

// splitRecords takes the whole records at the front of b, which begins at f.offset, and returns how many bytes they are.
func (c *tailer) splitRecords(ctx context.Context, f *file, b []byte) (used int, err error) {
	for used < len(b) {
		if b[used] == 0 {
			n := countNULs(b[used:])
			c.tally.nul += uint64(n)
			used += n
			continue
		}
		n := bytes.IndexByte(b[used:], '\n')
		if n < 0 {
			// A record that was torn, then NULs: the host crashed. What is before them is all there will be.
			z := bytes.IndexByte(b[used:], 0)
			if z < 0 {
				return used, nil
			}
			n = z - 1
		}
		n, err = c.handleRecord(ctx, f, b[used:used+n+1], f.offset+int64(used))
		if err != nil {
			return used, err
		}
		used += n
	}
	return used, nil
}

func countNULs(b []byte) int {
	n := 0
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}

// readRemainder takes what a file ends with that is no whole record, when no more will come.
func (c *tailer) readRemainder(ctx context.Context, f *file, b []byte) error {
	c.tally.bytes += uint64(len(b))
	for len(b) > 0 {
		n := countNULs(b)
		c.tally.nul += uint64(n)
		if n == 0 {
			var err error
			if n, err = c.handleRecord(ctx, f, b, f.offset); err != nil {
				return err
			}
		}
		f.advanceOffset(int64(n))
		b = b[n:]
	}
	return nil
}

// handleRecord takes one record, with its newline if it has one, that begins at start, and returns how much of b it was: all, or what
// is before a NUL if b is no record.
func (c *tailer) handleRecord(ctx context.Context, f *file, b []byte, start int64) (int, error) {
	end := start + int64(len(b))
	c.dropFlushed(f, start, end)
	body := b
	if n := len(b) - 1; b[n] == '\n' {
		body = b[:n]
	}
	r := &c.rec
	if !r.parse(body, &c.clock) {
		if z := bytes.IndexByte(b, 0); z > 0 {
			b, body, end = b[:z], b[:z], start+int64(z)
		}
		return len(b), c.plainLine(ctx, f, body, start, end)
	}
	c.tally.records++
	if r.time == 0 {
		c.tally.noTime++
		r.time = f.lastTime
	}
	f.lastTime = r.time
	if r.time < c.s.notBefore {
		c.tally.old++
		return len(b), nil
	}
	return len(b), c.joinRecord(ctx, f, r, start, end)
}

// dropFlushed drops the lines that an earlier life told as they were because nothing followed: it numbered that of stdout start+1 and,
// after it, that of stderr start+2.
func (c *tailer) dropFlushed(f *file, start, end int64) {
	n := f.resumeEnd - start
	if n < 1 || n > int64(streams) || end-start < 4 {
		return
	}
	for i := range n {
		f.pending[i].discardLine(&c.s.budget)
	}
}

// plainLine ships what is no record of dockerd's as it stands.
func (c *tailer) plainLine(ctx context.Context, f *file, body []byte, start, end int64) error {
	if len(bytes.TrimSpace(body)) == 0 {
		c.tally.blank++
		return nil
	}
	if end-start > int64(len(body)) {
		c.tally.notJSON++
	} else {
		c.tally.torn++
	}
	return c.shipPlain(ctx, f, body, start, end)
}

// shipPlain ships bytes of f, from start to end, as a line that says nothing of its stream; its time is that of the record before it.
func (c *tailer) shipPlain(ctx context.Context, f *file, body []byte, start, end int64) error {
	l := line{file: f.id, start: start, time: f.lastTime, text: body, bytes: uint64(len(body)), partial: true}
	if l.time == 0 {
		l.time = time.Now().UnixNano()
	}
	if l.time < c.s.notBefore {
		c.tally.old++
		return nil
	}
	return c.shipLine(ctx, f, &l, end, end)
}

// joinRecord makes lines of records (the package's comment says how).
func (c *tailer) joinRecord(ctx context.Context, f *file, r *record, start, end int64) error {
	p := &f.pending[r.stream]
	if p.active && p.time != r.time {
		l := p.toLine(r.stream)
		p.active = false
		if err := c.shipLine(ctx, f, &l, end-1, start); err != nil {
			p.active = true
			return err
		}
		p.discardLine(&c.s.budget)
	}
	ends := r.newline || r.raw < partBytes
	if !p.active && ends {
		l := line{file: f.id, start: start, time: r.time, stream: r.stream, known: true, text: r.log, bytes: uint64(len(r.log))}
		return c.shipLine(ctx, f, &l, end, end)
	}
	if !p.active {
		p.startLine(f, r, start)
	}
	c.tally.parts++
	kept, counted := len(p.text), p.bytes
	p.appendPart(r.log, c.s.cfg.LineMax, &c.s.budget)
	if !ends && p.bytes < lineHardMax {
		return nil
	}
	l := p.toLine(r.stream)
	l.partial = !ends
	p.active = false
	if err := c.shipLine(ctx, f, &l, end, end); err != nil {
		// The record counts as not read: it is read once more, if only by the last words, and must not be in the line twice.
		p.active, p.text, p.bytes = true, p.text[:kept], counted
		return err
	}
	p.discardLine(&c.s.budget)
	return nil
}

// flushOpenLines ships the lines that are open in f as they are. Their numbers lie within the record that may come next.
func (c *tailer) flushOpenLines(ctx context.Context, f *file) error {
	for i := range f.pending {
		p := &f.pending[i]
		if !p.active {
			continue
		}
		l := p.toLine(stream(i))
		l.partial = !c.folderGone.Load() && !c.containerStopped()
		p.active = false
		if err := c.shipLine(ctx, f, &l, f.offset+1+int64(i), f.offset); err != nil {
			p.active = true
			return err
		}
		p.discardLine(&c.s.budget)
	}
	return nil
}

// containerStopped tells that the container is known not to run.
func (c *tailer) containerStopped() bool {
	st := c.containerStatus()
	return st.Known && !st.Running
}

// shipLine ships a line as the event numbered at; base is where reading would go on behind it if no line were open.
func (c *tailer) shipLine(ctx context.Context, f *file, l *line, at, base int64) error {
	if at <= f.resumeEnd {
		c.tally.resumed++
		return nil
	}
	text, truncated := l.text, l.bytes > uint64(len(l.text))
	if len(text) > c.s.cfg.LineMax {
		text, truncated = text[:c.s.cfg.LineMax], true
	}
	if truncated {
		c.tally.overCap += l.bytes - uint64(len(text))
	}
	e := pipeline.EventFromVTPool()
	id := pipeline.LogID(c.s.collector, c.id, l.file[:], uint64(l.start))
	e.Id = append(e.Id[:0], id[:]...)
	e.Dataset = pipeline.Dataset_LOG
	e.Timestamp = l.time
	e.Partial = l.partial
	e.Container = c.metadata
	body := pipeline.LogLineFromVTPool()
	body.Level = detectLevel(text)
	if c.s.cfg.Redact {
		var found bool
		if text, found = c.redact.line(text); found {
			c.tally.redacted++
		}
	}
	body.Message = c.internUTF8(text)
	if l.known {
		body.Stream = l.stream.String()
	}
	body.Path = c.path
	body.Offset = uint64(l.start)
	body.Truncated = truncated
	body.Bytes = l.bytes
	e.Log = body
	if err := f.lane.Ship(ctx, e, collector.Checkpoint{End: at, ReadFrom: min(at, f.readFrom(base))}); err != nil {
		return err
	}
	c.tally.lines++
	return nil
}

// arenaSize is how many bytes of messages share one allocation. An event that lives long keeps its neighbours' text alive: small
// enough not to matter, large enough that allocation does not show.
const arenaSize = 16 << 10

// internUTF8 returns b as a string of valid UTF-8, as protobuf demands. Short ones are put into the arena, whose bytes are written once.
func (c *tailer) internUTF8(b []byte) string {
	if !utf8.Valid(b) {
		return strings.ToValidUTF8(string(b), "\ufffd")
	}
	if len(b) > arenaSize/8 {
		return string(b)
	}
	if len(b) == 0 {
		return ""
	}
	if cap(c.arena)-len(c.arena) < len(b) {
		c.arena = make([]byte, 0, arenaSize)
	}
	n := len(c.arena)
	c.arena = append(c.arena, b...)
	return unsafe.String(&c.arena[n], len(b))
}
