package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv("TIDEGATE_ENGINE_TEST_CHILD"); spec != "" {
		runChild(spec)
	}
	os.Exit(embeddedtest.Run(m))
}

// A childConfig configures a child: an engine in a process of its own.
type childConfig struct {
	Brokers   []string
	Assign    string
	Store     clickhouse.Config
	Rows      int    // of a block
	Failpoint string // at which the child kills itself; "": it does not
	Passage   int32  // which passage of the failpoint that is, from 1
}

// runChild runs an engine until it gets SIGTERM, or kills the process with SIGKILL at the failpoint.
func runChild(spec string) {
	var child childConfig
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
	}
	fail(json.Unmarshal([]byte(spec), &child))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = child.Brokers, child.Assign
	client, err := kafka.New(cfg)
	fail(err)
	store, err := openStore(ctx, child.Store)
	fail(err)
	engineConfig := Default()
	engineConfig.BlockRows, engineConfig.Linger, engineConfig.CommitIdleAfter, engineConfig.DedupLookback = child.Rows, 20*time.Millisecond, 100*time.Millisecond, 10*365*24*time.Hour
	var passed atomic.Int32
	e, err := New(engineConfig, Deps{Kafka: client, Store: store, Bundle: func() *pipeline.Bundle { return testBundle }, Failpoint: func(name string) {
		if name == child.Failpoint && passed.Add(1) == child.Passage {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}, discardLog, nil)
	fail(err)
	fail(e.Run(ctx))
	os.Exit(0)
}

// openStore opens the store, and waits for up to a minute until it answers, as `tidegate analyze` waits at its
// start. The embedded ClickHouse aborts now and then when a client is killed that reads an answer, and its
// supervisor needs some seconds to restart it.
func openStore(ctx context.Context, cfg clickhouse.Config) (*clickhouse.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	backoff := retry.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	for {
		store, err := clickhouse.Open(ctx, cfg, discardLog, nil)
		if err == nil || backoff.Wait(ctx) != nil {
			return store, err
		}
	}
}

// startChild starts a child and returns it with its output.
func startChild(t *testing.T, child childConfig) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	spec, err := json.Marshal(child)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TIDEGATE_ENGINE_TEST_CHILD="+string(spec), "TIDEGATE_TEST_LOG=1")
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = cmd.Process.Signal(syscall.SIGQUIT) // prints the stacks
			time.Sleep(time.Second)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("child %d, failpoint %q: %s", cmd.Process.Pid, child.Failpoint, out)
		}
	})
	return cmd, out
}

// waitKilled waits until a child has killed itself at its failpoint.
func waitKilled(t *testing.T, cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the child did not reach its failpoint")
	}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended in another way: %v %s", cmd.ProcessState, out)
	}
}

// A scenario is a topic and a store that several children share, one after the other or as a group.
type scenario struct {
	*harness
	store       *clickhouse.Store
	childConfig childConfig
	partitions  int
}

// newScenario returns a scenario with a database of its own.
func newScenario(t *testing.T, database string, r *harness, parts int, assign string) *scenario {
	t.Helper()
	store := embeddedtest.Store(t, database, "http")
	return &scenario{harness: r, store: store, partitions: parts, childConfig: childConfig{Brokers: r.client.Brokers(), Assign: assign, Store: store.Config(), Rows: 50}}
}

// finish runs a child that is not killed until all messages are processed, and checks the store and the
// alerts topic.
func (s *scenario) finish(t *testing.T) {
	t.Helper()
	child := s.childConfig
	child.Failpoint = ""
	cmd, out := startChild(t, child)
	ends := map[int]int64{}
	for p := range s.partitions {
		ends[p] = int64(len(s.read(pipeline.TopicEvents, p)))
	}
	waitUntil(t, "closed intents", func() bool {
		for p := range s.partitions {
			if child, m := s.committed(p); child != ends[p] || m != "" {
				return false
			}
		}
		return true
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("engine ended with %v: %s", err, out)
	}
	s.checkStoredOnce(t)
	s.checkAlerts(t)
}

// queryRow scans the one row that sql yields.
func queryRow(t *testing.T, s *clickhouse.Store, sql string, targets ...any) {
	t.Helper()
	var out bytes.Buffer
	if err := clickhouse.Query(t.Context(), s.Config(), sql, "TSV", &out); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscan(&out, targets...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// checkStoredOnce checks that the store holds each event once, with its verdicts, and each message with one
// block time.
func (s *scenario) checkStoredOnce(t *testing.T) {
	t.Helper()
	var rows, distinct, withVerdicts uint64
	var times int64
	queryRow(t, s.store, "SELECT count(), uniqExact(`event.id`), countIf(notEmpty(`verdict.rule`)),"+
		" uniqExact(_partition, _offset, `event.ingested`) - uniqExact(_partition, _offset) FROM events", &rows, &distinct, &withVerdicts, &times)
	matches := 0
	for i := range s.events {
		if i%10 == 3 {
			matches++
		}
	}
	if rows != uint64(s.events) || distinct != rows || withVerdicts != uint64(matches) || times != 0 {
		t.Errorf("%d rows, %d distinct, %d with verdicts, %d messages with two block times; want %d events, %d matches", rows, distinct, withVerdicts, times, s.events, matches)
	}
}

// checkAlerts checks that the alerts in the store and on the topic are those of one grouper over all verdicts
// that was never interrupted.
func (s *scenario) checkAlerts(t *testing.T) {
	t.Helper()
	want := map[string]pipeline.Alert{}
	for p := range s.partitions {
		grouper := alerts.NewGrouper(alerts.DefaultGrouper(), int32(p))
		seen := newDedupFilter(1000)
		for _, m := range s.read(pipeline.TopicEvents, p) {
			batch := &pipeline.Batch{}
			if err := batch.UnmarshalVT(m.Value); err != nil {
				t.Fatal(err)
			}
			if !seen.accept(pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}, m.Offset) {
				continue
			}
			pipeline.ResolveReferences(batch)
			badLineDetector{}.Evaluate(batch.Events)
			for _, e := range batch.Events {
				grouper.AddVerdicts(e, batch.Shipped, m.Offset)
			}
		}
		all, _ := grouper.Flush()
		for _, alert := range all {
			want[alert.ID] = *alert
		}
	}
	stored := map[string]pipeline.Alert{}
	for p := range s.partitions {
		list, err := s.store.AlertsBefore(t.Context(), int32(p), math.MaxInt64, 365*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		for _, alert := range list {
			if len(alert.Tags) == 0 {
				alert.Tags = nil
			}
			stored[alert.ID] = *alert
		}
	}
	if d := cmp.Diff(want, stored); d != "" {
		t.Errorf("alerts in the store differ from those without kills (-want +got):\n%s", d)
	}
	published, revisions := map[string]pipeline.Alert{}, map[string]string{}
	for _, m := range s.read(pipeline.TopicAlerts, 0) {
		var alert pipeline.Alert
		if err := json.Unmarshal(m.Value, &alert); err != nil {
			t.Fatal(err)
		}
		revision := alert.ID + "/" + strconv.FormatUint(alert.Revision, 10)
		if before, ok := revisions[revision]; ok && before != string(m.Value) {
			t.Errorf("revision %s was published twice, differently:\n%s\n%s", revision, before, m.Value)
		}
		revisions[revision] = string(m.Value)
		if alert.Revision >= published[alert.ID].Revision {
			published[alert.ID] = alert
		}
	}
	if d := cmp.Diff(want, published); d != "" {
		t.Errorf("alerts on the topic differ from those without kills (-want +got):\n%s", d)
	}
}

func TestEachEventIsStoredOnceWhenKilledAtEveryFailpoint(t *testing.T) {
	s := newScenario(t, "failpoints", newHarness(t, 2, kafka.AssignStatic), 2, kafka.AssignStatic)
	for round, failpoint := range Failpoints {
		for nth := range 2 {
			for p := range 2 {
				s.send(p, 6, 17)
			}
			o := s.childConfig
			o.Failpoint, o.Passage = failpoint, int32(1+nth*(1+round%2))
			if failpoint == BeforeClose {
				o.Passage = 1
			}
			cmd, out := startChild(t, o)
			waitKilled(t, cmd, out)
		}
	}
	s.finish(t)
}

func TestEachEventIsStoredOnceWhenKilledAtRandomAmongDuplicates(t *testing.T) {
	s := newScenario(t, "chance", newHarness(t, 2, kafka.AssignStatic), 2, kafka.AssignStatic)
	rnd := rand.New(rand.NewPCG(1, 2))
	var last [][]byte
	for range 8 {
		cmd, _ := startChild(t, s.childConfig)
		for range 10 {
			p := rnd.IntN(2)
			v := encode(t, s.batch(p, 1+rnd.IntN(60)))
			s.produce(p, v)
			if last = append(last, v); len(last) > 20 {
				last = last[1:]
			}
			if rnd.IntN(3) == 0 {
				old := last[rnd.IntN(len(last))]
				var b pipeline.Batch
				if err := b.UnmarshalVT(old); err != nil {
					t.Fatal(err)
				}
				s.produce(int(b.Partition), old)
			}
			time.Sleep(time.Duration(rnd.IntN(25)) * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	s.finish(t)
}

func TestClickHouseAnswersTheQueriesOfTheEngine(t *testing.T) {
	r := newHarness(t, 1, kafka.AssignStatic)
	store := embeddedtest.Store(t, "asks", "http")
	r.send(0, 4, 10)
	e, stop := r.start(store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 20 })
	waitUntil(t, "rows", func() bool { return e.Ledger().Rows == 40 })
	stop()
	s, ctx := store, context.Background()
	from := pipeline.TopicPartition{Topic: "tidegate.events"}
	if o, ok, err := s.HighestOffset(ctx, from); o != 3 || !ok || err != nil {
		t.Errorf("highest offset %d %v %v", o, ok, err)
	}
	var at [2]int64
	var blocks int
	queryRow(t, store, "SELECT uniqExact(`event.ingested`), min(toUnixTimestamp64Nano(`event.ingested`)), max(toUnixTimestamp64Nano(`event.ingested`)) FROM events", &blocks, &at[0], &at[1])
	if blocks != 2 {
		t.Fatalf("%d blocks, times %v", blocks, at)
	}
	for i, want := range []int{10, 10} { // [1,3) is the second half of the first block and the first of the second
		if existing, err := s.ExistingRows(ctx, pipeline.BlockID{TopicPartition: from, Start: 1, End: 3, Time: at[i]}); len(existing) != want || err != nil {
			t.Errorf("%d rows exist of block %d, %v", len(existing), i, err)
		}
	}
	stored, err := s.StoredBatches(ctx, pipeline.BatchFilter{TopicPartition: from, Before: 3})
	if err != nil || len(stored) != 1 || stored[0].Collector != testCollector || stored[0].Epoch != 7 || stored[0].Highest != 3 || stored[0].Seen != 7 {
		t.Errorf("stored batches %+v, %v", stored, err)
	}
	all, err := s.AlertsBefore(ctx, 0, 4, time.Hour)
	if err != nil || len(all) == 0 {
		t.Fatalf("alerts %v, %v", all, err)
	}
	for _, a := range all {
		if a.Offset >= 4 || a.Rule != "bad_line" || !strings.HasPrefix(a.Group, "g") || a.EventID == "" || a.ContainerName == "" || a.Host != "host1" {
			t.Errorf("alert %+v", a)
		}
	}
	if none, err := s.AlertsBefore(ctx, 0, 0, time.Hour); err != nil || len(none) != 0 {
		t.Errorf("alerts before the first message: %v, %v", none, err)
	}
}
