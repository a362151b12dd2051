package ship

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/pipeline"
)

// A fileState is the state of a fileProducer; the package comment draws the transitions.
type fileState int32

const (
	fileIdle    fileState = iota // not open; the file may exist: recovered from the journal, or closed with keep
	fileOpen                     // its owner reads it
	fileGone                     // its owner reads it; its name was removed, so it cannot be opened again
	fileMissing                  // not open, and a complete listing of the files did not contain it
	fileClosed                   // it will not be read again, or a newer file has its name
)

// A fileProducer ships the lines of one file. Its owner's goroutine adds the lines to batches. The goroutine
// of the sender or the spool that confirms a batch finishes the ranges of the batch.
type fileProducer struct {
	shipper *Shipper
	name    string
	id      journal.FileID

	// Used by the owner's goroutine only.
	router         partitionCache
	partition      *partition  // the partition of the first line, to which all lines of the file go
	currentRange   *batchRange // the range to which the next line is added, if its batch is still open
	currentBatchID uint64      // id of the batch of currentRange
	lastEnd        int64       // End of the last event that was shipped
	rangeEnd       int64       // start of the next range; new ranges leave gaps only where recovered ranges are

	state          atomic.Int32  // a fileState; written under mu
	unpassedRanges atomic.Int32  // recovered ranges that the owner has not read past
	activity       atomic.Uint64 // counts the owner's calls while unpassedRanges > 0
	blocked        atomic.Bool   // the owner waits for memory

	mu            sync.Mutex
	ranges        []*batchRange        // ordered by after; finished ones are removed at the front
	checkpoint    collector.Checkpoint // everything up to here is safe
	hasCheckpoint bool                 // checkpoint is set: the file is not new
	gone          chan struct{}        // closed by SourceGone: the owner stops waiting for the files' budget
	idle          idleTime             // how long the owner has not called although it could
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

// reopen makes f the producer of an owner that begins to read. It returns false if f is closed for good: the
// name then means another file. The shipper's lock must be held.
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
	f.activity.Add(1)
	return true
}

// Wait waits while memory is short, unless the line that ends at checkpoint is one that was read again or may
// be.
func (f *fileProducer) Wait(ctx context.Context, container *pipeline.Container, checkpoint collector.Checkpoint) error {
	if f.shipper.closing.Load() || checkpoint.End <= f.lastEnd || f.unpassedRanges.Load() > 0 {
		return nil
	}
	_, err := f.waitForBatcher(ctx, container)
	return err
}

// choosePartition sets the partition of f by its first line. All lines of a file go to one partition, so that
// their order is kept also when partitions are added. Where the topic lost the partition, the next lines go
// to another one.
func (f *fileProducer) choosePartition(container *pipeline.Container) {
	if f.partition == nil || f.shipper.isMissing(f.partition.index) {
		f.partition = f.router.partitionOf(container)
	}
}

// Ship ships event, which ends at checkpoint, and waits while memory is short. An event that this process has
// shipped before, or that is safe since an earlier process, is counted as read again and dropped.
func (f *fileProducer) Ship(ctx context.Context, event *pipeline.Event, checkpoint collector.Checkpoint) error {
	if f.shipper.closing.Load() {
		pipeline.ReleaseEvent(event)
		return ErrClosed
	}

	// 1. Lines that were read again do not go into new batches.
	if checkpoint.End <= f.lastEnd {
		f.dropReread(event)
		return nil
	}
	if f.unpassedRanges.Load() > 0 && f.replayEvent(event, checkpoint) {
		return nil
	}

	// 2. Wait for memory without a lock, then add the event. Producers that stop waiting together exceed the
	// budget by at most one event each.
	target, err := f.waitForBatcher(ctx, event.Container)
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
// files or, if the file cannot be read again, the batcher for packets, whose batches may go to the spool.
func (f *fileProducer) waitForBatcher(ctx context.Context, container *pipeline.Container) (*batcher, error) {
	f.choosePartition(container)
	for !f.inState(fileGone) {
		files := &f.partition.files
		err := f.waitForBudget(ctx, files.budget, files.budget.limit(), f.gone)
		if errors.Is(err, errSourceGone) {
			break
		}
		if !errors.Is(err, errAbandoned) {
			return files, err
		}
		f.choosePartition(container)
	}
	// Lines can wait and packets cannot, so lines use only the lower half of the packets' budget.
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
	defer f.blocked.Store(false)
	return budget.waitBelow(ctx, f.shipper.stop, gone, limit)
}

// dropReread drops an event that was shipped before and counts it.
func (f *fileProducer) dropReread(event *pipeline.Event) {
	f.shipper.counters.reread[datasetIndex(event)].Add(1)
	pipeline.ReleaseEvent(event)
}

// Resume returns the checkpoint up to which all lines are safe, with the sample of the last line that was
// shipped; false: f has none.
func (f *fileProducer) Resume() (collector.Checkpoint, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	checkpoint := f.checkpoint
	for _, lines := range f.ranges {
		if lines.end.Sample.Size > 0 {
			checkpoint.Sample = lines.end.Sample
		}
	}
	return checkpoint, f.hasCheckpoint
}

// SourceGone records that the file cannot be read again. Batches with its lines may go to the spool from now
// on.
func (f *fileProducer) SourceGone() {
	f.mu.Lock()
	if f.inState(fileOpen) {
		f.setState(fileGone)
	}
	f.markUnreadable()
	f.mu.Unlock()
	f.shipper.requestMaintenance()
}

// markUnreadable marks the batches that hold lines of f as unreadable and ends the wait for the files'
// budget. f.mu must be held.
func (f *fileProducer) markUnreadable() {
	select {
	case <-f.gone:
	default:
		close(f.gone)
	}
	for _, lines := range f.ranges {
		if lines.batch != nil {
			lines.batch.unreadable.Store(true)
		}
	}
}

// Close ends the owner's use of f. Without keep the file does not exist any more: its lines cannot be read
// again, so that batches of an earlier process need not wait for them.
func (f *fileProducer) Close(keep bool) {
	f.mu.Lock()
	f.activity.Add(1) // the file may be opened again: the time until then begins now
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

// extendRange adds the event that ends at checkpoint to the range of f in target, and makes the range if
// there is none. The batcher of target is locked.
func (f *fileProducer) extendRange(target *batch, checkpoint collector.Checkpoint) {
	// The ids are compared, not the pointers: the memory of an earlier batch may have been reused for target.
	if f.currentRange == nil || f.currentBatchID != target.id {
		f.currentRange, f.currentBatchID = f.newRange(target), target.id
	}
	f.currentRange.end = checkpoint
	f.currentRange.count++
	f.rangeEnd = checkpoint.End
}

// newRange begins a range of f in target.
func (f *fileProducer) newRange(target *batch) *batchRange {
	created := &batchRange{file: f, batch: target, after: f.rangeEnd}
	target.ranges = append(target.ranges, created)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.insertRange(created)
	if !f.inState(fileOpen) { // SourceGone was called after the batcher was chosen
		target.unreadable.Store(true)
	}
	return created
}

// skipTo records that the owner has read lines up to end which were not added to a new range.
func (f *fileProducer) skipTo(end int64) {
	f.currentRange = nil
	f.lastEnd, f.rangeEnd = end, end
}

// insertRange inserts r into the list of ranges, in order; f.mu must be held.
func (f *fileProducer) insertRange(r *batchRange) {
	// The search starts at the end: a new range begins behind all others, except for recovered ones.
	position := len(f.ranges)
	for position > 0 && f.ranges[position-1].after > r.after {
		position--
	}
	f.ranges = slices.Insert(f.ranges, position, r)
}

// removeRange removes r from the list of ranges; f.mu must be held.
func (f *fileProducer) removeRange(r *batchRange) {
	if i := slices.Index(f.ranges, r); i >= 0 {
		f.ranges = slices.Delete(f.ranges, i, i+1)
	}
}

// finishRange records that the lines of r are safe, or lost and counted. It returns whether f can be dropped.
func (f *fileProducer) finishRange(r *batchRange) (droppable bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.done, r.batch = true, nil
	f.advanceCheckpoint()
	f.joinFinished(r)
	return f.droppable()
}

// joinFinished replaces r and the finished ranges that touch it by one: behind a batch that waits for long,
// the list would grow with every batch. f.mu must be held.
func (f *fileProducer) joinFinished(r *batchRange) {
	position := slices.Index(f.ranges, r)
	if position < 0 || r.replay != nil {
		return
	}
	first, behind := position, position+1
	if first > 0 && f.ranges[first-1].touches(r) {
		first--
	}
	if behind < len(f.ranges) && r.touches(f.ranges[behind]) {
		behind++
	}
	if behind-first == 1 {
		return
	}
	joined := &batchRange{file: f, after: f.ranges[first].after, end: f.ranges[behind-1].end, done: true}
	for _, lines := range f.ranges[first:behind] {
		joined.count += lines.count
	}
	f.ranges = slices.Replace(f.ranges, first, behind, joined)
}

// droppable reports whether f will not be read again and has no unfinished range; f.mu must be held.
func (f *fileProducer) droppable() bool {
	return (f.inState(fileClosed) || f.inState(fileMissing)) && len(f.ranges) == 0
}

// advanceCheckpoint removes finished ranges from the front of the list and moves the checkpoint; f.mu must be
// held. A finished range stays while an earlier range is unfinished. A recovered range also stays until the
// owner has read past it: its offsets identify its lines when they are read again.
func (f *fileProducer) advanceCheckpoint() {
	// Invariant: every line up to the checkpoint is safe, or lost and counted. Ranges are removed in order,
	// so that the checkpoint never skips an unfinished range.
	finished := 0
	for finished < len(f.ranges) && f.ranges[finished].isRemovable() {
		if first := f.ranges[finished]; first.end.End > f.checkpoint.End {
			f.checkpoint = first.end
		}
		finished++
	}
	if finished > 0 {
		f.hasCheckpoint = true
	}
	f.ranges = slices.Delete(f.ranges, 0, finished)
}
