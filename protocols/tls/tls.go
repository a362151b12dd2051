// Package tls parses the handshake of TLS (SSL 3.0 to TLS 1.3, with drafts). The rest of a connection is
// ignored.
//
// The framework in package protocols passes the bytes of a TCP connection, from its beginning or from the
// point where another protocol switches to TLS (mysql). A handshake is one event: the client's offer (server
// name, ALPN, JA3), the server's choice (version, cipher, JA3S), the server's certificate if it is not
// encrypted (up to TLS 1.2), and whether the handshake succeeded. The event is emitted when the handshake is
// finished, when a fatal alert ends it, or when the connection ends.
//
// Up to TLS 1.2 a handshake is finished when both sides have sent ChangeCipherSpec and the encrypted
// Finished. In TLS 1.3 everything after the ServerHello is encrypted. The handshake is finished when both
// sides have sent encrypted records after it, and one of the client's is longer than an alert.
//
// A connection that begins with a hello of SSL 2.0 is recognised by the server's answer, if that is TLS.
//
// Specifications: RFC 8446, RFC 5246, RFC 6066 (server_name), RFC 7301 (ALPN), RFC 8701 (GREASE),
// github.com/salesforce/ja3.
package tls

import (
	"encoding/binary"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is the TLS handshake.
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

// detect recognises a connection by a hello of either side, or by an alert. A hello may be split into very
// short records.
func detect(_ protocols.Dir, data []byte) protocols.Match {
	match, length := matchRecord(data)
	if match != protocols.Yes {
		return match
	}
	body := data[recordHeader:]
	switch data[0] {
	case recordHandshake:
		return matchHello(data, body, length)
	case recordAlert:
		return matchAlert(body, length)
	}
	return protocols.No
}

// matchRecord matches the header of a record and returns the length of its body.
func matchRecord(data []byte) (protocols.Match, int) {
	switch {
	case len(data) > 0 && (data[0] < recordChangeCipher || data[0] > recordHeartbeat),
		len(data) > 1 && data[1] != 3,
		len(data) > 2 && data[2] > 4:
		return protocols.No, 0
	case len(data) < recordHeader:
		return protocols.More, 0
	}
	length := int(binary.BigEndian.Uint16(data[3:]))
	if length > maxRecord || length == 0 && data[0] != recordData {
		return protocols.No, 0
	}
	return protocols.Yes, length
}

// matchHello matches the front of a hello: type, length, version. data is a record and body the part of its
// body that has arrived. size is the length of the whole body. If the record is too short for the front, a
// second one must follow.
func matchHello(data, body []byte, size int) protocols.Match {
	if len(body) > 0 && body[0] != clientHello && body[0] != serverHello {
		return protocols.No
	}

	// The front does not fit into this record: the next record must continue the handshake.
	if size < 6 {
		if len(body) < size {
			return protocols.More
		}
		if match, _ := matchRecord(data[recordHeader+size:]); match != protocols.Yes {
			return match
		}
		if data[recordHeader+size] != recordHandshake {
			return protocols.No
		}
		return protocols.Yes
	}

	// Length and version must be plausible. The version is 3.0 to 3.4, or that of a draft (0x7fNN).
	if len(body) < 6 {
		return protocols.More
	}
	if length := int(body[1])<<16 | int(body[2])<<8 | int(body[3]); length < 38 || length > maxHandshake {
		return protocols.No
	}
	if body[4] != 3 && body[4] != 0x7f || body[4] == 3 && body[5] > 4 {
		return protocols.No
	}
	return protocols.Yes
}

// matchAlert matches the body of an alert.
func matchAlert(body []byte, size int) protocols.Match {
	if size != 2 {
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

// resync finds the next record. It must be followed by the front of another record, or by the end of data.
func resync(_ protocols.Dir, data []byte) (int, protocols.Match) {
	for i := range data {
		match, length := matchRecord(data[i:])
		switch {
		case match == protocols.No:
			continue
		case match == protocols.More:
			return i, match
		}
		rest := data[i:]
		if len(rest) < recordHeader+length {
			return i, protocols.More
		}
		if next, _ := matchRecord(rest[recordHeader+length:]); next != protocols.No {
			return i, protocols.Yes
		}
	}
	return len(data), protocols.More
}
