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

// A part is one partition of the events topic: batches with lines of files, which the journal knows, and batches of the wire, which
// can go to the spool, are cut apart and have stamps of their own, so that neither has to wait for the other.
type part struct {
	index int
	logs  cutter
	wire  cutter
}

// partitionOf spreads keys over n partitions.
func partitionOf(key string, n int) int {
	hi, _ := bits.Mul64(xxh3.HashString(key), uint64(n))
	return int(hi)
}

// A cutter gathers the events of many lanes into batches.
type cutter struct {
	s      *Shipper
	index  int  // among all cutters
	wire   bool // else: with a journal
	room   *room
	stream *stream

	mu     sync.Mutex
	batch  *batch // nil: empty
	queue  []*batch
	pumped bool // the pump is at the first of the queue
	timer  *time.Timer
	closed bool
	kick   chan struct{} // to the pump: queue or window have changed
}

// add puts e, which it then owns, into the batch. False: the shipper is closed.
func (c *cutter) add(l *lane, e *pipeline.Event, m collector.Mark) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		pipeline.ReleaseEvent(e)
		return false
	}
	d := dataset(e)
	c.put(l, e, m)
	c.mu.Unlock()
	c.s.books.read[d].Add(1)
	pipeline.ReleaseEvent(e)
	return true
}

// tryAdd is add for what was counted as read already.
func (c *cutter) tryAdd(l *lane, e *pipeline.Event) bool {
	c.mu.Lock()
	ok := !c.closed
	if ok {
		ok = c.put(l, e, collector.Mark{})
	} else {
		c.s.books.gone[dropClosed][dataset(e)].Add(1)
		l.skip()
	}
	c.mu.Unlock()
	pipeline.ReleaseEvent(e)
	return ok
}

// put encodes e into the batch, or a new one if that is full; false: it fits into none, which is counted. c.mu is held.
func (c *cutter) put(l *lane, e *pipeline.Event, m collector.Mark) bool {
	b := c.open()
	err := b.add(e, c.s.cfg.BatchBytes)
	if errors.Is(err, errFull) {
		c.cut()
		b = c.open()
		err = b.add(e, c.s.cfg.BatchBytes)
	}
	if err != nil {
		c.s.books.gone[dropTooLarge][dataset(e)].Add(1)
		if m.At > 0 {
			l.number.Store(m.At)
		} else {
			l.skip()
		}
		return false
	}
	if !l.marked || m.At > 0 { // an event without a mark on a lane with marks is not followed
		p := l.portion(c, b)
		if m.At == 0 {
			m.At = l.number.Load() + 1
		}
		p.mark = m
		p.count++
		l.number.Store(m.At)
	}
	if c.wire && l.sealed.Load() {
		b.sealed.Store(true)
	}
	c.charge(b)
	if b.events >= c.s.cfg.BatchEvents || len(b.buf) >= c.s.cfg.BatchBytes {
		c.cut()
	}
	return true
}

func (c *cutter) charge(b *batch) {
	c.room.add(len(b.buf) - b.charged)
	b.charged = len(b.buf)
}

// open gives the batch that is being filled.
func (c *cutter) open() *batch {
	if c.batch == nil {
		c.batch = newBatch()
		c.batch.born = time.Now().UnixNano()
		if c.timer == nil {
			c.timer = time.AfterFunc(c.s.cfg.Linger, c.lingered)
		} else {
			c.timer.Reset(c.s.cfg.Linger)
		}
	}
	return c.batch
}

// lingered cuts a batch that nothing has filled for long enough.
func (c *cutter) lingered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.batch == nil || c.batch.events == 0 || c.closed {
		return
	}
	if !c.wire && !c.batch.sealed.Load() && !c.stream.open() { // Kafka is away: a batch that grows is better than many that wait
		c.timer.Reset(c.s.cfg.Linger)
		return
	}
	if left := c.s.cfg.Linger - time.Duration(time.Now().UnixNano()-c.batch.born); left > 0 {
		c.timer.Reset(left)
		return
	}
	c.cut()
}

// cut hands the batch on: of the wire at once, with lines of files when the journal has it. c.mu is held.
func (c *cutter) cut() {
	b := c.batch
	if b == nil || b.events == 0 {
		return
	}
	c.batch = nil
	if c.wire {
		c.stream.add(b, waiting)
		return
	}
	c.queue = append(c.queue, b)
	c.wakePump()
}

func (c *cutter) wakePump() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// stopTaking cuts what there is and takes nothing more.
func (c *cutter) stopTaking() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
	c.closed = true
}

// pump stamps batches with lines of files, writes them to the journal and hands them to the stream, one after the other, as far
// as the window reaches.
func (c *cutter) pump() {
	for {
		select {
		case <-c.kick:
		case <-c.s.ctx.Done():
			return
		}
		for c.stream.open() {
			c.mu.Lock()
			if len(c.queue) == 0 {
				c.mu.Unlock()
				break
			}
			b := c.queue[0]
			c.pumped = true
			c.mu.Unlock()
			sent := c.send(b)
			c.mu.Lock()
			c.pumped = false
			if !sent {
				c.mu.Unlock()
				return
			}
			c.queue[0] = nil
			c.queue = c.queue[1:]
			c.mu.Unlock()
			c.s.changed()
		}
	}
}

// send journals b until that succeeds: what the journal does not know is not produced, since after a kill it would be shipped twice.
// False: the shipper ends.
func (c *cutter) send(b *batch) bool {
	seq := c.stream.draw(b)
	c.charge(b)
	for {
		err := c.s.journal.batch(b, stampKey{c.stream.boot, c.stream.partition, seq}, time.Now().UnixNano())
		c.s.disk(&c.s.books.journalErr, "journal", err)
		if err == nil {
			c.stream.push(b, seq)
			return true
		}
		if !c.s.sleep(diskRetry) {
			return false
		}
	}
}

// waiting counts the events that the stream has not got yet.
func (c *cutter) waiting() (n uint64) {
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

// rescue moves batches with lines that can not be read again, for which the window has no stamp, over to the wire, from where
// they can go to the spool. The journal learns of them under their new stamps.
func (c *cutter) rescue(now bool) {
	if !now && c.stream.open() {
		return
	}
	for {
		b := c.takeSealed()
		if b == nil {
			return
		}
		w := &c.s.everyPart()[c.index/2].wire
		c.room.free(b.charged)
		w.room.add(b.charged)
		it := w.stream.add(b, spilling)
		it.lines = true
		err := c.s.journal.batch(b, it.key(w.stream), time.Now().UnixNano())
		c.s.disk(&c.s.books.journalErr, "journal", err)
		if err != nil {
			w.stream.remove(it)
			w.room.free(b.charged)
			c.room.add(b.charged)
			c.mu.Lock()
			c.queue = append(c.queue, b) // a stamp that comes later replaces the one that it has now
			c.mu.Unlock()
			return
		}
		w.stream.ready(it)
	}
}

// takeSealed takes a batch out of the queue, but not the first while the pump is at it.
func (c *cutter) takeSealed() *batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := 0
	if c.pumped {
		first = 1
	}
	for i := first; i < len(c.queue); i++ {
		if b := c.queue[i]; b.sealed.Load() {
			c.queue = append(c.queue[:i:i], c.queue[i+1:]...)
			return b
		}
	}
	return nil
}
