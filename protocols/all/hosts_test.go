package all

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestNoFieldOfAHostEndsWithADot plays each protocol with a host that is written with the dot of the root, and walks
// all fields of the events.
func TestNoFieldOfAHostEndsWithADot(t *testing.T) {
	const dotted, plain = "evil.example.", "evil.example"
	conversations := []protocoltest.Conversation{
		{Port: 80, Steps: []protocoltest.Step{
			protocoltest.Client("GET / HTTP/1.1\r\nHost: Evil.Example.:8080\r\nX-Forwarded-For: evil.example., 192.0.2.1\r\n\r\n"),
			protocoltest.Server("HTTP/1.1 204 No Content\r\n\r\n"),
		}},
		{Port: 80, Steps: []protocoltest.Step{
			protocoltest.Client("GET http://u@EVIL.example./x HTTP/1.1\r\nHost: other\r\n\r\nCONNECT evil.example.:443 HTTP/1.1\r\n\r\n"),
		}},
		{Port: 53, UDP: true, Steps: []protocoltest.Step{protocoltest.Client(dnsQuery), protocoltest.Server(dnsAnswer)}},
		{Port: 443, Steps: handshakeOf(t, dotted)},
	}
	seen := map[string]bool{}
	for _, conversation := range conversations {
		for _, event := range conversation.Events(Protocols) {
			for i := range pipeline.Fields {
				field := &pipeline.Fields[i]
				var values []string
				switch {
				case field.Str != nil:
					values = []string{field.Str(event)}
				case field.Strs != nil:
					values = field.Strs(event, nil)
				}
				for _, value := range values {
					seen[field.Name] = seen[field.Name] || strings.EqualFold(value, plain)
					if last := strings.Fields(value); len(last) > 0 && strings.EqualFold(last[len(last)-1], dotted) {
						t.Errorf("%s is %q", field.Name, value)
					}
				}
			}
		}
	}
	for _, name := range []string{
		"url.domain", "http.request.x_forwarded_for", "dns.question.name", "dns.question.registered_domain", "dns.answers.name",
		"dns.answers.data", "tls.client.server_name", "tls.server.names",
	} {
		if pipeline.Lookup(name) == nil || !seen[name] {
			t.Errorf("no event has the host in %s", name)
		}
	}
}

const (
	dnsQuestion = "\x04eViL\x07example\x00\x00\x01\x00\x01"
	dnsQuery    = "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + dnsQuestion
	// A chain of aliases that ends where it began.
	dnsAnswer = "\x00\x01\x81\x80\x00\x01\x00\x02\x00\x00\x00\x00" + dnsQuestion +
		"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x05\x02cc\xc0\x0c" +
		"\x02cc\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x09\x00\x02\xc0\x0c"
)

// handshakeOf returns the bytes of a handshake with host as the server's name and in its certificate.
func handshakeOf(t *testing.T, host string) []protocoltest.Step {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	// Go's client sends no name that ends with a dot: the placeholder has the same length.
	placeholder := host[:len(host)-1] + "x"
	clientEnd, serverEnd := net.Pipe()
	var steps []protocoltest.Step
	var mu sync.Mutex
	record := func(conn net.Conn, dir protocols.Dir) net.Conn { return recordedConn{conn, dir, &mu, &steps} }
	var both sync.WaitGroup
	both.Go(func() {
		defer serverEnd.Close()
		_ = tls.Server(record(serverEnd, protocols.Server), &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: tls.VersionTLS12,
		}).Handshake()
	})
	_ = tls.Client(record(clientEnd, protocols.Client), &tls.Config{
		ServerName: placeholder, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
	}).Handshake()
	both.Wait()
	if len(steps) == 0 || !strings.Contains(string(steps[0].Data), placeholder) {
		t.Fatal("the first message is no hello with the name")
	}
	steps[0].Data = []byte(strings.Replace(string(steps[0].Data), placeholder, host, 1))
	return steps
}

// A recordedConn records what is written to it.
type recordedConn struct {
	net.Conn
	dir   protocols.Dir
	mu    *sync.Mutex
	steps *[]protocoltest.Step
}

func (r recordedConn) Write(data []byte) (int, error) {
	r.mu.Lock()
	*r.steps = append(*r.steps, protocoltest.Step{Dir: r.dir, Data: slices.Clone(data)})
	r.mu.Unlock()
	return r.Conn.Write(data)
}
