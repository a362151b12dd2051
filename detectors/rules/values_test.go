package rules

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
)

// onlyRule returns the rule of a file with one.
func onlyRule(t *testing.T, text string) (*Set, *Rule) {
	t.Helper()
	set, err := compileText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return set, set.Rules()[0]
}

// TestVersionOfARuleFollowsEachOfItsParts: what changes its verdicts, or the events it matches, changes the version.
func TestVersionOfARuleFollowsEachOfItsParts(t *testing.T) {
	base := "lists: {words: [a], numbers: [1]}\nmacros: {inner: message contains words, outer: inner and log.offset in numbers}\nrules:\n" +
		ruleYAML("r", "outer")
	versions := map[string]string{}
	add := func(what, text string) {
		t.Helper()
		_, rule := onlyRule(t, text)
		if other, ok := versions[rule.Version]; ok {
			t.Errorf("%s and %s have the same version", what, other)
		}
		if len(rule.Version) != 12 {
			t.Errorf("%s: version %q", what, rule.Version)
		}
		versions[rule.Version] = what
	}
	add("the rule", base)
	add("a tag", base+"  tags: [host.id]\n")
	add("two tags", base+"  tags: [host.id, a]\n")
	add("a group", base+"  group: [host.id]\n")
	add("an alert", base+"  alert: text\n")
	add("a score", base+"  score: 99\n")
	add("a dataset", base+"  datasets: [log]\n")
	add("an exception", base+"  exceptions: ['message == \"b\"']\n")
	add("a title", strings.Replace(base, "title: t", "title: u", 1))
	add("a severity", strings.Replace(base, "low", "high", 1))
	add("an id", strings.Replace(base, "id: r", "id: s", 1))
	add("a list", strings.Replace(base, "[a]", "[b]", 1))
	add("a list of numbers", strings.Replace(base, "[1]", "[2]", 1))
	add("a macro", strings.Replace(base, "message contains words", "message startsWith words", 1))

	sum := sha256.Sum256([]byte("1:a2:bc"))
	if got, want := shortHash("a", "bc"), hex.EncodeToString(sum[:6]); got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	if got := identifiers("z9_a == \"B\" and (a0, _x) and a0"); !slices.Equal(got, []string{"_x", "a0", "and", "z9_a"}) {
		t.Errorf("identifiers %q", got)
	}

	// A macro may use others, eight deep; the list at their end counts.
	chain := func(depth int, word string) string {
		var out strings.Builder
		fmt.Fprintf(&out, "lists: {words: [%s]}\nmacros:\n  m0: message contains words\n", word)
		for i := 1; i < depth; i++ {
			fmt.Fprintf(&out, "  m%d: m%d\n", i, i-1)
		}
		return out.String() + "rules:\n" + ruleYAML("r", fmt.Sprintf("m%d", depth-1))
	}
	_, first := onlyRule(t, chain(maxMacroDepth, "a"))
	if _, second := onlyRule(t, chain(maxMacroDepth, "b")); first.Version == second.Version {
		t.Error("the list of a nested macro leaves the version as it is")
	}
	if _, err := compileText(t, chain(maxMacroDepth+1, "a")); err == nil {
		t.Error("macros are nested too deeply")
	}
}

// TestExpressionsAreRenderedAsTheyAreWritten, long constants shortened.
func TestExpressionsAreRenderedAsTheyAreWritten(t *testing.T) {
	check := func(when, want string) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		if got := set.slots.render(rule.when.root); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check(`redis.key == "a"`, `(redis.key == "a")`)
	check(`not (redis.key == "a")`, `not ((redis.key == "a"))`)
	check(`"a" in redis.args`, `"a" in redis.args`)
	check(`any(redis.args, # == "a")`, `any(redis.args, (# == "a"))`)
	check(`lower(redis.key) in ["a", "b"]`, `lower(redis.key) in ["a", "b"]`)
	check(`redis.key in ["a"]`, `redis.key in ["a"]`)
	check(`redis.key contains ["a"]`, `redis.key contains "a"`)
	check(`redis.key matches "a+"`, `redis.key matches "a+"`)
	check(`source.port in [1, 2, 3, 4, 5]`, `source.port in [1, 2, 3, 4, 5]`)
	check(`source.port in [1, 2, 3, 4, 5, 6]`, `source.port in [1, 2, 3, 4, 5, … 1 more]`)
	check(`cidr(source.ip, "10.0.0.0/8", "::1")`, `cidr(source.ip, "10.0.0.0/8", "::1/128")`)
	check(`source.port / 2 > 1.5`, `((source.port / 2) > 1.5)`)
	check(`event.duration > 5s`, `(event.duration > 5s)`)
	check(`-source.port == -5`, `(-source.port == -5)`)
	check(`len(redis.key) > 2 and true`, `((len(redis.key) > 2) and true)`)
	exact, long := strings.Repeat("x", 60), strings.Repeat("x", 61)
	check(`redis.key == "`+exact+`"`, `(redis.key == "`+exact+`")`)
	check(`redis.key == "`+long+`"`, `(redis.key == "`+exact+`…")`)
}

// TestListsAreCompared element by element.
func TestListsAreCompared(t *testing.T) {
	event := &pipeline.Event{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Args: []string{"a", "b"}}}
	check := func(when string, want bool) {
		t.Helper()
		set, _ := onlyRule(t, ruleYAML("r", when))
		event.Verdicts = nil
		set.Evaluate([]*pipeline.Event{event})
		if got := len(event.Verdicts) == 1; got != want {
			t.Errorf("%s: %t", when, got)
		}
	}
	check(`redis.args == redis.args`, true)
	check(`redis.args != redis.args`, false)
	check(`has(redis.args) and redis.args == dns.resolved_ip`, false)
	check(`has(redis.args) and redis.args != dns.resolved_ip`, true)
	event = &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{AnswersTtl: []uint32{1, 2}}}
	check(`dns.answers.ttl == dns.answers.ttl`, true)
	check(`dns.answers.ttl != dns.answers.ttl`, false)
}

// TestEveryEvaluationIsCounted, and the set that is loaded is described.
func TestEveryEvaluationIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	metrics := NewMetrics(reg)
	text := ruleYAML("hit", `message contains "abc"`) + ruleYAML("miss", `message contains "abc" and message contains "zzz"`) +
		ruleYAML("none", `message contains "qqqq"`) + ruleYAML("but", `message contains "abc"`) + "  exceptions: ['message contains \"def\"']\n"
	set, err := Compile(Default(), []Source{{Name: "t.yaml", Data: []byte(text)}}, slog.New(slog.DiscardHandler), metrics)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		set.Evaluate([]*pipeline.Event{line("abc"), line("abc def"), line("x")})
	}
	check := func(what string, metric prometheus.Collector, want float64) {
		t.Helper()
		if got := testutil.ToFloat64(metric); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("events", metrics.events, 6)
	check("verdicts", metrics.verdicts, 2*(2+1))
	if got := testutil.ToFloat64(metrics.candidates); got < 2*2*2 || got > 2*2*3 {
		t.Errorf("%v candidates", got)
	}
	metrics.setLoaded(set)
	metrics.setLoaded(set)
	metrics.countFailedLoad()
	check("loads", metrics.loads.WithLabelValues("ok"), 2)
	check("failed loads", metrics.loads.WithLabelValues("error"), 1)
	check("rules", metrics.loadedRules, 4)
	check("version", metrics.info.WithLabelValues(set.Version()), 1)
	if age := float64(time.Now().UnixMilli())/1000 - testutil.ToFloat64(metrics.loadedAt); age < 0 || age > 60 {
		t.Errorf("loaded %v seconds ago", age)
	}
	metrics.setHeld(true)
	check("held", metrics.held, 1)
	metrics.setHeld(false)
	check("held", metrics.held, 0)

	// Each rule exports what is not 0.
	metrics.ruleStats("none").suspended.Store(true)
	metrics.ruleStats("none").ns.Store(2e9)
	metrics.ruleStats("none").runs.Store(7)
	metrics.ruleStats("none").errors.Store(3)
	want := `
# HELP tidegate_detectors_rules_errors_total Evaluations of the rule that divided by zero.
# TYPE tidegate_detectors_rules_errors_total counter
tidegate_detectors_rules_errors_total{rule="none"} 3
# HELP tidegate_detectors_rules_excepted_total Events that the rule, or a step of it, would match without its exceptions.
# TYPE tidegate_detectors_rules_excepted_total counter
tidegate_detectors_rules_excepted_total{rule="but"} 2
# HELP tidegate_detectors_rules_matches_total Matches of the rule: events, or how often a rule over several events was fulfilled.
# TYPE tidegate_detectors_rules_matches_total counter
tidegate_detectors_rules_matches_total{rule="but"} 2
tidegate_detectors_rules_matches_total{rule="hit"} 4
# HELP tidegate_detectors_rules_suspended 1 for a rule that is suspended because it exceeded its time budget.
# TYPE tidegate_detectors_rules_suspended gauge
tidegate_detectors_rules_suspended{rule="none"} 1
`
	const prefix = "tidegate_detectors_rules_"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		prefix+"errors_total", prefix+"excepted_total", prefix+"matches_total", prefix+"suspended"); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sampled := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if labels := metric.GetLabel(); len(labels) == 1 && labels[0].GetValue() == "none" {
				sampled[family.GetName()] = metric.GetCounter().GetValue()
			}
		}
	}
	if sampled[prefix+"sampled_seconds_total"] != 2 || sampled[prefix+"sampled_runs_total"] != 7 {
		t.Errorf("%v", sampled)
	}

	// Without metrics nothing is counted.
	var none *Metrics
	none.countBlock(1, 2, 3)
	none.setLoaded(set)
	none.setHeld(true)
	none.countFailedLoad()
	if none.ruleStats("a") == nil {
		t.Error("a rule has no counts")
	}
}

// TestNumbersOfEventsWrap: what was found for the event of that number four billion events ago is found again.
func TestNumbersOfEventsWrap(t *testing.T) {
	set, _ := onlyRule(t, ruleYAML("r", `message contains "abcdef"`))
	worker := set.acquireWorker()
	if worker.values.setEvent(line("abcdef one")); worker.values.eventNumber != 1 || len(worker.finder.candidates(pipeline.Dataset_LOG)) != 1 {
		t.Fatalf("number %d", worker.values.eventNumber)
	}
	worker.values.eventNumber = math.MaxUint32
	worker.values.setEvent(line("abcdef two"))
	if worker.values.eventNumber != 1 {
		t.Errorf("number %d", worker.values.eventNumber)
	}
	if found := worker.finder.candidates(pipeline.Dataset_LOG); len(found) != 1 {
		t.Errorf("%d rules are found", len(found))
	}
	if got := worker.values.slot(set.slots.byLabel["message"]).text; got != "abcdef two" {
		t.Errorf("the value is that of another event: %q", got)
	}
	for _, dataset := range []pipeline.Dataset{-1, pipeline.Dataset(pipeline.NumDatasets)} {
		if found := worker.finder.candidates(dataset); found != nil {
			t.Errorf("dataset %d has %d rules", dataset, len(found))
		}
	}
}

// TestWorkerKeepsNothingOfABlock: the buffers of its events are used again. Long buffers are not kept.
func TestWorkerKeepsNothingOfABlock(t *testing.T) {
	set, _ := onlyRule(t, ruleYAML("r", `redis.key == "k" and any(redis.args, lower(#) == "x") and lower(redis.command) == "get"`))
	worker := set.acquireWorker()
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Key: "k", Args: []string{"x", "y"}, Command: "GET"},
	}
	worker.values.setEvent(event)
	slots := []int{set.slots.byLabel["redis.key"], set.slots.byLabel["redis.args"], set.slots.byLabel["lower(redis.command)"]}
	if size := worker.values.textBytes(slots); size != 0 {
		t.Errorf("%d bytes of text were read", size)
	}
	for _, slot := range slots {
		worker.values.slot(slot)
	}
	if size := worker.values.textBytes(slots); size != 1+(2*16+2)+3 {
		t.Errorf("%d bytes of text were read, want 38", size)
	}
	lowered := &worker.values.values[slots[2]]
	lowered.buffer = make([]byte, maxKeptBuffer)
	worker.values.elementText = "x"
	set.releaseWorker(worker)
	if worker.values.event != nil || worker.values.elementText != "" || lowered.text != "" || lowered.buffer == nil {
		t.Error("the event is kept")
	}
	list := worker.values.values[slots[1]].texts
	if cap(list) < 2 || len(list) != 0 || list[:2][0] != "" || list[:2][1] != "" {
		t.Errorf("texts of the event are kept: %q", list[:cap(list)])
	}
	lowered.buffer = make([]byte, maxKeptBuffer+1)
	worker.values.clearEvent()
	if lowered.buffer != nil {
		t.Error("a long buffer is kept")
	}
	if set.acquireWorker() != worker {
		t.Error("the worker is not used again")
	}
}

// TestTextsAreChangedInOneBuffer, which is kept.
func TestTextsAreChangedInOneBuffer(t *testing.T) {
	check := func(what string, change func(*[]byte, string) string, in, want string) {
		t.Helper()
		var buf []byte
		if got := change(&buf, in); got != want {
			t.Errorf("%s of %q: %q, want %q", what, in, got, want)
		}
		if (in == want) != (cap(buf) == 0) {
			t.Errorf("%s of %q: %d bytes of buffer", what, in, cap(buf))
		}
	}
	check("lower", lowerInto, "abc", "abc")
	check("lower", lowerInto, "aBCZ@[`{", "abcz@[`{")
	check("lower", lowerInto, "A", "a")
	check("unescape", unescapeInto, "abc", "abc")
	check("unescape", unescapeInto, "+", " ")
	check("unescape", unescapeInto, "a%41", "aA")
	check("lookups", lookupsInto, "abc", "abc")
	check("lookups", lookupsInto, "${lower:J}", "J")
}

// TestDatasetsAreNamed: up to three of them, otherwise those that are left out.
func TestDatasetsAreNamed(t *testing.T) {
	names := pipeline.DatasetNames()
	var mask datasetMask
	for i, name := range names {
		mask |= maskOf(pipeline.DatasetByName(name))
		want := strings.Join(mask.names(), " or ")
		if i >= 3 {
			want = "another dataset than " + strings.Join((allDatasets&^mask).names(), " or ")
		}
		if got := mask.describe(); got != want || len(mask.names()) != i+1 {
			t.Errorf("%d datasets: %q, want %q", i+1, got, want)
		}
	}
	if got := maskOf(pipeline.Dataset(1)).String(); got != "2" {
		t.Errorf("one dataset: %s", got)
	}
	if got := allDatasets.String(); got != "all" {
		t.Errorf("all datasets: %s", got)
	}
	last := pipeline.Dataset(pipeline.NumDatasets - 1)
	if maskOf(0) != 1 || maskOf(-1) != 0 || maskOf(last) == 0 || maskOf(last+1) != 0 {
		t.Error("a dataset that does not exist is in a set")
	}
}

// TestAbsentFieldsAreEmpty: the value of a comparison of an absent field is that of "" or 0.
func TestAbsentFieldsAreEmpty(t *testing.T) {
	for op, holds := range map[operation]func(a, b int64) bool{
		opEqual: func(a, b int64) bool { return a == b }, opNotEqual: func(a, b int64) bool { return a != b },
		opLess: func(a, b int64) bool { return a < b }, opLessEqual: func(a, b int64) bool { return a <= b },
		opGreater: func(a, b int64) bool { return a > b }, opGreaterEqual: func(a, b int64) bool { return a >= b },
	} {
		for _, constant := range []int64{-1, 0, 1} {
			if value, known := compareWithAbsent(op, 0, constant); !known || value != holds(0, constant) {
				t.Errorf("0 %s %d: %t, %t", operators[op], constant, value, known)
			}
		}
	}
	if value, known := compareWithAbsent[int64](opModulo, 0, 1); value || known {
		t.Error("a remainder is no comparison")
	}
	check := func(when string, want, wantKnown bool) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		if value, known := set.slots.valueWhenAbsent(rule.when.root); value != want || known != wantKnown {
			t.Errorf("%s: %t, %t", when, value, known)
		}
	}
	check(`has(redis.key)`, false, true)
	check(`redis.key == ""`, true, true)
	check(`redis.key != ""`, false, true)
	check(`redis.key != "a"`, true, true)
	check(`redis.key < "a"`, false, false)
	check(`redis.key in ["a", ""]`, true, true)
	check(`redis.key in ["a"]`, false, true)
	check(`source.port in [0, 1]`, true, true)
	check(`source.port in [1]`, false, true)
	check(`redis.key contains ["a", "b"]`, false, true)
	check(`redis.key matches "^$"`, true, true)
	check(`redis.key matches "a"`, false, true)
	check(`cidr(source.ip, "0.0.0.0/0")`, false, true)
	check(`redis.key == redis.command`, false, false)
	check(`source.port > 1.5`, false, true)
	check(`entropy(redis.key) < 3`, true, true)
	check(`number(redis.key) < 3`, false, true)
	check(`number(redis.key) == 0`, false, true)
	check(`number(redis.key) != 0`, true, true)
	check(`number(redis.key) != 0.5`, true, true)
	check(`number(redis.key) in [0, 1]`, false, true)
	check(`levenshtein(redis.key, "abc") in [3]`, true, true)
	check(`levenshtein(redis.key, "abc") < 3`, false, true)
	check(`levenshtein(redis.key, redis.command) < 3`, false, false)
	check(`registered_domain(url.domain) == ""`, true, true)
	check(`len(redis.args) < 5`, true, true)
}

// TestIndexNeedsWhatEveryMatchNeeds: a rule without a text or number that its events must hold is a candidate for each of them.
func TestIndexNeedsWhatEveryMatchNeeds(t *testing.T) {
	check := func(when string, want bool) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		if rule.Indexed != want {
			t.Errorf("%s: indexed %t", when, rule.Indexed)
		}
		other := &pipeline.Event{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Key: "other", Command: "GET", Args: []string{"z"}}}
		worker := set.acquireWorker()
		worker.values.setEvent(other)
		if found := worker.finder.candidates(other.Dataset); len(found) != 1-btoi(want) {
			t.Errorf("%s: %d candidates", when, len(found))
		}
	}
	check(`redis.key == "abc" and redis.command matches "[0-9]+"`, true)
	check(`redis.command matches "[0-9]+"`, false)
	check(`redis.command + "x" contains "abc"`, false)
	check(`redis.command + "x" == "abc"`, false)
	check(`has(redis.key) and redis.key contains ["abc", ""]`, false)
	check(`has(redis.key) and redis.key in ["abc", ""]`, false)
	check(`redis.key in ["abc", "def"]`, true)
	check(`"abc" == redis.key`, true)
	check(`"abc" in redis.args`, true)
	check(`lower(redis.key) == "abc"`, true)
	check(`any(redis.args, # startsWith "abc")`, true)
	check(`any(redis.args, # == "abc" or # contains "d")`, true)
	check(`all(redis.args, # == "abc")`, false)
	check(`redis.key == "abc" or redis.command == "SET"`, true)
	check(`redis.key == "abc" or len(redis.key) > 2`, false)
	check(`not (redis.key != "abc")`, false)
	check(`redis.key matches "(abc|defg)+x?"`, true)
	check(`redis.key matches "(abc|d?)x?"`, false)
	check(`redis.key matches "(abc){2,3}"`, true)
	check(`redis.key matches "(abc){0,3}"`, false)
	check(`has(redis.key) and source.port == 0`, false)
	check(`has(redis.key) and source.port == 5`, true)
	check(`has(redis.key) and cidr(source.ip, "10.0.0.1")`, true)
	check(`has(redis.key) and cidr(source.ip, "10.0.0.0/31")`, false)

	literals := func(pattern string, depth int) ([]string, bool) {
		t.Helper()
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		return requiredLiterals(tree, depth)
	}
	for depth, want := range map[int]int{0: 1, 50: 1, 51: 0} {
		if got, _ := literals("abc", depth); len(got) != want {
			t.Errorf("depth %d: %q", depth, got)
		}
	}
	if got, fold := literals("ab.*cdef.*(?i:xyz)", 0); !slices.Equal(got, []string{"cdef"}) || fold {
		t.Errorf("%q, %t", got, fold)
	}
	if got, _ := literals("ab.*cde.*fgh", 0); !slices.Equal(got, []string{"cde"}) { // the first of those that select most
		t.Errorf("%q", got)
	}
	if got, fold := literals("(?i)abcsdefsgh", 0); len(got) != 1 || !strings.EqualFold(got[0], "abc") || !fold { // cut at an s, which has other forms
		t.Errorf("%q, %t", got, fold)
	}
	if got, fold := literals("abc|(?i:d0)", 0); len(got) != 2 || !fold {
		t.Errorf("%q, %t", got, fold)
	}
	for want, list := range map[int][]string{0: nil, 1: {"abc", "a", "ab"}, 2: {"ab"}, 3: {"abcd", "abc"}} {
		if got := shortestLength(list); got != want {
			t.Errorf("%q: %d", list, got)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestMatcherIsTheRegularExpression, whether it looks for literals first or not.
func TestMatcherIsTheRegularExpression(t *testing.T) {
	many := "a0"
	for i := 1; i < 20; i++ {
		many += fmt.Sprintf("|%c%d", 'a'+i, i)
	}
	texts := []string{"", "abc", "ABC", "xabcx", "12", "b1", "t19", "s18", "select 1", "sElEcT", "ab"}
	for _, pattern := range []string{"abc", "(?i)abc", "(?i)select", "[0-9]+", "^$", "abc|[0-9]", "abc|12", many, "ab+c?", "(?i:ab)|12"} {
		re := regexp.MustCompile(pattern)
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		matches := matcher(re, tree)
		for _, text := range texts {
			if matches(text) != re.MatchString(text) {
				t.Errorf("%s matches %q: %t", pattern, text, matches(text))
			}
		}
	}
}

// TestRarestPartOfALiteralIsLookedFor: bytes of ordinary words, of numbers and names, of upper case and escapes, and all others.
func TestRarestPartOfALiteralIsLookedFor(t *testing.T) {
	for want, bytes := range map[int]string{0: " etaoinsr/.", 1: "bcz09-=_", 2: "AZ:%&\"", 4: "{}@[`^~\x00\xff(<'"} {
		for i := range len(bytes) {
			if got := byteRarity(bytes[i]); got != want {
				t.Errorf("%q: %d, want %d", bytes[i], got, want)
			}
		}
	}
	check := func(literal, want string) {
		t.Helper()
		if got := rarestPart(literal); got != want {
			t.Errorf("%q: %q, want %q", literal, got, want)
		}
	}
	check("eeeeeeee", "eeeeeeee")
	check("eeeeeeeee{{{{{{{{", "{{{{{{{{")
	check("{{{{{{{{eeeeeeeee", "{{{{{{{{")
	check("eeeeeeeeebeeeeeeee", "beeeeeee")
	check("aeioaeioae", "aeioaeio")
}

// TestNumbersWithUnitsHaveBounds: those of 64 bits; times are those that nanoseconds since 1970 can hold.
func TestNumbersWithUnitsHaveBounds(t *testing.T) {
	check := func(literal string, want int64, ok bool) {
		t.Helper()
		if got, err := literalValue(literal); got != want || (err == nil) != ok {
			t.Errorf("%s: %d, %v", literal, got, err)
		}
	}
	check("5s", 5e9, true)
	check("1.5s", 15e8, true)
	check("1_000us", 1e6, true)
	check("106751d", 106751*24*3600*1e9, true)
	check("106752d", 0, false)
	check("9223372036854775807ns", math.MaxInt64, true)
	check("106751.9d", 9223364160000000000, true)
	check("106752.1d", 0, false)
	check("1.2.3s", 0, false)

	for text, ok := range map[string]bool{
		"1678-01-01": true, "1677-12-31": false, "2261-12-31": true, "2262-01-01": false, "2026-11-27": true, "2026-11-27 16:20": true, "27.11.2026": false,
	} {
		if _, err := parseTime(text); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	for r, want := range map[rune]bool{hiddenBase - 1: false, hiddenBase: true, hiddenBase + '~': true, hiddenBase + 127: false} {
		if isHidden(r) != want {
			t.Errorf("%U is hidden: %t", r, !want)
		}
	}
	if shown(string([]rune{hiddenBase + '5', hiddenBase + 's', 'x'})) != "5sx" {
		t.Error("a hidden character is not shown as it was written")
	}
}

// TestTableHasALineForEachRule.
func TestTableHasALineForEachRule(t *testing.T) {
	set, err := compileText(t, ruleYAML("hit", `message contains "abcdef"`)+"  tests:\n    - {fires: true, event: {message: abcdef}}\n"+
		"    - {fires: false, event: {message: a}}\n"+ruleYAML("once", `source.port > 1`)+"  tests:\n    - {fires: true, event: {event.dataset: dns, source.port: 2}}\n")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	writeTable(&out, set, set.Test())
	want := "RULE  SEVERITY  DATASETS  INDEXED  CASES  RESULT  TITLE\n" +
		"hit   low       log       yes      2      ok      t\n" +
		"once  low       all       no       1      FAIL    t\n"
	if out.String() != want {
		t.Errorf("\n%s, want\n%s", out.String(), want)
	}
	for count, want := range map[int]string{0: "0 rules", 1: "1 rule", 2: "2 rules"} {
		if got := plural(count, "rule"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for want, fires := range map[string][]bool{
		"case with fires: true": {false}, "case with fires: false": {true, true}, "": {true, false},
	} {
		rule := &Rule{}
		for _, f := range fires {
			rule.Tests = append(rule.Tests, Case{Fires: f})
		}
		if got := rule.missingCase(); got != want {
			t.Errorf("%v: %q, want %q", fires, got, want)
		}
	}
}

// TestWarningsAreLoggedWhenTheyChange, also of a set of the same version, which is not used.
func TestWarningsAreLoggedWhenTheyChange(t *testing.T) {
	var logged bytes.Buffer
	var used []*Set
	watcher := &Watcher{
		Current: &Set{version: "1", warnings: []string{"first"}}, Log: slog.New(slog.NewTextHandler(&logged, nil)),
		OnChange: func(set *Set) { used = append(used, set) },
	}
	lines := func(of string) int { return strings.Count(logged.String(), of) }
	watcher.activate(&Set{version: "1", warnings: []string{"first"}})
	if logged.Len() != 0 {
		t.Errorf("logged without a change: %s", &logged)
	}
	for range 2 {
		watcher.activate(&Set{version: "1", warnings: []string{"second", "third"}})
	}
	if lines("problem=second") != 1 || lines("problem=third") != 1 || lines("rules loaded") != 0 || len(used) != 0 {
		t.Errorf("%d sets, logged: %s", len(used), &logged)
	}
	next := &Set{version: "2"}
	watcher.activate(next)
	if len(used) != 1 || watcher.Current != next || lines("rules loaded") != 1 || lines("version=2 previous=1") != 1 {
		t.Errorf("%d sets, logged: %s", len(used), &logged)
	}
}

// TestEvidenceIsBounded: the text of an alert, and each value in it.
func TestEvidenceIsBounded(t *testing.T) {
	event := line(strings.Repeat("x", maxValueRunes+1))
	check := func(text, want string) {
		t.Helper()
		parts, errs := parseTemplate(text, &parsedRule{})
		if got := parts.render(&eventValues{event: event}); got != want || len(errs) > 0 {
			t.Errorf("%d bytes: %d bytes, want %d, %v", len(text), len(got), len(want), errs)
		}
	}
	check("{message}", strings.Repeat("x", maxValueRunes)+"…")
	exact := strings.Repeat("y", maxEvidence)
	check(exact, exact)
	check(exact+"z", exact+"…")
	check(exact[1:]+"é", exact[1:]+"…")
	event = line(strings.Repeat("x", maxValueRunes))
	check("{message}", strings.Repeat("x", maxValueRunes))
}
