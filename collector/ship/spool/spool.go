// Package spool keeps batches on disk while Kafka is unavailable. It is for batches that cannot be built
// again after a crash: packets, and lines of files that were removed.
//
// Append writes a batch and returns a Ref to it; the batch survives a killed process. Read returns the bytes
// of the batch, and Release removes it. Open finds the batches of earlier processes. Package ship is the only
// caller. The spool treats the content of a batch as opaque bytes.
//
// A spool is a folder of segment files. A segment grows to about 8 MiB and is deleted when all its batches
// were released. The segments together stay below a limit: a batch that does not fit is rejected, and no
// stored batch is deleted for it. A segment is a file of frames (package frame): each batch is a header frame
// and a batch frame.
//
// Batches that cannot be read (damaged, or of another version) are left out, counted and logged. Their
// segment is never deleted: when its readable batches were released, it is renamed to segment.unreadable and
// does not count towards the limit any more. The lock of a Spool is held during writes; no other lock is
// taken while it is held.
package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector/ship/frame"
	"tidegate/pipeline/logging"
)

const (
	magic   = "TGSPOL"
	version = 2

	kindHeader = 'H'
	kindBatch  = 'B'

	segmentSuffix    = ".seg"
	segmentBytes     = 8 << 20
	errorLogInterval = 30 * time.Second
)

var (
	// ErrFull is the error of Append when the batch does not fit into the spool.
	ErrFull = errors.New("the spool is full")

	// ErrDamaged is matched by the error of Read when the batch is damaged for good.
	ErrDamaged = frame.ErrDamaged
)

// A Condition is the result of the last Append.
type Condition int32

// The conditions of a spool.
const (
	Accepting Condition = iota
	Full
	Failing // the write failed
)

// A Ref is a reference to a batch in the spool. The zero Ref refers to no batch.
type Ref struct {
	segment *segment
	frame   frame.Frame
}

// Options are the settings of a Spool.
type Options struct {
	Limit int64 // maximum size of all segments together, in bytes; 0: batches are only read
	Sync  bool  // sync each batch, so that it survives a power cut and not only a killed process
	Log   *slog.Logger
	Wrap  func(frame.File) frame.File // wraps new files in tests that simulate a full disk; nil: not wrapped
}

// A Spool is an open spool. Its methods may be called by any goroutine.
type Spool struct {
	dir      string
	options  Options
	throttle *logging.Throttle

	total      atomic.Int64 // bytes of all segments; written under mu
	condition  atomic.Int32
	errors     atomic.Uint64 // writes that failed
	unreadable atomic.Uint64 // bytes that could not be read

	mu           sync.Mutex
	active       *segment // segment to which batches are appended; nil: the next Append creates one
	nextNumber   int      // number of the next segment
	closed       bool
	openSegments map[*segment]struct{} // segments whose files are open
	buf          []byte
}

// A segment is one file of the spool. The spool's lock guards its fields, except path and file, which do not
// change.
type segment struct {
	path    string
	file    frame.File
	size    int64
	batches int  // batches that are not released
	damaged bool // it has unreadable bytes: it is renamed instead of deleted
}

// Open opens the spool in dir and calls visit for each batch, in the order of the writes. readable is false
// if the batch was not written to its end: it is lost, and ref is zero.
func Open(dir string, options Options, visit func(h *Header, ref Ref, readable bool)) (*Spool, error) {
	spool := &Spool{
		dir: dir, options: options, throttle: logging.NewThrottle(errorLogInterval), nextNumber: 1,
		openSegments: map[*segment]struct{}{},
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	numbers, err := spool.segmentNumbers()
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	for _, number := range numbers {
		if err := spool.loadSegment(spool.segmentPath(number), visit); err != nil {
			return nil, fmt.Errorf("read spool: %w", err)
		}
	}
	return spool, nil
}

func (s *Spool) segmentPath(number int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%08d%s", number, segmentSuffix))
}

// segmentNumbers returns the numbers of the segments in the folder, in order, and sets nextNumber behind all numbers
// in use. A segment that is not a regular file is reported and left out.
func (s *Spool) segmentNumbers() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		digits, ok := strings.CutSuffix(entry.Name(), segmentSuffix)
		number, err := strconv.Atoi(digits)
		if !ok || err != nil || number <= 0 {
			continue
		}
		s.nextNumber = max(s.nextNumber, number+1)
		if !entry.Type().IsRegular() {
			s.options.Log.Warn("spool segment is not a regular file and is not read", "file", filepath.Join(s.dir, entry.Name()))
			continue
		}
		numbers = append(numbers, number)
	}
	slices.SortFunc(numbers, cmp.Compare)
	return numbers, nil
}

// loadSegment opens a segment of an earlier process and calls visit for its batches.
func (s *Spool) loadSegment(path string, visit func(*Header, Ref, bool)) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	seg := &segment{path: path, file: file, size: info.Size()}
	if seg.size > 0 {
		unreadable, reason := seg.scanBatches(visit)
		if errors.Is(reason, frame.ErrNewer) {
			file.Close()
			return fmt.Errorf("%s: %w; start that version again, or move the file away", path, reason)
		}
		if seg.damaged = unreadable > 0; seg.damaged {
			s.unreadable.Add(uint64(unreadable))
			s.options.Log.Warn("part of the spool cannot be read and is kept aside",
				"file", path, "bytes", unreadable, "err", reason)
		}
	}

	// A segment without a readable batch is removed, or renamed if it is damaged.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openSegments[seg] = struct{}{}
	s.total.Add(seg.size)
	if seg.batches == 0 {
		s.removeSegment(seg)
	}
	return nil
}

// scanBatches calls visit for the batches of seg. It returns the number of bytes that could not be read, and
// the reason.
func (seg *segment) scanBatches(visit func(*Header, Ref, bool)) (unreadable int64, reason error) {
	start := make([]byte, frame.FileHeaderSize)
	size, _ := seg.file.ReadAt(start, 0)
	scanner := frame.NewScanner(seg.file, seg.size)
	if err := frame.CheckFileHeader(start[:size], magic, version); errors.Is(err, frame.ErrForeign) {
		scanner = frame.ScanAll(seg.file, seg.size) // each frame has a checksum of its own
	} else if err != nil {
		return seg.size, err
	}

	// Invariant: header is the last header frame if no batch frame has followed it yet, else nil. A header
	// belongs to the batch frame directly behind it. A header without a batch frame is a lost batch; a batch
	// frame without a header is unreadable.
	reason = errors.New("damaged, or not written to its end")
	var header *Header
	var batchOffset int64 // offset at which the payload of header's batch must begin
	reportLost := func() {
		if header != nil {
			visit(header, Ref{}, false)
			header = nil
		}
	}
	for found, ok := scanner.Next(); ok; found, ok = scanner.Next() {
		switch {
		case found.Kind == kindBatch && header != nil && found.Offset == batchOffset && found.Complete:
			seg.batches++
			visit(header, Ref{segment: seg, frame: found}, true)
			header = nil
			continue
		case found.Kind == kindHeader && found.Complete:
			reportLost()
			payload, err := found.Read(seg.file)
			if err == nil {
				header, err = parseHeader(payload)
			}
			batchOffset = found.Offset + int64(found.Length) + frame.HeadSize
			if err == nil {
				continue
			}
			reason = err
		default:
			reportLost()
		}
		if found.Complete {
			unreadable += frame.HeadSize + int64(found.Length)
		}
	}
	reportLost()
	return unreadable + scanner.Skipped(), reason
}

// Append writes a batch. If the error is nil, the batch survives a killed process. The error is ErrFull if
// the batch would exceed the limit. A spool with the limit 0 is off: it takes no batch, and that is no condition to
// be reported.
func (s *Spool) Append(header *Header, batch []byte) (Ref, error) {
	if s.options.Limit == 0 {
		return Ref{}, ErrFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ref, err := s.writeBatch(header, batch)
	switch {
	case err == nil:
		s.condition.Store(int32(Accepting))
	case errors.Is(err, ErrFull):
		s.condition.Store(int32(Full))
		if _, ok := s.throttle.Allow(); ok {
			s.options.Log.Error("spool is full: packet events are shed until kafka is available",
				"bytes", s.total.Load())
		}
	default:
		s.condition.Store(int32(Failing))
		s.errors.Add(1)
		if _, ok := s.throttle.Allow(); ok {
			s.options.Log.Error("spool cannot be written: packet events stay in memory", "err", err)
		}
	}
	return ref, err
}

// writeBatch appends a header frame and a batch frame to the active segment. s.mu must be held.
func (s *Spool) writeBatch(header *Header, batch []byte) (Ref, error) {
	if s.closed {
		return Ref{}, fs.ErrClosed
	}

	// 1. Encode both frames.
	s.buf = header.appendPayload(frame.Reserve(s.buf[:0]))
	frame.Seal(s.buf, 0, kindHeader)
	at := len(s.buf)
	s.buf = append(frame.Reserve(s.buf), batch...)
	frame.Seal(s.buf, at, kindBatch)

	// 2. Check the limit, and start a new segment if the active one is full.
	size := int64(len(s.buf))
	if s.total.Load()+size > s.options.Limit {
		return Ref{}, ErrFull
	}
	if s.active == nil || s.active.size+size > segmentBytes && s.active.size > frame.FileHeaderSize {
		if err := s.startSegment(); err != nil {
			return Ref{}, err
		}
	}

	// 3. Write. Invariant: the first seg.size bytes are whole frames. Bytes that a failed write leaves behind
	// them are cut off or overwritten.
	seg := s.active
	if _, err := seg.file.WriteAt(s.buf, seg.size); err != nil {
		_ = seg.file.Truncate(seg.size)
		return Ref{}, fmt.Errorf("write spool %s: %w", seg.path, err)
	}
	if s.options.Sync {
		if err := seg.file.Sync(); err != nil {
			return Ref{}, fmt.Errorf("sync spool %s: %w", seg.path, err)
		}
	}
	ref := Ref{segment: seg, frame: frame.SealedFrame(s.buf, at, seg.size+int64(at))}
	seg.size += size
	seg.batches++
	s.total.Add(size)
	return ref, nil
}

// startSegment makes a new segment the active one. s.mu must be held.
func (s *Spool) startSegment() error {
	path := s.segmentPath(s.nextNumber)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	seg := &segment{path: path, file: file}
	if s.options.Wrap != nil {
		seg.file = s.options.Wrap(file)
	}
	header := frame.AppendFileHeader(nil, magic, version)
	if _, err := seg.file.WriteAt(header, 0); err != nil {
		seg.file.Close()
		os.Remove(path) // it was created above and holds no batch
		return fmt.Errorf("write spool %s: %w", path, err)
	}
	seg.size = int64(len(header))
	s.nextNumber++
	s.total.Add(seg.size)
	s.openSegments[seg] = struct{}{}

	// The previous segment stays while it has batches that are not released.
	old := s.active
	s.active = seg
	if old != nil && old.batches == 0 {
		s.removeSegment(old)
	}
	return nil
}

// Read returns the bytes of a batch. The error matches ErrDamaged if the batch is damaged for good.
func (s *Spool) Read(ref Ref) ([]byte, error) {
	batch, err := ref.frame.Read(ref.segment.file)
	if errors.Is(err, ErrDamaged) {
		s.mu.Lock()
		ref.segment.damaged = true
		s.mu.Unlock()
		s.unreadable.Add(uint64(ref.frame.Length))
		s.options.Log.Warn("a batch in the spool cannot be read; its events are lost",
			"file", ref.segment.path, "bytes", ref.frame.Length, "err", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read spool %s: %w", ref.segment.path, err)
	}
	return batch, nil
}

// Release removes a batch. A segment is removed with its last batch.
func (s *Spool) Release(ref Ref) {
	if ref.segment == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ref.segment.batches--
	if ref.segment.batches == 0 && !s.closed {
		s.removeSegment(ref.segment)
	}
}

// removeSegment deletes a segment whose batches were all released, or renames it if it is damaged. s.mu must
// be held.
func (s *Spool) removeSegment(seg *segment) {
	seg.file.Close()
	delete(s.openSegments, seg)
	s.total.Add(-seg.size)
	if s.active == seg {
		s.active = nil
	}
	if seg.damaged {
		kept, err := frame.SetAside(seg.path)
		if err != nil {
			// The segment keeps its name: the next process finds it again.
			s.options.Log.Error("unreadable spool segment cannot be renamed", "file", seg.path, "err", err)
			return
		}
		s.options.Log.Warn("unreadable spool segment kept", "file", kept)
	}
	os.Remove(seg.path)
}

// Bytes returns the size of all segments.
func (s *Spool) Bytes() int64 { return s.total.Load() }

// Condition returns the result of the last Append.
func (s *Spool) Condition() Condition { return Condition(s.condition.Load()) }

// Errors returns the number of writes that failed. A full spool is not an error.
func (s *Spool) Errors() uint64 { return s.errors.Load() }

// Unreadable returns the number of bytes that could not be read.
func (s *Spool) Unreadable() uint64 { return s.unreadable.Load() }

// Close closes all segments; later reads and writes fail. With flush the segments are synced to the disk.
func (s *Spool) Close(flush bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var err error
	for seg := range s.openSegments {
		if flush {
			err = errors.Join(err, seg.file.Sync())
		}
		err = errors.Join(err, seg.file.Close())
	}
	return err
}
