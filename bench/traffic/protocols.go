package traffic

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// addHTTP adds a keep-alive connection of one to ten requests.
func (g *generator) addHTTP() {
	conversation := g.openTCP(80)
	for range 1 + g.rng.IntN(10) {
		g.truth.Events["http"]++
		if g.rng.IntN(6) == 0 {
			form := fmt.Sprintf("item=%d&count=%d&note=%s", g.rng.IntN(1e6), g.rng.IntN(9), g.word(20+g.rng.IntN(200)))
			conversation.send(0, g.request("POST", "/cart")+fmt.Sprintf("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(form), form))
			conversation.send(1, "HTTP/1.1 302 Found\r\nServer: nginx\r\nLocation: /cart/view\r\nContent-Length: 0\r\n\r\n")
			conversation.pause()
			continue
		}
		conversation.send(0, g.request("GET", fmt.Sprintf("/catalog/items/%d?page=%d&sort=price", g.rng.IntN(1e5), g.rng.IntN(30)))+"\r\n")
		body := g.filler(g.bodySize())
		const head = "Server: nginx\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n"
		if g.rng.IntN(3) > 0 {
			conversation.send(1, fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
		} else {
			conversation.send(1, "HTTP/1.1 200 OK\r\n"+head+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body))
		}
		conversation.pause()
	}
	conversation.closeTCP()
}

// request returns the head of a request without the empty line that ends it.
func (g *generator) request(method, target string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop%d.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n"+
		"Accept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\nCookie: session=%s\r\n", method, target, g.rng.IntN(30), g.word(32))
}

func chunked(body string) string {
	var out strings.Builder
	for len(body) > 0 {
		n := min(len(body), 4096)
		fmt.Fprintf(&out, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	out.WriteString("0\r\n\r\n")
	return out.String()
}

// addRedis adds a connection with pipelines of one to eight commands.
func (g *generator) addRedis() {
	conversation := g.openTCP(6379)
	for range 1 + g.rng.IntN(20) {
		var ask, tell strings.Builder
		for range 1 + g.rng.IntN(1+g.rng.IntN(8)) {
			g.truth.Events["redis"]++
			key, text := fmt.Sprintf("cart:%d", g.rng.IntN(1e5)), g.word(10+g.rng.IntN(300))
			switch g.rng.IntN(3) {
			case 0:
				fmt.Fprintf(&ask, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(text), text)
				tell.WriteString("+OK\r\n")
			case 1:
				fmt.Fprintf(&ask, "*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n", len(key), key)
				fmt.Fprintf(&tell, ":%d\r\n", g.rng.IntN(1e6))
			default:
				fmt.Fprintf(&ask, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
				fmt.Fprintf(&tell, "$%d\r\n%s\r\n", len(text), text)
			}
		}
		conversation.send(0, ask.String())
		conversation.send(1, tell.String())
		conversation.pause()
	}
	conversation.closeTCP()
}

// mysqlPacket returns a packet of the MySQL protocol with sequence number n.
func mysqlPacket(n byte, s string) string {
	return string([]byte{byte(len(s)), byte(len(s) >> 8), byte(len(s) >> 16), n}) + s
}

const (
	mysqlOK  = "\x00\x01\x00\x02\x00\x00\x00"
	mysqlEOF = "\xfe\x00\x00\x02\x00"
)

// addMySQL adds a connection that logs in and sends queries.
func (g *generator) addMySQL() {
	conversation := g.openTCP(3306)
	conversation.send(1, mysqlPacket(0, "\x0a8.0.36\x00\x09\x00\x00\x00saltsalt\x00\xff\xf7\x2d\x02\x00\x0f\x80\x15"+strings.Repeat("\x00", 10)+"saltsaltsalt\x00mysql_native_password\x00"))
	caps := binary.LittleEndian.AppendUint32(nil, 0x1|0x200|0x8000|0x80000)
	conversation.send(0, mysqlPacket(1, string(caps)+"\x00\x00\x00\x01\x2d"+strings.Repeat("\x00", 23)+"shop\x00\x14"+strings.Repeat("h", 20)+"mysql_native_password\x00"))
	conversation.send(1, mysqlPacket(2, mysqlOK))
	for range 1 + g.rng.IntN(15) {
		g.truth.Events["mysql"]++
		if g.rng.IntN(3) == 0 {
			conversation.send(0, mysqlPacket(0, fmt.Sprintf("\x03UPDATE orders SET note = '%s', total = %d WHERE id = %d", g.word(30), g.rng.IntN(9999), g.rng.IntN(1e6))))
			conversation.send(1, mysqlPacket(1, mysqlOK))
		} else {
			conversation.send(0, mysqlPacket(0, fmt.Sprintf("\x03SELECT id, name, price FROM items WHERE category = %d AND price < %d ORDER BY price LIMIT 40", g.rng.IntN(90), g.rng.IntN(900))))
			conversation.send(1, g.mysqlRows(g.rng.IntN(40)))
		}
		conversation.pause()
	}
	conversation.send(0, mysqlPacket(0, "\x01"))
	conversation.closeTCP()
}

// mysqlRows returns a result set of three columns and n rows.
func (g *generator) mysqlRows(n int) string {
	var out strings.Builder
	out.WriteString(mysqlPacket(1, "\x03"))
	for i, c := range [...]string{"id", "name", "price"} {
		out.WriteString(mysqlPacket(byte(2+i), fmt.Sprintf("\x03def\x04shop\x05items\x05items%c%s%c%s\x0c\x2d\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00", len(c), c, len(c), c)))
	}
	out.WriteString(mysqlPacket(5, mysqlEOF))
	for i := range n {
		id, name, price := fmt.Sprint(g.rng.IntN(1e6)), g.word(10+g.rng.IntN(60)), fmt.Sprint(g.rng.IntN(900))
		out.WriteString(mysqlPacket(byte(6+i), fmt.Sprintf("%c%s%c%s%c%s", len(id), id, len(name), name, len(price), price)))
	}
	out.WriteString(mysqlPacket(byte(6+n), mysqlEOF))
	return out.String()
}

// addDNS adds up to four lookups, each from a port of its own.
func (g *generator) addDNS() {
	for range 1 + g.rng.IntN(4) {
		g.truth.Events["dns"]++
		conversation := g.newConversation(53)
		conversation.now += g.rng.Int64N(5e6)
		data := binary.BigEndian.AppendUint16(nil, uint16(g.rng.IntN(1<<16)))
		data = append(data, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		for _, label := range []string{"svc" + fmt.Sprint(g.rng.IntN(900)), []string{"images", "api", "cdn"}[g.rng.IntN(3)], "example", "com"} {
			data = append(append(data, byte(len(label))), label...)
		}
		data = append(data, 0, 0, 1, 0, 1)
		conversation.sendDatagram(0, data)
		conversation.now += 100e3 + g.rng.Int64N(10e6)
		data[2], data[3] = 0x81, 0x80
		if g.rng.IntN(10) == 0 {
			data[3] |= 3 // NXDOMAIN
			conversation.sendDatagram(1, data)
			continue
		}
		answers := 1 + g.rng.IntN(3)
		data[7] = byte(answers)
		for i := range answers {
			data = append(data, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, byte(i+1))
		}
		conversation.sendDatagram(1, data)
	}
}

// addTLS adds a handshake of crypto/tls followed by opaque records.
func (g *generator) addTLS() {
	g.truth.Events["tls"]++
	conversation := g.openTCP(443)
	for _, t := range g.handshakes[g.rng.IntN(len(g.handshakes))] {
		conversation.send(t.from, t.bytes)
	}
	for range 1 + g.rng.IntN(8) {
		conversation.send(0, applicationData(g.filler(200+g.rng.IntN(600))))
		for n := g.bodySize(); n > 0; n -= 8192 {
			conversation.send(1, applicationData(g.filler(min(n, 8192)+40)))
		}
		conversation.pause()
	}
	conversation.closeTCP()
}

// applicationData returns a TLS record of type application_data.
func applicationData(s string) string {
	return string([]byte{23, 3, 3, byte(len(s) >> 8), byte(len(s))}) + s
}
