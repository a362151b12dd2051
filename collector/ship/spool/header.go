package spool

import (
	"encoding/binary"
	"errors"
)

// A Header describes a batch in the spool. It can be read although the batch itself is damaged, so that what
// was lost can be counted.
type Header struct {
	Epoch     uint64
	Partition uint32
	Sequence  uint64
	Packets   bool     // the epoch is one of packets, not of files
	Counts    []uint32 // events by dataset; a spool of another version may have more or fewer datasets
}

// appendPayload appends the payload of a header frame to b.
func (h *Header) appendPayload(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	b = binary.AppendUvarint(b, uint64(h.Partition))
	b = binary.AppendUvarint(b, h.Sequence)
	if h.Packets {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(h.Counts)))
	for _, n := range h.Counts {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

var errHeader = errors.New("not a header of the spool")

// maxCounts is more than there will ever be datasets.
const maxCounts = 1000

// parseHeader reads the payload of a header frame.
func parseHeader(b []byte) (*Header, error) {
	if len(b) < 8 {
		return nil, errHeader
	}
	header := &Header{Epoch: binary.LittleEndian.Uint64(b)}
	b = b[8:]
	bad := false
	next := func(limit uint64) uint64 {
		value, size := binary.Uvarint(b)
		if size <= 0 || value > limit {
			bad = true
			return 0
		}
		b = b[size:]
		return value
	}
	header.Partition = uint32(next(1<<32 - 1))
	header.Sequence = next(1<<64 - 1)
	header.Packets = next(1) == 1
	for range next(maxCounts) {
		header.Counts = append(header.Counts, uint32(next(1<<32-1)))
	}
	if bad || len(b) > 0 {
		return nil, errHeader
	}
	return header, nil
}
