package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// The stream is compared with a batch oracle (oracle_naive_test.go): the engine must raise the alerts of testdata/oracle/alerts.golden,
// whatever way the events take. The engines have a clock that the test moves on, so that nothing depends on how fast the machine is: an event
// is late by that clock, or it is not.

const (
	oracleRules  = "testdata/oracle/rules/rules.yaml"
	oracleGolden = "testdata/oracle/alerts.golden"
	// oracleSpan is the time of the events.
	oracleSpan = 200 * time.Second
	// oracleTail is the time after it in which every window ends. It is less than stalledAfter.
	oracleTail = 45 * time.Second
	// oracleTick is the time by which the clock moves on.
	oracleTick = 250 * time.Millisecond
)

// An oracleClock is the clock of engines, in memory that processes share through a file.
type oracleClock struct{ ns *int64 }

func openOracleClock(path string) (oracleClock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return oracleClock{}, err
	}
	defer file.Close()
	if err := file.Truncate(8); err != nil {
		return oracleClock{}, err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return oracleClock{}, err
	}
	return oracleClock{(*int64)(unsafe.Pointer(&data[0]))}, nil //nolint:gosec // 8 bytes at the begin of a page
}

func (c oracleClock) Now() time.Time { return time.Unix(0, atomic.LoadInt64(c.ns)) }
func (c oracleClock) set(ns int64)   { atomic.StoreInt64(c.ns, ns) }

// oracleBundle returns the rules. Those of two numbers differ in a rule that finds nothing, and in a title.
func oracleBundle(number int) (*pipeline.Bundle, error) {
	text, err := os.ReadFile(oracleRules)
	if err != nil {
		return nil, err
	}
	text = bytes.Replace(text, []byte("title: Failed logins"), fmt.Appendf(nil, "title: Failed logins %d", number), 1)
	other := fmt.Appendf(nil, "- {id: other, title: Other, severity: low, when: url.path == \"/none/%d\", count: 3, within: 1m}\n", number)
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "rules.yaml", Data: text}, {Name: "other.yaml", Data: other}}, nil, nil)
	if err != nil {
		return nil, err
	}
	return &pipeline.Bundle{Version: strconv.Itoa(number), Detectors: []pipeline.Detector{set}, Policies: set.Policies()}, nil
}

// An oracleChild configures a child whose clock and rules are those of the oracle.
type oracleChild struct {
	Clock  string
	Reload time.Duration // the time between two reloads; 0: none
}

// apply sets what an engine needs. It does nothing without a configuration.
func (o *oracleChild) apply(ctx context.Context, deps *Deps) error {
	if o == nil {
		return nil
	}
	clock, err := openOracleClock(o.Clock)
	if err != nil {
		return err
	}
	var bundle atomic.Pointer[pipeline.Bundle]
	first, err := oracleBundle(0)
	if err != nil {
		return err
	}
	bundle.Store(first)
	deps.Now, deps.Bundle = clock.Now, bundle.Load
	if o.Reload > 0 {
		go func() {
			for number := 1; ctx.Err() == nil; number++ {
				time.Sleep(o.Reload)
				next, err := oracleBundle(number)
				if err != nil {
					panic(err)
				}
				bundle.Store(next)
			}
		}()
	}
	return nil
}

// An oracleShipment is an event with its way.
type oracleShipment struct {
	at        int64 // when it is shipped, ns since the begin of the test
	collector int
	event     *pipeline.Event
}

var oracleContainers = []string{"web-1", "web-2", "shop-1"}

// oracleEvents returns the events of the test with times since 0, each with its container as collector. No two end at the same time.
func oracleEvents() (out []oracleShipment) {
	random := rand.New(rand.NewPCG(15, 18))
	add := func(at time.Duration, source, container int, path string, change func(e *pipeline.Event)) {
		number := len(out)
		e := &pipeline.Event{
			Id: make([]byte, 16), Dataset: pipeline.Dataset_HTTP, Timestamp: int64(at)/1000*1000 + int64(number%997),
			ContainerIndex: 1, Transport: pipeline.Transport_TCP,
			Source:      &pipeline.Endpoint{Ip: netip.AddrFrom4([4]byte{10, 0, 0, byte(source)}).AsSlice(), Port: 4711},
			Destination: &pipeline.Endpoint{Ip: netip.AddrFrom4([4]byte{10, 0, 1, byte(container + 1)}).AsSlice(), Port: 80, ContainerIndex: 1},
			Http:        &pipeline.HTTPExchange{Version: "1.1", Method: "GET", UrlPath: path, StatusCode: 200},
		}
		binary.BigEndian.PutUint64(e.Id[8:], uint64(number)+1)
		if random.IntN(4) == 0 {
			e.Duration = uint64(random.IntN(1_500_000)) * 1000
		}
		if change != nil {
			change(e)
		}
		out = append(out, oracleShipment{collector: container, event: e})
	}
	failed := func(e *pipeline.Event) { e.Http.StatusCode = 401 }
	kinds := []struct {
		weight int
		path   string
		change func(e *pipeline.Event)
	}{
		{20, "/scan", func(e *pipeline.Event) { e.Destination.Port = uint32(1 + random.IntN(12)) }},
		{8, "/attack", nil},
		{8, "/callback", func(e *pipeline.Event) {
			e.Source.Ip, e.Destination.Ip = e.Destination.Ip, e.Source.Ip
		}},
		{2, "/restart", nil},
		{8, "/login", failed},
		{12, "/login", func(e *pipeline.Event) { e.Http.UserName = fmt.Sprint("user-", random.IntN(9)*random.IntN(9)) }},
		{6, "/token", nil},
		{14, "/order", nil},
		{10, "/upload", func(e *pipeline.Event) { e.Source.Bytes = uint64(500 + random.IntN(9000)) }},
		{10, "/probe", nil},
		{6, "/job/begin", nil},
		{6, "/job/end", nil},
		{20, "/", nil},
	}
	weights := 0
	for _, kind := range kinds {
		weights += kind.weight
	}
	for source := 1; source <= 6; source++ {
		for at := time.Duration(0); at < oracleSpan; at += time.Duration(50+random.IntN(850)) * time.Millisecond {
			draw := random.IntN(weights)
			for _, kind := range kinds {
				if draw -= kind.weight; draw < 0 {
					add(at, source, random.IntN(3), kind.path, kind.change)
					break
				}
			}
		}
		for range 5 { // failed logins in a burst
			at := time.Duration(random.IntN(int(oracleSpan - 5*time.Second)))
			for range 4 + random.IntN(6) {
				at += time.Duration(random.IntN(900)) * time.Millisecond
				add(at, source, random.IntN(3), "/login", failed)
			}
		}
		spread := 0.05 * float64(source*source) // the first are regular, the last are not
		for at := time.Duration(source) * time.Second; at < oracleSpan; {
			add(at, source, 0, "/beat", func(e *pipeline.Event) { e.Duration = 0 })
			if random.IntN(4) == 0 {
				add(at+200*time.Millisecond, source, 0, "/beat", func(e *pipeline.Event) { e.Duration = 0 })
			}
			at += time.Duration(float64(4*time.Second) * (1 + spread*(random.Float64()-0.5)))
		}
	}
	ends := map[int64]bool{}
	for _, s := range out {
		for ends[s.event.End()] {
			s.event.Timestamp++
		}
		ends[s.event.End()] = true
	}
	return out
}

// oracleRows returns the events of the workload as the oracle reads them, with times since 0.
func oracleRows(shipments []oracleShipment) (rows []*oracleEvent) {
	for _, s := range shipments {
		e := s.event
		values := map[string]string{
			"url.path": e.Http.UrlPath, "http.response.status_code": strconv.Itoa(int(e.Http.StatusCode)),
			"source.ip": addressText(e.Source), "destination.ip": addressText(e.Destination),
			"destination.port": strconv.Itoa(int(e.Destination.Port)), "container.id": oracleContainers[s.collector],
		}
		if e.Source.Bytes > 0 {
			values["source.bytes"] = strconv.FormatUint(e.Source.Bytes, 10)
		}
		if e.Http.UserName != "" {
			values["user.name"] = e.Http.UserName
		}
		rows = append(rows, &oracleEvent{values, e.Timestamp, e.End()})
	}
	return rows
}

func addressText(endpoint *pipeline.Endpoint) string {
	addr, _ := netip.AddrFromSlice(endpoint.Ip)
	return addr.String()
}

// TestOracleAlerts: the oracle finds the alerts of the golden file, of every rule. GOLDEN=1 writes it.
func TestOracleAlerts(t *testing.T) {
	list := readOracleRules(t, oracleRules)
	lines := oracleAlerts(list, oracleRows(oracleEvents()), 0)
	text := strings.Join(lines, "\n") + "\n"
	if os.Getenv("GOLDEN") != "" {
		if err := os.WriteFile(oracleGolden, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if golden := readOracleGolden(t); !slices.Equal(golden, lines) {
		t.Errorf("the oracle finds\n%s", text)
	}
	counts := map[string]int{}
	for _, line := range lines {
		rule, _, _ := strings.Cut(line, " ")
		counts[rule]++
	}
	for _, r := range list {
		if counts[r.ID] == 0 {
			t.Errorf("no alert of %s", r.ID)
		}
	}
}

func readOracleGolden(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile(oracleGolden)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// An oracleWay says how the events come to the engines.
type oracleWay struct {
	partitions int
	shuffled   bool // events come up to 2 s after their end, in any order
	skewed     bool // the clocks of the collectors differ: by 1.2 s, 0 and -0.9 s

	// pace is the time after which the test waits for the engines; 0: 5 s. They must not be so far behind that their partitions count as stalled.
	pace time.Duration
}

// An oracleRun sends the events on a way.
type oracleRun struct {
	*harness
	t     *testing.T
	way   oracleWay
	clock oracleClock
	path  string // of the clock
	base  int64  // begin of the events, ns since 1970

	shipments []oracleShipment // ordered by at
	began     time.Time
}

func newOracleRun(t *testing.T, h *harness, way oracleWay) *oracleRun {
	t.Helper()
	way.pace = cmp.Or(way.pace, 5*time.Second)
	run := &oracleRun{harness: h, t: t, way: way, path: filepath.Join(t.TempDir(), "clock"), shipments: oracleEvents()}
	var err error
	if run.clock, err = openOracleClock(run.path); err != nil {
		t.Fatal(err)
	}
	// A multiple of the length of every window, some time ago: a broker must not delete what is older than its retention.
	run.base = time.Now().Add(-time.Hour).Truncate(time.Hour).UnixNano()
	run.clock.set(run.base - int64(10*time.Second))
	random := rand.New(rand.NewPCG(uint64(way.partitions), 3))
	for i := range run.shipments {
		s := &run.shipments[i]
		delay := time.Duration(10+random.IntN(20)) * time.Millisecond
		if way.shuffled {
			delay = time.Duration(10+random.IntN(2000)) * time.Millisecond
		}
		if way.skewed {
			delay = time.Duration(900+random.IntN(200))*time.Millisecond - run.skew(s.collector)
		}
		s.at = s.event.End() + int64(delay)
		s.event.Timestamp += run.base
	}
	slices.SortStableFunc(run.shipments, func(a, b oracleShipment) int { return cmp.Compare(a.at, b.at) })
	return run
}

// skew returns how far the clock of a collector is ahead.
func (r *oracleRun) skew(collector int) time.Duration {
	if !r.way.skewed {
		return 0
	}
	return []time.Duration{-1200 * time.Millisecond, 0, 900 * time.Millisecond}[collector]
}

// waitTold waits until every partition of the events topic has told every partition of the signals topic that it has come as far as at.
// The clock moves on meanwhile, since an idle engine tells nothing twice within a second.
func (r *oracleRun) waitTold(at int64) {
	r.t.Helper()
	waitUntil(r.t, "watermarks", func() bool {
		for partition := range r.way.partitions {
			told := map[int32]bool{}
			for _, message := range r.read(pipeline.TopicSignals, partition) {
				block := &pipeline.SignalBlock{}
				if err := block.UnmarshalVT(message.Value); err != nil {
					r.t.Fatal(err)
				}
				told[block.Partition] = told[block.Partition] || block.Watermark >= at
			}
			if len(told) < r.way.partitions || slices.Contains(slices.Collect(maps.Values(told)), false) {
				r.clock.set(r.clock.Now().UnixNano() + int64(oracleTick))
				time.Sleep(100 * time.Millisecond)
				return false
			}
		}
		return true
	})
}

// send produces what is shipped after the time from, up to the time to: a message for each partition and collector.
func (r *oracleRun) send(from, to int64, random *rand.Rand) {
	r.t.Helper()
	type key struct{ partition, collector int }
	batches, latest := map[key]*pipeline.Batch{}, map[key]int64{}
	var order []key
	first, _ := slices.BinarySearchFunc(r.shipments, from+1, func(s oracleShipment, at int64) int { return cmp.Compare(s.at, at) })
	for _, s := range r.shipments[first:] {
		if s.at > to {
			break
		}
		k := key{random.IntN(r.way.partitions), s.collector}
		batch := batches[k]
		if batch == nil {
			r.sequences[100*k.partition+k.collector]++
			collector := slices.Clone(testCollector[:])
			collector[0] = byte(k.collector)
			batch = &pipeline.Batch{
				Schema: 1, Collector: collector, Epoch: r.epoch, Partition: uint32(k.partition), Sequence: r.sequences[100*k.partition+k.collector],
				Host:       &pipeline.Host{Name: fmt.Sprint("host", k.collector), Id: fmt.Sprint("h", k.collector), Cluster: "test"},
				Containers: []*pipeline.Container{{Id: oracleContainers[k.collector], Name: oracleContainers[k.collector], Image: "web:1"}},
			}
			batches[k] = batch
			order = append(order, k)
		}
		batch.Events = append(batch.Events, s.event)
		latest[k] = s.at
	}
	// The messages of a partition are in the order of their times.
	slices.SortStableFunc(order, func(a, b key) int { return cmp.Compare(latest[a], latest[b]) })
	for _, k := range order {
		at := r.base + latest[k] + int64(r.skew(k.collector))
		batches[k].Shipped, r.produceAt = at, time.Unix(0, at)
		r.produce(k.partition, encode(r.t, batches[k]))
		r.events += len(batches[k].Events)
	}
}

// play sends all events while the clock moves on, and calls each at every pace. Then it lets every window end.
func (r *oracleRun) play(each func()) {
	r.t.Helper()
	r.waitTold(1)
	if now := r.clock.Now().UnixNano(); now > r.base {
		r.t.Fatalf("the clock is %d ns behind the begin", now-r.base)
	}
	r.began = time.Now()
	random := rand.New(rand.NewPCG(4, uint64(r.way.partitions)))
	var ends []int64
	for at := int64(0); at < int64(oracleSpan+oracleTail); at += int64(oracleTick) {
		r.clock.set(r.base + at + int64(oracleTick))
		r.send(at, at+int64(oracleTick), random)
		if (at+int64(oracleTick))%int64(r.way.pace) == 0 && at < int64(oracleSpan) {
			each()
			ends = r.waitStored(ends)
		}
	}
	r.finish()
}

// waitStored waits until the blocks before some offsets are stored, and returns the offsets that end the partitions now.
func (r *oracleRun) waitStored(ends []int64) (now []int64) {
	r.t.Helper()
	for partition := range r.way.partitions {
		_, end := r.bounds(pipeline.TopicEvents, partition)
		now = append(now, end)
		if ends != nil && ends[partition] > 0 {
			waitUntil(r.t, "an offset", func() bool {
				offset, _ := r.committed(partition)
				return offset >= ends[partition]
			})
		}
	}
	return now
}

// finish waits until everything is evaluated.
func (r *oracleRun) finish() {
	r.t.Helper()
	r.waitTold(r.base + int64(oracleSpan+oracleTail-lateness-2*time.Second))
	waitUntil(r.t, "folded signals", r.areFolded)
	if r.events != len(r.shipments) {
		r.t.Fatalf("%d of %d events were sent", r.events, len(r.shipments))
	}
	took := time.Since(r.began)
	r.t.Logf("%d events of %s in %s: %.0f times as fast", r.events, oracleSpan, took.Round(time.Millisecond), oracleSpan.Seconds()/took.Seconds())
}

// compare compares alerts with the golden file.
func (r *oracleRun) compare(where string, alerts map[string]pipeline.Alert) {
	r.t.Helper()
	plain := map[[2]string]oracleMatch{}
	var got []string
	for _, alert := range alerts {
		m := oracleMatch{count: int64(alert.Count), first: alert.First.UnixNano() - r.base, last: alert.Last.UnixNano() - r.base}
		if strings.Contains(alert.Evidence, "late") {
			r.t.Errorf("%s: %s %s: %s", where, alert.Rule, alert.Group, alert.Evidence)
		}
		if alert.Rule == "probe" { // where a long run is cut into alerts depends on the order of arrival
			key := [2]string{alert.Rule, alert.Group}
			if sum, ok := plain[key]; ok {
				m = sumMatches([]oracleMatch{sum, m})[0]
			}
			plain[key] = m
			continue
		}
		got = append(got, oracleLine(alert.Rule, alert.Group, m.count, m.first, m.last))
	}
	for key, m := range plain {
		got = append(got, oracleLine(key[0], key[1], m.count, m.first, m.last))
	}
	slices.Sort(got)
	want := readOracleGolden(r.t)
	r.compareLines(where, want, got)
}

func (r *oracleRun) compareLines(where string, want, got []string) {
	r.t.Helper()
	agree := 0
	for _, line := range want {
		if slices.Contains(got, line) {
			agree++
		} else {
			r.t.Errorf("%s, missing: %s", where, line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			r.t.Errorf("%s, too many: %s", where, line)
		}
	}
	r.t.Logf("%s: %d of %d alerts agree", where, agree, len(want))
}

// newestAlerts returns the newest revision of each alert of a store, by id.
func newestAlerts(store *fakeStore) map[string]pipeline.Alert {
	store.mu.Lock()
	defer store.mu.Unlock()
	newest := map[string]pipeline.Alert{}
	for _, alert := range store.alerts {
		if alert.Revision > newest[alert.ID].Revision {
			newest[alert.ID] = alert
		}
	}
	return newest
}

// oracleEngines runs engines in this process.
type oracleEngines struct {
	run    *oracleRun
	store  *fakeStore
	bundle atomic.Pointer[pipeline.Bundle]
	loads  int
	stops  []func()
}

func newOracleEngines(run *oracleRun, count int) *oracleEngines {
	run.t.Helper()
	e := &oracleEngines{run: run, store: newFakeStore()}
	e.reload()
	for range count {
		e.start()
	}
	return e
}

func (e *oracleEngines) reload() {
	e.run.t.Helper()
	bundle, err := oracleBundle(e.loads)
	if err != nil {
		e.run.t.Fatal(err)
	}
	e.bundle.Store(bundle)
	e.loads++
}

func (e *oracleEngines) start() {
	e.run.t.Helper()
	_, stop := e.run.start(e.store, nil, func(c *Config, deps *Deps) {
		c.BlockRows = 50
		deps.Now, deps.Bundle, deps.seenInterval = e.run.clock.Now, e.bundle.Load, time.Second
	})
	e.stops = append(e.stops, stop)
}

func (e *oracleEngines) stopFirst() {
	e.stops[0]()
	e.stops = e.stops[1:]
}

// check compares the alerts, and checks that each event is stored once.
func (e *oracleEngines) check() {
	e.run.t.Helper()
	ids := map[string]int{}
	for _, row := range e.store.snapshot() {
		ids[row.id]++
	}
	if len(ids) != len(e.run.shipments) || e.store.count() != len(ids) {
		e.run.t.Errorf("%d rows of %d events, want %d", e.store.count(), len(ids), len(e.run.shipments))
	}
	e.run.compare("alerts", newestAlerts(e.store))
}

// TestStreamAgreesWithTheOracle: the events of a topic in the order in which they ended, with one partition and with twelve.
func TestStreamAgreesWithTheOracle(t *testing.T) {
	for _, partitions := range []int{1, 12} {
		if testing.Short() && partitions > 1 {
			continue
		}
		t.Run(fmt.Sprint(partitions, " partitions"), func(t *testing.T) {
			run := newOracleRun(t, newHarness(t, partitions, kafka.AssignStatic), oracleWay{partitions: partitions})
			engines := newOracleEngines(run, 1)
			run.play(func() {})
			engines.check()
		})
	}
}

// TestStreamOfSeveralEnginesAgreesWithTheOracle: three engines share twelve partitions, one after the other leaves and joins, rules are
// loaded again all the time, and the events come in any order from collectors whose clocks differ.
func TestStreamOfSeveralEnginesAgreesWithTheOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("three engines take half a minute")
	}
	for _, way := range []oracleWay{{partitions: 12, shuffled: true}, {partitions: 12, skewed: true}} {
		t.Run(fmt.Sprintf("%+v", way), func(t *testing.T) {
			run := newOracleRun(t, newHarness(t, way.partitions, kafka.AssignGroup), way)
			engines := newOracleEngines(run, 3)
			round := 0
			run.play(func() {
				engines.reload()
				if round++; round == 15 {
					engines.stopFirst()
					engines.start()
				}
			})
			engines.check()
			t.Logf("%d reloads", engines.loads)
		})
	}
}

// An oracleChildren runs engines in processes of their own, on ClickHouse.
type oracleChildren struct {
	*scenario
	run      *oracleRun
	children []*exec.Cmd
	outputs  []*childOutput
	kills    int
}

func newOracleChildren(t *testing.T, database string, h *harness, assign string, way oracleWay, count int) *oracleChildren {
	t.Helper()
	run := newOracleRun(t, h, way)
	c := &oracleChildren{scenario: newScenario(t, database, h, way.partitions, assign), run: run}
	c.childConfig.Oracle = &oracleChild{Clock: run.path, Reload: 2 * time.Second}
	if os.Getenv(oracleLong) != "" {
		c.childConfig.Oracle.Reload = 300 * time.Millisecond
	}
	for range count {
		c.start()
	}
	return c
}

func (c *oracleChildren) start() {
	cmd, out := startChild(c.run.t, c.childConfig)
	c.children, c.outputs = append(c.children, cmd), append(c.outputs, out)
}

// kill kills the engine that has run for the longest time, and starts another one.
func (c *oracleChildren) kill() {
	_ = c.children[0].Process.Kill()
	waitKilled(c.run.t, c.children[0], c.outputs[0])
	c.children, c.outputs = c.children[1:], c.outputs[1:]
	c.kills++
	c.start()
}

// check compares the alerts in the store and on the topic, and what the oracle makes of the stored events.
func (c *oracleChildren) check() {
	t := c.run.t
	t.Helper()
	out := answer(t, c.store, "SELECT toUnixTimestamp64Nano(`@timestamp`), `event.duration`, `url.path`, `http.response.status_code`, `source.ip`,"+
		" `source.bytes`, `destination.ip`, `destination.port`, `user.name`, `container.id` FROM events")
	names := []string{
		"", "", "url.path", "http.response.status_code", "source.ip", "source.bytes", "destination.ip", "destination.port", "user.name", "container.id",
	}
	var stored []*oracleEvent
	for line := range strings.Lines(out.String()) {
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		e := &oracleEvent{values: map[string]string{}}
		e.start, _ = strconv.ParseInt(columns[0], 10, 64)
		duration, _ := strconv.ParseInt(columns[1], 10, 64)
		e.end = e.start + duration
		for i, name := range names {
			if name != "" && columns[i] != "" && columns[i] != "0" {
				e.values[name] = columns[i]
			}
		}
		stored = append(stored, e)
	}
	if len(stored) != len(c.run.shipments) {
		t.Errorf("%d events are stored, want %d", len(stored), len(c.run.shipments))
	}
	c.run.compareLines("the oracle over the stored events", readOracleGolden(t), oracleAlerts(readOracleRules(t, oracleRules), stored, c.run.base))
	c.run.compare("in the store", c.storedAlerts(t))
	c.run.compare("on the topic", c.publishedAlerts(t))
	t.Logf("%d kills", c.kills)
}

// oracleLong is the environment variable with the number of kills in the long form:
//
//	TIDEGATE_ORACLE=60 go test -timeout 60m -run 'Oracle(WhenKilled)?$' -v ./pipeline/engine
const oracleLong = "TIDEGATE_ORACLE"

func oracleKills(short int) int {
	if n, err := strconv.Atoi(os.Getenv(oracleLong)); err == nil {
		return n
	}
	return short
}

// killWhilePlaying plays the events, and kills an engine so often at random places.
func (c *oracleChildren) killWhilePlaying(kills int) {
	random := rand.New(rand.NewPCG(8, 9))
	round, rounds := 0, int(oracleSpan/c.run.way.pace)
	c.run.play(func() {
		for round++; c.kills < (kills*round+rounds/2)/rounds; { // one kill is in the middle
			time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond) // where it is killed is random
			c.kill()
		}
	})
}

// TestStreamAgreesWithTheOracleWhenKilled: the engine is killed at random places, while rules are loaded again.
func TestStreamAgreesWithTheOracleWhenKilled(t *testing.T) {
	c := newOracleChildren(t, "oracle_kills", newHarness(t, 3, kafka.AssignStatic), kafka.AssignStatic, oracleWay{partitions: 3, skewed: true}, 1)
	c.killWhilePlaying(oracleKills(8))
	c.check()
}

// TestGroupOfProcessesAgreesWithTheOracle: three processes are a consumer group of Apache Kafka. They are killed one after the other, and others take
// their partitions.
func TestGroupOfProcessesAgreesWithTheOracle(t *testing.T) {
	way := oracleWay{partitions: 3, shuffled: true, pace: 20 * time.Second} // in short, since a real broker takes its time
	c := newOracleChildren(t, "oracle_group", harnessAt(t, apacheKafka(t), way.partitions, kafka.AssignGroup), kafka.AssignGroup, way, 3)
	c.killWhilePlaying(oracleKills(10) / 10)
	c.check()
}

// TestBacklogAgreesWithTheOracle: everything that came while no engine ran, for longer than a partition is waited for, is evaluated as if it came now.
func TestBacklogAgreesWithTheOracle(t *testing.T) {
	run := newOracleRun(t, newHarness(t, 3, kafka.AssignStatic), oracleWay{partitions: 3, shuffled: true})
	engines := newOracleEngines(run, 1)
	run.waitTold(1)
	engines.stopFirst()
	run.began = time.Now()
	random := rand.New(rand.NewPCG(4, 5))
	for at := int64(0); at < int64(oracleSpan+oracleTail); at += int64(oracleTick) {
		run.send(at, at+int64(oracleTick), random)
	}
	run.clock.set(run.base + int64(oracleSpan+oracleTail))
	engines.start()
	run.finish()
	engines.check()
}
