package traffic

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// A message holds the bytes that one side sends before the other side answers.
type message struct {
	from  int // 0 is the client, 1 the server
	bytes string
}

// handshakes returns the messages of real handshakes of crypto/tls, TLS 1.3 and TLS 1.2 in turn.
func handshakes(count int) ([][]message, error) {
	// One self-signed certificate serves all handshakes.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"shop.example.com"},
		NotBefore:    time.Unix(epoch/1e9, 0),
		NotAfter:     time.Unix(epoch/1e9+1e8, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}

	recorded := make([][]message, count)
	for i := range recorded {
		version := uint16(tls.VersionTLS13 - i%2)
		if recorded[i], err = recordHandshake(cert, version, fmt.Sprintf("api%d.example.com", i)); err != nil {
			return nil, err
		}
	}
	return recorded, nil
}

// recordHandshake runs a handshake of at most the given version over a pipe and returns its messages.
func recordHandshake(cert tls.Certificate, version uint16, serverName string) ([]message, error) {
	clientEnd, serverEnd := net.Pipe()
	recorder := &recorder{}
	server := tls.Server(&recordedConn{serverEnd, recorder, 1}, &tls.Config{
		Certificates:           []tls.Certificate{cert},
		NextProtos:             []string{"http/1.1"},
		MaxVersion:             version,
		SessionTicketsDisabled: true,
	})
	client := tls.Client(&recordedConn{clientEnd, recorder, 0}, &tls.Config{
		ServerName:         serverName,
		NextProtos:         []string{"h2", "http/1.1"},
		MaxVersion:         version,
		InsecureSkipVerify: true, //nolint:gosec // both sides are in this process
	})

	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		_ = serverEnd.Close() // ends the handshake of the server
		<-done
		return nil, err
	}
	return recorder.messages, <-done
}

// A recorder keeps the messages of both sides in order. The order is exact because net.Pipe has no buffer: a
// side cannot write before the other side has read.
type recorder struct {
	mu       sync.Mutex
	messages []message // guarded by mu
}

// A recordedConn is one end of the pipe.
type recordedConn struct {
	net.Conn
	recorder *recorder
	from     int
}

// Write records data and passes it to the other side.
func (c *recordedConn) Write(data []byte) (int, error) {
	c.recorder.add(c.from, data)
	return c.Conn.Write(data)
}

// add appends data to the last message if the same side sent it, or starts a message.
func (r *recorder) add(from int, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.messages) - 1; last >= 0 && r.messages[last].from == from {
		r.messages[last].bytes += string(data)
		return
	}
	r.messages = append(r.messages, message{from, string(data)})
}
