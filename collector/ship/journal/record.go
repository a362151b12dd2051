package journal

import (
	"encoding/binary"
	"errors"
	"slices"

	"tidegate/collector"
)

// The kinds of records. A record is a frame of that kind; its payload is a sequence of varints.
const (
	recordFile       = 'F' // file, name: the name of a file's number
	recordCheckpoint = 'C' // range: all lines of its file up to its end are safe
	recordDone       = 'D' // range: its lines are safe, although earlier lines are not
	recordBatch      = 'B' // id, ranges: a batch that is about to be produced
	recordAck        = 'A' // id: the batch is safe
	recordShrink     = 'S' // id, range: the rest of a range whose file was not read again
	recordDrop       = 'X' // file: it is not needed any more
	recordPartitions = 'P' // the number of partitions of the topic
)

// sampled is added to the kind of a record whose ranges have samples: 'c' is a recordCheckpoint with one.
const sampled = 'a' - 'A'

// A record is one decoded record. The fields that are set depend on kind.
type record struct {
	kind       byte
	file       FileID
	name       string
	batch      BatchID
	ranges     []Range
	partitions int
}

// hasSamples reports whether a range of r has a sample: all of them are then written with theirs.
func (r *record) hasSamples() bool {
	return slices.ContainsFunc(r.ranges, func(lines Range) bool { return lines.End.Sample.Size > 0 })
}

// frameKind returns the kind of the frame of r.
func (r *record) frameKind() byte {
	if r.hasSamples() {
		return r.kind + sampled
	}
	return r.kind
}

// appendPayload appends the payload of r to data.
func (r *record) appendPayload(data []byte) []byte {
	samples := r.hasSamples()
	switch r.kind {
	case recordFile:
		data = binary.AppendUvarint(data, uint64(r.file))
		data = append(data, r.name...)
	case recordDrop:
		data = binary.AppendUvarint(data, uint64(r.file))
	case recordCheckpoint, recordDone:
		data = appendRange(data, &r.ranges[0], samples)
	case recordBatch, recordAck, recordShrink:
		data = binary.LittleEndian.AppendUint64(data, r.batch.Epoch)
		data = binary.AppendUvarint(data, uint64(r.batch.Partition))
		data = binary.AppendUvarint(data, r.batch.Sequence)
		for i := range r.ranges {
			data = appendRange(data, &r.ranges[i], samples)
		}
	case recordPartitions:
		data = binary.AppendUvarint(data, uint64(r.partitions))
	}
	return data
}

// appendRange appends the five numbers of r, and with a sample the three of that.
func appendRange(data []byte, r *Range, withSample bool) []byte {
	data = binary.AppendUvarint(data, uint64(r.File))
	data = binary.AppendVarint(data, r.After)
	data = binary.AppendVarint(data, r.End.End)
	data = binary.AppendVarint(data, r.End.ReadFrom)
	data = binary.AppendUvarint(data, uint64(r.Events))
	if withSample {
		sample := r.End.Sample
		data = binary.AppendVarint(data, sample.Start)
		data = binary.AppendUvarint(data, uint64(sample.Size))
		data = binary.LittleEndian.AppendUint64(data, sample.Hash)
	}
	return data
}

var errRecord = errors.New("not a record of the journal")

// parsePayload sets r to the record of that kind in payload. The memory of r.ranges is reused.
func (r *record) parsePayload(kind byte, payload []byte) error {
	decode := decoder{rest: payload}
	samples := false
	switch kind {
	case recordCheckpoint + sampled, recordDone + sampled, recordBatch + sampled, recordShrink + sampled:
		kind, samples = kind-sampled, true
	}
	*r = record{kind: kind, ranges: r.ranges[:0]}
	// Decode the fields of the kind. A malformed number is detected below.
	switch kind {
	case recordFile:
		r.file = FileID(decode.uint32())
		r.name = string(decode.rest)
		decode.rest = nil
	case recordDrop:
		r.file = FileID(decode.uint32())
	case recordCheckpoint, recordDone:
		r.ranges = append(r.ranges, decode.readRange(samples))
	case recordBatch, recordAck, recordShrink:
		r.batch = BatchID{Epoch: decode.fixed64(), Partition: decode.uint32(), Sequence: decode.unsigned()}
		for len(decode.rest) > 0 && !decode.malformed {
			r.ranges = append(r.ranges, decode.readRange(samples))
		}
	case recordPartitions:
		r.partitions = int(decode.uint32())
	default:
		return errRecord
	}

	// The payload must be used up and its ranges valid: applyRecord does not check them.
	if decode.malformed || len(decode.rest) > 0 || kind == recordShrink && len(r.ranges) != 1 {
		return errRecord
	}
	for i := range r.ranges {
		if !r.ranges[i].isValid() {
			return errRecord
		}
	}
	return nil
}

// isValid reports whether the offsets of r can be those of a file.
func (r *Range) isValid() bool {
	sample := r.End.Sample
	return r.After >= 0 && r.End.End >= r.After && r.End.ReadFrom >= 0 && r.End.ReadFrom <= r.End.End &&
		sample.Start >= 0 && sample.Size <= maxSample
}

// maxSample bounds the bytes of a sample.
const maxSample = 1 << 16

// A decoder reads numbers from the front of rest. When a number is missing or invalid it sets malformed;
// later results are then of no use.
type decoder struct {
	rest      []byte
	malformed bool
}

// unsigned reads an unsigned varint.
func (d *decoder) unsigned() uint64 {
	value, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.malformed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return value
}

// signed reads a signed varint.
func (d *decoder) signed() int64 {
	value, size := binary.Varint(d.rest)
	if size <= 0 {
		d.malformed, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[size:]
	return value
}

// uint32 reads an unsigned varint of at most 32 bits.
func (d *decoder) uint32() uint32 {
	value := d.unsigned()
	if value > 1<<32-1 {
		d.malformed = true
	}
	return uint32(value)
}

// fixed64 reads eight bytes.
func (d *decoder) fixed64() uint64 {
	if len(d.rest) < 8 {
		d.malformed, d.rest = true, nil
		return 0
	}
	value := binary.LittleEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return value
}

// readRange reads what appendRange has written.
func (d *decoder) readRange(withSample bool) Range {
	r := Range{
		File: FileID(d.uint32()), After: d.signed(),
		End: collector.Checkpoint{End: d.signed(), ReadFrom: d.signed()}, Events: d.uint32(),
	}
	if withSample {
		r.End.Sample = collector.Sample{Start: d.signed(), Size: int(d.uint32()), Hash: d.fixed64()}
		if r.End.Sample.Size == 0 { // another range of the record has one
			r.End.Sample = collector.Sample{}
		}
	}
	return r
}
