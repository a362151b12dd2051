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
	marked bool
	part   *part // of a lane with marks: all its events go to one partition, that of the first
	open   []openPortion
	owner  *pipeline.Container // whose partition is ownerPart
	parts  *[]*part            // of which it is one
	home   *part

	number  atomic.Int64 // of the last event that was handed over
	ahead   atomic.Int32 // portions of an earlier life that have not been passed
	touched atomic.Int64 // when the owner was last heard of, while ahead > 0
	blocked atomic.Bool  // the owner waits for room
	sealed  atomic.Bool
	sealing chan struct{} // closed by Seal: who waits for room among the logs leaves
	opened  atomic.Bool
	orphan  bool // its name has come to mean another file

	mu       sync.Mutex
	portions []*portion     // by after; those that are safe leave from the front
	safe     collector.Mark // everything up to here is safe
	known    bool           // safe says something: the lane is not new
	closed   bool
	keep     bool
	seen     int64 // when it was last open, s since 1970
}

// openPortion remembers which portion of which batch a lane filled last in a cutter.
type openPortion struct {
	batch uint64
	p     *portion
}

var _ collector.Lane = (*lane)(nil)

// Ship hands over the event that ends at m and waits while there is no room. Marks grow; an event at or before one that was
// handed over already, in this life or, as the journal says, safely in an earlier one, is taken for a repeat and only counted. With the
// zero Mark the event has no place in a file: it is numbered like those of TryShip, waits for room, and is not in the journal.
func (l *lane) Ship(ctx context.Context, e *pipeline.Event, m collector.Mark) (uint64, error) {
	s := l.s
	if s.closing.Load() {
		pipeline.ReleaseEvent(e)
		return 0, ErrClosed
	}
	if m.At <= 0 {
		return l.shipUnmarked(ctx, e)
	}
	if !l.marked {
		l.mu.Lock() // others look at it too
		l.marked = true
		l.mu.Unlock()
	}
	if m.At <= l.number.Load() {
		return l.repeat(e, m.At)
	}
	if l.ahead.Load() > 0 && l.recut(e, m) {
		return uint64(m.At), nil
	}
	if l.part == nil {
		l.part = l.partition(e)
	}
	c, err := l.marksTo(ctx)
	if err != nil {
		pipeline.ReleaseEvent(e)
		return 0, err
	}
	if !c.add(l, e, m) {
		return 0, ErrClosed
	}
	return uint64(m.At), nil
}

// marksTo waits for room where lines go: among the logs or, once they can not be read again, among what the spool takes.
func (l *lane) marksTo(ctx context.Context) (*cutter, error) {
	if !l.sealed.Load() {
		if err := l.wait(ctx, &l.part.logs); !errors.Is(err, errSealed) {
			return &l.part.logs, err
		}
	}
	return &l.part.wire, l.wait(ctx, &l.part.wire)
}

func (l *lane) shipUnmarked(ctx context.Context, e *pipeline.Event) (uint64, error) {
	c := &l.partition(e).wire
	if err := l.wait(ctx, c); err != nil {
		pipeline.ReleaseEvent(e)
		return 0, err
	}
	if !c.add(l, e, collector.Mark{}) {
		return 0, ErrClosed
	}
	return uint64(l.number.Load()), nil
}

// wait waits for room in c. In the room of the wire what can wait leaves the upper half to what cannot.
func (l *lane) wait(ctx context.Context, c *cutter) error {
	limit := c.room.limit()
	if c.wire {
		limit /= 2
	}
	if c.room.used.Load() < limit {
		return nil
	}
	l.blocked.Store(true)
	defer func() {
		l.touched.Store(time.Now().UnixNano())
		l.blocked.Store(false)
	}()
	sealing := l.sealing
	if c.wire {
		sealing = nil
	}
	return c.room.wait(ctx, l.s.stop, sealing, limit)
}

// TryShip hands over an event of the wire, or sheds it and says false.
func (l *lane) TryShip(e *pipeline.Event) bool {
	s := l.s
	d := dataset(e)
	s.books.read[d].Add(1)
	if s.closing.Load() {
		s.books.gone[dropClosed][d].Add(1)
		l.skip()
		pipeline.ReleaseEvent(e)
		return false
	}
	if sheds(e, s.wire.used.Load(), s.wire.limit()) {
		s.books.gone[s.whyShed()][d].Add(1)
		l.skip()
		pipeline.ReleaseEvent(e)
		return false
	}
	return l.partition(e).wire.tryAdd(l, e)
}

// skip gives a number to an event that was dropped.
func (l *lane) skip() {
	if !l.marked {
		l.number.Add(1)
	}
}

// partition is where e belongs: the events of a container are always in one partition.
func (l *lane) partition(e *pipeline.Event) *part {
	parts := l.s.parts.Load()
	if l.home == nil || l.parts != parts || l.owner != e.Container {
		key := l.s.hostID
		if e.Container != nil {
			key = e.Container.Id
		}
		l.parts, l.owner, l.home = parts, e.Container, (*parts)[partitionOf(key, len(*parts))]
	}
	return l.home
}

func (l *lane) repeat(e *pipeline.Event, at int64) (uint64, error) {
	l.s.books.resumed[dataset(e)].Add(1)
	pipeline.ReleaseEvent(e)
	return uint64(at), nil
}

// Acked is the number up to which everything is safe or was dropped.
func (l *lane) Acked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.portions {
		if !p.done {
			return uint64(min(p.after, l.number.Load()))
		}
	}
	return uint64(l.number.Load())
}

// Resume tells up to where everything is safe.
func (l *lane) Resume() (collector.Mark, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.safe, l.known
}

// Seal tells that what was shipped can not be read again.
func (l *lane) Seal() {
	l.mu.Lock()
	if !l.sealed.Swap(true) && l.sealing != nil {
		close(l.sealing)
	}
	for _, p := range l.portions {
		if p.batch != nil {
			p.batch.sealed.Store(true)
		}
	}
	l.mu.Unlock()
	l.s.kickJanitor()
}

// Close tells that no more comes. A file that is not kept is not there any more: its lines can not be read again.
func (l *lane) Close(keep bool) {
	l.mu.Lock()
	l.closed, l.keep, l.seen = true, keep, time.Now().Unix()
	l.mu.Unlock()
	l.opened.Store(false)
	if !keep {
		l.Seal()
		l.giveUp()
	}
	l.s.retire(l)
}

// portion finds the portion of b that an event of number at continues, or begins one. The batch's cutter is locked.
func (l *lane) portion(c *cutter, b *batch) *portion {
	if n := c.index + 1 - len(l.open); n > 0 {
		l.open = append(l.open, make([]openPortion, n)...)
	}
	o := &l.open[c.index]
	number := l.number.Load()
	if o.batch == b.id && (!l.marked || o.p.mark.At == number) {
		return o.p
	}
	p := &portion{lane: l, batch: b, after: number}
	b.portions = append(b.portions, p)
	l.mu.Lock()
	l.insert(p)
	l.mu.Unlock()
	*o = openPortion{batch: b.id, p: p}
	return p
}

// insert puts p in its place; l.mu is held.
func (l *lane) insert(p *portion) {
	i := len(l.portions)
	for i > 0 && l.portions[i-1].after > p.after {
		i--
	}
	l.portions = slices.Insert(l.portions, i, p)
}

func (l *lane) remove(p *portion) {
	if i := slices.Index(l.portions, p); i >= 0 {
		l.portions = slices.Delete(l.portions, i, i+1)
	}
}

// finish tells that what p holds is safe or was lost and counted; over: that was the last of a lane that is closed.
func (l *lane) finish(p *portion) (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.done, p.batch = true, nil
	l.advance()
	return (l.closed || l.orphan) && len(l.portions) == 0
}

// advance lets what is safe leave from the front; l.mu is held. What is safe behind something that is not stays, and so does a
// portion of an earlier life that the owner has yet to read past: its place in the list is how its lines are known.
func (l *lane) advance() {
	n := 0
	for n < len(l.portions) && l.leaves(l.portions[n]) {
		if p := l.portions[n]; p.mark.At > l.safe.At {
			l.safe = p.mark
		}
		n++
	}
	if l.marked && n > 0 {
		l.known = true
	}
	l.portions = slices.Delete(l.portions, 0, n)
}

func (l *lane) leaves(p *portion) bool {
	switch {
	case !p.done:
		return false
	case p.again == nil:
		return true
	case l.s == nil: // the journal is being read
		return p.after <= l.safe.At
	}
	return p.again.passed
}

// appendState writes what the journal has to know of l.
func (l *lane) appendState(b []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	if l.opened.Load() {
		seen = time.Now().Unix()
	}
	b = appendRecord(b, &entry{kind: recLane, lane: l.id, seen: seen, name: l.name})
	one := func(kind byte, p entryPortion) {
		b = appendRecord(b, &entry{kind: kind, lane: l.id, portions: []entryPortion{p}})
	}
	if l.known {
		one(recMark, entryPortion{mark: l.safe})
	}
	for _, p := range l.portions {
		if p.done {
			one(recDone, entryPortion{after: p.after, mark: p.mark})
		}
	}
	return b
}
