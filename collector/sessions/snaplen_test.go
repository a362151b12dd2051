package sessions

import (
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/reassembly"
	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestShortSnapLenYieldsPartialEvents: a capture of only the first bytes of each packet yields the question
// of a DNS query and the request line of HTTP. The events are marked partial, and the missing bytes are
// counted.
func TestShortSnapLenYieldsPartialEvents(t *testing.T) {
	var events []*pipeline.Event
	table := New(Default(), Deps{
		Protocols: protocols.NewSet(parsers, protocols.Default(), nil),
		Emit:      func(event *pipeline.Event) { events = append(events, event) },
	}, prometheus.NewRegistry())
	send := func(whole []byte, keep int) {
		table.Packet("eth0", layers.LinkTypeEthernet, startTime, whole[:min(keep, len(whole))], len(whole))
	}
	client, server := addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80")
	send(tcpFrame(t, client, server, "S", 0, 0, 1, ""), 100)
	send(tcpFrame(t, server, client, "SA", 0, 1, 1, ""), 100)
	send(tcpFrame(t, client, server, "A", 1, 1, 2, "GET /box.gif HTTP/1.1\r\nHost: x\r\n\r\n"), 54+20)
	send(tcpFrame(t, server, client, "A", 1, 38, 2, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), 54+20)
	query := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x04shop\x07example\x00\x00\x01\x00\x01"
	opt := "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"
	send(udpFrame(t, client, addrPort("10.0.0.2:53"), 3, query+opt), 42+len(query)+4)
	table.Close()
	var request, question bool
	for _, event := range events {
		switch {
		case event.Http != nil:
			request = event.Http.Method == "GET" && event.Http.UrlPath == "/box.gif" && event.Http.StatusCode == 200 &&
				event.Partial
		case event.Dns != nil:
			question = event.Dns.QuestionName == "shop.example" && event.Partial
		}
	}
	if !request || !question || counterValue(table.metrics.gaps[reassembly.GapCut]) != 3 {
		t.Errorf("request %v, question %v, %v gaps: %v", request, question,
			counterValue(table.metrics.gaps[reassembly.GapCut]), events)
	}
}
