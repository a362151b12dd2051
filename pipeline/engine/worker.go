package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/logging"
	"tidegate/pipeline/retry"
)

// A worker processes one partition from its assignment to its revocation. One goroutine runs the worker, a
// second one its fetcher.
type worker struct {
	*Engine
	partition *consumer.Partition
	source    pipeline.TopicPartition // the partition, as the store names it
	label     string                  // the partition, as metrics name it
	log       *slog.Logger
	throttles throttles

	// State that is restored from the store when the partition is assigned.
	dedup      *dedupFilter
	dedupSince time.Time // dedup holds all batches stored since, and older ones only of producers loaded by loadProducer

	// Input.
	fetcher *consumer.Fetcher
	records []consumer.Record // received, not in a block yet
	memory  *memoryAccount    // of records and of the block
	logEnd  int64             // offset behind the last record of the partition, as of the last fetch
	fetched int64             // offset behind the last chunk

	// Output.
	block      block
	signals    signalWriter
	correlated struct {
		bundle      *pipeline.Bundle
		correlation *correlation // of the bundle; see correlationOf
	}
	rows         pipeline.EventInserter // rows of the part of the block that is being inserted; nil between inserts
	nextOffset   int64                  // end of the last finished block
	intentClosed bool                   // nextOffset is committed without an intent

	// offsetsAmbiguous is set when offsets of stored rows may belong to an earlier log: the topic was deleted and created
	// again, or the log was truncated.
	offsetsAmbiguous bool
	// logReplaced is set when the fetcher has found that the partition has another log than before, until the
	// worker has started again.
	logReplaced bool
	// openBlock is the block of an open intent until it is replayed: its rows may be stored
	// already, and do not belong to the state before it. Its Time is 0 if there is none.
	openBlock pipeline.BlockID
	// completedTime is the time of a block whose matches completeLastBlock has written.
	completedTime int64
	lastTime      int64 // the latest block time of the partition
}

// throttles limit how often the warnings of a worker are logged.
type throttles struct{ insert, bisect, view, rejected, deadLetter, panic *logging.Throttle }

// warnInterval is the shortest time between two warnings of one throttle.
const warnInterval = 10 * time.Second

func newWorker(engine *Engine, partition *consumer.Partition) *worker {
	newThrottle := func() *logging.Throttle { return logging.NewThrottle(warnInterval) }
	return &worker{
		Engine: engine, partition: partition, log: engine.log.With("partition", partition.ID),
		source:    pipeline.TopicPartition{Topic: partition.Topic(), Partition: int32(partition.ID)},
		label:     strconv.Itoa(partition.ID),
		throttles: throttles{newThrottle(), newThrottle(), newThrottle(), newThrottle(), newThrottle(), newThrottle()},
		dedup:     newDedupFilter(engine.cfg.MaxProducers),
	}
}

// stopGrace is the time for which a block may still be processed after the partition was revoked or the
// process got a signal to stop. To finish the block is cheaper than a replay by the next owner.
const stopGrace = 5 * time.Second

// errRestart is the error of a worker that must start again from the committed offset, after a pause.
var errRestart = errors.New("worker starts again from the committed offset")

// Pauses of a worker between two starts, and the time after which a start counts as a success.
const (
	minRestartPause = 100 * time.Millisecond
	maxRestartPause = 15 * time.Second
	steadyAfter     = time.Minute
)

// processPartition processes the partition until ctx ends, and returns nil then.
func (w *worker) processPartition(ctx context.Context) error {
	defer w.releasePartition()
	backoff := retry.Backoff{Min: minRestartPause, Max: maxRestartPause}
	for {
		began := time.Now()
		err := w.processFromCommitted(ctx)
		if !errors.Is(err, errRestart) {
			w.metrics.addUnfinished(w.block.counts)
			return ignoreCancel(ctx, err)
		}
		if time.Since(began) > steadyAfter {
			backoff.Reset()
		}
		if backoff.Wait(ctx) != nil {
			return nil // ctx has ended
		}
	}
}

// processFromCommitted replays the block of an open intent, if there is one, and then processes the partition
// until ctx ends. It returns errRestart if it must be called again.
func (w *worker) processFromCommitted(ctx context.Context) error {
	open, found, err := w.resume(ctx)
	if err != nil {
		return w.endOfRun(ctx, err)
	}

	// Start the fetcher at the first message that is not in a finished block.
	defer w.startFetcher(ctx)()
	if found {
		if err := w.replayBlock(ctx, open); err != nil {
			return w.endOfRun(ctx, err)
		}
	}

	// Invariant: between two blocks, every message before nextOffset is processed, and Kafka holds either
	// nextOffset without an intent (intentClosed) or the intent of the last block.
	for {
		gathered, err := w.gatherBlock(ctx)
		if errors.Is(err, consumer.ErrLogReplaced) {
			return w.endOfRun(ctx, err)
		}
		if errors.Is(err, errRestart) {
			return err
		}
		if err != nil {
			break // ctx has ended
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

// startFetcher starts the fetcher at nextOffset. It ends with ctx, or when the returned function is called.
func (w *worker) startFetcher(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	memory := w.Engine.memory.open()
	w.records, w.memory, w.fetched = nil, memory, w.nextOffset
	w.fetcher = w.partition.Fetch(ctx, w.nextOffset, consumer.FetchConfig{
		MaxBytes: int64(w.fetchBytes), PrefetchBytes: int64(w.cfg.PrefetchBytes), MaxWait: 250 * time.Millisecond,
		Measure: measureRecord, Memory: memory, Decoding: w.decoding, Now: w.deps.Now,
	})
	return func() {
		cancel()
		memory.close()
	}
}

// endOfRun returns the error of processFromCommitted for err: errRestart if the log was replaced, else as
// ignoreCancel.
func (w *worker) endOfRun(ctx context.Context, err error) error {
	if errors.Is(err, consumer.ErrLogReplaced) {
		w.logReplaced = true
		return errRestart
	}
	return ignoreCancel(ctx, err)
}

// ignoreCancel returns nil if ctx has ended, since err is then a consequence of that; otherwise it returns
// err. ErrFenced is always returned.
func ignoreCancel(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, consumer.ErrFenced) {
		return nil
	}
	return err
}

// replayBlock gathers exactly the block of an intent and processes it with the same block time and, if it is
// still loaded, the same bundle.
func (w *worker) replayBlock(ctx context.Context, open intent) error {
	// The token and the rows of the block exist only on the shard of the intent.
	if open.shard != w.cfg.Shard {
		return fmt.Errorf("block [%d,%d) was started on shard %s, this engine writes to %s: "+
			"start an engine with engine.shard: %s to finish it",
			w.nextOffset, open.end, open.shard, w.cfg.Shard, open.shard)
	}
	w.memory.setReplay(true)
	err := w.gatherReplay(ctx, open.end)
	w.memory.setReplay(false)
	if err != nil {
		return err
	}
	block := &w.block
	block.end, block.time, block.replayed = open.end, open.time, true
	block.intent, block.signalPartitions = open.String(), open.signalPartitions

	// Another bundle may produce other verdicts. Rows are still stored once, but alerts may differ.
	bundle, loaded := w.bundleByVersion(open.bundle)
	block.bundle = bundle
	if !loaded {
		w.metrics.reevaluated.Add(1)
		w.log.Warn("replayed block is evaluated by newer rules, the rules of the first run are not loaded",
			"from", block.from, "end", block.end, "before", open.bundle, "now", bundle.Version)
	}
	if err := w.processBlock(ctx, block); err != nil {
		return err
	}
	w.openBlock = pipeline.BlockID{}
	return nil
}

// processNewBlock processes the block that was just gathered.
func (w *worker) processNewBlock(ctx context.Context) error {
	block := &w.block
	w.lastTime = nextBlockTime(w.lastTime, w.deps.Now().UnixNano())
	block.time, block.bundle = w.lastTime, w.currentBundle()
	return w.processBlock(ctx, block)
}

// maxClockStep bounds how far a block time may lie ahead of the clock.
const maxClockStep = 10 * time.Minute

// nextBlockTime returns the time of a block after one with the time last. The block times of a partition
// ascend, so that the last block is the one with the latest time, also where a clock is set back or the next
// engine's clock is behind. A clock that was ahead by more than maxClockStep is not followed.
func nextBlockTime(last, now int64) int64 {
	if last >= now && last-now < int64(maxClockStep) {
		return last + 1
	}
	return now
}

// processBlock takes a gathered block through all stages. It may continue for stopGrace after ctx has ended.
// It returns consumer.ErrFenced if the partition belongs to another process, or the error of ctx. In both
// cases the next owner of the partition replays the block if its intent is committed, and else gathers it
// again.
func (w *worker) processBlock(ctx context.Context, block *block) error {
	defer w.releaseBlock(block)
	ctx, cancel := withGrace(ctx)
	defer cancel()

	// A new block of duplicates and dead letters only has nothing to store and needs no intent.
	if block.rows > 0 || block.replayed {
		if err := w.storeBlock(ctx, block); err != nil {
			return err
		}
	}
	// The offset of the block is committed only after its dead letters are written. They come last, so that a
	// block that is gathered again has not written them.
	for _, letter := range block.deadLetters {
		if err := w.writeDeadLetter(ctx, letter); err != nil {
			return err
		}
	}

	// The block is finished. Its intent stays in Kafka until the next intent or closeIntent replaces it.
	w.metrics.addBlock(block.counts)
	block.counts = blockCounts{}
	w.nextOffset = block.end
	w.intentClosed = false
	w.setNextOffset(w.partition.ID, w.nextOffset)
	w.metrics.blocks.Add(1)
	w.metrics.blockRows.Observe(float64(block.rows))
	w.updateLagMetrics()
	return nil
}

// storeBlock evaluates the block, commits its intent, stores its rows and writes its matches and signals, in this order.
// The evaluation comes first, because verdicts are columns of the rows.
func (w *worker) storeBlock(ctx context.Context, block *block) error {
	w.evaluate(block)

	// A replayed block has its intent already: the one that named it.
	if !block.replayed {
		if block.hasSignals() {
			partitions, err := w.findSignalPartitions(ctx)
			if err != nil {
				return err
			}
			block.signalPartitions = partitions
		}
		w.deps.Failpoint(BeforeIntent)
		open := intent{
			end: block.end, time: block.time, shard: w.cfg.Shard, bundle: bundleVersion(block.bundle), signalPartitions: block.signalPartitions,
		}
		block.intent, block.intentTime = open.String(), w.deps.Now()
		block.confirmed = block.intentTime
		if err := w.partition.Commit(ctx, block.from, block.intent); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterIntent)

	// From here on a crash leads to a replay of exactly this block.
	began := time.Now()
	w.rows = w.inserters.takeInserter()
	err := w.insertBlock(ctx, block)
	w.inserters.putInserter(w.rows)
	w.rows = nil
	if err != nil {
		if errors.Is(err, errBlockRejected) {
			return w.withdrawBlock(ctx, block, err)
		}
		return err
	}
	w.metrics.observeStage("insert", began)
	w.deps.Failpoint(AfterInsert)
	if err := w.writeSignals(ctx, block); err != nil {
		return err
	}
	w.deps.Failpoint(AfterSignals)
	return nil
}

// maxUnconfirmed is the time after which a worker confirms that it still owns the partition before it writes.
const maxUnconfirmed = time.Second

// confirmOwnership commits the intent of the block again, unless it was committed a moment ago. It returns
// consumer.ErrFenced if the partition belongs to another process. A process that was stopped, or whose
// machine was suspended, between the intent and an insert finds out here that another one has stored the
// block meanwhile. It need not rely on the token, which the store may have dropped.
func (w *worker) confirmOwnership(ctx context.Context, block *block) error {
	now := w.deps.Now()
	if block.intent == "" || elapsed(block.confirmed, now) < maxUnconfirmed {
		return nil
	}
	if err := w.partition.Commit(ctx, block.from, block.intent); err != nil {
		return err
	}
	block.confirmed = now
	return nil
}

// elapsed returns the time from start to now by the monotonic clock or the wall clock, whichever says more:
// the monotonic clock stands still while a machine is suspended.
func elapsed(start, now time.Time) time.Duration {
	return max(now.Sub(start), now.Round(0).Sub(start.Round(0)).Abs())
}

// closeIntent commits nextOffset without an intent, which acknowledges the last block.
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

// withRetry repeats f until it succeeds, ctx ends or the partition is fenced, and counts its failures.
// operation is its name in the log and in the metric.
func (w *worker) withRetry(ctx context.Context, operation string, f func() error) error {
	return consumer.Retry(ctx, w.log, operation, func() error {
		err := f()
		if err != nil && ctx.Err() == nil && !errors.Is(err, consumer.ErrFenced) {
			w.metrics.retries.WithLabelValues(operation).Inc()
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

// releasePartition removes the partition from the lag and the metrics of the engine.
func (w *worker) releasePartition() {
	w.removeNextOffset(w.partition.ID)
}
