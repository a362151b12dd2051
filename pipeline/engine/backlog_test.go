package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/kafka"
)

// The environment of the engine of TestBacklogFitsIntoTheMemory, which is a process of its own.
const (
	backlogBrokers = "TIDEGATE_BACKLOG_BROKERS"
	backlogMemory  = "TIDEGATE_BACKLOG_MEMORY"
	backlogEvents  = "TIDEGATE_BACKLOG_EVENTS" // of the whole backlog
)

const backlogPartitions = 16

// TestBacklogFitsIntoTheMemory: a backlog of ordinary HTTP events waits on 16 partitions. An engine catches up
// with it, and the process never takes more memory than engine.memory says, in a cgroup of that size where the
// test may create one. TIDEGATE_BACKLOG_EVENTS and TIDEGATE_BACKLOG_MEMORY change the size.
func TestBacklogFitsIntoTheMemory(t *testing.T) {
	if os.Getenv(backlogBrokers) != "" {
		runBacklogEngine(t)
		return
	}
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	events, memory := 320_000, int64(256<<20)
	if text := os.Getenv(backlogEvents); text != "" {
		events, _ = strconv.Atoi(text)
	}
	if text := os.Getenv(backlogMemory); text != "" {
		memory, _ = strconv.ParseInt(text, 10, 64)
	}

	// The backlog: batches of 1,000 events.
	const perBatch = 1000
	harness := newHarness(t, backlogPartitions, kafka.AssignStatic)
	for sent := 0; sent < events; sent += perBatch {
		partition := sent / perBatch % backlogPartitions
		batch := harness.batch(partition, 0)
		for range perBatch {
			batch.Events = append(batch.Events, mixedEvent(3*harness.events)) // every third is an HTTP exchange
			harness.events++
		}
		harness.produce(partition, encode(t, batch))
	}

	began := time.Now()
	child := exec.Command(os.Args[0], "-test.run", "^TestBacklogFitsIntoTheMemory$", "-test.v")
	child.Env = append(os.Environ(), backlogBrokers+"="+strings.Join(harness.client.Brokers(), ","),
		fmt.Sprintf("%s=%d", backlogMemory, memory), fmt.Sprintf("%s=%d", backlogEvents, events))
	if procs := newMemoryCgroup(t, memory); procs != "" {
		child.Args = append([]string{"/bin/sh", "-c", `echo $$ >"$0" && exec "$@"`, procs}, child.Args...)
		child.Path = "/bin/sh"
	}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("the engine ended with %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "backlog:") {
			t.Logf("%s in %v", strings.TrimSpace(line), time.Since(began).Round(time.Second))
		}
	}
}

// newMemoryCgroup creates a cgroup with a limit of memory and returns its file of processes; "" if the test may
// not. Of version 2 the file system is at /sys/fs/cgroup, of version 1 at /sys/fs/cgroup/memory.
func newMemoryCgroup(t *testing.T, limit int64) string {
	t.Helper()
	dir, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir, file = "/sys/fs/cgroup", "memory.max"
	}
	dir = filepath.Join(dir, fmt.Sprintf("tidegate-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Logf("no cgroup: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(limit, 10)), 0o644); err != nil {
		t.Logf("no limit of memory in a cgroup: %v", err)
		return ""
	}
	return filepath.Join(dir, "cgroup.procs")
}

// runBacklogEngine runs the engine of TestBacklogFitsIntoTheMemory in this process until it has read everything.
func runBacklogEngine(t *testing.T) {
	events, _ := strconv.Atoi(os.Getenv(backlogEvents))
	memory, _ := strconv.ParseInt(os.Getenv(backlogMemory), 10, 64)
	debug.SetMemoryLimit(memory / 16 * 15)

	client := connect(t, strings.Split(os.Getenv(backlogBrokers), ","), backlogPartitions, kafka.AssignStatic)
	harness := &harness{TB: t, client: client, lines: &lineLog{}}
	store := nullStore{newFakeStore(), true}
	engine, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) {
		c.Memory, c.Linger = config.Size(memory), Default().Linger
	})
	for engine.Ledger().Rows < uint64(events) {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	ledger := engine.Ledger()
	peak := peakRSS(t)
	fmt.Printf("backlog: %d events in %d blocks, %d MiB of memory at most\n",
		ledger.Rows, engine.metrics.blocks.Load(), peak>>20)
	if peak > memory {
		t.Errorf("the process took %d MiB, engine.memory is %d MiB", peak>>20, memory>>20)
	}
	if used := engine.memory.used; used != 0 {
		t.Errorf("%d bytes of the budget are still taken", used)
	}
}

// peakRSS returns the most memory that this process has had.
func peakRSS(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmHWM:" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// TestMemoryBudgetServesInOrder: what does not fit waits, in order; who holds all gets more than the limit, and so
// does one replay at a time; a closed account gives everything back.
func TestMemoryBudgetServesInOrder(t *testing.T) {
	budget := newMemoryBudget(16*100/blockShare, nil) // a limit of about 100
	limit := budget.limit
	first, second, third := budget.open(), budget.open(), budget.open()
	if !first.TryTake(limit-10) || first.TryTake(11) {
		t.Fatal("the limit is not kept")
	}
	served := make(chan string, 10)
	take := func(name string, account *memoryAccount, n int64) {
		go func() {
			if err := account.Take(context.Background(), n); err != nil {
				name = "error"
			}
			served <- name
		}()
		for waits := false; !waits; time.Sleep(time.Millisecond) {
			budget.mu.Lock()
			waits = len(budget.waiting) > 0 && budget.waiting[len(budget.waiting)-1].account == account || account.held >= n
			budget.mu.Unlock()
		}
	}
	take("second", second, 50)
	if third.TryTake(1) {
		t.Error("a later one was served first")
	}
	take("third", third, 5)
	if !first.isWaiting && len(served) > 0 {
		t.Error("served too early")
	}
	first.Release(limit - 10)
	if one, other := <-served, <-served; one == other || one == "error" || other == "error" {
		t.Errorf("served %s and %s", one, other)
	}

	// More than the limit: for one replay, then for the next, and for whoever holds all.
	first.setReplay(true)
	second.setReplay(true)
	if !first.TryTake(limit) || second.TryTake(limit) {
		t.Error("a replay waits, or two do not")
	}
	take("second again", second, limit)
	first.setReplay(false)
	if name := <-served; name != "second again" {
		t.Error(name)
	}
	third.close()
	second.close()
	first.Release(limit)
	if budget.used != 0 || third.TryTake(1) || third.Take(context.Background(), 1) == nil {
		t.Errorf("%d bytes are taken after the end", budget.used)
	}
	if !first.TryTake(10 * limit) {
		t.Error("who holds nothing waits for nobody")
	}

	// A fetcher that waits gives up its place when it ends.
	fourth := budget.open()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { time.Sleep(10 * time.Millisecond); cancel() }()
	if err := fourth.Take(ctx, limit); err == nil || len(budget.waiting) > 0 {
		t.Error(err, len(budget.waiting))
	}
}

// TestInserterPoolKeepsItsLimit: inserters are used again, and dropped beyond the limit.
func TestInserterPoolKeepsItsLimit(t *testing.T) {
	made := 0
	pool := inserterPool{limit: 100, newInserter: func() pipeline.EventInserter { made++; return sizedInserter{DiscardStore{}.NewInserter(), 60} }}
	first, second := pool.takeInserter(), pool.takeInserter()
	pool.putInserter(first)
	pool.putInserter(second)
	if pool.kept != 60 || len(pool.free) != 1 {
		t.Errorf("%d inserters of %d bytes are kept", len(pool.free), pool.kept)
	}
	pool.takeInserter()
	if pool.kept != 0 || made != 2 {
		t.Errorf("%d bytes are kept, %d inserters were made", pool.kept, made)
	}
}

type sizedInserter struct {
	pipeline.EventInserter
	size int
}

func (i sizedInserter) Capacity() int { return i.size }
