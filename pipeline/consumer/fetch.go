package consumer

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	tidekafka "tidegate/pipeline/kafka"
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
	Next    int64 // what is fetched next
	Lost    int64 // offsets before the first record that retention took before they were read
	Skipped int64 // offsets before Next, behind the records, that hold what cannot be read
}

// FetchConfig bounds one Fetcher.
type FetchConfig struct {
	MaxBytes      int64         // of one fetch, as Kafka counts them: compressed
	PrefetchBytes int64         // bytes that wait, uncompressed, for the worker; one chunk always may
	MaxWait       time.Duration // how long the broker may hold an empty answer
}

// A Fetcher reads a partition from an offset on, ahead of the worker: while a block is judged and inserted, the next is on its way.
type Fetcher struct {
	C <-chan Chunk // closed when ctx ends

	mu           sync.Mutex
	pendingBytes int64
	budget       int64
	freed        chan struct{}
}

// Fetch starts a Fetcher at offset from. It stops when ctx ends.
func (p *Partition) Fetch(ctx context.Context, from int64, cfg FetchConfig) *Fetcher {
	c := make(chan Chunk, 64)
	f := &Fetcher{C: c, budget: cfg.PrefetchBytes, freed: make(chan struct{}, 1)}
	go func() {
		defer close(c)
		f.fetchLoop(ctx, p, from, cfg, c)
	}()
	return f
}

// Consumed says that the worker has taken n bytes out of C.
func (f *Fetcher) Consumed(n int64) {
	f.mu.Lock()
	f.pendingBytes -= n
	f.mu.Unlock()
	select {
	case f.freed <- struct{}{}:
	default:
	}
}

// reserve waits until n more bytes fit; the first chunk always does.
func (f *Fetcher) reserve(ctx context.Context, n int64) error {
	for {
		f.mu.Lock()
		if f.pendingBytes == 0 || f.pendingBytes+n <= f.budget {
			f.pendingBytes += n
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

func (f *Fetcher) fetchLoop(ctx context.Context, p *Partition, next int64, cfg FetchConfig, c chan<- Chunk) {
	for {
		var chunk Chunk
		tries := 0
		err := Retry(ctx, p.log, "fetch "+p.String(), func() (err error) {
			chunk, err = p.fetchOnce(ctx, next, cfg)
			switch {
			case errors.Is(err, kafka.OffsetOutOfRange):
				return f.skipExpired(ctx, p, &next, &chunk, err)
			case !isUnreadable(err):
				return err
			}
			if tries++; tries < skipAfterAttempts {
				return err
			}
			return p.skipUnreadable(ctx, next, cfg, &chunk, err)
		})
		if err != nil {
			return
		}
		if n := len(chunk.Records); n > 0 {
			next = chunk.Records[n-1].Offset + 1
		}
		next += chunk.Skipped
		chunk.Next = next
		if f.reserve(ctx, chunk.Bytes) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case c <- chunk:
		}
	}
}

// skipExpired finds out why the offset is out of range. Records that retention took are lost, and the chunk says how many; an offset
// behind the end is a log that was cut, and waiting for it to grow is all that can be done here (the worker checks at its start).
func (f *Fetcher) skipExpired(ctx context.Context, p *Partition, next *int64, chunk *Chunk, cause error) error {
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

// fetchOnce asks once. The values of a fetch are copied into one buffer of their own, since the events decoded from them alias it.
func (p *Partition) fetchOnce(ctx context.Context, from int64, cfg FetchConfig) (Chunk, error) {
	r, err := p.cfg.Client.Kafka().Fetch(ctx, &kafka.FetchRequest{
		Topic: p.cfg.Topic, Partition: p.ID, Offset: from, MinBytes: 1, MaxBytes: cfg.MaxBytes, MaxWait: cfg.MaxWait,
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
			if len(chunk.Records) == 0 && chunk.End > from && r.Throttle == 0 {
				return chunk, errNoRecord
			}
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
		if err := chunk.appendRecord(rec); err != nil {
			return Chunk{}, err
		}
	}
}

// skipAfterAttempts is how often a batch is asked for again before it is believed that it cannot be read: some seconds.
const skipAfterAttempts = 7

// errNoRecord says that there should be records, and that none was in the answer: what lies there is none of ours (a transaction's
// end, a batch whose records are not as many as it says). It is left out only where a record stands behind it: should a broker answer
// so for another reason, nothing is lost.
var errNoRecord = errors.New("there is no record where the log has not ended")

// isUnreadable tells whether the record batch itself is what is wrong.
func isUnreadable(err error) bool {
	return errors.Is(err, tidekafka.ErrUnreadable) || errors.Is(err, errNoRecord) || err != nil && strings.Contains(err.Error(), "crc32 checksum mismatch")
}

// skipUnreadable finds the end of the batch at from that cannot be read: the first offset at which the answer is another. A batch has as
// many offsets as it says it has, which nobody tells us; so it takes longer and longer steps, and then goes back by halves.
func (p *Partition) skipUnreadable(ctx context.Context, from int64, cfg FetchConfig, chunk *Chunk, cause error) error {
	_, end, err := p.Bounds(ctx)
	if err != nil {
		return err
	}
	same := func(at int64) (bool, error) {
		_, err := p.fetchOnce(ctx, at, cfg)
		if err == nil || isUnreadable(err) {
			return err != nil && err.Error() == cause.Error(), nil
		}
		return false, err
	}
	bad, good := from, end // bad is of the batch, good is not
	for step := int64(1); bad+step < end; step *= 2 {
		yes, err := same(bad + step)
		if err != nil {
			return err
		}
		if !yes {
			good = bad + step
			break
		}
		bad += step
	}
	for bad+1 < good {
		mid := bad + (good-bad)/2
		yes, err := same(mid)
		if err != nil {
			return err
		}
		if yes {
			bad = mid
		} else {
			good = mid
		}
	}
	if good == end && errors.Is(cause, errNoRecord) {
		return cause
	}
	p.log.Error("what cannot be read is left out", "topic", p.cfg.Topic, "partition", p.ID, "from", from, "to", good, "err", cause)
	*chunk = Chunk{Skipped: good - from, End: end}
	return nil
}

func (c *Chunk) appendRecord(rec *kafka.Record) error {
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
