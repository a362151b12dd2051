package reassembly

import "testing"

// TestSignsOfLifeAreNewBytesAndAcknowledgements, within the largest window.
func TestSignsOfLifeAreNewBytesAndAcknowledgements(t *testing.T) {
	bytes := func(top, off int64, size int, want bool) {
		t.Helper()
		half := &halfStream{top: top}
		if got := half.hasNewBytes(&Segment{Size: size}, off); got != want {
			t.Errorf("%d bytes at %d behind %d are new: %t", size, off, top, got)
		}
	}
	bytes(100, 100, 1, true)
	bytes(100, 100, 0, false)
	bytes(100, 99, 1, false) // a keep-alive
	bytes(100, 99, 2, true)
	bytes(100, 90, 10, false)
	bytes(100, 100+maxWindow-1, 1, true)
	bytes(100, 100+maxWindow, 1, false)
	bytes(2*maxWindow, 2*maxWindow, 1, true)

	acked := func(what string, half halfStream, off int64, want bool) {
		t.Helper()
		if got := half.isNewAck(off); got != want {
			t.Errorf("%s: an acknowledgement of %d is new: %t", what, off, got)
		}
	}
	acked("open", halfStream{ack: 10, fin: -1}, 10, false)
	acked("open", halfStream{ack: 10, fin: -1}, 11, true)
	acked("open", halfStream{ack: 10, fin: -1}, 10+maxWindow, true)
	acked("open", halfStream{ack: 10, fin: -1}, 11+maxWindow, false)
	acked("a FIN that is not acknowledged", halfStream{ack: 10, fin: 11}, 11, true)
	acked("a FIN", halfStream{ack: 10, fin: 10}, 11, false)
	acked("behind a FIN", halfStream{ack: 10, fin: 10}, 12, true)
	acked("ended", halfStream{ack: 10, fin: -1, ended: true}, 11, false)
}
