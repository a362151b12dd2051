package rules

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// TestHostileTextsSuspendNoInjectionRule: texts that nearly match take less than half of the time that suspends a rule,
// measured as the engine does, but in CPU time. Whoever could exceed it would attack without an alert from then on.
func TestHostileTextsSuspendNoInjectionRule(t *testing.T) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := []string{
		"union", "/**/", "/*", "*/", " ", "all ", "select", " or ", "'or ", "'or'1", "=", "1", "sleep", "(", "benchmark (", "waitfor ", "delay",
		"and ", "||", "+", "char(", "chr(", "order by ", "1 ", "--", ";select ", "a, ", "a ", "from", ")", "\"", "'", "case when", "x", "elt(",
		"=select a", "having 11", "aaaa", "0", "${", "${lower:", "}", "%2", "%25", "../", "%c0%ae",
	}
	events := map[string]func(text string) *pipeline.Event{
		"http": func(text string) *pipeline.Event {
			return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlOriginal: text, UserAgent: text}}
		},
		"mysql": func(text string) *pipeline.Event {
			return &pipeline.Event{Dataset: pipeline.Dataset_MYSQL, Mysql: &pipeline.MySQLCommand{Command: "COM_QUERY", Query: text}}
		},
	}
	rng := rand.New(rand.NewPCG(1, 1))
	worker := set.acquireWorker()
	for _, id := range []string{"http-sql-injection", "http-log4shell", "mysql-injection"} {
		var rule *Rule
		for _, r := range set.rules {
			if r.ID == id {
				rule = r
			}
		}
		protocol, _, _ := strings.Cut(id, "-")
		worst, of := time.Duration(0), ""
		for range 150 {
			var unit string
			for range 1 + rng.IntN(6) {
				unit += parts[rng.IntN(len(parts))]
			}
			event := events[protocol](strings.Repeat(unit, 1000/len(unit)+1))
			if took := normalisedTime(set, worker, rule, event); took > worst {
				worst, of = took, unit
			}
		}
		t.Logf("%s: at most %v for 256 bytes, of %q", id, worst, of)
		if limit := Default().MaxMeanTime / 2; worst > limit {
			t.Errorf("%s takes %v for 256 bytes of %q, want less than %v", id, worst, of, limit)
		}
	}
}

// normalisedTime returns the CPU time of a rule for textPerBudget bytes of an event, the least of some runs.
func normalisedTime(set *Set, worker *worker, rule *Rule, event *pipeline.Event) time.Duration {
	best := time.Hour
	for range 4 {
		cost := lineartest.Measure(func() {
			for range 4 {
				worker.values.setEvent(event)
				set.matchesRule(worker, rule)
			}
		})
		best = min(best, cost.Time/4)
	}
	size := worker.values.textBytes(rule.when.slots)
	return best * textPerBudget / time.Duration(textPerBudget+size)
}
