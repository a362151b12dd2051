package protocols

import (
	"strings"
	"testing"

	"tidegate/pipeline"
)

// A reader is a toy that reads whatever comes.
type reader struct{ *toy }

func (r reader) Parse(dir Dir, data []byte, _ int64) (int, error) {
	r.logf("%s%q", side(dir), data)
	return len(data), nil
}

// TestProofPassedOnJoinsNoBytes: the parser that the answer chooses passes the connection on. The next one reads the bytes
// of both sides that the proof holds. If it holds only the front of the client's, the next one begins behind those that are
// lost.
func TestProofPassedOnJoinsNoBytes(t *testing.T) {
	check := func(size int, want ...string) {
		t.Helper()
		var log []string
		set, first := toys(&log, nil)
		set.cfg.MaxUnparsedBytes = 1 << 20
		set.list[1].New = func() Parser { return reader{first} }
		conn := set.Open(Info{}, func(event *pipeline.Event) { event.ReturnToVTPool() })
		long := strings.Repeat("x", size)
		run(conn, ">yo\nbecome other\n", ">"+long, "<hi\n#s\n", ">#a\n")
		offset := conn.streams[Client].offset
		conn.Close(9)
		got := strings.ReplaceAll(strings.Join(log, ", "), long, "long")
		if got != strings.Join(want, ", ") {
			t.Errorf("%d bytes: %s, want %s", size, got, strings.Join(want, ", "))
		}
		if want := uint64(len("yo\nbecome other\n#a\n") + size); offset != want {
			t.Errorf("%d bytes: the offset of the client is %d, want %d", size, offset, want)
		}
	}
	before := []string{`>"yo\nbecome other\n"`, `>"long"`, "close", ">yo@0", ">become other@0", "close"}
	check(99, append(before, `>"long"`, `<"hi\n#s\n"`, `>"#a\n"`, "close")...)
	check(maxProof, append(before, ">gap 1", "<\"#s\\n\"", `>"#a\n"`, "close")...)
}

// TestRefutedProtocolIsLeft: the bytes that the proof has held behind the answer, and the answer, are counted, and the next
// turn is detected anew.
func TestRefutedProtocolIsLeft(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	conn := set.Open(Info{}, nil)
	run(conn, ">hi\n")
	before := conn.streams[Client].offset
	conn.proof.bytes = [2][]byte{[]byte("0123456789"), []byte("answer")}
	conn.proof.answered = 4
	conn.settleProof()
	if got := conn.streams[Client].offset - before; got != 6 || conn.streams[Server].offset != 6 {
		t.Errorf("%d bytes of the client and %d of the server are counted, want 6 each", got, conn.streams[Server].offset)
	}
	if conn.state != dropped || !conn.undetected || log[len(log)-1] != "close" {
		t.Errorf("state %d, undetected %t: %q", conn.state, conn.undetected, log)
	}
}
