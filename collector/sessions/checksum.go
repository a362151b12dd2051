package sessions

import (
	"encoding/binary"
	"math/bits"

	"tidegate/collector/reassembly"
)

// A receiver drops a packet with a wrong checksum, so its bytes are not those of the connection. But a capture
// also has packets whose checksum is not filled in yet: the network card does that, and between containers
// nobody does. The kernel says so of each packet of a ring (Table.TrustChecksums). A capture file does not.
// There the other packets of the sender decide whether a checksum is in doubt: that sender fills them in, or leaves
// all of them to the card, which shows by the sum of the pseudo-header in the field. Since files are edited, too,
// such bytes are held until the receiver acknowledges them, or others are sent in their place.

// A checksumSource says who has verified the checksums of the packets.
type checksumSource uint8

const (
	checksumsUnknown  checksumSource = iota // of a file: as they are, filled in or not
	checksumsFilledIn                       // the kernel has not verified them, and they are filled in
	checksumsVerified                       // the kernel has verified them, or nobody needs to
)

// A checksumResult is the result for one packet.
type checksumResult uint8

const (
	sumUnchecked checksumResult = iota // the packet was cut, or has no checksum
	sumPlausible                       // right, or left to the network card
	sumWrong
)

// TrustChecksums says of the packets that follow whether their checksums need no check: the kernel has verified
// them, or they never leave the host and are not filled in. Without a call nothing is known of them.
func (t *Table) TrustChecksums(trusted bool) {
	t.decoder.checksums = checksumsFilledIn
	if trusted {
		t.decoder.checksums = checksumsVerified
	}
}

// checkTransport sets p.checksum by the header and payload of TCP or UDP in data, of wire bytes. field is the
// offset of the checksum.
func (d *decoder) checkTransport(p *packet, data []byte, wire, field int) {
	p.checksum = sumUnchecked
	switch {
	case d.checksums == checksumsVerified:
		p.checksum = sumPlausible
		return
	case p.headerWrong:
		p.checksum = sumWrong
		return
	case len(data) != wire, p.proto == protoUDP && data[field]|data[field+1] == 0:
		return
	}
	pseudo := addAddr(addAddr(uint64(p.proto), p.src), p.dst)
	found := uint64(binary.BigEndian.Uint16(data[field:]))
	whole := foldSum(pseudo + uint64(wire&0xffff) + uint64(wire>>16) + uint64(foldSum(sumBytes(data))))
	switch {
	case whole == 0xffff:
		p.checksum = sumPlausible
	case found == uint64(foldSum(pseudo+uint64(wire))), found == uint64(foldSum(pseudo)):
		p.checksum = sumPlausible // the sum of the pseudo-header: the card adds the rest
	default:
		p.checksum = sumWrong
	}
}

// isHeaderWrong reports whether the checksum of header, of IPv4, is wrong. Some systems leave it, too, to the
// network card, as 0.
func (d *decoder) isHeaderWrong(header []byte) bool {
	return d.checksums != checksumsVerified && header[10]|header[11] != 0 && foldSum(sumBytes(header)) != 0xffff
}

// addAddr adds the 16-bit words of an address to sum.
func addAddr(sum uint64, a addr) uint64 {
	if a.hi == 0 && a.lo>>32 == 0xffff {
		return sum + a.lo>>16&0xffff + a.lo&0xffff
	}
	return sum + a.hi>>32 + a.hi&0xffffffff + a.lo>>32 + a.lo&0xffffffff
}

// sumBytes returns a sum whose foldSum is that of the 16-bit words of data (RFC 1071).
func sumBytes(data []byte) uint64 {
	// The sum is the same in either byte order, but for a swap at the end, and 64 bits at a time are quicker.
	var sum, carry uint64
	for len(data) >= 32 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(data), 0)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(data[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(data[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(data[24:]), carry)
		sum += carry
		data = data[32:]
	}
	for len(data) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(data), 0)
		sum += carry
		data = data[8:]
	}
	if len(data) > 0 {
		var rest [8]byte
		copy(rest[:], data)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(rest[:]), 0)
		sum += carry
	}
	return uint64(bits.ReverseBytes16(foldSum(sum)))
}

// foldSum adds the carries of sum until it has 16 bits.
func foldSum(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// checksumCounts counts the packets of one sender by the result of their checksums.
type checksumCounts struct{ plausible, wrong uint32 }

const (
	// maxUnmerged is the largest payload of a segment that no receive offload has merged. Some network cards
	// leave the checksum of the first segment in a merged one.
	maxUnmerged = 1460
	// maxWrong is the number of wrong checksums after which those of a sender in a file are believed to be an
	// artefact of the capture, if most are wrong.
	maxWrong = 8
)

// rejectsChecksum counts the result for p, from the end sender of f.key, and reports whether p must be dropped
// because the receiver has dropped it.
func (f *flow) rejectsChecksum(p *packet, sender uint8) bool {
	counts := &f.checksums[sender]
	if p.checksum != sumWrong {
		counts.plausible++
		return false
	}
	counts.wrong++
	inFile := f.table.decoder.checksums == checksumsUnknown
	if counts.plausible == 0 ||
		inFile && (p.Size > maxUnmerged || counts.wrong > maxWrong && counts.wrong > counts.plausible) {
		return false
	}
	if inFile { // files are also edited: only the receiver shows what it took
		p.Doubtful = p.proto == protoTCP
		return p.Doubtful && p.Flags&(reassembly.RST|reassembly.SYN) != 0
	}
	f.markChecksum(f.dirOf(sender))
	return true
}

// markChecksum counts a packet that was dropped because of its checksum, and marks the flow.
func (f *flow) markChecksum(dir reassembly.Dir) {
	f.table.metrics.segmentsChecksum.Inc()
	f.marks |= markChecksum
	f.stats.history.addKind(kindBadChecksum, dir)
}
