package engine

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// A bomb is an encoded batch that consists of one field many times, in each of the ways in which it may be
// encoded.
type bomb struct {
	name string
	data []byte
}

// bombs returns a bomb of about size bytes for each list of the schema, as well as for a message and for a
// field that this version does not have, in every type of message. The descriptor names the fields, so a field
// that is added to event.proto is among them.
func bombs(size int) []bomb {
	var list []bomb
	seen := map[protoreflect.FullName]bool{}
	// wrap puts the content of a message into the messages around it.
	var visit func(desc protoreflect.MessageDescriptor, wrap func(content []byte) []byte)
	visit = func(desc protoreflect.MessageDescriptor, wrap func(content []byte) []byte) {
		if seen[desc.FullName()] {
			return
		}
		seen[desc.FullName()] = true
		add := func(name string, field []byte) {
			data := wrap(bytes.Repeat(field, size/len(field)))
			list = append(list, bomb{fmt.Sprintf("%s.%s", desc.Name(), name), data})
		}
		add("unknown", protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1))
		for i := range desc.Fields().Len() {
			field := desc.Fields().Get(i)
			tag := protowire.AppendTag(nil, field.Number(), protowire.BytesType)
			if field.IsList() {
				switch field.Kind() {
				case protoreflect.MessageKind, protoreflect.StringKind, protoreflect.BytesKind:
					add(string(field.Name()), append(tag, 0))
					add(string(field.Name())+" with padded tags", append(padded(tag), 0))
				default:
					number := protowire.AppendTag(nil, field.Number(), protowire.VarintType)
					add(string(field.Name()), append(number, 1))
					add(string(field.Name())+" packed", protowire.AppendBytes(tag, make([]byte, size/4)))
				}
			}
			if field.Message() != nil {
				visit(field.Message(), func(content []byte) []byte { return wrap(protowire.AppendBytes(tag, content)) })
			}
		}
	}
	visit((&pipeline.Batch{}).ProtoReflect().Descriptor(), func(content []byte) []byte { return content })
	return list
}

// padded returns an encoded tag with a byte more than it needs.
func padded(tag []byte) []byte {
	out := bytes.Clone(tag)
	out[len(out)-1] |= 0x80
	return append(out, 0)
}

// TestMeasuredSizeIsThatOfTheDecodedBatch decodes a bomb for each field and compares the growth of the heap
// with the measured size.
func TestMeasuredSizeIsThatOfTheDecodedBatch(t *testing.T) {
	heap := func() int {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	for _, bomb := range bombs(200_000) {
		size, err := measureBatch(bomb.data)
		if err != nil {
			t.Errorf("%s: %v", bomb.name, err)
			continue
		}
		before := heap()
		batch := &pipeline.Batch{}
		if err := batch.UnmarshalVTUnsafe(bomb.data); err != nil {
			t.Errorf("%s: %v", bomb.name, err)
		}
		grown := heap() - before
		runtime.KeepAlive(batch)
		if grown > size.bytes+16<<10 {
			t.Errorf("%s: measured as %d bytes, takes %d", bomb.name, size.bytes, grown)
		}
		if size.bytes > 8*grown+64<<10 {
			t.Errorf("%s: measured as %d bytes, takes only %d", bomb.name, size.bytes, grown)
		}
	}
}

// TestMeasuredSizeOfOrdinaryEvents: the size of what a collector sends is neither too low nor more than half
// too high.
func TestMeasuredSizeOfOrdinaryEvents(t *testing.T) {
	batch := (&harness{TB: t, sequences: map[int]uint64{}}).batch(0, 0)
	for i := range 3000 {
		batch.Events = append(batch.Events, mixedEvent(i))
	}
	data := encode(t, batch)
	size, err := measureBatch(data)
	if err != nil || size.events != 3000 {
		t.Fatal(size, err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	decoded := &pipeline.Batch{}
	if err := decoded.UnmarshalVTUnsafe(data); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(decoded)
	grown := int(after.HeapAlloc) - int(before.HeapAlloc)
	if size.bytes < grown || size.bytes > grown*3/2 {
		t.Errorf("measured as %d bytes, takes %d", size.bytes, grown)
	}
	if allocs := testing.AllocsPerRun(10, func() { _, _ = measureBatch(data) }); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestCopiesOfLongTextsAreMeasured: those of a long line count, and of ordinary events none do.
func TestCopiesOfLongTextsAreMeasured(t *testing.T) {
	check := func(length, events, want int) {
		t.Helper()
		batch := (&harness{TB: t, sequences: map[int]uint64{}}).batch(0, 0)
		for range events {
			line := event(1)
			line.Log.Message = strings.Repeat("x", length)
			batch.Events = append(batch.Events, line)
		}
		record := consumer.Record{Value: encode(t, batch)}
		taken := measureRecord(&record)
		size := measurementOf(record)
		counted := int64((1+columnBytesPerByte)*len(record.Value) + size.bytes + size.events*columnBytesPerEvent + size.labels*columnBytesPerLabel)
		if copies := taken - counted; copies < int64(want-want/100) || copies > int64(want+want/100) {
			t.Errorf("%d lines of %d bytes: %d bytes for copies, want %d", events, length, copies, want)
		}
	}
	check(100, 1000, 0)
	check(columnBytesPerEvent/2, 1000, 0)
	check(15<<20, 1, 45<<20)
	check(1<<20, 4, 12<<20)
}

// TestBombsBecomeDeadLetters sends a message of 15 MiB for each field that can be repeated, a kilobyte each
// as Kafka stores them. The engine writes those that are too large as dead letters, goes on, and its memory
// stays bounded.
func TestBombsBecomeDeadLetters(t *testing.T) {
	if testing.Short() {
		t.Skip("decompresses a gigabyte")
	}
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	sent := 0
	for _, bomb := range bombs(15 << 20) {
		harness.produce(0, bomb.data)
		sent++
	}
	harness.send(0, 1, 10)
	runtime.GC()
	heapInUse := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapInuse
	}
	before := heapInUse() // of the broker, which is in this process

	engine, stop := harness.start(store, testBundle, nil)
	peak := uint64(0)
	waitUntil(t, "rows and dead letters", func() bool {
		peak = max(peak, heapInUse())
		return store.count() == 10 && engine.Ledger().DeadLettered == uint64(sent)
	})
	stop()
	tooLarge := 0
	for _, message := range harness.readDeadLetters(sent) {
		for _, header := range message.Headers {
			if header.Key == "reason" && string(header.Value) == "too_large" {
				tooLarge++
			}
		}
	}
	grown := (peak - min(before, peak)) >> 20
	t.Logf("%d bombs, %d too large, the heap grew by %d MiB", sent, tooLarge, grown)
	if tooLarge < 20 {
		t.Errorf("%d of %d bombs are too large", tooLarge, sent)
	}
	if grown > 600 {
		t.Errorf("the heap grew by %d MiB", grown)
	}
}

// BenchmarkMeasureBatch measures batches of 1,000 mixed events.
func BenchmarkMeasureBatch(b *testing.B) {
	batch := (&harness{TB: b, sequences: map[int]uint64{}}).batch(0, 0)
	for i := range 1000 {
		batch.Events = append(batch.Events, mixedEvent(i))
	}
	data := encode(b, batch)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := measureBatch(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/event")
}
