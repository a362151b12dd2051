package ship

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// A segment of the spool is records one behind the other: a head, which has a CRC of its own so that what a damaged record held can
// still be counted, and the batch as it is produced.
//
//	magic 4, boot 8, partition 4, sequence 8, wire 1, events by dataset 10 × 4, length 4, CRC-32C of the batch 4, CRC-32C of the head 4
const (
	spoolMagic   = "TGB1"
	spoolHead    = 4 + 8 + 4 + 8 + 1 + 4*datasets + 4 + 4 + 4
	maxSpoolItem = 4 << 20
	segmentBytes = 8 << 20
)

var (
	errSpoolFull = errors.New("the spool is full, events of the wire are shed")
	errDamaged   = errors.New("the batch is damaged")
)

// lost tells that a batch cannot be read from the spool, now or later.
func lost(err error) bool { return errors.Is(err, errDamaged) }

// A spool keeps batches that cannot be cut again while Kafka is away, in segment files up to a number of bytes. When it is full,
// what comes is refused: what is in it was promised to be safe, and the lanes then shed in their declared order.
type spool struct {
	dir   string
	limit int64
	sync  bool
	wrap  func(spoolFile) spoolFile // tests let the disk be full

	mu     sync.Mutex
	active *segment
	next   int
	closed bool
	buf    []byte
	total  atomic.Int64
	state  atomic.Int32 // how the last append went
}

// The values of spool.state.
const (
	spoolOpen = iota
	spoolFull
	spoolFailed
)

type spoolFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

type segment struct {
	name string
	file spoolFile
	size int64
	live int // items that are not done
}

// A spoolRef is where a batch lies in the spool.
type spoolRef struct {
	segment *segment
	at      int64 // of the batch, behind its head
	n       int
	crc     uint32
}

// A spoolHeader is a batch of an earlier life.
type spoolHeader struct {
	stamp  batchID
	wire   bool
	counts datasetCounts
	n      int
	crc    uint32
	whole  bool // else the file ends before it does
}

// openSpool reads what earlier lives left in dir and calls each with it, in the order in which it was written.
func openSpool(dir string, limit int64, sync bool, each func(spoolHeader, spoolRef)) (s *spool, damaged int64, err error) {
	s = &spool{dir: dir, limit: limit, sync: sync, next: 1}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("make spool: %w", err)
	}
	names, err := s.names()
	if err != nil {
		return nil, 0, fmt.Errorf("read spool: %w", err)
	}
	for _, n := range names {
		s.next = n + 1
		d, err := s.load(filepath.Join(dir, fmt.Sprintf("%08d.seg", n)), each)
		if err != nil {
			return nil, damaged, fmt.Errorf("read spool: %w", err)
		}
		damaged += d
	}
	return s, damaged, nil
}

func (s *spool) names() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), ".seg")
		if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 && e.Type().IsRegular() {
			numbers = append(numbers, n)
		}
	}
	slices.SortFunc(numbers, cmp.Compare)
	return numbers, nil
}

func (s *spool) load(name string, each func(spoolHeader, spoolRef)) (damaged int64, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return 0, err
	}
	seg := &segment{name: name, file: f, size: info.Size()}
	damaged = scanSegment(f, seg.size, func(at int64, b spoolHeader) {
		if b.whole {
			seg.live++
		}
		each(b, spoolRef{segment: seg, at: at, n: b.n, crc: b.crc})
	})
	s.total.Add(seg.size)
	if seg.live == 0 {
		s.remove(seg)
	}
	return damaged, nil
}

// scanSegment calls each with every batch of a segment, as its head has it, and tells how many bytes are of none.
func scanSegment(r io.ReaderAt, size int64, each func(at int64, b spoolHeader)) (damaged int64) {
	head := make([]byte, spoolHead)
	for at := int64(0); at < size; {
		n, _ := r.ReadAt(head[:min(spoolHead, size-at)], at)
		if b, ok := parseHead(head[:n]); ok {
			at += spoolHead
			b.whole = int64(b.n) <= size-at
			each(at, b)
			if !b.whole {
				return damaged + size - at
			}
			at += int64(b.n)
			continue
		}
		next := nextMagic(r, at+1, size)
		damaged += next - at
		at = next
	}
	return damaged
}

// nextMagic finds where a record may begin, at or behind at; size if nowhere.
func nextMagic(r io.ReaderAt, at, size int64) int64 {
	buf := make([]byte, 64<<10)
	for at < size {
		n, _ := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if n < len(spoolMagic) {
			return size
		}
		if i := bytes.Index(buf[:n], []byte(spoolMagic)); i >= 0 {
			return at + int64(i)
		}
		at += int64(n - len(spoolMagic) + 1)
	}
	return size
}

func appendSpoolHead(b []byte, f *spoolHeader) []byte {
	at := len(b)
	b = append(b, spoolMagic...)
	b = binary.LittleEndian.AppendUint64(b, f.stamp.epoch)
	b = binary.LittleEndian.AppendUint32(b, f.stamp.partition)
	b = binary.LittleEndian.AppendUint64(b, f.stamp.sequence)
	wire := byte(0)
	if f.wire {
		wire = 1
	}
	b = append(b, wire)
	for _, n := range f.counts {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(f.n))
	b = binary.LittleEndian.AppendUint32(b, f.crc)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

func parseHead(b []byte) (f spoolHeader, ok bool) {
	if len(b) < spoolHead || string(b[:4]) != spoolMagic {
		return f, false
	}
	le := binary.LittleEndian
	if crc32.Checksum(b[:spoolHead-4], castagnoli) != le.Uint32(b[spoolHead-4:]) {
		return f, false
	}
	f.stamp = batchID{le.Uint64(b[4:]), le.Uint32(b[12:]), le.Uint64(b[16:])}
	f.wire = b[24] == 1
	for i := range f.counts {
		f.counts[i] = le.Uint32(b[25+4*i:])
	}
	f.n = int(le.Uint32(b[25+4*datasets:]))
	f.crc = le.Uint32(b[29+4*datasets:])
	return f, f.n <= maxSpoolItem && f.stamp.partition < maxPartitions
}

// append writes a batch; when it returns nil, a killed process does not lose it.
func (s *spool) append(stamp batchID, wire bool, counts *datasetCounts, batch []byte) (spoolRef, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.write(&spoolHeader{stamp: stamp, wire: wire, counts: *counts, n: len(batch), crc: crc32.Checksum(batch, castagnoli)}, batch)
	switch {
	case err == nil:
		s.state.Store(spoolOpen)
	case errors.Is(err, errSpoolFull):
		s.state.Store(spoolFull)
	default:
		s.state.Store(spoolFailed)
	}
	return p, err
}

func (s *spool) write(f *spoolHeader, batch []byte) (spoolRef, error) {
	if s.closed {
		return spoolRef{}, fs.ErrClosed
	}
	s.buf = append(appendSpoolHead(s.buf[:0], f), batch...)
	n := int64(len(s.buf))
	if s.total.Load()+n > s.limit {
		return spoolRef{}, errSpoolFull
	}
	if s.active == nil || s.active.size+n > segmentBytes && s.active.size > 0 {
		if err := s.begin(); err != nil {
			return spoolRef{}, err
		}
	}
	seg := s.active
	if _, err := seg.file.WriteAt(s.buf, seg.size); err != nil {
		seg.file.Truncate(seg.size)
		return spoolRef{}, fmt.Errorf("write spool %s: %w", seg.name, err)
	}
	if s.sync {
		if err := seg.file.Sync(); err != nil {
			return spoolRef{}, fmt.Errorf("sync spool %s: %w", seg.name, err)
		}
	}
	p := spoolRef{segment: seg, at: seg.size + spoolHead, n: len(batch), crc: f.crc}
	seg.size += n
	seg.live++
	s.total.Add(n)
	return p, nil
}

// begin opens the next segment.
func (s *spool) begin() error {
	name := filepath.Join(s.dir, fmt.Sprintf("%08d.seg", s.next))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	s.next++
	if old := s.active; old != nil && old.live == 0 {
		s.remove(old)
	}
	s.active = &segment{name: name, file: f}
	if s.wrap != nil {
		s.active.file = s.wrap(f)
	}
	return nil
}

// read gives a batch.
func (s *spool) read(p spoolRef) ([]byte, error) {
	b := make([]byte, p.n)
	if _, err := p.segment.file.ReadAt(b, p.at); err != nil {
		if errors.Is(err, fs.ErrClosed) {
			return nil, err
		}
		return nil, fmt.Errorf("read spool %s: %w: %w", p.segment.name, errDamaged, err)
	}
	if crc32.Checksum(b, castagnoli) != p.crc {
		return nil, fmt.Errorf("read spool %s: %w", p.segment.name, errDamaged)
	}
	return b, nil
}

// release tells that the batch at p is no longer needed. A segment goes with its last.
func (s *spool) release(p spoolRef) {
	if p.segment == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.segment.live--
	if p.segment.live == 0 && !s.closed {
		s.remove(p.segment)
	}
}

// remove deletes a segment; s.mu is held.
func (s *spool) remove(seg *segment) {
	seg.file.Close()
	os.Remove(seg.name)
	s.total.Add(-seg.size)
	if s.active == seg {
		s.active = nil
	}
}

func (s *spool) bytes() int64 {
	if s == nil {
		return 0
	}
	return s.total.Load()
}

// close ends writing; flush: what was written survives a power cut. Segments of others are read by nobody any more.
func (s *spool) close(flush bool, segments map[*segment]bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.active != nil {
		segments[s.active] = true
	}
	var err error
	for seg := range segments {
		if flush {
			err = errors.Join(err, seg.file.Sync())
		}
		err = errors.Join(err, seg.file.Close())
	}
	return err
}
