package rules

import (
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"tidegate/detectors/feeds"
	"tidegate/detectors/sigma"
	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

var _ pipeline.Detector = (*Set)(nil)

// A Set holds compiled rules and their index. It is immutable and safe for concurrent use.
type Set struct {
	rules       []*Rule // by id
	evaluated   []*Rule // what the index finds: rules over one event and the steps of the others; by id, which is the order of verdicts
	slots       *slotTable
	index       *index
	lints       []Lint
	warnings    []string // about the configuration and the folder
	own         int      // number of rules of Config.Dir, disabled ones included
	fromSigma   int      // number of rules of Config.Sigma, disabled ones included
	refused     []*sigma.Conversion
	sigma       sigmaFolder // of which fromSigma and refused are
	rulesOfFile map[string]int
	version     string
	took        time.Duration
	cfg         Config
	log         *slog.Logger
	metrics     *Metrics
	idleWorkers chan *worker // a free list
	feeds       *feeds.Set   // that rules ask; nil: none
}

// A worker holds the mutable memory with which one goroutine evaluates events.
type worker struct {
	values *eventValues
	finder *finder
	runs   uint32 // number of evaluations; one in measuredShare is timed

	readExceptions bool // the last evaluation of a rule came to its exceptions
}

// newSet builds the index over compiled rules.
func newSet(c *compiler, cfg Config, log *slog.Logger, metrics *Metrics) *Set {
	slices.SortFunc(c.rules, func(a, b *compiledRule) int { return strings.Compare(a.ID, b.ID) })
	idle := make(chan *worker, 2*runtime.GOMAXPROCS(0))
	set := &Set{slots: c.slots, cfg: cfg, log: log, metrics: metrics, idleWorkers: idle}
	prefilters := make([]prefilter, 0, len(c.rules))
	parts := make([]string, 0, len(c.rules))
	enabled := map[string]bool{}
	for _, rule := range c.rules {
		rule.stats = metrics.ruleStats(rule.ID)
		rule.stats.suspended.Store(false) // A load ends every suspension.
		set.evaluated = append(set.evaluated, rule.Rule)
		if !rule.isStep {
			set.rules = append(set.rules, rule.Rule)
		}
		prefilters = append(prefilters, rule.prefilter)
		parts = append(parts, rule.ID+" "+rule.Version+" "+rule.Hash+policyVersion(rule.Policy))
		enabled[rule.ID] = true
	}
	for _, parsed := range c.correlations {
		parsed.stats = metrics.ruleStats(parsed.ID)
		set.rules = append(set.rules, &parsed.Rule)
		parts = append(parts, parsed.ID+" "+parsed.Version+" "+parsed.Hash+policyVersion(parsed.Policy))
		enabled[parsed.ID] = true
	}
	slices.SortFunc(set.rules, func(a, b *Rule) int { return strings.Compare(a.ID, b.ID) })
	set.lints = slices.DeleteFunc(c.lints, func(l Lint) bool { return !enabled[l.Rule] })
	set.index = newIndex(set.slots, prefilters)
	set.version = shortHash(append(parts, slices.Concat(c.slots.databases.versions(), c.slots.models.versions())...)...)
	return set
}

// Version returns a hash of all rules. The same rules have the same version on every engine.
func (s *Set) Version() string { return s.version }

// Rules returns the rules, sorted by id.
func (s *Set) Rules() []*Rule { return s.rules }

// Lints returns the lints of all rules that they do not accept. Those about pairs of rules are looked for at each call.
func (s *Set) Lints() []Lint {
	lints, _ := s.AllLints()
	return lints
}

// AllLints returns the lints of all rules, and those that the rules accept.
func (s *Set) AllLints() (lints, accepted []Lint) {
	shadowed, comparedAll := s.lintShadowed()
	return s.acceptLints(append(slices.Clone(s.lints), shadowed...), comparedAll)
}

// Warnings returns what is wrong with the configuration or the folder of the set without being an error.
func (s *Set) Warnings() []string { return s.warnings }

// Took returns how long it took to read and compile the set.
func (s *Set) Took() time.Duration { return s.took }

func (s *Set) acquireWorker() *worker {
	select {
	case w := <-s.idleWorkers:
		w.values.feeds = s.feeds
		return w
	default:
		v := newEventValues(s.slots)
		v.feeds = s.feeds
		return &worker{values: v, finder: newFinder(s.index, v)}
	}
}

func (s *Set) releaseWorker(w *worker) {
	w.values.clearEvent()
	w.values.feeds = nil
	select {
	case s.idleWorkers <- w:
	default:
	}
}

// Evaluate appends a verdict to each event for each rule that matches it, in the order of the rules' ids.
// Correlation rules have no verdicts.
func (s *Set) Evaluate(block []*pipeline.Event) { s.evaluate(block, nil) }

// Signals does what Evaluate does, and returns the signals of the correlation rules. The index of a signal is
// that of its event in block.
func (s *Set) Signals(block []*pipeline.Event) []correlate.Signal {
	signals := []correlate.Signal{}
	s.evaluate(block, &signals)
	return signals
}

func (s *Set) evaluate(block []*pipeline.Event, signals *[]correlate.Signal) {
	worker := s.acquireWorker()
	candidates, verdicts := 0, 0
	for index, event := range block {
		worker.values.setEvent(event)

		// Evaluate only the rules that the index finds. A slot is computed when the index or the first rule
		// reads it.
		found := worker.finder.candidates(event.Dataset)
		candidates += len(found)
		for _, i := range found {
			rule := s.evaluated[i]
			if rule.isStep && signals == nil || !s.evaluateRule(worker, rule) {
				continue
			}
			if signals != nil {
				*signals = s.appendSignals(*signals, worker, rule, index)
			}
			if !rule.isStep {
				verdicts++
				event.Verdicts = append(event.Verdicts, rule.verdict(worker.values))
			}
		}
	}
	s.releaseWorker(worker)
	s.metrics.countBlock(len(block), candidates, verdicts)
}

// evaluateRule reports whether rule matches the event of w, and measures some of the evaluations.
func (s *Set) evaluateRule(w *worker, rule *Rule) bool {
	if rule.datasets&maskOf(w.values.event.Dataset) == 0 || rule.stats.suspended.Load() {
		return false
	}

	// Time one in measuredShare evaluations, or all of them after one that took too long.
	w.runs++
	if w.runs%measuredShare != 0 && !rule.stats.measureEveryRun.Load() {
		return s.matchesRule(w, rule)
	}
	start := time.Now()
	matches := s.matchesRule(w, rule)
	took := time.Since(start)
	if reason := rule.stats.addMeasurement(took, w.readBytes(rule), s.cfg); reason != "" {
		s.log.Error("rule suspended until rules are loaded again",
			"rule", rule.ID, "reason", reason, "file", rule.File, "line", rule.Line)
	}
	return matches
}

// readBytes returns the bytes of the texts that the last evaluation of a rule has read.
func (w *worker) readBytes(rule *Rule) int {
	size := w.values.textBytes(rule.when.slots)
	if w.readExceptions {
		size += w.values.textBytes(rule.exceptionSlots)
	}
	return size
}

// matchesRule reports whether the condition of a rule is true and all its exceptions are false.
func (s *Set) matchesRule(w *worker, rule *Rule) bool {
	w.readExceptions = s.runExpression(w, rule, rule.when)
	if !w.readExceptions {
		return false
	}
	for _, exception := range rule.exceptions {
		if s.runExpression(w, rule, exception) {
			rule.stats.excepted.Add(1)
			return false
		}
	}
	if !rule.isStep { // what steps match are signals
		rule.stats.matches.Add(1)
	}
	return true
}

// runExpression evaluates one expression. An expression that divides by zero is false, and counted as an
// error.
func (s *Set) runExpression(w *worker, rule *Rule, e *expression) bool {
	holds := e.holds(w.values)
	if w.values.failed {
		w.values.failed = false
		if rule.stats.errors.Add(1) == 1 {
			s.log.Error("rule divides by zero", "rule", rule.ID, "file", rule.File, "line", rule.Line)
		}
		return false
	}
	return holds
}

// appendSignals appends the signals of the event of w, which rule matches. index is that of the event in its
// block.
func (s *Set) appendSignals(signals []correlate.Signal, w *worker, rule *Rule, index int) []correlate.Signal {
	event := w.values.event
	for _, step := range rule.signalSteps {
		if !rule.isStep && (step.datasets&maskOf(event.Dataset) == 0 || s.isExcepted(w, step)) {
			continue
		}
		signal, lacked := step.signal(w.values, rule.template)
		if lacked != "" {
			step.countUngrouped(lacked)
			continue
		}
		signal.Index = uint32(index)
		step.rule.stats.signals.Add(1)
		signals = append(signals, signal)
	}
	return signals
}

// isExcepted reports whether an exception of a step's rule is true.
func (s *Set) isExcepted(w *worker, step *step) bool {
	for _, exception := range step.exceptions {
		if s.runExpression(w, step.rule, exception) {
			return true
		}
	}
	return false
}

// MatchVerdict returns the verdict of a correlation rule that is fulfilled, and counts the match.
func (s *Set) MatchVerdict(match *correlate.Match) *pipeline.Verdict {
	verdict := &pipeline.Verdict{
		Detector: "rules", Rule: match.Rule.ID, Version: match.Rule.Version, Evidence: match.Text, Group: match.Group,
	}
	at, found := slices.BinarySearchFunc(s.rules, match.Rule.ID, func(rule *Rule, id string) int { return strings.Compare(rule.ID, id) })
	if found {
		rule := s.rules[at]
		rule.stats.matches.Add(1)
		verdict.Version, verdict.Title, verdict.Severity, verdict.Score, verdict.Tags = rule.Version, rule.Title, rule.Severity, rule.Score, rule.Tags
	}
	return verdict
}

// verdict returns the verdict of r on the current event. Nothing in it aliases the event.
func (r *Rule) verdict(v *eventValues) *pipeline.Verdict {
	verdict := pipeline.VerdictFromVTPool()
	verdict.Detector, verdict.Rule, verdict.Version, verdict.Title = "rules", r.ID, r.Version, r.Title
	verdict.Severity, verdict.Score = r.Severity, r.Score
	verdict.Tags = append(verdict.Tags[:0], r.Tags...)
	verdict.Evidence = r.template.render(v)
	verdict.Group = groupOf(r.groupValues, r.Group, v)
	return verdict
}
