package ship

import (
	"cmp"
	"slices"
	"time"
)

// takeSpool gives the batches that earlier lives spooled back to their streams. What is in the spool is safe, whatever the journal says.
func (s *Shipper) takeSpool(p *past) error {
	seen := map[stampKey]bool{}
	var twice []place
	err := s.newSpool(func(b found, where place) {
		if seen[b.stamp] {
			if b.whole {
				twice = append(twice, where)
			}
			return
		}
		seen[b.stamp] = true
		s.books.recovered.add(&b.counts)
		if !b.whole {
			s.books.gone[lostSpool].add(&b.counts)
			return
		}
		p.apply(&entry{kind: recAck, stamp: b.stamp})
		st := s.stream(streamKey{b.stamp.boot, b.stamp.partition}, b.wire)
		st.take(&item{seq: b.stamp.sequence, state: waiting, where: where, counts: b.counts, at: time.Now(), safe: true})
	})
	if err != nil {
		return err
	}
	for _, where := range twice {
		s.spool.release(where)
	}
	return nil
}

// takeJournal makes lanes and batches of what the journal says.
func (s *Shipper) takeJournal(p *past) {
	s.damaged("journal", int64(p.damaged))
	j := &s.journal
	j.sync, j.next, j.parts, j.wrap = s.cfg.Sync, p.next, p.parts, s.seams.journalFile
	j.lanes, j.pending = map[uint32]*lane{}, map[stampKey]*jot{}
	batches := make([]*pastBatch, 0, len(p.batches))
	for _, b := range p.batches {
		batches = append(batches, b)
	}
	slices.SortFunc(batches, func(a, b *pastBatch) int { return cmp.Compare(a.stamp.sequence, b.stamp.sequence) })
	for _, b := range batches {
		if b.stamp.partition < maxPartitions {
			s.takeBatch(b)
		}
	}
	for _, l := range p.lanes {
		l.s, l.sealing = s, make(chan struct{})
		if l.orphan && !l.undone() {
			continue
		}
		l.number.Store(l.safe.At)
		l.ahead.Store(int32(len(l.portions)))
		if len(l.portions) > 0 {
			s.old = append(s.old, l)
		}
		j.lanes[l.id] = l
		if p.names[l.name] == l {
			s.lanes[l.name] = l
		}
	}
}

// takeBatch makes b an item that waits until its lines have come again.
func (s *Shipper) takeBatch(b *pastBatch) {
	st := s.stream(streamKey{b.stamp.boot, b.stamp.partition}, false)
	it := &item{seq: b.stamp.sequence, state: forming, b: newBatch(), at: time.Now()}
	record := &jot{stamp: b.stamp}
	for _, q := range b.portions {
		if q.count == 0 { // given up in an earlier life
			continue
		}
		it.need++
		it.b.portions = append(it.b.portions, q)
		q.batch, q.again.stream, q.again.item = it.b, st, it
		record.portions = append(record.portions, entryPortion{lane: q.lane.id, after: q.after, mark: q.mark, count: q.count})
	}
	if it.need == 0 { // nobody knows what was in it
		it.b.free()
		return
	}
	s.journal.pending[b.stamp] = record
	st.take(it)
}

// undone tells whether a batch waits for the lane.
func (l *lane) undone() bool {
	return slices.ContainsFunc(l.portions, func(p *portion) bool { return !p.done })
}

// resume starts to send what earlier lives left, now that everything stands.
func (s *Shipper) resume() {
	for _, st := range s.everyStream() {
		st.mu.Lock()
		st.dispatch()
		st.mu.Unlock()
	}
}
