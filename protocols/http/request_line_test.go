package http

import (
	"testing"

	"tidegate/protocols"
)

// TestRequestLinesAreRecognisedByTheirEnd: the version, which scanners write with missing spaces, or none at all before an
// empty line (HTTP/0.9).
func TestRequestLinesAreRecognisedByTheirEnd(t *testing.T) {
	check := func(want protocols.Match, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if got := detectRequest([]byte(line)); got != want {
				t.Errorf("%q: %d, want %d", line, got, want)
			}
		}
	}
	check(protocols.Yes, "GET / HTTP/1.1\r\n", "GET / HTTP/1.0\n", "FOO / HTTP/1.1\r\n", "foo / HTTP/1.1\r\n", "AB / HTTP/1.1\r\n", "AB  HTTP/1.1\r\n",
		"GET x y HTTP/1.1\r\n", "ABC x y HTTP/1.1\r\n", "ABC x HTTP/1.1 z\r\n", "GET /HTTP/1.1\r\n", "get x y HTTP/1.1\r\n",
		"GET /\r\n\r\n", "GET /\n\n", "GET http://a/\r\n\r\n")
	check(protocols.More, "GET /\r\n", "GET /\n", "GET http://a/\r\n", "GET /\r\nHost: x\r\n", "GET", "GET ", "GET /", "GET / HTTP/1.1",
		"GET / SIP/2.0\r\n", "GET / x\r\n\r\n")
	check(protocols.No, "foo x y HTTP/1.1\r\n", "AB x y HTTP/1.1\r\n", "ab  HTTP/1.1\r\n", "GET x\r\n\r\n", "get /\r\n\r\n", "FOO /\r\n\r\n", "FOO / x\r\n\r\n",
		"GET /a b x\r\n", "FOO /\x01 HTTP/1.1\r\n")
}

// TestParserHoldsTheTextsOfItsRequests: the memory budget is charged with them.
func TestParserHoldsTheTextsOfItsRequests(t *testing.T) {
	if got := (&parser{textBytes: 100}).Held(); got != 100 {
		t.Errorf("%d bytes are held, want 100", got)
	}
}
