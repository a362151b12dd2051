package tail

import (
	"context"
	"slices"

	"tidegate/collector/logs/decode"
)

const (
	// lineHardMax is the length at which a line is ended although its end was not read. The next record
	// begins a new line.
	lineHardMax = 64 << 20

	// shortLine is the number of bytes that are kept of an incomplete line when incomplete lines have used up
	// the memory. Most lines are shorter. Lines of one record are never incomplete.
	shortLine = 8 << 10
)

// A pendingLine is a line whose end has not been read yet.
type pendingLine struct {
	active  bool
	carried bool     // it begins in an earlier file of the log
	file    Identity // the file in which it begins
	start   int64    // of its first record, in file
	time    int64
	group   int64 // decode.Record.Group of its first record
	text    []byte
	bytes   uint64 // of the whole line; more than len(text) if it was cut to Config.LineMax

	// Of a line that is longer than its limit, text[ring:] is a ring buffer of the last bytes, and text[next]
	// is the oldest of them.
	cut        bool
	ring, next int

	// unshipped is the end of the record that completed the line, when the line could not be shipped; 0: none.
	// The record is read again, and is in the line already.
	unshipped int64
}

// startLine begins a line with record, which is at offset start of f.
func (p *pendingLine) startLine(f *file, record *decode.Record, start int64) {
	*p = pendingLine{
		active: true, file: f.id, start: start, time: record.Time, group: record.Group, text: p.text[:0],
	}
}

// appendPart appends a part of the line. Of a line longer than limit, the head and the tail are kept; all bytes
// are counted.
func (p *pendingLine) appendPart(part []byte, limit int, budget *budget) {
	p.bytes += uint64(len(part))
	left := budget.maxMemory - budget.pendingBytes.Load()
	limit = min(limit, max(shortLine, int(left/8)))
	if !p.cut {
		kept := min(max(0, limit-len(p.text)), len(part))
		capacity := cap(p.text)
		p.text = append(p.text, part[:kept]...)
		budget.pendingBytes.Add(int64(cap(p.text) - capacity))
		if part = part[kept:]; len(part) == 0 {
			return
		}
		p.cut, p.ring = true, headLen(len(p.text))
		p.next = p.ring
	}
	p.appendToRing(part)
}

// appendToRing overwrites the oldest bytes of the ring buffer with part.
func (p *pendingLine) appendToRing(part []byte) {
	size := len(p.text) - p.ring
	if size == 0 {
		return
	}
	part = part[max(0, len(part)-size):]
	copied := copy(p.text[p.next:], part)
	copy(p.text[p.ring:], part[copied:])
	p.next = p.ring + (p.next-p.ring+len(part))%size
}

// setLine sets line to the parts of p that were read so far.
func (p *pendingLine) setLine(line *Line, stream decode.Stream) {
	text := p.text
	if p.cut {
		// Rotate the ring buffer by three reversals, so that it begins with its oldest byte.
		slices.Reverse(text[p.ring:p.next])
		slices.Reverse(text[p.next:])
		slices.Reverse(text[p.ring:])
		p.next = p.ring
		text = joinEnds(append([]byte(nil), text...), p.ring, p.ring)
	}
	*line = Line{File: p.file, Start: p.start, Time: p.time, Stream: stream, Text: text, Bytes: p.bytes}
	line.Truncated = p.cut
}

// discardLine clears p and releases its memory.
func (p *pendingLine) discardLine(budget *budget) {
	budget.pendingBytes.Add(-int64(cap(p.text)))
	*p = pendingLine{}
}

// joinRecord joins t.record, which is at start to end of f, with the incomplete line of its stream, and ships
// the lines that are complete then.
//
// The number of a line is the end of its last record. A line that is ended by t.record, without belonging to
// it, has the number end-1, because the line of t.record itself may have the number end.
func (t *Tailer) joinRecord(ctx context.Context, f *file, start, end int64) error {
	record := &t.record
	pending := &f.pending[record.Stream]

	// 1. A record of another group begins a new line: ship the line before, which has no end.
	if pending.active && record.Group != 0 && pending.group != record.Group {
		pending.setLine(&t.line, record.Stream)
		if err := t.shipPending(ctx, f, pending, end-1, start); err != nil {
			return err
		}
	}

	// 2. A line of one record is shipped without a copy.
	if !pending.active && record.Ends {
		t.line = Line{
			File: f.id, Start: start, Time: record.Time, Stream: record.Stream,
			Text: record.Text, Bytes: uint64(len(record.Text)),
		}
		return t.shipLine(ctx, f, end, end)
	}

	if !pending.active {
		pending.startLine(f, record, start)
	}
	t.tally.parts++
	if pending.unshipped != end {
		pending.appendPart(record.Text, t.group.cfg.LineMax, &t.group.budget)
	}
	if !record.Ends && pending.bytes < lineHardMax {
		return nil
	}
	pending.setLine(&t.line, record.Stream)
	t.line.Partial = !record.Ends
	if err := t.shipPending(ctx, f, pending, end, end); err != nil {
		pending.unshipped = end // the record is read once more, at least by drainUnlinked
		return err
	}
	return nil
}

// shipPending ships t.line, which was made from pending, and discards pending. pending stays active if the
// line could not be shipped. It is inactive during Ship, since the checkpoint of the line is behind it
// (file.readFrom).
func (t *Tailer) shipPending(ctx context.Context, f *file, pending *pendingLine, end, readFrom int64) error {
	pending.active = false
	if err := t.shipLine(ctx, f, end, readFrom); err != nil {
		pending.active = true
		return err
	}
	pending.discardLine(&t.group.budget)
	return nil
}

// flushOpenLines ships the incomplete lines of f as they are. The number of the line of stream i is
// offset+1+i, which is within the next record, if one follows.
func (t *Tailer) flushOpenLines(ctx context.Context, f *file) error {
	for i := range f.pending {
		pending := &f.pending[i]
		if !pending.active {
			continue
		}
		pending.setLine(&t.line, decode.Stream(i))
		t.line.Partial = !t.folderGone.Load() && !t.handler.State().Stopped
		if err := t.shipPending(ctx, f, pending, f.offset+1+int64(i), f.offset); err != nil {
			return err
		}
	}
	return nil
}

// discardFlushed discards incomplete lines that an earlier process has flushed at offset start, when the
// record from start to end follows now. The checkpoint shows them by their numbers, start+1+stream
// (flushOpenLines).
func (t *Tailer) discardFlushed(f *file, start, end int64) {
	flushed := f.resumeEnd - start
	if flushed < 1 || flushed > int64(decode.NumStreams) || end-start < minPartRecord {
		return
	}
	for i := range flushed {
		f.pending[i].discardLine(&t.group.budget)
	}
}

// minPartRecord is shorter than any record of a format that spreads lines over records, and longer than the
// range of numbers that flushOpenLines and joinRecord use within a record.
const minPartRecord = int64(decode.NumStreams) + 2
