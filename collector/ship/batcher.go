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

// A partition is one partition of the events topic. Lines of files and packets are gathered in separate
// batches with separate sequences, so that neither waits for a gap in the sequence of the other: batches of
// files are written to the journal before they are produced, batches of packets can go to the spool.
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

// A batcher gathers the events of many producers into the batches of one partition.
type batcher struct {
	shipper   *Shipper
	partition *partition
	packets   bool // its batches hold packets; otherwise lines of files, which go through the journal
	budget    *byteBudget
	sender    *sender
	wake      chan struct{} // wakes journalBatches: the queue or the window has changed

	mu        sync.Mutex
	open      *batch   // the batch that is being filled; nil: none
	queue     []*batch // of files: full batches that are not in the journal yet
	headTaken bool     // journalBatches works on the first of the queue
	linger    *time.Timer
	closed    bool
}

// addFileEvent puts e, of which it takes ownership, into a batch. It reports false if the shipper is closed.
func (b *batcher) addFileEvent(f *fileProducer, event *pipeline.Event, checkpoint collector.Checkpoint) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		pipeline.ReleaseEvent(event)
		return false
	}
	index := dataset(event)
	if target := b.encode(event); target != nil {
		f.extendRange(target, checkpoint)
		b.closeIfFull()
	}
	f.lastEnd = checkpoint.End
	b.mu.Unlock()
	b.shipper.counters.read[index].Add(1)
	pipeline.ReleaseEvent(event)
	return true
}

// addPacketEvent puts e, of which it takes ownership, into a batch. It reports false if e was dropped: the
// shipper is closed, or e is too large. The caller has counted e as read.
func (b *batcher) addPacketEvent(event *pipeline.Event) bool {
	b.mu.Lock()
	added := false
	if b.closed {
		b.shipper.counters.discarded[dropClosed][dataset(event)].Add(1)
	} else if b.encode(event) != nil {
		added = true
		b.closeIfFull()
	}
	b.mu.Unlock()
	pipeline.ReleaseEvent(event)
	return added
}

// encode appends e to the open batch, or to a new one if e does not fit, and returns the batch. It returns
// nil when e is larger than a batch, and counts that. b.mu must be held.
func (b *batcher) encode(event *pipeline.Event) *batch {
	// An event that does not fit closes the batch, unless it is the first: then it fits into none.
	target := b.openBatch()
	err := target.addEvent(event, int(b.shipper.cfg.BatchBytes))
	if errors.Is(err, errFull) {
		b.closeBatch()
		target = b.openBatch()
		err = target.addEvent(event, int(b.shipper.cfg.BatchBytes))
	}
	if err != nil {
		b.shipper.counters.discarded[dropTooLarge][dataset(event)].Add(1)
		return nil
	}
	b.charge(target)
	return target
}

// charge counts the bytes that were added to target since the last call.
func (b *batcher) charge(target *batch) {
	b.budget.charge(len(target.buf) - target.charged)
	target.charged = len(target.buf)
}

// openBatch returns the batch that is being filled. b.mu must be held.
func (b *batcher) openBatch() *batch {
	if b.open == nil {
		b.open = newBatch()
		b.open.openedAt = time.Now().UnixNano()
		if b.linger == nil {
			b.linger = time.AfterFunc(b.shipper.cfg.Linger, b.closeLingering)
		} else {
			b.linger.Reset(b.shipper.cfg.Linger)
		}
	}
	return b.open
}

// closeIfFull closes the open batch at its limits. b.mu must be held.
func (b *batcher) closeIfFull() {
	cfg := &b.shipper.cfg
	if b.open.events >= cfg.BatchEvents || len(b.open.buf) >= int(cfg.BatchBytes) {
		b.closeBatch()
	}
}

// closeLingering closes the open batch when its first event has waited for the linger time.
func (b *batcher) closeLingering() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil || b.open.events == 0 || b.closed {
		return
	}

	// While Kafka is unavailable one batch that grows is better than many small ones that wait.
	linger := b.shipper.cfg.Linger
	if !b.packets && !b.open.unreadable.Load() && !b.sender.windowOpen() {
		b.linger.Reset(linger)
		return
	}

	// The timer may have been set for a batch that was full before.
	if left := linger - time.Duration(time.Now().UnixNano()-b.open.openedAt); left > 0 {
		b.linger.Reset(left)
		return
	}
	b.closeBatch()
}

// closeBatch hands the open batch on: one of packets to the sender, one of files to the queue of the journal.
// b.mu must be held.
func (b *batcher) closeBatch() {
	full := b.open
	if full == nil || full.events == 0 {
		return
	}
	b.open = nil
	if b.packets {
		b.sender.addPacketBatch(full, stateReady)
		return
	}
	b.queue = append(b.queue, full)
	b.wakeJournaling()
}

func (b *batcher) wakeJournaling() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// closeInput closes the open batch and takes nothing more.
func (b *batcher) closeInput() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closeBatch()
	b.closed = true
}

// journalBatches numbers the batches of the queue, writes them to the journal and gives them to the sender,
// one after the other, as far as the window reaches. It runs in a goroutine of its own, for batchers of files
// only.
func (b *batcher) journalBatches() {
	for {
		select {
		case <-b.wake:
		case <-b.shipper.ctx.Done():
			return
		}

		// Batches stay in the queue while the window is closed: a batch without a sequence can still move to
		// the spool.
		for b.sender.windowOpen() {
			next := b.takeHead()
			if next == nil {
				break
			}
			if !b.journalBatch(next) {
				return
			}
			b.removeHead()
			b.shipper.signalProgress()
		}
	}
}

// takeHead returns the first batch of the queue, which stays there and which moveUnreadable leaves alone.
func (b *batcher) takeHead() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil
	}
	b.headTaken = true
	return b.queue[0]
}

func (b *batcher) removeHead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.headTaken = false
	b.queue[0] = nil
	b.queue = b.queue[1:]
}

// journalBatch writes full to the journal until that succeeds and gives it to the sender. A batch that the
// journal does not know is not produced, since a killed process would then ship it twice. It reports false if
// the shipper ends before.
func (b *batcher) journalBatch(full *batch) bool {
	// The header that carries the sequence makes the batch longer.
	sequence := b.sender.nextSequence(full)
	b.charge(full)
	id := batchID{Epoch: b.sender.epoch, Partition: b.sender.partition, Sequence: sequence}
	for b.shipper.journal.Append(full.journaled(id)) != nil {
		if !b.shipper.sleep(diskRetry) {
			b.mu.Lock()
			b.headTaken = false
			b.mu.Unlock()
			return false
		}
	}
	b.sender.addFileBatch(full, sequence)
	return true
}

// bufferedEvents returns how many events the sender has not been given yet.
func (b *batcher) bufferedEvents() (n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open != nil {
		n += uint64(b.open.events)
	}
	for _, full := range b.queue {
		n += uint64(full.events)
	}
	return n
}

// moveUnreadable moves batches with lines that cannot be read again, and for which the window has no
// sequence, to the sender of packets, from where they can go to the spool. The journal learns of them under
// their new ids. always moves them also while the window is open.
func (b *batcher) moveUnreadable(always bool) {
	if !always && b.sender.windowOpen() {
		return
	}
	packets := &b.partition.packets
	for {
		full := b.takeUnreadable()
		if full == nil {
			return
		}
		b.budget.refund(full.charged)
		packets.budget.charge(full.charged)

		// The batch takes its place in the sequence now and is sent when the journal knows it.
		pending := packets.sender.addPacketBatch(full, stateSpilling)
		pending.journaled = true
		if b.shipper.journal.Append(full.journaled(pending.id(packets.sender))) == nil {
			packets.sender.makeReady(pending)
			continue
		}

		// The batch goes back to the queue. An id that it gets later replaces the one that it has now: the
		// header that is appended last counts.
		packets.sender.remove(pending)
		packets.budget.refund(full.charged)
		b.budget.charge(full.charged)
		b.mu.Lock()
		b.queue = append(b.queue, full)
		b.mu.Unlock()
		return
	}
}

// takeUnreadable takes a batch with lines that cannot be read again out of the queue, except for the one that
// journalBatches works on.
func (b *batcher) takeUnreadable() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := 0
	if b.headTaken { // it may have its sequence already
		first = 1
	}
	for position := first; position < len(b.queue); position++ {
		if full := b.queue[position]; full.unreadable.Load() {
			b.queue = append(b.queue[:position:position], b.queue[position+1:]...)
			return full
		}
	}
	return nil
}
