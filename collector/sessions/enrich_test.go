package sessions

import (
	"net/netip"
	"testing"
	"time"

	"tidegate/pipeline"
)

// containersFunc implements Containers by a function.
type containersFunc func(ip netip.Addr, at int64) (*pipeline.Container, bool)

func (f containersFunc) Resolve(ip netip.Addr, at int64) (*pipeline.Container, bool) {
	return f(ip, at)
}

// TestAnEventWaitsForItsContainer: the first packets of a container come before the Docker API reports it.
// Its events wait; they are emitted with the container once it is known, and without it after resolveWait and
// on Close. An event whose containers are final does not wait.
func TestAnEventWaitsForItsContainer(t *testing.T) {
	web := &pipeline.Container{Id: "web"}
	late := &pipeline.Container{Id: "late"}
	known := false
	deps := Deps{Containers: containersFunc(func(ip netip.Addr, _ int64) (*pipeline.Container, bool) {
		switch ip.String() {
		case "10.0.0.2":
			return web, true
		case "10.0.0.1":
			if known {
				return late, true
			}
			return nil, false
		}
		return nil, true
	})}
	exchange := func(test *tableTest, client string) {
		test.segmentOn("eth0", client, "10.0.0.2:80", ">", "S", 0, 0, "")
		test.segmentOn("eth0", client, "10.0.0.2:80", "<", "SA", 0, 0, "")
		test.segmentOn("eth0", client, "10.0.0.2:80", ">", "A", 0, 0, "hello")
		test.Tick(startTime + int64(test.now))
	}
	tick := func(test *tableTest, d time.Duration) {
		test.now += d
		test.Tick(startTime + int64(test.now))
	}

	test := newTableTest(t, Default(), deps)
	exchange(test, "192.0.2.1:40000")
	if len(test.events) != 1 || test.events[0].Container != web {
		t.Fatalf("an event with final containers waited: %v", test.events)
	}
	exchange(test, "10.0.0.1:40000")
	tick(test, 100*time.Millisecond)
	if len(test.events) != 1 {
		t.Fatalf("an unresolved event was emitted at once: %v", test.events)
	}
	known = true
	tick(test, 100*time.Millisecond)
	if len(test.events) != 2 || test.events[1].Source.Container != late || test.events[1].Container != web {
		t.Fatalf("the container became known: %v", test.events)
	}

	known = false
	exchange(test, "10.0.0.1:40001")
	tick(test, 3*time.Second)
	if len(test.events) != 3 || test.events[2].Source.Container != nil || test.events[2].Container != web {
		t.Fatalf("no container became known: %v", test.events)
	}
	exchange(test, "10.0.0.1:40002")
	test.Close()
	open := 0
	for _, event := range test.events {
		if event.Dataset == pipeline.Dataset_REDIS {
			open++
		}
	}
	if open != 4 {
		t.Errorf("%d of 4 transactions were emitted", open)
	}
}

// TestUnresolvedEventsAreBounded: beyond the limit events are emitted without their containers.
func TestUnresolvedEventsAreBounded(t *testing.T) {
	cfg := Default()
	cfg.MaxPendingEvents = 2
	unsettled := func(netip.Addr, int64) (*pipeline.Container, bool) { return nil, false }
	test := newTableTest(t, cfg, Deps{Containers: containersFunc(unsettled)})
	test.segment(">", "S", 0, 0, "")
	test.segment("<", "SA", 0, 0, "")
	for i := range 5 {
		test.segment(">", "A", i, 0, "x")
	}
	test.Tick(startTime + int64(test.now))
	if len(test.events) != 3 {
		t.Errorf("%d events were emitted, want 3 of 5", len(test.events))
	}
}
