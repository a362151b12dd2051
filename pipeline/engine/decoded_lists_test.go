package engine

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// messagesOf returns all types of messages within desc, and itself.
func messagesOf(desc protoreflect.MessageDescriptor) (list []protoreflect.MessageDescriptor) {
	list = append(list, desc)
	for i := range desc.Fields().Len() {
		if inner := desc.Fields().Get(i).Message(); inner != nil {
			list = append(list, messagesOf(inner)...)
		}
	}
	return list
}

// TestListsAreSeenInShortMessages: a message of fields that lie in the struct is not measured, and one with a list or a
// message is, whichever form its tag has.
func TestListsAreSeenInShortMessages(t *testing.T) {
	filler := bytes.Repeat([]byte{0}, minSearched) // 0 begins no tag
	for _, desc := range messagesOf((&pipeline.Batch{}).ProtoReflect().Descriptor()) {
		shape := newMessageShape(desc)
		holds := false
		for i := range desc.Fields().Len() {
			field := desc.Fields().Get(i)
			if !field.IsList() && field.Message() == nil {
				continue
			}
			holds = true
			forms := map[string][]byte{"a value": protowire.AppendTag(nil, field.Number(), protowire.Type(wireTypeOf(field.Kind())))}
			forms["a padded tag"] = padded(forms["a value"])
			if field.IsList() {
				forms["packed"] = protowire.AppendTag(nil, field.Number(), protowire.BytesType)
			}
			for form, tag := range forms {
				if !shape.mayHoldLists(append(bytes.Clone(filler), tag...)) {
					t.Errorf("%s as %s is not seen", field.FullName(), form)
				}
			}
		}
		if shape.mayHoldLists(filler) != (holds && len(shape.firstBytes) > maxFirstBytes) {
			t.Errorf("%s: searched in %d bytes without a list, first bytes %x", desc.Name(), len(filler), shape.firstBytes)
		}
		if shape.mayHoldLists(filler[1:]) != holds {
			t.Errorf("%s: a message of a few bytes is measured if it may hold a list", desc.Name())
		}
	}
}

// TestBatchThatEndsWithinAFieldIsAnError wherever it is cut, and so is a wire type that does not exist.
func TestBatchThatEndsWithinAFieldIsAnError(t *testing.T) {
	check := func(data []byte, want error) {
		t.Helper()
		_, err := measureBatch(data)
		if !errors.Is(err, want) {
			t.Errorf("%x: %v, want %v", data, err, want)
		}
	}
	tag := func(typ protowire.Type) []byte { return protowire.AppendTag(nil, 9999, typ) }
	for _, field := range [][]byte{
		protowire.AppendVarint(tag(protowire.VarintType), 1<<40), protowire.AppendFixed64(tag(protowire.Fixed64Type), 1),
		protowire.AppendFixed32(tag(protowire.Fixed32Type), 1), protowire.AppendBytes(tag(protowire.BytesType), make([]byte, 200)),
	} {
		check(field, nil)
		check(append(bytes.Clone(field), field...), nil)
		for size := 1; size < len(field); size++ {
			check(field[:size], errTruncated)
		}
	}
	for _, typ := range []protowire.Type{3, 4, 6, 7} {
		if _, err := measureBatch(append(tag(typ), 0)); err == nil || errors.Is(err, errTruncated) {
			t.Errorf("wire type %d: %v", typ, err)
		}
	}
	check(nil, nil)
}

// TestBoundsOfABatchAreThoseOfItsDeadLetter: a batch at a bound is decoded, and charged with what it takes. Beyond it has the reason of
// the bound.
func TestBoundsOfABatchAreThoseOfItsDeadLetter(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	value := encode(t, producer.batch(0, 1))
	for _, test := range []struct {
		size   batchSize
		reason string
	}{
		{batchSize{events: maxEventsPerBatch, bytes: maxBatchBytes - 7, shared: 7}, ""},
		{batchSize{events: maxEventsPerBatch + 1}, "too_many_events"},
		{batchSize{bytes: maxBatchBytes - 7, shared: 8}, "too_large"},
	} {
		record := consumer.Record{Value: value, Note: &measurement{batchSize: test.size}}
		if _, reason, err := w.decodeBatch(record); reason != test.reason || (err != nil) != (test.reason != "") || test.size.isTooLarge() != (err != nil) {
			t.Errorf("%+v: %q, %v, too large %t", test.size, reason, err, test.size.isTooLarge())
		}
	}
}

// TestListsCostWhatTheirElementsTake: each element of a list with its growth, and what is unknown twice its bytes.
func TestListsCostWhatTheirElementsTake(t *testing.T) {
	desc := (&pipeline.Batch{}).ProtoReflect().Descriptor()
	for _, desc := range messagesOf(desc) {
		shape := newMessageShape(desc)
		measure := func(data []byte) int {
			size, err := shape.measure(data, &measuring{shared: &sharedSize{}})
			if err != nil {
				t.Errorf("%s: %v", desc.Name(), err)
			}
			return size - shape.size
		}
		unknown := protowire.AppendBytes(protowire.AppendTag(nil, 9999, protowire.BytesType), make([]byte, 10))
		if got := measure(unknown); got != 20 {
			t.Errorf("%s: 10 unknown bytes cost %d", desc.Name(), got)
		}
		unknown = protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1)
		if got := measure(unknown); got != 2*len(unknown) {
			t.Errorf("%s: an unknown number of %d bytes costs %d", desc.Name(), len(unknown), got)
		}
		for i := range desc.Fields().Len() {
			field := desc.Fields().Get(i)
			tag := protowire.AppendTag(nil, field.Number(), protowire.BytesType)
			switch {
			case field.Kind() == protoreflect.StringKind:
				want := 0 // it aliases the encoding
				if field.IsList() {
					want = 32
				}
				if got := measure(protowire.AppendBytes(tag, []byte("text"))); got != want {
					t.Errorf("%s: a text costs %d, want %d", field.FullName(), got, want)
				}
			case field.Message() != nil:
				want := newMessageShape(field.Message()).size
				if field.IsList() {
					want += 16
				}
				if got := measure(protowire.AppendBytes(tag, nil)); got != want {
					t.Errorf("%s: a message costs %d, want %d", field.FullName(), got, want)
				}
			}
		}
	}
}
