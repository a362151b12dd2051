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
	handle string
	alias  string // handle of its compressed copy
	name   string // in the folder; "" once it has none
	f      *os.File
	gz     bool
	id     identity
	named  bool // id is known
	lane   collector.Lane
	sealed bool
	hidden bool      // no name of it was found, but there was one that could not be opened
	done   bool      // read to its end; only its lane is kept, until the file is gone
	missed time.Time // since when a file that is done was not seen in the folder

	seen    int64 // up to where its bytes were looked at: a record that is not complete is not read yet
	offset  int64 // of the next byte to be read, within the uncompressed bytes
	resume  int64 // Mark.At of an earlier life: what is numbered up to here has been shipped
	time    int64 // of the last record
	pend    [streams]pending
	zr      *gzip.Reader
	broken  error // why it could not be read on
	zat     int64 // uncompressed bytes that zr gave
	headLen int64
	headSum uint64

	read atomic.Int64 // offset, for whoever asks for the lag
}

// opened asks the shipper where to go on. Lines of an earlier file that were begun but not ended there, and that the chain has put
// into f.pend, are ended in this one only if it has not got beyond its own beginning: while one is open, From stays 0.
func (f *file) opened(ship collector.Shipper, container string, bud *budget) {
	f.lane = ship.Lane("log/" + container + "/" + f.id.String())
	m, ok := f.lane.Resume()
	if !ok {
		return
	}
	f.resume = m.At
	f.offset = m.From
	f.read.Store(m.From)
	if m.From > 0 {
		for i := range f.pend {
			f.pend[i].clear(bud)
		}
	}
}

// identify names f, if its first record is there, and keeps what it begins with, to notice that it was overwritten.
func (f *file) identify(final bool) bool {
	id, at, head, ok := identify(f.f, f.handle, final)
	if !ok {
		return false
	}
	f.id, f.named = id, true
	if at == 0 {
		head = head[:min(len(head), 256)]
		f.headLen, f.headSum = int64(len(head)), xxh3.Hash(head)
	}
	return true
}

// overwritten tells that the file is shorter than what was read of it, or begins with other bytes: it was truncated in place.
func (f *file) overwritten() bool {
	if f.gz {
		return false
	}
	if fi, err := f.f.Stat(); err == nil && fi.Size() < f.offset {
		return true
	}
	if f.headLen == 0 {
		return false
	}
	var b [256]byte
	n, err := f.f.ReadAt(b[:f.headLen], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return xxh3.Hash(b[:n]) != f.headSum
}

// fill reads into b from the uncompressed offset at. Of a compressed file it goes back only where a line could not be shipped: then it
// is uncompressed from its front again.
func (f *file) fill(b []byte, at int64) (int, error) {
	if !f.gz {
		return f.f.ReadAt(b, at)
	}
	if f.zr != nil && f.zat > at {
		_ = f.zr.Close()
		f.zr = nil
	}
	if f.zr == nil {
		zr, err := gzip.NewReader(io.NewSectionReader(f.f, 0, 1<<62))
		if err != nil {
			return 0, fmt.Errorf("read compressed log: %w", err)
		}
		f.zr, f.zat = zr, 0
	}
	if f.zat < at {
		n, err := io.CopyN(io.Discard, f.zr, at-f.zat)
		f.zat += n
		if err != nil {
			return 0, err
		}
	}
	n, err := io.ReadFull(f.zr, b)
	f.zat += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) && n < len(b) {
		// ReadFull says this of a short end; a broken stream says so again when it is read on.
		if _, again := f.zr.Read(b[:0]); again == nil || errors.Is(again, io.EOF) {
			err = io.EOF
		}
	}
	return n, err
}

// consumed tells, without uncompressing it, that a compressed file was read to its end in an earlier life: its last four bytes are
// its length, modulo 2^32.
func (f *file) consumed() bool {
	if !f.gz || f.resume == 0 || f.offset < f.resume {
		return false
	}
	fi, err := f.f.Stat()
	if err != nil || fi.Size() < 4 {
		return false
	}
	var b [4]byte
	if _, err := f.f.ReadAt(b[:], fi.Size()-4); err != nil {
		return false
	}
	return binary.LittleEndian.Uint32(b[:]) == uint32(f.resume)
}

// close gives the descriptor back.
func (f *file) close(b *budget) {
	if f.zr != nil {
		_ = f.zr.Close()
		f.zr = nil
	}
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
		b.open.Add(-1)
	}
}

// lag is how many bytes of f were not read yet; a compressed one counts as it lies on the disk.
func (f *file) lag() int64 {
	if f.f == nil || f.done {
		return 0
	}
	fi, err := f.f.Stat()
	if err != nil {
		return 0
	}
	if f.gz {
		return fi.Size()
	}
	return max(0, fi.Size()-f.read.Load())
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
