package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// A framer is an io.Reader over a capture file that returns one checked record after another. It skips all
// blocks of a pcapng file except sections, interfaces and packets, and all options. It computes the times of packets.
//
// A call of Read never crosses the end of a record. So the buffer of pcapgo never holds a later record, and
// the interfaces of a section are still valid when the last packet of the section is returned.
type framer struct {
	in      *bufio.Reader
	gzipped bool
	pcapng  bool
	order   binary.ByteOrder
	link    uint32 // link type of a pcap file

	recordStart int64 // offset of the current record
	recordEnd   int64 // offset of the next record
	record      []byte
	unread      []byte // part of record that Read has not returned yet
	err         error  // ended reading

	interfaces []fileInterface
	time       int64 // time of the last packet block of a pcapng file, ns since 1970; 0: it has none
}

// A fileInterface is an interface that a pcapng section declares.
type fileInterface struct {
	link          uint32
	name          string
	unitsASecond  uint64 // units of time stamps in a second, by if_tsresol
	offsetSeconds int64  // added to time stamps, by if_tsoffset
}

// timeOf returns the time of a time stamp, ns since 1970; 0: it is outside of the range of int64. pcapgo is not
// used for it: it divides the units of a binary resolution by whole nanoseconds.
func (i *fileInterface) timeOf(stamp uint64) int64 {
	seconds := int64(stamp/i.unitsASecond) + i.offsetSeconds
	high, low := bits.Mul64(stamp%i.unitsASecond, 1e9)
	nanoseconds, _ := bits.Div64(high, low, i.unitsASecond)
	if seconds < math.MinInt64/1_000_000_000+1 || seconds > math.MaxInt64/1_000_000_000-1 {
		return 0
	}
	return seconds*1e9 + int64(nanoseconds)
}

// Bounds on sizes and counts in a file. maxPacket is the largest snapshot length of tcpdump.
const (
	maxPacket     = 256 << 10
	maxBlock      = maxPacket + 64<<10
	maxInterfaces = 4096
)

var (
	errTruncated = errors.New("the file is truncated")
	errMalformed = errors.New("the file is malformed")
)

// Read implements io.Reader. It returns bytes of one record only.
func (f *framer) Read(data []byte) (int, error) {
	if len(f.unread) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.err = f.readRecord(); f.err != nil {
			return 0, f.err
		}
	}
	copied := copy(data, f.unread)
	f.unread = f.unread[copied:]
	return copied, nil
}

// readRecord reads the next record into f.unread.
func (f *framer) readRecord() error {
	f.recordStart = f.recordEnd
	if f.pcapng {
		return f.readBlock()
	}
	return f.readPacket()
}

// readBytes appends the next size bytes of the file to the record and returns them. At the end of the file it
// returns io.EOF if first is set and no byte was read, else errTruncated.
func (f *framer) readBytes(size int, first bool) ([]byte, error) {
	// Grow the record, and read into its end.
	from := len(f.record)
	if cap(f.record) < from+size {
		f.record = append(make([]byte, 0, from+size+4096), f.record...)
	}
	f.record = f.record[:from+size]
	got, err := io.ReadFull(f.in, f.record[from:])
	f.recordEnd += int64(got)
	switch {
	case err == nil:
		return f.record[from:], nil
	case errors.Is(err, io.EOF) && first:
		return nil, io.EOF
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errTruncated
	}
	return nil, fmt.Errorf("%w: %w", errMalformed, err)
}

// pcapOrder returns the byte order of a pcap file from its first four bytes, or nil if the file is not pcap.
func pcapOrder(magic []byte) binary.ByteOrder {
	for _, order := range [...]binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if number := order.Uint32(magic); number == 0xa1b2c3d4 || number == 0xa1b23c4d {
			return order
		}
	}
	return nil
}

// readFileHeader reads the header of a pcap file. It replaces the snapshot length by maxPacket, because many
// files hold packets that are longer than the snapshot length of the file.
func (f *framer) readFileHeader() error {
	data, err := f.readBytes(24, false)
	if err != nil {
		return err
	}
	f.link = f.order.Uint32(data[20:]) & 0xffff // the upper bits describe the frame check sequence
	f.order.PutUint32(data[16:], maxPacket)
	f.unread = data
	return nil
}

// readPacket reads a packet record of pcap.
func (f *framer) readPacket() error {
	f.record = f.record[:0]
	data, err := f.readBytes(16, true)
	if err != nil {
		return err
	}

	// pcapgo rejects a packet that is longer than its length on the wire, so the latter is corrected.
	size, length := f.order.Uint32(data[8:]), f.order.Uint32(data[12:])
	if size > maxPacket {
		return fmt.Errorf("%w: a packet of %d bytes", errMalformed, size)
	}
	if length < size {
		f.order.PutUint32(data[12:], size)
	}
	if _, err := f.readBytes(int(size), false); err != nil {
		return err
	}
	f.unread = f.record
	return nil
}

// Block types of pcapng. Source: draft-ietf-opsawg-pcapng, section 11.1.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2
	blockSimple    = 3
	blockEnhanced  = 6
)

// readBlock reads the next block of pcapng that pcapgo needs, and skips the blocks before it.
func (f *framer) readBlock() error {
	for {
		f.recordStart = f.recordEnd
		f.record = f.record[:0]
		data, err := f.readBytes(8, true)
		if err != nil {
			return err
		}

		// A section determines the byte order of its blocks, so its order is read before its length. The type
		// of a section reads the same in both byte orders.
		section := binary.LittleEndian.Uint32(data) == blockSection
		if section {
			if err := f.readSectionOrder(); err != nil {
				return err
			}
		}
		data = f.record
		typ, size := f.order.Uint32(data), f.order.Uint32(data[4:])
		if size%4 != 0 || size < 12 {
			return fmt.Errorf("%w: a block of %d bytes", errMalformed, size)
		}

		// Skip a block that pcapgo does not need, of any size. Bound the size of the others.
		rest := int64(size) - int64(len(data))
		switch {
		case section || typ == blockInterface || typ == blockPacket || typ == blockSimple || typ == blockEnhanced:
			if size > maxBlock {
				return fmt.Errorf("%w: a block of %d bytes", errMalformed, size)
			}
			if rest < 4 {
				return fmt.Errorf("%w: a block of %d bytes", errMalformed, size)
			}
		default:
			skipped, err := io.CopyN(io.Discard, f.in, rest)
			f.recordEnd += skipped
			if err != nil {
				return errTruncated
			}
			continue
		}

		// The length is repeated at the end of a block.
		if _, err := f.readBytes(int(rest), false); err != nil {
			return err
		}
		if f.order.Uint32(f.record[size-4:]) != size {
			return fmt.Errorf("%w: the two lengths of a block differ", errMalformed)
		}
		return f.emitBlock(typ)
	}
}

// readSectionOrder reads the byte-order magic of a section.
func (f *framer) readSectionOrder() error {
	magic, err := f.readBytes(4, false)
	if err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(magic) == 0x1a2b3c4d:
		f.order = binary.LittleEndian
	case binary.BigEndian.Uint32(magic) == 0x1a2b3c4d:
		f.order = binary.BigEndian
	default:
		return fmt.Errorf("%w: a section of unknown byte order", errMalformed)
	}
	return nil
}

// emitBlock checks the block in f.record, the lengths in it included, and makes the block or a reduced form
// of it available to Read.
func (f *framer) emitBlock(typ uint32) error {
	data := f.record
	switch typ {
	case blockInterface:
		return f.emitInterface()
	case blockEnhanced, blockPacket:
		if len(data) < 32 {
			return fmt.Errorf("%w: a packet block of %d bytes", errMalformed, len(data))
		}
		if size := f.order.Uint32(data[20:]); int64(size) > int64(len(data)-32) {
			return fmt.Errorf("%w: a packet of %d bytes in a block of %d", errMalformed, size, len(data))
		}
		iface := int(f.order.Uint32(data[8:]))
		if typ == blockPacket {
			iface = int(f.order.Uint16(data[8:]))
		}
		if iface < 0 || iface >= len(f.interfaces) {
			return fmt.Errorf("%w: a packet of interface %d, which the section does not declare", errMalformed, iface)
		}
		stamp := uint64(f.order.Uint32(data[12:]))<<32 | uint64(f.order.Uint32(data[16:]))
		f.time = f.interfaces[iface].timeOf(stamp)
	case blockSimple:
		f.time = 0
		if len(data) < 16 || len(f.interfaces) == 0 {
			return fmt.Errorf("%w: a packet without an interface", errMalformed)
		}

		// pcapgo assumes that the block holds the whole packet. It may hold less.
		if captured := uint32(len(data) - 16); f.order.Uint32(data[8:]) > captured {
			return f.emitTruncatedSimple(captured)
		}
	default: // a section
		if len(data) < 28 {
			return fmt.Errorf("%w: a section of %d bytes", errMalformed, len(data))
		}
		f.interfaces = f.interfaces[:0]
		f.endBlockAt(24)
		return nil
	}
	f.unread = data
	return nil
}

// emitTruncatedSimple rewrites the simple packet block in f.record, which holds captured bytes of the packet,
// as an enhanced packet block: a simple one cannot state that the packet was truncated.
func (f *framer) emitTruncatedSimple(captured uint32) error {
	block := f.record
	data, length := append([]byte(nil), block[12:12+captured]...), f.order.Uint32(block[8:])
	out := append(block[:0], make([]byte, 28)...)
	f.order.PutUint32(out, blockEnhanced)
	f.order.PutUint32(out[20:], captured)
	f.order.PutUint32(out[24:], length)
	f.record = append(out, data...)
	f.endBlockAt(len(f.record))
	return nil
}

// endBlockAt truncates the block in f.record to n bytes, a multiple of four, writes its lengths and makes it
// available to Read.
func (f *framer) endBlockAt(n int) {
	data := append(f.record[:n], 0, 0, 0, 0)
	f.order.PutUint32(data[4:], uint32(len(data)))
	f.order.PutUint32(data[len(data)-4:], uint32(len(data)))
	f.record, f.unread = data, data
}

// Options of an interface block that matter: if_name, if_tsresol, if_tsoffset.
const (
	optionName       = 2
	optionResolution = 9
	optionOffset     = 14
)

// emitInterface reads the options of an interface block and removes them, and bounds the snapshot length, because
// pcapgo allocates that many bytes.
func (f *framer) emitInterface() error {
	data := f.record
	if len(data) < 20 {
		return fmt.Errorf("%w: an interface of %d bytes", errMalformed, len(data))
	}
	if len(f.interfaces) >= maxInterfaces {
		return fmt.Errorf("%w: more than %d interfaces", errMalformed, maxInterfaces)
	}
	iface := fileInterface{link: uint32(f.order.Uint16(data[8:])), unitsASecond: 1e6}
	snapLen := f.order.Uint32(data[12:])
	f.order.PutUint32(data[12:], min(snapLen, maxPacket))

	// Each option is a code, a length and a value, padded to four bytes.
	for rest := data[16 : len(data)-4]; len(rest) >= 4; {
		code, length := f.order.Uint16(rest), int(f.order.Uint16(rest[2:]))
		if code == 0 {
			break
		}
		padded := 4 + (length+3)&^3
		if padded > len(rest) {
			return fmt.Errorf("%w: an option that is longer than its interface block", errMalformed)
		}
		value := rest[4 : 4+length]
		switch {
		case code == optionName:
			iface.name = interfaceName(value)
		case code == optionResolution && length == 1:
			units, err := unitsASecond(value[0])
			if err != nil {
				return err
			}
			iface.unitsASecond = units
		case code == optionOffset && length == 8:
			iface.offsetSeconds = int64(f.order.Uint64(value))
		}
		rest = rest[padded:]
	}

	f.interfaces = append(f.interfaces, iface)
	f.endBlockAt(16)
	return nil
}

// unitsASecond returns the units in a second of the option if_tsresol: a power of ten, or with the high bit a power
// of two. Powers that do not fit 64 bits are malformed.
func unitsASecond(resolution byte) (uint64, error) {
	const binary, maxTwo, maxTen = 0x80, 63, 19
	exponent := resolution &^ binary
	switch {
	case resolution&binary != 0 && exponent <= maxTwo:
		return 1 << exponent, nil
	case resolution&binary == 0 && exponent <= maxTen:
		units := uint64(1)
		for range exponent {
			units *= 10
		}
		return units, nil
	}
	return 0, fmt.Errorf("%w: a time resolution of %#x", errMalformed, resolution)
}

// interfaceName returns the name up to the first NUL, at most 256 bytes of it.
func interfaceName(data []byte) string {
	for i, c := range data {
		if c == 0 {
			data = data[:i]
			break
		}
	}
	return string(data[:min(len(data), 256)])
}

// interfaceOf returns interface i of the section of the last packet.
func (f *framer) interfaceOf(i int) fileInterface {
	if i < 0 || i >= len(f.interfaces) {
		return fileInterface{link: uint32(LinkUnknown)}
	}
	return f.interfaces[i]
}
