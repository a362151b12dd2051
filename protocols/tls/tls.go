// Package tls reads the handshake of TLS (SSL 3.0 to TLS 1.3, drafts too) and nothing behind it.
//
// In come the bytes of a TCP connection from the framework in package protocols, or from a parser whose connection turned to TLS
// (mysql). Out goes one event for a handshake: what the client offered (names, ALPN, JA3), what the server chose (version,
// cipher, JA3S), the server's certificate where it is sent in clear (up to TLS 1.2), and whether it came about. It is emitted
// when the handshake is done, when a fatal alert ends it, or as far as it got when the connection ends; then the rest of the
// connection is ignored.
//
// Done means: up to TLS 1.2 both sides have sent ChangeCipherSpec and the encrypted Finished. In TLS 1.3 nothing behind the
// ServerHello can be read: done is when both have sent protected records behind it, the client's first one longer than an alert.
//
// A connection that begins with the hello of SSL 2.0 is taken up at the server's answer, if that is TLS.
//
// Specifications: RFC 8446, RFC 5246, RFC 6066 (server_name), RFC 7301 (ALPN), RFC 8701 (GREASE), github.com/salesforce/ja3.
package tls

import (
	"encoding/binary"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is the row for protocols/all.
var Protocol = protocols.Protocol{
	Name:    "tls",
	Dataset: pipeline.Dataset_TLS,
	TCP:     true,
	Nested:  true,
	Ports:   []uint16{443, 8443, 465, 636, 853, 993, 995, 5671, 6697},
	Detect:  detect,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// The types of records.
const (
	recordChangeCipher = 20
	recordAlert        = 21
	recordHandshake    = 22
	recordData         = 23
	recordHeartbeat    = 24
)

const (
	recordHeader = 5
	// maxRecord is the longest record: 2^14 and what encryption may add (RFC 5246 section 6.2.3).
	maxRecord = 1<<14 + 2048
)

// The types of handshake messages that are read.
const (
	clientHello = 1
	serverHello = 2
	certificate = 11
)

// detect knows a connection by a hello, the client's or the server's, or by a server that answers with an alert. Hellos may be
// cut into very short records.
func detect(_ protocols.Dir, b []byte) protocols.Match {
	m, n := isRecord(b)
	if m != protocols.Yes {
		return m
	}
	body := b[recordHeader:]
	switch b[0] {
	case recordHandshake:
		return isHello(b, body, n)
	case recordAlert:
		return isAlert(body, n)
	}
	return protocols.No
}

// isRecord judges the header of a record and gives its length.
func isRecord(b []byte) (protocols.Match, int) {
	switch {
	case len(b) > 0 && (b[0] < recordChangeCipher || b[0] > recordHeartbeat),
		len(b) > 1 && b[1] != 3,
		len(b) > 2 && b[2] > 4:
		return protocols.No, 0
	case len(b) < recordHeader:
		return protocols.More, 0
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if n > maxRecord || n == 0 && b[0] != recordData {
		return protocols.No, 0
	}
	return protocols.Yes, n
}

// isHello judges the front of a handshake: type, length, version. In records too short for that a second record must follow.
func isHello(b, body []byte, n int) protocols.Match {
	if len(body) > 0 && body[0] != clientHello && body[0] != serverHello {
		return protocols.No
	}
	if n < 6 {
		if len(body) < n {
			return protocols.More
		}
		if m, _ := isRecord(b[recordHeader+n:]); m != protocols.Yes {
			return m
		}
		if b[recordHeader+n] != recordHandshake {
			return protocols.No
		}
		return protocols.Yes
	}
	if len(body) < 6 {
		return protocols.More
	}
	if size := int(body[1])<<16 | int(body[2])<<8 | int(body[3]); size < 38 || size > maxHandshake {
		return protocols.No
	}
	if body[4] != 3 && body[4] != 0x7f || body[4] == 3 && body[5] > 4 {
		return protocols.No
	}
	return protocols.Yes
}

func isAlert(body []byte, n int) protocols.Match {
	if n != 2 {
		return protocols.No
	}
	if len(body) < 2 {
		return protocols.More
	}
	if body[0] != 1 && body[0] != 2 || alertName(body[1]) == "" {
		return protocols.No
	}
	return protocols.Yes
}

// resync looks for the next record: one whose successor begins as a record too, or that ends b.
func resync(_ protocols.Dir, b []byte) (int, protocols.Match) {
	for i := range b {
		m, n := isRecord(b[i:])
		switch {
		case m == protocols.No:
			continue
		case m == protocols.More:
			return i, m
		}
		rest := b[i:]
		if len(rest) < recordHeader+n {
			return i, protocols.More
		}
		if next, _ := isRecord(rest[recordHeader+n:]); next != protocols.No {
			return i, protocols.Yes
		}
	}
	return len(b), protocols.More
}
