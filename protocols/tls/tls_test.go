package tls

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
	"tidegate/protocols/mysql"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

// play returns the events of steps on the port of the protocol.
func play(steps []protocoltest.Step) []*pipeline.Event {
	return protocoltest.Conversation{Port: 443, Steps: steps}.Events(list)
}

// A recorder is one end of a connection. It appends what is written to the steps of both ends.
type recorder struct {
	net.Conn
	dir   protocols.Dir
	mu    *sync.Mutex
	steps *[]protocoltest.Step
}

// Write records data and passes it to the other end.
func (r recorder) Write(data []byte) (int, error) {
	r.mu.Lock()
	*r.steps = append(*r.steps, protocoltest.Step{Dir: r.dir, Data: bytes.Clone(data)})
	r.mu.Unlock()
	return r.Conn.Write(data)
}

// converse returns the steps of a handshake between client and server of crypto/tls and of one line that the
// server echoes.
func converse(t testing.TB, client, server *tls.Config) []protocoltest.Step {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	clientEnd, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	serverEnd, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}

	var steps []protocoltest.Step
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer serverEnd.Close()
		conn := tls.Server(recorder{serverEnd, protocols.Server, &mu, &steps}, server)
		if conn.Handshake() == nil {
			_, _ = io.Copy(conn, conn) // an echo
		}
	}()

	conn := tls.Client(recorder{clientEnd, protocols.Client, &mu, &steps}, client)
	if conn.Handshake() == nil {
		if _, err := conn.Write([]byte("a word of more than a few letters")); err == nil {
			_, _ = io.ReadFull(conn, make([]byte, 5))
		}
	}
	clientEnd.Close()
	<-done
	return steps
}

// serverCert returns a self-signed certificate of www.example.com, the same at each call.
var serverCert = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "www.example.com", Organization: []string{"Shop"}},
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(1_900_000_000, 0),
		DNSNames: []string{"www.example.com", "example.com"}, IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// configs returns a client of one version and a server that accepts it.
func configs(version uint16) (client, server *tls.Config) {
	client = &tls.Config{
		ServerName: "WWW.example.com", InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"},
		MinVersion: version, MaxVersion: version,
	}
	return client, &tls.Config{Certificates: []tls.Certificate{serverCert()}, NextProtos: []string{"http/1.1"}}
}

// line returns an event in short: version, server name, cipher and the other fields that are set.
func line(event *pipeline.Event) string {
	handshake := event.Tls
	text := fmt.Sprintf("%s %s %s", handshake.Version, handshake.ServerName, handshake.Cipher)
	for _, field := range []struct {
		text string
		set  bool
	}{
		{"established", handshake.Established},
		{"resumed", handshake.Resumed},
		{handshake.Alert, handshake.Alert != ""},
		{"next=" + handshake.NextProtocol, handshake.NextProtocol != ""},
		{handshake.ServerSubject, handshake.ServerSubject != ""},
		{"failed", event.Outcome == pipeline.Outcome_FAILURE},
		{"partial", event.Partial},
	} {
		if field.set {
			text += " " + field.text
		}
	}
	return text
}

// lines returns each event in the form of line.
func lines(events []*pipeline.Event) []string {
	var out []string
	for _, event := range events {
		out = append(out, line(event))
	}
	return out
}

// check plays steps whole and in every split and compares the events.
func check(t *testing.T, steps []protocoltest.Step, want ...string) []*pipeline.Event {
	t.Helper()
	conversation := protocoltest.Conversation{Port: 443, Steps: steps}
	protocoltest.CheckSplits(t, list, conversation)
	events := conversation.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	return events
}

// TestHandshakeOfARealStackIsOneEvent checks the fields that each version sends in clear.
func TestHandshakeOfARealStackIsOneEvent(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	event := check(t, converse(t, client, server),
		"1.2 www.example.com TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 established next=http/1.1 CN=www.example.com,O=Shop")[0]
	handshake := event.Tls
	if handshake.ServerNotAfter != 1_900_000_000e9 || handshake.ServerIssuer != handshake.ServerSubject ||
		!slices.Equal(handshake.ServerNames, []string{"www.example.com", "example.com", "192.0.2.1"}) ||
		handshake.ClientVersion != "1.2" || !slices.Equal(handshake.ClientAlpn, []string{"h2", "http/1.1"}) ||
		len(handshake.Ja3) != 32 || len(handshake.Ja3S) != 32 {
		t.Errorf("%v", event)
	}
	if event.Outcome != pipeline.Outcome_SUCCESS || event.Source.Bytes == 0 || event.Destination.Bytes == 0 {
		t.Errorf("%v", event)
	}

	client, server = configs(tls.VersionTLS13)
	check(t, converse(t, client, server), "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
	server.CurvePreferences = []tls.CurveID{tls.CurveP521} // HelloRetryRequest
	client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP521}
	check(t, converse(t, client, server), "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
}

// TestHandshakeThatEndsBehindARetryIsNotEstablished: a HelloRetryRequest (RFC 8446 section 4.1.4) has the form of a
// ServerHello, and neither its cipher nor the ChangeCipherSpec behind it say that the server has accepted.
func TestHandshakeThatEndsBehindARetryIsNotEstablished(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	server.CurvePreferences = []tls.CurveID{tls.CurveP521}
	client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP521}
	steps := converse(t, client, server)
	for count := 1; count <= 3; count++ {
		event := check(t, steps[:count], " www.example.com ")[0]
		if event.Tls.Established || event.Tls.Ja3S != "" || event.Outcome != pipeline.Outcome_UNKNOWN {
			t.Errorf("after %d steps: %v", count, event)
		}
	}
}

// TestResumedHandshakeIsMarked checks a session of TLS 1.2 and a pre-shared key of TLS 1.3.
func TestResumedHandshakeIsMarked(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client, server := configs(version)
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		first := play(converse(t, client, server))
		// A resumed handshake has no certificate.
		want := strings.Replace(line(first[0]), " CN=www.example.com,O=Shop", "", 1)
		want = strings.Replace(want, "established", "established resumed", 1)
		second := check(t, converse(t, client, server), want)
		if first[0].Tls.Resumed || !second[0].Tls.Resumed {
			t.Errorf("%x: first %v, second %v", version, first[0].Tls.Resumed, second[0].Tls.Resumed)
		}
	}
}

// TestAlertsEndTheHandshake: an alert in clear is named. The alert of a client of TLS 1.3 is encrypted, so
// that its handshake is only not established.
func TestAlertsEndTheHandshake(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	client.InsecureSkipVerify = false
	check(t, converse(t, client, server),
		"1.2 www.example.com TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 bad_certificate next=http/1.1 CN=www.example.com,O=Shop failed")

	client, server = configs(tls.VersionTLS12)
	server.MinVersion = tls.VersionTLS13
	check(t, converse(t, client, server), " www.example.com  protocol_version failed")

	client, server = configs(tls.VersionTLS13)
	client.InsecureSkipVerify = false
	check(t, converse(t, client, server), "1.3 www.example.com TLS_AES_128_GCM_SHA256")

	client, server = configs(tls.VersionTLS13)
	server.NextProtos = []string{"other"}
	check(t, converse(t, client, server), " www.example.com  no_application_protocol failed")
}

// TestUnfinishedHandshakeIsEmittedOnClose checks a ClientHello alone, in one record and in records of a few
// bytes, and a capture of the server alone.
func TestUnfinishedHandshakeIsEmittedOnClose(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	whole := converse(t, client, server)
	hello := whole[0].Data
	check(t, []protocoltest.Step{{Dir: protocols.Client, Data: hello}}, " www.example.com ")
	for _, size := range []int{1, 3, 50} {
		var cut []byte
		for fragment := range slices.Chunk(hello[recordHeader:], size) {
			cut = append(append(cut, recordHandshake, 3, 1, 0, byte(len(fragment))), fragment...)
		}
		check(t, []protocoltest.Step{{Dir: protocols.Client, Data: cut}}, " www.example.com ")
	}
	check(t, []protocoltest.Step{{Dir: protocols.Client, Data: hello[:len(hello)-1]}})

	// Only the bytes of the server were captured.
	var serverOnly []protocoltest.Step
	for _, step := range whole {
		if step.Dir == protocols.Server {
			serverOnly = append(serverOnly, step)
		}
	}
	check(t, serverOnly, "1.2  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 next=http/1.1 CN=www.example.com,O=Shop partial")
}

// TestWrongRolesAreExchanged: the side that sends a ClientHello is the client.
func TestWrongRolesAreExchanged(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	steps := converse(t, client, server)
	for i := range steps {
		steps[i].Dir = steps[i].Dir.Other()
	}
	events := check(t, steps, "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
	if events[0].Source.Port != 443 {
		t.Errorf("%v", events[0])
	}
}

// TestGapInTheCertificateMarksTheHandshake: the parser follows the handshake to its end.
func TestGapInTheCertificateMarksTheHandshake(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	steps := converse(t, client, server)
	var cut []protocoltest.Step
	for _, step := range steps {
		if at := bytes.Index(step.Data, []byte("www.example.com")); step.Dir == protocols.Server && at > 0 {
			front, back := protocoltest.Server(string(step.Data[:at])), protocoltest.Server(string(step.Data[at+50:]))
			cut = append(cut, front, protocoltest.Step{Dir: protocols.Server, Gap: 50}, back)
			continue
		}
		cut = append(cut, step)
	}
	events := play(cut)
	want := []string{"1.2 www.example.com TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 established next=http/1.1 partial"}
	if got := lines(events); len(got) != 1 || !strings.HasSuffix(got[0], "partial") || !strings.Contains(got[0], "established") {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// TestHandshakeIsBounded: a message of 16 MiB and more records than a handshake has end the parsing.
func TestHandshakeIsBounded(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	hello := converse(t, client, server)[0].Data
	long := append([]byte{recordHandshake, 3, 3, 0x40, 0x00, 11, 0xff, 0xff, 0xff}, make([]byte, 1<<14-4)...)
	steps := []protocoltest.Step{{Dir: protocols.Client, Data: hello}, {Dir: protocols.Server, Data: long}}
	record := append([]byte{recordHandshake, 3, 3, 0x40, 0x00}, make([]byte, 1<<14)...)
	for range 200 {
		steps = append(steps, protocoltest.Step{Dir: protocols.Server, Data: record})
	}
	events := play(steps)
	if len(events) != 1 || events[0].Destination.Bytes > maxRecordBytes || !events[0].Partial || !slices.Equal(events[0].Tags, []string{pipeline.TagTruncated}) {
		t.Errorf("%q", lines(events))
	}
	data := append([]byte{recordData, 3, 3, 0x40, 0x00}, make([]byte, 1<<14)...)
	steps = nil
	for range 2 + maxRecordBytes/len(data) {
		steps = append(steps, protocoltest.Step{Dir: protocols.Server, Data: data})
	}
	if events := (protocoltest.Conversation{Port: 443, MidStream: true, Steps: steps}).Events(list); len(events) != 0 {
		t.Errorf("data alone: %q", lines(events))
	}
}

// TestJA3IsAsItsAuthorsPublishIt compares texts and hashes. GREASE values are left out.
func TestJA3IsAsItsAuthorsPublishIt(t *testing.T) {
	unhex := func(digits string) []byte {
		data, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	random := strings.Repeat("00", 32)
	hello, text := readClientHello(unhex("0301"+random+"00"+"0006 0a0a 002f 0035"+"0100"+"0024"+
		"1a1a 0000"+"0000 0008 0006 00 0003 612e62"+"000a 0006 0004 2a2a 001d"+"000b 0002 0100"+"0017 0000"), nil)
	if string(text) != "769,47-53,0-10-11-23,29,0" || string(hello.name) != "a.b" {
		t.Errorf("%s, %s", text, hello.name)
	}
	hello, text = readClientHello(unhex("0301"+random+"00"+"0004 0004 0005"+"0100"), nil)
	if string(text) != "769,4-5,,," {
		t.Errorf("%s", text)
	}
	hello, text = readClientHello(unhex("0301"+random+"00"+"0016 0004 0005 000a 0009 0064 0062 0003 0006 0013 0012 0063"+"0100"), nil)
	if got := hex.EncodeToString(hello.hash[:]); got != "de350869b8c85de67a350c8d186f11e6" {
		t.Errorf("%s: %s", text, got)
	}
	_, text = readServerHello(unhex("0301"+random+"00"+"002f"+"00"+"0004 ff01 0000"), nil)
	if string(text) != "769,47,65281" {
		t.Errorf("%s", text)
	}
	hello, text = readServerHello(unhex("7f12"+random+"1301"+"0004 0029 0000"), nil) // draft 18
	if string(text) != "32530,4865,41" || versionName(hello.version) != "1.3" || !hello.preShared {
		t.Errorf("%s, %s", text, versionName(hello.version))
	}
}

// TestNumbersHaveTheNamesOfIANA also checks numbers without a name.
func TestNumbersHaveTheNamesOfIANA(t *testing.T) {
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	is(cipherName(0x1301), "TLS_AES_128_GCM_SHA256")
	is(cipherName(0xc02f), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
	is(cipherName(0x0039), "TLS_DHE_RSA_WITH_AES_256_CBC_SHA")
	is(cipherName(0xfefe), "0xfefe")
	is(versionName(0x0300), "SSL 3.0")
	is(versionName(0x7f1c), "1.3")
	is(alertName(40), "handshake_failure")
	is(alertName(200), "")
	is(strings.Join(protocolNames(nil, []byte("\x02h2\x08http/1.1\x02\x0a\x0a\x05cut")), " "), "h2 http/1.1 0x0a0a")
}

// TestDetectAcceptsHelloAndAlertOnly also rejects the hello of SSL 2.0.
func TestDetectAcceptsHelloAndAlertOnly(t *testing.T) {
	is := func(text string, want protocols.Match) {
		t.Helper()
		if got := detect(protocols.Client, []byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.Yes)
	is("\x16\x03\x01\x00\xc8\x01", protocols.More)
	is("\x16", protocols.More)
	is("\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", protocols.Yes)
	is("\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x10", protocols.Yes)
	is("\x16\x03\x01\x00\x01\x01", protocols.More)
	is("\x15\x03\x01\x00\x02\x02\x28", protocols.Yes)
	is("\x15\x03\x01\x00\x02\x09\x28", protocols.No)
	is("\x17\x03\x03\x00\x20", protocols.No)
	is("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", protocols.No)
	is("\x16\x03\x01\xff\xff\x01\x00\x00\xc4\x03\x03", protocols.No)

	// The bounds of each number: version of the record, its length, length and version of the hello.
	is("\x16\x03\x00\x00\xc8\x01\x00\x00\xc4\x03\x00", protocols.Yes)
	is("\x16\x03\x04\x00\xc8\x01\x00\x00\xc4\x03\x04", protocols.Yes)
	is("\x16\x03\x05\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	is("\x16\x02\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	is("\x16\x04\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	is("\x16\x03\x01\x48\x00\x01\x00\x00\xc4\x03\x03", protocols.Yes) // 2^14 + 2048
	is("\x16\x03\x01\x48\x01\x01\x00\x00\xc4\x03\x03", protocols.No)
	is("\x16\x03\x01\x00\x00\x01\x00\x00\xc4\x03\x03", protocols.No)
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\x26\x03\x03", protocols.Yes) // 38: no session, no cipher, no compression
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\x25\x03\x03", protocols.No)
	is("\x16\x03\x01\x00\xc8\x01\xff\x00\xc4\x03\x03", protocols.No)
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x05", protocols.No)
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x02\x03", protocols.No)
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x7f\x1c", protocols.Yes) // draft 28 of TLS 1.3
	is("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x7e\x1c", protocols.No)
	for _, first := range []string{"\x13", "\x14", "\x17", "\x18", "\x19"} {
		is(first+"\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", protocols.No)
	}
	is("\x15\x03\x01\x00\x02\x01\x00", protocols.Yes)
	is("\x15\x03\x01\x00\x02\x00\x28", protocols.No)
	is("\x15\x03\x01\x00\x02\x02\x05", protocols.No) // a number that no alert has
	is("\x15\x03\x01\x00\x03\x02\x28\x00", protocols.No)
	is("\x15\x03\x01\x00\x02\x02", protocols.More)
	is("\x16\x03\x01\x00\xc8\x05\x00\x00\xc4\x03\x03", protocols.No)
	is("GET / HTTP/1.1\r\n", protocols.No)
	is("\x4a\x00\x00\x00\x0a8.0.36\x00", protocols.No)
}

// FuzzHandshake plays arbitrary bytes of both sides, alone and behind a real hello. Each event must be one of
// TLS, with an ID.
func FuzzHandshake(f *testing.F) {
	client, server := configs(tls.VersionTLS12)
	steps := converse(f, client, server)
	f.Add(steps[0].Data, steps[1].Data, false)
	f.Add([]byte("\x15\x03\x01\x00\x02\x02\x28"), []byte("\x16\x03\x03\x00\x04\x0e\x00\x00\x00"), true)
	hello := steps[0].Data
	f.Fuzz(func(t *testing.T, first, second []byte, behind bool) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, first, second, func(first, second []byte) {
			steps := []protocoltest.Step{
				{Dir: protocols.Client, Data: first}, {Dir: protocols.Server, Data: second}, {Dir: protocols.Client, Data: second},
			}
			if behind {
				steps = append([]protocoltest.Step{{Dir: protocols.Client, Data: hello}}, steps...)
			}
			conversation := protocoltest.Conversation{Port: 443, MidStream: len(first)%2 == 1, Steps: steps}
			for _, event := range conversation.Events(list) {
				if event.Tls == nil || len(event.Id) != 16 {
					t.Fatalf("%v", event)
				}
			}
		})
	})
}

// differs lists the captures in which our counts differ from those of tshark, with the reason.
var differs = map[string]string{
	"ja4__pcap_tls-handshake.pcapng":                 "some are QUIC",
	"ja4__pcap_tls-sni.pcapng":                       "some are QUIC",
	"ndpi__google_ssl.pcap":                          "the hello of SSL 2.0",
	"ndpi__tls_invalid_reads.pcap":                   "tshark leaves out the empty fields of JA3 where there are no extensions; its authors do not",
	"ndpi__tls_multiple_synack_different_seq.pcapng": "sequence numbers that protocoltest.Capture does not follow",
	"sv__ja4-rules-disabled_input.pcap":              "some are QUIC",
	"sv__ssl_version_negated_input.pcap":             "the hello of SSL 2.0",
	"sv__tls_tls-altname-zero_input.pcap":            "the hello of SSL 2.0",
	"sv__tls_tls-glupteba-mb_input.pcap":             "the hello of SSL 2.0",
	"sv__tls_tls13-draft14_tls13_draft14.pcap":       "JA3S of a draft",
	"zeek__socks-with-ssl.pcap":                      "inside SOCKS",
	"zeek__tls_hrr.pcap":                             "two hellos are one handshake",
	"zeek__tls_openjdk-25.0.2-zeek.org.pcap":         "a link type that gopacket does not read",
	"zeek__tls_pop3-starttls.pcap":                   "inside POP3",
}

// TestHellosAreThoseOfTshark compares server names, JA3 and JA3S in the shared captures with those that
// tshark finds.
func TestHellosAreThoseOfTshark(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	var files []string
	for _, pattern := range []string{"*tls*", "*ssl*", "*ja4*"} {
		found, _ := filepath.Glob(filepath.Join(dir, "pcaps", pattern))
		files = append(files, found...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	same, hellos := 0, 0
	for _, path := range files {
		want := oracle(filepath.Join(dir, "oracle", "detail", filepath.Base(path)+".tsv"))
		got := map[string]int{}
		for _, event := range protocoltest.Capture(t, []protocols.Protocol{Protocol, mysql.Protocol}, path) {
			if event.Tls.GetJa3() != "" {
				got["client "+event.Tls.ServerName+" "+event.Tls.Ja3]++
			}
			if event.Tls.GetJa3S() != "" {
				got["server "+event.Tls.Ja3S]++
			}
		}
		diff := 0
		for key, count := range want {
			hellos += count
			if got[key] != count {
				diff++
				if differs[filepath.Base(path)] == "" {
					t.Errorf("%s: %s: %d, tshark %d", filepath.Base(path), key, got[key], count)
				}
			}
		}
		if diff == 0 {
			same++
		}
	}
	if hellos < 450 {
		t.Errorf("tshark finds %d hellos in %d captures, want at least 450", hellos, len(files))
	}
	t.Logf("%d of %d captures equal, %d hellos", same, len(files), hellos)
}

// oracle reads the hellos from the output of tshark and counts equal ones. A missing file has none.
func oracle(path string) map[string]int {
	out := map[string]int{}
	file, err := os.Open(path)
	if err != nil {
		return out
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		cells := strings.Split(scanner.Text(), "\t")
		switch {
		case len(cells) >= 6 && cells[1] == "tls_ch":
			out["client "+strings.ToLower(cells[4])+" "+cells[5]]++
		case len(cells) >= 5 && cells[1] == "tls_sh":
			out["server "+cells[4]]++
		}
	}
	return out
}

// BenchmarkClientHello measures one hello through the framework, including the opening and closing of the
// connection.
func BenchmarkClientHello(b *testing.B) {
	client, server := configs(tls.VersionTLS13)
	hello := converse(b, client, server)[0].Data
	set := protocols.NewSet(list, protocols.Default(), nil)
	info := (&protocoltest.Conversation{Port: 443}).Info()
	b.ReportAllocs()
	for b.Loop() {
		conn := set.Open(info, pipeline.ReleaseEvent)
		conn.Data(protocols.Client, hello, 1)
		conn.Close(2)
	}
}

// TestHelloInTinyRecordsIsTold: OpenSSL completes a handshake whose ClientHello comes in records of one byte; hellos
// with post-quantum key shares have 1,700 bytes and more.
func TestHelloInTinyRecordsIsTold(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	steps := converse(t, client, server)
	hello := steps[0].Data[recordHeader:]
	hello = append([]byte{}, hello...)
	for _, records := range []int{1900, 5000, 20_000} {
		tellsTinyRecords(t, steps, hello, records)
	}
}

// tellsTinyRecords checks the events of steps with a hello that is padded to size bytes, one in each record.
func tellsTinyRecords(t *testing.T, steps []protocoltest.Step, hello []byte, size int) {
	t.Helper()
	steps, hello = slices.Clone(steps), slices.Clone(hello)
	padding := size - len(hello) - 4 // in an extension with its head
	at := 4 + 2 + 32
	at += 1 + int(hello[at])
	at += 2 + int(hello[at])<<8 + int(hello[at+1])
	at += 1 + int(hello[at])
	extensions := int(hello[at])<<8 + int(hello[at+1]) + 4 + padding
	hello[at], hello[at+1] = byte(extensions>>8), byte(extensions)
	hello = append(hello, 0, 21, byte(padding>>8), byte(padding))
	hello = append(hello, make([]byte, padding)...)
	body := len(hello) - 4
	hello[1], hello[2], hello[3] = byte(body>>16), byte(body>>8), byte(body)

	var tiny []byte
	for _, c := range hello {
		tiny = append(tiny, recordHandshake, 3, 1, 0, 1, c)
	}
	want := lines(play(steps))
	steps[0].Data = tiny
	got := lines(play(steps))
	if len(got) != 1 || len(want) != 1 || got[0][:strings.IndexByte(got[0], ' ')] != want[0][:strings.IndexByte(want[0], ' ')] {
		t.Errorf("in tiny records %q, in one %q", got, want)
	}
	if events := play(steps); len(events) != 1 || events[0].Tls.ServerName == "" || !events[0].Tls.Established || events[0].Partial {
		t.Errorf("%d records: got %q", size, got)
	}
}

// TestLastDotOfAServerNameIsDropped: rules and feeds compare names without it.
func TestLastDotOfAServerNameIsDropped(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	client.ServerName = "Pool.example.comx"
	steps := converse(t, client, server)
	dotted := bytes.Replace(steps[0].Data, []byte("example.comx"), []byte("example.com."), 1)
	if bytes.Equal(dotted, steps[0].Data) {
		t.Fatal("the hello has no server name")
	}
	steps[0].Data = dotted
	if events := play(steps); len(events) != 1 || events[0].Tls.ServerName != "pool.example.com" {
		t.Errorf("got %q", lines(events))
	}
}

// TestNamesOfACertificateHaveOneSpelling: its names are compared with those of requests, so they are in lower case
// and without the dot of the root. A certificate of which a part cannot be read makes the event partial.
func TestNamesOfACertificateHaveOneSpelling(t *testing.T) {
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"WWW.Example.com", "b.example.com."}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	client, server := configs(tls.VersionTLS12)
	server.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	steps := converse(t, client, server)
	events := play(steps)
	if len(events) != 1 || events[0].Partial ||
		!slices.Equal(events[0].Tls.ServerNames, []string{"www.example.com", "b.example.com"}) {
		t.Fatalf("got %q, %v", lines(events), events[0].Tls.ServerNames)
	}

	damaged := 0
	for i := range steps {
		old := steps[i].Data
		steps[i].Data = bytes.Replace(old, []byte("\x82\x0eb.example.com."), []byte("\x82\x7eb.example.com."), 1)
		if !bytes.Equal(old, steps[i].Data) {
			damaged++
		}
	}
	events = play(steps)
	if damaged != 1 || len(events) != 1 || !events[0].Partial || !slices.Equal(events[0].Tls.ServerNames, []string{"www.example.com"}) {
		t.Errorf("got %q, %v", lines(events), events[0].Tls.ServerNames)
	}
}

// TestTranscriptsMatchTheirGoldens compares every field of the events of each transcript with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "tls") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "tls")
}
