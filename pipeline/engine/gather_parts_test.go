package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
	"tidegate/pipeline/consumer"
)

// newGatherer returns a worker at offset 5 that takes chunks from a channel, and a function that returns the next n records,
// of two events each.
func newGatherer(t *testing.T) (w *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record) {
	w, _ = newTestWorker(newFakeStore())
	w.dedupSince, w.cfg.DedupLookback = time.Unix(0, 0), 0
	w.nextOffset, w.fetched = 5, 5
	w.cfg.Linger, w.cfg.CommitIdleAfter = 2*time.Second, 5*time.Second
	chunks = make(chan consumer.Chunk, 8)
	w.fetcher = &consumer.Fetcher{C: chunks}
	producer, next := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}, int64(5)
	return w, chunks, func(n int) (list []consumer.Record) {
		for range n {
			list = append(list, recordOf(t, next, producer.batch(0, 2)))
			next++
		}
		return list
	}
}

// TestBlockEndsAtItsBounds: a record that exceeds one of them begins the next block, unless it is the only one.
func TestBlockEndsAtItsBounds(t *testing.T) {
	check := func(what string, rows int, bytes func(sizes []int) int, wantFull bool, wantEnd int64) {
		t.Helper()
		w, _, records := newGatherer(t)
		w.records = records(3)
		var sizes []int
		for _, record := range w.records {
			sizes = append(sizes, len(record.Value))
		}
		w.cfg.BlockRows, w.cfg.BlockBytes = rows, config.Size(bytes(sizes))
		w.block.reset(5)
		full, err := w.fillBlock(t.Context(), &w.block)
		if err != nil || full != wantFull || w.block.end != wantEnd || len(w.records) != int(8-wantEnd) || w.block.rows != int(2*(wantEnd-5)) {
			t.Errorf("%s: full %t, end %d, %d records are left, %v; want %t, %d", what, full, w.block.end, len(w.records), err, wantFull, wantEnd)
		}
	}
	all := func([]int) int { return 1 << 20 }
	check("a row more", 7, all, false, 8)
	check("all rows", 6, all, true, 8)
	check("a row less", 5, all, true, 7)
	check("the rows of two", 4, all, true, 7)
	check("more rows than one", 3, all, true, 6)
	check("less rows than one", 1, all, true, 6)
	check("a byte more", 100, func(s []int) int { return s[0] + s[1] + s[2] + 1 }, false, 8)
	check("all bytes", 100, func(s []int) int { return s[0] + s[1] + s[2] }, true, 8)
	check("a byte less", 100, func(s []int) int { return s[0] + s[1] + s[2] - 1 }, true, 7)
	check("the bytes of two", 100, func(s []int) int { return s[0] + s[1] }, true, 7)
	check("less bytes than one", 100, func(s []int) int { return s[0] - 1 }, true, 6)
}

// TestBlockWaitsForMoreMessages: for the linger time after its first one, and for the idle time if there is none.
func TestBlockWaitsForMoreMessages(t *testing.T) {
	check := func(what string, change func(w *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record), gathered bool, messages int, after time.Duration) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w, chunks, records := newGatherer(t)
			start := time.Now()
			go change(w, chunks, records)
			got, err := w.gatherBlock(t.Context())
			if took := time.Since(start); err != nil || got != gathered || len(w.block.messages) != messages || took != after {
				t.Errorf("%s: %t, %d messages after %v, %v; want %t, %d after %v", what, got, len(w.block.messages), took, err, gathered, messages, after)
			}
			if next := int64(5 + messages); messages > 0 && (w.block.from != 5 || w.block.end != next) {
				t.Errorf("%s: block [%d,%d)", what, w.block.from, w.block.end)
			}
			time.Sleep(time.Minute) // until the source has ended
		})
	}
	type source = func(w *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record)
	at := func(times ...time.Duration) source {
		return func(_ *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record) {
			start := time.Now()
			for i, after := range times {
				time.Sleep(after - time.Since(start))
				chunks <- consumer.Chunk{Records: records(1), End: 99, Next: int64(6 + i)}
			}
		}
	}
	check("none", at(), false, 0, 5*time.Second)
	check("one", at(time.Second), true, 1, 3*time.Second)
	check("two", at(time.Second, 2500*time.Millisecond), true, 2, 3*time.Second)
	check("one too late", at(time.Second, 3500*time.Millisecond), true, 1, 3*time.Second)
	check("one at the end of the idle time", at(4*time.Second), true, 1, 6*time.Second)
	full := func(w *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record) {
		w.cfg.BlockRows = 4
		at(time.Second, time.Second, time.Second)(w, chunks, records)
	}
	check("a full block", full, true, 2, time.Second)

	// A block is stored when its fetcher waits for memory, if it is large enough to be worth it.
	short := func(limit int64) source {
		return func(w *worker, chunks chan consumer.Chunk, records func(n int) []consumer.Record) {
			w.memory.budget.limit, w.memory.isWaiting = limit, true
			w.memory.short <- struct{}{}
			time.Sleep(500 * time.Millisecond)
			at(0)(w, chunks, records)
			time.Sleep(500 * time.Millisecond)
			w.memory.short <- struct{}{}
		}
	}
	check("memory is short", short(100), true, 1, time.Second)
	check("memory is short, the block is small", short(1<<30), true, 1, 2500*time.Millisecond)
	check("the log ends", func(_ *worker, chunks chan consumer.Chunk, _ func(int) []consumer.Record) { close(chunks) }, false, 0, 0)
}

// TestTimeOfGatheringBeginsWithTheFirstMessage: a wait for messages is none of the engine.
func TestTimeOfGatheringBeginsWithTheFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, chunks, records := newGatherer(t)
		reg := prometheus.NewPedanticRegistry()
		w.Engine.metrics = newEngineMetrics(reg)
		go func() {
			time.Sleep(4 * time.Second)
			chunks <- consumer.Chunk{End: 9, Next: 5}
			chunks <- consumer.Chunk{Records: records(1), End: 9, Next: 6}
		}()
		if gathered, err := w.gatherBlock(t.Context()); !gathered || err != nil {
			t.Fatal(gathered, err)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				if family.GetName() != "tidegate_engine_block_seconds" || metric.GetLabel()[0].GetValue() != "gather" {
					continue
				}
				if got := metric.GetHistogram(); got.GetSampleCount() != 1 || got.GetSampleSum() != 2 {
					t.Errorf("%d blocks in %v s, want the 2 s of one", got.GetSampleCount(), got.GetSampleSum())
				}
			}
		}
	})
}

// TestGatheringEndsWithItsWorker, also while a block is not complete.
func TestGatheringEndsWithItsWorker(t *testing.T) {
	w, chunks, records := newGatherer(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	revoked := errors.New("revoked")
	cancel(revoked)
	if gathered, err := w.gatherBlock(ctx); gathered || !errors.Is(err, revoked) {
		t.Errorf("%t, %v", gathered, err)
	}
	w.records = records(1)
	close(chunks)
	if gathered, err := w.gatherBlock(ctx); gathered || !errors.Is(err, revoked) {
		t.Errorf("with a record: %t, %v", gathered, err)
	}
}

// TestEmptyBlockBeginsBehindWhatIsGone: the offset behind it is committed when the idle time is over.
func TestEmptyBlockBeginsBehindWhatIsGone(t *testing.T) {
	w, chunks, _ := newGatherer(t)
	w.cfg.CommitIdleAfter = 10 * time.Millisecond
	w.intentClosed = true
	chunks <- consumer.Chunk{Lost: 4, End: 9, Next: 9}
	gathered, err := w.gatherBlock(t.Context())
	if gathered || err != nil || w.nextOffset != 9 || w.intentClosed || w.metrics.lost.Load() != 4 {
		t.Errorf("%t, %v, next %d, closed %t, %d lost", gathered, err, w.nextOffset, w.intentClosed, w.metrics.lost.Load())
	}
}

// TestFetchedChunkGoesBeforeTheTimes that have elapsed.
func TestFetchedChunkGoesBeforeTheTimes(t *testing.T) {
	w, chunks, _ := newGatherer(t)
	elapsed, never := make(chan time.Time), make(chan time.Time)
	close(elapsed)
	check := func(what string, idle, linger chan time.Time, want wakeUp) {
		t.Helper()
		if chunk, got := w.waitForChunk(idle, linger); got != want || (chunk.Next == 7) != (want == chunkReceived) {
			t.Errorf("%s: %d, chunk up to %d, want %d", what, got, chunk.Next, want)
		}
	}
	for i := range 8 {
		chunks <- consumer.Chunk{Next: 7}
		check(fmt.Sprint("chunk ", i), elapsed, elapsed, chunkReceived)
	}
	check("idle", elapsed, never, idleElapsed)
	check("linger", never, elapsed, lingerElapsed)
	w.memory.short <- struct{}{}
	check("memory", never, never, memoryShort)
	close(chunks)
	check("closed", elapsed, elapsed, fetcherClosed)
}

// TestBlockHasAGraceAfterTheStop: five seconds, unless it is finished before.
func TestBlockHasAGraceAfterTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithCancel(t.Context())
		ctx, cancel := withGrace(parent)
		finished, finish := withGrace(parent)
		finish()
		if ctx.Err() != nil || finished.Err() == nil {
			t.Errorf("before the stop: %v, finished: %v", ctx.Err(), finished.Err())
		}
		time.Sleep(time.Hour)
		stop()
		time.Sleep(5*time.Second - 1)
		synctest.Wait()
		if ctx.Err() != nil {
			t.Errorf("within the grace: %v", ctx.Err())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if ctx.Err() == nil {
			t.Error("behind the grace the block goes on")
		}
		cancel()
	})
}
