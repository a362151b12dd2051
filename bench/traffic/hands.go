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

// A turn is what one side sends at once.
type turn struct {
	from  int
	bytes string
}

// handshakes are n real ones, of TLS 1.3 and 1.2 in turn, as they go over the wire.
func handshakes(n int) ([][]turn, error) {
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
	out := make([][]turn, n)
	for i := range out {
		version := uint16(tls.VersionTLS13 - i%2)
		if out[i], err = handshake(cert, version, fmt.Sprintf("api%d.example.com", i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func handshake(cert tls.Certificate, version uint16, name string) ([]turn, error) {
	a, b := net.Pipe()
	tape := &tape{}
	server := tls.Server(&taped{b, tape, 1}, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MaxVersion: version, SessionTicketsDisabled: true})
	client := tls.Client(&taped{a, tape, 0}, &tls.Config{ServerName: name, NextProtos: []string{"h2", "http/1.1"}, MaxVersion: version, InsecureSkipVerify: true}) //nolint:gosec // it talks to itself
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		_ = b.Close()
		<-done
		return nil, err
	}
	return tape.turns, <-done
}

// A tape keeps what both sides write, in order: a pipe has no buffer, so nobody writes before the other has read.
type tape struct {
	mu    sync.Mutex
	turns []turn
}

type taped struct {
	net.Conn
	tape *tape
	from int
}

// Write keeps b and passes it on.
func (t *taped) Write(b []byte) (int, error) {
	t.tape.mu.Lock()
	if n := len(t.tape.turns); n > 0 && t.tape.turns[n-1].from == t.from {
		t.tape.turns[n-1].bytes += string(b)
	} else {
		t.tape.turns = append(t.tape.turns, turn{t.from, string(b)})
	}
	t.tape.mu.Unlock()
	return t.Conn.Write(b)
}
