package logs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// An identity names a log file for ever: by its first record, wherever its bytes lie and in whatever form.
type identity [16]byte

func (id identity) String() string { return hex.EncodeToString(id[:]) }

const (
	firstRead      = 4096    // what is read first for the first record
	maxLeadingNULs = 1 << 30 // a file that begins with more NULs than that is named by nothing
)

// identify reads the identity of a file, and the first record with the place where it begins. The whole record counts: its time is
// at its end. ok is false while it is not there as a whole; a file that is final has what it has. handle tells apart files that do
// not begin with a record, which need not be unique.
func identify(r io.ReaderAt, handle string, final bool) (id identity, at int64, head []byte, ok bool) {
	at, err := skipNULs(r)
	if err != nil {
		return id, 0, nil, false
	}
	whole := false
	for size := firstRead; ; size *= 4 {
		buf := make([]byte, min(size, recordMax))
		n, err := r.ReadAt(buf, at)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			return id, 0, nil, false
		}
		head = buf[:n]
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			head, whole = head[:i+1], true
			break
		}
		if n == recordMax || errors.Is(err, io.EOF) && final {
			break
		}
		if errors.Is(err, io.EOF) {
			return id, 0, nil, false
		}
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, len(head)+64), uint64(at))
	b = append(b, head...)
	var rec record
	var c timeParser
	if !whole || !rec.parse(bytes.Clone(head[:len(head)-1]), &c) || rec.time == 0 {
		b = append(b, handle...)
	}
	return xxh3.Hash128(b).Bytes(), at, head, true
}

// skipNULs tells where the first byte is that is not NUL: a host that crashed may have left any number of them.
func skipNULs(r io.ReaderAt) (at int64, err error) {
	buf := make([]byte, 1)
	for at < maxLeadingNULs {
		n, err := r.ReadAt(buf, at)
		if n == 0 {
			return at, err
		}
		if k := countNULs(buf[:n]); k < n {
			return at + int64(k), nil
		}
		at += int64(n)
		if len(buf) < 64<<10 {
			buf = make([]byte, 16*len(buf))
		}
	}
	return at, io.EOF
}

// identifyGzip does the same for the uncompressed bytes of a compressed file.
func identifyGzip(f *os.File, handle string) (identity, bool) {
	z, err := gzip.NewReader(io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		return identity{}, false
	}
	defer z.Close()
	// NULs and the first record, if they are not longer than two records may be.
	var buf bytes.Buffer
	for buf.Len() < 2*recordMax {
		n, err := io.CopyN(&buf, z, firstRead)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if i := countNULs(buf.Bytes()); bytes.IndexByte(buf.Bytes()[i:], '\n') >= 0 {
			break
		}
	}
	id, _, _, ok := identify(bytes.NewReader(buf.Bytes()), handle, true)
	return id, ok
}

// handleAt tells the files of a folder apart: inode and generation where the file system has
// handles, else device, inode and time of birth. With an empty name it is the file behind dirfd.
func handleAt(dirfd int, name string) (string, error) {
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(dirfd, name, flags)
	if err == nil {
		b := binary.BigEndian.AppendUint32(nil, uint32(h.Type()))
		return string(append(b, h.Bytes()...)), nil
	}
	var st unix.Statx_t
	if name != "" {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	if err := unix.Statx(dirfd, name, flags, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	b := append([]byte{'x'}, make([]byte, 0, 40)...)
	for _, n := range [...]uint64{uint64(st.Dev_major), uint64(st.Dev_minor), st.Ino, uint64(st.Btime.Sec), uint64(st.Btime.Nsec)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return string(b), nil
}
