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

// A capturedPacket is a packet of the traffic. at is its time, in ns.
type capturedPacket struct {
	at   int64
	data []byte
}

// A traffic is a generated capture: interleaved connections of a shop. Some segments are reordered, repeated
// or lost, with the given probabilities. truth counts the transactions and the faults.
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

// generate adds conversations that begin within half a minute, and sorts their packets by time.
func (g *traffic) generate(conversations int) *traffic {
	for range conversations {
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
	ends [2]netip.AddrPort // client, server
	seq  [2]uint32         // the next sequence number of each side
	at   int64             // the time of the last packet
}

// newConversation returns a conversation between random addresses, with port at the server.
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

// sendSegment sends a segment. Unless it is safe, it may be lost, delayed or repeated.
func (k *conversation) sendSegment(from int, flags, payload string, safe bool) {
	g := k.g
	k.at += 10e3 + g.rng.Int64N(150e3)
	g.id++
	data := tcpFrame(g, k.ends[from], k.ends[1-from], flags, k.seq[from], k.seq[1-from], g.id, payload)
	k.seq[from] += uint32(len(payload))
	if strings.ContainsAny(flags, "SF") {
		k.seq[from]++
	}
	at := k.at
	if !safe {
		switch chance := g.rng.Float64(); {
		case chance < g.loss:
			g.truth["lost"]++
			return
		case chance < g.loss+g.reorder:
			g.truth["reordered"]++
			at += 200e3 + g.rng.Int64N(3e6)
		case chance < g.loss+g.reorder+g.duplicate:
			g.truth["repeated"]++
			g.id++
			again := tcpFrame(g, k.ends[from], k.ends[1-from], flags, k.seq[from]-uint32(len(payload)),
				k.seq[1-from], g.id, payload)
			g.packets = append(g.packets, capturedPacket{at + 300e3, again})
		}
	}
	g.packets = append(g.packets, capturedPacket{at, data})
}

// sendData sends text in segments, every second of which is acknowledged.
func (k *conversation) sendData(from int, text string) {
	for i := 0; len(text) > 0; i++ {
		size := min(len(text), 1460)
		k.sendSegment(from, "A", text[:size], false)
		if text = text[size:]; i%2 == 1 {
			k.sendSegment(1-from, "A", "", true)
		}
	}
	k.at += k.g.rng.Int64N(2e6)
}

// closeOrderly sends the FINs of both sides.
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
	size := 50 << g.rng.IntN(7)
	if g.rng.IntN(12) == 0 {
		size *= 15
	}
	return size + g.rng.IntN(size)
}

// addHTTP adds a connection with several requests; one body in three is chunked.
func (g *traffic) addHTTP() {
	conv := g.newConversation(80).handshake()
	for range 1 + g.rng.IntN(8) {
		g.truth["http"]++
		conv.sendData(0, fmt.Sprintf("GET /item/%d?page=%d HTTP/1.1\r\nHost: shop%d.example\r\n"+
			"User-Agent: test/1.0\r\nAccept: */*\r\nX-Trace: %s\r\n\r\n",
			g.rng.IntN(1e6), g.rng.IntN(9), g.rng.IntN(30), g.randomText(32)))
		body := g.randomText(g.bodySize())
		if g.rng.IntN(3) > 0 {
			conv.sendData(1, fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\n"+
				"Content-Length: %d\r\n\r\n%s", len(body), body))
			continue
		}
		text := "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
		for len(body) > 0 {
			size := min(len(body), 3000)
			text += fmt.Sprintf("%x\r\n%s\r\n", size, body[:size])
			body = body[size:]
		}
		conv.sendData(1, text+"0\r\n\r\n")
	}
	conv.closeOrderly()
}

// addRedis adds a connection with pipelines of SET and GET.
func (g *traffic) addRedis() {
	conv := g.newConversation(6379).handshake()
	for range 1 + g.rng.IntN(20) {
		var requests, replies string
		for range 1 + g.rng.IntN(6) { // a pipeline
			g.truth["redis"]++
			key, text := fmt.Sprintf("cart:%d", g.rng.IntN(1e5)), g.randomText(10+g.rng.IntN(300))
			if g.rng.IntN(2) == 0 {
				requests += fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(text), text)
				replies += "+OK\r\n"
			} else {
				requests += fmt.Sprintf("*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
				replies += fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
			}
		}
		conv.sendData(0, requests)
		conv.sendData(1, replies)
	}
	conv.closeOrderly()
}

// mysqlPacket returns a MySQL packet with the given sequence number.
func mysqlPacket(number byte, payload string) string {
	return string([]byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), number}) + payload
}

// addMySQL adds a connection with a login and several queries.
func (g *traffic) addMySQL() {
	conv := g.newConversation(3306).handshake()
	conv.sendData(1, mysqlPacket(0, "\x0a8.0.36\x00\x09\x00\x00\x0012345678\x00\xff\xf7\x2d\x02\x00\x0f\x80\x15"+
		strings.Repeat("\x00", 10)+"123456789012\x00mysql_native_password\x00"))
	caps := binary.LittleEndian.AppendUint32(nil, 0x1|0x200|0x8000|0x80000)
	conv.sendData(0, mysqlPacket(1, string(caps)+"\x00\x00\x00\x01\x2d"+strings.Repeat("\x00", 23)+
		"shop\x00\x14"+strings.Repeat("x", 20)+"mysql_native_password\x00"))
	ok := "\x00\x01\x00\x02\x00\x00\x00"
	conv.sendData(1, mysqlPacket(2, ok))
	for range 1 + g.rng.IntN(15) {
		g.truth["mysql"]++
		if g.rng.IntN(2) == 0 {
			conv.sendData(0, mysqlPacket(0,
				fmt.Sprintf("\x03UPDATE orders SET note='%s' WHERE id=%d", g.randomText(40), g.rng.IntN(1e6))))
			conv.sendData(1, mysqlPacket(1, ok))
			continue
		}
		conv.sendData(0, mysqlPacket(0,
			fmt.Sprintf("\x03SELECT name FROM items WHERE id>%d LIMIT 50", g.rng.IntN(1e6))))
		column := "\x03def\x04shop\x05items\x05items\x04name\x04name\x0c" +
			"\x2d\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"
		response := mysqlPacket(1, "\x01") + mysqlPacket(2, column) + mysqlPacket(3, "\xfe\x00\x00\x02\x00")
		number := byte(4)
		for range g.rng.IntN(40) {
			value := g.randomText(20 + g.rng.IntN(150))
			response += mysqlPacket(number, string([]byte{byte(len(value))})+value)
			number++
		}
		conv.sendData(1, response+mysqlPacket(number, "\xfe\x00\x00\x02\x00"))
	}
	conv.sendData(0, mysqlPacket(0, "\x01"))
	conv.closeOrderly()
}

// addDNS adds five queries with their answers.
func (g *traffic) addDNS() {
	for range 5 {
		g.truth["dns"]++
		conv := g.newConversation(53)
		dns := layers.DNS{
			ID: uint16(g.rng.IntN(1 << 16)), RD: true, QDCount: 1,
			Questions: []layers.DNSQuestion{{
				Name: []byte(g.randomText(12) + ".shop.example"),
				Type: layers.DNSTypeA, Class: layers.DNSClassIN,
			}},
		}
		send := func(from int) {
			udp := &layers.UDP{
				SrcPort: layers.UDPPort(conv.ends[from].Port()),
				DstPort: layers.UDPPort(conv.ends[1-from].Port()),
			}
			g.id++
			g.packets = append(g.packets, capturedPacket{
				conv.at,
				serialize(g, append(
					ipLayers(conv.ends[from].Addr(), conv.ends[1-from].Addr(), g.id, udp), &dns)...),
			})
			conv.at += 2e6
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
	for _, packet := range g.packets {
		table.Packet("eth0", layers.LinkTypeEthernet, packet.at, packet.data, len(packet.data))
	}
	table.Close()
}
