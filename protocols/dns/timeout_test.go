package dns

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestQueryTimesOutAtItsTimeout, in packet time.
func TestQueryTimesOutAtItsTimeout(t *testing.T) {
	emitted := 0
	set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
	conn := set.Open(protocols.Info{Transport: pipeline.Transport_UDP}, func(*pipeline.Event) { emitted++ })
	query := "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01"
	conn.Datagram(protocols.Client, []byte(query), 5)
	conn.Tick(5 + int64(Timeout) - 1)
	if emitted != 0 {
		t.Error("the query has timed out before its timeout")
	}
	conn.Tick(5 + int64(Timeout))
	if emitted != 1 {
		t.Error("the query has not timed out at its timeout")
	}
}
