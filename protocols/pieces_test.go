package protocols

import (
	"bytes"
	"strings"
	"testing"
)

func openToy(t *testing.T) *Conn {
	t.Helper()
	var log []string
	set, _ := toys(&log, nil)
	return set.Open(Info{}, nil)
}

// TestPiecesKeepTheOrderAndTheTimesOfTheirBytes; beyond exactPieces what a side sends in a row shares one.
func TestPiecesKeepTheOrderAndTheTimesOfTheirBytes(t *testing.T) {
	conn := openToy(t)
	want := func(count, size int, at int64) {
		t.Helper()
		last := conn.pieces[len(conn.pieces)-1]
		if len(conn.pieces) != count || last.size != size || last.at != at {
			t.Errorf("%d pieces, the last one has %d bytes of time %d; want %d, %d, %d", len(conn.pieces), last.size, last.at, count, size, at)
		}
	}
	conn.bufferData(Client, []byte("ab"), 1)
	want(1, 2, 1)
	conn.bufferData(Client, []byte("c"), 1)
	want(1, 3, 1)
	conn.bufferData(Client, []byte("d"), 2)
	want(2, 1, 2)
	conn.bufferData(Server, []byte("e"), 2)
	want(3, 1, 2)
	conn.End(Server, 2)
	conn.bufferData(Server, []byte("f"), 2)
	want(5, 1, 2)
	if string(conn.streams[Client].tail) != "abcd" || string(conn.streams[Server].tail) != "ef" || conn.streams[Client].lastAt != 2 {
		t.Errorf("tails %q and %q", conn.streams[Client].tail, conn.streams[Server].tail)
	}
	for i := len(conn.pieces); i < exactPieces; i++ {
		conn.bufferData(Client, []byte("x"), int64(100+i))
	}
	want(exactPieces, 1, 100+exactPieces-1)
	conn.bufferData(Client, []byte("yz"), 500)
	want(exactPieces, 3, 500)
	conn.bufferData(Server, []byte("s"), 500)
	want(exactPieces+1, 1, 500)
}

// TestManyLineBreaksBeforeTheFirstByteAreDropped: fewer may be the beginning of a message.
func TestManyLineBreaksBeforeTheFirstByteAreDropped(t *testing.T) {
	check := func(dropped int, tail string, pieces int, parts ...string) {
		t.Helper()
		conn := openToy(t)
		conn.bufferData(Server, []byte("\n\n"), 0)
		for i, part := range parts {
			conn.bufferData(Client, []byte(part), int64(i+1))
		}
		stream := &conn.streams[Client]
		if int(stream.offset) != dropped || string(stream.tail) != tail || len(conn.pieces) != 1+pieces || string(conn.streams[Server].tail) != "\n\n" {
			t.Errorf("%d bytes of %q are dropped, want %d; %q is left in %d pieces", stream.offset, parts, dropped, stream.tail, len(conn.pieces)-1)
		}
		size := 0
		for _, piece := range conn.pieces {
			if piece.dir == Client {
				size += piece.size
			}
		}
		if size != len(stream.tail) {
			t.Errorf("pieces of %d bytes of %d", size, len(stream.tail))
		}
	}
	breaks := strings.Repeat("\r\n", minLineBreaks/2)
	check(0, breaks[:63], 1, breaks[:63])
	check(64, "", 0, breaks)
	check(64, "", 0, breaks[:63], "\n")
	check(64, "a\n", 1, breaks+"a\n")
	check(65, "a", 1, breaks[:40], "\n", breaks[:24]+"a")
	check(0, "a"+breaks, 2, "a", breaks)
}

// TestDetectionEndsWithItsBounds: when no candidate is left, DetectBytes were examined, or too many turns were taken.
func TestDetectionEndsWithItsBounds(t *testing.T) {
	check := func(what string, detecting bool, prepare func(conn *Conn)) {
		t.Helper()
		conn := openToy(t)
		prepare(conn)
		conn.checkCandidates(Client)
		if (conn.state != dropped) != detecting {
			t.Errorf("%s: detecting is %t", what, !detecting)
		}
	}
	check("nothing", true, func(*Conn) {})
	check("no candidate of the client", true, func(conn *Conn) { conn.candidates[Client] = 0 })
	check("no candidate", false, func(conn *Conn) { conn.candidates = [2]uint64{} })
	check("fewer bytes than are examined", true, func(conn *Conn) { conn.streams[Client].tail = bytes.Repeat([]byte("x"), 63) })
	check("as many bytes as are examined", false, func(conn *Conn) { conn.streams[Client].tail = bytes.Repeat([]byte("x"), 64) })
	check("bytes of the server", true, func(conn *Conn) { conn.streams[Server].tail = bytes.Repeat([]byte("x"), 64) })
	check("turns", true, func(conn *Conn) { conn.pieces = make([]piece, maxPieces-1) })
	check("too many turns", false, func(conn *Conn) { conn.pieces = make([]piece, maxPieces) })
	check("no candidate of the client behind unknown bytes", false, func(conn *Conn) { conn.redetects, conn.candidates[Client] = 1, 0 })
	check("candidates of the client behind unknown bytes", true, func(conn *Conn) { conn.redetects, conn.candidates[Server] = 1, 0 })
}
