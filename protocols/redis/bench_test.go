package redis

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// BenchmarkTransaction measures SET and GET in turn, with their replies, through the framework. An operation
// is one command.
func BenchmarkTransaction(b *testing.B) {
	set := []byte(resp("SET", "user:1234:name", "a value of some length"))
	get := []byte(resp("GET", "user:1234:name"))
	ok, value := []byte("+OK\r\n"), []byte("$22\r\na value of some length\r\n")
	conversation := protocoltest.Conversation{Port: 6379}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) { event.ReturnToVTPool() })
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
