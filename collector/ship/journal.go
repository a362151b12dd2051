package ship

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// refreshEvery is how old the times may be at which the journal says that files were last seen.
const refreshEvery = time.Hour

// compactAt is the size at which the journal is written anew, or twice what it then comes to.
const compactAt = 4 << 20

// A journal is the file that lets a killed collector cut the same batches again. Before a batch with lines of files is produced, it
// says which lines of which file went into it and what its stamp is; when the batch is safe, it says that.
//
// An ack that cannot be written is not an error: the batch is then cut and produced again under the stamp that its reader knows.
// A batch that cannot be written is not produced.
type journal struct {
	name string
	sync bool
	wrap func(journalFile) journalFile // tests let the disk be full

	mu      sync.Mutex
	file    journalFile
	size    int64             // of what is whole; bytes behind it are overwritten
	limit   int64             // compact when size has passed it
	next    uint32            // number for the next lane
	lanes   map[uint32]*lane  // that have a number
	pending map[stampKey]*jot // batches that are not safe
	parts   int
	closed  bool
	fresh   time.Time // when it was last written anew
	buf     []byte
	written atomic.Int64
}

// A jot is a batch of the journal that is not safe yet, as its record has it.
type jot struct {
	stamp    stampKey
	portions []entryPortion
}

// journalFile is what a journal needs of an *os.File; tests let the disk be full.
type journalFile interface {
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// readJournal gives the bytes of the journal that an earlier life left, none if there was none.
func readJournal(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, "journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return b, nil
}

// open begins to write: what is still of use is put into a new file that takes the place of the old one.
func (j *journal) open(dir string) error {
	j.name = filepath.Join(dir, "journal")
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.compact()
}

// compact writes the journal anew. j.mu is held.
func (j *journal) compact() error {
	text := j.snapshot()
	tmp := j.name + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = os.Rename(tmp, j.name)
	}
	if err != nil {
		f.Close()
		os.Remove(tmp)
		return fmt.Errorf("write journal: %w", err)
	}
	if j.sync {
		syncDir(filepath.Dir(j.name))
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size = f, int64(len(text))
	if j.wrap != nil {
		j.file = j.wrap(f)
	}
	j.limit, j.fresh = max(compactAt, 2*j.size), time.Now()
	j.written.Store(j.size)
	return nil
}

func (j *journal) snapshot() []byte {
	b := []byte(journalMagic)
	if j.parts > 0 {
		b = appendRecord(b, &entry{kind: recPartitions, n: j.parts})
	}
	for _, l := range j.lanes {
		b = l.appendState(b)
	}
	for _, p := range j.pending {
		b = appendRecord(b, &entry{kind: recBatch, stamp: p.stamp, portions: p.portions})
	}
	return b
}

// refresh writes the journal anew when that was long ago.
func (j *journal) refresh(now time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.file == nil || now.Sub(j.fresh) < refreshEvery {
		return nil
	}
	j.fresh = now
	return j.compact()
}

// write appends records, all or none. j.mu is held.
func (j *journal) write(records []byte) error {
	if j.closed {
		return fs.ErrClosed
	}
	if j.file == nil { // the disk was full when we started
		if err := j.compact(); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteAt(records, j.size); err != nil {
		j.file.Truncate(j.size) // if that fails too, what stands there is overwritten, or found torn
		return fmt.Errorf("write journal %s: %w", j.name, err)
	}
	if j.sync {
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("sync journal %s: %w", j.name, err)
		}
	}
	j.size += int64(len(records))
	j.written.Store(j.size)
	if j.size > j.limit {
		if err := j.compact(); err != nil {
			j.limit = 2 * j.size // what was written stands; the next attempt is later
		}
	}
	return nil
}

// batch writes what b holds, under its stamp. Only when it returns nil may b be produced.
func (j *journal) batch(b *batch, stamp stampKey, now int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = j.buf[:0]
	p := &jot{stamp: stamp, portions: make([]entryPortion, 0, len(b.portions))}
	var fresh []*lane
	for _, q := range b.portions {
		l := q.lane
		if l.id == 0 {
			l.id = j.next
			j.next++
		}
		if j.lanes[l.id] == nil {
			j.lanes[l.id] = l
			fresh = append(fresh, l)
			j.buf = appendRecord(j.buf, &entry{kind: recLane, lane: l.id, seen: now / 1e9, name: l.name})
		}
		p.portions = append(p.portions, entryPortion{lane: l.id, after: q.after, mark: q.mark, count: q.count})
	}
	j.buf = appendRecord(j.buf, &entry{kind: recBatch, stamp: stamp, portions: p.portions})
	j.pending[stamp] = p // before it is written, since writing may compact
	err := j.write(j.buf)
	if err != nil {
		delete(j.pending, stamp)
		for _, l := range fresh {
			delete(j.lanes, l.id)
		}
	}
	return err
}

// ack tells that a batch is safe.
func (j *journal) ack(stamp stampKey) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pending[stamp] == nil {
		return nil
	}
	delete(j.pending, stamp)
	return j.write(appendRecord(j.buf[:0], &entry{kind: recAck, stamp: stamp}))
}

// shrink tells that what l still lacks of a portion will not come.
func (j *journal) shrink(stamp stampKey, l *lane, p *portion) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := entryPortion{lane: l.id, after: p.after, mark: p.mark, count: p.count}
	if b := j.pending[stamp]; b != nil {
		for i := range b.portions {
			if q := &b.portions[i]; q.lane == l.id && q.after == p.after {
				*q = kept
			}
		}
	}
	return j.write(appendRecord(j.buf[:0], &entry{kind: recShrink, stamp: stamp, portions: []entryPortion{kept}}))
}

// forget tells that a lane is over and nothing of it is missing.
func (j *journal) forget(l *lane) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l.id == 0 || j.lanes[l.id] != l {
		return nil
	}
	delete(j.lanes, l.id)
	return j.write(appendRecord(j.buf[:0], &entry{kind: recForget, lane: l.id}))
}

// partitions remembers how many partitions the topic has, for a start without Kafka.
func (j *journal) partitions(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.parts == n {
		return nil
	}
	j.parts = n
	return j.write(appendRecord(j.buf[:0], &entry{kind: recPartitions, n: n}))
}

func (j *journal) bytes() int64 { return j.written.Load() }

// close ends writing; flush: what was written survives a power cut.
func (j *journal) close(flush bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.file == nil {
		return nil
	}
	var err error
	if flush {
		err = j.file.Sync()
	}
	err = errors.Join(err, j.file.Close())
	j.file = nil
	return err
}

func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

// past is what the journal of an earlier life says.
type past struct {
	lanes   map[uint32]*lane
	names   map[string]*lane // the lane that a name meant last
	batches map[stampKey]*pastBatch
	parts   int
	next    uint32 // above every number of a lane
	damaged int
}

type pastBatch struct {
	stamp    stampKey
	portions []*portion
}

// replay reads a journal. Whatever the bytes are, it gives a past that can be resumed.
func replay(b []byte) *past {
	p := &past{lanes: map[uint32]*lane{}, names: map[string]*lane{}, batches: map[stampKey]*pastBatch{}, next: 1}
	if len(bytes.TrimLeft(b, "\x00")) == 0 {
		return p
	}
	p.damaged = readRecords(b, p.apply)
	return p
}

func (p *past) apply(e *entry) {
	switch e.kind {
	case recLane:
		p.lane(e)
	case recMark:
		if l := p.lanes[e.lane]; l != nil && e.portions[0].mark.At >= l.safe.At {
			l.safe, l.known = e.portions[0].mark, true
			l.advance()
		}
	case recDone:
		if l := p.lanes[e.lane]; l != nil {
			l.insert(&portion{lane: l, after: e.portions[0].after, mark: e.portions[0].mark, done: true, again: &again{}})
			l.advance()
		}
	case recBatch:
		p.batch(e)
	case recAck:
		if b := p.batches[e.stamp]; b != nil {
			delete(p.batches, e.stamp)
			for _, q := range b.portions {
				q.done = true
				q.lane.advance()
			}
		}
	case recShrink:
		p.shrink(e)
	case recForget:
		p.forget(e.lane)
	case recPartitions:
		p.parts = min(e.n, maxPartitions)
	}
}

func (p *past) lane(e *entry) {
	if e.lane == 0 || e.lane == 1<<32-1 || p.lanes[e.lane] != nil {
		return
	}
	l := &lane{id: e.lane, name: e.name, seen: e.seen, marked: true}
	if was := p.names[e.name]; was != nil {
		was.orphan = true // the name came to mean another file
	}
	p.lanes[e.lane], p.names[e.name] = l, l
	p.next = max(p.next, e.lane+1)
}

func (p *past) forget(id uint32) {
	l := p.lanes[id]
	if l == nil {
		return
	}
	delete(p.lanes, id)
	if p.names[l.name] == l {
		delete(p.names, l.name)
	}
	l.orphan = true // should a batch still name it
}

func (p *past) batch(e *entry) {
	if p.batches[e.stamp] != nil { // written twice, because the first time was thought to have failed
		return
	}
	b := &pastBatch{stamp: e.stamp}
	for _, q := range e.portions {
		l := p.lanes[q.lane]
		if l == nil {
			continue // its record was damaged: nobody can say which file it was
		}
		n := &portion{lane: l, after: q.after, mark: q.mark, count: q.count, again: &again{}}
		l.known = true
		l.insert(n)
		b.portions = append(b.portions, n)
	}
	p.batches[e.stamp] = b
}

func (p *past) shrink(e *entry) {
	b := p.batches[e.stamp]
	if b == nil {
		return
	}
	for _, q := range b.portions {
		if q.lane.id == e.portions[0].lane && q.after == e.portions[0].after {
			q.mark, q.count = e.portions[0].mark, e.portions[0].count
			if q.count == 0 {
				q.lane.remove(q)
			}
		}
	}
}
