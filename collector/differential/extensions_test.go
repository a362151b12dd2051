//go:build linux

package differential

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An extension is an extension header of IPv6 (RFC 8200, section 4) without its first byte, which is the type of the
// next header.
type extension struct {
	form    string
	typ     byte
	rest    []byte
	refused bool // Linux drops a packet with this header
}

const (
	hopByHop     = 0
	routing      = 43
	fragmentType = 44
	destOptions  = 60
)

// options returns a header of options, which is padded to a multiple of 8 bytes with options of one byte.
func options(typ byte, form string, refused bool, list ...byte) extension {
	for (2+len(list))%8 != 0 {
		list = append(list, 0)
	}
	return extension{form, typ, append([]byte{byte((2+len(list))/8 - 1)}, list...), refused}
}

// fragmentHeader returns the header of a fragment at an offset.
func fragmentHeader(id uint32, offset int, more bool) extension {
	field := uint16(offset)
	if more {
		field |= 1
	}
	rest := binary.BigEndian.AppendUint16([]byte{0}, field)
	return extension{"fragment", fragmentType, binary.BigEndian.AppendUint32(rest, id), false}
}

// randomExtension returns an extension header. first is set for the one behind the header of IPv6.
func randomExtension(random *rand.Rand, first bool) extension {
	typ := byte(destOptions)
	if first && chance(random, 30) {
		typ = hopByHop
	}
	route := func(kind, left byte, refused bool) extension {
		rest := append([]byte{2, kind, left, 0, 0, 0, 0}, make([]byte, 16)...)
		rest[len(rest)-1] = 1 // the address ::1
		return extension{fmt.Sprintf("routing %d, %d left", kind, left), routing, rest, refused}
	}
	switch random.IntN(22) {
	case 0:
		return options(typ, "PadN", false, 1, 4, 0, 0, 0, 0)
	case 1:
		return options(typ, "unknown option", false, 0x1e, 2, 'a', 'b')
	case 2:
		return options(typ, "long option", false, append([]byte{0x3e, 200}, bytes.Repeat([]byte("GET / HTTP"), 20)...)...)
	case 3:
		return options(typ, "seven options", false, bytes.Repeat([]byte{0x1e, 0}, 7)...)
	case 4:
		return route(0, 0, false)
	case 5:
		return route(253, 0, false)
	case 6:
		return fragmentHeader(random.Uint32(), 0, false)
	case 7:
		return extension{"padding of seven", typ, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0x1e, 4, 1, 2, 3, 4, 0}, false}
	case 8:
		return options(destOptions, "option that is to be refused", true, 0x9e, 2, 'a', 'b')
	case 9:
		return options(destOptions, "padding with values", true, 1, 4, 1, 0, 0, 0)
	case 10:
		return options(destOptions, "long padding", true, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	case 11:
		return options(destOptions, "an option beyond the header", true, 0x1e, 77, 0, 0, 0, 0)
	case 12:
		return options(destOptions, "nine options", true, bytes.Repeat([]byte{0x1e, 0}, 9)...)
	case 13:
		return route(pick[byte](random, 0, 253), 1, true)
	case 14:
		return route(pick[byte](random, 3, 4), pick[byte](random, 0, 1), true) // 2 depends on the kernel's configuration
	case 15:
		return extension{"AH", 51, append([]byte{4}, make([]byte, 22)...), true}
	case 16:
		return extension{"other header", pick[byte](random, 135, 139, 140), make([]byte, 7), true}
	case 17:
		if first {
			return options(hopByHop, "jumbogram", true, 0xc2, 4, 0, 0, 0, 40)
		}
		return options(hopByHop, "hop-by-hop behind another one", true, 1, 4, 0, 0, 0, 0)
	default:
		return options(destOptions, "destination", false)
	}
}

// randomChain returns extension headers, all of which Linux takes, or one of which it refuses.
func randomChain(random *rand.Rand, refused bool) []extension {
	var chain []extension
	atomic := false
	count := pick(random, 1, 1, 2, 3, 8, 9, 20, 100)
	refusedAt := -1
	if refused {
		refusedAt = random.IntN(count)
	}
	for len(chain) < count {
		next := randomExtension(random, len(chain) == 0)
		if next.refused != (len(chain) == refusedAt) {
			continue
		}
		if next.typ == fragmentType && atomic {
			continue // a second one is refused
		}
		atomic = atomic || next.typ == fragmentType
		chain = append(chain, next)
	}
	return chain
}

// encodeChain returns the headers of chain in front of payload, and the type of the first of them.
func encodeChain(chain []extension, next byte, payload []byte) (byte, []byte) {
	var out []byte
	for i, header := range chain {
		following := next
		if i+1 < len(chain) {
			following = chain[i+1].typ
		}
		out = append(append(out, following), header.rest...)
	}
	if len(chain) > 0 {
		next = chain[0].typ
	}
	return next, append(out, payload...)
}

// formOf names the headers of chain.
func formOf(chain []extension) string {
	var names []string
	for _, header := range chain {
		names = append(names, header.form)
	}
	return shorten(strings.Join(names, "+"), 200)
}

// extendedPackets returns packets of IPv6 with extension headers that carry payload, of the protocol next. Linux
// refuses them if refused is set.
func extendedPackets(random *rand.Rand, host string, next byte, payload []byte, refused bool) (packets [][]byte, form string) {
	chain := randomChain(random, refused)
	hasFragment := slices.ContainsFunc(chain, func(header extension) bool { return header.typ == fragmentType })
	if hasFragment || chance(random, 50) {
		first, whole := encodeChain(chain, next, payload)
		packet := ipPacket(host, first, whole)
		if slices.ContainsFunc(chain, func(header extension) bool { return header.form == "jumbogram" }) {
			binary.BigEndian.PutUint16(packet[4:], 0)
		}
		return [][]byte{packet}, formOf(chain)
	}

	// The headers from at on are part of what is divided.
	at := random.IntN(len(chain) + 1)
	inner, whole := encodeChain(chain[at:], next, payload)
	id := random.Uint32()
	fragment := func(from, to int, kind byte, bytes []byte) []byte {
		header := fragmentHeader(id, from, to < len(whole))
		headers := append(slices.Clone(chain[:at]), header)
		first, packet := encodeChain(headers, kind, bytes)
		return ipPacket(host, first, packet)
	}
	size := 8 * (1 + random.IntN(5))
	if random.IntN(2) == 0 {
		size = max(size, len(whole)/4/8*8)
	}
	// The first fragment has all headers: Linux refuses another one.
	front := (len(whole) - len(payload) + 20 + 7) / 8 * 8
	for from := 0; from < len(whole); {
		to := min(from+size, len(whole))
		kind := inner
		if from == 0 {
			to = min(max(to, front), len(whole))
		} else if chance(random, 20) {
			kind = pick[byte](random, unix.IPPROTO_UDP, unix.IPPROTO_TCP, destOptions, 59, 250) // only that of the first one counts
		}
		packets = append(packets, fragment(from, to, kind, whole[from:to]))
		from = to
	}
	order := "in order"
	switch random.IntN(6) {
	case 0:
		slices.Reverse(packets)
		order = "backwards"
	case 1:
		random.Shuffle(len(packets), func(i, j int) { packets[i], packets[j] = packets[j], packets[i] })
		order = "shuffled"
	case 2:
		packets = slices.Insert(packets, 1, packets[0])
		order = "one twice"
	case 3:
		// A fragment that overlaps another one ends the datagram. One with the same id begins anew.
		order = "an overlap before"
		packets = slices.Concat([][]byte{
			fragment(16, 32, inner, []byte(strings.Repeat("Z", 16))), fragment(8, 24, inner, []byte(strings.Repeat("Y", 16))),
		}, packets)
	}
	return packets, fmt.Sprintf("%d fragments %s behind %d of %s", len(packets), order, at, formOf(chain))
}

// converseExtended sends queries in raw packets, then one in a plain datagram.
func converseExtended(random *rand.Rand, host, marker string) (conversation, error) {
	conn, err := net.Dial("udp", address(host, dnsPort))
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	c := conversation{client: keyOfClient(netip.AddrPortFrom(local.Addr(), local.Port()))}
	var forms []string
	answer := make([]byte, 64<<10)
	for i := range pick(random, 1, 3) {
		query, form := dnsQuery(random, uint16(i+1), fmt.Sprintf("%s%dq", marker, i))
		refused := chance(random, 20)
		if refused {
			form += " refused"
		}
		if chance(random, 10) {
			query = append(query, make([]byte, 3000)...)
		}
		packets, names := extendedPackets(random, host, unix.IPPROTO_UDP, udpDatagram(host, local.Port(), dnsPort, query), refused)
		forms = append(forms, form+" in "+names)
		c.form = strings.Join(forms, ", ")
		c.written = append(c.written, query...)
		if err := sendRaw(host, packets...); err != nil {
			return c, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _ = conn.Read(answer) // there is none for what is refused
	}
	query, form := dnsQuery(random, 1000, marker+"9q")
	c.form += ", then plain " + form
	_, err = conn.Write(query)
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, _ = conn.Read(answer)
	return c, err
}
