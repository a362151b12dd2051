package ship

import (
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A rangeReplay is the progress of a range that an earlier process made and that is filled again in this one.
// passed is guarded by the file's lock, the other fields that change by the sender's.
type rangeReplay struct {
	sender   *sender
	pending  *pendingBatch
	received uint32               // lines that were read again
	last     collector.Checkpoint // of the last of them
	finished bool                 // no more lines will be accepted
	passed   bool                 // the owner has read past the range
}

// A linePlace says where a line lies among the recovered ranges of its file.
type linePlace int

const (
	lineNew    linePlace = iota // in none of them
	lineSafe                    // in a range that is finished
	lineInside                  // in a range that waits for its lines
	lineLast                    // the last line of such a range
)

// replayEvent handles an event that an earlier process may have shipped. It reports whether e belonged to a
// batch of that process; e is then released.
//
// Lines of a batch that was acknowledged are safe: they are dropped. A batch that was not acknowledged may or
// may not be in Kafka: its lines are put into a batch with the same id again, so that the reader can
// recognise it. All other lines are new.
func (f *fileProducer) replayEvent(event *pipeline.Event, checkpoint collector.Checkpoint) bool {
	f.lastActive.Store(time.Now().UnixNano())
	target, place := f.findReplay(checkpoint.End)
	switch {
	case place == lineNew:
		return false
	case place == lineSafe:
		f.skipTo(checkpoint.End)
		f.dropReread(event)
		return true
	case !f.refillBatch(target, event, checkpoint):
		return false
	}

	f.skipTo(checkpoint.End)
	if place == lineLast {
		f.mu.Lock()
		f.passRange(target)
		f.mu.Unlock()
		f.shipper.finishReplay(target)
	}
	pipeline.ReleaseEvent(event)
	return true
}

// refillBatch puts e into the batch of r. It reports false if the replay of r was abandoned: e is then a new
// line.
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

	// The metadata of containers may have grown since the batch was made, so it may be larger than others.
	if err := replay.pending.batch.addEvent(event, 2*int(f.shipper.cfg.BatchBytes)); err != nil {
		counters.discarded[dropTooLarge][index].Add(1)
	}
	replay.received++
	replay.last = checkpoint
	return true
}

// findReplay returns the recovered range that contains the line that ends at end, and the place of the line.
// The owner has read past the ranges before it: they are finished.
func (f *fileProducer) findReplay(end int64) (target *batchRange, place linePlace) {
	// Invariant: ranges do not overlap and are in order, so the first one that ends at or behind the line
	// decides.
	var incomplete []*batchRange
	f.mu.Lock()
	for _, r := range f.ranges {
		if r.replay == nil || r.replay.passed {
			continue
		}
		if end > r.end.End {
			f.passRange(r)
			if !r.done {
				incomplete = append(incomplete, r)
			}
			continue
		}
		if end > r.after {
			target, place = r, f.placeIn(r, end)
		}
		break
	}
	f.advanceCheckpoint()
	f.mu.Unlock()

	// finishReplay takes the sender's lock and may send, so it runs without the file's lock.
	for _, r := range incomplete {
		f.shipper.finishReplay(r)
	}
	return target, place
}

// placeIn returns the place of the line that ends at end in r, which contains it. f.mu must be held.
func (f *fileProducer) placeIn(r *batchRange, end int64) linePlace {
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

// abandonReplay finishes the recovered ranges of f with the lines that were read again so far: no more are
// expected. A line that is read after all is shipped as a new one: twice, under the same event id, is better
// than never.
func (f *fileProducer) abandonReplay() {
	var abandoned []*batchRange

	// 1. Shrink each unfinished range to what was received, and count the rest as lost. From here on refill
	// refuses lines for it.
	f.mu.Lock()
	for _, r := range f.ranges {
		switch {
		case r.replay == nil:
		case r.done:
			f.passRange(r)
		case f.shrinkRange(r):
			abandoned = append(abandoned, r)
		}
	}

	// 2. Nothing waits for the owner any more. A range without lines leaves the list; the others leave when
	// their batches are safe.
	for _, r := range abandoned {
		f.passRange(r)
		if r.count == 0 {
			f.removeRange(r)
		}
	}
	f.advanceCheckpoint()
	f.mu.Unlock()

	// 3. The journal learns of the new extent before the batch can be sent.
	for _, r := range abandoned {
		f.shipper.journal.Shrink(r.replay.pending.id(r.replay.sender), r.toJournal())
		f.shipper.sendIfComplete(r.replay.pending, r.replay.sender)
	}
}

// shrinkRange ends the replay of r with the lines that were received. It reports false if the replay has
// ended already. f.mu must be held.
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

// finishReplay ends the replay of r: all its lines were read again, or the owner has read past it. Lines that
// were not read again are counted as lost.
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

// sendIfComplete is called once for each recovered range of pending when its replay has ended. After the last
// one the batch gets its header again and is sent under its old id.
func (s *Shipper) sendIfComplete(pending *pendingBatch, sender *sender) {
	sender.mu.Lock()
	pending.missingRanges--
	complete := pending.missingRanges == 0
	empty := complete && pending.batch.eventCount == 0
	switch {
	case empty:
		pending.state = stateProducing // there is nothing to send, and nobody else may touch it
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

// countFileGone counts lines of an earlier process that were not read again.
func (s *Shipper) countFileGone(n uint32) {
	s.counters.recovered[pipeline.Dataset_LOG].Add(uint64(n))
	s.counters.discarded[lostFile][pipeline.Dataset_LOG].Add(uint64(n))
}

// expireReplays abandons the replays of files that do not come back, or that their owner does not go on
// reading. filesToReplay does not change after the start.
func (s *Shipper) expireReplays(now time.Time) {
	for _, fileProducer := range s.filesToReplay {
		if fileProducer.unpassedRanges.Load() == 0 {
			continue
		}
		expired := false
		switch fileState(fileProducer.state.Load()) {
		case fileOpen, fileGone:
			inactive := now.UnixNano() - fileProducer.lastActive.Load()
			expired = !fileProducer.blocked.Load() && inactive > int64(s.cfg.ResumeTimeout)
		case fileClosed:
			expired = true
		case fileIdle, fileMissing:
			expired = now.Sub(s.started) > s.cfg.ResumeTimeout
		}
		if expired {
			fileProducer.abandonReplay()
			s.dropFinishedFile(fileProducer)
		}
	}
}
