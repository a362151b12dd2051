//go:build linux

package differential

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"tidegate/pipeline"
)

const (
	tlsPort      = 443
	tlsOtherPort = 9443
)

// opensslSubject is openssl's s_server. The log is what the client sees: a finished handshake.
func opensslSubject() *subject {
	var mu sync.Mutex
	logged := map[clientKey][]executed{}
	return &subject{
		name: "openssl", ports: []int{tlsPort, tlsOtherPort}, share: 2,
		same: func(e observed, logged executed) bool {
			return e.dataset == pipeline.Dataset_TLS && e.text == logged.text
		},
		start: func(l *lab) {
			writeCertificate(l)
			for port, groups := range map[int]string{
				tlsPort:      "X25519:P-256",
				tlsOtherPort: "P-384", // not the group of the client's first key share: a HelloRetryRequest
			} {
				l.start(fmt.Sprintf("openssl%d.out", port), "openssl", "s_server", "-accept", fmt.Sprint(port), "-quiet",
					"-cert", "cert.pem", "-key", "key.pem", "-www", "-groups", groups)
				l.waitTCP(port)
			}
		},
		converse: func(random *mathrand.Rand, host, marker string) (conversation, error) {
			c, err := converseTLS(random, host, marker)
			if err == nil {
				mu.Lock()
				logged[c.client] = append(logged[c.client], executed{text: marker + ".example"})
				mu.Unlock()
			}
			return c, err
		},
		log: func(*lab) map[clientKey][]executed { return logged },
	}
}

func writeCertificate(l *lab) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		l.t.Fatal(err)
	}
	encodedKey, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		l.t.Fatal(err)
	}
	l.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	l.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encodedKey})))
}

// converseTLS makes a handshake whose records and segments are divided in odd ways.
func converseTLS(random *mathrand.Rand, host, marker string) (conversation, error) {
	conn, local, err := dial(host, pick(random, tlsPort, tlsOtherPort))
	if err != nil {
		return conversation{}, err
	}
	defer func() { _ = conn.Close() }()
	version := pick[uint16](random, tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13)
	recordBytes := pick(random, 0, 0, 1, 7, 100)
	c := conversation{client: local, form: fmt.Sprintf("%s, records of %d", tls.VersionName(version), recordBytes)}
	divided := &dividedConn{Conn: conn, random: random, recordBytes: recordBytes}
	client := tls.Client(divided, &tls.Config{
		ServerName: marker + ".example", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version,
		NextProtos: pick(random, nil, []string{"h2", "http/1.1"}),
	})
	err = client.Handshake()
	c.written, c.form = divided.written, c.form+", "+strings.Join(divided.forms, ", ")
	return c, err
}

// A dividedConn divides the first handshake record that is written, the ClientHello, into records of recordBytes.
type dividedConn struct {
	net.Conn
	random      *mathrand.Rand
	recordBytes int
	forms       []string
	written     []byte
}

func (d *dividedConn) Write(data []byte) (int, error) {
	const headSize, handshake = 5, 22
	out := data
	if d.recordBytes > 0 && len(d.written) == 0 && len(data) > headSize && data[0] == handshake {
		out = nil
		for body := data[headSize:]; len(body) > 0; {
			size := min(d.recordBytes, len(body))
			out = append(append(out, data[0], data[1], data[2], byte(size>>8), byte(size)), body[:size]...)
			body = body[size:]
		}
	}
	d.written = append(d.written, out...)
	form, err := writeSegments(d.Conn, d.random, out)
	d.forms = append(d.forms, form)
	if err != nil {
		return 0, err
	}
	return len(data), nil
}
