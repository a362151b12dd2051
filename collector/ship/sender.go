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

// A sender is the batches of one boot and partition, in the order of their stamps, from where the first is not acknowledged. It
// produces them, several at a time, but none that is a window or more above the first: the reader would take that first one, when
// it comes at last, for a repeat. It does not matter to it whether a batch lies in memory or in the spool, or belongs to this life.
type sender struct {
	s         *Shipper
	epoch     uint64
	partition uint32
	packets   bool
	budget    *byteBudget // that batches in memory were charged to; nil: none
	batcher   *batcher    // of this life; nil: an earlier one

	mu           sync.Mutex
	pending      []*pendingBatch
	next         uint64 // stamp for the next batch
	sending      int
	failures     int // produce requests that failed since the last that did not
	failingSince time.Time
	retryAt      time.Time
	timer        *time.Timer
}

// The states of an item.
const (
	stateRecovering = iota // an earlier life's: it is being cut again
	stateReady             // to be produced
	stateProducing         // being produced
	stateSpilling          // being written to the spool
	stateDone              // acknowledged by Kafka, or given up and counted
)

// An pendingBatch is a batch that has its stamp.
type pendingBatch struct {
	seq           uint64
	state         int
	missingRanges int    // portions that forming waits for
	batch         *batch // nil: it lies in the spool
	ref           spoolRef
	counts        datasetCounts
	stampedAt     time.Time // when it was stamped
	confirmed     bool      // its lanes know that it is
	journaled     bool      // the journal knows it, though it is of the wire
}

func (it *pendingBatch) key(st *sender) batchID { return batchID{st.epoch, st.partition, it.seq} }

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	diskRetry  = time.Second
)

// addPacketBatch stamps a batch of the wire and takes it over. Stamp and place are given in one step: a batch that came into the stream after
// others above it had been produced could be out of the reader's window.
func (st *sender) addPacketBatch(b *batch, state int) *pendingBatch {
	st.mu.Lock()
	b.appendHeader(st.s.batchHeader(st.epoch, st.partition, st.next))
	it := &pendingBatch{seq: st.next, state: state, batch: b, counts: b.counts, stampedAt: time.Now()}
	st.next++
	st.pending = append(st.pending, it)
	st.dispatch()
	st.mu.Unlock()
	if st.budget.used.Load() > st.budget.limit()/4 {
		st.s.requestMaintenance()
	}
	return it
}

// nextSequence stamps a batch of lines, which the journal has to know before push. Both are called by the pump alone.
func (st *sender) nextSequence(b *batch) uint64 {
	st.mu.Lock()
	seq := st.next
	st.next++
	st.mu.Unlock()
	b.appendHeader(st.s.batchHeader(st.epoch, st.partition, seq))
	return seq
}

// queue takes over a batch whose stamp was drawn.
func (st *sender) queue(b *batch, seq uint64) {
	st.mu.Lock()
	st.pending = append(st.pending, &pendingBatch{seq: seq, state: stateReady, batch: b, counts: b.counts, stampedAt: time.Now()})
	st.dispatch()
	st.mu.Unlock()
}

// insertRecovered puts an item of an earlier life in its place.
func (st *sender) insertRecovered(it *pendingBatch) {
	st.mu.Lock()
	defer st.mu.Unlock()
	i, _ := slices.BinarySearchFunc(st.pending, it.seq, func(it *pendingBatch, seq uint64) int { return cmp.Compare(it.seq, seq) })
	st.pending = slices.Insert(st.pending, i, it)
}

// windowOpen tells whether the window has room for one more stamp.
func (st *sender) windowOpen() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.pending) == 0 || st.next < st.pending[0].seq+window
}

// dispatch starts what may be produced now; st.mu is held. After a failure one batch at a time tries whether Kafka is back.
func (st *sender) dispatch() {
	s := st.s
	if s.ctx.Err() != nil || len(st.pending) == 0 {
		return
	}
	limit := s.cfg.InFlight
	if st.failures > 0 {
		limit = 1
		if left := time.Until(st.retryAt); left > 0 {
			if st.timer == nil {
				st.timer = time.AfterFunc(left, st.retryDispatch)
			} else {
				st.timer.Reset(left)
			}
			return
		}
	}
	first := st.pending[0].seq
	for _, it := range st.pending {
		if st.sending >= limit || it.seq >= first+window {
			return
		}
		if it.state == stateReady {
			it.state = stateProducing
			st.sending++
			s.producing.Add(1)
			go st.produce(it)
		}
	}
}

func (st *sender) retryDispatch() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.dispatch()
}

// produce produces it once and says what came of that.
func (st *sender) produce(it *pendingBatch) {
	s := st.s
	defer s.producing.Done()
	value, err := st.value(it)
	if err == nil {
		s.failpoints.call(s.failpoints.beforeProduce, it.key(st))
		ctx, cancel := context.WithTimeout(s.ctx, s.kafka.Config().Timeout)
		_, err = s.kafka.Produce(ctx, s.topic, int(st.partition), kafka.Record{Value: kafka.NewBytes(value)})
		cancel()
		if err == nil {
			s.failpoints.call(s.failpoints.afterProduce, it.key(st))
		}
		s.observeProduce(err)
	} else if lost(err) {
		s.counters.discarded[lostSpool].add(&it.counts)
		st.finishSent(it)
		return
	}
	switch {
	case err == nil:
		s.counters.delivered.add(&it.counts)
		s.counters.batches.Add(1)
		st.finishSent(it)
	case tidekafka.Classify(err) == tidekafka.Rejected:
		s.counters.discarded[lostRejected].add(&it.counts)
		st.finishSent(it)
	default:
		st.requeue(it)
	}
}

// value gives the bytes of it, from memory or from the spool.
func (st *sender) value(it *pendingBatch) ([]byte, error) {
	if it.batch != nil {
		return it.batch.buf, nil
	}
	return st.s.spool.read(it.ref)
}

// requeue puts it back and says when to try again.
func (st *sender) requeue(it *pendingBatch) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if it.batch != nil {
		it.batch.bufferShared = true
	}
	it.state = stateReady
	st.sending--
	now := time.Now()
	if st.failures == 0 {
		st.failingSince = now
	}
	if now.After(st.retryAt) { // several that failed together are one failure
		st.failures++
		wait := min(lastRetry, firstRetry<<min(st.failures-1, 10))
		st.retryAt = now.Add(wait/2 + rand.N(wait/2))
	}
	st.dispatch()
}

// finishSent is for what need not be produced again.
func (st *sender) finishSent(it *pendingBatch) {
	st.mu.Lock()
	st.sending--
	st.failures = 0
	st.mu.Unlock()
	st.finish(it)
}

// finish ends an item that nobody else touches: it is in Kafka, or counted as lost.
func (st *sender) finish(it *pendingBatch) {
	b, where := it.batch, it.ref
	st.confirm(it, b)
	st.remove(it)
	if b != nil {
		st.freeBatch(b)
	} else {
		st.s.spool.release(where)
	}
	if st.batcher != nil && !st.packets {
		st.batcher.wakeJournaler()
	}
	st.s.signalDelivered()
}

// makeReady lets it be produced.
func (st *sender) makeReady(it *pendingBatch) {
	st.mu.Lock()
	defer st.mu.Unlock()
	it.state = stateReady
	st.dispatch()
}

// remove takes it out of the stream, when it comes to the front.
func (st *sender) remove(it *pendingBatch) {
	st.mu.Lock()
	defer st.mu.Unlock()
	it.state, it.batch = stateDone, nil
	n := 0
	for n < len(st.pending) && st.pending[n].state == stateDone {
		st.pending[n] = nil
		n++
	}
	st.pending = st.pending[n:]
	st.dispatch()
}

// confirm tells the lanes of b, which is not held by anybody else, and the journal, that it is safe.
func (st *sender) confirm(it *pendingBatch, b *batch) {
	if it.confirmed || b == nil {
		return
	}
	it.confirmed = true
	s := st.s
	s.counters.safe.add(&it.counts)
	var closed []*lane
	for _, p := range b.ranges {
		if p.lane.finishRange(p) {
			closed = append(closed, p.lane)
		}
	}
	if !st.packets || it.journaled {
		s.reportDiskError(&s.counters.journalErr, "journal", s.journal.ack(it.key(st)))
	}
	for _, l := range closed {
		s.dropFinishedLane(l)
	}
}

func (st *sender) freeBatch(b *batch) {
	if b.chargedBytes > 0 {
		st.budget.refund(b.chargedBytes)
	}
	b.recycle()
}

// spill writes batches of the wire, and those with lines that can not be read again, to the spool, when they have waited for long
// or, now, all of them. The order of the stamps is kept.
func (st *sender) spill(now bool) {
	for {
		it := st.nextSpill(now)
		if it == nil {
			return
		}
		where, err := st.s.spool.append(it.key(st), st.packets, &it.counts, it.batch.buf)
		b := it.batch
		if err == nil {
			st.confirm(it, b)
			st.s.counters.spooled.add(&it.counts)
		}
		st.mu.Lock()
		it.state = stateReady
		if err == nil {
			it.batch, it.ref = nil, where
		}
		st.dispatch()
		st.mu.Unlock()
		if err != nil {
			st.s.reportDiskError(&st.s.counters.spoolErr, "spool", err)
			return
		}
		st.freeBatch(b)
	}
}

// nextSpill gives the next item to be spilled, which is then in that state.
func (st *sender) nextSpill(now bool) *pendingBatch {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !now && st.packets {
		used := st.budget.used.Load()
		now = used > st.budget.limit()/2 || st.failures > 0 && used > st.budget.limit()/4
	}
	for _, it := range st.pending {
		if it.state != stateReady || it.batch == nil || !st.packets && !it.batch.sourceGone.Load() {
			continue
		}
		if !now && time.Since(it.stampedAt) < st.s.cfg.SpoolAfter {
			return nil
		}
		it.state = stateSpilling
		return it
	}
	return nil
}

// unreachable tells whether Kafka has not taken anything for so long that waiting for it at the end makes no sense.
func (st *sender) unreachable() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.failures > 0 && st.sending == 0 && time.Since(st.failingSince) > st.s.cfg.SpoolAfter
}

// drained tells whether everything that can be produced has been.
func (st *sender) drained() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, it := range st.pending {
		if it.state != stateRecovering && it.state != stateDone {
			return false
		}
	}
	return true
}

func (st *sender) bufferedEvents() (n uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, it := range st.pending {
		switch {
		case it.state == stateDone:
		case it.state == stateRecovering:
			n += uint64(it.batch.events)
		default:
			n += it.counts.sum()
		}
	}
	return n
}
