package tail

import (
	"bytes"
	"context"
	"time"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
)

// splitRecords handles the complete records at the front of data, which begins at f.offset, and returns their
// length in bytes.
func (t *Tailer) splitRecords(ctx context.Context, f *file, data []byte) (used int, err error) {
	// Invariant: data[:used] is handled, and f.offset is the offset of data[0].
	for used < len(data) {
		if data[used] == 0 {
			n := countNULs(data[used:])
			t.tally.nul += uint64(n)
			used += n
			continue
		}

		n := bytes.IndexByte(data[used:], '\n')
		if n < 0 {
			// A torn record with NULs behind it was left by a crash of the host: it ends at the NULs.
			nul := bytes.IndexByte(data[used:], 0)
			if nul < 0 {
				return used, nil
			}
			n = nul - 1
		}
		n, err = t.handleRecord(ctx, f, data[used:used+n+1], f.offset+int64(used))
		if err != nil {
			return used, err
		}
		used += n
	}
	return used, nil
}

// countNULs returns the number of NULs at the front of b.
func countNULs(b []byte) int {
	n := 0
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}

// readRemainder handles data, the incomplete record at the end of a final file.
func (t *Tailer) readRemainder(ctx context.Context, f *file, data []byte) error {
	t.tally.bytes += uint64(len(data))
	for len(data) > 0 {
		used := countNULs(data)
		t.tally.nul += uint64(used)
		if used == 0 {
			var err error
			if used, err = t.handleRecord(ctx, f, data, f.offset); err != nil {
				return err
			}
		}
		f.advanceOffset(int64(used))
		data = data[used:]
	}
	return nil
}

// handleRecord handles the record data, which begins at start and has its newline if there is one. It returns
// the length of the record: all of data, or the torn part at its front if data is not a record of the format.
func (t *Tailer) handleRecord(ctx context.Context, f *file, data []byte, start int64) (int, error) {
	end := start + int64(len(data))
	t.discardFlushed(f, start, end)

	// The decoder gets the record without its newline, and may overwrite it.
	body := data
	if n := len(data) - 1; data[n] == '\n' {
		body = data[:n]
	}

	isRecord := t.decode(body)
	if !isRecord {
		if torn := t.tornLength(data); torn < len(data) {
			data, body, end = data[:torn], data[:torn], start+int64(torn)
			isRecord = t.decode(body) // only its newline may be missing
		}
	}
	if !isRecord {
		return len(data), t.handleMalformed(ctx, f, body, start, end)
	}

	t.tally.records++
	t.setTime(f)
	if t.record.Time < t.group.cfg.NotBefore {
		t.tally.beforeStart++
		return len(data), nil
	}
	return len(data), t.joinRecord(ctx, f, start, end)
}

// decode reads body, one record without its newline, into t.record. It returns false if body is not a record of the
// format.
func (t *Tailer) decode(body []byte) (isRecord bool) {
	isRecord, panicked := decodeSafely(t.decoder, body, &t.record)
	if panicked != nil {
		t.decoder = t.log.Format.New() // the state of the other one is unknown
		t.tally.panics++
		if suppressed, ok := t.group.panicThrottle.Allow(); ok {
			t.group.log.Error("a record could not be decoded, its text is shipped as it is",
				"log", t.path, "panic", panicked, "suppressed", suppressed)
		}
	}
	return isRecord
}

// decodeSafely calls Decode. After a panic of the decoder, which is a bug of this program, it returns its reason: no
// record may end the collector.
func decodeSafely(decoder decode.Decoder, data []byte, record *decode.Record) (isRecord bool, panicked any) {
	defer func() { panicked = recover() }() // isRecord is false then
	return decoder.Decode(data, record), nil
}

// tornLength returns the length of the torn record at the front of data, which is no record of the format. It ends
// at NULs, which a crash of the host has left, or where the next record begins, because the rest of it was never
// written. The bytes behind it are handled next.
func (t *Tailer) tornLength(data []byte) int {
	torn := len(data)
	if nul := bytes.IndexByte(data, 0); nul > 0 {
		torn = nul
	}
	if prefix := t.log.Format.Prefix; prefix != nil {
		if next := bytes.Index(data[1:torn], prefix); next >= 0 {
			torn = 1 + next
		}
	}
	return torn
}

// setTime sets the time of a record without a time to that of the record before it, or to the present time if
// no record before it had one.
func (t *Tailer) setTime(f *file) {
	if t.record.Time != 0 {
		f.lastTime = t.record.Time
		return
	}
	if t.log.Format.Dated {
		t.tally.noTime++
	}
	if t.record.Time = f.lastTime; t.record.Time == 0 {
		t.record.Time = time.Now().UnixNano()
	}
}

// handleMalformed ships body, which is not a record of the format, as plain text. A blank body is dropped.
func (t *Tailer) handleMalformed(ctx context.Context, f *file, body []byte, start, end int64) error {
	if len(bytes.TrimSpace(body)) == 0 {
		t.tally.blank++
		return nil
	}
	if end-start > int64(len(body)) {
		t.tally.malformed++
	} else {
		t.tally.torn++
	}
	return t.shipPlain(ctx, f, body, start, end)
}

// shipPlain ships bytes of f, from start to end, as a line of no stream. Its time is that of the record
// before it.
func (t *Tailer) shipPlain(ctx context.Context, f *file, body []byte, start, end int64) error {
	t.line = Line{
		File: f.id, Start: start, Time: f.lastTime, Text: body, Bytes: uint64(len(body)), Partial: true,
	}
	if t.line.Time == 0 {
		t.line.Time = time.Now().UnixNano()
	}
	if t.line.Time < t.group.cfg.NotBefore {
		t.tally.beforeStart++
		return nil
	}
	return t.shipLine(ctx, f, end, end)
}

// shipLine ships t.line, numbered end, unless an earlier process has shipped it. readFrom is where reading
// would go on behind the line if no other line were open.
func (t *Tailer) shipLine(ctx context.Context, f *file, end, readFrom int64) error {
	if end <= f.resumeEnd {
		t.tally.resumed++
		return nil
	}

	line := &t.line
	if limit := t.group.cfg.LineMax; len(line.Text) > limit {
		head := headLen(limit)
		line.Text, line.Truncated = joinEnds(line.Text, head, len(line.Text)-(limit-head)), true
	}
	if line.Truncated {
		t.tally.overCap += line.Bytes - uint64(len(line.Text)-len(CutMark))
	}

	checkpoint := collector.Checkpoint{End: end, ReadFrom: min(end, f.readFrom(readFrom)), Sample: f.sample}
	if err := t.handler.Ship(ctx, f.producer, line, checkpoint); err != nil {
		return err
	}
	t.tally.lines++
	return nil
}
