package protocols

import "testing"

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
