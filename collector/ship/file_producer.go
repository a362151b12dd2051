package ship

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/pipeline"
)

// A fileState is the state of a fileProducer; the package comment draws the transitions.
type fileState int32

const (
	fileIdle    fileState = iota // not open; the file may exist: from the journal, or closed with keep
	fileOpen                     // its owner reads it
	fileGone                     // its owner reads it, and it has no name any more: it cannot be opened again
	fileMissing                  // not open, and a complete listing of the files did not contain it
	fileClosed                   // nobody will read it again, or its name means another file now
)

// A fileProducer ships the lines of one file. Its owner's goroutine assigns the lines to batches; the
// goroutine that learns that a batch is safe finishes the ranges of the batch.
type fileProducer struct {
	shipper *Shipper
	name    string
	id      journal.FileID

	// Used by the owner's goroutine only.
	router         partitionCache
	partition      *partition // all lines of a file go to one partition, that of the first
	currentRange   *batchRange
	currentBatchID uint64 // id of the batch that current is in
	lastEnd        int64  // End of the last event that was handed over
	rangeEnd       int64  // where the next range begins: ranges leave no gap, except for lines of recovered ones

	state          atomic.Int32 // a fileState; written under mu
	unpassedRanges atomic.Int32 // recovered ranges that the owner has not read past
	lastActive     atomic.Int64 // when the owner last called, in ns, while unpassed > 0
	blocked        atomic.Bool  // the owner waits for memory

	mu            sync.Mutex
	ranges        []*batchRange        // ordered by after; finished ones leave at the front
	checkpoint    collector.Checkpoint // everything up to here is safe
	hasCheckpoint bool                 // checkpoint is meaningful: the file is not new
	gone          chan struct{}        // closed by SourceGone: the owner stops waiting for the files' budget
}

var _ collector.FileProducer = (*fileProducer)(nil)

func newFileProducer(s *Shipper, name string, id journal.FileID) *fileProducer {
	return &fileProducer{
		shipper: s, name: name, id: id, router: partitionCache{shipper: s}, gone: make(chan struct{}),
	}
}

func (f *fileProducer) inState(state fileState) bool { return fileState(f.state.Load()) == state }

// setState changes the state; f.mu must be held.
func (f *fileProducer) setState(state fileState) { f.state.Store(int32(state)) }

// reopen makes f the producer of an owner that begins to read. It reports false if f is closed for good: its
// name then means another file. The shipper's lock is held.
func (f *fileProducer) reopen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch fileState(f.state.Load()) {
	case fileClosed:
		return false
	case fileIdle, fileMissing:
		f.setState(fileOpen)
		f.gone = make(chan struct{})
	}
	f.lastActive.Store(time.Now().UnixNano())
	return true
}

// Ship hands over the event that ends at c and waits while memory is short. An event at or before an End that
// was shipped already, by this process or safely by an earlier one, is counted as read again and dropped.
func (f *fileProducer) Ship(ctx context.Context, event *pipeline.Event, checkpoint collector.Checkpoint) error {
	if f.shipper.closing.Load() {
		pipeline.ReleaseEvent(event)
		return ErrClosed
	}

	// 1. A line that is safe, or that belongs to a batch of an earlier process, is not new.
	if checkpoint.End <= f.lastEnd {
		f.dropReread(event)
		return nil
	}
	if f.unpassedRanges.Load() > 0 && f.replayEvent(event, checkpoint) {
		return nil
	}

	// 2. All lines of a file go to one partition, so that their order is kept, whatever becomes of the topic.
	if f.partition == nil {
		f.partition = f.router.partitionOf(event)
	}

	// 3. Wait without a lock, and then add: the budget may be exceeded by one event of each producer.
	target, err := f.waitForBatcher(ctx)
	if err != nil {
		pipeline.ReleaseEvent(event)
		return err
	}
	if !target.addFileEvent(f, event, checkpoint) {
		return ErrClosed
	}
	return nil
}

// waitForBatcher waits for memory and returns the batcher for the next line: the partition's batcher for
// files or, once the file cannot be read again, the one whose batches may go to the spool.
func (f *fileProducer) waitForBatcher(ctx context.Context) (*batcher, error) {
	if !f.inState(fileGone) {
		files := &f.partition.files
		if err := f.waitForBudget(ctx, files.budget, files.budget.limit(), f.gone); !errors.Is(err, errSourceGone) {
			return files, err
		}
	}
	// A file can wait and packets cannot, so lines take only the lower half of the packets' budget.
	packets := &f.partition.packets
	return packets, f.waitForBudget(ctx, packets.budget, packets.budget.limit()/2, nil)
}

// waitForBudget waits until less than limit of budget is used, or until gone is closed (errSourceGone).
func (f *fileProducer) waitForBudget(ctx context.Context, budget *byteBudget, limit int64,
	gone <-chan struct{},
) error {
	if budget.used.Load() < limit {
		return nil
	}
	f.blocked.Store(true)
	defer func() {
		f.lastActive.Store(time.Now().UnixNano())
		f.blocked.Store(false)
	}()
	return budget.waitBelow(ctx, f.shipper.stop, gone, limit)
}

// dropReread drops an event that is safe already.
func (f *fileProducer) dropReread(e *pipeline.Event) {
	f.shipper.counters.reread[datasetIndex(e)].Add(1)
	pipeline.ReleaseEvent(e)
}

// Resume returns the checkpoint up to which everything is safe.
func (f *fileProducer) Resume() (collector.Checkpoint, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkpoint, f.hasCheckpoint
}

// SourceGone lets the batches with lines of f go to the spool.
func (f *fileProducer) SourceGone() {
	f.mu.Lock()
	if f.inState(fileOpen) {
		f.setState(fileGone)
	}
	f.markUnreadable()
	f.mu.Unlock()
	f.shipper.requestMaintenance()
}

// markUnreadable marks the batches that hold lines of f; f.mu must be held.
func (f *fileProducer) markUnreadable() {
	select {
	case <-f.gone:
	default:
		close(f.gone)
	}
	for _, r := range f.ranges {
		if r.batch != nil {
			r.batch.unreadable.Store(true)
		}
	}
}

// Close ends the owner's use of f. A file that is not kept does not exist any more: its lines cannot be read
// again, and none will come for the batches of an earlier process.
func (f *fileProducer) Close(keep bool) {
	f.mu.Lock()
	if keep {
		f.setState(fileIdle)
	} else {
		f.setState(fileClosed)
		f.markUnreadable()
	}
	f.mu.Unlock()
	if !keep {
		f.shipper.requestMaintenance()
		f.abandonReplay()
	}
	f.shipper.dropFinishedFile(f)
}

// extendRange adds the event that ends at c to the range of f in b, which is made if need be. The batcher of
// b is locked.
func (f *fileProducer) extendRange(b *batch, checkpoint collector.Checkpoint) {
	// The batch behind current may have been recycled since and be in use again, so its id decides.
	if f.currentRange == nil || f.currentBatchID != b.id {
		f.currentRange, f.currentBatchID = f.newRange(b), b.id
	}
	f.currentRange.end = checkpoint
	f.currentRange.count++
	f.rangeEnd = checkpoint.End
}

// newRange begins a range of f in b.
func (f *fileProducer) newRange(b *batch) *batchRange {
	r := &batchRange{file: f, batch: b, after: f.rangeEnd}
	b.ranges = append(b.ranges, r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.insertRange(r)
	if !f.inState(fileOpen) { // SourceGone came after the batcher was chosen
		b.unreadable.Store(true)
	}
	return r
}

// skipTo records that the owner has read lines up to end that belong to no new range.
func (f *fileProducer) skipTo(end int64) {
	f.currentRange = nil
	f.lastEnd, f.rangeEnd = end, end
}

// insertRange puts r in its place; f.mu must be held.
func (f *fileProducer) insertRange(r *batchRange) {
	// New ranges belong at the end; only recovered ones may begin behind them.
	position := len(f.ranges)
	for position > 0 && f.ranges[position-1].after > r.after {
		position--
	}
	f.ranges = slices.Insert(f.ranges, position, r)
}

// removeRange takes r out of the list; f.mu must be held.
func (f *fileProducer) removeRange(r *batchRange) {
	if i := slices.Index(f.ranges, r); i >= 0 {
		f.ranges = slices.Delete(f.ranges, i, i+1)
	}
}

// finishRange records that the lines of r are safe, or lost and counted. It reports whether f can be dropped.
func (f *fileProducer) finishRange(r *batchRange) (droppable bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.done, r.batch = true, nil
	f.advanceCheckpoint()
	return f.droppable()
}

// droppable reports whether nobody will read f again and nothing of it is unfinished; f.mu must be held.
func (f *fileProducer) droppable() bool {
	return (f.inState(fileClosed) || f.inState(fileMissing)) && len(f.ranges) == 0
}

// advanceCheckpoint removes finished ranges from the front and moves the checkpoint; f.mu must be held. A
// finished range stays while an earlier one is unfinished. It also stays while it was recovered from the
// journal and the owner has not read past it: its position is how its lines are recognised when they are read
// again.
func (f *fileProducer) advanceCheckpoint() {
	// Invariant: every line up to the checkpoint is safe, or lost and counted. Ranges leave in order, so the
	// checkpoint never skips an unfinished one.
	finished := 0
	for finished < len(f.ranges) && f.ranges[finished].isRemovable() {
		if r := f.ranges[finished]; r.end.End > f.checkpoint.End {
			f.checkpoint = r.end
		}
		finished++
	}
	if finished > 0 {
		f.hasCheckpoint = true
	}
	f.ranges = slices.Delete(f.ranges, 0, finished)
}
