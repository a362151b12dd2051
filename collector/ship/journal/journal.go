// Package journal is the file that lets a collector which was killed put the same lines into the same batches
// again.
//
// Before a batch with lines of files is produced, Append writes which lines of which files are in it and
// under which id it is sent. When the batch is safe, Ack says so. Open reads what an earlier process left:
// for each file the checkpoint up to which everything is safe, and for each batch that is not known to be
// safe its ranges of lines. The shipper reads those lines again and sends them under the same id, so that a
// reader of the topic drops the repeat. Package ship is the only caller; the journal knows nothing of Kafka
// or of events.
//
// The journal keeps its own state in memory: every record that is written is also applied to it, by the code
// that applies records when a journal is read. When the file has grown, it is replaced by one that holds only
// that state.
//
// A batch that cannot be written must not be produced: Append returns an error, and the caller tries again.
// All other records are hints: when one cannot be written, the worst is that lines are read and produced
// again under an id that the reader knows. Errors of the disk are counted and logged here.
//
// What cannot be read (damaged, or of another version) is left out, counted, logged, and kept beside the
// journal as journal.unreadable. The lock of a Journal is held during writes; no other lock is taken while it
// is held.
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

	// defaultCompactAt is the size at which the journal is written anew, unless it still has half of it then.
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

// A Range is the lines of one file in one batch: those that end behind After, up to End.
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

// A File is what the journal knows of a file.
type File struct {
	ID            FileID
	Name          string
	Replaced      bool                 // its name means a newer file
	Checkpoint    collector.Checkpoint // everything up to here is safe
	HasCheckpoint bool                 // Checkpoint is meaningful
	Done          []Range              // ranges behind the checkpoint that are safe, in order
}

// State is what an earlier process left.
type State struct {
	Partitions int // of the topic; 0: not known
	Files      []File
	Batches    []Batch // by sequence
}

// Options are the settings of a Journal.
type Options struct {
	Sync bool // each write survives a power cut, not only a killed process
	Log  *slog.Logger

	CompactAt int64                       // size at which the file is written anew; 0: 4 MiB
	Wrap      func(frame.File) frame.File // tests simulate a full disk; nil: nothing
}

// A Journal is the open journal. Its methods may be called by any goroutine.
type Journal struct {
	path     string
	options  Options
	throttle *logging.Throttle

	size       atomic.Int64  // of the file, as far as it is whole; written under mu
	errors     atomic.Uint64 // writes that failed
	unreadable atomic.Uint64 // bytes that could not be read

	mu       sync.Mutex
	state    *state
	file     frame.File // nil: not written yet, because Start was not called or the disk was full
	limit    int64      // compact when size has passed it
	started  bool
	closed   bool
	setAside bool // what is at path has unreadable parts that must be kept before it is replaced
	buf      []byte
}

// Open reads the journal in dir. Nothing is written before Start.
func Open(dir string, options Options) (*Journal, error) {
	if options.CompactAt <= 0 {
		options.CompactAt = defaultCompactAt
	}
	journal := &Journal{
		path: filepath.Join(dir, fileName), options: options, throttle: logging.NewThrottle(errorLogInterval),
		state: newState(),
	}
	text, err := os.ReadFile(journal.path)
	if errors.Is(err, fs.ErrNotExist) {
		return journal, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if len(bytes.TrimLeft(text, "\x00")) == 0 {
		return journal, nil // a power cut left a file whose content was never written
	}
	if unreadable, reason := journal.state.readRecords(text); unreadable > 0 {
		journal.setAside = true
		journal.unreadable.Store(uint64(unreadable))
		options.Log.Warn("part of the journal cannot be read and is kept aside; log lines may be stored twice",
			"file", journal.path, "bytes", unreadable, "err", reason)
	}
	return journal, nil
}

// readRecords applies the records of a journal. It returns how many bytes could not be read, and why.
func (s *state) readRecords(text []byte) (unreadable int64, reason error) {
	if err := frame.CheckFileHeader(text, magic, version); err != nil {
		return int64(len(text)), err
	}
	reader := bytes.NewReader(text)
	scanner := frame.NewScanner(reader, int64(len(text)))

	// A frame that is damaged, or that this version does not know, costs only itself.
	var r record
	for f, ok := scanner.Next(); ok; f, ok = scanner.Next() {
		if !f.Complete {
			break // the end was not written; the scanner counts it
		}
		payload, err := f.Read(reader)
		if err == nil {
			err = r.parsePayload(f.Kind, payload)
		}
		if err != nil {
			unreadable, reason = unreadable+frame.HeadSize+int64(f.Length), err
			continue
		}
		s.applyRecord(&r)
	}
	if n := scanner.Skipped(); n > 0 {
		unreadable += n
		if reason == nil {
			reason = errors.New("damaged, or not written to its end")
		}
	}
	return unreadable, reason
}

// State returns what the journal says.
func (j *Journal) State() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state.exportState()
}

// Start begins to write: the state goes to a new file that replaces the old one. A disk that is full is not
// an error: the file is then written with the first batch.
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

// AddFile returns the number of a new file. It is written with the first batch that has lines of the file.
func (j *Journal) AddFile(name string) FileID {
	j.mu.Lock()
	defer j.mu.Unlock()
	id := j.state.nextFile
	j.state.nextFile++
	j.state.files[id] = &fileState{name: name}
	return id
}

// Append writes what a batch holds, and keeps b.Ranges. Only when it returns nil may the batch be produced.
func (j *Journal) Append(batch Batch) error {
	j.mu.Lock()
	defer j.mu.Unlock()

	// The names of the files come first. A name counts as recorded once the write has succeeded.
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

	// The state follows the file: a journal that is written anew must hold exactly what was written.
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
		j.applyAndWrite(&record{kind: recordAck, batch: id})
	}
}

// Done records that lines which were in no batch of the journal are safe.
func (j *Journal) Done(r Range) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if file := j.state.files[r.File]; file != nil && file.recorded {
		j.applyAndWrite(&record{kind: recordDone, ranges: []Range{r}})
	}
}

// Shrink records that only r is left of the range of a batch that begins where r begins: the file did not
// come back.
func (j *Journal) Shrink(id BatchID, r Range) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.applyAndWrite(&record{kind: recordShrink, batch: id, ranges: []Range{r}})
}

// DropFile records that nothing needs to be known of a file any more.
func (j *Journal) DropFile(id FileID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	file := j.state.files[id]
	switch {
	case file == nil:
	case file.recorded:
		j.applyAndWrite(&record{kind: recordDrop, file: id})
	default:
		j.state.dropFile(id)
	}
}

// SetPartitions records how many partitions the topic has, for a start without Kafka.
func (j *Journal) SetPartitions(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.partitions != n {
		j.applyAndWrite(&record{kind: recordPartitions, partitions: n})
	}
}

// Bytes returns the size of the journal.
func (j *Journal) Bytes() int64 { return j.size.Load() }

// Errors returns how many writes have failed.
func (j *Journal) Errors() uint64 { return j.errors.Load() }

// Unreadable returns how many bytes of the journal of the earlier process could not be read.
func (j *Journal) Unreadable() uint64 { return j.unreadable.Load() }

// Close ends writing. flush makes what was written survive a power cut.
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

// applyAndWrite applies a record that is only a hint, and writes it. Before Start it is only applied: the new
// file will hold what it comes to. j.mu must be held.
func (j *Journal) applyAndWrite(r *record) {
	j.state.applyRecord(r)
	if !j.started || j.closed {
		return
	}
	j.buf = appendRecord(j.buf[:0], r)
	if err := j.writeRecords(j.buf); err != nil {
		j.reportWriteError(err)
		return
	}
	j.compactIfLarge()
}

// writeRecords appends records to the file, all or none of them. j.mu must be held.
func (j *Journal) writeRecords(records []byte) error {
	if j.closed {
		return fs.ErrClosed
	}
	if j.file == nil { // the disk was full when we started
		if err := j.compact(); err != nil {
			return err
		}
	}

	// Invariant: the first j.size bytes of the file are whole records. Whatever a failed write leaves behind
	// them is cut off or overwritten, or found torn by the next reader.
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

// compactIfLarge writes the journal anew when it has grown. j.mu must be held.
func (j *Journal) compactIfLarge() {
	if j.size.Load() <= j.limit {
		return
	}
	if err := j.compact(); err != nil {
		j.reportWriteError(err)
		j.limit = 2 * j.size.Load() // what was written stands; the next attempt comes later
	}
}

// compact writes the state to a new file and puts it in the place of the old one. j.mu must be held.
func (j *Journal) compact() error {
	// The old file is replaced only after its unreadable parts have been kept.
	if j.setAside {
		kept, err := frame.SetAside(j.path)
		if err != nil {
			return fmt.Errorf("keep unreadable journal: %w", diskFull(err))
		}
		j.options.Log.Warn("unreadable journal kept", "file", kept)
		j.setAside = false
	}

	temporary := j.path + ".new"
	file, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write journal: %w", diskFull(err))
	}

	// The content is on the disk before the name moves, so a power cut leaves the old file or the new one.
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
		// If that fails, a power cut brings back the old file, which says the same.
		_ = statedir.SyncDir(filepath.Dir(j.path))
	}

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

// reportWriteError counts a write that failed, and logs it once a while.
func (j *Journal) reportWriteError(err error) {
	j.errors.Add(1)
	if _, ok := j.throttle.Allow(); ok {
		j.options.Log.Error("journal cannot be written: log lines wait in their files", "err", err)
	}
}

// appendRecord appends r as a frame to buf.
func appendRecord(buf []byte, r *record) []byte {
	at := len(buf)
	buf = r.appendPayload(frame.Reserve(buf))
	frame.Seal(buf, at, r.kind)
	return buf
}
