package engine

import (
	"context"
	"fmt"
	"math"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/retry"
)

// A startPoint is where a worker begins, and what the store holds of the partition.
type startPoint struct {
	offset        int64 // of the first message to process
	uncommitted   bool  // the group has no committed offset
	open          intent
	hasIntent     bool  // open is the intent of a block that must be replayed first
	first         int64 // offset of the first message of the log
	logDiffers    bool  // the log is another one than the stored rows were read from
	fromBeginning bool  // the log is read from its beginning: the committed offset is none of this log

	// The messages of an unfinished block that were deleted with their log.
	lostStart, lostEnd int64

	stored  pipeline.NewestRows
	hasRows bool // the store holds rows of the partition
}

// hasRowsBehind reports whether rows are stored at the start or behind it. In normal operation these are only
// rows of the block of the open intent: an offset is committed before the rows behind it are inserted. There
// are others after the offset was set back or lost, also within the bounds of an open intent that was
// committed since, and some may be of an earlier log.
func (s startPoint) hasRowsBehind() bool { return s.hasRows && s.stored.Highest >= s.offset }

// lastBlockIsOpen reports whether the committed offset leaves open if the last stored block is complete: its
// rows are stored, but its alerts may not be. Each block before the last one is complete, since a block is
// stored after the alerts of the one before it. The last block is the one with the latest block time, since
// offsets may be those of earlier logs.
func (s startPoint) lastBlockIsOpen() bool {
	switch {
	case !s.hasRows:
		return false
	case s.hasIntent && s.open.time >= s.stored.LastTime:
		// The last block is the one of the intent, which is replayed, or one before it. A block whose rows
		// are stored cannot be replayed when messages of it are deleted: their verdicts would be missing in
		// its alerts.
		return s.open.time == s.stored.LastTime && s.offset < s.first
	case s.uncommitted || s.logDiffers:
		return true
	}
	// The offset behind a block is committed when the block is complete.
	isKnown := s.stored.HasInLog && s.stored.InLog.BlockTime == s.stored.LastTime
	return !isKnown || s.stored.InLog.Offset >= s.offset
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
	if err := w.beginReset(ctx, start); err != nil {
		return open, false, err
	}
	w.skipDeleted(&start)
	w.nextOffset, w.lastTime = start.offset, max(start.stored.LastTime, start.open.time)
	w.setNextOffset(w.partition.ID, w.nextOffset)
	if err := w.restoreState(ctx, start); err != nil {
		return open, false, err
	}
	w.log.Info("partition assigned", "offset", w.nextOffset, "replay_block", start.hasIntent,
		"producers", len(w.dedup.producers))
	return start.open, start.hasIntent, nil
}

// findStart returns the point to start at, given the committed offset (-1: none) and its intent, if found. It
// compares the committed offset with the bounds of the log and with the stored rows.
func (w *worker) findStart(ctx context.Context, committed int64, open intent, found bool) (startPoint, error) {
	first, end, err := w.partition.Bounds(ctx)
	start := startPoint{offset: committed, uncommitted: committed < 0, open: open, hasIntent: found, first: first}
	if err != nil {
		return start, err
	}
	if err := w.waitForInserts(ctx); err != nil {
		return start, err
	}
	if err := w.withRetry(ctx, "query the newest rows", func() (err error) {
		start.stored, start.hasRows, err = w.deps.Store.NewestRows(ctx, w.source, end)
		return err
	}); err != nil {
		return start, err
	}
	if start.logDiffers, err = w.isOtherLog(ctx, start); err != nil {
		return start, err
	}

	// The log is another one than the rows were read from, or it is shorter than what is stored: the topic
	// was deleted and created again, or the log was truncated. So offsets do not identify the messages of all
	// rows.
	w.offsetsAmbiguous = start.logDiffers || start.hasRows && start.stored.Highest >= end

	switch {
	case start.logDiffers || committed > end:
		// The log is read from its beginning, and the duplicate filter drops the batches that were processed.
		w.log.Error("log is not the one that was read before, reading it from its beginning; the topic was recreated "+
			"or the end of the log was lost; duplicate batches are dropped",
			"topic", w.source.Topic, "committed", committed, "first", first, "end", end)
		w.offsetsAmbiguous = true
		start.lostEnd = w.endOfLostBlock(start, end)
		start.lostStart, start.offset, start.hasIntent, start.fromBeginning = start.offset, first, false, true
	case committed < 0 && start.stored.HasInLog:
		// A group without a committed offset (a new group, or an offset that Kafka has expired) continues
		// after the rows that were stored last of this log.
		start.offset = start.stored.InLog.Offset + 1
	case committed < 0:
		start.offset = first
	}
	return start, nil
}

// Bounds of waitForInserts.
const (
	maxInsertWait    = 30 * time.Second
	insertWaitLookup = 50 * time.Millisecond
)

// waitForInserts waits until the store has finished the inserts of earlier owners of the partition: of a
// process that was killed, or lost the partition. Their rows would be stored after the worker has looked for
// them: a block whose intent is lost would be stored twice, or without its alerts.
func (w *worker) waitForInserts(ctx context.Context) error {
	for began := time.Now(); ; {
		running := 0
		if err := w.withRetry(ctx, "query the running inserts", func() (err error) {
			running, err = w.deps.Store.RunningInserts(ctx, w.source)
			return err
		}); err != nil || running == 0 {
			return err
		}
		if time.Since(began) > maxInsertWait {
			w.log.Error("store still works on inserts of an earlier owner of the partition, going on without them",
				"topic", w.source.Topic, "inserts", running, "waited", maxInsertWait)
			return nil
		}
		if err := retry.Sleep(ctx, insertWaitLookup); err != nil {
			return err
		}
	}
}

// endOfLostBlock returns the end of the block of an intent if none of its rows is stored and the log ends before its
// end, so that it is a block of an earlier log; else the start of the block.
func (w *worker) endOfLostBlock(start startPoint, end int64) int64 {
	isStored := start.hasRows && start.stored.LastTime >= start.open.time
	if !start.hasIntent || isStored || start.open.end <= end || w.logReplaced { // the fetcher has counted the lost ones
		return start.offset
	}
	return start.open.end
}

// beginReset commits the start of a log that is read from its beginning: no later start may take the committed offset
// for one of this log. It comes when the last block of the other log is complete, since an offset without an intent
// says that all blocks before it are.
func (w *worker) beginReset(ctx context.Context, start startPoint) error {
	if !start.fromBeginning {
		return nil
	}
	if err := w.partition.Commit(ctx, start.offset, ""); err != nil {
		return err
	}
	w.logReplaced, w.intentClosed = false, true
	if lost := start.lostEnd - start.lostStart; lost > 0 {
		w.metrics.lost.Add(uint64(lost))
		w.log.Error("messages of an unfinished block were deleted with their log",
			"topic", w.source.Topic, "from", start.lostStart, "end", start.lostEnd)
	}
	return nil
}

// skipDeleted moves a start that lies before the log to its first message. Of the messages between them,
// those before the newest stored row were processed; the others are counted as lost. The messages of a block
// that is replayed are counted by the fetcher.
func (w *worker) skipDeleted(start *startPoint) {
	if start.offset >= start.first || start.hasIntent {
		return
	}
	unread := start.offset
	if start.stored.HasInLog {
		unread = max(unread, start.stored.InLog.Offset+1)
	}
	if lost := start.first - unread; lost > 0 {
		w.recordLost(lost)
	}
	start.offset, w.intentClosed = start.first, false
}

// isOtherLog reports whether the log is another one than the stored rows were read from: no row has an offset
// below its end, or the message at the offset of the newest such row is another one. A message that retention
// has deleted does not show it.
func (w *worker) isOtherLog(ctx context.Context, start startPoint) (bool, error) {
	if w.logReplaced {
		return true, nil
	}
	if !start.hasRows || start.stored.HasInLog && start.stored.InLog.Offset < start.first {
		return false, nil
	}
	if !start.stored.HasInLog {
		return true, nil
	}
	record, found, err := w.partition.ReadRecord(ctx, start.stored.InLog.Offset)
	if err != nil || !found {
		return false, err
	}
	return readBatchID(record.Value) != start.stored.InLog.BatchID, nil
}

// completeLastBlock completes the last stored block of the partition where the committed offset does not say
// whether its matches were written: the offset lies before the block, or is lost, or the log of the block is
// not there any more.
//
// An intent that is older than the last block is void, since its block is complete.
func (w *worker) completeLastBlock(ctx context.Context, start *startPoint) error {
	if !start.lastBlockIsOpen() {
		return nil
	}
	if !start.logDiffers {
		w.log.Warn("committed offset is lost or before the stored rows; stored messages are not stored again",
			"topic", w.source.Topic, "offset", start.offset, "highest_stored", start.stored.Highest)
		start.hasIntent, w.intentClosed = false, false
	}
	var stored pipeline.StoredBlock
	if err := w.withRetry(ctx, "query the last block", func() (err error) {
		stored, err = w.deps.Store.StoredBlock(ctx, w.source, start.stored.LastTime)
		return err
	}); err != nil {
		return err
	}
	if start.uncommitted && !start.logDiffers {
		// The block may have dead letters, which are written last. Its messages that are stored are
		// duplicates.
		start.offset = min(start.offset, stored.Start, stored.EarlierEnd)
	}
	if w.completedTime == start.stored.LastTime {
		return nil
	}

	// Where no row has a verdict there is no match.
	if stored.HasVerdicts {
		last := &block{from: stored.Start, end: stored.End, time: start.stored.LastTime, replayed: true}
		if err := w.writeStoredMatches(ctx, last); err != nil {
			return err
		}
	}
	w.completedTime = start.stored.LastTime
	return nil
}

// writeStoredMatches writes the matches of a stored block from its rows. A fold that has read them drops them.
func (w *worker) writeStoredMatches(ctx context.Context, last *block) error {
	var counter matchCounter
	if err := w.withRetry(ctx, "query the verdicts of the last block", func() error {
		counter = matchCounter{}
		return w.deps.Store.StoredVerdicts(ctx, w.blockID(last), func(event *pipeline.Event, at pipeline.Position) { counter.add(event, at.Shipped) })
	}); err != nil {
		return err
	}
	w.log.Info("writing the matches of stored rows, which may be missing", "topic", w.source.Topic, "matches", counter.verdicts())
	if err := w.beginParts(ctx, last.time, 0); err != nil {
		return err
	}
	if err := w.addMatches(ctx, &counter); err != nil {
		return err
	}
	return w.writeParts(ctx)
}

// restoreState restores the duplicate filter from everything that is stored of the partition.
// It leaves out the block of an open intent, because the replay of that block adds it again.
//
// The newest batches of a producer before the start stand for all before them. Of the rows behind the start
// each batch counts by itself: messages between them may have been left out.
func (w *worker) restoreState(ctx context.Context, start startPoint) error {
	w.openBlock = pipeline.BlockID{}
	if start.hasIntent {
		w.openBlock = pipeline.BlockID{
			TopicPartition: w.source, Start: start.offset, End: start.open.end, Time: start.open.time,
		}
	}
	w.dedupSince = w.deps.Now().Add(-w.cfg.DedupLookback)
	before := pipeline.BatchFilter{
		TopicPartition: w.source, Before: start.offset, Except: w.openBlock.Time, Since: w.dedupSince,
	}
	behind := before
	behind.From, behind.Before = start.offset, math.MaxInt64
	hasBehind := start.hasRowsBehind()
	switch {
	case w.offsetsAmbiguous: // the rows of the earlier log may have any offset
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
		if !w.offsetsAmbiguous {
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
		w.dedup = newDedupFilter(w.cfg.MaxProducers)
		for _, batches := range stored {
			w.dedup.restoreProducer(batches)
		}
		w.dedup.restoreRanges(ranges)
		return nil
	})
}
