package spool

import (
	"encoding/binary"
	"errors"
)

// A Header describes a batch in the spool. It has a frame of its own: the events of a damaged batch can still
// be counted as lost.
type Header struct {
	Epoch     uint64
	Partition uint32
	Sequence  uint64
	Packets   bool     // the epoch is that of packets; false: that of files
	Counts    []uint32 // events by dataset; a spool of another version may have more or fewer datasets
}

// appendPayload appends the payload of a header frame to data.
func (h *Header) appendPayload(data []byte) []byte {
	data = binary.LittleEndian.AppendUint64(data, h.Epoch)
	data = binary.AppendUvarint(data, uint64(h.Partition))
	data = binary.AppendUvarint(data, h.Sequence)
	if h.Packets {
		data = append(data, 1)
	} else {
		data = append(data, 0)
	}
	data = binary.AppendUvarint(data, uint64(len(h.Counts)))
	for _, count := range h.Counts {
		data = binary.AppendUvarint(data, uint64(count))
	}
	return data
}

var errHeader = errors.New("not a header of the spool")

// maxCounts bounds the number of counts in a header, far above any number of datasets.
const maxCounts = 1000

// parseHeader reads the payload of a header frame.
func parseHeader(data []byte) (*Header, error) {
	if len(data) < 8 {
		return nil, errHeader
	}

	// Read the numbers. A missing or too large one sets malformed; the later ones are then of no use.
	header := &Header{Epoch: binary.LittleEndian.Uint64(data)}
	data = data[8:]
	malformed := false
	next := func(limit uint64) uint64 {
		value, size := binary.Uvarint(data)
		if size <= 0 || value > limit {
			malformed = true
			return 0
		}
		data = data[size:]
		return value
	}
	header.Partition = uint32(next(1<<32 - 1))
	header.Sequence = next(1<<64 - 1)
	header.Packets = next(1) == 1
	for range next(maxCounts) {
		header.Counts = append(header.Counts, uint32(next(1<<32-1)))
	}
	if malformed || len(data) > 0 {
		return nil, errHeader
	}
	return header, nil
}
