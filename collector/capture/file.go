// Package capture reads packets: from the interfaces of this host, through rings that the kernel fills
// (live.go, ring.go), and from capture files in pcap or pcapng (file.go, framer.go).
//
// Every packet goes to a Handler, in practice a session table (collector/sessions). Each worker has a ring
// and a Handler of its own and shares nothing with the others. cmd/tidegate starts the live capture as a
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
	Link   layers.LinkType // type of the outermost header, as package sessions takes it
	LinkID uint32          // the same as its number in the file
	Iface  string          // name of the interface; "" in pcap, which has no names
	Data   []byte          // valid until the next call of Next
	Length int             // of the frame on the wire, ≥ len(Data)
}

// layers.LinkType has eight bits, and some link types of capture files have more. LinkSLL2 stands for
// LINKTYPE_LINUX_SLL2 (276), LinkUnknown for all other link types above 255.
const (
	LinkSLL2    layers.LinkType = 276 & 0xff
	LinkUnknown layers.LinkType = 255
)

// A File reads the packets of a capture file: pcap, with times in µs or ns, or pcapng, either of them gzipped
// or not.
//
// gopacket's pcapgo decodes the formats, but does not check the lengths in the file. A framer between the
// file and pcapgo therefore checks and bounds each record, and keeps the position of the record for error
// messages.
type File struct {
	path       string
	file       *os.File
	framer     *framer
	readPacket func() ([]byte, gopacket.CaptureInfo, error)
	pcapng     *pcapgo.NgReader
	link       layers.LinkType
	lastTime   int64 // Packet.At of the last packet
	packets    int
	err        error // the error that ended reading, io.EOF included
}

// OpenFile opens the capture file at path. The error names the file.
func OpenFile(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open capture: %w", err)
	}
	opened := &File{path: path, file: file}
	if err := opened.detectFormat(); err != nil {
		_ = file.Close()
		return nil, err
	}
	return opened, nil
}

// detectFormat recognises compression and format by the first bytes and prepares the reader.
func (f *File) detectFormat() (err error) {
	// Unpack the file if it begins with the magic number of gzip.
	in := bufio.NewReaderSize(f.file, 256<<10)
	zipped := false
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		reader, err := gzip.NewReader(in)
		if err != nil {
			return fmt.Errorf("read capture %s: gzip header: %w", f.path, err)
		}
		in, zipped = bufio.NewReaderSize(reader, 256<<10), true
	}

	f.framer = &framer{in: in, gzipped: zipped}
	defer f.recoverPanic(&err)

	// The first four bytes determine the format. pcap has one magic number in each byte order.
	magic, perr := in.Peek(4)
	switch {
	case len(magic) == 0 && (perr == nil || errors.Is(perr, io.EOF)):
		return fmt.Errorf("read capture %s: the file is empty", f.path)
	case len(magic) < 4:
		return fmt.Errorf("read capture %s: the file ends within its header, at byte %d: %w", f.path, len(magic), perr)
	}
	switch order := pcapOrder(magic); {
	case string(magic) == "\x0a\x0d\x0d\x0a":
		f.framer.pcapng = true
		return f.openPcapng()
	case order != nil:
		f.framer.order = order
		return f.openPcap()
	}
	return fmt.Errorf("read capture %s: neither pcap nor pcapng: the file begins with %x", f.path, magic)
}

// openPcap prepares the reader of a pcap file.
func (f *File) openPcap() error {
	if err := f.framer.readFileHeader(); err != nil {
		return f.locate(err)
	}
	reader, err := pcapgo.NewReader(f.framer)
	if err != nil {
		return f.locate(err)
	}
	f.readPacket, f.link = reader.ZeroCopyReadPacketData, linkTypeOf(f.framer.link)
	return nil
}

// openPcapng prepares the reader of a pcapng file.
func (f *File) openPcapng() error {
	ngReader, err := pcapgo.NewNgReader(f.framer, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		return f.locate(err)
	}
	f.readPacket, f.pcapng = ngReader.ZeroCopyReadPacketData, ngReader
	return nil
}

// linkTypeOf converts a link type of a capture file.
func linkTypeOf(number uint32) layers.LinkType {
	switch {
	case number == 276:
		return LinkSLL2
	case number > 255 || number == uint32(LinkSLL2):
		return LinkUnknown
	}
	return layers.LinkType(number)
}

// Next returns the next packet, or io.EOF after the last one. Any other error names the file and the position
// and ends the file: all packets before the position have been returned.
func (f *File) Next() (packet Packet, err error) {
	if f.err != nil {
		return Packet{}, f.err
	}

	// The first error ends the file. recoverPanic runs before the error is stored.
	defer func() {
		if err != nil {
			f.err = err
		}
	}()
	defer f.recoverPanic(&err)
	data, info, err := f.readPacket()
	if err != nil {
		if errors.Is(err, io.EOF) && (f.framer.err == nil || errors.Is(f.framer.err, io.EOF)) {
			return Packet{}, io.EOF
		}
		return Packet{}, f.locate(err)
	}

	f.packets++
	packet = Packet{
		At: info.Timestamp.UnixNano(), Link: f.link, LinkID: f.framer.link, Data: data, Length: max(info.Length, len(data)),
	}
	if f.pcapng != nil {
		iface := f.framer.interfaceOf(info.InterfaceIndex)
		packet.Link, packet.LinkID, packet.Iface = linkTypeOf(iface.link), iface.link, iface.name
		if packet.At = f.framer.time; packet.At == 0 { // a simple packet block has no time
			packet.At = f.lastTime
		}
	}
	f.lastTime = packet.At
	return packet, nil
}

// recoverPanic turns a panic of pcapgo into an error. It must be deferred.
func (f *File) recoverPanic(err *error) {
	if r := recover(); r != nil {
		*err = f.locate(fmt.Errorf("%v", r))
	}
}

// locate adds the file and the position to err. An error of the framer replaces err, because it is the cause
// of pcapgo's error.
func (f *File) locate(err error) error {
	if f.framer.err != nil && !errors.Is(f.framer.err, io.EOF) {
		err = f.framer.err
	}
	unit := "byte"
	if f.framer.gzipped {
		unit = "unzipped byte"
	}
	return fmt.Errorf("read capture %s: after packet %d, at %s %d: %w",
		f.path, f.packets, unit, f.framer.recordStart, err)
}

// Packets returns the number of packets read.
func (f *File) Packets() int { return f.packets }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
