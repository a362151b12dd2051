package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
)

// statefulRules returns count rules over several events, of all kinds. Rule i selects requests of the path /signal/i, a sequence also those of
// the next one.
func statefulRules(count int) string {
	var out strings.Builder
	out.WriteString("rules:\n")
	for i := range count {
		when := fmt.Sprintf(`when: url.path == "/signal/%d"`, i)
		fmt.Fprintf(&out, "  - id: stateful-%03d\n    title: Made up\n    severity: low\n    group: [source.ip]\n", i)
		switch i % 7 {
		case 0:
			fmt.Fprintf(&out, "    %s\n    count: 5\n    within: 1m\n", when)
		case 1:
			fmt.Fprintf(&out, "    %s\n    distinct: {field: source.port, count: 10}\n    within: 1m\n", when)
		case 2:
			fmt.Fprintf(&out, "    %s\n    sum: {field: destination.bytes, total: 10MiB}\n    within: 5m\n", when)
		case 3:
			fmt.Fprintf(&out, "    sequence:\n      - %s\n      - when: url.path == \"/signal/%d\"\n    within: 1m\n", when, (i+1)%count)
		case 4:
			fmt.Fprintf(&out, "    %s\n    absent: {when: url.path == \"/signal/%d\"}\n    within: 1m\n", when, (i+1)%count)
		case 5:
			fmt.Fprintf(&out, "    %s\n    first_seen: {fields: [destination.ip], baseline: 1d}\n", when)
		case 6:
			fmt.Fprintf(&out, "    %s\n    interval: {min: 10s}\n", when)
		}
	}
	return out.String()
}

// statefulBundle returns the rules of statefulRules.
func statefulBundle(count int) (*pipeline.Bundle, error) {
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "stateful.yaml", Data: []byte(statefulRules(count))}}, nil, nil)
	if err != nil {
		return nil, err
	}
	return &pipeline.Bundle{Version: "stateful", Detectors: []pipeline.Detector{set}, Policies: set.Policies()}, nil
}

// signalEvents returns mixed events of which a share of percent are selected by one of count rules of statefulRules.
func signalEvents(events, count, percent int) []*pipeline.Event {
	list := mixedEvents(events)
	signals := 0
	for i, event := range list {
		if event.Http != nil && signals*100 < percent*(i+1) {
			event.Http.UrlPath = fmt.Sprintf("/signal/%d", signals%count)
			signals++
		}
	}
	return list
}

// statefulEngine measures rules over several events from end to end, and returns the events for each second of processor time: events from Kafka,
// signals through Kafka, alerts; the rows become columns, which are discarded.
func (o *options) statefulEngine(ctx context.Context) (best float64, err error) {
	const count, percent = 100, 5
	broker, err := startBroker()
	if err != nil {
		return 0, err
	}
	defer func() { _ = broker.close() }()
	client, err := broker.client(ctx)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	events := o.amountOr(400) * 1000
	encoded, err := encodeBatches(signalEvents(events, count, percent), 1000)
	if err != nil {
		return 0, err
	}
	if err := produceBatches(ctx, client, encoded); err != nil {
		return 0, err
	}
	bundle, err := statefulBundle(count)
	if err != nil {
		return 0, err
	}
	for run := range o.runs {
		cfg := engine.Default()
		cfg.Group = fmt.Sprintf("stateful-%d", run)
		deps := engine.Deps{Kafka: client, Store: columnStore{}, Bundle: func() *pipeline.Bundle { return bundle }}
		cost, _, err := o.runEngineUntil(ctx, cfg, deps, func(e *engine.Engine) bool {
			return e.Ledger().Rows >= uint64(events) && isFolded(ctx, client, cfg.Group+engine.SignalsGroupSuffix)
		})
		if err != nil {
			return 0, err
		}
		report(o.out, "Engine/store=columns/rules=stateful+100", "events", events, cost)
		best = max(best, float64(events)/cost.self.Seconds())
	}
	return best, nil
}

// isFolded reports whether a consumer group has committed the ends of all partitions of the signals topic, but for the last watermarks.
func isFolded(ctx context.Context, client *kafka.Client, group string) bool {
	topic := client.Topic(pipeline.TopicSignals)
	partitions, err := client.Partitions(ctx, topic)
	if err != nil {
		return false
	}
	for partition := range partitions {
		ends, err := client.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{
			Topics: map[string][]kafkago.OffsetRequest{topic: {kafkago.LastOffsetOf(partition)}},
		})
		if err != nil || len(ends.Topics[topic]) == 0 {
			return false
		}
		committed, err := client.Kafka().OffsetFetch(ctx, &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {partition}}})
		if err != nil || len(committed.Topics[topic]) == 0 {
			return false
		}
		const watermarks = 10
		if end := ends.Topics[topic][0].LastOffset; end == 0 || committed.Topics[topic][0].CommittedOffset < end-watermarks {
			return false
		}
	}
	return true
}

// A foldRule returns a rule of the fold for signals of one step.
func foldRule(kind correlate.Kind, id string) *correlate.Rule {
	r := &correlate.Rule{ID: id, Version: "1", Kind: kind, Within: time.Hour, Min: 1 << 40, Max: correlate.NoMax, Steps: []correlate.Step{{}}}
	switch kind {
	case correlate.Distinct:
		r.Min = 1000
	case correlate.Sequence:
		r.Ordered, r.Steps = true, []correlate.Step{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	case correlate.Absent:
		r.Steps = []correlate.Step{{Name: "a"}, {Name: "b"}}
	case correlate.Interval:
		r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = 8, time.Second, time.Minute, 0.2
	case correlate.FirstSeen:
		r.Baseline, r.ExpireAfter = time.Hour, 24*time.Hour
	case correlate.Count, correlate.Sum:
	}
	return r
}

var foldKinds = []struct {
	name string
	kind correlate.Kind
}{
	{"count", correlate.Count},
	{"distinct", correlate.Distinct},
	{"sum", correlate.Sum},
	{"sequence", correlate.Sequence},
	{"absent", correlate.Absent},
	{"first_seen", correlate.FirstSeen},
	{"interval", correlate.Interval},
}

// flood returns the processor time of a signal, ns, in a group of one rule that gets count of them within a minute.
func flood(kind correlate.Kind, count int) float64 {
	fold := correlate.New([]*correlate.Rule{foldRule(kind, "r")}, correlate.DefaultLimits)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	began := readMeter()
	for i := range count {
		at := begin + int64(i)*int64(time.Minute)/int64(count)
		s := correlate.Signal{Rule: "r", Version: "1", Group: "g", Start: at, End: at, Value: int64(i % 2000), Index: uint32(i)}
		s.Event[0], s.Event[1], s.Event[2] = byte(i), byte(i>>8), byte(i>>16)
		fold.Add(s)
		if i%1000 == 999 {
			fold.Advance(at)
		}
	}
	fold.Advance(begin + int64(time.Minute))
	return float64(began.since().self) / float64(count)
}

// openGroups opens a million groups of four kinds of rules, as the signals of requests open them.
func openGroups() (keep any) {
	const count = 1_000_000
	var list []*correlate.Rule
	for _, kind := range foldKinds[:5] {
		list = append(list, foldRule(kind.kind, kind.name))
	}
	limits := correlate.DefaultLimits
	fold := correlate.New(list, limits)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for i := range count {
		at := begin + int64(i)
		s := correlate.Signal{
			Rule: foldKinds[i%5].name, Version: "1", Group: fmt.Sprintf("source.ip=10.%d.%d.%d", i>>16, i>>8&255, i&255), Start: at, End: at,
			Origin: correlate.Origin{Text: fmt.Sprintf("10.%d.%d.%d asks for /login", i>>16, i>>8&255, i&255)},
		}
		s.Event[0], s.Event[1], s.Event[2] = byte(i), byte(i>>8), byte(i>>16)
		fold.Add(s)
		if i%1000 == 999 {
			fold.Advance(at)
		}
	}
	fold.Advance(begin + count)
	if fold.Groups() != count {
		panic(fmt.Sprintf("%d groups are open", fold.Groups()))
	}
	return fold
}

// seenValues remembers ten million values of a rule of first_seen.
func seenValues() (keep any) {
	const groups, values = 1000, 10_000
	r := foldRule(correlate.FirstSeen, "r")
	fold := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for group := range uint64(groups) {
		fold.RestoreSeen(r, pipeline.SeenValue{Group: group, First: begin, Last: begin})
		for value := range int64(values) {
			fold.RestoreSeen(r, pipeline.SeenValue{Group: group, Value: value, Last: begin})
		}
	}
	if fold.Values() != groups*values {
		panic(fmt.Sprintf("%d values", fold.Values()))
	}
	return fold
}

// stateCommand is the hidden command that prints the memory of a process which holds a state: the resident bytes when the garbage is
// collected, and the most that it had.
const stateCommand = "state"

func (o *options) state(args []string) error {
	build := map[string]func() any{"groups": openGroups, "seen": seenValues}[strings.Join(args, " ")]
	if build == nil {
		return errors.New("state: groups or seen")
	}
	keep := build()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	sizes := map[string]float64{}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "kB" {
			kilobytes, _ := strconv.ParseFloat(fields[1], 64)
			sizes[fields[0]] = kilobytes * 1024 / 1e6
		}
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Fprintf(o.out, "BenchmarkState/%s\t1\t%.0f heap-MB\t%.0f resident-MB\t%.0f most-MB\n",
		args[0], float64(stats.HeapAlloc)/1e6, sizes["VmRSS:"], sizes["VmHWM:"])
	runtime.KeepAlive(keep)
	return nil
}
