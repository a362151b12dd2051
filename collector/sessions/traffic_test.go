package sessions

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
)

// A capturedPacket is a packet of generated traffic.
type capturedPacket struct {
	at   int64
	data []byte
}

// traffic is a generated capture: interleaved connections of a shop, some of whose segments are reordered,
// repeated or lost, and the counts of what it contains.
type traffic struct {
	testing.TB
	rng                      *rand.Rand
	reorder, duplicate, loss float64
	packets                  []capturedPacket
	truth                    map[string]int
	id                       uint16
}

func newTraffic(t testing.TB, seed uint64) *traffic {
	return &traffic{TB: t, rng: rand.New(rand.NewPCG(seed, 1)), truth: map[string]int{}}
}

// generate makes n conversations over half a minute and sorts their packets by time.
func (g *traffic) generate(n int) *traffic {
	for range n {
		switch g.rng.IntN(5) {
		case 0, 1:
			g.addHTTP()
		case 2:
			g.addMySQL()
		case 3:
			g.addRedis()
		default:
			g.addDNS()
		}
	}
	slices.SortStableFunc(g.packets, func(a, b capturedPacket) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	return g
}

// A conversation is one connection of the traffic.
type conversation struct {
	g    *traffic
	ends [2]netip.AddrPort
	seq  [2]uint32
	at   int64
}

func (g *traffic) newConversation(port uint16) *conversation {
	addr := func(net byte) netip.Addr {
		return netip.AddrFrom4([4]byte{10, net, byte(g.rng.IntN(256)), byte(1 + g.rng.IntN(250))})
	}
	conv := &conversation{g: g, at: startTime + g.rng.Int64N(30e9), seq: [2]uint32{g.rng.Uint32(), g.rng.Uint32()}}
	conv.ends = [2]netip.AddrPort{
		netip.AddrPortFrom(addr(1), uint16(32768+g.rng.IntN(28000))),
		netip.AddrPortFrom(addr(2), port),
	}
	return conv
}

// handshake sends the three segments of a handshake.
func (k *conversation) handshake() *conversation {
	k.sendSegment(0, "S", "", true)
	k.sendSegment(1, "SA", "", true)
	k.sendSegment(0, "A", "", true)
	return k
}

func (k *conversation) sendSegment(from int, flags, payload string, safe bool) {
	traffic := k.g
	k.at += 10e3 + traffic.rng.Int64N(150e3)
	traffic.id++
	data := tcpFrame(traffic, k.ends[from], k.ends[1-from], flags, k.seq[from], k.seq[1-from], traffic.id, payload)
	k.seq[from] += uint32(len(payload))
	if strings.ContainsAny(flags, "SF") {
		k.seq[from]++
	}
	at := k.at
	if !safe {
		switch p := traffic.rng.Float64(); {
		case p < traffic.loss:
			traffic.truth["lost"]++
			return
		case p < traffic.loss+traffic.reorder:
			traffic.truth["reordered"]++
			at += 200e3 + traffic.rng.Int64N(3e6)
		case p < traffic.loss+traffic.reorder+traffic.duplicate:
			traffic.truth["repeated"]++
			traffic.id++
			again := tcpFrame(traffic, k.ends[from], k.ends[1-from], flags, k.seq[from]-uint32(len(payload)),
				k.seq[1-from], traffic.id, payload)
			traffic.packets = append(traffic.packets, capturedPacket{at + 300e3, again})
		}
	}
	traffic.packets = append(traffic.packets, capturedPacket{at, data})
}

// sendData sends text in segments, every second of which is acknowledged.
func (k *conversation) sendData(from int, text string) {
	for i := 0; len(text) > 0; i++ {
		n := min(len(text), 1460)
		k.sendSegment(from, "A", text[:n], false)
		if text = text[n:]; i%2 == 1 {
			k.sendSegment(1-from, "A", "", true)
		}
	}
	k.at += k.g.rng.Int64N(2e6)
}

func (k *conversation) closeOrderly() {
	k.at += 3e6
	k.sendSegment(0, "FA", "", true)
	k.sendSegment(1, "FA", "", true)
	k.sendSegment(0, "A", "", true)
}

// randomText returns n letters.
func (g *traffic) randomText(n int) string {
	data := make([]byte, n)
	for i := range data {
		data[i] = 'a' + byte(g.rng.IntN(26))
	}
	return string(data)
}

// bodySize returns the size of a body: most are small, a few are large.
func (g *traffic) bodySize() int {
	n := 50 << g.rng.IntN(7)
	if g.rng.IntN(12) == 0 {
		n *= 15
	}
	return n + g.rng.IntN(n)
}

func (g *traffic) addHTTP() {
	conversation := g.newConversation(80).handshake()
	for range 1 + g.rng.IntN(8) {
		g.truth["http"]++
		conversation.sendData(0, fmt.Sprintf("GET /item/%d?page=%d HTTP/1.1\r\nHost: shop%d.example\r\n"+
			"User-Agent: test/1.0\r\nAccept: */*\r\nX-Trace: %s\r\n\r\n",
			g.rng.IntN(1e6), g.rng.IntN(9), g.rng.IntN(30), g.randomText(32)))
		body := g.randomText(g.bodySize())
		if g.rng.IntN(3) > 0 {
			conversation.sendData(1, fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\n"+
				"Content-Length: %d\r\n\r\n%s", len(body), body))
			continue
		}
		text := "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
		for len(body) > 0 {
			n := min(len(body), 3000)
			text += fmt.Sprintf("%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		conversation.sendData(1, text+"0\r\n\r\n")
	}
	conversation.closeOrderly()
}

func (g *traffic) addRedis() {
	conversation := g.newConversation(6379).handshake()
	for range 1 + g.rng.IntN(20) {
		var ask, tell string
		for range 1 + g.rng.IntN(6) { // a pipeline
			g.truth["redis"]++
			key, text := fmt.Sprintf("cart:%d", g.rng.IntN(1e5)), g.randomText(10+g.rng.IntN(300))
			if g.rng.IntN(2) == 0 {
				ask += fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(text), text)
				tell += "+OK\r\n"
			} else {
				ask += fmt.Sprintf("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
				tell += fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
			}
		}
		conversation.sendData(0, ask)
		conversation.sendData(1, tell)
	}
	conversation.closeOrderly()
}

// mysqlPacket returns a MySQL packet with the sequence number n.
func mysqlPacket(n byte, s string) string {
	return string([]byte{byte(len(s)), byte(len(s) >> 8), byte(len(s) >> 16), n}) + s
}

func (g *traffic) addMySQL() {
	conversation := g.newConversation(3306).handshake()
	conversation.sendData(1, mysqlPacket(0, "\x0a8.0.36\x00\x09\x00\x00\x0012345678\x00\xff\xf7\x2d\x02\x00\x0f\x80\x15"+
		strings.Repeat("\x00", 10)+"123456789012\x00mysql_native_password\x00"))
	caps := binary.LittleEndian.AppendUint32(nil, 0x1|0x200|0x8000|0x80000)
	conversation.sendData(0, mysqlPacket(1, string(caps)+"\x00\x00\x00\x01\x2d"+strings.Repeat("\x00", 23)+
		"shop\x00\x14"+strings.Repeat("x", 20)+"mysql_native_password\x00"))
	ok := "\x00\x01\x00\x02\x00\x00\x00"
	conversation.sendData(1, mysqlPacket(2, ok))
	for range 1 + g.rng.IntN(15) {
		g.truth["mysql"]++
		if g.rng.IntN(2) == 0 {
			conversation.sendData(0, mysqlPacket(0,
				fmt.Sprintf("\x03UPDATE orders SET note='%s' WHERE id=%d", g.randomText(40), g.rng.IntN(1e6))))
			conversation.sendData(1, mysqlPacket(1, ok))
			continue
		}
		conversation.sendData(0, mysqlPacket(0,
			fmt.Sprintf("\x03SELECT name FROM items WHERE id>%d LIMIT 50", g.rng.IntN(1e6))))
		column := "\x03def\x04shop\x05items\x05items\x04name\x04name\x0c" +
			"\x2d\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"
		r := mysqlPacket(1, "\x01") + mysqlPacket(2, column) + mysqlPacket(3, "\xfe\x00\x00\x02\x00")
		n := byte(4)
		for range g.rng.IntN(40) {
			v := g.randomText(20 + g.rng.IntN(150))
			r += mysqlPacket(n, string([]byte{byte(len(v))})+v)
			n++
		}
		conversation.sendData(1, r+mysqlPacket(n, "\xfe\x00\x00\x02\x00"))
	}
	conversation.sendData(0, mysqlPacket(0, "\x01"))
	conversation.closeOrderly()
}

func (g *traffic) addDNS() {
	for range 5 {
		g.truth["dns"]++
		conversation := g.newConversation(53)
		dns := layers.DNS{
			ID: uint16(g.rng.IntN(1 << 16)), RD: true, QDCount: 1,
			Questions: []layers.DNSQuestion{{
				Name: []byte(g.randomText(12) + ".shop.example"),
				Type: layers.DNSTypeA, Class: layers.DNSClassIN,
			}},
		}
		send := func(from int) {
			udp := &layers.UDP{
				SrcPort: layers.UDPPort(conversation.ends[from].Port()),
				DstPort: layers.UDPPort(conversation.ends[1-from].Port()),
			}
			g.id++
			g.packets = append(g.packets, capturedPacket{
				conversation.at,
				serialize(g, append(
					ipLayers(conversation.ends[from].Addr(), conversation.ends[1-from].Addr(), g.id, udp), &dns)...),
			})
			conversation.at += 2e6
		}
		send(0)
		dns.QR, dns.RA = true, true
		dns.Answers = []layers.DNSResourceRecord{{
			Name: dns.Questions[0].Name, Type: layers.DNSTypeA,
			Class: layers.DNSClassIN, TTL: 30, IP: []byte{10, 2, 0, 1},
		}}
		send(1)
	}
}

// playThrough runs the traffic through a Table.
func (g *traffic) playThrough(table *Table) {
	for _, p := range g.packets {
		table.Packet("eth0", layers.LinkTypeEthernet, p.at, p.data, len(p.data))
	}
	table.Close()
}
