package journal

import (
	"encoding/binary"
	"math"
	"testing"

	"tidegate/collector"
)

// TestRecordThatIsCutOrLongerIsNone: each number of a payload is needed, and nothing may follow.
func TestRecordThatIsCutOrLongerIsNone(t *testing.T) {
	var span Range
	span.File, span.After, span.Events = 3, 1000, 300
	span.End.End, span.End.ReadFrom = 5000, 4000
	id := BatchID{Epoch: 1 << 40, Partition: 300, Sequence: 300}
	sampled := span
	sampled.End.Sample = collector.Sample{Start: 4700, Size: 256, Hash: 1 << 60}
	for _, c := range []record{
		{kind: recordDrop, file: 300},
		{kind: recordCheckpoint, ranges: []Range{span}},
		{kind: recordDone, ranges: []Range{span}},
		{kind: recordShrink, batch: id, ranges: []Range{span}},
		{kind: recordCheckpoint, ranges: []Range{sampled}},
		{kind: recordDone, ranges: []Range{sampled}},
		{kind: recordShrink, batch: id, ranges: []Range{sampled}},
		{kind: recordPartitions, partitions: 300},
	} {
		payload := c.appendPayload(nil)
		var got record
		if err := got.parsePayload(c.frameKind(), payload); err != nil {
			t.Errorf("%c: %v", c.kind, err)
		}
		for size := range payload {
			if err := got.parsePayload(c.frameKind(), payload[:size]); err == nil {
				t.Errorf("%c: the first %d of %d bytes are a record", c.kind, size, len(payload))
			}
		}
		if err := got.parsePayload(c.frameKind(), append(payload, 0)); err == nil {
			t.Errorf("%c: a record with a byte behind it", c.kind)
		}
	}

	// A batch has any number of ranges, and a cut within one is seen.
	batch := record{kind: recordBatch, batch: id, ranges: []Range{span, span}}
	payload := batch.appendPayload(nil)
	one := len(appendRange(nil, &span, false))
	var got record
	for size := range len(payload) + 1 {
		isWhole := size == len(payload) || size == len(payload)-one || size == len(payload)-2*one
		if err := got.parsePayload(recordBatch, payload[:size]); (err == nil) != isWhole {
			t.Errorf("%d of %d bytes of a batch: %v", size, len(payload), err)
		}
	}

	// Numbers that are out of their range.
	tooLarge := binary.AppendUvarint(nil, math.MaxUint32+1)
	for _, kind := range []byte{recordDrop, recordFile, recordPartitions} {
		if err := got.parsePayload(kind, tooLarge); err == nil {
			t.Errorf("%c: a number of 33 bits", kind)
		}
	}
	largest := binary.AppendUvarint(nil, math.MaxUint32)
	if err := got.parsePayload(recordDrop, largest); err != nil || got.file != math.MaxUint32 {
		t.Errorf("the largest number: %d, %v", got.file, err)
	}
	if err := got.parsePayload('?', nil); err == nil {
		t.Error("a record of an unknown kind")
	}
	check := func(what string, change func(r *Range), want bool) {
		t.Helper()
		changed := span
		change(&changed)
		r := record{kind: recordCheckpoint, ranges: []Range{changed}}
		if err := got.parsePayload(r.frameKind(), r.appendPayload(nil)); (err == nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("begins at 0", func(r *Range) { r.After = 0 }, true)
	check("begins before 0", func(r *Range) { r.After = -1 }, false)
	check("ends where it begins", func(r *Range) { r.After = r.End.End }, true)
	check("ends before it begins", func(r *Range) { r.After = r.End.End + 1 }, false)
	check("read from 0", func(r *Range) { r.End.ReadFrom = 0 }, true)
	check("read from before 0", func(r *Range) { r.End.ReadFrom = -1 }, false)
	check("read from the end", func(r *Range) { r.End.ReadFrom = r.End.End }, true)
	check("read from behind the end", func(r *Range) { r.End.ReadFrom = r.End.End + 1 }, false)
}
