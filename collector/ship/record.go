package ship

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"tidegate/collector"
)

// The journal is a magic number and records: length and CRC-32C of the body (4 bytes each, little endian), and the body, which is a
// type and varints. It only grows, until it is written anew without what is over.
const (
	journalMagic = "TGJRNL1\n"
	maxRecord    = 8 << 20
	recordHead   = 8
)

// The types of records.
const (
	recLane       = 'L' // id, last seen (s since 1970), name: what the numbers of lanes mean
	recMark       = 'M' // lane, at, from: everything up to here is safe
	recDone       = 'D' // lane, after, at, from: so is this, though something before it is not
	recBatch      = 'B' // stamp, portions: a batch that is about to be produced
	recAck        = 'A' // stamp: it is safe
	recShrink     = 'X' // stamp, lane, after, at, from: what is left of a portion whose file did not come back
	recForget     = 'F' // lane: it is over
	recPartitions = 'P' // how many partitions the topic had
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batchID names a batch; the collector's id is the journal's own.
type batchID struct {
	epoch     uint64
	partition uint32
	sequence  uint64
}

// An record is one record, decoded; which fields are meant depends on kind.
type record struct {
	kind   byte
	lane   uint32
	name   string
	seen   int64
	batch  batchID
	ranges []rangeRecord
	n      int // partitions
}

type rangeRecord struct {
	lane       uint32
	after      int64
	checkpoint collector.Checkpoint
	count      uint32
}

// append writes the body of e behind b.
func (e *record) append(b []byte) []byte {
	b = append(b, e.kind)
	switch e.kind {
	case recLane:
		b = binary.AppendUvarint(b, uint64(e.lane))
		b = binary.AppendVarint(b, e.seen)
		b = append(b, e.name...)
	case recMark, recDone, recForget:
		b = e.appendLane(b)
	case recBatch, recAck, recShrink:
		b = binary.LittleEndian.AppendUint64(b, e.batch.epoch)
		b = binary.AppendUvarint(b, uint64(e.batch.partition))
		b = binary.AppendUvarint(b, e.batch.sequence)
		for i := range e.ranges {
			p := &e.ranges[i]
			b = binary.AppendUvarint(b, uint64(p.lane))
			b = appendPortion(b, p)
		}
	case recPartitions:
		b = binary.AppendUvarint(b, uint64(e.n))
	}
	return b
}

func (e *record) appendLane(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(e.lane))
	if e.kind != recForget {
		b = appendPortion(b, &e.ranges[0])
	}
	return b
}

func appendPortion(b []byte, p *rangeRecord) []byte {
	b = binary.AppendVarint(b, p.after)
	b = binary.AppendVarint(b, p.checkpoint.End)
	b = binary.AppendVarint(b, p.checkpoint.ReadFrom)
	return binary.AppendUvarint(b, uint64(p.count))
}

var errRecord = errors.New("not a record")

// parse reads the body of a record. e.portions is used again.
func (e *record) parse(b []byte) error {
	if len(b) == 0 {
		return errRecord
	}
	r := varints{b: b[1:]}
	*e = record{kind: b[0], ranges: e.ranges[:0]}
	switch e.kind {
	case recLane:
		e.lane, e.seen = r.u32(), r.signed()
		e.name = string(r.b)
		r.b = nil
	case recMark, recDone:
		e.lane = r.u32()
		e.ranges = append(e.ranges, r.portion(e.lane))
	case recForget:
		e.lane = r.u32()
	case recBatch, recAck, recShrink:
		e.batch = batchID{epoch: r.fixed64(), partition: r.u32(), sequence: r.unsigned()}
		for len(r.b) > 0 && !r.bad {
			e.ranges = append(e.ranges, r.portion(r.u32()))
		}
	case recPartitions:
		e.n = int(r.u32())
	default:
		return errRecord
	}
	if r.bad || len(r.b) > 0 || e.kind == recShrink && len(e.ranges) != 1 {
		return errRecord
	}
	for _, p := range e.ranges {
		if p.after < 0 || p.checkpoint.End < p.after || p.checkpoint.ReadFrom < 0 || p.checkpoint.ReadFrom > p.checkpoint.End {
			return errRecord
		}
	}
	return nil
}

// varints reads numbers from the front of b until one is not there: then bad is set and all that follow are 0.
type varints struct {
	b   []byte
	bad bool
}

func (r *varints) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *varints) signed() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *varints) u32() uint32 {
	v := r.unsigned()
	if v > 1<<32-1 {
		r.bad = true
	}
	return uint32(v)
}

func (r *varints) fixed64() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *varints) portion(lane uint32) rangeRecord {
	return rangeRecord{lane: lane, after: r.signed(), checkpoint: collector.Checkpoint{End: r.signed(), ReadFrom: r.signed()}, count: r.u32()}
}

// sealRecord frames a body that lies in buf behind the room that was left for its head at offset at.
func sealRecord(buf []byte, at int) {
	body := buf[at+recordHead:]
	binary.LittleEndian.PutUint32(buf[at:], uint32(len(body)))
	binary.LittleEndian.PutUint32(buf[at+4:], crc32.Checksum(body, castagnoli))
}

// appendRecord writes e as a record behind buf.
func appendRecord(buf []byte, e *record) []byte {
	at := len(buf)
	buf = append(buf, make([]byte, recordHead)...)
	buf = e.append(buf)
	sealRecord(buf, at)
	return buf
}

// readRecords calls each with every record of a journal and tells how many bytes were none. Behind damage it looks for the next
// record byte by byte: a torn tail costs nothing, a bad block in the middle costs what was in it. The work is bounded by a few
// times the length of b.
func readRecords(b []byte, each func(*record)) (damaged int) {
	if len(b) < len(journalMagic) || string(b[:len(journalMagic)]) != journalMagic {
		return len(b)
	}
	b = b[len(journalMagic):]
	var e record
	budget := 8 * (len(b) + 1)
	for len(b) > 0 {
		n := recordAt(b, &budget)
		if n > 0 && e.parse(b[recordHead:n]) == nil {
			each(&e)
		} else {
			n = 1
			damaged++
		}
		b = b[n:]
	}
	return damaged
}

// recordAt gives the length of the record at the front of b, 0 if there is none.
func recordAt(b []byte, budget *int) int {
	if len(b) < recordHead {
		return 0
	}
	size := int64(binary.LittleEndian.Uint32(b))
	if size == 0 || size > maxRecord || size > int64(len(b)-recordHead) || int64(*budget) < size {
		return 0
	}
	*budget -= int(size)
	body := b[recordHead : recordHead+size]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return 0
	}
	return recordHead + int(size)
}
