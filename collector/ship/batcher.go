package ship

import (
	"errors"
	"math/bits"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A partition is one partition of the events topic: batches with lines of files, which the journal knows, and batches of the wire, which
// can go to the spool, are cut apart and have stamps of their own, so that neither has to wait for the other.
type partition struct {
	index   int
	files   batcher
	packets batcher
}

// partitionFor spreads keys over n partitions.
func partitionFor(key string, n int) int {
	hi, _ := bits.Mul64(xxh3.HashString(key), uint64(n))
	return int(hi)
}

// A batcher gathers the events of many lanes into batches.
type batcher struct {
	s       *Shipper
	index   int  // among all cutters
	packets bool // else: with a journal
	budget  *byteBudget
	sender  *sender

	mu        sync.Mutex
	batch     *batch // nil: empty
	queue     []*batch
	headTaken bool // the pump is at the first of the queue
	timer     *time.Timer
	closed    bool
	wake      chan struct{} // to the pump: queue or window have changed
}

// addFileEvent puts e, which it then owns, into the batch. False: the shipper is closed.
func (c *batcher) addFileEvent(l *lane, e *pipeline.Event, m collector.Checkpoint) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		pipeline.ReleaseEvent(e)
		return false
	}
	d := dataset(e)
	c.appendEvent(l, e, m)
	c.mu.Unlock()
	c.s.counters.read[d].Add(1)
	pipeline.ReleaseEvent(e)
	return true
}

// addPacketEvent is add for what was counted as read already.
func (c *batcher) addPacketEvent(l *lane, e *pipeline.Event) bool {
	c.mu.Lock()
	ok := !c.closed
	if ok {
		ok = c.appendEvent(l, e, collector.Checkpoint{})
	} else {
		c.s.counters.discarded[dropClosed][dataset(e)].Add(1)
		l.skip()
	}
	c.mu.Unlock()
	pipeline.ReleaseEvent(e)
	return ok
}

// appendEvent encodes e into the batch, or a new one if that is full; false: it fits into none, which is counted. c.mu is held.
func (c *batcher) appendEvent(l *lane, e *pipeline.Event, m collector.Checkpoint) bool {
	b := c.currentBatch()
	err := b.addEvent(e, c.s.cfg.BatchBytes)
	if errors.Is(err, errFull) {
		c.closeBatch()
		b = c.currentBatch()
		err = b.addEvent(e, c.s.cfg.BatchBytes)
	}
	if err != nil {
		c.s.counters.discarded[dropTooLarge][dataset(e)].Add(1)
		if m.End > 0 {
			l.lastEnd.Store(m.End)
		} else {
			l.skip()
		}
		return false
	}
	if !l.marked || m.End > 0 { // an event without a mark on a lane with marks is not followed
		p := l.rangeIn(c, b)
		if m.End == 0 {
			m.End = l.lastEnd.Load() + 1
		}
		p.checkpoint = m
		p.count++
		l.lastEnd.Store(m.End)
	}
	if c.packets && l.sourceGone.Load() {
		b.sourceGone.Store(true)
	}
	c.chargeBatch(b)
	if b.events >= c.s.cfg.BatchEvents || len(b.buf) >= c.s.cfg.BatchBytes {
		c.closeBatch()
	}
	return true
}

func (c *batcher) chargeBatch(b *batch) {
	c.budget.charge(len(b.buf) - b.chargedBytes)
	b.chargedBytes = len(b.buf)
}

// currentBatch gives the batch that is being filled.
func (c *batcher) currentBatch() *batch {
	if c.batch == nil {
		c.batch = newBatch()
		c.batch.openedAt = time.Now().UnixNano()
		if c.timer == nil {
			c.timer = time.AfterFunc(c.s.cfg.Linger, c.onLinger)
		} else {
			c.timer.Reset(c.s.cfg.Linger)
		}
	}
	return c.batch
}

// onLinger cuts a batch that nothing has filled for long enough.
func (c *batcher) onLinger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch == nil || c.batch.events == 0 || c.closed {
		return
	}
	if !c.packets && !c.batch.sourceGone.Load() && !c.sender.windowOpen() { // Kafka is away: a batch that grows is better than many that wait
		c.timer.Reset(c.s.cfg.Linger)
		return
	}
	if left := c.s.cfg.Linger - time.Duration(time.Now().UnixNano()-c.batch.openedAt); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.closeBatch()
}

// closeBatch hands the batch on: of the wire at once, with lines of files when the journal has it. c.mu is held.
func (c *batcher) closeBatch() {
	b := c.batch
	if b == nil || b.events == 0 {
		return
	}
	c.batch = nil
	if c.packets {
		c.sender.addPacketBatch(b, stateReady)
		return
	}
	c.queue = append(c.queue, b)
	c.wakeJournaler()
}

func (c *batcher) wakeJournaler() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// closeInput cuts what there is and takes nothing more.
func (c *batcher) closeInput() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeBatch()
	c.closed = true
}

// journalBatches stamps batches with lines of files, writes them to the journal and hands them to the stream, one after the other, as far
// as the window reaches.
func (c *batcher) journalBatches() {
	for {
		select {
		case <-c.wake:
		case <-c.s.ctx.Done():
			return
		}
		for c.sender.windowOpen() {
			c.mu.Lock()
			if len(c.queue) == 0 {
				c.mu.Unlock()
				break
			}
			b := c.queue[0]
			c.headTaken = true
			c.mu.Unlock()
			sent := c.journalBatch(b)
			c.mu.Lock()
			c.headTaken = false
			if !sent {
				c.mu.Unlock()
				return
			}
			c.queue[0] = nil
			c.queue = c.queue[1:]
			c.mu.Unlock()
			c.s.signalDelivered()
		}
	}
}

// journalBatch journals b until that succeeds: what the journal does not know is not produced, since after a kill it would be shipped twice.
// False: the shipper ends.
func (c *batcher) journalBatch(b *batch) bool {
	seq := c.sender.nextSequence(b)
	c.chargeBatch(b)
	for {
		err := c.s.journal.batch(b, batchID{c.sender.epoch, c.sender.partition, seq}, time.Now().UnixNano())
		c.s.reportDiskError(&c.s.counters.journalErr, "journal", err)
		if err == nil {
			c.sender.queue(b, seq)
			return true
		}
		if !c.s.sleep(diskRetry) {
			return false
		}
	}
}

// bufferedEvents counts the events that the stream has not got yet.
func (c *batcher) bufferedEvents() (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch != nil {
		n += uint64(c.batch.events)
	}
	for _, b := range c.queue {
		n += uint64(b.events)
	}
	return n
}

// moveUnreadable moves batches with lines that can not be read again, for which the window has no stamp, over to the wire, from where
// they can go to the spool. The journal learns of them under their new stamps.
func (c *batcher) moveUnreadable(now bool) {
	if !now && c.sender.windowOpen() {
		return
	}
	for {
		b := c.takeUnreadable()
		if b == nil {
			return
		}
		w := &c.s.everyPartition()[c.index/2].packets
		c.budget.refund(b.chargedBytes)
		w.budget.charge(b.chargedBytes)
		it := w.sender.addPacketBatch(b, stateSpilling)
		it.journaled = true
		err := c.s.journal.batch(b, it.key(w.sender), time.Now().UnixNano())
		c.s.reportDiskError(&c.s.counters.journalErr, "journal", err)
		if err != nil {
			w.sender.remove(it)
			w.budget.refund(b.chargedBytes)
			c.budget.charge(b.chargedBytes)
			c.mu.Lock()
			c.queue = append(c.queue, b) // a stamp that comes later replaces the one that it has now
			c.mu.Unlock()
			return
		}
		w.sender.makeReady(it)
	}
}

// takeUnreadable takes a batch out of the queue, but not the first while the pump is at it.
func (c *batcher) takeUnreadable() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := 0
	if c.headTaken {
		first = 1
	}
	for i := first; i < len(c.queue); i++ {
		if b := c.queue[i]; b.sourceGone.Load() {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			return b
		}
	}
	return nil
}
