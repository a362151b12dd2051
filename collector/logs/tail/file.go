package tail

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
)

// A file is one file of a log. Fields of the first group are guarded by Tailer.mu; those of the second belong
// to the tailer's goroutine.
type file struct {
	handle       string
	gzipHandle   string // handle of its compressed copy
	name         string // name in the folder; "": it was removed or moved away
	file         *os.File
	gz           bool
	identified   bool
	id           Identity
	firstRecord  Identity // of the first record alone; id differs where another file of the log begins with it
	unique       bool     // no other file begins with the same record
	producer     collector.FileProducer
	sourceGone   bool      // SourceGone of the producer was called
	maybeListed  bool      // its name was not found, but it may be a listed file that could not be opened
	done         bool      // read to its end; the producer is kept until the file is removed
	copyOf       *file     // the newer file of which this is a copy
	missingSince time.Time // when a file that is done was first missing from the folder

	examined   int64 // offset behind the examined bytes; more than offset if they end with an incomplete record
	offset     int64 // of the next byte to be read, uncompressed
	resumeEnd  int64 // checkpoint of an earlier process: lines that end up to here were shipped
	lastTime   int64 // of the last record
	pending    [decode.NumStreams]pendingLine
	gzipReader *gzip.Reader
	gzipOffset int64 // uncompressed bytes that gzipReader has returned
	readErr    error // error that ended reading before the end of the file
	sample     collector.Sample
	sampled    []byte // the bytes of sample
	skipped    bool   // a compressed file that is not read, because of Config.NotBefore

	// Guarded by Tailer.mu. A released file has no descriptor, because descriptors are short
	// (descriptors.go).
	released bool
	inode    uint64
	lastSize int64 // when it was looked at last

	readOffset atomic.Int64 // offset, for any goroutine
}

// resumeFrom sets the producer of f and the offset of its checkpoint. It returns false if there is no
// checkpoint.
//
// finishFile may have moved incomplete lines of an earlier file to f.pending. They are discarded if the
// checkpoint's ReadFrom is behind the start of f: it stays 0 while such a line is incomplete, so they were
// completed before.
func (f *file) resumeFrom(producer collector.FileProducer, budget *budget) (resumed bool) {
	f.producer = producer
	checkpoint, ok := producer.Resume()
	if !ok {
		return false
	}
	f.resumeEnd = checkpoint.End
	f.offset = checkpoint.ReadFrom
	f.readOffset.Store(checkpoint.ReadFrom)
	if checkpoint.ReadFrom > 0 {
		for i := range f.pending {
			f.pending[i].discardLine(budget)
		}
	}
	return true
}

// continueCopy moves the producer and the position of other to f, and marks other as done. f is the original;
// other is its copy, which was listed and read first and has the same bytes up to the position. Tailer.mu is
// held.
func (f *file) continueCopy(other *file, budget *budget) {
	f.id, f.producer, f.sourceGone = other.id, other.producer, other.sourceGone
	f.resumeEnd, f.lastTime, f.pending = other.resumeEnd, other.lastTime, other.pending
	f.sample, f.sampled = other.sample, other.sampled
	f.offset = other.offset
	f.readOffset.Store(f.offset)

	other.producer, other.done = nil, true
	other.pending = [decode.NumStreams]pendingLine{}
	other.closeFile(budget)
}

// markSourceGone calls SourceGone of the producer if f has no name any more. A reader that is blocked in Ship
// then continues. Tailer.mu is held.
func (f *file) markSourceGone() {
	if (f.name == "" || f.maybeListed) && f.producer != nil && !f.sourceGone {
		f.sourceGone = true
		f.producer.SourceGone()
	}
}

// closeProducer closes the producer, if there is one. With keep, the file may still exist at the next start.
func (f *file) closeProducer(keep bool) {
	if f.producer != nil {
		f.producer.Close(keep)
		f.producer = nil
	}
}

// maxSample is the number of bytes in a sample of a file, where it has so many. If the bytes differ later,
// the file was truncated in place, or is another one.
const maxSample = 256

// extendSample moves the sample to the last bytes before end. b has been read, and ends there; the bytes
// before it are those of the sample so far, if that ends where b begins. An empty b changes nothing.
func (f *file) extendSample(b []byte, end int64) {
	if len(b) == 0 {
		return
	}
	begin := end - int64(len(b))
	b = b[max(0, len(b)-maxSample):]
	if f.sample.Start+int64(f.sample.Size) != begin {
		f.sampled = f.sampled[:0]
	}
	kept := f.sampled[max(0, len(f.sampled)+len(b)-maxSample):]
	f.sampled = append(f.sampled[:copy(f.sampled, kept)], b...)
	f.sample = collector.Sample{Start: end - int64(len(f.sampled)), Size: len(f.sampled), Hash: f.sampleHash(f.sampled)}
}

// sampleHash returns the hash of bytes of f, which depends on its first record: files whose lines are the
// same further on differ.
func (f *file) sampleHash(b []byte) uint64 {
	return xxh3.HashSeed(b, binary.BigEndian.Uint64(f.firstRecord[:]))
}

// hasSample reports whether f has the bytes of a sample. A file has a sample of no bytes.
func (f *file) hasSample(sample collector.Sample) bool {
	var buf [maxSample]byte
	if sample.Size == 0 || sample.Size > maxSample {
		return sample.Size == 0
	}
	n, _ := f.readAt(buf[:sample.Size], sample.Start)
	return n == sample.Size && f.sampleHash(buf[:n]) == sample.Hash
}

// resample reads the bytes before the offset again and sets the sample to them.
func (f *file) resample() {
	var buf [maxSample]byte
	data := buf[:min(maxSample, f.offset)]
	// If f was truncated since the present sample was taken, the present sample shows it and must stay.
	if n, _ := f.file.ReadAt(data, f.offset-int64(len(data))); n > 0 && n == len(data) && !f.gz && !f.isTruncated() {
		f.sample, f.sampled = collector.Sample{}, f.sampled[:0]
		f.extendSample(data, f.offset)
	}
}

// isTruncated reports whether f was truncated in place: it is shorter than the offset, or the bytes of the
// sample have changed.
func (f *file) isTruncated() bool {
	if f.gz {
		return false
	}
	if info, err := f.file.Stat(); err == nil && info.Size() < f.offset {
		return true
	}
	var buf [maxSample]byte
	data := buf[:f.sample.Size]
	size, err := f.file.ReadAt(data, f.sample.Start)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return f.sampleHash(data[:size]) != f.sample.Hash && f.sample.Size > 0
}

// isCopyOf reports whether f, which may be compressed, is a copy of original: it begins with the same record
// and has the same bytes at original's sample. A copy that is still being made may be shorter. Both files are
// identified.
func (f *file) isCopyOf(original *file) bool {
	if f.firstRecord != original.firstRecord {
		return false
	}
	sample := original.sample
	return !f.gz && f.size() < sample.Start+int64(sample.Size) || f.hasSample(sample)
}

// readAt reads into data from the uncompressed offset at. A compressed file is read forwards. It is
// uncompressed from its start again only when a line could not be shipped and is read a second time.
func (f *file) readAt(data []byte, at int64) (int, error) {
	if !f.gz {
		return f.file.ReadAt(data, at)
	}

	// Bring the decompressor to at.
	if f.gzipReader != nil && f.gzipOffset > at {
		_ = f.gzipReader.Close()
		f.gzipReader = nil
	}
	if f.gzipReader == nil {
		reader, err := gzip.NewReader(io.NewSectionReader(f.file, 0, 1<<62))
		if err != nil {
			return 0, fmt.Errorf("read compressed log: %w", err)
		}
		f.gzipReader, f.gzipOffset = reader, 0
	}
	if f.gzipOffset < at {
		n, err := io.CopyN(io.Discard, f.gzipReader, at-f.gzipOffset)
		f.gzipOffset += n
		if err != nil {
			return 0, err
		}
	}

	n, err := io.ReadFull(f.gzipReader, data)
	f.gzipOffset += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		// ReadFull returns this for a short end as well; a broken stream returns it again when it is read on.
		if _, nextErr := f.gzipReader.Read(data[:0]); nextErr == nil || errors.Is(nextErr, io.EOF) {
			err = io.EOF
		}
	}
	return n, err
}

// isFullyRead reports whether f is compressed and need not be read: an earlier process has read it to its
// end, or it is skipped. It does not uncompress f.
func (f *file) isFullyRead() bool {
	return f.skipped || f.gz && f.resumeEnd != 0 && f.offset >= f.resumeEnd && f.gzipSizeIs(f.resumeEnd)
}

// gzipSizeIs reports whether the uncompressed length of a compressed file is size, modulo 2^32.
func (f *file) gzipSizeIs(size int64) bool {
	length, ok := f.gzipSize()
	return ok && length == uint32(size)
}

// gzipSize returns the uncompressed length of a compressed file, modulo 2^32: it is in the last four bytes.
func (f *file) gzipSize() (size uint32, ok bool) {
	info, err := f.file.Stat()
	if err != nil || info.Size() < 4 {
		return 0, false
	}
	var b [4]byte
	if _, err := f.file.ReadAt(b[:], info.Size()-4); err != nil {
		return 0, false
	}
	return binary.LittleEndian.Uint32(b[:]), true
}

// size returns the uncompressed length of f; 0: it is not known. f is open.
func (f *file) size() int64 {
	if f.gz {
		size, _ := f.gzipSize()
		return int64(size)
	}
	info, err := f.file.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// unchangedFor reports whether f was not written to for d.
func (f *file) unchangedFor(d time.Duration) bool {
	info, err := f.file.Stat()
	return err != nil || time.Since(info.ModTime()) > d
}

// skipContents skips the present contents of f.
func (f *file) skipContents() {
	if f.gz {
		f.skipped = true
		return
	}
	f.advanceOffset(f.size())
}

// birthTime returns the time at which a file was created, or last modified if the file system has no birth
// times, in ns since 1970; 0: an error.
func birthTime(f *os.File) int64 {
	var st unix.Statx_t
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME|unix.STATX_MTIME, &st) != nil {
		return 0
	}
	if st.Mask&unix.STATX_BTIME == 0 {
		return st.Mtime.Sec*int64(time.Second) + int64(st.Mtime.Nsec)
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

// closeFile closes the descriptor, if there is one.
func (f *file) closeFile(budget *budget) {
	if f.gzipReader != nil {
		_ = f.gzipReader.Close()
		f.gzipReader = nil
	}
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
		budget.releaseDescriptor()
	}
}

// unreadBytes returns how many bytes of f were not read yet; a compressed file counts with its size on disk.
// t.mu is held.
func (t *Tailer) unreadBytes(f *file) int64 {
	if f.done || f.copyOf != nil {
		return 0
	}
	if f.released {
		size, _ := t.sizeByName(f)
		return max(0, size-f.readOffset.Load())
	}
	if f.file == nil {
		return 0
	}
	info, err := f.file.Stat()
	if err != nil {
		return 0
	}
	if f.gz {
		return info.Size()
	}
	return max(0, info.Size()-f.readOffset.Load())
}

// advanceOffset moves the offset behind n bytes that were read.
func (f *file) advanceOffset(n int64) {
	f.offset += n
	f.readOffset.Store(f.offset)
}

// readFrom returns the offset in f at which a later process must begin so that it reads the incomplete lines
// as a whole: base, or the start of the first incomplete line. For a line that began in an earlier file it is
// 0, since its parts may be anywhere in f.
func (f *file) readFrom(base int64) int64 {
	for i := range f.pending {
		switch pending := &f.pending[i]; {
		case !pending.active:
		case pending.carried:
			return 0
		default:
			base = min(base, pending.start)
		}
	}
	return base
}

var errNotRegular = errors.New("not a regular file")

// openLog opens a file of a log for reading. It rejects everything but regular files: a pipe would never end.
func openLog(dir, name string) (*os.File, error) {
	file, err := os.OpenFile(joinPath(dir, name), os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", name, errNotRegular)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
