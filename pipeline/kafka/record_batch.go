package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
	"github.com/zeebo/xxh3"
)

// A Record is one message. It owns its bytes: nothing overwrites them, so a decoder may alias them.
type Record struct {
	Offset int64
	Time   int64 // when it was produced, ns since 1970
	Key    []byte
	Value  []byte
	// Err is set if the record stands for a record batch that cannot be read. Offset is the last one of the batch,
	// and Value the batch as the broker stores it.
	Err error
	// Note is a value that the Measure function of a consumer keeps with the record; see consumer.FetchConfig.
	Note any
}

// A RecordBatch is a record batch as the broker stores it: its records may be compressed.
type RecordBatch struct {
	First, Last int64  // offsets
	Data        []byte // header and records
}

// The header of a record batch, version 2: kafka.apache.org/documentation/#recordbatch.
const (
	batchLengthAt   = 8  // int32, of what follows it
	batchMagicAt    = 16 // int8
	batchCRCAt      = 17 // uint32, over everything from batchAttributes on
	batchAttributes = 21 // int16
	batchLastDelta  = 23 // int32: offset of the last record, relative to the first
	batchFirstTime  = 27 // int64, ms
	batchMaxTime    = 35 // int64, ms
	batchCountAt    = 57 // int32, number of records
	batchHeaderSize = 61

	maxBatchOffsets = 1 << 24 // of a batch; a header that claims more is damaged
	batchPrefixSize = 12      // of baseOffset and batchLength, which stand before every version
	batchMagic      = 2

	attributeCodec      = 0x07
	attributeAppendTime = 0x08
	attributeControl    = 0x20
)

// NextBatch returns the next record batch of the response. ok is false at the end, and before a batch of which
// the broker sent only the beginning.
func (r *FetchResponse) NextBatch() (batch RecordBatch, ok bool) {
	if len(r.rest) < batchPrefixSize {
		return batch, false
	}
	length := int64(int32(binary.BigEndian.Uint32(r.rest[batchLengthAt:])))
	if length < 0 || length > int64(len(r.rest)-batchPrefixSize) {
		return batch, false
	}
	data := r.rest[:batchPrefixSize+length]
	r.rest = r.rest[len(data):]
	batch = RecordBatch{First: int64(binary.BigEndian.Uint64(data)), Data: data}
	batch.Last = batch.First
	if len(data) >= batchHeaderSize && data[batchMagicAt] == batchMagic {
		if delta := int64(int32(binary.BigEndian.Uint32(data[batchLastDelta:]))); delta > 0 && delta < maxBatchOffsets {
			batch.Last += delta
		}
	}
	return batch, true
}

// Checksum returns the checksum in the header of the batch. ok is false if the batch has none.
func (b *RecordBatch) Checksum() (sum uint32, ok bool) {
	if len(b.Data) < batchHeaderSize || b.Data[batchMagicAt] != batchMagic {
		return 0, false
	}
	return binary.BigEndian.Uint32(b.Data[batchCRCAt:]), true
}

// ErrDamaged is the error of a record batch whose checksum is wrong. It may have been damaged on the way.
var ErrDamaged = errors.New("the record batch is damaged")

// unreadable returns an error that wraps ErrUnreadable. It has a hash of the batch.
func (b *RecordBatch) unreadable(format string, args ...any) error {
	return fmt.Errorf("%w: batch %016x at offset %d: %w", ErrUnreadable, xxh3.Hash(b.Data), b.First,
		fmt.Errorf(format, args...))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Records decompresses the batch and returns its records from offset from on. A batch that only marks the end
// of a transaction has none. The records alias one buffer, which is not larger than they are together.
func (b *RecordBatch) Records(from int64) ([]Record, error) {
	data := b.Data
	if len(data) < batchHeaderSize || data[batchMagicAt] != batchMagic {
		return nil, b.unreadable("it has another version of the format than %d", batchMagic)
	}
	if sum := crc32.Checksum(data[batchAttributes:], castagnoli); sum != binary.BigEndian.Uint32(data[batchCRCAt:]) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, b.unreadable("its checksum is wrong"))
	}
	attributes := binary.BigEndian.Uint16(data[batchAttributes:])
	if attributes&attributeControl != 0 {
		return nil, nil
	}

	body := data[batchHeaderSize:]
	if codec := attributes & attributeCodec; codec != 0 {
		var err error
		if body, err = inflate(compress.Compression(codec), body); err != nil {
			return nil, b.unreadable("decompress it: %w", err)
		}
	} else {
		body = bytes.Clone(body) // the response, of which it is a part, is larger
	}
	records, err := b.parseRecords(body, attributes, from)
	if err != nil {
		return nil, b.unreadable("%w", err)
	}
	return records, nil
}

var errTruncatedRecord = errors.New("it ends within a record")

// parseRecords returns the records from offset from on in the decompressed body of the batch.
func (b *RecordBatch) parseRecords(body []byte, attributes uint16, from int64) ([]Record, error) {
	// A record takes at least seven bytes, so a number of records that is too high is noticed before memory is
	// allocated for them.
	count := int64(int32(binary.BigEndian.Uint32(b.Data[batchCountAt:])))
	if count < 0 || count > int64(len(body)/7) {
		return nil, fmt.Errorf("it has %d bytes for %d records", len(body), count)
	}
	firstTime := int64(binary.BigEndian.Uint64(b.Data[batchFirstTime:]))
	maxTime := int64(binary.BigEndian.Uint64(b.Data[batchMaxTime:]))

	records := make([]Record, 0, count)
	in := recordReader{data: body}
	for range count {
		length := in.varint()
		if in.failed || length < 0 || length > int64(len(in.data)) {
			return nil, errTruncatedRecord
		}
		fields := recordReader{data: in.data[:length]}
		in.data = in.data[length:]

		fields.skip(1) // attributes, unused
		timeDelta, offsetDelta := fields.varint(), fields.varint()
		record := Record{Offset: b.First + offsetDelta, Key: fields.bytes(), Value: fields.bytes()}
		if fields.failed { // the headers, which follow, are not used
			return nil, errTruncatedRecord
		}
		if offsetDelta < 0 || record.Offset > b.Last {
			return nil, fmt.Errorf("it ends at offset %d and has a record at %d", b.Last, record.Offset)
		}
		record.Time = (firstTime + timeDelta) * 1e6
		if attributes&attributeAppendTime != 0 {
			record.Time = maxTime * 1e6
		}
		if record.Offset >= from {
			records = append(records, record)
		}
	}
	return records, nil
}

// A recordReader reads the fields of a record. failed is set once the data ended within a field.
type recordReader struct {
	data   []byte
	failed bool
}

func (r *recordReader) skip(n int) {
	if n > len(r.data) {
		r.data, r.failed = nil, true
		return
	}
	r.data = r.data[n:]
}

func (r *recordReader) varint() int64 {
	value, width := binary.Varint(r.data)
	if width <= 0 {
		r.data, r.failed = nil, true
		return 0
	}
	r.data = r.data[width:]
	return value
}

// bytes returns a field of bytes, nil for a null one.
func (r *recordReader) bytes() []byte {
	length := r.varint()
	if length < 0 || r.failed {
		return nil
	}
	if length > int64(len(r.data)) {
		r.data, r.failed = nil, true
		return nil
	}
	out := r.data[:length:length]
	r.data = r.data[length:]
	return out
}

// maxDecoders bounds the record batches that are decompressed at a time, and with maxInflated the memory that
// decompression takes in the process, whatever the number of CPUs: 128 MiB of batches of the largest size.
const maxDecoders = 8

// numDecoders returns the number of record batches that are decompressed at a time with a number of CPUs.
func numDecoders(cpus int) int { return min(max(2, cpus), maxDecoders) }

// scratchBuffers are the buffers into which record batches are decompressed.
var scratchBuffers = sync.OnceValue(func() chan []byte {
	count := numDecoders(runtime.GOMAXPROCS(0))
	buffers := make(chan []byte, count)
	for range count {
		buffers <- nil
	}
	return buffers
})

// keptScratch is the size up to which a scratch buffer is kept for the next batch.
const keptScratch = 4 << 20

// zstdDecoder decompresses whole frames. It refuses those that are larger than maxInflated. The window that a frame
// states is not allocated, since the output is the window, and of the size that it states only what its data can hold.
var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(numDecoders(runtime.GOMAXPROCS(0))),
		zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxInflated))
	if err != nil {
		panic(err) // an option is wrong
	}
	return decoder
})

// inflate returns the decompressed data in a buffer of its size.
func inflate(codec compress.Compression, data []byte) ([]byte, error) {
	buffers := scratchBuffers()
	scratch := <-buffers
	defer func() {
		if cap(scratch) > keptScratch {
			scratch = nil
		}
		buffers <- scratch
	}()

	var err error
	if codec == compress.Zstd {
		scratch, err = zstdDecoder().DecodeAll(data, scratch[:0])
	} else {
		scratch, err = readAll(codec, data, scratch[:0])
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(scratch), nil
}

// readAll appends the decompressed data to out. The codecs are bounded: boundCodecs.
func readAll(codec compress.Compression, data, out []byte) ([]byte, error) {
	if int(codec) >= len(compress.Codecs) || compress.Codecs[codec] == nil {
		return out, fmt.Errorf("unknown codec %d", codec)
	}
	reader := compress.Codecs[codec].NewReader(bytes.NewReader(data))
	defer reader.Close()
	buffer := bytes.NewBuffer(out)
	_, err := io.Copy(buffer, reader)
	return buffer.Bytes(), err
}
