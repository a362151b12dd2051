package consumer

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline/kafka"
)

// newFetchLoop returns a loop without its goroutine, and the channel of its chunks.
func newFetchLoop(partition *Partition, next int64) (*fetchLoop, chan Chunk) {
	chunks := make(chan Chunk, 64)
	fetcher := &Fetcher{C: chunks, budget: 1 << 20, freed: make(chan struct{}, 1)}
	return &fetchLoop{Fetcher: fetcher, partition: partition, chunks: chunks, next: next, cfg: FetchConfig{MaxBytes: 1 << 20, MaxWait: 50 * time.Millisecond}}, chunks
}

// TestReplacedLogIsReportedWithWhatIsLost: what it held behind the last record that was sent.
func TestReplacedLogIsReportedWithWhatIsLost(t *testing.T) {
	check := func(next, end, wantLost, wantEnd int64) {
		t.Helper()
		partition, _ := newPartition(t)
		log, logged := newLog()
		partition.log = log
		loop, chunks := newFetchLoop(partition, next)
		loop.end = end
		if err := loop.endLog(t.Context(), ErrLogReplaced); !errors.Is(err, ErrLogReplaced) {
			t.Errorf("%v", err)
		}
		if chunk := <-chunks; chunk.Lost != wantLost || chunk.End != wantEnd || chunk.Next != wantEnd || len(chunk.Records) != 0 {
			t.Errorf("from %d to %d: %+v", next, end, chunk)
		}
		want := fmt.Sprintf("level=ERROR msg=\"log was replaced: the topic was created again, or the end of the log was lost\" topic=%s partition=0 next=%d end=%d err=%q\n",
			partition.Topic(), next, end, ErrLogReplaced)
		if logged.String() != want {
			t.Errorf("logged %s, want %s", logged, want)
		}
	}
	check(4, 9, 5, 9)
	check(9, 9, 0, 9)
	check(9, 4, 0, 9)
}

// TestFetchedRecordsAreSentInOneChunk, from the offset that is needed next on. An empty answer is a chunk, too.
func TestFetchedRecordsAreSentInOneChunk(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 5)
	loop, chunks := newFetchLoop(partition, 2)
	fetch := func() *kafka.FetchResponse {
		t.Helper()
		response, err := loop.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	loop.outOfRange, loop.retries = 2, 1
	if err := loop.sendBatches(t.Context(), fetch()); err != nil {
		t.Fatal(err)
	}
	var offsets []int64
	chunk := <-chunks
	for _, record := range chunk.Records {
		offsets = append(offsets, record.Offset)
	}
	if got := fmt.Sprint(offsets); got != "[2 3 4]" || chunk.Bytes < 3000 || chunk.End != 5 || chunk.Next != 5 || loop.next != 5 ||
		loop.pendingBytes != chunk.Bytes || loop.outOfRange != 0 || loop.retries != 0 {
		t.Errorf("%s, %d bytes of which %d wait, end %d, next %d", got, chunk.Bytes, loop.pendingBytes, chunk.End, chunk.Next)
	}
	if loop.identity.newest.last != 4 || loop.identity.anchor.first != 0 && loop.identity.anchor.last != 2 {
		t.Errorf("marks %+v and %+v", loop.identity.anchor, loop.identity.newest)
	}
	if err := loop.sendBatches(t.Context(), fetch()); err != nil {
		t.Fatal(err)
	}
	if chunk = <-chunks; len(chunk.Records) != 0 || chunk.Bytes != 0 || chunk.End != 5 || chunk.Next != 5 || chunk.Lost != 0 {
		t.Errorf("an empty answer: %+v", chunk)
	}
	ended, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if ended := partition.Fetch(ended, 0, FetchConfig{}); len(drain(ended.C)) != 0 || ended.Err() != nil {
		t.Errorf("a fetcher that has ended: %v", ended.Err())
	} else if ended.Consumed(0); len(ended.freed) != 1 {
		t.Error("what is consumed before it is waited for is not seen")
	}
	loop.chunks = make(chan Chunk)
	if err := loop.send(ended); !errors.Is(err, stopped) {
		t.Errorf("an ended fetcher: %v", err)
	}
	if err := loop.reserve(ended, 2<<20); !errors.Is(err, stopped) {
		t.Errorf("an ended wait for the budget: %v", err)
	}
}

// drain returns the chunks until the end of a channel.
func drain(chunks <-chan Chunk) (list []Chunk) {
	for chunk := range chunks {
		list = append(list, chunk)
	}
	return list
}

// TestEndedFetcherSendsNothing: a large batch, one for which there is no memory, and the rest of an answer.
func TestEndedFetcherSendsNothing(t *testing.T) {
	cluster, partition, _ := newBroker(t)
	ended, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	check := func(what string, change func(loop *fetchLoop)) {
		t.Helper()
		cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return answerFetch(request, 0, 0, append(rawBatch(0, 0, 0, 0), rawBatch(1, 1, 0, 1)...)), nil, true
		})
		loop, _ := newFetchLoop(partition, 0)
		response, err := loop.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		loop.chunks = make(chan Chunk) // nobody takes them
		change(loop)
		if err := loop.sendBatches(ended, response); !errors.Is(err, stopped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("the rest", func(*fetchLoop) {})
	check("a large batch", func(loop *fetchLoop) { loop.pending.Bytes = chunkBytes })
	check("no place in the budget", func(loop *fetchLoop) { loop.pendingBytes, loop.chunks = loop.budget, make(chan Chunk, 9) })
	check("no memory", func(loop *fetchLoop) {
		loop.chunks = make(chan Chunk, 9)
		loop.cfg.Measure, loop.cfg.Memory = func(*Record) int64 { return 1 }, endedMemory{}
	})
}

// endedMemory is a Memory that has nothing until its context ends.
type endedMemory struct{}

func (endedMemory) TryTake(int64) bool                      { return false }
func (endedMemory) Take(ctx context.Context, _ int64) error { return context.Cause(ctx) }
