package tail

import (
	"context"

	"tidegate/collector/logs/decode"
)

const (
	// lineHardMax ends a line whose end does not come: what follows is a line of its own.
	lineHardMax = 64 << 20

	// shortLine is how much of a line without an end is kept when such lines use up the memory: what most
	// lines need.
	shortLine = 32 << 10
)

// A pendingLine is a line whose end has not been read yet.
type pendingLine struct {
	active  bool
	carried bool     // it begins in an earlier file of the log
	file    Identity // in which it begins
	start   int64    // of its first record, in file
	time    int64
	group   int64 // decode.Record.Group of its first record
	text    []byte
	bytes   uint64 // of the whole line; more than len(text) if it was cut to Config.LineMax
}

// startLine makes record, which begins at start, the first part of a line.
func (p *pendingLine) startLine(f *file, record *decode.Record, start int64) {
	*p = pendingLine{
		active: true, file: f.id, start: start, time: record.Time, group: record.Group, text: p.text[:0],
	}
}

// appendPart adds a part. What is beyond limit is counted and not kept.
func (p *pendingLine) appendPart(part []byte, limit int, budget *budget) {
	p.bytes += uint64(len(part))
	if budget.pendingBytes.Load() > budget.maxMemory {
		limit = min(limit, shortLine)
	}
	kept := min(max(0, limit-len(p.text)), len(part))
	capacity := cap(p.text)
	p.text = append(p.text, part[:kept]...)
	budget.pendingBytes.Add(int64(cap(p.text) - capacity))
}

// setLine fills line with the part of p that was read.
func (p *pendingLine) setLine(line *Line, stream decode.Stream) {
	*line = Line{File: p.file, Start: p.start, Time: p.time, Stream: stream, Text: p.text, Bytes: p.bytes}
}

// discardLine clears p and releases its memory.
func (p *pendingLine) discardLine(budget *budget) {
	budget.pendingBytes.Add(-int64(cap(p.text)))
	*p = pendingLine{}
}

// joinRecord makes lines of t.record, which stands in f from start to end.
//
// The number of a line is the end of its last record. A line that is ended by the record behind it is
// numbered end-1, which lies within that record: the record's own line may end at end.
func (t *Tailer) joinRecord(ctx context.Context, f *file, start, end int64) error {
	record := &t.record
	pendingLine := &f.pending[record.Stream]

	// A record of another group begins a line: the one before has no end.
	if pendingLine.active && record.Group != 0 && pendingLine.group != record.Group {
		pendingLine.setLine(&t.line, record.Stream)
		if err := t.shipPending(ctx, f, pendingLine, end-1, start); err != nil {
			return err
		}
	}

	// A line of one record is shipped without a copy.
	if !pendingLine.active && record.Ends {
		t.line = Line{
			File: f.id, Start: start, Time: record.Time, Stream: record.Stream,
			Text: record.Text, Bytes: uint64(len(record.Text)),
		}
		return t.shipLine(ctx, f, end, end)
	}

	if !pendingLine.active {
		pendingLine.startLine(f, record, start)
	}
	t.tally.parts++
	keptText, keptBytes := len(pendingLine.text), pendingLine.bytes
	pendingLine.appendPart(record.Text, t.group.cfg.LineMax, &t.group.budget)
	if !record.Ends && pendingLine.bytes < lineHardMax {
		return nil
	}
	pendingLine.setLine(&t.line, record.Stream)
	t.line.Partial = !record.Ends
	if err := t.shipPending(ctx, f, pendingLine, end, end); err != nil {
		// The record counts as not read: it is read once more, if only by drainUnlinked, and must not be in
		// the line twice.
		pendingLine.text, pendingLine.bytes = pendingLine.text[:keptText], keptBytes
		return err
	}
	return nil
}

// shipPending ships t.line, which was made of p, and discards p. p stays active where the line could not be
// shipped. While it is shipped p does not count as open, since the checkpoint lies behind it.
func (t *Tailer) shipPending(ctx context.Context, f *file, p *pendingLine, end, readFrom int64) error {
	p.active = false
	if err := t.shipLine(ctx, f, end, readFrom); err != nil {
		p.active = true
		return err
	}
	p.discardLine(&t.group.budget)
	return nil
}

// flushOpenLines ships the lines that are open in f as they are. Their numbers, offset+1 and so on by stream,
// lie within the record that may come next.
func (t *Tailer) flushOpenLines(ctx context.Context, f *file) error {
	for i := range f.pending {
		pendingLine := &f.pending[i]
		if !pendingLine.active {
			continue
		}
		pendingLine.setLine(&t.line, decode.Stream(i))
		t.line.Partial = !t.folderGone.Load() && !t.handler.State().Stopped
		if err := t.shipPending(ctx, f, pendingLine, f.offset+1+int64(i), f.offset); err != nil {
			return err
		}
	}
	return nil
}

// discardFlushed discards the lines that an earlier process shipped because nothing followed, when the record
// from start to end follows now. flushOpenLines numbered them start+1 and so on by stream.
func (t *Tailer) discardFlushed(f *file, start, end int64) {
	flushed := f.resumeEnd - start
	if flushed < 1 || flushed > int64(decode.NumStreams) || end-start < minPartRecord {
		return
	}
	for i := range flushed {
		f.pending[i].discardLine(&t.group.budget)
	}
}

// minPartRecord is less than the length of any record of a format whose lines have several records, and more
// than the numbers that flushOpenLines and joinRecord use within a record.
const minPartRecord = int64(decode.NumStreams) + 2
