package spool

import (
	"encoding/binary"
	"math"
	"reflect"
	"testing"
)

// TestHeaderHasBounds: of each number, and of the number of counts.
func TestHeaderHasBounds(t *testing.T) {
	build := func(numbers ...uint64) []byte {
		data := []byte{1, 2, 3, 4, 5, 6, 7, 8}
		for _, number := range numbers {
			data = binary.AppendUvarint(data, number)
		}
		return data
	}
	check := func(what string, data []byte, want *Header) {
		t.Helper()
		got, err := parseHeader(data)
		if (err == nil) != (want != nil) || want != nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	const epoch = 0x0807060504030201
	check("no counts", build(0, 0, 0, 0), &Header{Epoch: epoch})
	check("the largest", build(math.MaxUint32, math.MaxUint64, 1, 2, math.MaxUint32, 5),
		&Header{Epoch: epoch, Partition: math.MaxUint32, Sequence: math.MaxUint64, Packets: true, Counts: []uint32{math.MaxUint32, 5}})
	check("a partition of 33 bits", build(math.MaxUint32+1, 0, 0, 0), nil)
	check("neither packets nor files", build(0, 0, 2, 0), nil)
	check("a count of 33 bits", build(0, 0, 0, 1, math.MaxUint32+1), nil)
	check("a count that is missing", build(0, 0, 0, 2, 1), nil)
	check("a byte more", build(0, 0, 0, 0, 1), nil)
	most := append([]uint64{0, 0, 0, maxCounts}, make([]uint64, maxCounts)...)
	check("as many counts as may be", build(most...), &Header{Epoch: epoch, Counts: make([]uint32, maxCounts)})
	most[3]++
	check("more counts", build(append(most, 0)...), nil)
	for size := range 8 + 4 {
		check("a cut header", build(0, 0, 0, 0)[:size], nil)
	}
	header := &Header{Epoch: epoch, Partition: 300, Sequence: 1 << 40, Packets: true, Counts: []uint32{1, 0, 300}}
	check("as it was written", header.appendPayload(nil), header)
	if got := header.appendPayload([]byte("x")); got[0] != 'x' || string(got[1:]) != string(header.appendPayload(nil)) {
		t.Errorf("%x", got)
	}
}
