//go:build linux

package differential

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ipPacket returns a packet from host to itself. next is the type of the header at the front of payload.
func ipPacket(host string, next byte, payload []byte) []byte {
	address := netip.MustParseAddr(host)
	if address.Is6() {
		out := make([]byte, 40, 40+len(payload))
		out[0], out[6], out[7] = 0x60, next, 64
		binary.BigEndian.PutUint16(out[4:], uint16(len(payload)))
		copy(out[8:], address.AsSlice())
		copy(out[24:], address.AsSlice())
		return append(out, payload...)
	}
	out := make([]byte, 20, 20+len(payload))
	out[0], out[8], out[9] = 0x45, 64, next
	binary.BigEndian.PutUint16(out[2:], uint16(20+len(payload)))
	copy(out[12:], address.AsSlice())
	copy(out[16:], address.AsSlice())
	return append(out, payload...)
}

// ipOptions returns options of IPv4. Linux drops a packet with them if refused is set.
func ipOptions(random *rand.Rand, refused bool) (options []byte, form string) {
	lists := []struct {
		form    string
		options []byte
		refused bool
	}{
		{"no operations", bytes.Repeat([]byte{1}, 40), false},
		{"end of options", []byte{0, 0, 0, 0}, false},
		{"router alert", []byte{148, 4, 0, 0}, false},
		{"an unknown option", []byte{30, 4, 'a', 'b'}, false},
		{"a record of the route", append([]byte{7, 39, 4}, make([]byte, 37)...), false},
		{"a full record of the route", []byte{7, 7, 8, 127, 0, 0, 1, 0}, false},
		{"a loose source route", []byte{131, 7, 4, 127, 0, 0, 1, 0}, true},
		{"a source route at its end", []byte{137, 7, 8, 127, 0, 0, 1, 0}, true},
		{"an option beyond the header", []byte{30, 9, 'a', 'b'}, true},
		{"an option of one byte", []byte{30, 1, 'a', 'b'}, true},
		{"a record without a place", []byte{7, 7, 6, 127, 0, 0, 1, 0}, true},
	}
	for {
		if chosen := lists[random.IntN(len(lists))]; chosen.refused == refused {
			return chosen.options, chosen.form
		}
	}
}

// withOptions returns a packet of IPv4 with options.
func withOptions(packet, options []byte) []byte {
	out := slices.Concat(packet[:20], options, packet[20:])
	out[0] += byte(len(options) / 4)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out
}

// transportSum returns the checksum of a segment or datagram from host to itself, whose own field is 0.
func transportSum(host string, proto byte, data []byte) uint16 {
	address := netip.MustParseAddr(host).AsSlice()
	sum := uint32(proto) + uint32(len(data))
	for _, part := range [][]byte{address, address, data} {
		for i := 0; i < len(part); i += 2 {
			word := uint32(part[i]) << 8
			if i+1 < len(part) {
				word |= uint32(part[i+1])
			}
			sum += word
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// udpDatagram returns a datagram from a port of host to another one.
func udpDatagram(host string, from, to uint16, payload []byte) []byte {
	out := binary.BigEndian.AppendUint16(nil, from)
	for _, field := range []uint16{to, uint16(8 + len(payload)), 0} {
		out = binary.BigEndian.AppendUint16(out, field)
	}
	out = append(out, payload...)
	sum := transportSum(host, unix.IPPROTO_UDP, out)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(out[6:], sum)
	return out
}

// sendRaw sends packets with their IP headers to host.
func sendRaw(host string, packets ...[]byte) error {
	family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if address := netip.MustParseAddr(host); address.Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: address.As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	for _, packet := range packets {
		if err := unix.Sendto(fd, packet, 0, to); err != nil {
			return err
		}
	}
	return nil
}
