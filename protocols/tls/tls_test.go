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
	"tidegate/protocols"
	"tidegate/protocols/mysql"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

// play returns the events of steps on the port of the protocol.
func play(steps []protocoltest.Step) []*pipeline.Event {
	return protocoltest.Conversation{Port: 443, Steps: steps}.Events(list)
}

// A recorder notes what is written, in the order in which both sides do.
type recorder struct {
	net.Conn
	dir   protocols.Dir
	mu    *sync.Mutex
	steps *[]protocoltest.Step
}

func (r recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	*r.steps = append(*r.steps, protocoltest.Step{Dir: r.dir, Data: bytes.Clone(b)})
	r.mu.Unlock()
	return r.Conn.Write(b)
}

// converse returns what the Go library's client and server send to each other in a handshake and a line
// behind it.
func converse(t testing.TB, client, server *tls.Config) []protocoltest.Step {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var steps []protocoltest.Step
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		s := tls.Server(recorder{b, protocols.Server, &mu, &steps}, server)
		if s.Handshake() == nil {
			_, _ = io.Copy(s, s) // an echo
		}
	}()
	c := tls.Client(recorder{a, protocols.Client, &mu, &steps}, client)
	if c.Handshake() == nil {
		if _, err := c.Write([]byte("a word of more than a few letters")); err == nil {
			_, _ = io.ReadFull(c, make([]byte, 5))
		}
	}
	a.Close()
	<-done
	return steps
}

// serverCert is a certificate of www.example.com made for the test.
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

func configs(version uint16) (client, server *tls.Config) {
	return &tls.Config{ServerName: "WWW.example.com", InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}, MinVersion: version, MaxVersion: version},
		&tls.Config{Certificates: []tls.Certificate{serverCert()}, NextProtos: []string{"http/1.1"}}
}

// line is an event in short.
func line(e *pipeline.Event) string {
	t := e.Tls
	s := fmt.Sprintf("%s %s %s", t.Version, t.ServerName, t.Cipher)
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"established", t.Established},
		{"resumed", t.Resumed},
		{t.Alert, t.Alert != ""},
		{"next=" + t.NextProtocol, t.NextProtocol != ""},
		{t.ServerSubject, t.ServerSubject != ""},
		{"failed", e.Outcome == pipeline.Outcome_FAILURE},
		{"partial", e.Partial},
	} {
		if f.set {
			s += " " + f.name
		}
	}
	return s
}

func lines(events []*pipeline.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, line(e))
	}
	return out
}

// check plays steps in every split.
func check(t *testing.T, steps []protocoltest.Step, want ...string) []*pipeline.Event {
	t.Helper()
	c := protocoltest.Conversation{Port: 443, Steps: steps}
	protocoltest.CheckSplits(t, list, c)
	events := c.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	return events
}

// TestHandshakesOfARealStack: one event each, with what can be known in its version.
func TestHandshakesOfARealStack(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	e := check(t, converse(t, client, server),
		"1.2 www.example.com TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 established next=http/1.1 CN=www.example.com,O=Shop")[0]
	h := e.Tls
	if h.ServerNotAfter != 1_900_000_000e9 || h.ServerIssuer != h.ServerSubject || h.ClientVersion != "1.2" ||
		!slices.Equal(h.ServerNames, []string{"www.example.com", "example.com", "192.0.2.1"}) || !slices.Equal(h.ClientAlpn, []string{"h2", "http/1.1"}) ||
		len(h.Ja3) != 32 || len(h.Ja3S) != 32 || e.Outcome != pipeline.Outcome_SUCCESS || e.Source.Bytes == 0 || e.Destination.Bytes == 0 {
		t.Errorf("%v", e)
	}
	client, server = configs(tls.VersionTLS13)
	check(t, converse(t, client, server), "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
	server.CurvePreferences = []tls.CurveID{tls.CurveP521} // HelloRetryRequest
	client.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP521}
	check(t, converse(t, client, server), "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
}

// TestResumption: by a session of TLS 1.2, by a pre-shared key of 1.3.
func TestResumption(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client, server := configs(v)
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		first := play(converse(t, client, server))
		second := check(t, converse(t, client, server), strings.Replace(strings.Replace(line(first[0]), " CN=www.example.com,O=Shop", "", 1), "established", "established resumed", 1))
		if first[0].Tls.Resumed || !second[0].Tls.Resumed {
			t.Errorf("%x: first %v, second %v", v, first[0].Tls.Resumed, second[0].Tls.Resumed)
		}
	}
}

// TestAlertsEndTheHandshake: those in clear by their name; in TLS 1.3 a client's is encrypted, the handshake
// is just not established.
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

// TestUnfinishedHandshakeIsEmittedOnClose: a ClientHello alone, cut into records of a few bytes.
func TestUnfinishedHandshakeIsEmittedOnClose(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	whole := converse(t, client, server)
	hello := whole[0].Data
	check(t, []protocoltest.Step{{Dir: protocols.Client, Data: hello}}, " www.example.com ")
	for _, n := range []int{1, 3, 50} {
		var cut []byte
		for p := range slices.Chunk(hello[recordHeader:], n) {
			cut = append(append(cut, recordHandshake, 3, 1, 0, byte(len(p))), p...)
		}
		check(t, []protocoltest.Step{{Dir: protocols.Client, Data: cut}}, " www.example.com ")
	}
	check(t, []protocoltest.Step{{Dir: protocols.Client, Data: hello[:len(hello)-1]}})
	// Only the server's side was captured.
	var server1 []protocoltest.Step
	for _, s := range whole {
		if s.Dir == protocols.Server {
			server1 = append(server1, s)
		}
	}
	check(t, server1, "1.2  TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 next=http/1.1 CN=www.example.com,O=Shop partial")
}

// TestRolesGuessedWrongAreExchanged: who sends a ClientHello is the client.
func TestRolesGuessedWrongAreExchanged(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	steps := converse(t, client, server)
	for i := range steps {
		steps[i].Dir = steps[i].Dir.Other()
	}
	e := check(t, steps, "1.3 www.example.com TLS_AES_128_GCM_SHA256 established")
	if e[0].Source.Port != 443 {
		t.Errorf("%v", e[0])
	}
}

// TestGapInTheCertificate: the handshake is still followed to its end.
func TestGapInTheCertificate(t *testing.T) {
	client, server := configs(tls.VersionTLS12)
	steps := converse(t, client, server)
	var cut []protocoltest.Step
	for _, s := range steps {
		if i := bytes.Index(s.Data, []byte("www.example.com")); s.Dir == protocols.Server && i > 0 {
			cut = append(cut, protocoltest.Server(string(s.Data[:i])), protocoltest.Step{Dir: protocols.Server, Gap: 50}, protocoltest.Server(string(s.Data[i+50:])))
			continue
		}
		cut = append(cut, s)
	}
	events := play(cut)
	want := []string{"1.2 www.example.com TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 established next=http/1.1 partial"}
	if got := lines(events); len(got) != 1 || !strings.HasSuffix(got[0], "partial") || !strings.Contains(got[0], "established") {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

// TestHandshakeIsBounded: a message without end, records without end.
func TestHandshakeIsBounded(t *testing.T) {
	client, server := configs(tls.VersionTLS13)
	hello := converse(t, client, server)[0].Data
	long := append([]byte{recordHandshake, 3, 3, 0x40, 0x00, 11, 0xff, 0xff, 0xff}, make([]byte, 1<<14-4)...)
	steps := []protocoltest.Step{{Dir: protocols.Client, Data: hello}, {Dir: protocols.Server, Data: long}}
	for range 2 * maxRecords {
		steps = append(steps, protocoltest.Step{Dir: protocols.Server, Data: append([]byte{recordHandshake, 3, 3, 0x40, 0x00}, make([]byte, 1<<14)...)})
	}
	events := play(steps)
	if len(events) != 1 || events[0].Destination.Bytes > maxRecords*(1<<14+5) {
		t.Errorf("%q", lines(events))
	}
}

// TestJA3: texts and hashes as its authors publish them, GREASE left out.
func TestJA3(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	random := strings.Repeat("00", 32)
	h, text := readClientHello(unhex("0301"+random+"00"+"0006 0a0a 002f 0035"+"0100"+"0024"+
		"1a1a 0000"+"0000 0008 0006 00 0003 612e62"+"000a 0006 0004 2a2a 001d"+"000b 0002 0100"+"0017 0000"), nil)
	if string(text) != "769,47-53,0-10-11-23,29,0" || string(h.name) != "a.b" {
		t.Errorf("%s, %s", text, h.name)
	}
	h, text = readClientHello(unhex("0301"+random+"00"+"0004 0004 0005"+"0100"), nil)
	if string(text) != "769,4-5,,," {
		t.Errorf("%s", text)
	}
	h, text = readClientHello(unhex("0301"+random+"00"+"0016 0004 0005 000a 0009 0064 0062 0003 0006 0013 0012 0063"+"0100"), nil)
	if got := hex.EncodeToString(h.hash[:]); got != "de350869b8c85de67a350c8d186f11e6" {
		t.Errorf("%s: %s", text, got)
	}
	_, text = readServerHello(unhex("0301"+random+"00"+"002f"+"00"+"0004 ff01 0000"), nil)
	if string(text) != "769,47,65281" {
		t.Errorf("%s", text)
	}
	h, text = readServerHello(unhex("7f12"+random+"1301"+"0004 0029 0000"), nil) // draft 18
	if string(text) != "32530,4865,41" || versionName(h.version) != "1.3" || !h.preShared {
		t.Errorf("%s, %s", text, versionName(h.version))
	}
}

// TestWordsForNumbers: IANA's names, else 0x….
func TestWordsForNumbers(t *testing.T) {
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

// TestDetectLeavesTwinsAlone: what is not a hello is not claimed, the hello of SSL 2.0 neither.
func TestDetectLeavesTwinsAlone(t *testing.T) {
	is := func(b string, want protocols.Match) {
		t.Helper()
		if got := detect(protocols.Client, []byte(b)); got != want {
			t.Errorf("%q: %d, want %d", b, got, want)
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
	is("\x16\x03\x01\x00\xc8\x05\x00\x00\xc4\x03\x03", protocols.No)
	is("GET / HTTP/1.1\r\n", protocols.No)
	is("\x4a\x00\x00\x00\x0a8.0.36\x00", protocols.No)
}

// FuzzHandshake plays any bytes of both sides, alone and behind a real hello.
func FuzzHandshake(f *testing.F) {
	client, server := configs(tls.VersionTLS12)
	steps := converse(f, client, server)
	f.Add(steps[0].Data, steps[1].Data, false)
	f.Add([]byte("\x15\x03\x01\x00\x02\x02\x28"), []byte("\x16\x03\x03\x00\x04\x0e\x00\x00\x00"), true)
	hello := steps[0].Data
	f.Fuzz(func(t *testing.T, a, b []byte, behind bool) {
		steps := []protocoltest.Step{{Dir: protocols.Client, Data: a}, {Dir: protocols.Server, Data: b}, {Dir: protocols.Client, Data: b}}
		if behind {
			steps = append([]protocoltest.Step{{Dir: protocols.Client, Data: hello}}, steps...)
		}
		c := protocoltest.Conversation{Port: 443, MidStream: len(a)%2 == 1, Steps: steps}
		for _, e := range c.Events(list) {
			if e.Tls == nil || len(e.Id) != 16 {
				t.Fatalf("%v", e)
			}
		}
	})
}

// differs are the captures in which we see something else than tshark, and why.
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

// TestOracle compares server names, JA3 and JA3S with those that tshark finds in the shared captures.
func TestOracle(t *testing.T) {
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
		for _, e := range protocoltest.Capture(t, []protocols.Protocol{Protocol, mysql.Protocol}, path) {
			if e.Tls.GetJa3() != "" {
				got["client "+e.Tls.ServerName+" "+e.Tls.Ja3]++
			}
			if e.Tls.GetJa3S() != "" {
				got["server "+e.Tls.Ja3S]++
			}
		}
		diff := 0
		for k, n := range want {
			hellos += n
			if got[k] != n {
				diff++
				if differs[filepath.Base(path)] == "" {
					t.Errorf("%s: %s: %d, tshark %d", filepath.Base(path), k, got[k], n)
				}
			}
		}
		if diff == 0 {
			same++
		}
	}
	t.Logf("%d of %d captures equal, %d hellos", same, len(files), hellos)
}

func oracle(path string) map[string]int {
	out := map[string]int{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		v := strings.Split(sc.Text(), "\t")
		switch {
		case len(v) >= 6 && v[1] == "tls_ch":
			out["client "+strings.ToLower(v[4])+" "+v[5]]++
		case len(v) >= 5 && v[1] == "tls_sh":
			out["server "+v[4]]++
		}
	}
	return out
}

// BenchmarkClientHello is one hello through the framework, with the connection around it.
func BenchmarkClientHello(b *testing.B) {
	client, server := configs(tls.VersionTLS13)
	hello := converse(b, client, server)[0].Data
	set := protocols.NewSet(list, protocols.Default(), nil)
	b.ReportAllocs()
	for b.Loop() {
		c := set.Open((&protocoltest.Conversation{Port: 443}).Info(), pipeline.ReleaseEvent)
		c.Data(protocols.Client, hello, 1)
		c.Close(2)
	}
}
