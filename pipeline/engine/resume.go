package engine

import (
	"context"
	"fmt"
	"math"
	"time"

	"tidegate/pipeline"
)

// A startPoint is where a worker begins, and what the store holds of the partition.
type startPoint struct {
	offset    int64 // of the first message to process
	isLost    bool  // the group has no committed offset
	open      intent
	hasIntent bool // open is the intent of a block that must be replayed first
	stored    pipeline.NewestRows
	hasRows   bool // the store holds rows of the partition
}

// hasRowsBehind reports whether rows are stored at the start or behind it, other than those of the open intent.
// In normal operation there are none: an offset is committed before the rows behind it are inserted. There are
// some after the offset was set back or lost.
func (s startPoint) hasRowsBehind() bool {
	return s.hasRows && s.stored.Highest >= s.offset && !(s.hasIntent && s.open.time == s.stored.HighestTime)
}

// resume determines the offset to start at and restores the worker's state as of that offset. found reports
// whether open is the intent of a block that must be replayed first.
func (w *worker) resume(ctx context.Context) (open intent, found bool, err error) {
	// Read the committed offset and the intent in its metadata.
	committed, metadata, err := w.partition.Committed(ctx)
	if err != nil {
		return open, false, err
	}
	if committed >= 0 {
		if open, found, err = parseIntent(committed, metadata); err != nil {
			return open, false, fmt.Errorf("%w; a newer version of the engine has written it to group %s", err, w.cfg.Group)
		}
	}
	w.intentClosed = committed >= 0 && !found

	// Restore the state as of the offset at which the worker starts, which may differ from the committed one.
	start, err := w.findStart(ctx, committed, open, found)
	if err != nil {
		return open, false, err
	}
	if err := w.completeLastBlock(ctx, &start); err != nil {
		return open, false, err
	}
	w.nextOffset = start.offset
	w.setNextOffset(w.partition.ID, w.nextOffset)
	if err := w.restoreState(ctx, start); err != nil {
		return open, false, err
	}
	w.log.Info("partition assigned", "offset", w.nextOffset, "replay_block", start.hasIntent,
		"producers", len(w.dedup.producers), "open_alert_windows", w.grouper.OpenWindows())
	return start.open, start.hasIntent, nil
}

// findStart returns the point to start at, given the committed offset (-1: none) and its intent, if found. It
// compares the committed offset with the bounds of the log and with the stored rows.
func (w *worker) findStart(ctx context.Context, committed int64, open intent, found bool) (startPoint, error) {
	start := startPoint{offset: committed, isLost: committed < 0, open: open, hasIntent: found}
	first, end, err := w.partition.Bounds(ctx)
	if err != nil {
		return start, err
	}
	if err := w.withRetry(ctx, "query the newest rows", func() (err error) {
		start.stored, start.hasRows, err = w.deps.Store.NewestRows(ctx, w.source, end)
		return err
	}); err != nil {
		return start, err
	}
	isOther, err := w.isOtherLog(ctx, start, first)
	if err != nil {
		return start, err
	}

	// The log is another one than the rows were read from, or it is shorter than what is stored: the topic was deleted
	// and created again, or the log was truncated. So offsets do not identify the messages of all rows.
	w.topicRecreated = isOther || start.hasRows && start.stored.Highest >= end

	switch {
	case isOther || committed > end:
		// The log is read from its beginning, and the duplicate filter drops the batches that were processed.
		w.log.Error("log is not the one that was read before, reading it from its beginning; the topic was recreated "+
			"or the end of the log was lost; duplicate batches are dropped",
			"topic", w.source.Topic, "committed", committed, "first", first, "end", end)
		w.topicRecreated = true
		start.offset, start.hasIntent = first, false
		// The committed offset is that of another log: no later start may take it for one of this log.
		if err := w.partition.Commit(ctx, first, ""); err != nil {
			return start, err
		}
		w.logReplaced, w.intentClosed = false, true
	case committed < 0 && start.hasRows && !w.topicRecreated:
		// A group without a committed offset (a new group, or an offset that Kafka has expired) continues after
		// the stored rows.
		start.offset = max(first, start.stored.Highest+1)
	case committed < 0:
		start.offset = first
	}
	return start, nil
}

// isOtherLog reports whether the log is another one than the stored rows were read from: no row has an offset below its
// end, or the message at the offset of the newest such row is another one. A message that retention has deleted does
// not show it.
func (w *worker) isOtherLog(ctx context.Context, start startPoint, first int64) (bool, error) {
	if w.logReplaced {
		return true, nil
	}
	if !start.hasRows || start.stored.HasKnown && start.stored.Known < first {
		return false, nil
	}
	if !start.stored.HasKnown {
		return true, nil
	}
	record, found, err := w.partition.ReadRecord(ctx, start.stored.Known)
	if err != nil || !found {
		return false, err
	}
	return readBatchID(record.Value) != start.stored.KnownID, nil
}

// completeLastBlock completes the last stored block of the partition where the committed offset does not say whether
// its alerts were raised, because the offset lies before the block or is not there. Blocks before the last one are
// complete: a block is stored after the alerts of the one before it.
//
// An intent that is older than the last block is void, since its block is complete.
func (w *worker) completeLastBlock(ctx context.Context, start *startPoint) error {
	isUnknown := start.hasRowsBehind() || start.hasRows && start.isLost
	if w.topicRecreated || !isUnknown || start.hasIntent && start.open.time > start.stored.HighestTime {
		return nil
	}
	w.log.Warn("committed offset is lost or before the stored rows; messages whose rows are stored are not stored again",
		"topic", w.source.Topic, "offset", start.offset, "highest_stored", start.stored.Highest)
	start.hasIntent, w.intentClosed = false, false
	if w.completedTime == start.stored.HighestTime {
		return nil
	}

	// Where no row has a verdict there is no alert. Alerts that are stored are stored all, and at most not published.
	block := pipeline.BlockID{TopicPartition: w.source, Time: start.stored.HighestTime}
	var published []*pipeline.Alert
	var stored pipeline.StoredBlock
	if err := w.withRetry(ctx, "query the last block", func() (err error) {
		if stored, err = w.deps.Store.StoredBlock(ctx, w.source, block.Time); err != nil || !stored.HasVerdicts {
			return err
		}
		block.Start, block.End = stored.Start, stored.End
		published, err = w.deps.Store.AlertsOfBlock(ctx, block)
		return err
	}); err != nil {
		return err
	}
	if len(published) > 0 {
		if err := w.publishAlerts(ctx, published); err != nil {
			return err
		}
	} else if stored.HasVerdicts {
		if err := w.raiseLastAlerts(ctx, *start, block); err != nil {
			return err
		}
	}
	w.completedTime = start.stored.HighestTime
	return nil
}

// raiseLastAlerts evaluates the last stored block again, as a replay does, and raises its alerts.
func (w *worker) raiseLastAlerts(ctx context.Context, start startPoint, block pipeline.BlockID) error {
	start.offset, start.hasIntent = block.Start, true
	start.open = intent{end: block.End, time: block.Time, shard: w.cfg.Shard, bundle: bundleVersion(w.currentBundle())}
	w.nextOffset = start.offset
	if err := w.restoreState(ctx, start); err != nil {
		return err
	}
	defer w.startFetcher(ctx)()
	w.isCompleting = true
	defer func() { w.isCompleting = false }()
	return w.replayBlock(ctx, start.open)
}

// restoreState restores the duplicate filter and the grouper from everything that is stored of the partition. It
// leaves out the block of an open intent, because the replay of that block adds it again.
//
// The newest batches of a producer before the start stand for all before them. Of the rows behind the start each batch
// counts by itself: messages between them may have been left out.
func (w *worker) restoreState(ctx context.Context, start startPoint) error {
	w.openBlock = pipeline.BlockID{}
	if start.hasIntent {
		w.openBlock = pipeline.BlockID{
			TopicPartition: w.source, Start: start.offset, End: start.open.end, Time: start.open.time,
		}
	}
	w.dedupSince = time.Now().Add(-w.cfg.DedupLookback)
	before := pipeline.BatchFilter{
		TopicPartition: w.source, Before: start.offset, Except: w.openBlock.Time, Since: w.dedupSince,
	}
	behind := before
	behind.From, behind.Before = start.offset, math.MaxInt64
	hasBehind := start.hasRowsBehind()
	switch {
	case w.topicRecreated: // the rows of the earlier log may have any offset
		behind.From, hasBehind = 0, start.hasRows
	case hasBehind:
		// Messages that are read again may be older than the lookback.
		young, err := w.partition.OffsetAt(ctx, w.dedupSince)
		if err != nil {
			return err
		}
		if young > start.offset {
			behind.Since = time.Time{}
		}
	}

	return w.withRetry(ctx, "restore the state of the partition", func() error {
		var stored []pipeline.StoredBatches
		if !w.topicRecreated {
			var err error
			if stored, err = w.deps.Store.StoredBatches(ctx, before); err != nil {
				return err
			}
		}
		var ranges []pipeline.SequenceRange
		if hasBehind {
			var err error
			if ranges, err = w.deps.Store.SequenceRanges(ctx, behind); err != nil {
				return err
			}
		}
		blockTime := time.Now().UnixNano()
		if start.hasIntent {
			blockTime = start.open.time
		}
		if err := w.restoreGrouper(ctx, w.openBlock, blockTime); err != nil {
			return err
		}

		w.dedup = newDedupFilter(w.cfg.MaxProducers)
		for _, batches := range stored {
			w.dedup.restoreProducer(batches)
		}
		w.dedup.restoreRanges(ranges)
		return nil
	})
}
