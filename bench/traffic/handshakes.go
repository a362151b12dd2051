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
	from  int
	bytes string
}

// handshakes returns the bytes of n real handshakes, TLS 1.3 and TLS 1.2 in turn.
func handshakes(n int) ([][]message, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example.com"}, NotBefore: time.Unix(epoch/1e9, 0), NotAfter: time.Unix(epoch/1e9+1e8, 0)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	out := make([][]message, n)
	for i := range out {
		version := uint16(tls.VersionTLS13 - i%2)
		if out[i], err = handshake(cert, version, fmt.Sprintf("api%d.example.com", i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func handshake(cert tls.Certificate, version uint16, name string) ([]message, error) {
	a, b := net.Pipe()
	tape := &recorder{}
	server := tls.Server(&recordedConn{b, tape, 1}, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MaxVersion: version, SessionTicketsDisabled: true})
	client := tls.Client(&recordedConn{a, tape, 0}, &tls.Config{ServerName: name, NextProtos: []string{"h2", "http/1.1"}, MaxVersion: version, InsecureSkipVerify: true}) //nolint:gosec // it talks to itself
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		_ = b.Close()
		<-done
		return nil, err
	}
	return tape.turns, <-done
}

// A recorder keeps the messages of both sides in order. The order is exact because net.Pipe has no buffer: a
// side cannot write before the other side has read.
type recorder struct {
	mu    sync.Mutex
	turns []message
}

type recordedConn struct {
	net.Conn
	tape *recorder
	from int
}

// Write records data and passes it to the other side.
func (t *recordedConn) Write(data []byte) (int, error) {
	t.tape.mu.Lock()
	if n := len(t.tape.turns); n > 0 && t.tape.turns[n-1].from == t.from {
		t.tape.turns[n-1].bytes += string(data)
	} else {
		t.tape.turns = append(t.tape.turns, message{t.from, string(data)})
	}
	t.tape.mu.Unlock()
	return t.Conn.Write(data)
}
