package all

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestFinishedTransactionsReleaseTheirMemory: what a transaction was charged is charged no more when its event was
// emitted, so that a long connection does not use the budget up.
func TestFinishedTransactionsReleaseTheirMemory(t *testing.T) {
	text := strings.Repeat("t", 4000)
	for _, lines := range [][2]string{
		{">GET /" + text + " HTTP/1.1\r\nUser-Agent: " + text + "\r\nReferer: " + text + "\r\n\r\n", "<HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		{fmt.Sprintf(">*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", len(text), text), "<+OK\r\n"},
		{">get " + strings.Repeat(text[:200]+" ", 9) + "\r\n", "<END\r\n"},
	} {
		for _, port := range []uint16{80, 6379, 11211} {
			budget := memory.New(1<<30, nil)
			set := protocols.NewSet(Protocols, protocols.Default(), nil)
			set.SetMemory(budget.Open("parsers"))
			events := 0
			conversation := protocoltest.Dialogue(port, slices.Repeat(lines[:], 1000)...)
			most := int64(0)
			conversation.Emit(set, func(event *pipeline.Event) {
				events++
				most = max(most, budget.Used())
				event.ReturnToVTPool()
			})
			if events >= 1000 && most > 256<<10 {
				t.Errorf("port %d: %d bytes were charged at %d events of %.40q", port, most, events, lines[0])
			}
		}
	}
}
