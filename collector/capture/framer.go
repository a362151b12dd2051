package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A framer passes a capture file on, one checked record after another. What it passes on is smaller than what it read: of pcapng
// only sections, interfaces and packets, with the few options that matter.
type framer struct {
	in     *bufio.Reader
	zipped bool
	ng     bool
	order  binary.ByteOrder
	link   uint32 // of a pcap file

	at     int64 // where the record at hand begins
	end    int64 // where the next does
	record []byte
	rest   []byte // of record, not yet passed on
	err    error

	ifaces []ngIface
	// The reader reads ahead, but never into another record, so a section's interfaces are still there when its last packet is
	// looked at.
}

type ngIface struct {
	link uint32
	name string
}

// Bounds: the snapshot length that tcpdump takes for the largest there is, and as many interfaces as a host can have.
const (
	maxPacket = 256 << 10
	maxBlock  = maxPacket + 64<<10
	maxIfaces = 4096
)

var (
	errCut    = errors.New("the file is cut off there")
	errBroken = errors.New("the file is broken there")
)

// Read gives bytes of the record at hand.
func (f *framer) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		if f.err != nil {
			return 0, f.err
		}
		if f.err = f.next(); f.err != nil {
			return 0, f.err
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *framer) next() error {
	f.at = f.end
	if f.ng {
		return f.block()
	}
	return f.packet()
}

// fill reads n more bytes into the record. first: none at all is the orderly end.
func (f *framer) fill(n int, first bool) ([]byte, error) {
	from := len(f.record)
	if cap(f.record) < from+n {
		f.record = append(make([]byte, 0, from+n+4096), f.record...)
	}
	f.record = f.record[:from+n]
	got, err := io.ReadFull(f.in, f.record[from:])
	f.end += int64(got)
	switch {
	case err == nil:
		return f.record[from:], nil
	case errors.Is(err, io.EOF) && first:
		return nil, io.EOF
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCut
	}
	return nil, fmt.Errorf("%w: %w", errBroken, err)
}

// pcapOrder is the byte order of a pcap file, nil if it is not one.
func pcapOrder(magic []byte) binary.ByteOrder {
	for _, order := range [...]binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := order.Uint32(magic); m == 0xa1b2c3d4 || m == 0xa1b23c4d {
			return order
		}
	}
	return nil
}

// pcapHeader reads the file's header and sets the snapshot length to our own bound: many files exceed theirs.
func (f *framer) pcapHeader() error {
	h, err := f.fill(24, false)
	if err != nil {
		return err
	}
	f.link = f.order.Uint32(h[20:]) & 0xffff // above are bits about the frame check sequence
	f.order.PutUint32(h[16:], maxPacket)
	f.rest = h
	return nil
}

// packet reads a record of pcap.
func (f *framer) packet() error {
	f.record = f.record[:0]
	h, err := f.fill(16, true)
	if err != nil {
		return err
	}
	size, length := f.order.Uint32(h[8:]), f.order.Uint32(h[12:])
	if size > maxPacket {
		return fmt.Errorf("%w: a packet of %d bytes", errBroken, size)
	}
	if length < size {
		f.order.PutUint32(h[12:], size)
	}
	if _, err := f.fill(int(size), false); err != nil {
		return err
	}
	f.rest = f.record
	return nil
}

// Types of pcapng's blocks.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2
	blockSimple    = 3
	blockEnhanced  = 6
)

// block reads blocks of pcapng up to one that is to be passed on.
func (f *framer) block() error {
	for {
		f.at = f.end
		f.record = f.record[:0]
		h, err := f.fill(8, true)
		if err != nil {
			return err
		}
		section := binary.LittleEndian.Uint32(h) == blockSection
		if section {
			if err := f.sectionOrder(); err != nil {
				return err
			}
		}
		h = f.record
		typ, size := f.order.Uint32(h), f.order.Uint32(h[4:])
		if size%4 != 0 || size < 12 {
			return fmt.Errorf("%w: a block of %d bytes", errBroken, size)
		}
		rest := int64(size) - int64(len(h))
		switch {
		case section || typ == blockInterface || typ == blockPacket || typ == blockSimple || typ == blockEnhanced:
			if size > maxBlock {
				return fmt.Errorf("%w: a block of %d bytes", errBroken, size)
			}
			if rest < 4 {
				return fmt.Errorf("%w: a block of %d bytes", errBroken, size)
			}
		default:
			n, err := io.CopyN(io.Discard, f.in, rest)
			f.end += n
			if err != nil {
				return errCut
			}
			continue
		}
		if _, err := f.fill(int(rest), false); err != nil {
			return err
		}
		if f.order.Uint32(f.record[size-4:]) != size {
			return fmt.Errorf("%w: the two lengths of a block differ", errBroken)
		}
		return f.pass(typ)
	}
}

// sectionOrder reads the byte order of a section.
func (f *framer) sectionOrder() error {
	magic, err := f.fill(4, false)
	if err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(magic) == 0x1a2b3c4d:
		f.order = binary.LittleEndian
	case binary.BigEndian.Uint32(magic) == 0x1a2b3c4d:
		f.order = binary.BigEndian
	default:
		return fmt.Errorf("%w: a section of unknown byte order", errBroken)
	}
	return nil
}

// pass checks the block in f.record and passes on what matters of it.
func (f *framer) pass(typ uint32) error {
	b := f.record
	switch typ {
	case blockInterface:
		return f.passInterface()
	case blockEnhanced, blockPacket:
		if len(b) < 32 {
			return fmt.Errorf("%w: a packet block of %d bytes", errBroken, len(b))
		}
		if size := f.order.Uint32(b[20:]); int64(size) > int64(len(b)-32) {
			return fmt.Errorf("%w: a packet of %d bytes in a block of %d", errBroken, size, len(b))
		}
		iface := int(f.order.Uint32(b[8:]))
		if typ == blockPacket {
			iface = int(f.order.Uint16(b[8:]))
		}
		if iface < 0 || iface >= len(f.ifaces) {
			return fmt.Errorf("%w: a packet of interface %d, of which the file says nothing", errBroken, iface)
		}
	case blockSimple:
		if len(b) < 16 || len(f.ifaces) == 0 {
			return fmt.Errorf("%w: a packet without an interface", errBroken)
		}
		// The reader takes the packet to be as long as the interface allows; what is there is what counts.
		if n := uint32(len(b) - 16); f.order.Uint32(b[8:]) > n {
			return f.simpleCut(n)
		}
	default: // a section
		if len(b) < 28 {
			return fmt.Errorf("%w: a section of %d bytes", errBroken, len(b))
		}
		f.ifaces = f.ifaces[:0]
		f.shorten(24)
		return nil
	}
	f.rest = b
	return nil
}

// simpleCut passes a simple packet block on as an enhanced one: only that can say that the packet was cut.
func (f *framer) simpleCut(n uint32) error {
	b := f.record
	data, length := append([]byte(nil), b[12:12+n]...), f.order.Uint32(b[8:])
	out := append(b[:0], make([]byte, 28)...)
	f.order.PutUint32(out, blockEnhanced)
	f.order.PutUint32(out[20:], n)
	f.order.PutUint32(out[24:], length)
	f.record = append(out, data...)
	f.shorten(len(f.record))
	return nil
}

// shorten ends the block in f.record behind n bytes, a multiple of four.
func (f *framer) shorten(n int) {
	b := append(f.record[:n], 0, 0, 0, 0)
	f.order.PutUint32(b[4:], uint32(len(b)))
	f.order.PutUint32(b[len(b)-4:], uint32(len(b)))
	f.record, f.rest = b, b
}

// Options of an interface that matter.
const (
	optionName       = 2
	optionResolution = 9
	optionOffset     = 14
)

// passInterface passes on what matters of an interface, with its snapshot length bounded: the reader allocates by it.
func (f *framer) passInterface() error {
	b := f.record
	if len(b) < 20 {
		return fmt.Errorf("%w: an interface of %d bytes", errBroken, len(b))
	}
	if len(f.ifaces) >= maxIfaces {
		return fmt.Errorf("%w: more than %d interfaces", errBroken, maxIfaces)
	}
	i := ngIface{link: uint32(f.order.Uint16(b[8:]))}
	snap := f.order.Uint32(b[12:])
	f.order.PutUint32(b[12:], min(snap, maxPacket))
	var kept []byte
	for o := b[16 : len(b)-4]; len(o) >= 4; {
		code, n := f.order.Uint16(o), int(f.order.Uint16(o[2:]))
		if code == 0 {
			break
		}
		padded := 4 + (n+3)&^3
		if padded > len(o) {
			return fmt.Errorf("%w: an option that is longer than its interface", errBroken)
		}
		v := o[4 : 4+n]
		switch {
		case code == optionName:
			i.name = ifaceName(v)
		case code == optionResolution && n == 1:
			if v[0]&0x80 != 0 && v[0]&0x7f > 63 || v[0]&0x80 == 0 && v[0] > 18 {
				return fmt.Errorf("%w: a resolution of time of %#x", errBroken, v[0])
			}
			kept = append(kept, o[:padded]...)
		case code == optionOffset && n == 8:
			kept = append(kept, o[:padded]...)
		}
		o = o[padded:]
	}
	f.ifaces = append(f.ifaces, i)
	f.record = append(f.record[:16], kept...)
	if len(kept) > 0 {
		f.record = append(f.record, 0, 0, 0, 0)
	}
	f.shorten(len(f.record))
	return nil
}

// ifaceName is the name up to a NUL, and of a length that a name has.
func ifaceName(v []byte) string {
	for i, c := range v {
		if c == 0 {
			v = v[:i]
			break
		}
	}
	return string(v[:min(len(v), 256)])
}

// section gives interface i of the section that the last packet lay in.
func (f *framer) section(i int) ngIface {
	if i < 0 || i >= len(f.ifaces) {
		return ngIface{link: uint32(LinkUnknown)}
	}
	return f.ifaces[i]
}
