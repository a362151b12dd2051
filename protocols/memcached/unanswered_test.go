package memcached

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestToldCommandsAreBounded: the oldest one is emitted without a reply, and what the parser holds is the sum of the keys of
// the others.
func TestToldCommandsAreBounded(t *testing.T) {
	var emitted []*pipeline.Event
	set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
	p := &parser{}
	p.Reset(set.Open(protocols.Info{}, func(event *pipeline.Event) { emitted = append(emitted, event) }))
	found := func(i int, flags commandFlags) inner {
		event := &pipeline.Event{Dataset: pipeline.Dataset_MEMCACHED, Timestamp: int64(i)}
		return inner{pending: pending{event: event, keysBytes: i, flags: flags}}
	}
	p.reportInner(found(7, noReply))
	p.reportInner(found(8, quiet))
	if len(emitted) != 2 || p.keysBytes != 0 || len(p.data.unanswered) != 0 {
		t.Fatalf("%d commands without a reply are emitted, %d bytes are held", len(emitted), p.keysBytes)
	}
	sum := 0
	for i := range maxInner + 3 {
		p.reportInner(found(i+1, 0))
		if sum += i + 1; i >= maxInner {
			sum -= i - maxInner + 1
		}
		if p.keysBytes != sum {
			t.Fatalf("%d bytes are held behind %d commands, want %d", p.keysBytes, i+1, sum)
		}
	}
	if len(p.data.unanswered) != maxInner || len(emitted) != 5 {
		t.Fatalf("%d commands wait, %d are emitted", len(p.data.unanswered), len(emitted))
	}
	for i, event := range emitted[2:] {
		if event.Timestamp != int64(i+1) {
			t.Errorf("command %d is emitted, want %d", event.Timestamp, i+1)
		}
	}
	if p.data.unanswered[0].event.Timestamp != 4 {
		t.Errorf("command %d waits longest, want 4", p.data.unanswered[0].event.Timestamp)
	}
}
