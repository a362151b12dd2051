// Package capture is where packets come from: the interfaces of this host, by rings that the kernel fills (live.go, ring.go), and
// capture files, pcap or pcapng (file.go, framer.go).
//
// Either way a packet goes to a session table (collector/sessions), one for each worker. cmd/tidegate starts the live capture as a
// source of the collector and reads files for replay.
package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/klauspost/compress/gzip"
)

// A Packet is a frame of a capture file.
type Packet struct {
	At     int64           // ns since 1970
	Link   layers.LinkType // what the frame begins with
	Iface  string          // the interface, where the file says it
	Data   []byte          // valid until the next call of Next
	Length int             // of the frame on the wire, ≥ len(Data)
}

// LinkSLL2 is LINKTYPE_LINUX_SLL2 (276) as layers.LinkType, which has eight bits, can hold it; LinkUnknown is every other type that
// it cannot.
const (
	LinkSLL2    layers.LinkType = 276 & 0xff
	LinkUnknown layers.LinkType = 255
)

// A File reads the packets of a capture file: pcap, with times in µs or ns, or pcapng, either of them gzipped or not.
//
// gopacket's pcapgo reads the formats. It trusts what a file says of its lengths, so a framer in front of it hands it one record at
// a time, checked and bounded, and knows where in the file a record that is wrong begins.
type File struct {
	path    string
	file    *os.File
	framer  *framer
	read    func() ([]byte, gopacket.CaptureInfo, error)
	ng      *pcapgo.NgReader
	link    layers.LinkType
	last    int64
	packets int
	err     error // what ended it
}

// OpenFile opens the capture file at path. The error names the file.
func OpenFile(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	f := &File{path: path, file: file}
	if err := f.begin(); err != nil {
		_ = file.Close()
		return nil, err
	}
	return f, nil
}

// begin finds out what the file is.
func (f *File) begin() (err error) {
	in := bufio.NewReaderSize(f.file, 256<<10)
	zipped := false
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("read capture %s: its gzip header: %w", f.path, err)
		}
		in, zipped = bufio.NewReaderSize(z, 256<<10), true
	}
	f.framer = &framer{in: in, zipped: zipped}
	defer f.guard(&err)
	magic, perr := in.Peek(4)
	switch {
	case len(magic) == 0 && (perr == nil || errors.Is(perr, io.EOF)):
		return fmt.Errorf("read capture %s: it is empty", f.path)
	case len(magic) < 4:
		return fmt.Errorf("read capture %s: it ends within its header, at byte %d: %w", f.path, len(magic), perr)
	}
	switch order := pcapOrder(magic); {
	case string(magic) == "\x0a\x0d\x0d\x0a":
		f.framer.ng = true
		return f.beginNg()
	case order != nil:
		f.framer.order = order
		return f.beginPcap()
	}
	return fmt.Errorf("read capture %s: it begins with %x, which is neither pcap nor pcapng", f.path, magic)
}

func (f *File) beginPcap() error {
	if err := f.framer.pcapHeader(); err != nil {
		return f.wrong(err)
	}
	r, err := pcapgo.NewReader(f.framer)
	if err != nil {
		return f.wrong(err)
	}
	f.read, f.link = r.ZeroCopyReadPacketData, fileLink(f.framer.link)
	return nil
}

func (f *File) beginNg() error {
	r, err := pcapgo.NewNgReader(f.framer, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return f.wrong(err)
	}
	f.read, f.ng = r.ZeroCopyReadPacketData, r
	return nil
}

// fileLink is n as far as it fits.
func fileLink(n uint32) layers.LinkType {
	switch {
	case n == 276:
		return LinkSLL2
	case n > 255 || n == uint32(LinkSLL2):
		return LinkUnknown
	}
	return layers.LinkType(n)
}

// Next gives the next packet; io.EOF behind the last. Any other error names the file and the place, and is the end: all packets
// before it have been given.
func (f *File) Next() (p Packet, err error) {
	if f.err != nil {
		return Packet{}, f.err
	}
	defer func() {
		if err != nil {
			f.err = err
		}
	}()
	defer f.guard(&err)
	data, info, err := f.read()
	if err != nil {
		if errors.Is(err, io.EOF) && (f.framer.err == nil || errors.Is(f.framer.err, io.EOF)) {
			return Packet{}, io.EOF
		}
		return Packet{}, f.wrong(err)
	}
	f.packets++
	p = Packet{At: info.Timestamp.UnixNano(), Link: f.link, Data: data, Length: max(info.Length, len(data))}
	if f.ng != nil {
		i := f.framer.section(info.InterfaceIndex)
		p.Link, p.Iface = fileLink(i.link), i.name
		if info.Timestamp.IsZero() || p.At == 0 { // a simple packet block has no time
			p.At = f.last
		}
	}
	f.last = p.At
	return p, nil
}

// guard turns a panic of the reader into an error.
func (f *File) guard(err *error) {
	if r := recover(); r != nil {
		*err = f.wrong(fmt.Errorf("%v", r))
	}
}

// wrong says where the file is wrong. What the framer found is the cause of what the reader says.
func (f *File) wrong(err error) error {
	if f.framer.err != nil && !errors.Is(f.framer.err, io.EOF) {
		err = f.framer.err
	}
	unit := "byte"
	if f.framer.zipped {
		unit = "unzipped byte"
	}
	return fmt.Errorf("read capture %s: after packet %d, at %s %d: %w", f.path, f.packets, unit, f.framer.at, err)
}

// Packets is how many packets were read.
func (f *File) Packets() int { return f.packets }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
