package ship

import (
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A rangeReplay is the progress of the replay of one range: an earlier process made the range, and this
// process fills it again with the same lines. passed is guarded by the file's lock; received, last and
// finished are guarded by the sender's lock.
type rangeReplay struct {
	sender   *sender
	pending  *pendingBatch
	received uint32               // number of lines that were read again
	last     collector.Checkpoint // checkpoint of the last of these lines
	finished bool                 // no more lines will be accepted
	passed   bool                 // the owner has read past the range
}

// A linePosition is the position of a line among the recovered ranges of its file.
type linePosition int

const (
	lineNew    linePosition = iota // in no range
	lineSafe                       // in a range that is finished
	lineInside                     // in a range that waits for its lines
	lineLast                       // the last line of such a range
)

// replayEvent handles an event that an earlier process may have shipped. It returns true if event belonged to
// a batch of that process; event is then released.
//
// Lines of an acknowledged batch are safe: they are dropped. A batch that was not acknowledged may be in
// Kafka: its lines are put into a batch with the same id again, so that the engine recognises the duplicate.
// All other lines are new.
func (f *fileProducer) replayEvent(event *pipeline.Event, checkpoint collector.Checkpoint) bool {
	// Find the range that contains the line. Only a line of a range that waits for its lines is added to a
	// batch.
	f.activity.Add(1)
	target, position := f.findReplay(checkpoint.End)
	switch {
	case position == lineNew:
		return false
	case position == lineSafe:
		f.skipTo(checkpoint.End)
		f.dropReread(event)
		return true
	case !f.refillBatch(target, event, checkpoint):
		return false
	}

	// The last line ends the replay of the range.
	f.skipTo(checkpoint.End)
	if position == lineLast {
		f.mu.Lock()
		f.passRange(target)
		f.mu.Unlock()
		f.shipper.finishReplay(target)
	}
	pipeline.ReleaseEvent(event)
	return true
}

// refillBatch adds event to the batch of r. It returns false if the replay of r was abandoned: event is then
// a new line.
func (f *fileProducer) refillBatch(r *batchRange, event *pipeline.Event, checkpoint collector.Checkpoint) bool {
	replay := r.replay
	replay.sender.mu.Lock()
	defer replay.sender.mu.Unlock()
	if replay.finished {
		return false
	}
	counters := &f.shipper.counters
	index := datasetIndex(event)
	counters.read[index].Add(1)

	// The metadata of containers may have grown since the earlier process made the batch, so that the same
	// lines need more bytes: the limit is doubled.
	if err := replay.pending.batch.addEvent(event, 2*int(f.shipper.cfg.BatchBytes)); err != nil {
		counters.discarded[dropTooLarge][index].Add(1)
	}
	replay.received++
	replay.last = checkpoint
	return true
}

// findReplay returns the recovered range that contains the line which ends at end, and the position of the
// line. Unfinished ranges before the line will not be completed, since the owner has read past them:
// findReplay finishes them.
func (f *fileProducer) findReplay(end int64) (target *batchRange, position linePosition) {
	// Invariant: ranges are in order and do not overlap. The first range that ends at or behind the line is
	// the only one that may contain it.
	var incomplete []*batchRange
	f.mu.Lock()
	for _, lines := range f.ranges {
		if lines.replay == nil || lines.replay.passed {
			continue
		}
		if end > lines.end.End {
			f.passRange(lines)
			if !lines.done {
				incomplete = append(incomplete, lines)
			}
			continue
		}
		if end > lines.after {
			target, position = lines, f.positionIn(lines, end)
		}
		break
	}
	f.advanceCheckpoint()
	f.mu.Unlock()

	// finishReplay may finish a batch, which takes the locks of files: it is called without the file's lock.
	for _, lines := range incomplete {
		f.shipper.finishReplay(lines)
	}
	return target, position
}

// positionIn returns the position of the line that ends at end in r, which contains it. f.mu must be held.
func (f *fileProducer) positionIn(r *batchRange, end int64) linePosition {
	last := end == r.end.End
	switch {
	case r.done && last:
		f.passRange(r)
		return lineSafe
	case r.done:
		return lineSafe
	case last:
		return lineLast
	}
	return lineInside
}

// passRange records that the owner has read past r; f.mu must be held.
func (f *fileProducer) passRange(r *batchRange) {
	if !r.replay.passed {
		r.replay.passed = true
		f.unpassedRanges.Add(-1)
	}
}

// abandonReplay ends the replay of all recovered ranges of f: they keep the lines that were read again so
// far. A line that is read later is shipped as a new one. It may then be stored twice under one event id,
// which is better than not at all.
func (f *fileProducer) abandonReplay() {
	f.mu.Lock()
	abandoned := f.abandonRanges()
	f.mu.Unlock()
	f.journalAbandoned(abandoned)
}

// abandonIfExpired is abandonReplay if replayExpired returns true. Both happen under the lock under which a file
// is opened: the replay of a file is not abandoned while its owner begins to read it.
func (f *fileProducer) abandonIfExpired(step time.Duration, stalled partitionSet) (expired bool) {
	f.mu.Lock()
	if !f.replayExpired(step, stalled) {
		f.mu.Unlock()
		return false
	}
	abandoned := f.abandonRanges()
	f.mu.Unlock()
	f.journalAbandoned(abandoned)
	return true
}

// abandonRanges returns the ranges whose replay it has ended. f.mu must be held.
func (f *fileProducer) abandonRanges() (abandoned []*batchRange) {
	// 1. Shrink each unfinished range to the lines that were received, and count the others as unconfirmed.
	// refillBatch rejects lines for these ranges from now on. Ranges that are safe stay, unless the file will
	// not be read again: their lines are still recognised if it comes back.
	unreadable := f.inState(fileClosed) || f.inState(fileMissing)
	for _, lines := range f.ranges {
		switch {
		case lines.replay == nil:
		case lines.done:
			if unreadable {
				f.passRange(lines)
			}
		case f.shrinkRange(lines):
			abandoned = append(abandoned, lines)
		}
	}

	// 2. Mark the abandoned ranges as passed, since they do not wait for the owner any more. A range without
	// lines is removed from the list; the others are removed when their batches are safe.
	for _, lines := range abandoned {
		f.passRange(lines)
		if lines.count == 0 {
			f.removeRange(lines)
		}
	}
	f.advanceCheckpoint()
	return abandoned
}

// journalAbandoned writes the new extents of ranges to the journal before their batches can be sent: after
// another crash a batch must be rebuilt with the lines that were sent.
func (f *fileProducer) journalAbandoned(abandoned []*batchRange) {
	for _, lines := range abandoned {
		f.shipper.journalShrink(lines)
	}
}

// journalShrink writes the extent of an abandoned range to the journal and then sends its batch, if that is
// complete. If the write fails, the maintenance calls it again.
func (s *Shipper) journalShrink(lines *batchRange) {
	replay := lines.replay
	if s.journal.Shrink(replay.pending.id(replay.sender), lines.toJournal()) != nil {
		s.unwrittenMu.Lock()
		s.unwritten = append(s.unwritten, lines)
		s.unwrittenMu.Unlock()
		return
	}
	s.sendIfComplete(replay.pending, replay.sender)
}

// journalUnwritten tries again to write the ranges whose journalShrink has failed.
func (s *Shipper) journalUnwritten() {
	s.unwrittenMu.Lock()
	unwritten := s.unwritten
	s.unwritten = nil
	s.unwrittenMu.Unlock()
	for _, lines := range unwritten {
		s.journalShrink(lines)
	}
}

// shrinkRange ends the replay of r and reduces r to the lines that were received. It returns false if the
// replay has ended before. f.mu must be held.
func (f *fileProducer) shrinkRange(r *batchRange) bool {
	replay := r.replay
	replay.sender.mu.Lock()
	defer replay.sender.mu.Unlock()
	if replay.finished {
		return false
	}
	replay.finished = true
	f.shipper.countFileGone(r.count - min(r.count, replay.received))
	r.count = replay.received
	if r.end = replay.last; r.count == 0 {
		r.end = collector.Checkpoint{End: r.after, ReadFrom: r.after}
	}
	return true
}

// finishReplay ends the replay of r, when all its lines were read again or the owner has read past it. Lines
// of r that were not read again are counted as unconfirmed.
func (s *Shipper) finishReplay(r *batchRange) {
	replay := r.replay
	replay.sender.mu.Lock()
	already := replay.finished
	replay.finished = true
	missing := r.count - min(r.count, replay.received)
	replay.sender.mu.Unlock()
	if already {
		return
	}
	s.countFileGone(missing)
	s.sendIfComplete(replay.pending, replay.sender)
}

// sendIfComplete is called once for each recovered range of pending, when its replay has ended. After the
// last call the batch gets a header with its old id and becomes ready; a batch without events is finished.
func (s *Shipper) sendIfComplete(pending *pendingBatch, sender *sender) {
	sender.mu.Lock()
	pending.missingRanges--
	complete := pending.missingRanges == 0
	empty := complete && pending.batch.eventCount == 0
	switch {
	case empty:
		pending.state = stateProducing // owned by this goroutine until finishBatch
	case complete:
		pending.counts, pending.queuedAt = pending.batch.counts, time.Now()
		pending.batch.appendHeader(s.batchHeader(sender.epoch, sender.partition, pending.sequence))
		pending.state = stateReady
	}
	sender.dispatch()
	sender.mu.Unlock()
	if empty {
		sender.finishBatch(pending)
	}
}

// countFileGone counts lines of an earlier process that were not read again: as recovered and as unconfirmed,
// so that the Ledger is balanced.
func (s *Shipper) countFileGone(lines uint32) {
	s.counters.recovered[pipeline.Dataset_LOG].Add(uint64(lines))
	s.counters.unconfirmed[pipeline.Dataset_LOG].Add(uint64(lines))
}

// An idleTime measures how long the owner of a file has not called although it could. It is guarded by the
// file's lock.
type idleTime struct {
	activity uint64        // the file's activity when it was looked at last
	length   time.Duration // time since then
}

// maxIdleStep bounds the idle time that is added at once. If the maintenance did not run for longer, because the
// process was stopped or its machine suspended, the owners could not run either.
const maxIdleStep = 5 * maintainInterval

// expireReplays abandons the replays of files that no longer exist. It also abandons those of files that were
// not opened within ResumeTimeout, and of files whose owner has not shipped a line for ResumeTimeout. The time
// in which the owner could not ship does not count: while it waits for memory, while Kafka does not accept the
// batches of its partition (the lines of a file may have to wait for those of another file), and after Close
// has begun. elapsed is the time since the last call.
func (s *Shipper) expireReplays(elapsed time.Duration) {
	var stalled partitionSet
	for _, producer := range s.filesToReplay {
		if producer.unpassedRanges.Load() == 0 {
			continue
		}
		if stalled == nil {
			stalled = s.stalledPartitions()
		}
		if producer.abandonIfExpired(min(elapsed, maxIdleStep), stalled) {
			s.dropFinishedFile(producer)
		}
	}
}

// replayExpired reports whether the replay of f is to be abandoned, and adds step to the idle time of f. f.mu must
// be held.
func (f *fileProducer) replayExpired(step time.Duration, stalled partitionSet) bool {
	if f.inState(fileClosed) || f.inState(fileMissing) {
		return true // the other files of its batches need not wait
	}

	// The time begins anew when the owner calls, and as long as it may have a reason not to.
	isStalled := f.blocked.Load() || f.shipper.closing.Load()
	for _, lines := range f.ranges {
		if lines.replay != nil && !lines.replay.passed && !lines.done {
			isStalled = isStalled || stalled[lines.replay.sender.partition]
		}
	}
	if activity := f.activity.Load(); isStalled || activity != f.idle.activity {
		f.idle = idleTime{activity: activity}
		return false
	}
	f.idle.length += step
	return f.idle.length > f.shipper.cfg.ResumeTimeout
}

// A partitionSet is a set of partitions of the topic.
type partitionSet map[uint32]bool

// stalledPartitions returns the partitions whose batches Kafka does not accept, or not as fast as lines are read.
// Every partition is stalled until Kafka has answered once.
func (s *Shipper) stalledPartitions() partitionSet {
	stalled := partitionSet{}
	known := s.health.topicKnown.Load()
	for _, sender := range s.everySender() {
		if !known || sender.isFailing() || s.isMissing(int(sender.partition)) {
			stalled[sender.partition] = true
		}
	}
	for _, partition := range s.everyPartition() {
		if partition.files.budget.isFull() {
			stalled[uint32(partition.index)] = true
		}
	}
	return stalled
}
