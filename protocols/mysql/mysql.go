// Package mysql parses the client/server protocol of MySQL (5.x to 9) and MariaDB.
//
// The framework in package protocols passes the bytes of a TCP connection. A command with its reply is one
// event: the statement, the number of rows and columns, affected rows, insert id, warnings, or the error.
// Rows are counted and not kept. The login is an event too, COM_CONNECT, with the version of the server, the
// user and the database. The execution of a prepared statement has the text of the statement, if its
// preparation was captured.
//
// The protocol is half-duplex: the server sends first, then every command begins with a packet of sequence
// number 0 and is answered before the next, so a queue pairs them. Each exception has its test: commands
// without a reply (COM_STMT_CLOSE, COM_QUIT, COM_STMT_SEND_LONG_DATA), a server that asks the client for a
// file (LOAD DATA LOCAL), replies of several result sets, clients that send ahead (MariaDB's
// prepare-and-execute), payloads of 16 MiB and more that continue in the next packet, and the packet that
// ends a result set, which looks different since MySQL 5.7 (CLIENT_DEPRECATE_EOF).
//
// The states of a connection (phase):
//
//	initial        nothing was seen. A command in mid-stream leads to commandPhase
//	afterGreeting  the server has sent its greeting, the login comes next
//	commandPhase   commands and replies; a login under way is a command that waits
//
// A connection that switches to TLS is passed to package tls. One that switches to compression or replication
// is counted and dropped.
//
// Passwords in statements are redacted (pipeline/redact). A statement longer than maxQuery bytes is cut and
// ends in an ellipsis.
//
// Specifications: dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html,
// mariadb.com/kb/en/clientserver-protocol.
package mysql

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is the MySQL protocol.
var Protocol = protocols.Protocol{
	Name:    "mysql",
	Dataset: pipeline.Dataset_MYSQL,
	TCP:     true,
	Ports:   []uint16{3306},
	Detect:  detect,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// detect recognises a connection by the server's greeting, and in mid-stream by a statement that begins with
// a word of SQL. A greeting from the client means that the roles were inferred wrongly.
func detect(dir protocols.Dir, data []byte) protocols.Match {
	if match := matchGreeting(data); match != protocols.No || dir == protocols.Server {
		return match
	}
	if match := matchCommand(data); match != protocols.No {
		return match
	}
	return matchLogin(data)
}

// matchGreeting matches the front of the server's first packet: the handshake of protocol 10, or an error
// (too many connections, host blocked).
func matchGreeting(data []byte) protocols.Match {
	if len(data) < 5 {
		for i, c := range data {
			if i == 1 && c > 3 || (i == 2 || i == 3) && c != 0 {
				return protocols.No
			}
		}
		return protocols.More
	}
	size, payload := payloadLength(data), data[4:]
	if data[3] != 0 || size > 1024 {
		return protocols.No
	}
	switch {
	case payload[0] == 10 && size >= 30:
		return matchVersion(payload[1:], size)
	case payload[0] == errPacket && size >= 9:
		return matchError(payload[1:], size)
	}
	return protocols.No
}

// matchVersion matches the bytes after the protocol number: the version of the server up to a NUL, 4 bytes of
// thread id, 8 bytes of challenge, a zero.
func matchVersion(data []byte, size int) protocols.Match {
	end := bytes.IndexByte(data[:min(len(data), 128)], 0)
	version := data[:min(len(data), 128)]
	if end >= 0 {
		version = data[:end]
	}
	if !isPrintable(version) || len(version) > 0 && (version[0] < '0' || version[0] > '9') {
		return protocols.No
	}
	switch zero := end + 13; { // the offset of the zero behind version, thread and challenge
	case end == 0 || end < 0 && len(data) >= 128 || end > 0 && zero >= size:
		return protocols.No
	case end < 0 || zero >= len(data):
		return protocols.More
	case data[zero] != 0:
		return protocols.No
	}
	return protocols.Yes
}

// matchError matches the code and the text of an error.
func matchError(data []byte, size int) protocols.Match {
	if len(data) < 8 {
		return protocols.More
	}
	code := int(data[0]) | int(data[1])<<8
	if code < 1000 || code > 4999 || !isPrintable(data[2:min(len(data), size-1)]) {
		return protocols.No
	}
	return protocols.Yes
}

func isPrintable(data []byte) bool {
	for _, c := range data {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// matchCommand matches the front of a client's packet. It returns Yes only for commands with SQL.
func matchCommand(data []byte) protocols.Match {
	if len(data) < 4 {
		return protocols.More
	}
	// Sequence number 0 begins a command; its first byte is the kind.
	size := payloadLength(data)
	if data[3] != 0 || size == 0 {
		return protocols.No
	}
	if len(data) < 5 {
		return protocols.More
	}
	kind := kindOf(data[4])
	if kind.name == "" || size < kind.min || kind.max > 0 && size > kind.max {
		return protocols.No
	}
	if kind.text {
		return matchStatement(data[5:min(len(data), 4+size)], len(data) >= 4+size)
	}
	return protocols.More
}

// matchLogin matches the front of a client's first packet, for a connection whose greeting was not captured:
// the capabilities, the size of the largest packet, the character set, then at least 19 zeros.
func matchLogin(data []byte) protocols.Match {
	if len(data) < 4 {
		return protocols.More
	}
	if size := payloadLength(data); data[3] != 1 || size < 32 || size > 4096 {
		return protocols.No
	}
	if len(data) < 32 {
		return protocols.More
	}
	flags := uint32(data[4]) | uint32(data[5])<<8
	if flags&clientProtocol41 == 0 || !bytes.Equal(data[13:32], make([]byte, 19)) {
		return protocols.No
	}
	return protocols.Yes
}

// resync finds the next packet: the start of a command of the client, or packets of the server with
// consecutive sequence numbers.
func resync(dir protocols.Dir, data []byte) (int, protocols.Match) {
	matchPacket := syncClient
	if dir == protocols.Server {
		matchPacket = syncServer
	}
	for i := range data {
		if match := matchPacket(data[i:]); match != protocols.No {
			return i, match
		}
	}
	return len(data), protocols.More
}

// syncClient matches a command at the front of data. A command without SQL must be followed by another
// command, or by the end of data.
func syncClient(data []byte) protocols.Match {
	match := matchCommand(data)
	if match != protocols.More || len(data) < 5 || kindOf(data[4]).text {
		return match
	}

	// The next packet must begin with a command too.
	rest := 4 + payloadLength(data)
	switch {
	case rest > maxSync:
		return protocols.No
	case len(data) < rest:
		return protocols.More
	case len(data) == rest:
		return protocols.Yes
	case len(data) >= rest+5 && matchCommand(data[rest:]) == protocols.No:
		return protocols.No
	}
	return protocols.Yes
}

// maxSync is the length of the longest first packet that resync takes for a reply.
const maxSync = 4 << 10

// syncServer matches three consecutive packets of a reply at the front of data, or fewer up to its end.
func syncServer(data []byte) protocols.Match {
	for i := range 3 {
		if len(data) == 0 && i > 0 {
			return protocols.Yes
		}
		if len(data) < 4 {
			return protocols.More
		}

		size, seq := payloadLength(data), data[3]
		if size == 0 || size > maxSync || seq == 0 || len(data) > 4 && seq == 1 && !beginsReply(data[4], size) {
			return protocols.No
		}
		if len(data) < 4+size {
			return protocols.More
		}
		// The next packet has the next sequence number.
		if data = data[4+size:]; len(data) >= 4 && data[3] != seq+1 {
			return protocols.No
		}
	}
	return protocols.Yes
}

// beginsReply reports whether the first packet of a reply may begin with first and have size bytes: OK, EOF,
// an error, a request for a file, or a number of columns.
func beginsReply(first byte, size int) bool {
	switch {
	case first == okPacket:
		return size >= 7
	case first == eofPacket:
		return size >= 5
	case first == errPacket:
		return size >= 3
	case first == infilePacket:
		return size >= 2
	case first == 0xfc:
		return size == 3 || size == 4
	}
	return first < 0xfb && size <= 2
}
