package sessions

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// TestAddressesHaveTheirOwnLength: 4 bytes for IPv4, in whatever form it comes, and 16 for IPv6.
func TestAddressesHaveTheirOwnLength(t *testing.T) {
	for text, size := range map[string]int{"10.0.0.1": 4, "::ffff:10.0.0.1": 4, "fd00::1": 16, "::": 16} {
		ip := netip.MustParseAddr(text)
		data := appendIP([]byte("x"), ip)
		if got, ok := netip.AddrFromSlice(data[1:]); !ok || len(data) != 1+size || got != ip.Unmap() {
			t.Errorf("%s: %x", text, data)
		}
	}
}

// openContainers are containers whose addresses are never final, or always.
type openContainers struct{ final bool }

func (c *openContainers) Resolve(netip.Addr, int64) (*pipeline.Container, bool) { return nil, c.final }

// gathered returns the sum over all labels of a counter or a gauge.
func gathered(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// TestEventsThatWaitForTheirContainersAreCharged, and the oldest are emitted as they are when the memory budget is exceeded,
// when too many wait, and when their wait is over.
func TestEventsThatWaitForTheirContainersAreCharged(t *testing.T) {
	containers := &openContainers{}
	var emitted []int64
	emittedBytes := 0
	reg := prometheus.NewRegistry()
	budget := memory.New(2<<20, reg)
	enricher := &enricher{
		containers: containers, limit: 10_000, memory: budget.Open("events"),
		emit: func(event *pipeline.Event) {
			emitted = append(emitted, event.Timestamp)
			emittedBytes += bytesOf(event)
		},
	}
	add := func(count int, now int64) {
		for range count {
			event := &pipeline.Event{Source: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}}}
			event.Timestamp = int64(len(emitted) + len(enricher.unresolved))
			enricher.enrich(event, frameSender{}, now)
		}
	}
	add(100, 0)
	size := enricher.unresolved[0].bytes
	if len(emitted) != 0 || size <= 0 {
		t.Fatalf("%d events are emitted, one takes %d bytes", len(emitted), size)
	}
	const slack = 256 << 10 // an account commits in portions
	half := (1 << 20) / size
	add(half-100, 0)
	if used := int(budget.Used()); used < half*size-slack || used > half*size+slack {
		t.Errorf("%d bytes are charged for %d events of %d", used, half, size)
	}
	add(2*half, 1)
	if used := int(budget.Used()); used > 2<<20+slack || len(emitted) < half/2 || len(enricher.unresolved) < half {
		t.Errorf("%d bytes are charged, %d events are emitted, %d wait", used, len(emitted), len(enricher.unresolved))
	}
	if got := gathered(t, reg, "tidegate_memory_given_up_bytes_total"); got != float64(emittedBytes) {
		t.Errorf("%v bytes are counted as given up, %d were emitted", got, emittedBytes)
	}
	for i, at := range emitted {
		if at != int64(i) {
			t.Fatalf("event %d is emitted, want %d", at, i)
		}
	}

	// The wait ends after resolveWait, and with the container.
	enricher.retryUnresolved(resolveWait, false) // those of time 0 are over
	waiting := len(enricher.unresolved)
	if waiting == 0 || waiting > 2*half {
		t.Errorf("%d events wait", waiting)
	}
	enricher.retryUnresolved(resolveWait, false)
	if len(enricher.unresolved) != waiting {
		t.Error("events are emitted although they may wait")
	}
	containers.final = true
	enricher.retryUnresolved(resolveWait, false)
	if len(enricher.unresolved) != 0 || int(budget.Used()) > slack || len(emitted) != 3*half {
		t.Errorf("%d events wait, %d bytes are charged, %d are emitted of %d", len(enricher.unresolved), budget.Used(), len(emitted), 3*half)
	}

	// No more than the limit wait, and none behind the end.
	containers.final = false
	enricher.limit, emitted = 3, nil
	add(5, 0)
	if len(enricher.unresolved) != 3 || len(emitted) != 2 {
		t.Errorf("%d events wait, %d are emitted", len(enricher.unresolved), len(emitted))
	}
	enricher.retryUnresolved(1, true)
	if len(enricher.unresolved) != 0 || len(emitted) != 5 {
		t.Errorf("%d events wait, %d are emitted at the end", len(enricher.unresolved), len(emitted))
	}
}
