package backtest_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/detectors/backtest"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestMain(m *testing.M) { os.Exit(embeddedtest.Run(m)) }

const ruleText = `
rules:
- id: simple
  title: a failed login
  severity: low
  when: message startsWith "failed" and not (user.name == "root")
  exceptions: ['message contains "ignored"']
  group: [container.id]
- id: simplified
  title: what has no SQL
  severity: low
  when: sql(message) contains "failed for 0" or message matches "(?i)LOGGED in$"
- id: burst
  title: many failed logins
  severity: high
  when: message startsWith "failed"
  count: ">= 4"
  within: 60m
  group: [container.id]
- id: named
  title: many failed logins, by their text
  severity: high
  let: {line: 'trim(message + "")'}
  when: line startsWith "failed"
  count: ">= 3"
  within: 60m
  group: [container.id, line]
- id: then
  title: failed logins and then one that succeeds
  severity: high
  sequence:
  - {name: failed, rule: simple}
  - {name: ok, when: message == "logged in"}
  within: 90m
  group: [container.id]
- id: silent
  title: no answer
  severity: low
  when: message == "ask"
  absent: {when: message == "answer"}
  within: 3h
  group: [container.id]
`

// logEvents returns lines of several containers, in two and a half days until end.
func logEvents(end time.Time) (events []*pipeline.Event) {
	random := rand.New(rand.NewPCG(1, 15))
	for i := range 6000 {
		at := end.Add(-time.Duration(random.Int64N(int64(60 * time.Hour))))
		message := []string{
			"failed for bob", "failed for 12 users", "failed, ignored", "logged in", "ask", "answer", "nothing", "nothing", "nothing",
		}[random.IntN(9)]
		event := &pipeline.Event{
			Id: binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1)), Dataset: pipeline.Dataset_LOG, Timestamp: at.UnixNano(),
			Ingested: time.Now().UnixNano(), Container: &pipeline.Container{Id: fmt.Sprintf("c%d", random.IntN(40)), Name: "web"},
			Log: &pipeline.LogLine{Message: message},
		}
		events = append(events, event)
	}
	slices.SortFunc(events, func(a, b *pipeline.Event) int { return int(a.Timestamp - b.Timestamp) })
	return events
}

// TestBacktestIsWhatTheRuleMatches: for each kind of rule, the matches in stored events are those of the whole stream from
// its begin on, of which the backtest reads a part.
func TestBacktestIsWhatTheRuleMatches(t *testing.T) {
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "test", Data: []byte(ruleText)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	store := embeddedtest.Store(t, "backtest", "native")
	end := time.Now().Add(-time.Hour).Truncate(time.Second)
	events := logEvents(end)
	block := clickhouse.NewColumnBlock()
	for i, event := range events {
		block.Append(event, pipeline.Position{Offset: int64(i)}, "events")
	}
	if err := store.Insert(t.Context(), block, "a"); err != nil {
		t.Fatal(err)
	}

	from, to := end.Add(-40*time.Hour), end
	for _, rule := range set.Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			calls := 0
			got, err := backtest.Run(t.Context(), backtest.Options{
				Store: store.Config(), Set: set, Rule: rule, From: from, To: to, Grouping: alerts.DefaultGrouper(),
				Progress: func(time.Time, backtest.Result) { calls++ },
			})
			if err != nil {
				t.Fatal(err)
			}
			want, groups := wantedMatches(set, rule, events, from, to)
			gotGroups := map[string]int64{}
			for _, group := range got.Groups {
				gotGroups[group.Name] = group.Matches
			}
			if got.Matches != want || want == 0 || !maps.Equal(gotGroups, groups) {
				t.Errorf("%d matches, want %d\n%v\n%v", got.Matches, want, gotGroups, groups)
			}
			sum := int64(0)
			for _, matches := range got.Histogram {
				sum += matches
			}
			if sum != want || calls < 40 || got.Alerts == 0 || got.Alerts > want || len(got.Samples) == 0 || got.Evaluated >= int64(len(events)) {
				t.Errorf("%d in the histogram, %d calls, %d alerts, %d samples, %d read", sum, calls, got.Alerts, len(got.Samples), got.Evaluated)
			}
			for _, sample := range got.Samples {
				if sample.At.Before(from) || !sample.At.Before(to.Add(time.Second)) || sample.Event == "" || !strings.HasPrefix(sample.Group, "container.id=c") {
					t.Errorf("sample %+v", sample)
				}
			}
		})
	}
}

// wantedMatches evaluates a rule on the whole stream.
func wantedMatches(set *rules.Set, rule *rules.Rule, events []*pipeline.Event, from, to time.Time) (count int64, groups map[string]int64) {
	groups = map[string]int64{}
	if rule.Correlation != nil {
		fold := correlate.New([]*correlate.Rule{rule.Correlation}, correlate.DefaultLimits)
		for i, event := range events {
			for _, signal := range set.Signals([]*pipeline.Event{proto.CloneOf(event)}) {
				if signal.Rule == rule.ID {
					signal.Offset = int64(i)
					fold.Add(signal)
				}
			}
		}
		for _, match := range fold.Advance(to.UnixNano()) {
			if match.At >= from.UnixNano() {
				count++
				groups[match.Group]++
			}
		}
		return count, groups
	}
	for _, event := range events {
		if event.Timestamp < from.UnixNano() || event.Timestamp >= to.UnixNano() {
			continue
		}
		event = proto.CloneOf(event)
		set.Evaluate([]*pipeline.Event{event})
		for _, verdict := range event.Verdicts {
			if verdict.Rule == rule.ID {
				count++
				groups[verdict.Group]++
			}
		}
	}
	return count, groups
}
