package ship

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	tidekafka "tidegate/pipeline/kafka"
)

// A stream is the batches of one boot and partition, in the order of their stamps, from where the first is not acknowledged. It
// produces them, several at a time, but none that is a window or more above the first: the reader would take that first one, when
// it comes at last, for a repeat. It does not matter to it whether a batch lies in memory or in the spool, or belongs to this life.
type stream struct {
	s         *Shipper
	boot      uint64
	partition uint32
	wire      bool
	room      *room   // that batches in memory were charged to; nil: none
	cutter    *cutter // of this life; nil: an earlier one

	mu      sync.Mutex
	items   []*item
	next    uint64 // stamp for the next batch
	sending int
	fails   int // produce requests that failed since the last that did not
	since   time.Time
	retry   time.Time
	timer   *time.Timer
}

// The states of an item.
const (
	forming  = iota // an earlier life's: it is being cut again
	waiting         // to be produced
	sending         // being produced
	spilling        // being written to the spool
	done            // acknowledged by Kafka, or given up and counted
)

// An item is a batch that has its stamp.
type item struct {
	seq    uint64
	state  int
	need   int    // portions that forming waits for
	b      *batch // nil: it lies in the spool
	where  place
	counts counts
	at     time.Time // when it was stamped
	safe   bool      // its lanes know that it is
	lines  bool      // the journal knows it, though it is of the wire
}

func (it *item) key(st *stream) stampKey { return stampKey{st.boot, st.partition, it.seq} }

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	diskRetry  = time.Second
)

// add stamps a batch of the wire and takes it over. Stamp and place are given in one step: a batch that came into the stream after
// others above it had been produced could be out of the reader's window.
func (st *stream) add(b *batch, state int) *item {
	st.mu.Lock()
	b.stamp(st.s.head(st.boot, st.partition, st.next))
	it := &item{seq: st.next, state: state, b: b, counts: b.counts, at: time.Now()}
	st.next++
	st.items = append(st.items, it)
	st.dispatch()
	st.mu.Unlock()
	if st.room.used.Load() > st.room.limit()/4 {
		st.s.kickJanitor()
	}
	return it
}

// draw stamps a batch of lines, which the journal has to know before push. Both are called by the pump alone.
func (st *stream) draw(b *batch) uint64 {
	st.mu.Lock()
	seq := st.next
	st.next++
	st.mu.Unlock()
	b.stamp(st.s.head(st.boot, st.partition, seq))
	return seq
}

// push takes over a batch whose stamp was drawn.
func (st *stream) push(b *batch, seq uint64) {
	st.mu.Lock()
	st.items = append(st.items, &item{seq: seq, state: waiting, b: b, counts: b.counts, at: time.Now()})
	st.dispatch()
	st.mu.Unlock()
}

// take puts an item of an earlier life in its place.
func (st *stream) take(it *item) {
	st.mu.Lock()
	defer st.mu.Unlock()
	i, _ := slices.BinarySearchFunc(st.items, it.seq, func(it *item, seq uint64) int { return cmp.Compare(it.seq, seq) })
	st.items = slices.Insert(st.items, i, it)
}

// open tells whether the window has room for one more stamp.
func (st *stream) open() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.items) == 0 || st.next < st.items[0].seq+window
}

// dispatch starts what may be produced now; st.mu is held. After a failure one batch at a time tries whether Kafka is back.
func (st *stream) dispatch() {
	s := st.s
	if s.ctx.Err() != nil || len(st.items) == 0 {
		return
	}
	limit := s.cfg.InFlight
	if st.fails > 0 {
		limit = 1
		if left := time.Until(st.retry); left > 0 {
			if st.timer == nil {
				st.timer = time.AfterFunc(left, st.again)
			} else {
				st.timer.Reset(left)
			}
			return
		}
	}
	first := st.items[0].seq
	for _, it := range st.items {
		if st.sending >= limit || it.seq >= first+window {
			return
		}
		if it.state == waiting {
			it.state = sending
			st.sending++
			s.senders.Add(1)
			go st.send(it)
		}
	}
}

func (st *stream) again() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.dispatch()
}

// send produces it once and says what came of that.
func (st *stream) send(it *item) {
	s := st.s
	defer s.senders.Done()
	value, err := st.value(it)
	if err == nil {
		s.seams.call(s.seams.beforeProduce, it.key(st))
		ctx, cancel := context.WithTimeout(s.ctx, s.kafka.Config().Timeout)
		_, err = s.kafka.Produce(ctx, s.topic, int(st.partition), kafka.Record{Value: kafka.NewBytes(value)})
		cancel()
		if err == nil {
			s.seams.call(s.seams.afterProduce, it.key(st))
		}
		s.reached(err)
	} else if lost(err) {
		s.books.gone[lostSpool].add(&it.counts)
		st.settle(it)
		return
	}
	switch {
	case err == nil:
		s.books.shipped.add(&it.counts)
		s.books.batches.Add(1)
		st.settle(it)
	case tidekafka.Sort(err) == tidekafka.Refused:
		s.books.gone[lostRefused].add(&it.counts)
		st.settle(it)
	default:
		st.failed(it)
	}
}

// value gives the bytes of it, from memory or from the spool.
func (st *stream) value(it *item) ([]byte, error) {
	if it.b != nil {
		return it.b.buf, nil
	}
	return st.s.spool.read(it.where)
}

// failed puts it back and says when to try again.
func (st *stream) failed(it *item) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if it.b != nil {
		it.b.tainted = true
	}
	it.state = waiting
	st.sending--
	now := time.Now()
	if st.fails == 0 {
		st.since = now
	}
	if now.After(st.retry) { // several that failed together are one failure
		st.fails++
		wait := min(lastRetry, firstRetry<<min(st.fails-1, 10))
		st.retry = now.Add(wait/2 + rand.N(wait/2))
	}
	st.dispatch()
}

// settle is for what need not be produced again.
func (st *stream) settle(it *item) {
	st.mu.Lock()
	st.sending--
	st.fails = 0
	st.mu.Unlock()
	st.over(it)
}

// over ends an item that nobody else touches: it is in Kafka, or counted as lost.
func (st *stream) over(it *item) {
	b, where := it.b, it.where
	st.release(it, b)
	st.remove(it)
	if b != nil {
		st.free(b)
	} else {
		st.s.spool.release(where)
	}
	if st.cutter != nil && !st.wire {
		st.cutter.wakePump()
	}
	st.s.changed()
}

// ready lets it be produced.
func (st *stream) ready(it *item) {
	st.mu.Lock()
	defer st.mu.Unlock()
	it.state = waiting
	st.dispatch()
}

// remove takes it out of the stream, when it comes to the front.
func (st *stream) remove(it *item) {
	st.mu.Lock()
	defer st.mu.Unlock()
	it.state, it.b = done, nil
	n := 0
	for n < len(st.items) && st.items[n].state == done {
		st.items[n] = nil
		n++
	}
	st.items = st.items[n:]
	st.dispatch()
}

// release tells the lanes of b, which is not held by anybody else, and the journal, that it is safe.
func (st *stream) release(it *item, b *batch) {
	if it.safe || b == nil {
		return
	}
	it.safe = true
	s := st.s
	s.books.acked.add(&it.counts)
	var closed []*lane
	for _, p := range b.portions {
		if p.lane.finish(p) {
			closed = append(closed, p.lane)
		}
	}
	if !st.wire || it.lines {
		s.disk(&s.books.journalErr, "journal", s.journal.ack(it.key(st)))
	}
	for _, l := range closed {
		s.retire(l)
	}
}

func (st *stream) free(b *batch) {
	if b.charged > 0 {
		st.room.free(b.charged)
	}
	b.free()
}

// spill writes batches of the wire, and those with lines that can not be read again, to the spool, when they have waited for long
// or, now, all of them. The order of the stamps is kept.
func (st *stream) spill(now bool) {
	for {
		it := st.due(now)
		if it == nil {
			return
		}
		where, err := st.s.spool.append(it.key(st), st.wire, &it.counts, it.b.buf)
		b := it.b
		if err == nil {
			st.release(it, b)
			st.s.books.spooled.add(&it.counts)
		}
		st.mu.Lock()
		it.state = waiting
		if err == nil {
			it.b, it.where = nil, where
		}
		st.dispatch()
		st.mu.Unlock()
		if err != nil {
			st.s.disk(&st.s.books.spoolErr, "spool", err)
			return
		}
		st.free(b)
	}
}

// due gives the next item to be spilled, which is then in that state.
func (st *stream) due(now bool) *item {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !now && st.wire {
		used := st.room.used.Load()
		now = used > st.room.limit()/2 || st.fails > 0 && used > st.room.limit()/4
	}
	for _, it := range st.items {
		if it.state != waiting || it.b == nil || !st.wire && !it.b.sealed.Load() {
			continue
		}
		if !now && time.Since(it.at) < st.s.cfg.SpoolAfter {
			return nil
		}
		it.state = spilling
		return it
	}
	return nil
}

// away tells whether Kafka has not taken anything for so long that waiting for it at the end makes no sense.
func (st *stream) away() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.fails > 0 && st.sending == 0 && time.Since(st.since) > st.s.cfg.SpoolAfter
}

// idle tells whether everything that can be produced has been.
func (st *stream) idle() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, it := range st.items {
		if it.state != forming && it.state != done {
			return false
		}
	}
	return true
}

func (st *stream) waiting() (n uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, it := range st.items {
		switch {
		case it.state == done:
		case it.state == forming:
			n += uint64(it.b.events)
		default:
			n += it.counts.sum()
		}
	}
	return n
}
