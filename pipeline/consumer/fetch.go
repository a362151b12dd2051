package consumer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// A Record is one message. It owns its bytes: nothing overwrites them, so a decoder may alias them.
type Record struct {
	Offset int64
	Time   int64 // when it was produced, ns since 1970
	Key    []byte
	Value  []byte
}

// A Chunk is the result of one fetch. A chunk without records reports only offsets.
type Chunk struct {
	Records []Record
	Bytes   int64 // of keys and values
	End     int64 // the offset behind the last record of the partition
	Next    int64 // the offset from which the next chunk is fetched
	Lost    int64 // number of offsets before the first record that were deleted by retention before they were read
	Skipped int64 // number of offsets of an unreadable batch, after the records and before Next
}

// FetchConfig bounds one Fetcher.
type FetchConfig struct {
	MaxBytes      int64         // of one fetch, as Kafka counts them: compressed
	PrefetchBytes int64         // of chunks that wait for the worker, uncompressed; one chunk may always wait
	MaxWait       time.Duration // how long the broker may wait for records before it answers
}

// A Fetcher reads a partition from an offset on, ahead of its worker: while the worker evaluates and stores
// one block, the next chunks are fetched.
type Fetcher struct {
	C <-chan Chunk // closed when ctx ends

	mu           sync.Mutex
	pendingBytes int64 // of the chunks in C and of the one that the worker has not reported as consumed; guarded by mu
	budget       int64
	freed        chan struct{} // signals that pendingBytes fell
}

// Fetch starts a Fetcher at offset from. The Fetcher stops when ctx ends.
func (p *Partition) Fetch(ctx context.Context, from int64, cfg FetchConfig) *Fetcher {
	chunks := make(chan Chunk, 64)
	fetcher := &Fetcher{C: chunks, budget: cfg.PrefetchBytes, freed: make(chan struct{}, 1)}
	go func() {
		defer close(chunks)
		fetcher.fetchLoop(ctx, p, from, cfg, chunks)
	}()
	return fetcher
}

// Consumed reports that the worker is done with n bytes of chunks from C.
func (f *Fetcher) Consumed(n int64) {
	f.mu.Lock()
	f.pendingBytes -= n
	f.mu.Unlock()
	select {
	case f.freed <- struct{}{}:
	default:
	}
}

// reserve waits until the bytes of a chunk fit into the budget. The first chunk always fits.
func (f *Fetcher) reserve(ctx context.Context, bytes int64) error {
	for {
		f.mu.Lock()
		if f.pendingBytes == 0 || f.pendingBytes+bytes <= f.budget {
			f.pendingBytes += bytes
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.freed:
		}
	}
}

// fetchLoop sends one chunk after the other until ctx ends. next is the offset that the worker needs next:
// every offset before it was sent, lost or skipped, and counted in a chunk.
func (f *Fetcher) fetchLoop(
	ctx context.Context, partition *Partition, next int64, cfg FetchConfig, chunks chan<- Chunk,
) {
	// Invariant: all chunks up to next were sent.
	for {
		chunk, err := partition.fetchChunk(ctx, &next, cfg)
		if err != nil {
			return // ctx ended
		}
		if n := len(chunk.Records); n > 0 {
			next = chunk.Records[n-1].Offset + 1
		}
		next += chunk.Skipped
		chunk.Next = next

		// The budget bounds the memory of chunks that the worker has not consumed.
		if f.reserve(ctx, chunk.Bytes) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case chunks <- chunk:
		}
	}
}

// fetchChunk fetches from *next until it has an answer. It retries temporary errors until ctx ends. Offsets
// that retention removed are reported as lost, and *next moves behind them; a batch that stays unreadable is
// reported as skipped.
func (p *Partition) fetchChunk(ctx context.Context, next *int64, cfg FetchConfig) (chunk Chunk, err error) {
	attempts := 0
	err = Retry(ctx, p.log, "fetch "+p.String(), func() (err error) {
		chunk, err = p.fetchOnce(ctx, *next, cfg)
		switch {
		case errors.Is(err, kafkago.OffsetOutOfRange):
			return p.skipExpired(ctx, next, &chunk, err)
		case !isUnreadable(err):
			return err
		}
		if attempts++; attempts < skipAfterAttempts {
			return err
		}
		return p.skipUnreadable(ctx, *next, cfg, &chunk, err)
	})
	return chunk, err
}

// skipExpired handles an offset that is out of range. Records that retention removed are lost, and the chunk
// reports how many. An offset behind the end belongs to a log that was truncated: the error stays, and the
// worker, which checks the bounds at its start, decides.
func (p *Partition) skipExpired(ctx context.Context, next *int64, chunk *Chunk, cause error) error {
	first, end, err := p.Bounds(ctx)
	if err != nil {
		return err
	}
	if *next >= first {
		return cause
	}
	*chunk = Chunk{Lost: first - *next, End: end}
	*next = first
	return nil
}

// fetchOnce sends one fetch request. Keys and values are copied out of the library's buffers, because events
// that are decoded from them alias them.
func (p *Partition) fetchOnce(ctx context.Context, from int64, cfg FetchConfig) (Chunk, error) {
	response, err := p.cfg.Client.Kafka().Fetch(ctx, &kafkago.FetchRequest{
		Topic: p.cfg.Topic, Partition: p.ID, Offset: from, MinBytes: 1, MaxBytes: cfg.MaxBytes, MaxWait: cfg.MaxWait,
	})
	if err != nil {
		return Chunk{}, err
	}
	if response.Error != nil {
		return Chunk{}, response.Error
	}

	chunk := Chunk{End: response.HighWatermark}
	for {
		record, err := response.Records.ReadRecord()
		switch {
		case errors.Is(err, io.EOF):
			if len(chunk.Records) == 0 && chunk.End > from && response.Throttle == 0 {
				return chunk, errNoRecord
			}
			return chunk, nil
		case err != nil && len(chunk.Records) > 0:
			return chunk, nil // the records before the error are good; the rest is fetched again
		case err != nil:
			return chunk, err
		case record.Offset < from: // the broker sends whole compressed batches
			closeBytes(record.Key, record.Value)
			continue
		}
		if err := chunk.appendRecord(record); err != nil {
			return Chunk{}, err
		}
	}
}

func (c *Chunk) appendRecord(record *kafkago.Record) error {
	key, err := readBytes(record.Key)
	if err != nil {
		return err
	}
	value, err := readBytes(record.Value)
	if err != nil {
		return err
	}
	c.Records = append(c.Records, Record{Offset: record.Offset, Time: record.Time.UnixNano(), Key: key, Value: value})
	c.Bytes += int64(len(key)) + int64(len(value))
	return nil
}

func readBytes(bytes kafkago.Bytes) ([]byte, error) {
	if bytes == nil {
		return nil, nil
	}
	defer bytes.Close()
	out := make([]byte, bytes.Len())
	_, err := io.ReadFull(bytes, out)
	return out, err
}

func closeBytes(list ...kafkago.Bytes) {
	for _, b := range list {
		if b != nil {
			b.Close()
		}
	}
}
