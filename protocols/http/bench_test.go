package http

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// BenchmarkTransaction measures a GET and its response with a body of 1 KiB on a persistent connection,
// through the framework.
func BenchmarkTransaction(b *testing.B) {
	request := []byte("GET /shop/items/42?page=3&sort=price HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0\r\n" +
		"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate\r\nCookie: session=0123456789abcdef\r\nConnection: keep-alive\r\n\r\n")
	response := append([]byte("HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 23:48:13 GMT\r\nContent-Type: text/html; charset=utf-8\r\n"+
		"Content-Length: 1024\r\nConnection: keep-alive\r\n\r\n"), make([]byte, 1024)...)
	conversation := protocoltest.Conversation{Port: 80}
	events := 0
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) {
		events++
		event.ReturnToVTPool()
	})
	at := protocoltest.Start
	b.ReportAllocs()
	b.SetBytes(int64(len(request) + len(response)))
	for b.Loop() {
		at += 1e6
		conn.Data(protocols.Client, request, at)
		conn.Data(protocols.Server, response, at+1e5)
	}
	if events != b.N {
		b.Fatalf("%d events in %d rounds", events, b.N)
	}
}

// BenchmarkBody measures skipping a long body, per 64 KiB.
func BenchmarkBody(b *testing.B) {
	conversation := protocoltest.Conversation{Port: 80}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) { event.ReturnToVTPool() })
	conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\n\r\n"), 1)
	conn.Data(protocols.Server, []byte("HTTP/1.1 200 OK\r\n\r\n"), 1)
	piece := make([]byte, 64<<10)
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(protocols.Server, piece, 2)
	}
}
