package containers

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline/memory"
)

const mebibyte = 1 << 20

// described returns a container as the API describes it, with as many labels as are kept.
func described(number, labels int) *container.InspectResponse {
	in := &container.InspectResponse{
		ID: fmt.Sprintf("%064x", number), Name: fmt.Sprint("/job-", number),
		Config: &container.Config{Image: "job:1", Labels: map[string]string{}},
	}
	for i := range labels {
		in.Config.Labels[fmt.Sprint("label", i)] = strings.Repeat("x", 1000)
	}
	return in
}

// churn creates, connects, stops and removes containers with the given number of labels.
func (r *Registry) churn(count, labels int, look func()) {
	for i := range count {
		created := r.newEntry(described(i, labels))
		ip := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
		created.endpoints, created.running = []endpoint{{ip, MAC(i + 1)}}, true
		at := int64(10*i + 1)
		r.mu.Lock()
		r.noteConnected(created.container.Id, at)
		r.putEntry(created, at)
		r.markStopped(created, at+5, true)
		r.publish()
		r.mu.Unlock()
		look()
	}
}

// TestContainersInALoopStayWithinTheBudget: what removed containers hold is charged, and beyond the budget the ones that
// were removed first are given up and counted. Another part that has grown gets the memory.
func TestContainersInALoopStayWithinTheBudget(t *testing.T) {
	const limit, count = 4 * mebibyte, 1000
	registry := New(Default(), slog.New(slog.DiscardHandler), nil)
	budget := memory.New(limit, nil)
	registry.account = budget.Open("containers")
	most := int64(0)
	registry.churn(count, 100, func() { most = max(most, budget.Used()) })
	if most < limit/2 || most > limit+limit/16 {
		t.Errorf("%d bytes were charged, of %d", most, limit)
	}
	given := testutil.ToFloat64(registry.metrics.dropped.WithLabelValues("memory_limit"))
	if known := len(registry.Containers()); known < 50 || given != float64(count-known) {
		t.Errorf("%d containers are known and %v given up, of %d", known, given, count)
	}
	if registry.ByIP(ip("172.17.0.0")) != nil || registry.ByIP(ip("172.17.3.231")) == nil {
		t.Error("the newest one is not known, or the oldest one is")
	}

	other := budget.Open("parsers")
	other.Add(limit / 3)
	registry.enforceBudget()
	if budget.Used() > limit {
		t.Errorf("%d bytes are charged, of %d, when another part has grown", budget.Used(), limit)
	}
}

// TestLabelsOfExistingContainersAreGivenUpLast: containers that exist are known whatever comes; without removed ones to
// give up they lose their labels, those with the most first.
func TestLabelsOfExistingContainersAreGivenUpLast(t *testing.T) {
	registry := New(Default(), slog.New(slog.DiscardHandler), nil)
	budget := memory.New(mebibyte, nil)
	registry.account = budget.Open("containers")
	for i := range 100 {
		registry.mu.Lock()
		registry.putEntry(registry.newEntry(described(i, i%2*100)), 1)
		registry.putEntry(registry.newEntry(described(1000, 3)), 1)
		registry.publish()
		registry.mu.Unlock()
	}
	if known := len(registry.Containers()); known != 101 || budget.Used() > mebibyte {
		t.Errorf("%d containers are known, %d bytes are charged", known, budget.Used())
	}
	if labels := registry.ByID(fmt.Sprintf("%064x", 1000)).Labels; len(labels) != 3 {
		t.Errorf("a container with few labels has %d of 3", len(labels))
	}
}

// TestChargeIsWhatTheHeapHolds: the estimate of the memory of a container is right, with and without labels.
func TestChargeIsWhatTheHeapHolds(t *testing.T) {
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	for _, labels := range []int{0, 20} {
		before := heap()
		registry := New(Default(), slog.New(slog.DiscardHandler), nil)
		budget := memory.New(1<<40, nil)
		registry.account = budget.Open("containers")
		registry.churn(1000, labels, func() {})
		old := registry.view.Load()
		registry.mu.Lock()
		registry.publish()
		registry.mu.Unlock()
		held := heap() - before
		if charged := budget.Used(); held > charged*5/4 || held < charged/2 {
			t.Errorf("%d labels: %d bytes are held, %d are charged", labels, held, charged)
		}
		t.Logf("%d labels: %d bytes are held, %d are charged", labels, held, budget.Used())
		runtime.KeepAlive(old)
		runtime.KeepAlive(registry)
	}
}

// TestLabelsLeaveRoomInABatch: whatever labels an image has, the container is a small part of a batch, and the short
// labels are kept.
func TestLabelsLeaveRoomInABatch(t *testing.T) {
	registry := New(Default(), slog.New(slog.DiscardHandler), nil)
	in := described(1, 127)
	for key := range in.Config.Labels {
		in.Config.Labels[key] = strings.Repeat("x", maxLabelBytes)
	}
	in.Config.Labels["com.docker.compose.service"] = "shop"
	created := registry.newEntry(in).container
	if size := created.SizeVT(); size > 16<<10 {
		t.Errorf("the container has %d bytes", size)
	}
	if len(created.Labels) != 3 || created.Labels[0].Value != "shop" {
		t.Errorf("%d labels are kept, the first is %.40v", len(created.Labels), created.Labels[0])
	}
	if dropped := testutil.ToFloat64(registry.metrics.dropped.WithLabelValues("too_many_labels")); dropped != 125 {
		t.Errorf("%v labels are counted as dropped", dropped)
	}
}
