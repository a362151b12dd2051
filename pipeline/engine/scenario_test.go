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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/consumer"
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
	Rows      int    // the most rows of a block
	Failpoint string // the child kills itself there; "": nowhere
	Passage   int32  // the passage of Failpoint at which it does so, from 1
	Stop      bool   // it stops itself there instead, until it gets SIGCONT

	Correlate bool // its rules are those of correlationBundle

	ClockOffset time.Duration // of its wall clock, until it gets SIGCONT

	Oracle *oracleChild // its rules and its clock; nil: those above
}

// readyLine is the line that a child prints when it handles signals.
const readyLine = "ready"

// ledgerPrefix begins the line in which a child prints its ledger at its end.
const ledgerPrefix = "ledger "

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
	fmt.Println(readyLine)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = child.Brokers, child.Assign
	client, err := kafka.New(cfg)
	fail(err)
	store, err := openStore(ctx, child.Store)
	fail(err)
	engineConfig := Default()
	engineConfig.BlockRows, engineConfig.DedupLookback = child.Rows, 10*365*24*time.Hour
	engineConfig.Linger, engineConfig.CommitIdleAfter = 20*time.Millisecond, 100*time.Millisecond

	var passed atomic.Int32
	failpoint := func(name string) {
		if name == child.Failpoint && passed.Add(1) == child.Passage {
			if child.Stop {
				stopUntilContinued()
				return
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	bundle := func() *pipeline.Bundle { return testBundle }
	if child.Correlate {
		bundle = func() *pipeline.Bundle { return correlationBundle }
	}
	deps := Deps{Kafka: client, Store: store, Bundle: bundle, Failpoint: failpoint, Now: child.now(), seenInterval: time.Second}
	fail(child.Oracle.apply(ctx, &deps))
	engine, err := New(engineConfig, deps, discardLog, nil)
	fail(err)
	correlated := make(chan error, 1)
	go func() { correlated <- engine.Correlate(ctx) }()
	fail(engine.Run(ctx))
	fail(<-correlated)
	ledger, err := json.Marshal(engine.Ledger())
	fail(err)
	fmt.Printf("%s%s\n", ledgerPrefix, ledger)
	os.Exit(0)
}

// now returns the clock of the child.
func (c childConfig) now() func() time.Time {
	if c.ClockOffset == 0 {
		return nil
	}
	var isContinued atomic.Bool
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	go func() {
		<-continued
		isContinued.Store(true)
	}()
	return func() time.Time {
		wall := time.Now().Round(0) // without the monotonic clock, which would hide a jump
		if isContinued.Load() {
			return wall
		}
		return wall.Add(c.ClockOffset)
	}
}

// stopUntilContinued stops this process until it gets SIGCONT. It waits for that signal, because SIGSTOP
// stops the threads of a process one after the other: the one that has sent it may run on and begin the next
// step.
func stopUntilContinued() {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	<-continued
}

// openStore opens the store, and waits for up to a minute until it answers, as `tidegate analyze` does at its
// start. The embedded ClickHouse aborts now and then when a client is killed while it reads an answer, and
// the supervisor needs some seconds for the restart.
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

// A childOutput collects the output of a child while it runs.
type childOutput struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (o *childOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(b)
}

func (o *childOutput) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// startChild starts a child and returns it with its output once the child handles signals.
func startChild(t *testing.T, child childConfig) (*exec.Cmd, *childOutput) {
	t.Helper()
	spec, err := json.Marshal(child)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TIDEGATE_ENGINE_TEST_CHILD="+string(spec), "TIDEGATE_TEST_LOG=1")
	out := &childOutput{}
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
	waitUntil(t, "a child that handles signals", func() bool { return strings.Contains(out.String(), readyLine) })
	return cmd, out
}

// isStopped reports whether a process is stopped by a signal.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, found := strings.Cut(string(stat), ") ")
	return err == nil && found && strings.HasPrefix(state, "T")
}

// waitKilled waits until a child has killed itself at its failpoint.
func waitKilled(t *testing.T, cmd *exec.Cmd, out *childOutput) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the child did not reach its failpoint")
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
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
func newScenario(t *testing.T, database string, h *harness, partitions int, assign string) *scenario {
	t.Helper()
	store := embeddedtest.Store(t, database, "http")
	child := childConfig{Brokers: h.client.Brokers(), Assign: assign, Store: store.Config(), Rows: 50}
	return &scenario{harness: h, store: store, partitions: partitions, childConfig: child}
}

// finish runs a child that is not killed until all messages are processed, and checks the store and the
// alerts topic.
func (s *scenario) finish(t *testing.T) {
	t.Helper()
	s.runUntilClosed(t)
	s.checkStoredOnce(t)
	s.checkAlerts(t)
}

// queryRow scans the one row of the result of sql into the targets.
func queryRow(t *testing.T, store *clickhouse.Store, sql string, targets ...any) {
	t.Helper()
	if _, err := fmt.Fscan(answer(t, store, sql), targets...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// checkStoredOnce checks that the store holds each event once, with its verdicts, and each message with one
// block time.
func (s *scenario) checkStoredOnce(t *testing.T) {
	t.Helper()
	var got storedSum
	var distinct uint64
	var times int64
	queryRow(t, s.store, "SELECT count(), uniqExact(`event.id`), countIf(notEmpty(`verdict.rule`)), sum(`log.offset`),"+
		" uniqExact(_partition, _epoch, _sequence, `event.ingested`) - uniqExact(_partition, _epoch, _sequence) FROM events",
		&got.rows, &distinct, &got.withVerdicts, &got.logOffsets, &times)
	want := s.sumOfMessages(t)
	if got != want || distinct != want.rows || times != 0 {
		t.Errorf("stored are %+v, %d distinct, %d messages with two block times; want %+v", got, distinct, times, want)
	}
}

// A storedSum holds what the rows of the store are in sum.
type storedSum struct{ rows, withVerdicts, logOffsets uint64 }

// sumOfMessages returns the sum of the events in all messages that are processed, each batch once.
func (s *scenario) sumOfMessages(t *testing.T) (sum storedSum) {
	t.Helper()
	for partition := range s.partitions {
		for _, message := range s.distinctBatches(partition) {
			for _, event := range message.batch.Events {
				sum.rows++
				sum.logOffsets += event.Log.Offset
				if strings.HasPrefix(event.Log.Message, "bad ") { // badLineDetector matches it
					sum.withVerdicts++
				}
			}
		}
	}
	if sum.rows != uint64(s.events-s.deleted) {
		t.Fatalf("the topic has %d events, %d were sent and %d deleted", sum.rows, s.events, s.deleted)
	}
	return sum
}

// distinctBatches returns the batches of all messages of a partition that are to be stored, without
// duplicates and without messages that are none.
func (s *scenario) distinctBatches(partition int) (batches []message) {
	seen := newDedupFilter(1000)
	for _, record := range append(slices.Clip(s.earlier[partition]), s.read(pipeline.TopicEvents, partition)...) {
		msg := message{record: consumer.Record{Offset: record.Offset}, batch: &pipeline.Batch{}}
		if msg.batch.UnmarshalVT(record.Value) != nil || len(msg.batch.Events) == 0 {
			continue
		}
		msg.id = pipeline.BatchID{Epoch: msg.batch.Epoch, Sequence: msg.batch.Sequence}
		if seen.accept(msg.id, record.Offset) {
			batches = append(batches, msg)
		}
	}
	return batches
}

// checkAlerts checks that the alerts in the store and on the topic count each verdict once: by group, their number and the times of the first and
// the last one.
func (s *scenario) checkAlerts(t *testing.T) {
	t.Helper()
	want := s.expectedAlerts(t)
	if diff := cmp.Diff(want, sumAlerts(s.storedAlerts(t))); diff != "" {
		t.Errorf("alerts in the store differ from the verdicts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, sumAlerts(s.publishedAlerts(t))); diff != "" {
		t.Errorf("alerts on the topic differ from the verdicts (-want +got):\n%s", diff)
	}
}

// expectedAlerts returns what the alerts of all messages on the topic say in sum, duplicates left out, by group.
func (s *scenario) expectedAlerts(t *testing.T) map[string]string {
	t.Helper()
	sums := alertSums{}
	for partition := range s.partitions {
		for _, message := range s.distinctBatches(partition) {
			for _, e := range message.batch.Events {
				if group, isBad := strings.CutPrefix(e.Log.Message, "bad "); isBad {
					sums.add(group, 1, time.Unix(0, e.Timestamp), time.Unix(0, e.Timestamp))
				}
			}
		}
	}
	return sums.lines()
}

// sumAlerts returns what alerts say in sum, by group. They have one partition for each group.
func sumAlerts(list map[string]pipeline.Alert) map[string]string {
	sums := alertSums{}
	for _, alert := range list {
		sums.add(alert.Group, alert.Count, alert.First, alert.Last)
	}
	return sums.lines()
}

// An alertSum is the sum of alerts of a group.
type alertSum struct {
	count       uint64
	first, last time.Time
}

type alertSums map[string]alertSum

func (s alertSums) add(group string, count uint64, first, last time.Time) {
	sum, ok := s[group]
	if !ok || first.Before(sum.first) {
		sum.first = first
	}
	if last.After(sum.last) {
		sum.last = last
	}
	sum.count += count
	s[group] = sum
}

func (s alertSums) lines() map[string]string {
	out := map[string]string{}
	for group, sum := range s {
		out[group] = fmt.Sprintf("%d from %s to %s", sum.count, sum.first.UTC().Format(time.RFC3339Nano), sum.last.UTC().Format(time.RFC3339Nano))
	}
	return out
}

// storedAlerts returns the newest revision of each alert in the store, by ID.
func (s *scenario) storedAlerts(t *testing.T) map[string]pipeline.Alert {
	t.Helper()
	return s.storedAlertsOf(t, "tidegate.signals")
}

// storedAlertsOf returns the newest revision of each stored alert of a topic, by id.
func (s *scenario) storedAlertsOf(t *testing.T, topic string) map[string]pipeline.Alert {
	t.Helper()
	stored := map[string]pipeline.Alert{}
	for partition := range s.partitions {
		var list []*pipeline.Alert
		waitUntil(t, "an answer of the store", func() (ok bool) {
			var err error
			list, err = s.store.NewestAlerts(t.Context(), pipeline.AlertFilter{
				TopicPartition: pipeline.TopicPartition{Topic: topic, Partition: int32(partition)},
				Lookback:       365 * 24 * time.Hour,
			})
			return err == nil
		})
		for _, alert := range list {
			if len(alert.Tags) == 0 {
				alert.Tags = nil
			}
			if len(alert.Events) == 0 {
				alert.Events = nil
			}
			alert.Ingested = time.Time{} // the grouper of expectedAlerts knows no blocks
			stored[alert.ID] = *alert
		}
	}
	return stored
}

// publishedAlerts returns the newest revision of each alert on the topic, by ID. It checks that a revision
// that was published twice was the same both times.
func (s *scenario) publishedAlerts(t *testing.T) map[string]pipeline.Alert {
	t.Helper()
	published, revisions := map[string]pipeline.Alert{}, map[string]string{}
	for _, message := range s.read(pipeline.TopicAlerts, 0) {
		var alert pipeline.Alert
		if err := json.Unmarshal(message.Value, &alert); err != nil {
			t.Fatal(err)
		}
		revision := alert.ID + "/" + strconv.FormatUint(alert.Revision, 10)
		if before, ok := revisions[revision]; ok && before != string(message.Value) {
			t.Errorf("revision %s was published twice, differently:\n%s\n%s", revision, before, message.Value)
		}
		revisions[revision] = string(message.Value)
		alert.Ingested = time.Time{}
		if alert.Revision >= published[alert.ID].Revision {
			published[alert.ID] = alert
		}
	}
	return published
}

func TestEachEventIsStoredOnceWhenKilledAtEveryFailpoint(t *testing.T) {
	scenario := newScenario(t, "failpoints", newHarness(t, 2, kafka.AssignStatic), 2, kafka.AssignStatic)
	// Two children are killed at each failpoint, at an early passage and at a later one.
	for round, failpoint := range Failpoints {
		for nth := range 2 {
			for partition := range 2 {
				scenario.send(partition, 6, 17)
			}
			child := scenario.childConfig
			child.Failpoint, child.Passage = failpoint, int32(1+nth*(1+round%2))
			if failpoint == BeforeClose {
				child.Passage = 1
			}
			cmd, out := startChild(t, child)
			waitKilled(t, cmd, out)
		}
	}
	scenario.finish(t)
}

func TestEachEventIsStoredOnceWhenKilledAtRandomAmongDuplicates(t *testing.T) {
	scenario := newScenario(t, "random", newHarness(t, 2, kafka.AssignStatic), 2, kafka.AssignStatic)
	rnd := rand.New(rand.NewPCG(1, 2))
	var last [][]byte // the last 20 batches
	for range 8 {
		cmd, out := startChild(t, scenario.childConfig)
		for range 10 {
			partition := rnd.IntN(2)
			data := encode(t, scenario.batch(partition, 1+rnd.IntN(60)))
			scenario.produce(partition, data)
			if last = append(last, data); len(last) > 20 {
				last = last[1:]
			}
			if rnd.IntN(3) == 0 {
				old := last[rnd.IntN(len(last))]
				var batch pipeline.Batch
				if err := batch.UnmarshalVT(old); err != nil {
					t.Fatal(err)
				}
				scenario.produce(int(batch.Partition), old)
			}
			time.Sleep(time.Duration(rnd.IntN(25)) * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		waitKilled(t, cmd, out) // and has not ended by itself before
	}
	scenario.finish(t)
}

func TestClickHouseAnswersTheQueriesOfTheEngine(t *testing.T) {
	harness := newHarness(t, 1, kafka.AssignStatic)
	store := embeddedtest.Store(t, "queries", "http")
	harness.send(0, 4, 10)
	engine, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 20 })
	waitUntil(t, "rows", func() bool { return engine.Ledger().Rows == 40 })
	harness.waitClosed(1, 4)
	stop()

	ctx := context.Background()
	from := pipeline.TopicPartition{Topic: "tidegate.events"}
	newest, ok, err := store.NewestRows(ctx, from, 3)
	if id := (pipeline.BatchID{Collector: testCollector, Epoch: 7, Sequence: 3}); !ok || err != nil ||
		newest.Highest != 3 || newest.LastTime != newest.InLog.BlockTime ||
		!newest.HasInLog || newest.InLog.Offset != 2 || newest.InLog.BatchID != id {
		t.Errorf("newest rows %+v %v %v", newest, ok, err)
	}
	if newest, ok, err := store.NewestRows(ctx, from, 0); !ok || err != nil || newest.Highest != 3 || newest.HasInLog {
		t.Errorf("newest rows behind the end of the log %+v %v %v", newest, ok, err)
	}

	// The engine has stored two blocks, each with its block time.
	var at [2]int64
	var blocks int
	queryRow(t, store, "SELECT uniqExact(`event.ingested`), min(toUnixTimestamp64Nano(`event.ingested`)),"+
		" max(toUnixTimestamp64Nano(`event.ingested`)) FROM events", &blocks, &at[0], &at[1])
	if blocks != 2 {
		t.Fatalf("%d blocks, times %v", blocks, at)
	}
	// The offsets [1,3) are the second half of the first block and the first half of the second one.
	for i, want := range []int{10, 10} {
		block := pipeline.BlockID{TopicPartition: from, Start: 1, End: 3, Time: at[i]}
		if existing, err := store.ExistingRows(ctx, block); len(existing) != want || err != nil {
			t.Errorf("%d rows exist of block %d, %v", len(existing), i, err)
		}
	}

	stored, err := store.StoredBatches(ctx, pipeline.BatchFilter{TopicPartition: from, Before: 3})
	want := pipeline.StoredBatches{
		Producer:       pipeline.Producer{Collector: testCollector, Epoch: 7},
		SequenceWindow: pipeline.SequenceWindow{Highest: 3, Seen: 7},
	}
	if err != nil || len(stored) != 1 || stored[0] != want {
		t.Errorf("stored batches %+v, %v", stored, err)
	}

	// Without the second block, the first two batches are left.
	want.SequenceWindow = pipeline.SequenceWindow{Highest: 2, Seen: 3}
	filter := pipeline.BatchFilter{TopicPartition: from, Before: math.MaxInt64, Except: at[1]}
	if stored, err := store.StoredBatches(ctx, filter); err != nil || len(stored) != 1 || stored[0] != want {
		t.Errorf("stored batches without the second block %+v, %v", stored, err)
	}
	filter = pipeline.BatchFilter{TopicPartition: from, From: 1, Before: math.MaxInt64}
	ranges, err := store.SequenceRanges(ctx, filter)
	wantRanges := []pipeline.SequenceRange{{Producer: want.Producer, First: 2, Last: 4}}
	if err != nil || !slices.Equal(ranges, wantRanges) {
		t.Errorf("ranges %+v, %v", ranges, err)
	}
	if block, err := store.StoredBlock(ctx, from, newest.LastTime); err != nil || newest.LastTime != at[1] ||
		block != (pipeline.StoredBlock{Start: 2, End: 4, HasVerdicts: true, EarlierEnd: 2}) {
		t.Errorf("the last block of %d is %+v, %v", newest.LastTime, block, err)
	}

	// The alerts are of the signals topic. Those of its newest block are left out with it.
	partitions, err := harness.client.Partitions(ctx, "tidegate.signals")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for partition := range partitions {
		filter := pipeline.AlertFilter{TopicPartition: pipeline.TopicPartition{Topic: "tidegate.signals", Partition: int32(partition)}, Lookback: time.Hour}
		all, err := store.NewestAlerts(ctx, filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, alert := range all {
			if alert.Rule != "bad_line" || !strings.HasPrefix(alert.Group, "g") || alert.EventID == "" || alert.ContainerName == "" || alert.Host != "host1" {
				t.Errorf("alert %+v", alert)
			}
			count += int(alert.Count)
		}
		for _, newest := range all {
			filter.Except = pipeline.BlockID{
				TopicPartition: filter.TopicPartition, Start: newest.Offset, End: newest.Offset + 1, Time: newest.Ingested.UnixNano(),
			}
			before, err := store.NewestAlerts(ctx, filter)
			if err != nil || slices.ContainsFunc(before, func(alert *pipeline.Alert) bool { return alert.Ingested.Equal(newest.Ingested) }) {
				t.Errorf("alerts without the block of %s: %v, %v", newest.Ingested, before, err)
			}
		}
	}
	var verdicts int
	if queryRow(t, store, "SELECT count() FROM events WHERE notEmpty(`verdict.rule`)", &verdicts); verdicts == 0 || count != verdicts {
		t.Errorf("alerts of %d matches, %d events with verdicts", count, verdicts)
	}
}
