package consumer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/kafka"
)

// A Record is one message.
type Record = kafka.Record

// A Chunk is the result of a fetch, or of a part of one. A chunk without records reports only offsets.
type Chunk struct {
	Records []Record
	Bytes   int64     // of keys and values
	End     int64     // the offset behind the last record of the partition
	Next    int64     // the offset from which the next chunk is fetched
	At      time.Time // when the broker was asked that gave End
	Lost    int64     // number of offsets before the first record that were deleted before they were read
}

// FetchConfig bounds one Fetcher.
type FetchConfig struct {
	MaxBytes      int64         // of one fetch, as Kafka counts them: compressed
	PrefetchBytes int64         // of chunks that wait for the worker, uncompressed; one chunk may always wait
	MaxWait       time.Duration // how long the broker may wait for records before it answers

	Now func() time.Time // the clock of Chunk.At; nil: time.Now

	// Measure returns the memory that a record takes from now until it is processed. It may set the Note of the
	// record. nil: the memory is not counted.
	Measure func(record *Record) int64
	// Memory is the budget from which a record's bytes are taken before it is handed out. The worker returns them.
	Memory Memory
	// Decoding holds a value for each record batch that is decompressed and whose memory is not taken yet, so that its
	// capacity bounds them over all fetchers. nil: they are not bounded.
	Decoding chan struct{}
}

// now returns the time of the clock that the owner of the fetcher has.
func (c *FetchConfig) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// A Memory is a number of bytes that several fetchers share.
type Memory interface {
	// TryTake takes n bytes if they are free.
	TryTake(n int64) bool
	// Take waits until n bytes are free and takes them. It fails only if ctx has ended.
	Take(ctx context.Context, n int64) error
}

// A Fetcher reads a partition from an offset on, ahead of its worker: while the worker evaluates and stores
// one block, the next chunks are fetched.
type Fetcher struct {
	C <-chan Chunk // closed when ctx ends or Err is set

	err          error // why C was closed; set before
	mu           sync.Mutex
	pendingBytes int64 // of the chunks in C and of the one that the worker has not reported as consumed; guarded by mu
	budget       int64
	freed        chan struct{} // signals that pendingBytes fell
}

// Err returns why C was closed: ErrLogReplaced, or nil if ctx ended. It is called after C was closed.
func (f *Fetcher) Err() error { return f.err }

// Fetch starts a Fetcher at offset from. The Fetcher stops when ctx ends or the log is replaced by another one.
func (p *Partition) Fetch(ctx context.Context, from int64, cfg FetchConfig) *Fetcher {
	chunks := make(chan Chunk, 64)
	fetcher := &Fetcher{C: chunks, budget: cfg.PrefetchBytes, freed: make(chan struct{}, 1)}
	go func() {
		defer close(chunks)
		loop := &fetchLoop{Fetcher: fetcher, partition: p, cfg: cfg, chunks: chunks, next: from}
		if err := loop.run(ctx); errors.Is(err, ErrLogReplaced) {
			fetcher.err = err
		}
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

// tryReserve reserves the bytes of a chunk if they fit into the budget. The first chunk always fits.
func (f *Fetcher) tryReserve(bytes int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pendingBytes > 0 && f.pendingBytes+bytes > f.budget {
		return false
	}
	f.pendingBytes += bytes
	return true
}

// reserve waits until the bytes of a chunk fit into the budget.
func (f *Fetcher) reserve(ctx context.Context, bytes int64) error {
	for !f.tryReserve(bytes) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-f.freed:
		}
	}
	return nil
}

// A fetchLoop is the state of the goroutine that fetches.
type fetchLoop struct {
	*Fetcher
	partition *Partition
	cfg       FetchConfig
	chunks    chan<- Chunk

	// next is the offset that the worker needs next: every offset before it was sent or lost.
	next    int64
	end     int64 // offset behind the last record of the log, as of the last answer that was used
	pending Chunk // records that were not sent yet
	retries int   // fetches in a row whose first batch was damaged

	identity   logIdentity
	outOfRange int // answers in a row that say that next is behind the end of the log
}

// run sends one chunk after the other until ctx ends or the log is replaced. It returns the error.
func (l *fetchLoop) run(ctx context.Context) error {
	if err := l.identity.begin(ctx, l.partition, l.next); err != nil {
		return err
	}
	for {
		response, err := l.fetch(ctx)
		if err == nil {
			err = l.identity.compare(ctx, l.partition)
		}
		if errors.Is(err, ErrLogReplaced) {
			return l.endLog(ctx, err)
		}
		l.end = l.pending.End
		if err == nil && response == nil {
			err = l.send(ctx) // records were lost
		} else if err == nil {
			err = l.sendBatches(ctx, response)
		}
		if err != nil {
			return err // ctx ended
		}
	}
}

// endLog reports the messages of the replaced log that were not read, as far as they are known, and returns cause.
func (l *fetchLoop) endLog(ctx context.Context, cause error) error {
	l.partition.log.Error("log was replaced: the topic was created again, or the end of the log was lost",
		"topic", l.partition.cfg.Topic, "partition", l.partition.ID, "next", l.next, "end", l.end, "err", cause)
	l.pending = Chunk{Lost: max(0, l.end-l.next), End: max(l.end, l.next)}
	l.next = l.pending.End
	if err := l.send(ctx); err != nil {
		return err
	}
	return cause
}

// chunkBytes is the size of records from which on a chunk is sent.
const chunkBytes = 1 << 20

// sendBatches sends the records of a response in chunks, at least one, which may be empty. It fails only if ctx
// has ended.
func (l *fetchLoop) sendBatches(ctx context.Context, response *kafka.FetchResponse) error {
	damaged := false
	for {
		batch, ok := response.NextBatch()
		if !ok {
			break
		}
		if batch.Last < l.next { // the broker sends whole batches, also from before the offset
			continue
		}
		if err := l.beginDecoding(ctx); err != nil {
			return err
		}
		records, err := l.partition.readBatch(batch, l.next)
		if errors.Is(err, kafka.ErrDamaged) && l.retries < retriesOfDamaged {
			l.endDecoding()
			damaged = true
			break // the damage may have happened on the way: fetch it again
		}
		if err != nil {
			records = []Record{l.partition.unreadableBatch(batch, l.next, err)}
		}
		l.retries = 0
		if err := l.addBatch(ctx, batch, records); err != nil {
			return err
		}
		if l.pending.Bytes >= chunkBytes {
			if err := l.send(ctx); err != nil {
				return err
			}
		}
	}
	if err := l.send(ctx); err != nil {
		return err
	}
	if !damaged {
		return nil
	}
	l.retries++
	return l.partition.pauseAfterDamage(ctx)
}

// beginDecoding waits until a record batch may be decompressed. It fails only if ctx has ended.
func (l *fetchLoop) beginDecoding(ctx context.Context) error {
	if l.cfg.Decoding == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case l.cfg.Decoding <- struct{}{}:
		return nil
	}
}

func (l *fetchLoop) endDecoding() {
	if l.cfg.Decoding != nil {
		<-l.cfg.Decoding
	}
}

// keptWhileWaiting is the size up to which the records of a batch stay in memory while they wait for memory. A
// larger batch is decompressed again afterwards.
const keptWhileWaiting = 1 << 20

// addBatch adds the records of a batch to the pending chunk and ends its decoding. It first takes the memory for them; if
// it has to wait for that, it sends the pending chunk before.
func (l *fetchLoop) addBatch(ctx context.Context, batch kafka.RecordBatch, records []Record) error {
	size, memory := l.measure(records)
	isReserved := l.tryReserve(size)
	isTaken := l.cfg.Memory == nil || memory == 0 || isReserved && l.cfg.Memory.TryTake(memory)
	if !isReserved || !isTaken {
		again := size > keptWhileWaiting && records[0].Err == nil
		if again {
			records = nil
		}
		l.endDecoding()
		if err := l.waitForBatch(ctx, size, memory, isReserved, isTaken); err != nil {
			return err
		}
		if err := l.beginDecoding(ctx); err != nil {
			return err
		}
		if again {
			records, _ = l.partition.readBatch(batch, l.next) // it was readable before
			l.measure(records)
		}
	}
	l.endDecoding()

	l.pending.Records = append(l.pending.Records, records...)
	l.pending.Bytes += size
	l.next = max(l.next, batch.Last+1)
	l.identity.addBatch(batch)
	return nil
}

// measure returns the size of the keys and values of records, and the memory that they take until they are processed.
func (l *fetchLoop) measure(records []Record) (size, memory int64) {
	for i := range records {
		size += int64(len(records[i].Key)) + int64(len(records[i].Value))
		if l.cfg.Measure != nil {
			memory += l.cfg.Measure(&records[i])
		}
	}
	return size, memory
}

// waitForBatch sends the pending chunk, and waits until the records of a batch may wait for the worker and their memory is
// taken, as far as they do not yet. It fails only if ctx has ended.
func (l *fetchLoop) waitForBatch(ctx context.Context, size, memory int64, isReserved, isTaken bool) error {
	if err := l.send(ctx); err != nil {
		return err
	}
	if !isReserved {
		if err := l.reserve(ctx, size); err != nil {
			return err
		}
	}
	if isTaken {
		return nil
	}
	return l.cfg.Memory.Take(ctx, memory)
}

// send sends the pending chunk and begins the next one.
func (l *fetchLoop) send(ctx context.Context) error {
	chunk := l.pending
	chunk.Next = l.next
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case l.chunks <- chunk:
	}
	l.pending = Chunk{End: chunk.End, At: chunk.At}
	return nil
}

// fetch returns the response to a fetch of l.next. It retries temporary errors until ctx ends. If retention has
// removed records from l.next on, fetch returns no response; it puts their number into the pending chunk and
// moves l.next behind them.
func (l *fetchLoop) fetch(ctx context.Context) (response *kafka.FetchResponse, err error) {
	p := l.partition
	l.identity.beginRequest()
	// The time of the answer would be too late: records may have been appended since the broker wrote it.
	var asked time.Time
	err = p.cfg.retry(ctx, p.log, "fetch "+p.String(), func() (err error) {
		asked = l.cfg.now()
		response, err = p.cfg.Client.Fetch(ctx, kafka.FetchRequest{
			Topic: p.cfg.Topic, Partition: p.ID, Offset: l.next, MaxBytes: int(l.cfg.MaxBytes), MaxWait: l.cfg.MaxWait,
		})
		if errors.Is(err, kafkago.OffsetOutOfRange) {
			return l.skipExpired(ctx, err)
		}
		l.identity.isInDoubt = l.identity.isInDoubt || err != nil
		l.outOfRange = 0
		return err
	})
	if err == nil && response != nil {
		l.pending.End, l.pending.At = response.HighWatermark, asked
	}
	return response, err
}

// answersBehindEnd is the number of answers after which an offset behind the end of the log counts as the end of that
// log. After a change of its leader a partition may know its end a moment too late.
const answersBehindEnd = 3

// skipExpired handles an offset that is out of range. Records that retention removed are lost, and the pending
// chunk reports how many. An offset that stays behind the end belongs to another log.
func (l *fetchLoop) skipExpired(ctx context.Context, cause error) error {
	first, end, err := l.partition.Bounds(ctx)
	if err != nil {
		return err
	}
	if l.next >= first {
		l.identity.isInDoubt = true
		if l.outOfRange++; l.outOfRange < answersBehindEnd || l.next <= end {
			return cause
		}
		return fmt.Errorf("%w: it ends at offset %d, before %d", ErrLogReplaced, end, l.next)
	}
	l.pending.Lost, l.pending.End = first-l.next, end
	l.next = first
	return nil
}
