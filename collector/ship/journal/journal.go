// Package journal records which log lines are in which batch, so that a collector that was killed can put the
// same lines into the same batches again.
//
// Before a batch with lines of files is produced, Append writes the id of the batch and its ranges of lines.
// When the batch is safe, Ack records that. Open reads the journal of the earlier process: for each file the
// checkpoint up to which all lines are safe, and for each unacknowledged batch its ranges of lines. The
// shipper reads those lines again and sends them under the same id, so that the engine drops the duplicate.
// Package ship is the only caller. The journal does not depend on Kafka or on the form of events.
//
// The journal keeps its state in memory: every record that is written is also applied to the state, by the
// code that applies records when a journal is read. When the file has grown, it is compacted: a new file that
// holds only the state replaces it.
//
// A batch that cannot be written must not be produced: Append returns an error, and the caller tries again.
// All other records are hints: if one cannot be written, lines may be read and produced again under an id
// that the engine has stored. Write errors are counted and logged by this package.
//
// Records that cannot be read (damaged, or of another version) are left out, counted, logged, and kept beside
// the journal as journal.unreadable. The lock of a Journal is held during writes; no other lock is taken
// while it is held.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/pipeline/logging"
	"tidegate/pipeline/statedir"
)

const (
	fileName = "journal"
	magic    = "TGJRNL"
	version  = 2

	// defaultCompactAt is the size at which the journal is compacted. A journal whose state is larger than
	// half of that is compacted when it has doubled.
	defaultCompactAt = 4 << 20

	errorLogInterval = 30 * time.Second
)

// A FileID is the number of a file within one journal.
type FileID uint32

// A BatchID identifies a batch of one collector: the producer's epoch, the partition and the sequence.
type BatchID struct {
	Epoch     uint64
	Partition uint32
	Sequence  uint64
}

// A Range is a range of lines of one file in one batch: those that end behind After, up to End.
type Range struct {
	File   FileID
	After  int64
	End    collector.Checkpoint
	Events uint32
}

// A Batch is a batch that is not known to be safe.
type Batch struct {
	ID     BatchID
	Ranges []Range
}

// A File is the state of one file in the journal.
type File struct {
	ID            FileID
	Name          string
	Replaced      bool                 // its name means a newer file
	Checkpoint    collector.Checkpoint // everything up to here is safe
	HasCheckpoint bool                 // Checkpoint is meaningful
	Done          []Range              // ranges behind the checkpoint that are safe, in order
}

// State is the content of a journal.
type State struct {
	Partitions int // number of partitions of the topic; 0: not known
	Files      []File
	Batches    []Batch // ordered by sequence
}

// Options are the settings of a Journal.
type Options struct {
	Sync bool // sync each write, so that it survives a power cut and not only a killed process
	Log  *slog.Logger

	CompactAt int64                       // size at which the file is compacted; 0: 4 MiB
	Wrap      func(frame.File) frame.File // wraps the file in tests that simulate a full disk; nil: not wrapped
}

// A Journal is the open journal. Its methods may be called by any goroutine.
type Journal struct {
	path     string
	options  Options
	throttle *logging.Throttle

	missing    bool          // there was no journal, or it was empty
	size       atomic.Int64  // bytes of whole records in the file; written under mu
	errors     atomic.Uint64 // writes that failed
	unreadable atomic.Uint64 // bytes of the earlier journal that could not be read

	mu       sync.Mutex
	state    *state
	file     frame.File // nil: not created yet, because Start was not called or the disk was full
	limit    int64      // size above which the file is compacted
	started  bool
	closed   bool
	setAside bool // the file at path has unreadable parts: it must be copied before it is replaced
	buf      []byte
}

// Open reads the journal in dir. The journal writes nothing before Start.
func Open(dir string, options Options) (*Journal, error) {
	if options.CompactAt <= 0 {
		options.CompactAt = defaultCompactAt
	}
	journal := &Journal{
		path: filepath.Join(dir, fileName), options: options, throttle: logging.NewThrottle(errorLogInterval),
		state: newState(),
	}

	// Read the journal of the earlier process, if there is one.
	text, err := os.ReadFile(journal.path)
	if errors.Is(err, fs.ErrNotExist) {
		journal.missing = true
		return journal, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if len(bytes.TrimLeft(text, "\x00")) == 0 {
		journal.missing = true // a power cut left a file of NULs, whose content was never written
		return journal, nil
	}

	// Apply its records. What cannot be read is kept aside when Start replaces the file.
	unreadable, reason := journal.state.readRecords(text)
	if errors.Is(reason, frame.ErrNewer) {
		return nil, fmt.Errorf("read journal %s: %w; start that version again, or move the file away: log lines are "+
			"then stored twice", journal.path, reason)
	}
	if unreadable > 0 {
		journal.setAside = true
		journal.unreadable.Store(uint64(unreadable))
		options.Log.Warn("part of the journal cannot be read and is kept aside; log lines may be stored twice",
			"file", journal.path, "bytes", unreadable, "err", reason)
	}
	return journal, nil
}

// readRecords applies the records of a journal to s. It returns the number of bytes that could not be read,
// and the reason.
func (s *state) readRecords(text []byte) (unreadable int64, reason error) {
	reader := bytes.NewReader(text)
	scanner := frame.NewScanner(reader, int64(len(text)))
	if err := frame.CheckFileHeader(text, magic, version); errors.Is(err, frame.ErrForeign) {
		scanner, reason = frame.ScanAll(reader, int64(len(text))), err // each record has a checksum of its own
	} else if err != nil {
		return int64(len(text)), err
	}

	// A frame that is damaged or has an unknown kind is skipped; the frames behind it are still read.
	var r record
	for found, ok := scanner.Next(); ok; found, ok = scanner.Next() {
		if !found.Complete {
			break // the last write was cut short; the scanner counts the bytes
		}
		payload, err := found.Read(reader)
		if err == nil {
			err = r.parsePayload(found.Kind, payload)
		}
		if err != nil {
			unreadable, reason = unreadable+frame.HeadSize+int64(found.Length), err
			continue
		}
		s.applyRecord(&r)
	}
	if skipped := scanner.Skipped(); skipped > 0 {
		unreadable += skipped
		if reason == nil {
			reason = errors.New("damaged, or not written to its end")
		}
	}
	return unreadable, reason
}

// State returns the content of the journal.
func (j *Journal) State() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.exportState()
}

// Start begins to write: a new file with the state replaces the old one. A full disk is not an error: the
// file is then created with the first batch.
func (j *Journal) Start() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.started = true
	err := j.compact()
	if errors.Is(err, errDiskFull) {
		j.reportWriteError(err)
		return nil
	}
	return err
}

// AddFile returns the number of a new file. The first Append of a batch with lines of the file writes it.
func (j *Journal) AddFile(name string) FileID {
	j.mu.Lock()
	defer j.mu.Unlock()
	id := j.state.nextFile
	j.state.nextFile++
	j.state.files[id] = &fileState{name: name}
	return id
}

// Append writes the id and the ranges of a batch. The batch may be produced only after Append has returned
// nil. The journal keeps batch.Ranges.
func (j *Journal) Append(batch Batch) error {
	j.mu.Lock()
	defer j.mu.Unlock()

	// The names of files that are not recorded yet stand in front of the batch.
	j.buf = j.buf[:0]
	var named []FileID
	for i := range batch.Ranges {
		id := batch.Ranges[i].File
		if file := j.state.files[id]; file != nil && !file.recorded && !slices.Contains(named, id) {
			j.buf = appendRecord(j.buf, &record{kind: recordFile, file: id, name: file.name})
			named = append(named, id)
		}
	}
	j.buf = appendRecord(j.buf, &record{kind: recordBatch, batch: batch.ID, ranges: batch.Ranges})
	if err := j.writeRecords(j.buf); err != nil {
		j.reportWriteError(err)
		return err
	}

	// The state is changed only after the write has succeeded: a compacted journal must hold exactly the
	// records that were written.
	for _, id := range named {
		file := j.state.files[id]
		file.recorded = true
		j.state.claimName(id, file.name)
	}
	j.state.addBatch(batch.ID, batch.Ranges)
	j.compactIfLarge()
	return nil
}

// Ack records that a batch is safe.
func (j *Journal) Ack(id BatchID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.batches[id] != nil {
		_ = j.applyAndWrite(&record{kind: recordAck, batch: id})
	}
}

// Done records that the lines of r are safe. They were in a batch that is not in the journal.
func (j *Journal) Done(r Range) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if file := j.state.files[r.File]; file != nil && file.recorded {
		_ = j.applyAndWrite(&record{kind: recordDone, ranges: []Range{r}})
	}
}

// Shrink records that the range of a batch that begins at r.After is reduced to r, because the file was not
// read again. If it returns an error, the batch must not be sent: the caller tries again.
func (j *Journal) Shrink(id BatchID, r Range) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.applyAndWrite(&record{kind: recordShrink, batch: id, ranges: []Range{r}})
}

// DropFile removes a file from the journal.
func (j *Journal) DropFile(id FileID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	file := j.state.files[id]
	switch {
	case file == nil:
	case file.recorded:
		_ = j.applyAndWrite(&record{kind: recordDrop, file: id})
	default:
		j.state.dropFile(id)
	}
}

// SetPartitions records the number of partitions of the topic, for a start while Kafka is unavailable.
func (j *Journal) SetPartitions(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.partitions != n {
		_ = j.applyAndWrite(&record{kind: recordPartitions, partitions: n})
	}
}

// Bytes returns the size of the journal.
func (j *Journal) Bytes() int64 { return j.size.Load() }

// Errors returns the number of writes that failed.
func (j *Journal) Errors() uint64 { return j.errors.Load() }

// Missing reports whether there was no journal of an earlier process.
func (j *Journal) Missing() bool { return j.missing }

// Unreadable returns the number of bytes of the earlier process's journal that could not be read.
func (j *Journal) Unreadable() uint64 { return j.unreadable.Load() }

// Close closes the file; later writes fail. With flush the file is synced to the disk.
func (j *Journal) Close(flush bool) error {
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

// applyAndWrite applies a record to the state and writes it. A failed write is counted and returned. Most of
// these records are hints, whose error the caller ignores. Before Start the record is only applied, since Start
// writes the whole state. j.mu must be held.
func (j *Journal) applyAndWrite(r *record) error {
	j.state.applyRecord(r)
	if !j.started {
		return nil
	}
	j.buf = appendRecord(j.buf[:0], r)
	if err := j.writeRecords(j.buf); err != nil {
		if !j.closed {
			j.reportWriteError(err)
		}
		return err
	}
	j.compactIfLarge()
	return nil
}

// writeRecords appends encoded records to the file, all or none of them. j.mu must be held.
func (j *Journal) writeRecords(records []byte) error {
	if j.closed {
		return fs.ErrClosed
	}
	if j.file == nil { // the disk was full when the journal was started
		if err := j.compact(); err != nil {
			return err
		}
	}

	// Invariant: the first j.size bytes of the file are whole records. Bytes that a failed write leaves
	// behind them are cut off, overwritten by the next write, or skipped by the next reader.
	size := j.size.Load()
	if _, err := j.file.WriteAt(records, size); err != nil {
		_ = j.file.Truncate(size)
		return fmt.Errorf("write journal %s: %w", j.path, err)
	}
	if j.options.Sync {
		if err := j.file.Sync(); err != nil {
			return fmt.Errorf("sync journal %s: %w", j.path, err)
		}
	}
	j.size.Store(size + int64(len(records)))
	return nil
}

// compactIfLarge compacts the file when it has grown beyond the limit. j.mu must be held.
func (j *Journal) compactIfLarge() {
	if j.size.Load() <= j.limit {
		return
	}
	if err := j.compact(); err != nil {
		j.reportWriteError(err)
		j.limit = 2 * j.size.Load() // the old file is still valid; try again later
	}
}

// compact writes the state to a new file and replaces the old file by it. j.mu must be held.
func (j *Journal) compact() error {
	// 1. Keep a copy of the old file if it has unreadable parts.
	if j.setAside {
		kept, err := frame.SetAside(j.path)
		if err != nil {
			return fmt.Errorf("keep unreadable journal: %w", diskFull(err))
		}
		j.options.Log.Warn("unreadable journal kept", "file", kept)
		j.setAside = false
	}

	// 2. Write the new file. Its content is synced before the rename, so that a power cut leaves the old file
	// or the new one.
	temporary := j.path + ".new"
	file, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", diskFull(err))
	}

	text := j.state.appendSnapshot(nil)
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync()); err == nil {
		err = os.Rename(temporary, j.path)
	}
	if err != nil {
		file.Close()
		os.Remove(temporary)
		return fmt.Errorf("write journal: %w", diskFull(err))
	}
	if j.options.Sync {
		// If the sync fails, a power cut may bring back the old file, which has the same content.
		_ = statedir.SyncDir(filepath.Dir(j.path))
	}

	// 3. Continue with the new file.
	if j.file != nil {
		j.file.Close()
	}
	j.file = file
	if j.options.Wrap != nil {
		j.file = j.options.Wrap(file)
	}
	j.size.Store(int64(len(text)))
	j.limit = max(j.options.CompactAt, 2*int64(len(text)))
	return nil
}

// reportWriteError counts a write that failed and logs it, at most once per errorLogInterval.
func (j *Journal) reportWriteError(err error) {
	j.errors.Add(1)
	if _, ok := j.throttle.Allow(); ok {
		j.options.Log.Error("journal cannot be written: log lines wait in their files", "err", err)
	}
}

// appendRecord appends r to buf as a frame.
func appendRecord(buf []byte, r *record) []byte {
	at := len(buf)
	buf = r.appendPayload(frame.Reserve(buf))
	frame.Seal(buf, at, r.frameKind())
	return buf
}
