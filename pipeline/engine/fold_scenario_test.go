package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// lineCorrelator is badLineDetector with rules over several events. The lines are "bad <group>" and "good <group>",
// some with a value behind it: "bad g1 #7".
type lineCorrelator struct{ badLineDetector }

var lineRules = []*correlate.Rule{
	{ID: "burst", Version: "1", Kind: correlate.Count, Within: 2 * time.Second, Min: 5, Max: correlate.NoMax, Steps: []correlate.Step{{}}},
	{ID: "few", Version: "1", Kind: correlate.Count, Within: time.Second, Min: 1, Max: 9, Steps: []correlate.Step{{}}},
	{
		ID: "then", Version: "1", Kind: correlate.Sequence, Within: time.Second, Ordered: true,
		Steps: []correlate.Step{{Name: "bad"}, {Name: "good"}},
	},
	{ID: "new", Version: "1", Kind: correlate.FirstSeen, Baseline: 2 * time.Second, ExpireAfter: time.Hour, Steps: []correlate.Step{{}}},
	{ID: "alone", Version: "1", Kind: correlate.Absent, Within: time.Second, Steps: []correlate.Step{{Name: "bad"}, {Name: "good"}}},
}

func (lineCorrelator) Correlations() []*correlate.Rule { return lineRules }

func (l lineCorrelator) Signals(events []*pipeline.Event) (out []correlate.Signal) {
	l.Evaluate(events)
	for i, e := range events {
		line, number, _ := strings.Cut(e.GetLog().GetMessage(), " #")
		word, group, _ := strings.Cut(line, " ")
		value, _ := strconv.ParseInt(number, 10, 64)
		step := map[string]int{"bad": 0, "good": 1}
		index, ok := step[word]
		for _, rule := range lineRules {
			if !ok || index >= len(rule.Steps) {
				continue
			}
			signal := correlate.Signal{
				Rule: rule.ID, Version: rule.Version, Step: index, Group: group, Start: e.Timestamp, End: e.Timestamp,
				Value: value, Index: uint32(i), Origin: correlate.Origin{Text: strings.Clone(e.Log.Message)},
			}
			copy(signal.Event[:], e.Id)
			out = append(out, signal)
		}
	}
	return out
}

func (lineCorrelator) MatchVerdict(m *correlate.Match) *pipeline.Verdict {
	return &pipeline.Verdict{Detector: "test", Rule: m.Rule.ID, Version: m.Rule.Version, Title: m.Rule.ID, Group: m.Group, Evidence: m.Text}
}

var correlationBundle = &pipeline.Bundle{Version: "c1", Detectors: []pipeline.Detector{lineCorrelator{}}}

// A foldTest sends lines to a scenario, and knows what a fold of all of them finds.
type foldTest struct {
	*scenario
	random *rand.Rand
	sent   []*pipeline.Event
}

// sendLines sends a batch of lines of now to one of the partitions.
func (f *foldTest) sendLines(t *testing.T, partition int) {
	t.Helper()
	batch := f.batch(partition, 1+f.random.IntN(10))
	for _, e := range batch.Events {
		e.Timestamp = time.Now().UnixNano()
		e.Log.Message = fmt.Sprintf("%s g%d #%d", []string{"bad", "bad", "good", "other"}[f.random.IntN(4)], f.random.IntN(6), f.random.IntN(30))
	}
	batch.Shipped = time.Now().UnixNano()
	f.produce(partition, encode(t, batch))
	f.sent = append(f.sent, batch.Events...)
}

// expected returns the alerts of a fold that is fed with all lines in their order: count, first and last by rule and group.
func (f *foldTest) expected() map[string]string {
	fold := correlate.New(lineRules, correlate.DefaultLimits)
	for _, signal := range (lineCorrelator{}).Signals(f.sent) {
		fold.Add(signal)
	}
	type sum struct {
		count, first, last int64
		events             []string
	}
	sums := map[string]sum{}
	for _, m := range fold.Close() {
		key := m.Rule.ID + " " + m.Group
		s, ok := sums[key]
		if !ok {
			s = sum{first: m.First, last: m.Last}
		}
		for _, e := range m.Events {
			s.events = append(s.events, strings.TrimSpace(m.Rule.Steps[e.Step].Name+" "+pipeline.IDText(e.ID)))
		}
		sums[key] = sum{s.count + m.Count, min(s.first, m.First), max(s.last, m.Last), s.events}
	}
	out := map[string]string{}
	for key, s := range sums {
		out[key] = fmt.Sprintf("%d events from %s to %s, %q", s.count, stamp(s.first), stamp(s.last), s.events[:min(len(s.events), 20)])
	}
	return out
}

func stamp(ns int64) string { return time.Unix(0, ns).UTC().Format("15:04:05.000000000") }

// raised returns the alerts of the correlation rules in the same form.
func raised(alerts map[string]pipeline.Alert) map[string]string {
	out := map[string]string{}
	for _, alert := range alerts {
		if alert.Rule == "bad_line" {
			continue
		}
		key := alert.Rule + " " + alert.Group
		text := fmt.Sprintf("%d events from %s to %s, %q", alert.Count, stamp(alert.First.UnixNano()), stamp(alert.Last.UnixNano()), alert.Events)
		if strings.Contains(alert.Evidence, "late") {
			text += " late"
		}
		if before, ok := out[key]; ok {
			text = before + "; " + text
		}
		out[key] = text
	}
	return out
}

// TestCorrelationRulesAgreeWhenKilledAtRandom: the engine raises the alerts that a fold of all lines finds, each event once,
// although its process is killed at random places. A revision that is published twice is the same both times.
func TestCorrelationRulesAgreeWhenKilledAtRandom(t *testing.T) {
	s := newScenario(t, "fold_random", newHarness(t, 2, kafka.AssignStatic), 2, kafka.AssignStatic)
	s.childConfig.Correlate = true
	test := &foldTest{scenario: s, random: rand.New(rand.NewPCG(5, 6))}
	kills := 6
	if !testing.Short() {
		kills = 25
	}
	for range kills {
		cmd, out := startChild(t, s.childConfig)
		for end := time.Now().Add(time.Duration(500+test.random.IntN(2500)) * time.Millisecond); time.Now().Before(end); {
			test.sendLines(t, test.random.IntN(2))
			time.Sleep(time.Duration(test.random.IntN(60)) * time.Millisecond)
		}
		_ = cmd.Process.Kill()
		waitKilled(t, cmd, out)
	}
	cmd, out := startChild(t, s.childConfig)
	test.check(t)
	_ = cmd.Process.Kill()
	waitKilled(t, cmd, out)
}

// check waits until the alerts are those of a fold of all lines, in the store and on the topic.
func (f *foldTest) check(t *testing.T) {
	t.Helper()
	want := f.expected()
	deadline := time.Now().Add(time.Minute)
	for !maps.Equal(want, raised(f.storedAlertsOf(t, "tidegate.signals"))) && time.Now().Before(deadline) {
		time.Sleep(500 * time.Millisecond)
	}
	time.Sleep(time.Second) // for alerts too many
	compareRaised(t, "in the store", want, raised(f.storedAlertsOf(t, "tidegate.signals")))
	compareRaised(t, "on the topic", want, raised(f.publishedAlerts(t)))
}

// TestCorrelationRulesAgreeWhenEnginesComeAndGo: engines share the partitions of both topics. One after the other joins, and
// ends by a signal or is killed.
func TestCorrelationRulesAgreeWhenEnginesComeAndGo(t *testing.T) {
	s := newScenario(t, "fold_group", newHarness(t, 3, kafka.AssignGroup), 3, kafka.AssignGroup)
	s.childConfig.Correlate = true
	test := &foldTest{scenario: s, random: rand.New(rand.NewPCG(7, 8))}
	send := func(length time.Duration) {
		for end := time.Now().Add(length); time.Now().Before(end); {
			test.sendLines(t, test.random.IntN(3))
			time.Sleep(time.Duration(test.random.IntN(60)) * time.Millisecond)
		}
	}
	cmd, _ := startChild(t, s.childConfig)
	time.Sleep(3 * time.Second) // until all partitions have told how far they are
	for round := range 4 {
		send(2 * time.Second)
		next, _ := startChild(t, s.childConfig)
		send(3 * time.Second)
		if round%2 == 0 {
			_ = cmd.Process.Kill()
		} else {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		_ = cmd.Wait()
		send(4 * time.Second)
		cmd = next
	}
	test.check(t)
}

func compareRaised(t *testing.T, where string, want, got map[string]string) {
	t.Helper()
	keys := map[string]bool{}
	for key := range want {
		keys[key] = true
	}
	for key := range got {
		keys[key] = true
	}
	differ := 0
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if want[key] != got[key] {
			differ++
			t.Errorf("%s %s:\nwant %s\n got %s", key, where, want[key], got[key])
		}
	}
	t.Log(where + ": " + strconv.Itoa(len(keys)-differ) + " of " + strconv.Itoa(len(keys)) + " agree")
}
