package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
)

// A snappyReader decompresses Snappy: blocks behind the header of xerial's framing, or one block alone. The lengths
// that the data states are checked before memory is allocated for them: five bytes can state 4 GiB.
type snappyReader struct {
	in     io.Reader
	blocks []byte // those that are still to be decompressed
	framed bool   // each has its length before it
	read   bool   // in was read
	output []byte // decompressed bytes that were not returned yet
}

// xerialHeader begins framed data. Two version numbers of four bytes follow, which no reader looks at.
var xerialHeader = []byte("\x82SNAPPY\x00")

const xerialHeaderSize = 16

// maxSnappyRatio is more than the format allows: an element of three bytes repeats 64 bytes.
const maxSnappyRatio = 32

var errSnappyBlock = errors.New("a block is longer than the data")

func openSnappy(in io.Reader) io.ReadCloser { return &snappyReader{in: in} }

// Read implements io.Reader.
func (s *snappyReader) Read(data []byte) (int, error) {
	if !s.read {
		var err error
		if s.blocks, err = io.ReadAll(s.in); err != nil {
			return 0, err
		}
		s.read = true
		if bytes.HasPrefix(s.blocks, xerialHeader) && len(s.blocks) >= xerialHeaderSize {
			s.framed, s.blocks = true, s.blocks[xerialHeaderSize:]
		}
	}
	for len(s.output) == 0 {
		if len(s.blocks) == 0 {
			return 0, io.EOF
		}
		if err := s.nextBlock(); err != nil {
			return 0, err
		}
	}
	copied := copy(data, s.output)
	s.output = s.output[copied:]
	return copied, nil
}

// nextBlock decompresses the next block.
func (s *snappyReader) nextBlock() error {
	block := s.blocks
	s.blocks = nil
	if s.framed {
		if len(block) < 4 {
			return errSnappyBlock
		}
		length := uint64(binary.BigEndian.Uint32(block))
		block = block[4:]
		if length > uint64(len(block)) {
			return errSnappyBlock
		}
		block, s.blocks = block[:length], block[length:]
	}
	length, err := snappy.DecodedLen(block)
	if err != nil {
		return err
	}
	if length > maxSnappyRatio*len(block) || length > maxInflated {
		return fmt.Errorf("a block of %d bytes states %d", len(block), length)
	}
	s.output, err = snappy.Decode(nil, block)
	return err
}

// Close implements io.Closer.
func (s *snappyReader) Close() error { return nil }
