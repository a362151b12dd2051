package protocoltest

import (
	"runtime"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A HeapMeter measures how much memory a connection holds.
type HeapMeter struct {
	before uint64
}

func (m *HeapMeter) open(t *testing.T, list []protocols.Protocol, conversation Conversation, events *int) *protocols.Conn {
	set := protocols.NewSet(list, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Fatalf("the parser of %s panicked: %v\n%s", protocol, value, stack)
	}
	m.before = heap()
	return set.Open(conversation.Info(), func(e *pipeline.Event) {
		*events++
		e.ReturnToVTPool()
	})
}

// held returns by how much the heap has grown since open.
func (m *HeapMeter) held() uint64 {
	if now := heap(); now > m.before {
		return now - m.before
	}
	return 0
}

func heap() uint64 {
	var memStats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memStats)
	return memStats.HeapAlloc
}
