package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
	kafkazstd "github.com/segmentio/kafka-go/compress/zstd"
	"github.com/zeebo/xxh3"
)

const (
	// maxInflated bounds the records of one batch after decompression. Batches, alerts and dead letters of
	// ours are below 4 MiB. A hostile batch of 2 MiB, which the topics accept, could become 60 GB.
	maxInflated = 16 << 20
	// maxWindow bounds how far back a zstd frame may refer, and so the memory of a decoder that reads a stream.
	maxWindow = maxInflated
)

// ErrUnreadable is the error of a record batch that can never be read: it is not in the format of its codec,
// or far too large. The text of the error has a hash of the beginning of the batch, so the errors of two
// batches differ.
var ErrUnreadable = errors.New("the record batch cannot be read")

// boundCodecs replaces the codecs of kafka-go by bounded ones, once in a process: the library has one table
// of codecs, and reads a whole batch into memory before it returns the first record.
var boundCodecs = sync.OnceFunc(func() {
	for i, codec := range compress.Codecs {
		switch {
		case codec == nil:
		case compress.Compression(i) == compress.Zstd:
			// Level 1 costs 0.7 µs an event and the default 1.08 µs; it produces 1 % more bytes.
			compress.Codecs[i] = &boundedCodec{Codec: &kafkazstd.Codec{Level: 1}, open: (&zstdReaders{}).open}
		case compress.Compression(i) == compress.Snappy:
			compress.Codecs[i] = &boundedCodec{Codec: codec, open: openSnappy}
		default:
			compress.Codecs[i] = &boundedCodec{Codec: codec, open: codec.NewReader}
		}
	}
})

// boundedCodec is a codec whose readers fail with ErrUnreadable where kafka-go would read without end.
type boundedCodec struct {
	compress.Codec
	open func(io.Reader) io.ReadCloser
}

// NewReader implements compress.Codec.
func (c *boundedCodec) NewReader(in io.Reader) io.ReadCloser {
	var head [64]byte
	read, err := io.ReadFull(in, head[:])
	src := &sourceReader{r: io.MultiReader(bytes.NewReader(head[:read]), in)}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		src.r = io.MultiReader(bytes.NewReader(head[:read]), errorReader{err})
	}
	return &boundedReader{dec: c.open(src), src: src, left: maxInflated + 1, name: c.Name(), hash: xxh3.Hash(head[:read])}
}

type errorReader struct{ err error }

func (f errorReader) Read([]byte) (int, error) { return 0, f.err }

// sourceReader keeps an error of the connection, so that it can be distinguished from an error of the
// decoder.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	read, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return read, err
}

type boundedReader struct {
	dec  io.ReadCloser
	src  *sourceReader
	left int
	name string
	hash uint64
}

// Read implements io.Reader.
func (b *boundedReader) Read(data []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("%w: %s %016x is larger than %d bytes", ErrUnreadable, b.name, b.hash, maxInflated)
	}
	read, err := b.dec.Read(data[:min(len(data), b.left)])
	b.left -= read
	switch {
	case err == nil || err == io.EOF:
		return read, err
	case b.src.err != nil || errors.Is(err, io.ErrUnexpectedEOF): // the connection ended
		return read, err
	}
	return read, fmt.Errorf("%w: %s %016x: %w", ErrUnreadable, b.name, b.hash, err)
}

// Close implements io.Closer.
func (b *boundedReader) Close() error { return b.dec.Close() }

// zstdReaders is a pool of decoders with bounded memory.
type zstdReaders struct{ pool sync.Pool }

func (z *zstdReaders) open(in io.Reader) io.ReadCloser {
	decoder, _ := z.pool.Get().(*zstd.Decoder)
	var err error
	if decoder == nil {
		decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(4*maxInflated))
	}
	if err == nil {
		err = decoder.Reset(in)
	}
	if err != nil {
		return io.NopCloser(errorReader{err})
	}
	return &zstdReader{Decoder: decoder, pool: &z.pool}
}

type zstdReader struct {
	*zstd.Decoder
	pool *sync.Pool
}

// Close returns the decoder to the pool. The reader must not be used afterwards.
func (r *zstdReader) Close() error {
	if decoder := r.Decoder; decoder != nil {
		r.Decoder = nil
		if decoder.Reset(nil) == nil {
			r.pool.Put(decoder)
		}
	}
	return nil
}
