package tls

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// message returns a handshake message.
func message(typ byte, body string) string {
	return string([]byte{typ, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}) + body
}

// sized returns text behind its length of so many bytes.
func sized(bytes int, text string) string {
	out := ""
	for i := bytes - 1; i >= 0; i-- {
		out += string([]byte{byte(len(text) >> (8 * i))})
	}
	return out + text
}

// extension returns an extension of a hello.
func extension(typ int, body string) string {
	return string([]byte{byte(typ >> 8), byte(typ)}) + sized(2, body)
}

func clientHelloOf(version, session string, extensions ...string) string {
	return message(clientHello, version+strings.Repeat("c", 32)+sized(1, session)+sized(2, "\x13\x01\x0a\x0a\xc0\x2f")+sized(1, "\x00")+sized(2, strings.Join(extensions, "")))
}

func serverHelloOf(version, random, session string, extensions ...string) string {
	return message(serverHello, version+random+sized(1, session)+"\xc0\x2f\x00"+sized(2, strings.Join(extensions, "")))
}

// TestDialoguesMatchTheirGoldens: every form of handshake, with all fields of its event.
func TestDialoguesMatchTheirGoldens(t *testing.T) {
	const v12, v13 = "\x03\x03", "\x03\x04"
	random := strings.Repeat("s", 32)
	retry := string(helloRetryRandom)
	serverNameOf := func(name string) string { return extension(extServerName, sized(2, "\x00"+sized(2, name))) }
	alpn := func(names ...string) string {
		list := ""
		for _, name := range names {
			list += sized(1, name)
		}
		return extension(extALPN, sized(2, list))
	}
	hand := func(messages ...string) string { return record(recordHandshake, strings.Join(messages, "")) }
	certificateOf := func(der string) string { return message(certificate, sized(3, sized(3, der))) }
	var (
		der     = string(newRawCertificate().encode())
		changed = record(recordChangeCipher, "\x01")
		sealed  = record(recordHandshake, strings.Repeat("\xee", 40))
		data    = record(recordData, strings.Repeat("\xee", 40))
		short   = record(recordData, strings.Repeat("\xee", maxAlert))
		done    = message(14, "")
		hello   = hand(clientHelloOf(v12, "session", serverNameOf("WWW.Example.com."), alpn("h2", "acme-tls/1"), extension(extGroups, sized(2, "\x1a\x1a\x00\x1d\x00\x17")),
			extension(extPointFormats, sized(1, "\x00\x01")), extension(0x2a2a, ""), extension(23, "")))
		hello13 = hand(clientHelloOf(v12, "session", serverNameOf("www.example.com"), extension(extSupportedVersions, sized(1, "\x7a\x7a\x03\x04\x03\x03"))))
		answer  = serverHelloOf(v12, random, "other", alpn("h2"), extension(23, ""))
		sealing = hand(message(16, "key")) + changed + sealed
		server  = hand(answer, certificateOf(der), done)
		hello2  = hand(serverHelloOf(v12, random, "session", extension(extSupportedVersions, v13)))
	)
	dialogue := func(name string, lines ...string) protocoltest.Conversation {
		return protocoltest.NamedDialogue(name, 443, lines...)
	}
	pieces := func(text string, size int) string { // of handshake records
		out := ""
		for body := text[recordHeader:]; len(body) > 0; body = body[min(size, len(body)):] {
			out += record(recordHandshake, body[:min(size, len(body))])
		}
		return out
	}
	long := newRawCertificate()
	long.after = tlv(0x30, tlv(0x06, "\x2a\x03"), tlv(0x04, strings.Repeat("x", 17_000)))
	protocoltest.CheckDialogueGoldens(t, list, []protocoltest.Conversation{
		dialogue("1.2", ">"+hello, "<"+server, ">"+sealing, "<"+changed+sealed, ">"+data),
		dialogue("1.2 without an end", ">"+hello, "<"+server, ">"+sealing, "<"+changed),
		dialogue("1.2 with a ticket", ">"+hello, "<"+server, ">"+sealing, "<"+hand(message(4, "ticket"))+changed+sealed),
		dialogue("1.2, data instead of what finishes it", ">"+hello, "<"+server, ">"+hand(message(16, "key"))+changed+data, "<"+changed+data),
		dialogue("resumed", ">"+hello, "<"+hand(serverHelloOf(v12, random, "session"))+changed+sealed, ">"+changed+sealed),
		dialogue("not resumed after all", ">"+hello, "<"+hand(serverHelloOf(v12, random, "session"), certificateOf(der), done), ">"+sealing, "<"+changed+sealed),
		dialogue("two certificates", ">"+hello, "<"+hand(answer, certificateOf(""), certificateOf(der), certificateOf("\x30\x00"), done)),
		dialogue("a certificate of the client", ">"+hello, "<"+hand(answer, done), ">"+hand(certificateOf(der), message(16, "key"))),
		dialogue("a certificate that cannot be read", ">"+hello, "<"+hand(answer, certificateOf("none"), done)),
		dialogue("a certificate that is too long", ">"+hello, "<"+pieces(hand(answer), 1000)+pieces(record(recordHandshake, certificateOf(string(long.encode()))), 15_000)),
		dialogue("a message that is too long", ">"+hello, "<"+hand(answer)+pieces(record(recordHandshake, "\x0b\x01\x00\x00"+strings.Repeat("x", 1<<16)+certificateOf(der)), 9000)),
		dialogue("records of one byte", ">"+pieces(hello, 1), "<"+pieces(server, 1)),
		dialogue("records of three bytes", ">"+pieces(hello, 3), "<"+pieces(server, 3), ">"+sealing, "<"+changed+sealed),
		dialogue("1.3", ">"+hello13, "<"+hello2+changed+data, ">"+changed+data, "<"+data),
		dialogue("1.3 that the client refuses", ">"+hello13, "<"+hello2+changed+data, ">"+changed+short, "<"+data),
		dialogue("1.3 with a key that both have", ">"+hello13, "<"+hand(serverHelloOf(v12, random, "session", extension(extSupportedVersions, v13), extension(extPreSharedKey, "\x00\x00")))+data, ">"+data),
		dialogue("a draft of 1.3", ">"+hello13, "<"+hand(message(serverHello, "\x7f\x17"+random+"\x13\x01"+sized(2, extension(extPreSharedKey, "\x00\x00"))))+data, ">"+data),
		dialogue("1.3 with a retry", ">"+hello13, "<"+hand(serverHelloOf(v12, retry, "session", extension(extSupportedVersions, v13)))+changed, ">"+changed+hello13, "<"+hello2+data, ">"+data),
		dialogue("a retry without its hello", "<"+hand(serverHelloOf(v12, retry, "session", extension(extSupportedVersions, v13)))+changed, ">"+changed+hello13, "<"+hello2+data, ">"+data),
		dialogue("a retry that fails", ">"+hello13, "<"+hand(serverHelloOf(v12, retry, "session", extension(extSupportedVersions, v13))), ">"+record(recordAlert, "\x02\x28")),
		dialogue("SSL 3.0", ">"+hand(message(clientHello, "\x03\x00"+strings.Repeat("c", 32)+"\x00"+sized(2, "\x00\x2f")+"\x01\x00")), "<"+hand(message(serverHello, "\x03\x00"+random+"\x00\x00\x2f\x00"))),
		dialogue("a hello that is cut", ">"+hand(message(clientHello, v12+strings.Repeat("c", 32)+"\x00"+sized(2, "\xc0\x2f\xc0")+"\x01\x00"+"\x00\x20"+serverNameOf("a.example")+"\x00\x0b\x00\x09\x01")), "<"+server),
		dialogue("names that are no text", ">"+hand(clientHelloOf(v12, "", serverNameOf("\xff\x00"), alpn("\x0a\x0a", "", "\x00"))), "<"+hand(serverHelloOf("\x03\x05", random, "", alpn("\x7f")))),
		dialogue("a fatal alert", ">"+hello, "<"+record(recordAlert, "\x02\x28"), ">"+hello),
		dialogue("a warning", ">"+hello, "<"+record(recordAlert, "\x01\x70")+server, ">"+sealing, "<"+changed+sealed),
		dialogue("a close", ">"+hello, "<"+server, ">"+record(recordAlert, "\x01\x00")),
		dialogue("alerts that are none", ">"+hello, "<"+record(recordAlert, "\x03\x28")+record(recordAlert, "\x02\xfe")+record(recordAlert, strings.Repeat("\xee", 20))+server),
		dialogue("an alert alone", "<"+record(recordAlert, "\x02\x46")),
		dialogue("a heartbeat", ">"+hello, "<"+server, ">"+record(recordHeartbeat, "\x01\x00\x03abc"), "<"+record(recordHeartbeat, "\x02\x00\x03abc")),
		dialogue("the sides are exchanged", "<"+hello, ">"+server, "<"+sealing, ">"+changed+sealed),
		dialogue("the server alone", "<"+server, "<"+changed+sealed),
		dialogue("no record", ">"+hello, "<"+server, ">\x99\x99\x99", "<"+server),
		dialogue("from its middle", "midstream", ">"+data, "<"+data, ">"+hello, "<"+server, ">"+sealing, "<"+changed+sealed),
		dialogue("data alone", "midstream", ">"+strings.Repeat(record(recordData, strings.Repeat("x", 16_000)), 2+maxRecordBytes/16_000)),
		dialogue("no end of the records", ">"+hello, "<"+hand(answer)+strings.Repeat(record(recordHandshake, strings.Repeat("\x00", 16_000)), 2+maxRecordBytes/16_000)),
	}, 0)
}

// TestDamagedCertificatesMatchTheirGoldens: what is read of a certificate that is cut, or that has another byte, at each place.
func TestDamagedCertificatesMatchTheirGoldens(t *testing.T) {
	var out strings.Builder
	last := ""
	write := func(what string, der []byte) {
		read, whole := readCertificate(der)
		end := ""
		if !read.notAfter.IsZero() {
			end = read.notAfter.UTC().Format("2006-01-02")
		}
		text := fmt.Sprintf("%q %q %s %q %v whole %t", read.subject, read.issuer, end, read.dnsNames, read.addresses, whole)
		if text != last { // as for the one before
			fmt.Fprintf(&out, "%s: %s\n", what, text)
		}
		last = text
	}
	plain := newRawCertificate()
	plain.issuer = tlv(0x30, rdn("\x55\x04\x06", tlv(0x13, "DE"))+rdn("\x55\x04\x0a", tlv(0x1e, "\x00S\x00h\x00o\x00p"))+rdn("\x55\x04\x03", tlv(0x14, "caf\xe9")))
	for name, sequence := range []func(tag byte, content ...string) string{tlv, longTLV, openTLV} {
		cert := plain
		cert.sequence = sequence
		der := cert.encode()
		write(fmt.Sprintf("form %d", name), der)
		for size := range der {
			write(fmt.Sprintf("form %d, %d bytes", name, size), der[:size])
		}
	}
	der := plain.encode()
	for i := range der {
		for _, change := range []byte{0x01, 0x20, 0x80, 0xff} {
			damaged := append([]byte(nil), der...)
			damaged[i] ^= change
			write(fmt.Sprintf("byte %d ^ %02x", i, change), damaged)
		}
	}
	protocoltest.CompareGolden(t, "certificates.golden", out.String())
}

// TestParserHoldsItsMessages of both sides.
func TestParserHoldsItsMessages(t *testing.T) {
	p := &parser{}
	p.sides[protocols.Client].message, p.sides[protocols.Server].message = make([]byte, 0, 100), make([]byte, 0, 7)
	if got := p.Held(); got != 107 {
		t.Errorf("%d bytes are held", got)
	}
}
