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
	// maxInflated is how large the records of one batch may be when they are no longer compressed. What a collector, the engine or a
	// dead letter makes is below 4 MiB; a hostile batch of 2 MiB, which is what the topics take, could become 60 GB.
	maxInflated = 16 << 20
	// maxWindow is how far back a zstd frame may refer: the decoder keeps that much.
	maxWindow = 32 << 20
)

// ErrUnreadable says that a record batch is there and will never be read: it is not what its codec says, or far too large. The text of
// the error names the batch by a hash of its beginning, so that it can be told from another.
var ErrUnreadable = errors.New("the record batch cannot be read")

// boundCodecs puts bounds on what kafka-go decompresses, once in a process: the library has one table of codecs and reads a batch whole
// into memory before anybody sees it.
var boundCodecs = sync.OnceFunc(func() {
	for i, c := range compress.Codecs {
		switch {
		case c == nil:
		case compress.Compression(i) == compress.Zstd:
			// Level 1 costs 0.7 of the 1.08 µs an event that the default costs, for 1 % more bytes.
			compress.Codecs[i] = &boundedCodec{Codec: &kafkazstd.Codec{Level: 1}, open: (&zstdReaders{}).open}
		default:
			compress.Codecs[i] = &boundedCodec{Codec: c, open: c.NewReader}
		}
	}
})

// boundedCodec is a codec whose readers end with ErrUnreadable where kafka-go's would go on for ever.
type boundedCodec struct {
	compress.Codec
	open func(io.Reader) io.ReadCloser
}

// NewReader implements compress.Codec.
func (c *boundedCodec) NewReader(r io.Reader) io.ReadCloser {
	var head [64]byte
	n, err := io.ReadFull(r, head[:])
	src := &sourceReader{r: io.MultiReader(bytes.NewReader(head[:n]), r)}
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		src.r = io.MultiReader(bytes.NewReader(head[:n]), errorReader{err})
	}
	return &boundedReader{dec: c.open(src), src: src, left: maxInflated + 1, name: c.Name(), hash: xxh3.Hash(head[:n])}
}

type errorReader struct{ err error }

func (f errorReader) Read([]byte) (int, error) { return 0, f.err }

// sourceReader keeps the error of the connection apart from those of the decoder.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

type boundedReader struct {
	dec  io.ReadCloser
	src  *sourceReader
	left int
	name string
	hash uint64
}

// Read implements io.Reader.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, fmt.Errorf("%w: %s %016x is larger than %d bytes", ErrUnreadable, b.name, b.hash, maxInflated)
	}
	n, err := b.dec.Read(p[:min(len(p), b.left)])
	b.left -= n
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case b.src.err != nil || errors.Is(err, io.ErrUnexpectedEOF): // the connection broke off
		return n, err
	}
	return n, fmt.Errorf("%w: %s %016x: %w", ErrUnreadable, b.name, b.hash, err)
}

// Close implements io.Closer.
func (b *boundedReader) Close() error { return b.dec.Close() }

// zstdReaders are decoders that remember no more than they need.
type zstdReaders struct{ pool sync.Pool }

func (z *zstdReaders) open(r io.Reader) io.ReadCloser {
	d, _ := z.pool.Get().(*zstd.Decoder)
	var err error
	if d == nil {
		d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(4*maxInflated))
	}
	if err == nil {
		err = d.Reset(r)
	}
	if err != nil {
		return io.NopCloser(errorReader{err})
	}
	return &zstdReader{Decoder: d, pool: &z.pool}
}

type zstdReader struct {
	*zstd.Decoder
	pool *sync.Pool
}

// Close gives the decoder back. Nothing is read through it afterwards.
func (r *zstdReader) Close() error {
	if d := r.Decoder; d != nil {
		r.Decoder = nil
		if d.Reset(nil) == nil {
			r.pool.Put(d)
		}
	}
	return nil
}
