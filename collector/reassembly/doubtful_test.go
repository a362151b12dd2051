package reassembly

import "testing"

// TestResetThatTheReceiverMayIgnoreIsInDoubt since it came: a RST in the window without the expected number. A second one
// changes nothing; a RST with the number closes the connection, and bytes of its sender show that it lives.
func TestResetThatTheReceiverMayIgnoreIsInDoubt(t *testing.T) {
	open := func() *testConn {
		testConn := newTestConn(t, testConfig(), defaultISN).handshake()
		testConn.segment(0, "A", 0, 0, "abc")
		testConn.segment(1, "A", 0, 3, "d")
		return testConn
	}
	check := func(when string, testConn *testConn, since int64, doubtful, closing bool) {
		t.Helper()
		_, isClosing := testConn.Closing()
		if at, ok := testConn.DoubtfulReset(); ok != doubtful || doubtful && at != since || isClosing != closing {
			t.Errorf("%s: doubtful %t since %d, closing %t; want %t since %d, %t", when, ok, at, isClosing, doubtful, since, closing)
		}
	}
	testConn := open()
	check("without a RST", testConn, 0, false, false)
	since := testConn.now
	testConn.segment(0, "RA", 1000, 1, "")
	check("a RST in the window", testConn, since, true, false)
	testConn.segment(0, "RA", 2000, 1, "")
	check("a second RST in the window", testConn, since, true, false)
	testConn.segment(0, "RA", 3, 1, "")
	check("a RST with the expected number", testConn, 0, false, true)

	testConn = open()
	testConn.segment(0, "RA", 1000, 1, "")
	testConn.segment(0, "A", 3, 1, "ef")
	check("bytes behind a RST", testConn, 0, false, false)

	testConn = open()
	testConn.segment(0, "RA", 100_000, 1, "")
	check("a RST outside the window", testConn, 0, false, false)
}
