// Package frame reads and writes the file format of the journal and the spool: a file header with a magic and
// a version, followed by frames.
//
//	file header   magic 6, version 2
//	frame         marker 3, kind 1, length 4, CRC of the payload 4, CRC of the 12 bytes before 4, payload
//
// Numbers are little endian, CRCs are CRC-32C. The head of a frame has a CRC of its own, so that the length
// of a frame can be trusted although its payload is damaged. The Scanner then skips the payload instead of
// searching it for markers: the payload holds text from outside, which may contain forged frames. If a head
// is damaged, the Scanner searches for the next marker with an intact head.
//
// A writer that is killed may leave an incomplete last frame, which the Scanner marks as incomplete.
package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	// FileHeaderSize is the size of the header of a file.
	FileHeaderSize = magicSize + 2
	magicSize      = 6

	// HeadSize is the number of bytes in front of the payload of a frame.
	HeadSize = 16

	// MaxLength is the longest payload.
	MaxLength = 16 << 20
)

var (
	marker     = []byte{0xF7, 'T', 'G'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// ErrDamaged is matched by the error of Read when the payload differs from the bytes that were written.
var ErrDamaged = errors.New("damaged")

// A File is the part of *os.File that the journal and the spool use. Tests wrap it to simulate a full disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// AppendFileHeader appends the header of a file to buf. magic has 6 bytes.
func AppendFileHeader(buf []byte, magic string, version uint16) []byte {
	buf = append(buf, magic[:magicSize]...)
	return binary.LittleEndian.AppendUint16(buf, version)
}

// textVersion1 is the version in the first files, which had "1\n" behind the magic, and no frames.
const textVersion1 = '1' | '\n'<<8

// The reasons for which CheckFileHeader rejects the header of a file.
var (
	ErrNewer   = errors.New("written by a newer version of this program")
	ErrForeign = errors.New("not a file of this kind, or its head is damaged")
)

// CheckFileHeader returns an error if header does not begin with that magic and version. It matches ErrNewer if
// the version is higher, and ErrForeign if the magic is another one: there may be intact frames behind it.
func CheckFileHeader(header []byte, magic string, version uint16) error {
	if len(header) < FileHeaderSize || string(header[:magicSize]) != magic {
		return ErrForeign
	}
	found := binary.LittleEndian.Uint16(header[magicSize:])
	if found == textVersion1 {
		found = 1
	}
	if found > version {
		return fmt.Errorf("%w: version %d of the file format, this program reads version %d", ErrNewer, found, version)
	}
	if found != version {
		return fmt.Errorf("version %d of the file format, this program reads version %d", found, version)
	}
	return nil
}

// Append appends a frame with that payload to buf.
func Append(buf []byte, kind byte, payload []byte) []byte {
	at := len(buf)
	buf = append(Reserve(buf), payload...)
	Seal(buf, at, kind)
	return buf
}

// Reserve appends space for the head of a frame to buf. The caller then appends the payload and calls Seal
// with the length that buf had before Reserve.
func Reserve(buf []byte) []byte { return append(buf, make([]byte, HeadSize)...) }

// Seal writes the head of a frame at offset at of buf. The payload of the frame is the rest of buf.
func Seal(buf []byte, at int, kind byte) {
	head, payload := buf[at:at+HeadSize], buf[at+HeadSize:]
	copy(head, marker)
	head[3] = kind
	binary.LittleEndian.PutUint32(head[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(head[12:], crc32.Checksum(head[:12], castagnoli))
}

// A Frame is the position of a frame whose head is intact.
type Frame struct {
	Kind     byte
	Offset   int64 // of the payload
	Length   int
	Complete bool // false: the file ends within the frame

	crc uint32 // of the payload
}

// Read returns the payload. The error matches ErrDamaged if the payload is damaged for good. Other errors,
// such as that of a closed file, are errors of this read only.
func (f Frame) Read(r io.ReaderAt) ([]byte, error) {
	payload := make([]byte, f.Length)
	if size, err := r.ReadAt(payload, f.Offset); size < f.Length {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the file ends within a frame", ErrDamaged)
		}
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli) != f.crc {
		return nil, fmt.Errorf("%w: wrong checksum at offset %d", ErrDamaged, f.Offset)
	}
	return payload, nil
}

// SealedFrame returns the Frame of the sealed frame at offset at of buf, which was written at fileOffset of a
// file.
func SealedFrame(buf []byte, at int, fileOffset int64) Frame {
	written, _ := parseHead(buf[at:])
	written.Offset, written.Complete = fileOffset+HeadSize, true
	return written
}

// parseHead reads the head of a frame. It returns false if head is too short or damaged.
func parseHead(head []byte) (frame Frame, ok bool) {
	if len(head) < HeadSize || !bytes.HasPrefix(head, marker) {
		return frame, false
	}
	if crc32.Checksum(head[:12], castagnoli) != binary.LittleEndian.Uint32(head[12:]) {
		return frame, false
	}
	frame.Kind = head[3]
	length := binary.LittleEndian.Uint32(head[4:])
	frame.Length = int(length)
	frame.crc = binary.LittleEndian.Uint32(head[8:])
	return frame, length <= MaxLength
}

// A Scanner finds the frames of a file.
type Scanner struct {
	file    io.ReaderAt
	offset  int64 // position of the scan: the bytes before it are in returned frames or were skipped
	size    int64
	skipped int64
	search  []byte // read buffer of nextMarker
}

// NewScanner returns a Scanner for a file of that size. It starts behind the file header.
func NewScanner(file io.ReaderAt, size int64) *Scanner {
	return &Scanner{file: file, offset: FileHeaderSize, size: size}
}

// ScanAll returns a Scanner that starts at the front of a file, whose header is damaged or missing.
func ScanAll(file io.ReaderAt, size int64) *Scanner { return &Scanner{file: file, size: size} }

// Next returns the next frame with an intact head, or false at the end of the file. An incomplete frame is
// the last one.
func (s *Scanner) Next() (Frame, bool) {
	var head [HeadSize]byte
	for s.offset < s.size {
		size, _ := s.file.ReadAt(head[:min(HeadSize, s.size-s.offset)], s.offset)
		if found, ok := parseHead(head[:size]); ok {
			found.Offset = s.offset + HeadSize
			end := found.Offset + int64(found.Length)
			// The scan continues behind the payload. An incomplete frame reaches to the end of the file.
			if found.Complete = end <= s.size; !found.Complete {
				s.skipped += s.size - s.offset
				end = s.size
			}
			s.offset = end
			return found, true
		}

		// No intact head at offset: search for the next marker behind it.
		next := s.nextMarker(s.offset + 1)
		s.skipped += next - s.offset
		s.offset = next
	}
	return Frame{}, false
}

// Skipped returns the number of bytes that are in no complete frame.
func (s *Scanner) Skipped() int64 { return s.skipped }

// nextMarker returns the offset of the first marker at or behind offset, or the size of the file.
func (s *Scanner) nextMarker(offset int64) int64 {
	if s.search == nil {
		s.search = make([]byte, 64<<10)
	}
	for offset < s.size {
		size, _ := s.file.ReadAt(s.search[:min(int64(len(s.search)), s.size-offset)], offset)
		if size < len(marker) {
			return s.size
		}
		if i := bytes.Index(s.search[:size], marker); i >= 0 {
			return offset + int64(i)
		}
		offset += int64(size - len(marker) + 1) // a marker may extend over the end of the buffer
	}
	return s.size
}
