//go:build linux

package differential

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
)

const dnsPort = 53

// dnsQueryLine is a line of dnsmasq's log with log-queries=extra: 1 127.0.0.1/40000 query[A] name from 127.0.0.1
var dnsQueryLine = regexp.MustCompile(`(\S+)/(\d+) query\[[^]]*\] (\S+) from`)

func dnsmasqSubject() *subject {
	return &subject{
		name: "dnsmasq", ports: []int{dnsPort}, share: 3, same: sameQuestion,
		start:    func(l *lab) { startDNSMasq(l, "dnsmasq.log", hosts[:]...) },
		converse: converseDNS,
		log:      func(l *lab) map[clientKey][]executed { return queryLog(l, "dnsmasq.log") },
	}
}

// extensionSubject is dnsmasq at an address of its own. Its queries come in packets with extension headers of IPv6.
func extensionSubject() *subject {
	return &subject{
		name: "extensions", hosts: []string{extensionHost}, ports: []int{dnsPort}, share: 3, same: sameQuestion,
		start: func(l *lab) {
			netnstest.Run(l.t, "ip", "address", "replace", extensionHost+"/128", "dev", "lo", "nodad")
			startDNSMasq(l, "extensions.log", extensionHost)
		},
		converse: converseExtended,
		log:      func(l *lab) map[clientKey][]executed { return queryLog(l, "extensions.log") },
	}
}

func startDNSMasq(l *lab, output string, hosts ...string) {
	l.start(output, "dnsmasq", "-k", "-C", "/dev/null", "--pid-file=", "--user=root", "--no-resolv", "--no-hosts",
		"--log-facility=-", "--log-queries=extra", "--address=/example/192.0.2.10",
		"--listen-address="+strings.Join(hosts, ","), "--bind-interfaces")
	l.waitTCPAt(hosts[0], dnsPort)
}

// queryLog returns the queries in a log of dnsmasq.
func queryLog(l *lab, name string) map[clientKey][]executed {
	logged := map[clientKey][]executed{}
	for _, match := range dnsQueryLine.FindAllStringSubmatch(string(l.read(name)), -1) {
		client := keyOfText(match[1], match[2])
		logged[client] = append(logged[client], executed{text: strings.ToLower(match[3])})
	}
	return logged
}

func sameQuestion(e observed, logged executed) bool {
	return e.dataset == pipeline.Dataset_DNS && strings.ToLower(e.text) == logged.text
}

// converseDNS sends queries from one port and waits for the answers.
func converseDNS(random *rand.Rand, host, marker string) (conversation, error) {
	if chance(random, 25) {
		return converseDNSOverTCP(random, host, marker)
	}
	conn, err := net.Dial("udp", address(host, dnsPort))
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	c := conversation{client: keyOfClient(local)}
	var forms []string
	if chance(random, 25) {
		count := pick(random, 1, 20, 100)
		forms = append(forms, fmt.Sprint(count, " datagrams of nonsense"))
		for range count {
			_, _ = conn.Write([]byte(pick(random, "x", "\x00", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 40))))
		}
	}
	answer := make([]byte, 64<<10)
	for i := range pick(random, 1, 2, 5) {
		query, form := dnsQuery(random, uint16(i+1), fmt.Sprintf("%s%dq", marker, i))
		forms = append(forms, form)
		c.written = append(c.written, query...)
		if chance(random, 15) {
			name, err := sendFragments(random, host, local.Port(), query)
			if forms = append(forms, name); err != nil {
				return c, err
			}
		} else if _, err := conn.Write(query); err != nil {
			return c, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		_, _ = conn.Read(answer) // a query that dnsmasq refuses may have no answer
	}
	c.form = strings.Join(forms, ", ")
	return c, nil
}

// sendFragments sends a query in fragments of IP, and returns their form. The kernel drops a datagram with fragments
// that overlap.
func sendFragments(random *rand.Rand, host string, port uint16, query []byte) (form string, err error) {
	datagram := udpDatagram(host, port, dnsPort, query)
	id := random.Uint32()
	size := 8 * (1 + random.IntN(3))
	var fragments [][]byte
	for at := 0; at < len(datagram); at += size {
		fragments = append(fragments, ipFragment(host, id, at, datagram[at:min(at+size, len(datagram))], at+size < len(datagram)))
	}
	switch random.IntN(5) {
	case 0:
		slices.Reverse(fragments)
		form = "fragments backwards"
	case 1:
		random.Shuffle(len(fragments), func(i, j int) { fragments[i], fragments[j] = fragments[j], fragments[i] })
		form = "fragments shuffled"
	case 2:
		fragments = slices.Insert(fragments, 1, fragments[0])
		form = "a fragment twice"
	case 3:
		overlapping := ipFragment(host, id, 8, []byte(strings.Repeat("Z", 16)), true)
		fragments = slices.Insert(fragments, random.IntN(len(fragments)), overlapping)
		form = "fragments that overlap"
	default:
		form = "fragments"
	}
	return form, sendRaw(host, fragments...)
}

// ipFragment returns a packet with a part of a UDP datagram at an offset.
func ipFragment(host string, id uint32, offset int, part []byte, more bool) []byte {
	if netip.MustParseAddr(host).Is6() {
		first, rest := encodeChain([]extension{fragmentHeader(id, offset, more)}, unix.IPPROTO_UDP, part)
		return ipPacket(host, first, rest)
	}
	out := ipPacket(host, unix.IPPROTO_UDP, part)
	binary.BigEndian.PutUint16(out[4:], uint16(id)|1) // 0 is filled in by the kernel
	flags := uint16(offset / 8)
	if more {
		flags |= 1 << 13
	}
	binary.BigEndian.PutUint16(out[6:], flags)
	return out
}

func converseDNSOverTCP(random *rand.Rand, host, marker string) (conversation, error) {
	conn, local, err := dial(host, dnsPort)
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	c := conversation{client: local}
	var forms []string
	for i := range pick(random, 1, 3) {
		query, form := dnsQuery(random, uint16(i+1), fmt.Sprintf("%s%dq", marker, i))
		framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
		if chance(random, 20) { // two messages in one segment
			second, secondForm := dnsQuery(random, uint16(i+100), fmt.Sprintf("%s%ds", marker, i))
			framed = append(binary.BigEndian.AppendUint16(framed, uint16(len(second))), second...)
			form += " and " + secondForm
		}
		if chance(random, 30) {
			junk, junkForm := dnsJunk(random)
			framed = append(junk, framed...)
			form += " behind " + junkForm
		}
		name, err := writeSegments(conn, random, framed)
		forms = append(forms, form, "TCP", name)
		c.written = append(c.written, framed...)
		c.form = strings.Join(forms, ", ")
		var length [2]byte
		if err != nil {
			return c, nil
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return c, nil // dnsmasq has ended the connection, as it may
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(length[:]))); err != nil {
			return c, nil
		}
	}
	return c, nil
}

// dnsJunk returns messages of a stream that are no queries, and their form.
func dnsJunk(random *rand.Rand) ([]byte, string) {
	header := "\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	message := pick(random,
		"", "x", "hello", strings.Repeat("\x00", 12), strings.Repeat("\xff", 40), strings.Repeat("GET / HTTP/1.1\r\n", 40),
		header, header[:11], header+"\x01", header+"\xc0\x0c\x00\x01\x00\x01", header+"\xc0\x0e\xc0\x0c\x00\x01\x00\x01",
		header+"\x3fa\x00\x00\x01\x00\x01", header+"\x80a\x00\x00\x01\x00\x01", header+"\x01a\x00\x00\x01",
		header[:2]+"\x81\x80"+header[4:]+"\x01a\x00\x00\x01\x00\x01", // an answer
		header[:2]+"\x28\x00"+header[4:]+"\x01a\x00\x00\x01\x00\x01", // an update
		header[:4]+"\x00\x00"+header[6:],                             // no question
		"*1\r\n$4\r\nPING\r\n", strings.Repeat("j", 5000))
	message = string(binary.BigEndian.AppendUint16(nil, uint16(len(message)))) + message
	count := pick(random, 1, 1, 2, 40)
	return []byte(strings.Repeat(message, count)), fmt.Sprintf("%d of %q", count, shorten(message, 40))
}

// dnsQuery returns a query for a name that contains marker.
func dnsQuery(random *rand.Rand, id uint16, marker string) ([]byte, string) {
	name := marker + pick(random, ".example", ".sub.example", ".EXAMPLE", "."+strings.Repeat("l", 60)+".example")
	if chance(random, 20) { // the case is drawn for each letter, as some resolvers do
		mixed := []byte(name)
		for i, c := range mixed {
			if c >= 'a' && c <= 'z' && chance(random, 50) {
				mixed[i] = c - 0x20
			}
		}
		name = string(mixed)
	}
	labels := strings.Split(name, ".")
	header := func(questions, additional uint16) []byte {
		out := binary.BigEndian.AppendUint16(nil, id)
		for _, field := range []uint16{0x0100, questions, 0, 0, additional} {
			out = binary.BigEndian.AppendUint16(out, field)
		}
		return out
	}
	appendName := func(out []byte) []byte {
		for _, label := range labels {
			out = append(append(out, byte(len(label))), label...)
		}
		return append(out, 0)
	}
	kind := pick[uint16](random, 1, 1, 28, 16, 255, 33, 65, 0, 1000, 65280)
	class := pick[uint16](random, 1, 1, 1, 1, 3, 7, 255)
	question := func(out []byte) []byte {
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(out, kind), class)
	}
	optRecord := []byte{0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0}
	form := fmt.Sprintf("type %d class %d", kind, class)
	switch random.IntN(6) {
	case 0:
		return append(question(appendName(header(1, 1))), optRecord...), form + " EDNS"
	case 1:
		// The name is a pointer to an EDNS option behind the question.
		out := append(header(1, 1), 0xc0, 12+2+4+11+4)
		out = question(out)
		encoded := appendName(nil)
		opt := []byte{0, 0, 41, 0x10, 0, 0, 0, 0, 0}
		opt = binary.BigEndian.AppendUint16(opt, uint16(4+len(encoded)))
		opt = binary.BigEndian.AppendUint16(append(opt, 0xfd, 0xe9), uint16(len(encoded)))
		return append(append(out, opt...), encoded...), form + " forward pointer"
	case 2:
		out := question(appendName(header(17, 0)))
		for range 16 {
			out = append(append(out, 1, 'a', 0), 0, 1, 0, 1)
		}
		return out, form + " 17 questions"
	case 3:
		return append(question(appendName(header(1, 0))), "trailing bytes"...), form + " trailing bytes"
	default:
		return question(appendName(header(1, 0))), form
	}
}
