package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"tidegate/collector"
)

// A file is one file of a chain. What the first group holds is guarded by the chain's mutex, what the second holds belongs to the
// chain's goroutine.
type file struct {
	handle       string
	gzipHandle   string // handle of its compressed copy
	name         string // in the folder; "" once it has none
	file         *os.File
	gz           bool
	id           identity
	identified   bool // id is known
	lane         collector.FileProducer
	sealed       bool
	maybeListed  bool      // no name of it was found, but there was one that could not be opened
	done         bool      // read to its end; only its lane is kept, until the file is gone
	missingSince time.Time // since when a file that is done was not seen in the folder

	examined   int64 // up to where its bytes were looked at: a record that is not complete is not read yet
	offset     int64 // of the next byte to be read, within the uncompressed bytes
	resumeEnd  int64 // Mark.At of an earlier life: what is numbered up to here has been shipped
	lastTime   int64 // of the last record
	pending    [streams]pendingLine
	gzipReader *gzip.Reader
	readErr    error // why it could not be read on
	gzipOffset int64 // uncompressed bytes that zr gave
	headLen    int64
	headSum    uint64

	readOffset atomic.Int64 // offset, for whoever asks for the lag
}

// openProducer asks the shipper where to go on. Lines of an earlier file that were begun but not ended there, and that the chain has put
// into f.pend, are ended in this one only if it has not got beyond its own beginning: while one is open, From stays 0.
func (f *file) openProducer(ship collector.Shipper, container string, bud *budget) {
	f.lane = ship.File("log/" + container + "/" + f.id.String())
	m, ok := f.lane.Resume()
	if !ok {
		return
	}
	f.resumeEnd = m.End
	f.offset = m.ReadFrom
	f.readOffset.Store(m.ReadFrom)
	if m.ReadFrom > 0 {
		for i := range f.pending {
			f.pending[i].discardLine(bud)
		}
	}
}

// readIdentity names f, if its first record is there, and keeps what it begins with, to notice that it was overwritten.
func (f *file) readIdentity(final bool) bool {
	id, at, head, ok := identify(f.file, f.handle, final)
	if !ok {
		return false
	}
	f.id, f.identified = id, true
	if at == 0 {
		head = head[:min(len(head), 256)]
		f.headLen, f.headSum = int64(len(head)), xxh3.Hash(head)
	}
	return true
}

// isTruncated tells that the file is shorter than what was read of it, or begins with other bytes: it was truncated in place.
func (f *file) isTruncated() bool {
	if f.gz {
		return false
	}
	if fi, err := f.file.Stat(); err == nil && fi.Size() < f.offset {
		return true
	}
	if f.headLen == 0 {
		return false
	}
	var b [256]byte
	n, err := f.file.ReadAt(b[:f.headLen], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return xxh3.Hash(b[:n]) != f.headSum
}

// readAt reads into b from the uncompressed offset at. Of a compressed file it goes back only where a line could not be shipped: then it
// is uncompressed from its front again.
func (f *file) readAt(b []byte, at int64) (int, error) {
	if !f.gz {
		return f.file.ReadAt(b, at)
	}
	if f.gzipReader != nil && f.gzipOffset > at {
		_ = f.gzipReader.Close()
		f.gzipReader = nil
	}
	if f.gzipReader == nil {
		zr, err := gzip.NewReader(io.NewSectionReader(f.file, 0, 1<<62))
		if err != nil {
			return 0, fmt.Errorf("read compressed log: %w", err)
		}
		f.gzipReader, f.gzipOffset = zr, 0
	}
	if f.gzipOffset < at {
		n, err := io.CopyN(io.Discard, f.gzipReader, at-f.gzipOffset)
		f.gzipOffset += n
		if err != nil {
			return 0, err
		}
	}
	n, err := io.ReadFull(f.gzipReader, b)
	f.gzipOffset += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) && n < len(b) {
		// ReadFull says this of a short end; a broken stream says so again when it is read on.
		if _, again := f.gzipReader.Read(b[:0]); again == nil || errors.Is(again, io.EOF) {
			err = io.EOF
		}
	}
	return n, err
}

// isFullyRead tells, without uncompressing it, that a compressed file was read to its end in an earlier life: its last four bytes are
// its length, modulo 2^32.
func (f *file) isFullyRead() bool {
	if !f.gz || f.resumeEnd == 0 || f.offset < f.resumeEnd {
		return false
	}
	fi, err := f.file.Stat()
	if err != nil || fi.Size() < 4 {
		return false
	}
	var b [4]byte
	if _, err := f.file.ReadAt(b[:], fi.Size()-4); err != nil {
		return false
	}
	return binary.LittleEndian.Uint32(b[:]) == uint32(f.resumeEnd)
}

// closeFile gives the descriptor back.
func (f *file) closeFile(b *budget) {
	if f.gzipReader != nil {
		_ = f.gzipReader.Close()
		f.gzipReader = nil
	}
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
		b.openFiles.Add(-1)
	}
}

// unreadBytes is how many bytes of f were not read yet; a compressed one counts as it lies on the disk.
func (f *file) unreadBytes() int64 {
	if f.file == nil || f.done {
		return 0
	}
	fi, err := f.file.Stat()
	if err != nil {
		return 0
	}
	if f.gz {
		return fi.Size()
	}
	return max(0, fi.Size()-f.readOffset.Load())
}

// openLog opens a file of a container's folder to be read. What is no regular file is refused: a pipe would never end.
func openLog(dir, name string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
