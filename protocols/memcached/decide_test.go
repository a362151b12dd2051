package memcached

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestReplyToAStoreSettlesItsData: behind CLIENT_ERROR and ERROR the commands in them are told, behind a success they are
// dropped, and behind SERVER_ERROR they stay. The parser holds the keys of those that are left.
func TestReplyToAStoreSettlesItsData(t *testing.T) {
	check := func(what string, line replyLine, held, told, keys int) {
		t.Helper()
		set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
		p := &parser{}
		p.Reset(set.Open(protocols.Info{}, func(*pipeline.Event) {}))
		for i, store := range []uint64{4, 5, 6} {
			event := &pipeline.Event{Dataset: pipeline.Dataset_MEMCACHED}
			p.data.withheld = append(p.data.withheld, inner{pending: pending{event: event, keysBytes: 1 << i}, store: store})
			p.keysBytes += 1 << i
		}
		p.decideData(5, line)
		if len(p.data.withheld) != held || len(p.data.unanswered) != told || p.keysBytes != keys {
			t.Errorf("%s: %d are held, %d told, %d bytes; want %d, %d, %d", what, len(p.data.withheld), len(p.data.unanswered), p.keysBytes, held, told, keys)
		}
		if got, want := p.Held(), (held+told)*protocols.EventBytes+keys; got != want {
			t.Errorf("%s: the parser holds %d bytes, want %d", what, got, want)
		}
	}
	check("stored", replyLine{status: []byte("STORED")}, 1, 0, 4)
	check("refused", replyLine{status: []byte("CLIENT_ERROR"), isError: true}, 1, 1, 6)
	check("unknown", replyLine{status: []byte("ERROR"), isError: true}, 1, 1, 6)
	check("failed", replyLine{status: []byte("SERVER_ERROR"), isError: true}, 3, 0, 7)
}
