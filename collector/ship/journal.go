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
)

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
	size    int64                       // of what is whole; bytes behind it are overwritten
	limit   int64                       // compact when size has passed it
	next    uint32                      // number for the next lane
	lanes   map[uint32]*fileProducer    // that have a number
	pending map[batchID]*journaledBatch // batches that are not safe
	parts   int
	closed  bool
	buf     []byte
	written atomic.Int64
}

// A journaledBatch is a batch of the journal that is not safe yet, as its record has it.
type journaledBatch struct {
	id     batchID
	ranges []rangeRecord
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
	j.limit = max(compactAt, 2*j.size)
	j.written.Store(j.size)
	return nil
}

func (j *journal) snapshot() []byte {
	b := []byte(journalMagic)
	if j.parts > 0 {
		b = appendRecord(b, &record{kind: recPartitions, n: j.parts})
	}
	for _, l := range j.lanes {
		b = l.appendState(b)
	}
	for _, p := range j.pending {
		b = appendRecord(b, &record{kind: recBatch, batch: p.id, ranges: p.ranges})
	}
	return b
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
func (j *journal) batch(b *batch, stamp batchID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = j.buf[:0]
	p := &journaledBatch{id: stamp, ranges: make([]rangeRecord, 0, len(b.ranges))}
	var fresh []*fileProducer
	for _, q := range b.ranges {
		l := q.file
		if l.id == 0 {
			l.id = j.next
			j.next++
		}
		if j.lanes[l.id] == nil {
			j.lanes[l.id] = l
			fresh = append(fresh, l)
			j.buf = appendRecord(j.buf, &record{kind: recLane, lane: l.id, name: l.name})
		}
		p.ranges = append(p.ranges, rangeRecord{lane: l.id, after: q.after, checkpoint: q.end, count: q.count})
	}
	j.buf = appendRecord(j.buf, &record{kind: recBatch, batch: stamp, ranges: p.ranges})
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
func (j *journal) ack(stamp batchID) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pending[stamp] == nil {
		return nil
	}
	delete(j.pending, stamp)
	return j.write(appendRecord(j.buf[:0], &record{kind: recAck, batch: stamp}))
}

// shrink tells that what l still lacks of a portion will not come.
func (j *journal) shrink(stamp batchID, l *fileProducer, p *batchRange) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	kept := rangeRecord{lane: l.id, after: p.after, checkpoint: p.end, count: p.count}
	if b := j.pending[stamp]; b != nil {
		for i := range b.ranges {
			if q := &b.ranges[i]; q.lane == l.id && q.after == p.after {
				*q = kept
			}
		}
	}
	return j.write(appendRecord(j.buf[:0], &record{kind: recShrink, batch: stamp, ranges: []rangeRecord{kept}}))
}

// forget tells that a lane is over and nothing of it is missing.
func (j *journal) forget(l *fileProducer) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l.id == 0 || j.lanes[l.id] != l {
		return nil
	}
	delete(j.lanes, l.id)
	return j.write(appendRecord(j.buf[:0], &record{kind: recForget, lane: l.id}))
}

// partitions remembers how many partitions the topic has, for a start without Kafka.
func (j *journal) partitions(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.parts == n {
		return nil
	}
	j.parts = n
	return j.write(appendRecord(j.buf[:0], &record{kind: recPartitions, n: n}))
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

// recoveredJournal is what the journal of an earlier life says.
type recoveredJournal struct {
	lanes   map[uint32]*fileProducer
	names   map[string]*fileProducer // the lane that a name meant last
	batches map[batchID]*recoveredBatch
	parts   int
	next    uint32 // above every number of a lane
	damaged int
}

type recoveredBatch struct {
	id     batchID
	ranges []*batchRange
}

// replay reads a journal. Whatever the bytes are, it gives a past that can be resumed.
func replay(b []byte) *recoveredJournal {
	p := &recoveredJournal{lanes: map[uint32]*fileProducer{}, names: map[string]*fileProducer{}, batches: map[batchID]*recoveredBatch{}, next: 1}
	if len(bytes.TrimLeft(b, "\x00")) == 0 {
		return p
	}
	p.damaged = readRecords(b, p.apply)
	return p
}

func (p *recoveredJournal) apply(e *record) {
	switch e.kind {
	case recLane:
		p.lane(e)
	case recMark:
		if l := p.lanes[e.lane]; l != nil && e.ranges[0].checkpoint.End >= l.checkpoint.End {
			l.checkpoint, l.known = e.ranges[0].checkpoint, true
			l.advance()
		}
	case recDone:
		if l := p.lanes[e.lane]; l != nil {
			l.insertRange(&batchRange{file: l, after: e.ranges[0].after, end: e.ranges[0].checkpoint, done: true, replay: &rangeReplay{}})
			l.advance()
		}
	case recBatch:
		p.batch(e)
	case recAck:
		if b := p.batches[e.batch]; b != nil {
			delete(p.batches, e.batch)
			for _, q := range b.ranges {
				q.done = true
				q.file.advance()
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

func (p *recoveredJournal) lane(e *record) {
	if e.lane == 0 || e.lane == 1<<32-1 || p.lanes[e.lane] != nil {
		return
	}
	l := &fileProducer{id: e.lane, name: e.name}
	if was := p.names[e.name]; was != nil {
		was.setState(fileClosed) // the name came to mean another file
	}
	p.lanes[e.lane], p.names[e.name] = l, l
	p.next = max(p.next, e.lane+1)
}

func (p *recoveredJournal) forget(id uint32) {
	l := p.lanes[id]
	if l == nil {
		return
	}
	delete(p.lanes, id)
	if p.names[l.name] == l {
		delete(p.names, l.name)
	}
	l.setState(fileClosed) // should a batch still name it
}

func (p *recoveredJournal) batch(e *record) {
	if p.batches[e.batch] != nil { // written twice, because the first time was thought to have failed
		return
	}
	b := &recoveredBatch{id: e.batch}
	for _, q := range e.ranges {
		l := p.lanes[q.lane]
		if l == nil {
			continue // its record was damaged: nobody can say which file it was
		}
		n := &batchRange{file: l, after: q.after, end: q.checkpoint, count: q.count, replay: &rangeReplay{}}
		l.known = true
		l.insertRange(n)
		b.ranges = append(b.ranges, n)
	}
	p.batches[e.batch] = b
}

func (p *recoveredJournal) shrink(e *record) {
	b := p.batches[e.batch]
	if b == nil {
		return
	}
	for _, q := range b.ranges {
		if q.file.id == e.ranges[0].lane && q.after == e.ranges[0].after {
			q.end, q.count = e.ranges[0].checkpoint, e.ranges[0].count
			if q.count == 0 {
				q.file.removeRange(q)
			}
		}
	}
}
