package ship

import (
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// again is what a portion that an earlier life cut comes to in this one. Its fields are guarded by the stream of its batch, passed by
// its lane.
type again struct {
	stream   *stream
	item     *item
	got      uint32         // events that have come again
	last     collector.Mark // of the last of them
	complete bool           // no more will come
	passed   bool           // the owner has come behind it
}

// recut finds the place of an event that may have been shipped in an earlier life. True: it had one, and is gone.
//
// A batch that was acknowledged is safe: its events are dropped. One that was not may or may not stand in Kafka: its events are put
// together again under the same stamp, and the reader knows whether it has seen that. Everything else is new.
func (l *lane) recut(e *pipeline.Event, m collector.Mark) bool {
	l.touched.Store(time.Now().UnixNano())
	target, repeat := l.place(m.At)
	if repeat {
		l.number.Store(m.At)
		l.s.books.resumed[dataset(e)].Add(1)
		pipeline.ReleaseEvent(e)
		return true
	}
	if target == nil {
		return false
	}
	a := target.again
	a.stream.mu.Lock()
	if a.complete { // somebody thought that we would not come
		a.stream.mu.Unlock()
		return false
	}
	d := dataset(e)
	l.s.books.read[d].Add(1)
	if err := a.item.b.add(e, 2*l.s.cfg.BatchBytes); err != nil { // containers have come to say more than they did
		l.s.books.gone[dropTooLarge][d].Add(1)
	}
	a.got++
	a.last = m
	l.number.Store(m.At)
	a.stream.mu.Unlock()
	if m.At == target.mark.At {
		l.mu.Lock()
		l.pass(target)
		l.mu.Unlock()
		l.s.complete(target)
	}
	pipeline.ReleaseEvent(e)
	return true
}

// place finds the portion of an earlier life in which at lies: one that must be cut again, or one that is safe. What lies before at
// is complete.
func (l *lane) place(at int64) (target *portion, repeat bool) {
	var over []*portion
	l.mu.Lock()
	for _, p := range l.portions {
		if p.again == nil || p.again.passed {
			continue
		}
		if at <= p.after {
			break
		}
		if at > p.mark.At {
			l.pass(p)
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
		if at == p.mark.At {
			l.pass(p)
		}
		break
	}
	l.advance()
	l.mu.Unlock()
	for _, p := range over {
		l.s.complete(p)
	}
	return target, repeat
}

// pass tells that the owner has come behind p; l.mu is held.
func (l *lane) pass(p *portion) {
	if !p.again.passed {
		p.again.passed = true
		l.ahead.Add(-1)
	}
}

// giveUp completes the portions of an earlier life: no more will come for them. Should it come after all, it is new: rather twice,
// under the same event ids, than not at all.
func (l *lane) giveUp() {
	var over []*portion
	l.mu.Lock()
	for _, p := range l.portions {
		a := p.again
		if a == nil {
			continue
		}
		if p.done {
			l.pass(p)
			continue
		}
		a.stream.mu.Lock()
		if !a.complete {
			a.complete = true
			l.s.lostFile(p.count - min(p.count, a.got))
			p.count = a.got
			if p.mark = a.last; a.got == 0 {
				p.mark = collector.Mark{At: p.after, From: p.after}
			}
			over = append(over, p)
		}
		a.stream.mu.Unlock()
	}
	for _, p := range over {
		l.pass(p)
		if p.count == 0 {
			l.remove(p)
		}
	}
	l.advance()
	l.mu.Unlock()
	for _, p := range over {
		l.s.disk(&l.s.books.journalErr, "journal", l.s.journal.shrink(p.again.item.key(p.again.stream), l, p))
		l.s.completed(p)
	}
}

// complete tells that all of p has come, or that the owner has come behind it without.
func (s *Shipper) complete(p *portion) {
	a := p.again
	a.stream.mu.Lock()
	was := a.complete
	a.complete = true
	missing := p.count - min(p.count, a.got)
	a.stream.mu.Unlock()
	if was {
		return
	}
	s.lostFile(missing)
	s.completed(p)
}

// completed sends the batch of p if that was the last it waited for.
func (s *Shipper) completed(p *portion) {
	st, it := p.again.stream, p.again.item
	st.mu.Lock()
	it.need--
	ready := it.need == 0
	if ready {
		it.counts, it.at = it.b.counts, time.Now()
		it.b.stamp(s.head(st.boot, st.partition, it.seq))
		it.state = waiting
		if it.b.events == 0 {
			it.state = sending // there is nothing to send, nobody else may touch it
		}
	}
	empty := ready && it.b.events == 0
	st.dispatch()
	st.mu.Unlock()
	if empty {
		st.over(it)
	}
}

// lostFile counts events of an earlier life that have not come again.
func (s *Shipper) lostFile(n uint32) {
	s.books.recovered[pipeline.Dataset_LOG].Add(uint64(n))
	s.books.gone[lostFile][pipeline.Dataset_LOG].Add(uint64(n))
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
		if l.marked && !l.opened.Load() && l.seen < oldest && len(l.portions) == 0 {
			l.closed, l.keep = true, false
			old = append(old, l)
		}
		l.mu.Unlock()
	}
	s.mu.Unlock()
	for _, l := range old {
		s.retire(l)
	}
}

// hopeless gives up what waits for files that do not come back.
func (s *Shipper) hopeless(now time.Time) {
	long := s.cfg.ResumeTimeout
	for _, l := range s.resumed() {
		if l.ahead.Load() == 0 {
			continue
		}
		gone := l.orphan || now.Sub(s.started) > long
		if l.opened.Load() {
			gone = !l.blocked.Load() && now.UnixNano()-l.touched.Load() > int64(long)
		}
		if gone {
			l.giveUp()
			s.retire(l)
		}
	}
}
