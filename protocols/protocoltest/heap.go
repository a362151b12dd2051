package protocoltest

import (
	"runtime"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A HeapMeter measures the memory that a connection holds.
type HeapMeter struct {
	before uint64 // bytes of the heap when the connection was opened
}

// open opens a connection of a new set. events counts the events, which are released.
func (m *HeapMeter) open(
	t *testing.T, list []protocols.Protocol, conversation Conversation, events *int,
) *protocols.Conn {
	set := protocols.NewSet(list, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Fatalf("the parser of %s panicked: %v\n%s", protocol, value, stack)
	}
	m.before = heapBytes()
	return set.Open(conversation.Info(), func(event *pipeline.Event) {
		*events++
		event.ReturnToVTPool()
	})
}

// held returns the growth of the heap since open.
func (m *HeapMeter) held() uint64 {
	if now := heapBytes(); now > m.before {
		return now - m.before
	}
	return 0
}

// heapBytes returns the bytes of the heap that are in use.
func heapBytes() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
