package traffic

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// addHTTP adds a keep-alive connection of one to ten requests. One request in six posts a form.
func (g *generator) addHTTP() {
	conversation := g.openTCP(80)
	for range 1 + g.rng.IntN(10) {
		g.truth.Events["http"]++
		if g.rng.IntN(6) == 0 {
			g.postForm(conversation)
		} else {
			g.getPage(conversation)
		}
		conversation.pause()
	}
	conversation.closeTCP()
}

// postForm sends a form, which the server answers with a redirect.
func (g *generator) postForm(conversation *conversation) {
	form := fmt.Sprintf("item=%d&count=%d&note=%s", g.rng.IntN(1e6), g.rng.IntN(9), g.word(20+g.rng.IntN(200)))
	conversation.send(0, g.requestHead("POST", "/cart")+
		fmt.Sprintf("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(form), form))
	conversation.send(1, "HTTP/1.1 302 Found\r\nServer: nginx\r\nLocation: /cart/view\r\nContent-Length: 0\r\n\r\n")
}

// getPage requests a page. A third of the responses is chunked, the others state their length.
func (g *generator) getPage(conversation *conversation) {
	target := fmt.Sprintf("/catalog/items/%d?page=%d&sort=price", g.rng.IntN(1e5), g.rng.IntN(30))
	conversation.send(0, g.requestHead("GET", target)+"\r\n")
	body := g.filler(g.bodySize())
	const head = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 01 Mar 2026 12:00:00 GMT\r\n" +
		"Content-Type: text/html; charset=utf-8\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n"
	if g.rng.IntN(3) > 0 {
		conversation.send(1, fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
	} else {
		conversation.send(1, head+"Transfer-Encoding: chunked\r\n\r\n"+chunked(body))
	}
}

// requestHead returns the head of a request without the empty line that ends it.
func (g *generator) requestHead(method, target string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: shop%d.example.com\r\n"+
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n"+
		"Accept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: identity\r\n"+
		"Connection: keep-alive\r\nCookie: session=%s\r\n", method, target, g.rng.IntN(30), g.word(32))
}

// chunked returns body in chunks of up to 4,096 bytes (RFC 9112 section 7.1).
func chunked(body string) string {
	var out strings.Builder
	for len(body) > 0 {
		size := min(len(body), 4096)
		fmt.Fprintf(&out, "%x\r\n%s\r\n", size, body[:size])
		body = body[size:]
	}
	out.WriteString("0\r\n\r\n")
	return out.String()
}

// addRedis adds a connection with pipelines of one to eight commands.
func (g *generator) addRedis() {
	conversation := g.openTCP(6379)
	for range 1 + g.rng.IntN(20) {
		var requests, replies strings.Builder
		for range 1 + g.rng.IntN(1+g.rng.IntN(8)) {
			g.truth.Events["redis"]++
			key, text := fmt.Sprintf("cart:%d", g.rng.IntN(1e5)), g.word(10+g.rng.IntN(300))
			switch g.rng.IntN(3) {
			case 0:
				fmt.Fprintf(&requests, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(text), text)
				replies.WriteString("+OK\r\n")
			case 1:
				fmt.Fprintf(&requests, "*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n", len(key), key)
				fmt.Fprintf(&replies, ":%d\r\n", g.rng.IntN(1e6))
			default:
				fmt.Fprintf(&requests, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
				fmt.Fprintf(&replies, "$%d\r\n%s\r\n", len(text), text)
			}
		}
		conversation.send(0, requests.String())
		conversation.send(1, replies.String())
		conversation.pause()
	}
	conversation.closeTCP()
}

// mysqlPacket returns a packet of the MySQL protocol with a sequence number.
func mysqlPacket(sequence byte, payload string) string {
	size := len(payload)
	return string([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}) + payload
}

// The payloads of an OK packet (no rows affected) and of an EOF packet, both with status autocommit.
const (
	mysqlOK  = "\x00\x01\x00\x02\x00\x00\x00"
	mysqlEOF = "\xfe\x00\x00\x02\x00"
)

// addMySQL adds a connection that logs in, sends one to 15 commands and quits.
func (g *generator) addMySQL() {
	conversation := g.openTCP(3306)
	loginMySQL(conversation)
	for range 1 + g.rng.IntN(15) {
		g.truth.Events["mysql"]++
		if g.rng.IntN(3) == 0 {
			query := fmt.Sprintf("UPDATE orders SET note = '%s', total = %d WHERE id = %d",
				g.word(30), g.rng.IntN(9999), g.rng.IntN(1e6))
			conversation.send(0, mysqlPacket(0, "\x03"+query)) // COM_QUERY
			conversation.send(1, mysqlPacket(1, mysqlOK))
		} else {
			query := fmt.Sprintf("SELECT id, name, price FROM items"+
				" WHERE category = %d AND price < %d ORDER BY price LIMIT 40", g.rng.IntN(90), g.rng.IntN(900))
			conversation.send(0, mysqlPacket(0, "\x03"+query))
			conversation.send(1, g.mysqlResultSet(g.rng.IntN(40)))
		}
		conversation.pause()
	}
	conversation.send(0, mysqlPacket(0, "\x01")) // COM_QUIT
	conversation.closeTCP()
}

// loginMySQL sends greeting, login and OK of protocol version 10 with mysql_native_password.
func loginMySQL(conversation *conversation) {
	conversation.send(1, mysqlPacket(0, "\x0a8.0.36\x00\x09\x00\x00\x00saltsalt\x00\xff\xf7\x2d\x02\x00\x0f\x80\x15"+
		strings.Repeat("\x00", 10)+"saltsaltsalt\x00mysql_native_password\x00"))

	// CLIENT_LONG_PASSWORD, PROTOCOL_41, SECURE_CONNECTION and PLUGIN_AUTH.
	capabilities := binary.LittleEndian.AppendUint32(nil, 0x1|0x200|0x8000|0x80000)
	conversation.send(0, mysqlPacket(1, string(capabilities)+"\x00\x00\x00\x01\x2d"+strings.Repeat("\x00", 23)+
		"shop\x00\x14"+strings.Repeat("h", 20)+"mysql_native_password\x00"))
	conversation.send(1, mysqlPacket(2, mysqlOK))
}

// mysqlResultSet returns a result set of three columns with the given number of rows.
func (g *generator) mysqlResultSet(rows int) string {
	var out strings.Builder
	out.WriteString(mysqlPacket(1, "\x03"))
	for i, column := range [...]string{"id", "name", "price"} {
		definition := fmt.Sprintf("\x03def\x04shop\x05items\x05items%c%s%c%s\x0c\x2d\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00",
			len(column), column, len(column), column)
		out.WriteString(mysqlPacket(byte(2+i), definition))
	}
	out.WriteString(mysqlPacket(5, mysqlEOF))

	for i := range rows {
		id, name, price := fmt.Sprint(g.rng.IntN(1e6)), g.word(10+g.rng.IntN(60)), fmt.Sprint(g.rng.IntN(900))
		values := fmt.Sprintf("%c%s%c%s%c%s", len(id), id, len(name), name, len(price), price)
		out.WriteString(mysqlPacket(byte(6+i), values))
	}
	out.WriteString(mysqlPacket(byte(6+rows), mysqlEOF))
	return out.String()
}

// addDNS adds up to four lookups, each from a port of its own. One lookup in ten fails.
func (g *generator) addDNS() {
	for range 1 + g.rng.IntN(4) {
		g.truth.Events["dns"]++
		conversation := g.newConversation(53)
		conversation.now += g.rng.Int64N(5e6)
		message := g.dnsQuery()
		conversation.sendDatagram(0, message)

		// The response repeats the question. QR, RD and RA are set.
		conversation.now += 100e3 + g.rng.Int64N(10e6)
		message[2], message[3] = 0x81, 0x80
		if g.rng.IntN(10) == 0 {
			message[3] |= 3 // NXDOMAIN
			conversation.sendDatagram(1, message)
			continue
		}
		answers := 1 + g.rng.IntN(3)
		message[7] = byte(answers)
		for i := range answers {
			// Pointer to the name of the question, A, IN, TTL 60, four bytes of address.
			message = append(message, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, byte(i+1))
		}
		conversation.sendDatagram(1, message)
	}
}

// dnsQuery returns a recursive query for the IPv4 address of a random name.
func (g *generator) dnsQuery() []byte {
	message := binary.BigEndian.AppendUint16(nil, uint16(g.rng.IntN(1<<16)))
	message = append(message, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0) // RD, one question
	service := "svc" + fmt.Sprint(g.rng.IntN(900))
	zone := []string{"images", "api", "cdn"}[g.rng.IntN(3)]
	for _, label := range []string{service, zone, "example", "com"} {
		message = append(message, byte(len(label)))
		message = append(message, label...)
	}
	return append(message, 0, 0, 1, 0, 1) // root label, type A, class IN
}

// addTLS adds a handshake of crypto/tls followed by opaque records.
func (g *generator) addTLS() {
	g.truth.Events["tls"]++
	conversation := g.openTCP(443)
	for _, message := range g.handshakes[g.rng.IntN(len(g.handshakes))] {
		conversation.send(message.from, message.bytes)
	}
	for range 1 + g.rng.IntN(8) {
		conversation.send(0, applicationData(g.filler(200+g.rng.IntN(600))))
		for left := g.bodySize(); left > 0; left -= 8192 {
			conversation.send(1, applicationData(g.filler(min(left, 8192)+40)))
		}
		conversation.pause()
	}
	conversation.closeTCP()
}

// applicationData returns a TLS record of type application_data.
func applicationData(payload string) string {
	size := len(payload)
	return string([]byte{23, 3, 3, byte(size >> 8), byte(size)}) + payload
}
