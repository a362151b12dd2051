package consumer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// A Record is one message. Its bytes are its own: nothing overwrites them, they live as long as they are referred to.
type Record struct {
	Offset int64
	Time   int64 // when it was shipped, ns since 1970
	Key    []byte
	Value  []byte
}

// A Chunk is what one fetch brought. A chunk without records says only that the end was reached.
type Chunk struct {
	Records []Record
	Bytes   int64 // of keys and values
	End     int64 // the offset behind the last record of the partition
	Lost    int64 // offsets before the first record that retention took before they were read
}

// FetchConfig bounds one Fetcher.
type FetchConfig struct {
	Bytes int64         // of one fetch, as Kafka counts them: compressed
	Ahead int64         // bytes that wait, uncompressed, for the worker; one chunk always may
	Wait  time.Duration // how long the broker may hold an empty answer
}

// A Fetcher reads a partition from an offset on, ahead of the worker: while a block is judged and inserted, the next is on its way.
type Fetcher struct {
	C <-chan Chunk // closed when ctx ends

	mu     sync.Mutex
	ahead  int64
	budget int64
	room   chan struct{}
}

// Fetch starts a Fetcher at offset from. It stops when ctx ends.
func (p *Partition) Fetch(ctx context.Context, from int64, cfg FetchConfig) *Fetcher {
	c := make(chan Chunk, 64)
	f := &Fetcher{C: c, budget: cfg.Ahead, room: make(chan struct{}, 1)}
	go func() {
		defer close(c)
		f.run(ctx, p, from, cfg, c)
	}()
	return f
}

// Took says that the worker has taken n bytes out of C.
func (f *Fetcher) Took(n int64) {
	f.mu.Lock()
	f.ahead -= n
	f.mu.Unlock()
	select {
	case f.room <- struct{}{}:
	default:
	}
}

// admit waits until n more bytes fit; the first chunk always does.
func (f *Fetcher) admit(ctx context.Context, n int64) error {
	for {
		f.mu.Lock()
		if f.ahead == 0 || f.ahead+n <= f.budget {
			f.ahead += n
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.room:
		}
	}
}

func (f *Fetcher) run(ctx context.Context, p *Partition, next int64, cfg FetchConfig, c chan<- Chunk) {
	for {
		var chunk Chunk
		err := Retry(ctx, p.log, "fetch "+p.String(), func() (err error) {
			chunk, err = p.fetch(ctx, next, cfg)
			if errors.Is(err, kafka.OffsetOutOfRange) {
				return f.seek(ctx, p, &next, &chunk, err)
			}
			return err
		})
		if err != nil {
			return
		}
		if n := len(chunk.Records); n > 0 {
			next = chunk.Records[n-1].Offset + 1
		}
		if f.admit(ctx, chunk.Bytes) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case c <- chunk:
		}
	}
}

// seek finds out why the offset is out of range. Records that retention took are lost, and the chunk says how many; an offset
// behind the end is a log that was cut, and waiting for it to grow is all that can be done here (the worker checks at its start).
func (f *Fetcher) seek(ctx context.Context, p *Partition, next *int64, chunk *Chunk, cause error) error {
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

// fetch asks once. The values of a fetch are copied into one buffer of their own, since the events decoded from them alias it.
func (p *Partition) fetch(ctx context.Context, from int64, cfg FetchConfig) (Chunk, error) {
	r, err := p.cfg.Client.Kafka().Fetch(ctx, &kafka.FetchRequest{
		Topic: p.cfg.Topic, Partition: p.ID, Offset: from, MinBytes: 1, MaxBytes: cfg.Bytes, MaxWait: cfg.Wait,
	})
	if err != nil {
		return Chunk{}, err
	}
	if r.Error != nil {
		return Chunk{}, r.Error
	}
	chunk := Chunk{End: r.HighWatermark}
	for {
		rec, err := r.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			return chunk, nil
		}
		if err != nil {
			if len(chunk.Records) > 0 {
				return chunk, nil // what could be read is good; the rest is asked for again
			}
			return chunk, err
		}
		if rec.Offset < from { // a compressed batch comes whole
			closeBytes(rec.Key, rec.Value)
			continue
		}
		if err := chunk.add(rec); err != nil {
			return Chunk{}, err
		}
	}
}

func (c *Chunk) add(rec *kafka.Record) error {
	key, err := readBytes(rec.Key)
	if err != nil {
		return err
	}
	value, err := readBytes(rec.Value)
	if err != nil {
		return err
	}
	c.Records = append(c.Records, Record{Offset: rec.Offset, Time: rec.Time.UnixNano(), Key: key, Value: value})
	c.Bytes += int64(len(key)) + int64(len(value))
	return nil
}

func readBytes(b kafka.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	defer b.Close()
	out := make([]byte, b.Len())
	_, err := io.ReadFull(b, out)
	return out, err
}

func closeBytes(list ...kafka.Bytes) {
	for _, b := range list {
		if b != nil {
			b.Close()
		}
	}
}
