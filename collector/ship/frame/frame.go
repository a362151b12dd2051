// Package frame is the file format that the journal and the spool share: a file header with a magic and a
// version, and frames, one behind the other.
//
//	file header   magic 6, version 2
//	frame         marker 3, kind 1, length 4, CRC of the payload 4, CRC of the 12 bytes before 4, payload
//
// Numbers are little endian, CRCs are CRC-32C. The head of a frame has a CRC of its own: a frame whose
// payload is damaged is left out as a whole, and the next one is found without looking into the payload,
// which holds text that others wrote. Where a head is damaged too, the Scanner looks for the next marker
// with an intact head.
//
// A writer that is killed leaves an incomplete last frame, which the Scanner reports as such.
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

// ErrDamaged is matched by the error of Read when the payload is not what was written.
var ErrDamaged = errors.New("damaged")

// A File is what the journal and the spool need of an *os.File. Tests replace it to simulate a disk that is
// full.
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

// CheckFileHeader returns an error unless header begins with that magic and version.
func CheckFileHeader(header []byte, magic string, version uint16) error {
	if len(header) < FileHeaderSize || string(header[:magicSize]) != magic {
		return fmt.Errorf("not a file of this kind, or of a version before %d", version)
	}
	if found := binary.LittleEndian.Uint16(header[magicSize:]); found != version {
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

// Reserve appends room for the head of a frame to buf. The caller appends the payload and calls Seal with the
// length that buf had before.
func Reserve(buf []byte) []byte { return append(buf, make([]byte, HeadSize)...) }

// Seal fills in the head at offset at of the frame whose payload is everything behind the head.
func Seal(buf []byte, at int, kind byte) {
	head, payload := buf[at:at+HeadSize], buf[at+HeadSize:]
	copy(head, marker)
	head[3] = kind
	binary.LittleEndian.PutUint32(head[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(payload, castagnoli))
	binary.LittleEndian.PutUint32(head[12:], crc32.Checksum(head[:12], castagnoli))
}

// A Frame is a frame whose head is intact.
type Frame struct {
	Kind     byte
	Offset   int64 // of the payload
	Length   int
	Complete bool // the file does not end before the frame does

	crc uint32 // of the payload
}

// Read returns the payload. The error matches ErrDamaged when it is not what was written; other errors, such
// as that of a file that was closed, say nothing about it.
func (f Frame) Read(r io.ReaderAt) ([]byte, error) {
	payload := make([]byte, f.Length)
	if n, err := r.ReadAt(payload, f.Offset); n < f.Length {
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

// SealedFrame returns the Frame of a sealed frame that lies at offset at of buf and at fileOffset in a file.
func SealedFrame(buf []byte, at int, fileOffset int64) Frame {
	written, _ := parseHead(buf[at:])
	written.Offset, written.Complete = fileOffset+HeadSize, true
	return written
}

// parseHead reads the head of a frame, without its place.
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
	offset  int64 // everything before it belongs to a frame that was returned, or was skipped
	size    int64
	skipped int64
	search  []byte // buffer of nextMarker
}

// NewScanner returns a Scanner of a file of that size that begins behind the header of the file.
func NewScanner(file io.ReaderAt, size int64) *Scanner {
	return &Scanner{file: file, offset: FileHeaderSize, size: size}
}

// Next returns the next frame whose head is intact. It reports false at the end of the file. A frame that is
// not complete is the last one.
func (s *Scanner) Next() (Frame, bool) {
	var head [HeadSize]byte
	for s.offset < s.size {
		n, _ := s.file.ReadAt(head[:min(HeadSize, s.size-s.offset)], s.offset)
		if found, ok := parseHead(head[:n]); ok {
			found.Offset = s.offset + HeadSize
			end := found.Offset + int64(found.Length)
			// An intact head says where the frame ends, so its payload is never searched. Behind a frame that
			// is not complete there is nothing.
			if found.Complete = end <= s.size; !found.Complete {
				s.skipped += s.size - s.offset
				end = s.size
			}
			s.offset = end
			return found, true
		}

		// No head: look for the next one, from the byte behind.
		next := s.nextMarker(s.offset + 1)
		s.skipped += next - s.offset
		s.offset = next
	}
	return Frame{}, false
}

// Skipped returns how many bytes belong to no frame that was complete.
func (s *Scanner) Skipped() int64 { return s.skipped }

// nextMarker returns the offset of the first marker at or behind offset, or the size of the file.
func (s *Scanner) nextMarker(offset int64) int64 {
	if s.search == nil {
		s.search = make([]byte, 64<<10)
	}
	for offset < s.size {
		n, _ := s.file.ReadAt(s.search[:min(int64(len(s.search)), s.size-offset)], offset)
		if n < len(marker) {
			return s.size
		}
		if i := bytes.Index(s.search[:n], marker); i >= 0 {
			return offset + int64(i)
		}
		offset += int64(n - len(marker) + 1) // a marker may lie across the end of the buffer
	}
	return s.size
}
