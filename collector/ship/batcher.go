package ship

import (
	"errors"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A partition is one partition of the events topic. Lines of files and packets are gathered in separate
// batches with separate sequences, so that neither waits for a gap in the sequence of the other. Batches of
// files are written to the journal before they are produced; batches of packets can go to the spool.
type partition struct {
	index   int
	files   batcher
	packets batcher
}

// partitionFor returns the partition of key, below count. The high word of hash * count is uniform and needs
// no division.
func partitionFor(key string, count int) int {
	hi, _ := bits.Mul64(xxh3.HashString(key), uint64(count))
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
	open      *batch   // the batch that is being filled, with at least one event; nil: none
	queue     []*batch // full batches of files that are not in the journal yet
	headTaken bool     // journalBatches works on queue[0]
	linger    *time.Timer
	closed    bool
}

// addFileEvent adds event, which ends at checkpoint in file, to the open batch. It takes ownership of event.
// It returns false if the shipper is closed.
func (b *batcher) addFileEvent(file *fileProducer, event *pipeline.Event, checkpoint collector.Checkpoint) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		pipeline.ReleaseEvent(event)
		return false
	}
	index := datasetIndex(event)
	if target := b.encode(event); target != nil {
		file.extendRange(target, checkpoint)
		b.closeIfFull()
	}
	// Also after an event that is too large: it must not be shipped again when its line is read again.
	file.lastEnd = checkpoint.End
	b.mu.Unlock()
	b.shipper.counters.read[index].Add(1)
	pipeline.ReleaseEvent(event)
	return true
}

// addPacketEvent adds event to the open batch and takes ownership of event. It returns false if event was
// dropped, because the shipper is closed or event is too large. The caller has counted event as read.
func (b *batcher) addPacketEvent(event *pipeline.Event) bool {
	b.mu.Lock()
	added := false
	if b.closed {
		b.shipper.counters.discarded[dropClosed][datasetIndex(event)].Add(1)
	} else if b.encode(event) != nil {
		added = true
		b.closeIfFull()
	}
	b.mu.Unlock()
	pipeline.ReleaseEvent(event)
	return added
}

// encode appends event to the open batch, or to a new one if it does not fit, and returns the batch. An event
// that is larger than a batch is counted as dropped, and encode returns nil. b.mu must be held.
func (b *batcher) encode(event *pipeline.Event) *batch {
	// An event that does not fit closes the batch and is tried again in an empty one. If it does not fit
	// there either, addEvent returns errTooLarge.
	target := b.openBatch()
	err := target.addEvent(event, int(b.shipper.cfg.BatchBytes))
	if errors.Is(err, errFull) {
		b.closeBatch()
		target = b.openBatch()
		err = target.addEvent(event, int(b.shipper.cfg.BatchBytes))
	}
	if err != nil {
		// An empty batch must not stay open: its timer ends with it, and the next event would wait until the
		// batch is full.
		if target.eventCount == 0 {
			b.open = nil
			target.recycle()
		}
		b.shipper.counters.discarded[dropTooLarge][datasetIndex(event)].Add(1)
		return nil
	}
	b.charge(target)
	return target
}

// charge charges to the budget by how much the buffer of target has grown since the last call.
func (b *batcher) charge(target *batch) {
	if grown := cap(target.buf) - target.charged; grown != 0 {
		b.budget.charge(grown)
		target.charged += grown
	}
}

// openBatch returns the batch that is being filled and starts a new one if there is none. b.mu must be held.
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

// closeIfFull closes the open batch when it has reached a limit. b.mu must be held.
func (b *batcher) closeIfFull() {
	cfg := &b.shipper.cfg
	if b.open.eventCount >= cfg.BatchEvents || len(b.open.buf) >= int(cfg.BatchBytes) || b.open.shared >= maxShared {
		b.closeBatch()
	}
}

// closeLingering closes the open batch when its first event has waited for the linger time.
func (b *batcher) closeLingering() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == nil {
		return
	}

	// While the window is closed, because Kafka is unavailable, one growing batch is better than many small
	// ones in the queue.
	linger := b.shipper.cfg.Linger
	if !b.packets && !b.open.unreadable.Load() && !b.sender.windowOpen() {
		b.linger.Reset(linger)
		return
	}

	// The timer may have been set for an earlier batch, which was closed because it was full.
	if left := linger - time.Duration(time.Now().UnixNano()-b.open.openedAt); left > 0 {
		b.linger.Reset(left)
		return
	}
	b.closeBatch()
}

// closeBatch passes the open batch on: a batch of packets to the sender, a batch of files to the queue of
// journalBatches. b.mu must be held.
func (b *batcher) closeBatch() {
	full := b.open
	if full == nil {
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

// wakeJournaling wakes journalBatches.
func (b *batcher) wakeJournaling() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// closeInput closes the open batch; later events are rejected.
func (b *batcher) closeInput() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closeBatch()
	b.closed = true
}

// journalBatches takes batches of files from the queue while the window is open. It sets the sequence of
// each, writes it to the journal and passes it to the sender. It runs in a goroutine of its own.
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
		}
	}
}

// takeHead returns the first batch of the queue, or nil. The batch stays in the queue, so that it is counted
// as buffered; headTaken keeps moveUnreadable from moving it.
func (b *batcher) takeHead() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 {
		return nil
	}
	b.headTaken = true
	return b.queue[0]
}

// removeHead removes the batch of takeHead from the queue, after the sender has taken it over.
func (b *batcher) removeHead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.headTaken = false
	b.queue = slices.Delete(b.queue, 0, 1)
}

// journalBatch sets the sequence of full, writes it to the journal and passes it to the sender. It repeats a
// write that failed: a batch that is not in the journal must not be produced, since its lines would be sent
// under another id after a crash. It returns false if the shipper ends before.
func (b *batcher) journalBatch(full *batch) bool {
	// nextSequence appends the header, which makes the batch longer.
	sequence := b.sender.nextSequence(full)
	b.charge(full)
	id := batchID{Epoch: b.sender.epoch, Partition: b.sender.partition, Sequence: sequence}
	for b.shipper.journal.Append(full.toJournal(id)) != nil {
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

// bufferedEvents returns the number of events in batches that the sender does not have yet.
func (b *batcher) bufferedEvents() (events uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open != nil {
		events += uint64(b.open.eventCount)
	}
	for _, full := range b.queue {
		events += uint64(full.eventCount)
	}
	return events
}

// moveUnreadable moves batches with lines that cannot be read again from the queue to the sender of packets,
// which can write them to the spool. It does so only while the window is closed, or in any case with always.
// The batches are recorded in the journal under their new ids.
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
		// The memory of the batch counts towards packets from here on.
		b.budget.refund(full.charged)
		packets.budget.charge(full.charged)

		// The batch gets its sequence now. stateSpilling keeps the sender from producing it before it is in
		// the journal.
		length := len(full.buf)
		pending := packets.sender.addPacketBatch(full, stateSpilling)
		pending.journaled = true
		if b.shipper.journal.Append(full.toJournal(pending.id(packets.sender))) == nil {
			packets.sender.makeReady(pending)
			continue
		}

		// The write failed: the batch goes back to the queue, without the header that addPacketBatch has
		// appended. The next attempt comes with the next maintenance.
		packets.sender.removeBatch(pending)
		full.buf = full.buf[:length]
		packets.budget.refund(full.charged)
		b.budget.charge(full.charged)
		b.mu.Lock()
		b.queue = append(b.queue, full)
		b.mu.Unlock()
		return
	}
}

// takeUnreadable removes one batch with lines that cannot be read again from the queue and returns it; nil:
// there is none. It skips the batch that journalBatches works on.
func (b *batcher) takeUnreadable() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := 0
	if b.headTaken { // the head may have its sequence already
		first = 1
	}
	for position := first; position < len(b.queue); position++ {
		if full := b.queue[position]; full.unreadable.Load() {
			b.queue = slices.Delete(b.queue, position, position+1)
			return full
		}
	}
	return nil
}
