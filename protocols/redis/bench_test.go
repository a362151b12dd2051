package redis

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// BenchmarkTransaction is a SET and a GET with their replies, through the framework; an operation is one
// command.
func BenchmarkTransaction(b *testing.B) {
	set := []byte(resp("SET", "user:1234:name", "a value of some length"))
	get := []byte(resp("GET", "user:1234:name"))
	ok, value := []byte("+OK\r\n"), []byte("$22\r\na value of some length\r\n")
	c := protocoltest.Conversation{Port: 6379}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(c.Info(), func(e *pipeline.Event) { e.ReturnToVTPool() })
	at := protocoltest.Start
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at += 1e6
		if i%2 == 0 {
			conn.Data(protocols.Client, set, at)
			conn.Data(protocols.Server, ok, at+1e5)
		} else {
			conn.Data(protocols.Client, get, at)
			conn.Data(protocols.Server, value, at+1e5)
		}
	}
}
