package rules

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tidegate/pipeline"
)

var _ pipeline.Detector = (*Set)(nil)

// A Set is compiled rules behind their index. It is immutable and safe for concurrent use.
type Set struct {
	rules       []*Rule // by id, which is the order of verdicts
	slots       *slotTable
	index       *index
	lints       []Lint
	version     string
	took        time.Duration
	cfg         Config
	log         *slog.Logger
	metrics     *Metrics
	idleWorkers chan *worker
}

// A worker is what one goroutine needs to judge.
type worker struct {
	values *eventValues
	finder *finder
	tick   uint32 // runs, to pick those that are measured
}

func (c *compiler) newSet(cfg Config, log *slog.Logger, metrics *Metrics) *Set {
	slices.SortFunc(c.list, func(a, b *compiledRule) int { return strings.Compare(a.rule.ID, b.rule.ID) })
	s := &Set{slots: c.slots, lints: c.lints, cfg: cfg, log: log, metrics: metrics, idleWorkers: make(chan *worker, 2*runtime.GOMAXPROCS(0))}
	needs := make([]prefilter, 0, len(c.list))
	parts := make([]string, 0, len(c.list))
	for _, r := range c.list {
		r.rule.stats = metrics.ruleStats(r.rule.ID)
		r.rule.stats.suspended.Store(false) // another set is another chance
		s.rules = append(s.rules, r.rule)
		needs = append(needs, r.need)
		parts = append(parts, r.rule.ID+" "+r.rule.Version+" "+r.rule.Hash)
	}
	s.lints = slices.DeleteFunc(s.lints, func(l Lint) bool {
		return !slices.ContainsFunc(s.rules, func(r *Rule) bool { return r.ID == l.Rule })
	})
	s.index = newIndex(s.slots, needs)
	s.version = shortHash(parts...)
	return s
}

// Version is the hash of the bundle: the same rules have the same one, on every engine.
func (s *Set) Version() string { return s.version }

// Rules lists the rules by id.
func (s *Set) Rules() []*Rule { return s.rules }

// Lints lists what could be better.
func (s *Set) Lints() []Lint { return s.lints }

// Took is how long it took to read and compile the set.
func (s *Set) Took() time.Duration { return s.took }

func (s *Set) acquireWorker() *worker {
	select {
	case w := <-s.idleWorkers:
		return w
	default:
		v := newEventValues(s.slots)
		return &worker{values: v, finder: newFinder(s.index, v)}
	}
}

func (s *Set) releaseWorker(w *worker) {
	w.values.clearEvent()
	select {
	case s.idleWorkers <- w:
	default:
	}
}

// Evaluate appends a verdict to each event for each rule that is true of it.
func (s *Set) Evaluate(block []*pipeline.Event) {
	w := s.acquireWorker()
	candidates, verdicts := 0, 0
	for _, e := range block {
		w.values.setEvent(e)
		found := w.finder.candidates(e.Dataset)
		candidates += len(found)
		for _, id := range found {
			if r := s.rules[id]; s.evaluateRule(w, r) {
				verdicts++
				e.Verdicts = append(e.Verdicts, r.verdict(e))
			}
		}
	}
	s.releaseWorker(w)
	s.metrics.countBlock(len(block), candidates, verdicts)
}

// evaluateRule runs a rule on the event that w has at hand.
func (s *Set) evaluateRule(w *worker, r *Rule) bool {
	if r.mask&maskOf(w.values.event.Dataset) == 0 || r.stats.suspended.Load() {
		return false
	}
	w.tick++
	if w.tick%measuredShare != 0 && !r.stats.measureEveryRun.Load() {
		return s.matchesRule(w, r)
	}
	began := time.Now()
	hit := s.matchesRule(w, r)
	if why := r.stats.addMeasurement(time.Since(began), w.values.textBytes(r.when.slots), s.cfg); why != "" {
		s.log.Error("rule suspended until rules are loaded again", "rule", r.ID, "why", why, "file", r.File, "line", r.Line)
	}
	return hit
}

func (s *Set) matchesRule(w *worker, r *Rule) bool {
	if !s.runExpression(w, r, r.when) {
		return false
	}
	for _, e := range r.exceptions {
		if s.runExpression(w, r, e) {
			r.stats.excepted.Add(1)
			return false
		}
	}
	r.stats.matches.Add(1)
	return true
}

// runExpression evaluates one expression. Where it divides by zero it is false, and the failure is counted.
func (s *Set) runExpression(w *worker, r *Rule, e *expression) bool {
	holds := e.holds(w.values)
	if w.values.failed {
		w.values.failed = false
		if r.stats.errors.Add(1) == 1 {
			s.log.Error("rule divides by zero", "rule", r.ID, "file", r.File, "line", r.Line)
		}
		return false
	}
	return holds
}

// verdict writes what r found in e. Nothing in it aliases the event.
func (r *Rule) verdict(e *pipeline.Event) *pipeline.Verdict {
	v := pipeline.VerdictFromVTPool()
	v.Detector, v.Rule, v.Version, v.Title = "rules", r.ID, r.Version, r.Title
	v.Severity, v.Score = r.Severity, r.Score
	v.Tags = append(v.Tags[:0], r.Tags...)
	v.Evidence = r.template.render(e)
	v.Group = groupOf(r.fields, e)
	return v
}

// sampled: one run in so many is timed, since reading the clock twice costs as much as a small rule.
const measuredShare = 16

// ruleStats are what is known of one rule, across the sets that it is part of.
type ruleStats struct {
	matches, excepted, errors atomic.Uint64
	runs, ns                  atomic.Uint64 // measured ones
	suspended                 atomic.Bool
	measureEveryRun           atomic.Bool // a run was too long: every one is measured for a while
	window, windowNs, strikes atomic.Uint64
}

// textPerBudget is how many bytes of text have the budget of one run: a run over more of it may take longer. Otherwise who sends long
// requests could have a rule suspended, and go on unseen; the time of a run is linear in its text whatever the rule says.
const textPerBudget = 256

// addMeasurement takes the time of one run over so many bytes, and benches the rule if it is over its budget: on average over a window, or
// by single runs that are far too long. One such run proves nothing, the machine may have been busy; three in a window do. So a
// single long run also weighs no more than 8 budgets in the average.
func (t *ruleStats) addMeasurement(took time.Duration, size int, cfg Config) (why string) {
	t.runs.Add(1)
	t.ns.Add(uint64(took))
	took = took * textPerBudget / time.Duration(textPerBudget+size)
	if took > cfg.MaxTime {
		t.measureEveryRun.Store(true)
		if t.strikes.Add(1) >= 3 {
			why = "three runs were longer than " + cfg.MaxTime.String()
		}
	}
	sum := t.windowNs.Add(uint64(min(took, 8*cfg.MaxMeanTime)))
	if n := t.window.Add(1); n >= 64 { // 1,024 runs
		if mean := time.Duration(sum / n); mean > cfg.MaxMeanTime {
			why = fmt.Sprintf("a run over %d bytes takes %s on average, the budget is %s", textPerBudget, mean, cfg.MaxMeanTime)
		}
		t.window.Store(0)
		t.windowNs.Store(0)
		t.strikes.Store(0)
		t.measureEveryRun.Store(false)
	}
	if why != "" && t.suspended.Swap(true) {
		return ""
	}
	return why
}
