package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
)

// A worker is the life of one partition in this process: from the assignment to the revocation. One goroutine runs it.
type worker struct {
	*Engine
	p         *consumer.Partition
	log       *slog.Logger
	topic     string
	partition int32
	label     string // of metrics

	dedup      *dedupFilter
	dedupSince time.Time // what was stored before is not among them, unless it was asked for
	grouper    *alerts.Grouper
	columns    Block
	fetcher    *consumer.Fetcher
	records    []consumer.Record // taken from fetch, not yet in a block
	logEnd     int64             // Kafka's end, as the last fetch saw it
	block      block

	nextOffset     int64 // E of the last block that is done
	intentClosed   bool  // next stands in Kafka, without an intent
	topicRecreated bool  // the topic was made anew: its offsets name other messages than the store's rows do
	warnings       sampler
}

func newWorker(e *Engine, p *consumer.Partition) *worker {
	return &worker{
		Engine: e, p: p, log: e.log.With("partition", p.ID), topic: p.Topic(), partition: int32(p.ID), label: strconv.Itoa(p.ID),
		dedup: newDedupFilter(e.cfg.Lives), grouper: alerts.NewGrouper(e.cfg.Alerts, int32(p.ID)), columns: e.deps.Store.NewBlock(),
	}
}

// stopGrace is how long a block that is under way may go on after the partition was revoked or the process told to stop: finishing it
// is cheaper than having the next owner repeat it. What is not finished then is repeated.
const stopGrace = 5 * time.Second

// run is the partition's life. It returns nil when ctx ends.
func (w *worker) run(ctx context.Context) error {
	defer w.releasePartition()
	open, found, err := w.resume(ctx)
	if err != nil {
		return ignoreCancel(ctx, err)
	}
	w.positions.Store(w.partition, w.nextOffset)
	defer w.positions.Delete(w.partition)
	fetching, stop := context.WithCancel(ctx)
	defer stop()
	w.fetcher = w.p.Fetch(fetching, w.nextOffset, consumer.FetchConfig{MaxBytes: 4 << 20, PrefetchBytes: w.cfg.Ahead, MaxWait: 250 * time.Millisecond})
	if found {
		if err := w.replayBlock(ctx, open); err != nil {
			return ignoreCancel(ctx, err)
		}
	}
	for {
		got, err := w.gatherBlock(ctx)
		if err != nil {
			break
		}
		if got {
			if err := w.processGathered(ctx); err != nil {
				return ignoreCancel(ctx, err)
			}
		} else if err := w.closeIntent(ctx); err != nil {
			return ignoreCancel(ctx, err)
		}
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	return ignoreCancel(ctx, w.closeIntent(late))
}

// ignoreCancel makes nothing of the error that says that ctx ended.
func ignoreCancel(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, consumer.ErrFenced) {
		return nil
	}
	return err
}

// resume finds out where to start and what is to be remembered there.
func (w *worker) resume(ctx context.Context) (open intent, found bool, err error) {
	start, metadata, err := w.p.Committed(ctx)
	if err != nil {
		return open, false, err
	}
	if start >= 0 {
		if open, found, err = parseIntent(start, metadata); err != nil {
			return open, false, fmt.Errorf("%w; if the block before it is known to be complete, reset the offset of group %s", err, w.cfg.Group)
		}
	}
	w.intentClosed = start >= 0 && !found
	if start, found, err = w.startOffset(ctx, start, found); err != nil {
		return open, false, err
	}
	w.nextOffset = start
	w.setNextOffset(w.p.ID, start)
	if err := w.restoreState(ctx); err != nil {
		return open, false, err
	}
	w.log.Info("partition taken", "offset", start, "open_intent", found, "lives", len(w.dedup.producers), "windows", w.grouper.OpenWindows())
	return open, found, nil
}

// startOffset turns what was committed (-1: nothing) into the offset to start at, with regard to what the store and the log hold.
func (w *worker) startOffset(ctx context.Context, start int64, found bool) (int64, bool, error) {
	var highest int64
	var rows bool
	if err := w.retry(ctx, "look up the highest offset", func() (err error) {
		highest, rows, err = w.deps.Store.HighestOffset(ctx, w.topic, w.partition)
		return err
	}); err != nil {
		return 0, false, err
	}
	first, end, err := w.p.Bounds(ctx)
	if err != nil {
		return 0, false, err
	}
	if start < 0 {
		start = first
		if rows {
			start = max(first, highest+1)
		}
	}
	// A start behind the end means that the log was cut or the topic made anew: what is in it now has other offsets than it had.
	// It is read from its beginning; what had been taken is known by its stamps.
	if start > end {
		w.log.Error("committed offset lies behind the end of the log: the topic was made anew or its end was lost; reading it from its beginning, repeats are known by their stamps",
			"topic", w.topic, "committed", start, "first", first, "end", end)
		w.intentClosed, w.topicRecreated = false, true
		return first, false, nil
	}
	w.topicRecreated = rows && highest >= end
	return start, found, nil
}

// rememberBefore is the offset behind the rows that are to be remembered at offset at: of a topic that was made anew all of them.
func (w *worker) rememberBefore(at int64) int64 {
	if w.topicRecreated {
		return 1<<63 - 1
	}
	return at
}

// restoreState restores the stamps and the fold as they stood before the first message.
func (w *worker) restoreState(ctx context.Context) error {
	before := w.rememberBefore(w.nextOffset)
	w.dedupSince = time.Now().Add(-w.cfg.Remember)
	return w.retry(ctx, "restore what was seen", func() error {
		lives, err := w.deps.Store.Stamps(ctx, w.topic, w.partition, before, w.dedupSince)
		if err != nil {
			return err
		}
		list, err := w.deps.Store.AlertsBefore(ctx, w.partition, before, w.cfg.Alerts.Lookback())
		if err != nil {
			return err
		}
		w.dedup = newDedupFilter(w.cfg.Lives)
		for _, l := range lives {
			w.dedup.restoreProducer(producer{l.Collector, l.Epoch}, l.Highest, l.Seen)
		}
		w.grouper = alerts.NewGrouper(w.cfg.Alerts, w.partition)
		w.grouper.Restore(list)
		return nil
	})
}

// replayBlock reads exactly the block that an intent names and does what of it is not done.
func (w *worker) replayBlock(ctx context.Context, it intent) error {
	if err := w.gatherReplay(ctx, it.end); err != nil {
		return err
	}
	b := &w.block
	b.end, b.time, b.replayed = it.end, it.time, true
	bundle, held := w.bundleByVersion(it.bundle)
	if b.bundle = bundle; !held {
		w.metrics.reevaluated.Add(1)
		w.log.Warn("a repeated block is judged by other rules than before: those are no longer held", "from", b.from, "end", b.end,
			"before", it.bundle, "now", bundle.Version)
	}
	if it.shard != w.cfg.Shard {
		return fmt.Errorf("block [%d,%d) was begun on shard %s, this engine writes to %s: start one with engine.shard: %s to finish it",
			b.from, b.end, it.shard, w.cfg.Shard, it.shard)
	}
	return w.processBlock(ctx, b)
}

// processGathered does a block that was gathered just now.
func (w *worker) processGathered(ctx context.Context) error {
	b := &w.block
	b.time, b.bundle = time.Now().UnixNano(), w.currentBundle()
	return w.processBlock(ctx, b)
}

// closeIntent closes the intent: all before next is done.
func (w *worker) closeIntent(ctx context.Context) error {
	if w.intentClosed {
		return nil
	}
	w.deps.Failpoint(BeforeClose)
	if err := w.p.Commit(ctx, w.nextOffset, ""); err != nil {
		return err
	}
	w.intentClosed = true
	return nil
}

func (w *worker) retry(ctx context.Context, what string, f func() error) error {
	return consumer.Retry(ctx, w.log, what, func() error {
		err := f()
		if err != nil && ctx.Err() == nil && !errors.Is(err, consumer.ErrFenced) {
			w.metrics.retries.WithLabelValues(what).Inc()
		}
		return err
	})
}

func (w *worker) releasePartition() {
	w.setNextOffset(w.p.ID, -1)
	w.metrics.lag.DeleteLabelValues(w.label)
	w.metrics.lagSeconds.DeleteLabelValues(w.label)
	w.metrics.openWindows.DeleteLabelValues(w.label)
}

// A sampler lets a line through every ten seconds.
type sampler struct{ last time.Time }

func (s *sampler) log(log *slog.Logger, msg string, args ...any) {
	if now := time.Now(); now.Sub(s.last) > 10*time.Second {
		s.last = now
		log.Warn(msg, args...) //nolint:sloglint // the message is the caller's constant
	}
}
