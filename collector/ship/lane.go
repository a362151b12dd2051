package ship

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A lane is what a source ships on. Its owner's goroutine fills portions of batches with it; whoever learns that a batch is safe
// finishes them. Events of the wire are numbered 1, 2, 3, …, those of a file by their marks.
type lane struct {
	s    *Shipper
	name string
	id   uint32 // in the journal, 0 until it stands there; guarded by the journal

	// Of the owner's goroutine.
	marked         bool
	partition      *partition // of a lane with marks: all its events go to one partition, that of the first
	openRanges     []openRange
	owner          *pipeline.Container // whose partition is ownerPart
	partitions     *[]*partition       // of which it is one
	ownerPartition *partition

	lastEnd    atomic.Int64 // of the last event that was handed over
	unpassed   atomic.Int32 // portions of an earlier life that have not been passed
	lastActive atomic.Int64 // when the owner was last heard of, while ahead > 0
	blocked    atomic.Bool  // the owner waits for room
	sourceGone atomic.Bool
	gone       chan struct{} // closed by Seal: who waits for room among the logs leaves
	opened     atomic.Bool
	orphan     bool // its name has come to mean another file

	mu     sync.Mutex
	ranges []*batchRange        // by after; those that are safe leave from the front
	safe   collector.Checkpoint // everything up to here is safe
	known  bool                 // safe says something: the lane is not new
	closed bool
	keep   bool
	seen   int64 // when it was last open, s since 1970
}

// openRange remembers which portion of which batch a lane filled last in a cutter.
type openRange struct {
	batch      uint64
	batchRange *batchRange
}

var _ collector.Lane = (*lane)(nil)

// Ship hands over the event that ends at m and waits while there is no room. Marks grow; an event at or before one that was
// handed over already, in this life or, as the journal says, safely in an earlier one, is taken for a repeat and only counted. With the
// zero Mark the event has no place in a file: it is numbered like those of TryShip, waits for room, and is not in the journal.
func (l *lane) Ship(ctx context.Context, e *pipeline.Event, m collector.Checkpoint) (uint64, error) {
	s := l.s
	if s.closing.Load() {
		pipeline.ReleaseEvent(e)
		return 0, ErrClosed
	}
	if m.End <= 0 {
		return l.shipUnmarked(ctx, e)
	}
	if !l.marked {
		l.mu.Lock() // others look at it too
		l.marked = true
		l.mu.Unlock()
	}
	if m.End <= l.lastEnd.Load() {
		return l.countReread(e, m.End)
	}
	if l.unpassed.Load() > 0 && l.replayEvent(e, m) {
		return uint64(m.End), nil
	}
	if l.partition == nil {
		l.partition = l.partitionOf(e)
	}
	c, err := l.waitForBatcher(ctx)
	if err != nil {
		pipeline.ReleaseEvent(e)
		return 0, err
	}
	if !c.addFileEvent(l, e, m) {
		return 0, ErrClosed
	}
	return uint64(m.End), nil
}

// waitForBatcher waits for room where lines go: among the logs or, once they can not be read again, among what the spool takes.
func (l *lane) waitForBatcher(ctx context.Context) (*batcher, error) {
	if !l.sourceGone.Load() {
		if err := l.waitForBudget(ctx, &l.partition.files); !errors.Is(err, errSourceGone) {
			return &l.partition.files, err
		}
	}
	return &l.partition.packets, l.waitForBudget(ctx, &l.partition.packets)
}

func (l *lane) shipUnmarked(ctx context.Context, e *pipeline.Event) (uint64, error) {
	c := &l.partitionOf(e).packets
	if err := l.waitForBudget(ctx, c); err != nil {
		pipeline.ReleaseEvent(e)
		return 0, err
	}
	if !c.addFileEvent(l, e, collector.Checkpoint{}) {
		return 0, ErrClosed
	}
	return uint64(l.lastEnd.Load()), nil
}

// waitForBudget waits for room in c. In the room of the wire what can wait leaves the upper half to what cannot.
func (l *lane) waitForBudget(ctx context.Context, c *batcher) error {
	limit := c.budget.limit()
	if c.packets {
		limit /= 2
	}
	if c.budget.used.Load() < limit {
		return nil
	}
	l.blocked.Store(true)
	defer func() {
		l.lastActive.Store(time.Now().UnixNano())
		l.blocked.Store(false)
	}()
	sealing := l.gone
	if c.packets {
		sealing = nil
	}
	return c.budget.waitBelow(ctx, l.s.stop, sealing, limit)
}

// TryShip hands over an event of the wire, or sheds it and says false.
func (l *lane) TryShip(e *pipeline.Event) bool {
	s := l.s
	d := dataset(e)
	s.counters.read[d].Add(1)
	if s.closing.Load() {
		s.counters.discarded[dropClosed][d].Add(1)
		l.skip()
		pipeline.ReleaseEvent(e)
		return false
	}
	if sheds(e, s.packetBudget.used.Load(), s.packetBudget.limit()) {
		s.counters.discarded[s.shedReason()][d].Add(1)
		l.skip()
		pipeline.ReleaseEvent(e)
		return false
	}
	return l.partitionOf(e).packets.addPacketEvent(l, e)
}

// skip gives a number to an event that was dropped.
func (l *lane) skip() {
	if !l.marked {
		l.lastEnd.Add(1)
	}
}

// partitionOf is where e belongs: the events of a container are always in one partition.
func (l *lane) partitionOf(e *pipeline.Event) *partition {
	parts := l.s.partitions.Load()
	if l.ownerPartition == nil || l.partitions != parts || l.owner != e.Container {
		key := l.s.hostID
		if e.Container != nil {
			key = e.Container.Id
		}
		l.partitions, l.owner, l.ownerPartition = parts, e.Container, (*parts)[partitionFor(key, len(*parts))]
	}
	return l.ownerPartition
}

func (l *lane) countReread(e *pipeline.Event, at int64) (uint64, error) {
	l.s.counters.reread[dataset(e)].Add(1)
	pipeline.ReleaseEvent(e)
	return uint64(at), nil
}

// Acked is the number up to which everything is safe or was dropped.
func (l *lane) Acked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.ranges {
		if !p.done {
			return uint64(min(p.after, l.lastEnd.Load()))
		}
	}
	return uint64(l.lastEnd.Load())
}

// Resume tells up to where everything is safe.
func (l *lane) Resume() (collector.Checkpoint, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.safe, l.known
}

// SourceGone tells that what was shipped can not be read again.
func (l *lane) SourceGone() {
	l.mu.Lock()
	if !l.sourceGone.Swap(true) && l.gone != nil {
		close(l.gone)
	}
	for _, p := range l.ranges {
		if p.batch != nil {
			p.batch.sourceGone.Store(true)
		}
	}
	l.mu.Unlock()
	l.s.requestMaintenance()
}

// Close tells that no more comes. A file that is not kept is not there any more: its lines can not be read again.
func (l *lane) Close(keep bool) {
	l.mu.Lock()
	l.closed, l.keep, l.seen = true, keep, time.Now().Unix()
	l.mu.Unlock()
	l.opened.Store(false)
	if !keep {
		l.SourceGone()
		l.abandonReplay()
	}
	l.s.dropFinishedLane(l)
}

// rangeIn finds the portion of b that an event of number at continues, or begins one. The batch's cutter is locked.
func (l *lane) rangeIn(c *batcher, b *batch) *batchRange {
	if n := c.index + 1 - len(l.openRanges); n > 0 {
		l.openRanges = append(l.openRanges, make([]openRange, n)...)
	}
	o := &l.openRanges[c.index]
	number := l.lastEnd.Load()
	if o.batch == b.id && (!l.marked || o.batchRange.checkpoint.End == number) {
		return o.batchRange
	}
	p := &batchRange{lane: l, batch: b, after: number}
	b.ranges = append(b.ranges, p)
	l.mu.Lock()
	l.insertRange(p)
	l.mu.Unlock()
	*o = openRange{batch: b.id, batchRange: p}
	return p
}

// insertRange puts p in its place; l.mu is held.
func (l *lane) insertRange(p *batchRange) {
	i := len(l.ranges)
	for i > 0 && l.ranges[i-1].after > p.after {
		i--
	}
	l.ranges = slices.Insert(l.ranges, i, p)
}

func (l *lane) removeRange(p *batchRange) {
	if i := slices.Index(l.ranges, p); i >= 0 {
		l.ranges = slices.Delete(l.ranges, i, i+1)
	}
}

// finishRange tells that what p holds is safe or was lost and counted; over: that was the last of a lane that is closed.
func (l *lane) finishRange(p *batchRange) (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.done, p.batch = true, nil
	l.advance()
	return (l.closed || l.orphan) && len(l.ranges) == 0
}

// advance lets what is safe leave from the front; l.mu is held. What is safe behind something that is not stays, and so does a
// portion of an earlier life that the owner has yet to read past: its place in the list is how its lines are known.
func (l *lane) advance() {
	n := 0
	for n < len(l.ranges) && l.mayLeave(l.ranges[n]) {
		if p := l.ranges[n]; p.checkpoint.End > l.safe.End {
			l.safe = p.checkpoint
		}
		n++
	}
	if l.marked && n > 0 {
		l.known = true
	}
	l.ranges = slices.Delete(l.ranges, 0, n)
}

func (l *lane) mayLeave(p *batchRange) bool {
	switch {
	case !p.done:
		return false
	case p.replay == nil:
		return true
	case l.s == nil: // the journal is being read
		return p.after <= l.safe.End
	}
	return p.replay.passed
}

// appendState writes what the journal has to know of l.
func (l *lane) appendState(b []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	if l.opened.Load() {
		seen = time.Now().Unix()
	}
	b = appendRecord(b, &record{kind: recLane, lane: l.id, seen: seen, name: l.name})
	one := func(kind byte, p rangeRecord) {
		b = appendRecord(b, &record{kind: kind, lane: l.id, ranges: []rangeRecord{p}})
	}
	if l.known {
		one(recMark, rangeRecord{checkpoint: l.safe})
	}
	for _, p := range l.ranges {
		if p.done {
			one(recDone, rangeRecord{after: p.after, checkpoint: p.checkpoint})
		}
	}
	return b
}
