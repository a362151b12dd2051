package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/logging"
)

// A worker processes one partition from its assignment to its revocation. One goroutine runs it; the fetcher
// is the only other one.
type worker struct {
	*Engine
	partition *consumer.Partition
	source    pipeline.TopicPartition // the partition, as the store names it
	label     string                  // the partition, as metrics name it
	log       *slog.Logger
	throttles throttles

	// State that is restored from the store when the partition is assigned.
	dedup      *dedupFilter
	dedupSince time.Time // dedup holds what was stored since; of older batches only those of producers that were loaded
	grouper    *alerts.Grouper

	// Input.
	fetcher *consumer.Fetcher
	records []consumer.Record // received and not in a block yet
	logEnd  int64             // offset behind the last record of the partition, as of the last fetch

	// Output.
	block        block
	rows         pipeline.EventInserter // of the block, or of the part of it that is being inserted
	nextOffset   int64                  // end of the last finished block
	intentClosed bool                   // nextOffset is committed without an intent

	// topicRecreated is set when the topic was deleted and created again: its offsets are not those of the
	// stored rows.
	topicRecreated bool
}

// throttles limit how often the warnings of a worker are logged.
type throttles struct{ insert, bisect, deadLetter, panic *logging.Throttle }

const warnInterval = 10 * time.Second

func newWorker(engine *Engine, partition *consumer.Partition) *worker {
	newThrottle := func() *logging.Throttle { return logging.NewThrottle(warnInterval) }
	return &worker{
		Engine: engine, partition: partition, log: engine.log.With("partition", partition.ID),
		source:    pipeline.TopicPartition{Topic: partition.Topic(), Partition: int32(partition.ID)},
		label:     strconv.Itoa(partition.ID),
		throttles: throttles{newThrottle(), newThrottle(), newThrottle(), newThrottle()},
		dedup:     newDedupFilter(engine.cfg.MaxProducers),
		grouper:   alerts.NewGrouper(engine.cfg.Grouping, int32(partition.ID)),
		rows:      engine.deps.Store.NewInserter(),
	}
}

// stopGrace is how long a block that is being processed may go on after the partition was revoked or the
// process was told to stop. Finishing it is cheaper than a replay by the next owner.
const stopGrace = 5 * time.Second

// processPartition processes the partition until ctx ends, and then returns nil. It replays the block of an
// open intent first.
func (w *worker) processPartition(ctx context.Context) error {
	defer w.releasePartition()
	open, found, err := w.resume(ctx)
	if err != nil {
		return ignoreCancel(ctx, err)
	}

	fetchCtx, stopFetch := context.WithCancel(ctx)
	defer stopFetch()
	w.fetcher = w.partition.Fetch(fetchCtx, w.nextOffset, consumer.FetchConfig{
		MaxBytes: 4 << 20, PrefetchBytes: int64(w.cfg.PrefetchBytes), MaxWait: 250 * time.Millisecond,
	})
	if found {
		if err := w.replayBlock(ctx, open); err != nil {
			return ignoreCancel(ctx, err)
		}
	}

	for {
		gathered, err := w.gatherBlock(ctx)
		if err != nil {
			break
		}
		if gathered {
			err = w.processNewBlock(ctx)
		} else {
			err = w.closeIntent(ctx)
		}
		if err != nil {
			return ignoreCancel(ctx, err)
		}
	}

	// ctx has ended between two blocks: close the intent, so that the next owner need not replay the last
	// block.
	closeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	return ignoreCancel(ctx, w.closeIntent(closeCtx))
}

// ignoreCancel returns nil instead of an error that only says that ctx has ended.
func ignoreCancel(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, consumer.ErrFenced) {
		return nil
	}
	return err
}

// resume finds the offset to start at and restores the worker's state as it was there. found reports whether
// open is the intent of a block that must be replayed first.
func (w *worker) resume(ctx context.Context) (open intent, found bool, err error) {
	committed, metadata, err := w.partition.Committed(ctx)
	if err != nil {
		return open, false, err
	}
	if committed >= 0 {
		if open, found, err = parseIntent(committed, metadata); err != nil {
			return open, false, fmt.Errorf(
				"%w; if the block before it is known to be complete, reset the offset of group %s", err, w.cfg.Group)
		}
	}
	w.intentClosed = committed >= 0 && !found

	// The state is restored for the offset at which the worker starts, which may differ from the committed
	// one.
	if w.nextOffset, found, err = w.startOffset(ctx, committed, found); err != nil {
		return open, false, err
	}
	w.setNextOffset(w.partition.ID, w.nextOffset)
	if err := w.restoreState(ctx); err != nil {
		return open, false, err
	}
	w.log.Info("partition assigned", "offset", w.nextOffset, "resume_block", found,
		"known_collectors", len(w.dedup.producers), "open_alerts", w.grouper.OpenWindows())
	return open, found, nil
}

// startOffset returns the offset to start at, given the committed one (-1: none), and whether the intent that
// was found there is still valid. It compares the committed offset with the bounds of the log and with the
// stored rows.
func (w *worker) startOffset(ctx context.Context, committed int64, found bool) (start int64, valid bool, err error) {
	var highest int64
	var hasRows bool
	if err := w.withRetry(ctx, "query the highest offset", func() (err error) {
		highest, hasRows, err = w.deps.Store.HighestOffset(ctx, w.source)
		return err
	}); err != nil {
		return 0, false, err
	}
	first, end, err := w.partition.Bounds(ctx)
	if err != nil {
		return 0, false, err
	}

	// A group without an offset (a new name, or one that Kafka has expired) continues behind the stored rows.
	if committed < 0 {
		committed = first
		if hasRows {
			committed = max(first, highest+1)
		}
	}

	// An offset behind the end of the log means that the log was truncated or the topic created anew: its
	// messages have other offsets than before. They are read from the beginning; the duplicate filter
	// recognises those that were processed.
	if committed > end {
		w.log.Error("committed offset lies behind the end of the log, reading the log from its beginning; "+
			"the topic was created anew or the end of the log was lost; batches that were processed are recognised",
			"topic", w.source.Topic, "committed", committed, "first", first, "end", end)
		w.intentClosed, w.topicRecreated = false, true
		return first, false, nil
	}
	w.topicRecreated = hasRows && highest >= end
	return committed, found, nil
}

// dedupBefore returns the offset below which stored rows count as processed by a worker that starts at offset
// start. After the topic was created anew all rows count: their offsets are those of another log.
func (w *worker) dedupBefore(start int64) int64 {
	if w.topicRecreated {
		return math.MaxInt64
	}
	return start
}

// restoreState restores the duplicate filter and the grouper as they were before the message at nextOffset.
// Rows of the block that an open intent names are at or above it: they are left out, and the replay adds them
// again.
func (w *worker) restoreState(ctx context.Context) error {
	before := w.dedupBefore(w.nextOffset)
	w.dedupSince = time.Now().Add(-w.cfg.DedupLookback)
	return w.withRetry(ctx, "restore the state of the partition", func() error {
		filter := pipeline.BatchFilter{TopicPartition: w.source, Before: before, Since: w.dedupSince}
		stored, err := w.deps.Store.StoredBatches(ctx, filter)
		if err != nil {
			return err
		}
		openAlerts, err := w.deps.Store.AlertsBefore(ctx, w.source.Partition, before, w.cfg.Grouping.Lookback())
		if err != nil {
			return err
		}

		w.dedup = newDedupFilter(w.cfg.MaxProducers)
		for _, batches := range stored {
			w.dedup.restoreProducer(batches)
		}
		w.grouper = alerts.NewGrouper(w.cfg.Grouping, w.source.Partition)
		w.grouper.Restore(openAlerts)
		return nil
	})
}

// replayBlock gathers exactly the block that an intent names and finishes it, with the same block time and,
// if it is still loaded, the same bundle.
func (w *worker) replayBlock(ctx context.Context, open intent) error {
	if err := w.gatherReplay(ctx, open.end); err != nil {
		return err
	}
	block := &w.block
	block.end, block.time, block.replayed = open.end, open.time, true

	// Other rules would give other verdicts: rows are stored once all the same, alerts may differ.
	bundle, loaded := w.bundleByVersion(open.bundle)
	block.bundle = bundle
	if !loaded {
		w.metrics.reevaluated.Add(1)
		w.log.Warn("replayed block is evaluated by other rules than before, those are no longer loaded",
			"from", block.from, "end", block.end, "before", open.bundle, "now", bundle.Version)
	}
	// Another shard does not know the token and the rows of the block.
	if open.shard != w.cfg.Shard {
		return fmt.Errorf("block [%d,%d) was begun on shard %s, this engine writes to %s: "+
			"start an engine with engine.shard: %s to finish it", block.from, block.end, open.shard, w.cfg.Shard, open.shard)
	}
	return w.processBlock(ctx, block)
}

// processNewBlock processes the block that was just gathered.
func (w *worker) processNewBlock(ctx context.Context) error {
	b := &w.block
	b.time, b.bundle = time.Now().UnixNano(), w.currentBundle()
	return w.processBlock(ctx, b)
}

// processBlock takes a gathered block through all stages. It returns consumer.ErrFenced when the partition
// belongs to another process, or the error of ctx, which it outlasts by stopGrace. In both cases an intent
// that was committed names the block to the next owner.
func (w *worker) processBlock(ctx context.Context, b *block) error {
	defer b.releaseEvents()
	ctx, cancel := withGrace(ctx)
	defer cancel()
	for _, letter := range b.deadLetters {
		if err := w.writeDeadLetter(ctx, letter); err != nil {
			return err
		}
	}
	if b.rows > 0 || b.replayed {
		if err := w.storeBlock(ctx, b); err != nil {
			return err
		}
	}

	// The block is finished. Its intent stays until the next intent, or closeIntent, replaces it.
	w.nextOffset = b.end
	w.intentClosed = false
	w.setNextOffset(w.partition.ID, w.nextOffset)
	w.metrics.blocks.Add(1)
	w.metrics.blockRows.Observe(float64(b.rows))
	w.updateLagMetrics()
	return nil
}

// storeBlock evaluates the block, commits its intent, stores its rows and raises its alerts, in this order.
// The rules are evaluated first, because verdicts are columns of the rows.
func (w *worker) storeBlock(ctx context.Context, b *block) error {
	w.evaluate(b)

	if !b.replayed {
		w.deps.Failpoint(BeforeIntent)
		it := intent{end: b.end, time: b.time, shard: w.cfg.Shard, bundle: bundleVersion(b.bundle)}
		b.intentTime = time.Now()
		if err := w.partition.Commit(ctx, b.from, it.String()); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterIntent)

	began := time.Now()
	if err := w.insertBlock(ctx, b); err != nil {
		return err
	}
	w.metrics.observeStage("insert", began)
	w.deps.Failpoint(AfterInsert)
	return w.raiseAlerts(ctx, b)
}

// closeIntent commits nextOffset without an intent: every message before it is processed.
func (w *worker) closeIntent(ctx context.Context) error {
	if w.intentClosed {
		return nil
	}
	w.deps.Failpoint(BeforeClose)
	if err := w.partition.Commit(ctx, w.nextOffset, ""); err != nil {
		return err
	}
	w.intentClosed = true
	return nil
}

// withGrace returns a context that ends stopGrace after ctx.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(stopGrace, cancel)
		context.AfterFunc(out, func() { timer.Stop() })
	})
	return out, func() { stop(); cancel() }
}

// withRetry repeats f until it succeeds, ctx ends or the partition is fenced, and counts its failures. what
// names the operation in the log and in the metric.
func (w *worker) withRetry(ctx context.Context, what string, f func() error) error {
	return consumer.Retry(ctx, w.log, what, func() error {
		err := f()
		if err != nil && ctx.Err() == nil && !errors.Is(err, consumer.ErrFenced) {
			w.metrics.retries.WithLabelValues(what).Inc()
		}
		return err
	})
}

// logWarning logs a warning unless the throttle suppresses it.
func (w *worker) logWarning(throttle *logging.Throttle, msg string, args ...any) {
	if suppressed, ok := throttle.Allow(); ok {
		w.log.Warn(msg, append(args, "suppressed", suppressed)...) //nolint:sloglint // msg is a constant of the caller
	}
}

// releasePartition removes the partition from what the engine reports.
func (w *worker) releasePartition() {
	w.removeNextOffset(w.partition.ID)
	w.metrics.removePartition(w.label)
}
