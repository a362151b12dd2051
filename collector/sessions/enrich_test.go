package sessions

import (
	"net/netip"
	"testing"
	"time"

	"tidegate/pipeline"
)

// containersFunc is Containers as a function.
type containersFunc func(ip netip.Addr, at int64) (*pipeline.Container, bool)

func (f containersFunc) Resolve(ip netip.Addr, at int64) (*pipeline.Container, bool) {
	return f(ip, at)
}

// TestAnEventWaitsForItsContainer: the first packets of a container come before the API tells of it. Its events wait, are told with
// its name as soon as it has one, without it after a while, and all at the end; what is settled waits for nobody.
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
	talk := func(b *sessionBench, client string) {
		b.segment("eth0", client, "10.0.0.2:80", ">", "S", 0, 0, "")
		b.segment("eth0", client, "10.0.0.2:80", "<", "SA", 0, 0, "")
		b.segment("eth0", client, "10.0.0.2:80", ">", "A", 0, 0, "hello")
		b.Tick(epoch + int64(b.now))
	}
	tick := func(b *sessionBench, d time.Duration) {
		b.now += d
		b.Tick(epoch + int64(b.now))
	}

	b := newBench(t, Default(), deps)
	talk(b, "192.0.2.1:40000")
	if len(b.events) != 1 || b.events[0].Container != web {
		t.Fatalf("what is settled waited: %v", b.events)
	}
	talk(b, "10.0.0.1:40000")
	tick(b, 100*time.Millisecond)
	if len(b.events) != 1 {
		t.Fatalf("a stranger was told at once: %v", b.events)
	}
	known = true
	tick(b, 100*time.Millisecond)
	if len(b.events) != 2 || b.events[1].Source.Container != late || b.events[1].Container != web {
		t.Fatalf("the container became known: %v", b.events)
	}

	known = false
	talk(b, "10.0.0.1:40001")
	tick(b, 3*time.Second)
	if len(b.events) != 3 || b.events[2].Source.Container != nil || b.events[2].Container != web {
		t.Fatalf("nobody came: %v", b.events)
	}
	talk(b, "10.0.0.1:40002")
	b.Close()
	open := 0
	for _, e := range b.events {
		if e.Dataset == pipeline.Dataset_REDIS {
			open++
		}
	}
	if open != 4 {
		t.Errorf("%d of 4 transactions were told", open)
	}
}

// TestStrangersAreBounded: beyond the outbox they are told as they are.
func TestStrangersAreBounded(t *testing.T) {
	cfg := Default()
	cfg.MaxPendingEvents = 2
	b := newBench(t, cfg, Deps{Containers: containersFunc(func(netip.Addr, int64) (*pipeline.Container, bool) { return nil, false })})
	b.sent(">", "S", 0, 0, "")
	b.sent("<", "SA", 0, 0, "")
	for i := range 5 {
		b.sent(">", "A", i, 0, "x")
	}
	b.Tick(epoch + int64(b.now))
	if len(b.events) != 3 {
		t.Errorf("%d events were told, want 3 of 5", len(b.events))
	}
}
