package ship

import (
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// rangeReplay is what a portion that an earlier life cut comes to in this one. Its fields are guarded by the stream of its batch, passed by
// its lane.
type rangeReplay struct {
	sender   *sender
	pending  *pendingBatch
	received uint32               // events that have come again
	last     collector.Checkpoint // of the last of them
	finished bool                 // no more will come
	passed   bool                 // the owner has come behind it
}

// replayEvent finds the place of an event that may have been shipped in an earlier life. True: it had one, and is gone.
//
// A batch that was acknowledged is safe: its events are dropped. One that was not may or may not stand in Kafka: its events are put
// together again under the same stamp, and the reader knows whether it has seen that. Everything else is new.
func (l *lane) replayEvent(e *pipeline.Event, m collector.Checkpoint) bool {
	l.lastActive.Store(time.Now().UnixNano())
	target, repeat := l.findReplay(m.End)
	if repeat {
		l.lastEnd.Store(m.End)
		l.s.counters.reread[dataset(e)].Add(1)
		pipeline.ReleaseEvent(e)
		return true
	}
	if target == nil {
		return false
	}
	a := target.replay
	a.sender.mu.Lock()
	if a.finished { // somebody thought that we would not come
		a.sender.mu.Unlock()
		return false
	}
	d := dataset(e)
	l.s.counters.read[d].Add(1)
	if err := a.pending.batch.addEvent(e, 2*l.s.cfg.BatchBytes); err != nil { // containers have come to say more than they did
		l.s.counters.discarded[dropTooLarge][d].Add(1)
	}
	a.received++
	a.last = m
	l.lastEnd.Store(m.End)
	a.sender.mu.Unlock()
	if m.End == target.checkpoint.End {
		l.mu.Lock()
		l.passRange(target)
		l.mu.Unlock()
		l.s.finishRange(target)
	}
	pipeline.ReleaseEvent(e)
	return true
}

// findReplay finds the portion of an earlier life in which at lies: one that must be cut again, or one that is safe. What lies before at
// is complete.
func (l *lane) findReplay(at int64) (target *batchRange, repeat bool) {
	var over []*batchRange
	l.mu.Lock()
	for _, p := range l.ranges {
		if p.replay == nil || p.replay.passed {
			continue
		}
		if at <= p.after {
			break
		}
		if at > p.checkpoint.End {
			l.passRange(p)
			if !p.done {
				over = append(over, p)
			}
			continue
		}
		if !p.done {
			target = p
			break
		}
		repeat = true
		if at == p.checkpoint.End {
			l.passRange(p)
		}
		break
	}
	l.advance()
	l.mu.Unlock()
	for _, p := range over {
		l.s.finishRange(p)
	}
	return target, repeat
}

// passRange tells that the owner has come behind p; l.mu is held.
func (l *lane) passRange(p *batchRange) {
	if !p.replay.passed {
		p.replay.passed = true
		l.unpassed.Add(-1)
	}
}

// abandonReplay completes the portions of an earlier life: no more will come for them. Should it come after all, it is new: rather twice,
// under the same event ids, than not at all.
func (l *lane) abandonReplay() {
	var over []*batchRange
	l.mu.Lock()
	for _, p := range l.ranges {
		a := p.replay
		if a == nil {
			continue
		}
		if p.done {
			l.passRange(p)
			continue
		}
		a.sender.mu.Lock()
		if !a.finished {
			a.finished = true
			l.s.countFileGone(p.count - min(p.count, a.received))
			p.count = a.received
			if p.checkpoint = a.last; a.received == 0 {
				p.checkpoint = collector.Checkpoint{End: p.after, ReadFrom: p.after}
			}
			over = append(over, p)
		}
		a.sender.mu.Unlock()
	}
	for _, p := range over {
		l.passRange(p)
		if p.count == 0 {
			l.removeRange(p)
		}
	}
	l.advance()
	l.mu.Unlock()
	for _, p := range over {
		l.s.reportDiskError(&l.s.counters.journalErr, "journal", l.s.journal.shrink(p.replay.pending.key(p.replay.sender), l, p))
		l.s.sendIfComplete(p)
	}
}

// finishRange tells that all of p has come, or that the owner has come behind it without.
func (s *Shipper) finishRange(p *batchRange) {
	a := p.replay
	a.sender.mu.Lock()
	was := a.finished
	a.finished = true
	missing := p.count - min(p.count, a.received)
	a.sender.mu.Unlock()
	if was {
		return
	}
	s.countFileGone(missing)
	s.sendIfComplete(p)
}

// sendIfComplete sends the batch of p if that was the last it waited for.
func (s *Shipper) sendIfComplete(p *batchRange) {
	st, it := p.replay.sender, p.replay.pending
	st.mu.Lock()
	it.missingRanges--
	isReady := it.missingRanges == 0
	if isReady {
		it.counts, it.stampedAt = it.batch.counts, time.Now()
		it.batch.appendHeader(s.batchHeader(st.epoch, st.partition, it.seq))
		it.state = stateReady
		if it.batch.events == 0 {
			it.state = stateProducing // there is nothing to send, nobody else may touch it
		}
	}
	empty := isReady && it.batch.events == 0
	st.dispatch()
	st.mu.Unlock()
	if empty {
		st.finish(it)
	}
}

// countFileGone counts events of an earlier life that have not come again.
func (s *Shipper) countFileGone(n uint32) {
	s.counters.recovered[pipeline.Dataset_LOG].Add(uint64(n))
	s.counters.discarded[lostFile][pipeline.Dataset_LOG].Add(uint64(n))
}

// forgetGrace is how many resume times a file that was not seen for long has, to show up again in this life. The time that the
// journal has may be wrong: the host was off, or its clock was another.
const forgetGrace = 10

// forgetOld forgets, once in a life, the files that were not seen for long and have not come back.
func (s *Shipper) forgetOld(now time.Time) {
	if s.forgot || now.Sub(s.started) < forgetGrace*s.cfg.ResumeTimeout {
		return
	}
	s.forgot = true
	oldest := now.Add(-s.cfg.ForgetAfter).Unix()
	var old []*lane
	s.mu.Lock() // nobody opens a lane meanwhile
	for _, l := range s.lanes {
		l.mu.Lock()
		if l.marked && !l.opened.Load() && l.seen < oldest && len(l.ranges) == 0 {
			l.closed, l.keep = true, false
			old = append(old, l)
		}
		l.mu.Unlock()
	}
	s.mu.Unlock()
	for _, l := range old {
		s.dropFinishedLane(l)
	}
}

// expireReplays gives up what waits for files that do not come back.
func (s *Shipper) expireReplays(now time.Time) {
	long := s.cfg.ResumeTimeout
	for _, l := range s.lanesToReplay() {
		if l.unpassed.Load() == 0 {
			continue
		}
		gone := l.orphan || now.Sub(s.started) > long
		if l.opened.Load() {
			gone = !l.blocked.Load() && now.UnixNano()-l.lastActive.Load() > int64(long)
		}
		if gone {
			l.abandonReplay()
			s.dropFinishedLane(l)
		}
	}
}
