package tail

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"tidegate/collector/logs/decode"
)

// An Identity identifies a log file: it is a hash of the file's first record and of the offset of that
// record. It does not change when the file is renamed, copied or compressed.
//
// A record of a Dated format occurs once, so that its hash is unique. The first line of a text file need not
// be unique: a program may write the same line at each start. The second file of a log that begins with the
// same line therefore adds its file handle (openProducer).
type Identity [16]byte

// String returns the identity in hexadecimal digits.
func (id Identity) String() string { return hex.EncodeToString(id[:]) }

// parseIdentity returns the identity that String has written.
func parseIdentity(text string) (id Identity, ok bool) {
	digits, err := hex.DecodeString(text)
	return id, err == nil && copy(id[:], digits) == len(id) && len(digits) == len(id)
}

// withHandle returns the identity of a file with that handle whose first record is that of id.
func (id Identity) withHandle(handle string) Identity {
	return xxh3.Hash128(append(id[:len(id):len(id)], handle...)).Bytes()
}

const (
	firstRead      = 4096    // bytes that are read first to find the first record
	maxLeadingNULs = 1 << 30 // a file that begins with more NULs has no identity
)

// readIdentity identifies f if its first record is complete, or if f is final: nothing will be added to it.
// Tailer.mu is held.
func (f *file) readIdentity(format decode.Format, final bool) bool {
	head, ok := readHead(f.file, final)
	if ok {
		f.setIdentity(head, format)
	}
	return ok
}

// setIdentity identifies f by its first record. Tailer.mu is held.
func (f *file) setIdentity(head fileHead, format decode.Format) {
	f.id = head.identity()
	f.firstRecord, f.identified = f.id, true
	f.unique = format.Dated && head.isDated(format.New())
	if head.start == 0 {
		f.extendSample(head.record[:min(len(head.record), maxSample)], int64(min(len(head.record), maxSample)))
	}
}

// candidateIDs returns the identities that f may have had in an earlier process, from the rarest to the first
// record alone. f is identified.
func (f *file) candidateIDs() []Identity {
	if f.unique {
		return []Identity{f.id}
	}
	second := f.firstRecord.withHandle(f.handle)
	return []Identity{second.withHandle(f.handle), second, f.firstRecord}
}

// A fileHead is the first record of a file, with its newline if it has one, and the offset of the record.
type fileHead struct {
	start  int64
	record []byte
}

// identity returns the hash of the record and of its offset.
func (h fileHead) identity() Identity {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, len(h.record)+8), uint64(h.start))
	return xxh3.Hash128(append(b, h.record...)).Bytes()
}

// isDated reports whether the record is complete and has a time.
func (h fileHead) isDated(decoder decode.Decoder) bool {
	text, whole := bytes.CutSuffix(bytes.Clone(h.record), []byte("\n"))
	var record decode.Record
	isRecord, _ := decodeSafely(decoder, text, &record)
	return whole && isRecord && record.Time != 0
}

// readHead returns the first record of a file. ok is false while the record is incomplete; of a final file an
// incomplete record is returned.
func readHead(readerAt io.ReaderAt, final bool) (head fileHead, ok bool) {
	start, err := skipNULs(readerAt)
	if err != nil {
		return fileHead{}, false
	}

	// Most first records are short: read a little, and more only if no newline was found.
	for size := firstRead; ; size *= 4 {
		buf := make([]byte, min(size, maxRecord))
		length, err := readerAt.ReadAt(buf, start)
		if length == 0 || err != nil && !errors.Is(err, io.EOF) {
			return fileHead{}, false
		}
		if i := bytes.IndexByte(buf[:length], '\n'); i >= 0 {
			return fileHead{start, buf[:i+1]}, true
		}
		if length == maxRecord || errors.Is(err, io.EOF) && final {
			return fileHead{start, buf[:length]}, true
		}
		if errors.Is(err, io.EOF) {
			return fileHead{}, false
		}
	}
}

// skipNULs returns the offset of the first byte that is not NUL. A crash of the host may leave any number of
// NULs at the front.
func skipNULs(readerAt io.ReaderAt) (offset int64, err error) {
	buf := make([]byte, 1)
	for offset < maxLeadingNULs {
		size, err := readerAt.ReadAt(buf, offset)
		if size == 0 {
			return offset, err
		}
		if nuls := countNULs(buf[:size]); nuls < size {
			return offset + int64(nuls), nil
		}
		offset += int64(size)
		if len(buf) < 64<<10 {
			buf = make([]byte, 16*len(buf))
		}
	}
	return offset, io.EOF
}

// readGzipIdentity identifies a compressed file by its uncompressed bytes. Tailer.mu is held.
func (f *file) readGzipIdentity(format decode.Format) bool {
	reader, err := gzip.NewReader(io.NewSectionReader(f.file, 0, 1<<62))
	if err != nil {
		return false
	}
	defer reader.Close()

	// Uncompress until the first newline behind the leading NULs, or 2*maxRecord bytes.
	var buf bytes.Buffer
	for buf.Len() < 2*maxRecord {
		n, err := io.CopyN(&buf, reader, firstRead)
		if n == 0 || err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if i := countNULs(buf.Bytes()); bytes.IndexByte(buf.Bytes()[i:], '\n') >= 0 {
			break
		}
	}
	head, ok := readHead(bytes.NewReader(buf.Bytes()), true)
	if ok {
		f.setIdentity(head, format)
	}
	return ok
}

// isCompressedAs reports whether gz is the compressed copy of f: both begin with the same record and, if that
// record is not unique, have the same length. Tailer.mu is held.
func (f *file) isCompressedAs(gz *file, format decode.Format) bool {
	if !f.identified && (f.file == nil || !f.readIdentity(format, false)) || f.firstRecord != gz.firstRecord {
		return false
	}
	if f.unique || f.gz {
		return f.unique
	}
	if f.released {
		return gz.isCopyOf(f) // it may have grown since it was looked at
	}
	// The size of a file that is done is its read offset: its descriptor is closed.
	size := f.readOffset.Load()
	if f.file != nil {
		info, err := f.file.Stat()
		if err != nil {
			return false
		}
		size = info.Size()
	}
	return gz.gzipSizeIs(size)
}

// handleAt returns a value that identifies a file among all that ever were in its folder: the file handle
// (inode and generation) if the file system has handles, else device, inode and birth time. With an empty
// name, the file is that of the descriptor dirfd.
func handleAt(dirfd int, name string) (string, error) {
	// The file handle, of a link itself and not of its target.
	flags := 0
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	fileHandle, _, err := unix.NameToHandleAt(dirfd, name, flags)
	if err == nil {
		b := binary.BigEndian.AppendUint32(nil, uint32(fileHandle.Type()))
		return string(append(b, fileHandle.Bytes()...)), nil
	}

	// The file system has no handles. The birth time distinguishes files that had the same inode.
	var st unix.Statx_t
	if name != "" {
		flags = unix.AT_SYMLINK_NOFOLLOW
	}
	if err := unix.Statx(dirfd, name, flags, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", err
	}
	data := append([]byte{'x'}, make([]byte, 0, 40)...)
	for _, number := range [...]uint64{
		uint64(st.Dev_major), uint64(st.Dev_minor), st.Ino, uint64(st.Btime.Sec), uint64(st.Btime.Nsec),
	} {
		data = binary.BigEndian.AppendUint64(data, number)
	}
	return string(data), nil
}
