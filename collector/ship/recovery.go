package ship

import (
	"cmp"
	"slices"
	"time"
)

// recoverSpool gives the batches that earlier lives spooled back to their streams. What is in the spool is safe, whatever the journal says.
func (s *Shipper) recoverSpool(p *recoveredJournal) error {
	seen := map[batchID]bool{}
	var twice []spoolRef
	err := s.newSpool(func(b spoolHeader, where spoolRef) {
		if seen[b.stamp] {
			if b.whole {
				twice = append(twice, where)
			}
			return
		}
		seen[b.stamp] = true
		s.counters.recovered.add(&b.counts)
		if !b.whole {
			s.counters.discarded[lostSpool].add(&b.counts)
			return
		}
		p.apply(&record{kind: recAck, batch: b.stamp})
		st := s.senderFor(senderKey{b.stamp.epoch, b.stamp.partition}, b.wire)
		st.insertRecovered(&pendingBatch{sequence: b.stamp.sequence, state: stateReady, ref: where, counts: b.counts, stampedAt: time.Now(), confirmed: true})
	})
	if err != nil {
		return err
	}
	for _, where := range twice {
		s.spool.release(where)
	}
	return nil
}

// recoverJournal makes lanes and batches of what the journal says.
func (s *Shipper) recoverJournal(p *recoveredJournal) {
	s.reportDamage("journal", int64(p.damaged))
	j := &s.journal
	j.sync, j.next, j.parts, j.wrap = s.cfg.Sync, p.next, p.parts, s.failpoints.journalFile
	j.lanes, j.pending = map[uint32]*fileProducer{}, map[batchID]*journaledBatch{}
	batches := make([]*recoveredBatch, 0, len(p.batches))
	for _, b := range p.batches {
		batches = append(batches, b)
	}
	slices.SortFunc(batches, func(a, b *recoveredBatch) int { return cmp.Compare(a.id.sequence, b.id.sequence) })
	for _, b := range batches {
		if b.id.partition < maxPartitions {
			s.recoverBatch(b)
		}
	}
	for _, l := range p.lanes {
		l.shipper, l.router.shipper, l.gone = s, s, make(chan struct{})
		if l.is(fileClosed) && !l.hasUnfinished() {
			continue
		}
		l.lastEnd, l.rangeEnd = l.checkpoint.End, l.checkpoint.End
		l.unpassed.Store(int32(len(l.ranges)))
		if len(l.ranges) > 0 {
			s.recoveredFiles = append(s.recoveredFiles, l)
		}
		j.lanes[l.id] = l
		if p.names[l.name] == l {
			s.files[l.name] = l
		}
	}
}

// recoverBatch makes b an item that waits until its lines have come again.
func (s *Shipper) recoverBatch(b *recoveredBatch) {
	st := s.senderFor(senderKey{b.id.epoch, b.id.partition}, false)
	it := &pendingBatch{sequence: b.id.sequence, state: stateRecovering, batch: newBatch(), stampedAt: time.Now()}
	record := &journaledBatch{id: b.id}
	for _, q := range b.ranges {
		if q.count == 0 { // given up in an earlier life
			continue
		}
		it.missingRanges++
		it.batch.ranges = append(it.batch.ranges, q)
		q.batch, q.replay.sender, q.replay.pending = it.batch, st, it
		record.ranges = append(record.ranges, rangeRecord{lane: q.file.id, after: q.after, checkpoint: q.end, count: q.count})
	}
	if it.missingRanges == 0 { // nobody knows what was in it
		it.batch.recycle()
		return
	}
	s.journal.pending[b.id] = record
	st.insertRecovered(it)
}

// hasUnfinished tells whether a batch waits for the lane.
func (l *fileProducer) hasUnfinished() bool {
	return slices.ContainsFunc(l.ranges, func(p *batchRange) bool { return !p.done })
}

// dispatchAll starts to send what earlier lives left, now that everything stands.
func (s *Shipper) dispatchAll() {
	for _, st := range s.everySender() {
		st.mu.Lock()
		st.dispatch()
		st.mu.Unlock()
	}
}
