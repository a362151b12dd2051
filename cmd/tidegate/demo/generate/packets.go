package main

import (
	"bytes"
	"fmt"
	"log"
	"net"
	"slices"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// addHTTP adds a connection to port 80 with one request and a response whose body has size bytes.
func (s *scenario) addHTTP(at time.Duration, client, server, request string, status, size int) {
	conn := s.openConn(at, client, server, 80)
	conn.send(true, []byte(request))
	phrase := map[int]string{200: "OK", 404: "Not Found"}[status]
	response := fmt.Appendf(nil,
		"HTTP/1.1 %d %s\r\nServer: nginx/1.26\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n",
		status, phrase, size)
	conn.send(false, append(response, bytes.Repeat([]byte("shop "), size/5+1)[:size]...))
	conn.close()
}

// addRedis adds a connection from the web server to the cache with one command.
func (s *scenario) addRedis(at time.Duration, args []string, reply string) {
	conn := s.openConn(at, web.Ip[0], cache.Ip[0], 6379)
	command := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		command = fmt.Appendf(command, "$%d\r\n%s\r\n", len(arg), arg)
	}
	conn.send(true, command)
	conn.send(false, []byte(reply))
	conn.close()
}

// addMySQL adds a connection from the web server to the database: a login and one query with rows in its
// answer, in the form of MariaDB (protocol 4.1, with EOF packets).
// https://mariadb.com/kb/en/clientserver-protocol/
func (s *scenario) addMySQL(at time.Duration, query string, rows int) {
	conn := s.openConn(at, web.Ip[0], db.Ip[0], 3306)

	// The handshake: version, thread id and salt, then capabilities, charset and status.
	hello := append([]byte{10}, "10.11.6-MariaDB\x00\x29\x00\x00\x00abcdefgh\x00"...)
	hello = append(hello, 0xfe, 0xf7, 45, 2, 0, 0xff, 0x81, 21)
	hello = append(append(hello, make([]byte, 10)...), "ijklmnopqrst\x00mysql_native_password\x00"...)
	conn.send(false, mysqlPacket(0, hello))

	// The login: capabilities, maximum packet size and charset, then user, password hash and method.
	login := append([]byte{0x85, 0xa2, 0x0a, 0x00, 0, 0, 0, 1, 45}, make([]byte, 23)...)
	login = append(append(login, "shop\x00\x14"...), make([]byte, 20)...)
	login = append(login, "mysql_native_password\x00"...)
	conn.send(true, mysqlPacket(1, login))
	conn.send(false, mysqlPacket(2, []byte{0, 0, 0, 2, 0, 0, 0}))

	const comQuit, comQuery = 1, 3
	conn.send(true, mysqlPacket(0, append([]byte{comQuery}, query...)))
	conn.send(false, mysqlResultSet([]string{"id", "name", "email"}, rows))
	conn.send(true, mysqlPacket(0, []byte{comQuit}))
	conn.close()
}

// mysqlResultSet returns the packets of an answer: the number of columns, their definitions, EOF, the rows,
// EOF.
func mysqlResultSet(columns []string, rows int) []byte {
	var result []byte
	sequence := byte(1)
	add := func(payload []byte) {
		result = append(result, mysqlPacket(sequence, payload)...)
		sequence++
	}
	eof := []byte{0xfe, 0, 0, 2, 0}

	add([]byte{byte(len(columns))})
	for _, name := range columns {
		// Catalog, schema, table twice, name twice, then charset, length and type.
		var definition []byte
		for _, text := range []string{"def", "shop", "t", "t", name, name} {
			definition = append(definition, lengthEncoded(text)...)
		}
		add(append(definition, 0x0c, 45, 0, 255, 0, 0, 0, 253, 0, 0, 0, 0, 0))
	}
	add(eof)
	for i := range rows {
		add(slices.Concat(
			lengthEncoded(fmt.Sprint(i)),
			lengthEncoded("Jo Example"),
			lengthEncoded(fmt.Sprintf("jo%d@mail.example", i)),
		))
	}
	add(eof)
	return result
}

// mysqlPacket returns a payload behind its header: three bytes of length and a sequence number.
func mysqlPacket(sequence byte, payload []byte) []byte {
	size := len(payload)
	return append([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}, payload...)
}

// lengthEncoded returns a text of at most 250 bytes behind its length.
func lengthEncoded(text string) []byte { return append([]byte{byte(len(text))}, text...) }

// addLookup adds a DNS query of the web container and the answer of the resolver. Without an address the
// answer is that the name does not exist.
func (s *scenario) addLookup(at time.Duration, name, address string) {
	s.port++
	query := &layers.DNS{
		ID: uint16(s.rng.Intn(1 << 16)), RD: true, QDCount: 1,
		Questions: []layers.DNSQuestion{{Name: []byte(name), Type: layers.DNSTypeA, Class: layers.DNSClassIN}},
	}
	answer := *query
	answer.QR, answer.RA = true, true
	if address == "" {
		answer.ResponseCode = layers.DNSResponseCodeNXDomain
	} else {
		answer.ANCount = 1
		answer.Answers = []layers.DNSResourceRecord{{
			Name: []byte(name), Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: net.ParseIP(address),
		}}
	}
	port := layers.UDPPort(40000 + s.port)
	s.addDatagram(at, web.Ip[0], resolver, &layers.UDP{SrcPort: port, DstPort: 53}, query)
	s.addDatagram(at+4*time.Millisecond, resolver, web.Ip[0], &layers.UDP{SrcPort: 53, DstPort: port}, &answer)
}

func (s *scenario) addDatagram(
	at time.Duration, from, to string, udp *layers.UDP, payload gopacket.SerializableLayer,
) {
	ip := s.nextIPv4(from, to, layers.IPProtocolUDP)
	_ = udp.SetNetworkLayerForChecksum(ip)
	s.addPacket(at, ethernet(from, to), ip, udp, payload)
}

// A conn is one TCP connection of the scenario.
type conn struct {
	scenario               *scenario
	at                     time.Duration // of the last segment
	client, server         string
	clientPort, serverPort uint16
	sequences              [2]uint32 // next sequence number of the client, of the server
}

// openConn adds the three-way handshake of a new connection.
func (s *scenario) openConn(at time.Duration, client, server string, port uint16) *conn {
	s.port++
	opened := &conn{
		scenario: s, at: at, client: client, server: server, clientPort: 30000 + s.port, serverPort: port,
		sequences: [2]uint32{s.rng.Uint32(), s.rng.Uint32()},
	}
	opened.addSegment(true, &layers.TCP{SYN: true}, nil)
	opened.addSegment(false, &layers.TCP{SYN: true, ACK: true}, nil)
	opened.addSegment(true, &layers.TCP{ACK: true}, nil)
	return opened
}

// addSegment adds one TCP segment 90 µs after the previous one, and advances the sequence number of its
// sender.
func (c *conn) addSegment(fromClient bool, tcp *layers.TCP, payload []byte) {
	c.at += 90 * time.Microsecond
	sender, receiver, from, to := 0, 1, c.client, c.server
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(c.clientPort), layers.TCPPort(c.serverPort)
	if !fromClient {
		sender, receiver, from, to = 1, 0, c.server, c.client
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	tcp.Seq, tcp.Window = c.sequences[sender], 64240
	if tcp.ACK {
		tcp.Ack = c.sequences[receiver]
	}

	ip := c.scenario.nextIPv4(from, to, layers.IPProtocolTCP)
	_ = tcp.SetNetworkLayerForChecksum(ip)
	c.scenario.addPacket(c.at, ethernet(from, to), ip, tcp, gopacket.Payload(payload))

	// SYN and FIN count as one byte.
	c.sequences[sender] += uint32(len(payload))
	if tcp.SYN || tcp.FIN {
		c.sequences[sender]++
	}
}

// send adds the segments of a message and the acknowledgement of its last one.
func (c *conn) send(fromClient bool, message []byte) {
	for len(message) > 0 {
		size := min(len(message), 1448)
		c.addSegment(fromClient, &layers.TCP{ACK: true, PSH: size == len(message)}, message[:size])
		message = message[size:]
	}
	c.addSegment(!fromClient, &layers.TCP{ACK: true}, nil)
}

// close adds the segments with which both sides end the connection, the client first.
func (c *conn) close() {
	c.addSegment(true, &layers.TCP{ACK: true, FIN: true}, nil)
	c.addSegment(false, &layers.TCP{ACK: true, FIN: true}, nil)
	c.addSegment(true, &layers.TCP{ACK: true}, nil)
}

// nextIPv4 returns an IP header with the next identification.
func (s *scenario) nextIPv4(from, to string, protocol layers.IPProtocol) *layers.IPv4 {
	s.ipID++
	return &layers.IPv4{
		Version: 4, TTL: 64, Id: s.ipID, Protocol: protocol, SrcIP: net.ParseIP(from), DstIP: net.ParseIP(to),
	}
}

// ethernet returns an Ethernet header. A host of the bridge has a hardware address that is derived from its
// IP address, as Docker does it; all other hosts are behind the gateway.
func ethernet(from, to string) *layers.Ethernet {
	hardware := func(address string) net.HardwareAddr {
		ip := net.ParseIP(address).To4()
		if ip[0] != 172 {
			ip = net.ParseIP(gateway).To4()
		}
		return net.HardwareAddr{0x02, 0x42, ip[0], ip[1], ip[2], ip[3]}
	}
	return &layers.Ethernet{SrcMAC: hardware(from), DstMAC: hardware(to), EthernetType: layers.EthernetTypeIPv4}
}

// addPacket adds a packet that consists of these layers.
func (s *scenario) addPacket(at time.Duration, packetLayers ...gopacket.SerializableLayer) {
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, packetLayers...); err != nil {
		log.Fatal(err)
	}
	s.packets = append(s.packets, packet{epoch.Add(at), bytes.Clone(buf.Bytes())})
}
