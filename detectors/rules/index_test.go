package rules

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline"
)

// generator returns random rules and events over a small vocabulary, so that many rules match.
type generator struct{ *rand.Rand }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// vocabulary holds texts that are difficult for an index: upper and lower case, characters that fold to ASCII
// (ſ, K, İ), bytes that are not UTF-8, prefixes of each other.
var vocabulary = []string{
	"", "a", "ab", "abc", "ABC", "aBcd", "union select", "UNION SELECT", "../", "%2e%2e/", "%252e",
	"k", "K", "\u212a", "ſelect", "İd", "i", "\xff\xfe", "\ufffd", "passwd", "/etc/passwd", "/etc/shadow", "10.0.0.1",
	"x+y", "x y", "${jndi:ldap", "aaaaaaaaaaaaaaaa", "abababab", "é", "GET", "POST", "log", "http",
}

func (g generator) text() string {
	var text strings.Builder
	for range g.IntN(4) {
		text.WriteString(vocabulary[g.IntN(len(vocabulary))])
	}
	return text.String()
}

// constant returns a text that is valid UTF-8, as a constant in a rule file is.
func (g generator) constant() string {
	for {
		text := g.text()
		if strings.ToValidUTF8(text, "") == text {
			return text
		}
	}
}

func (g generator) addr() []byte {
	if g.IntN(3) == 0 {
		return nil
	}
	return []byte{10, 0, 0, byte(g.IntN(4))}
}

func (g generator) texts() (out []string) {
	for range g.IntN(4) {
		out = append(out, g.text())
	}
	return out
}

func (g generator) event() *pipeline.Event {
	event := &pipeline.Event{
		Dataset:   pipeline.Dataset(g.IntN(pipeline.NumDatasets + 2)), // two of them do not exist
		Outcome:   pipeline.Outcome(g.IntN(3)),
		Partial:   g.IntN(2) == 0,
		Source:    &pipeline.Endpoint{Ip: g.addr(), Port: uint32(g.IntN(3))},
		Container: &pipeline.Container{Name: g.text(), Labels: []*pipeline.Label{{Key: "app", Value: g.text()}}},
	}
	// One event in five has the body of another dataset.
	body := int(event.Dataset)
	if g.IntN(5) == 0 {
		body = g.IntN(pipeline.NumDatasets)
	}
	switch pipeline.Dataset(body) {
	case pipeline.Dataset_HTTP:
		event.Http = &pipeline.HTTPExchange{
			Method: g.pick("", "GET", "POST"), UrlPath: g.text(), UrlQuery: g.text(),
			StatusCode: uint32(g.IntN(3) * 200), UserAgent: g.text(), XForwardedFor: g.texts(),
		}
	case pipeline.Dataset_DNS:
		event.Dns = &pipeline.DNSMessage{
			QuestionName: g.text(), AnswersData: g.texts(), AnswersTtl: []uint32{uint32(g.IntN(3)), 1},
			AnswersCount: uint32(g.IntN(3)),
		}
	case pipeline.Dataset_LOG:
		event.Log = &pipeline.LogLine{Message: g.text(), Truncated: g.IntN(2) == 0}
	case pipeline.Dataset_CONTAINER:
		event.Change = &pipeline.ContainerChange{Action: g.pick("die", "oom", ""), ExitCode: int32(g.IntN(2) * 137)}
	}
	return event
}

// subject returns a field with a text, sometimes within functions.
func (g generator) subject() string {
	field := g.pick("url.path", "url.query", "user_agent.original", "message", "dns.question.name", "container.name",
		`label("app")`, "http.request.method")
	switch g.IntN(12) {
	case 6:
		return "lower(value(message, \"a\"))"
	case 7:
		return "base64(" + field + ")"
	case 8:
		return "registered_domain(" + field + ")"
	case 9:
		return g.pick(`user_agent(`+field+`, "name")`, `lower(json(message, "$.a[0]"))`, `json(trim(`+field+`), "$.a")`)
	case 0:
		return "lower(" + field + ")"
	case 1:
		return "unescape(" + field + ")"
	case 2:
		return "lower(unescape(" + field + "))"
	case 3:
		return "lower(lookups(" + field + "))"
	case 4:
		return "sql(unescape(" + field + "))"
	}
	return field
}

func (g generator) list() string {
	var parts []string
	for range 1 + g.IntN(3) {
		parts = append(parts, fmt.Sprintf("%q", g.constant()))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (g generator) regex() string {
	return g.pick(`ab+c`, `(?i)abc`, `(?i)select`, `(?i)k`, `^/etc/(passwd|shadow)`, `union\\s+select`, `[a-z]*`, `a|b`,
		`(foo)?`, `.{2,5}`, `x{0,3}`, `(?i:union) SELECT`, `\\x{fffd}`, `é`, `a$`, `(?s).+`, `(?i)İ`)
}

// comparison returns a comparison of a text with constants.
func (g generator) comparison(subject string) string {
	switch g.IntN(8) {
	case 0:
		return fmt.Sprintf("%s == %q", subject, g.constant())
	case 1:
		return fmt.Sprintf("%s != %q", subject, g.constant())
	case 2:
		return fmt.Sprintf("%s in %s", subject, g.list())
	case 3:
		return fmt.Sprintf("%s %s %q", subject, g.pick("contains", "startsWith", "endsWith"), g.constant())
	case 4:
		return fmt.Sprintf("%s %s %s", subject, g.pick("contains", "startsWith", "endsWith"), g.list())
	case 5, 6:
		return fmt.Sprintf(`%s matches "%s"`, subject, g.regex())
	}
	return fmt.Sprintf(`glob(%s, "%s")`, subject, g.pick("*abc*", "a?c", "*", "/etc/*"))
}

// leaf returns a condition without and, or and not.
func (g generator) leaf() string {
	switch g.IntN(25) {
	case 24:
		return fmt.Sprintf("number(%s) %s", g.subject(), g.pick("< 2", "> 0", "== 0", "!= 0", "<= -1", ">= 10.5", "in [0, 1]", "not in [200]"))
	case 14:
		return fmt.Sprintf("entropy(%s) %s %s", g.subject(), g.pick("<", ">", "==", "!=", "<=", ">="), g.pick("0", "0.0", "1.5", "2"))
	case 15:
		return fmt.Sprintf("levenshtein(%s, %q) %s", g.subject(), g.constant(), g.pick("<= 2", "> 1", "== 3", "in [0, 1, 3]", "not in [2]", "< 2.5"))
	case 0:
		return fmt.Sprintf("http.response.status_code %s %d", g.pick("==", "!=", "<", "<=", ">", ">="), g.IntN(3)*200)
	case 1:
		return fmt.Sprintf("http.response.status_code in [%d, %d]", g.IntN(3)*200, g.IntN(3)*200)
	case 2:
		return g.pick("event.partial", "log.truncated", "has(url.path)", "has(process.exit_code)", "has(source.ip)",
			"has(message)")
	case 3:
		return fmt.Sprintf(`source.ip %s "10.0.0.%d"`, g.pick("==", "!="), g.IntN(4))
	case 4:
		return fmt.Sprintf(`cidr(source.ip, "10.0.0.%d/%d", "10.0.0.0")`, g.IntN(2)*2, 31)
	case 5:
		name, list := g.pick("any", "all", "none", "one"), g.pick("http.request.x_forwarded_for", "dns.answers.data")
		return fmt.Sprintf("%s(%s, %s)", name, list, g.condition(1, "#"))
	case 6:
		return fmt.Sprintf("count(dns.answers.ttl, # == %d) %s %d", g.IntN(3), g.pick(">=", "==", "<"), g.IntN(3))
	case 7:
		return fmt.Sprintf("any(dns.answers.ttl, # %s %d)", g.pick("==", ">", "!="), g.IntN(3))
	case 8:
		return fmt.Sprintf(`event.dataset %s "%s"`, g.pick("==", "!="), g.pick("http", "dns", "log", "container"))
	case 9:
		return fmt.Sprintf("len(%s) %s %d", g.subject(), g.pick("==", ">", "<", "!="), g.IntN(5))
	case 10:
		return fmt.Sprintf("process.exit_code == %d", g.IntN(2)*137)
	}
	return g.comparison(g.subject())
}

// condition returns a condition that is at most depth operators deep. element is "#" within a loop over
// texts.
func (g generator) condition(depth int, element string) string {
	if depth > 0 {
		switch g.IntN(4) {
		case 0:
			return "(" + g.condition(depth-1, element) + " and " + g.condition(depth-1, element) + ")"
		case 1:
			return "(" + g.condition(depth-1, element) + " or " + g.condition(depth-1, element) + ")"
		case 2:
			return "not (" + g.condition(depth-1, element) + ")"
		}
	}
	if element != "" {
		return g.comparison(g.pick("#", "lower(#)", "unescape(#)", "url.path"))
	}
	return g.leaf()
}

// set compiles random rules, and leaves out those that can never be true.
func (g generator) set(tb testing.TB, count int) *Set {
	var text strings.Builder
	for i := range count {
		text.WriteString(ruleYAML(fmt.Sprintf("r%04d", i), g.condition(g.IntN(4), "")))
		if g.IntN(4) == 0 {
			text.WriteString("  exceptions: ['" + g.condition(1, "") + "']\n")
		}
	}
	sources := []Source{{Name: "random", Data: []byte(text.String())}}
	for {
		set, err := Compile(Default(), sources, nil, nil)
		if err == nil {
			return set
		}
		// A rule whose condition can never be true does not compile. It is removed from the text.
		text := string(sources[0].Data)
		var list Errors
		if !errors.As(err, &list) {
			tb.Fatal(err)
		}
		for _, problem := range list {
			if !strings.Contains(problem.Err.Error(), "can never be true") {
				tb.Fatal(problem)
			}
			id, _, _ := strings.Cut(problem.Key, ":")
			at := strings.Index(text, "- id: "+id)
			end := strings.Index(text[at+1:], "- id: ")
			if end < 0 {
				text = text[:at]
			} else {
				text = text[:at] + text[at+1+end:]
			}
		}
		sources[0].Data = []byte(text)
	}
}

// plain returns the rules that match an event, evaluated without the index.
func plain(set *Set, event *pipeline.Event) string {
	worker := set.acquireWorker()
	defer set.releaseWorker(worker)
	worker.values.setEvent(event)
	var ids []string
	if int(event.Dataset) >= pipeline.NumDatasets {
		return ""
	}
	for _, rule := range set.rules {
		if set.matchesRule(worker, rule) {
			ids = append(ids, rule.ID)
		}
	}
	return strings.Join(ids, " ")
}

// TestIndexAgreesWithPlainLoop: the index rules out only rules that do not match.
func TestIndexAgreesWithPlainLoop(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	total, indexed, fires := 0, 0, 0
	for seed := range rounds {
		random := generator{rand.New(rand.NewPCG(uint64(seed), 7))}
		set := random.set(t, 60)
		for _, rule := range set.Rules() {
			if total++; rule.Indexed {
				indexed++
			}
		}
		for range 300 {
			event := random.event()
			want := plain(set, event)
			set.Evaluate([]*pipeline.Event{event})
			if got := fired(event); got != want {
				for _, id := range diff(got, want) {
					at := slices.IndexFunc(set.rules, func(r *Rule) bool { return r.ID == id })
					t.Errorf("seed %d: %s: %s\n  %v", seed, id, set.rules[at].When, event)
				}
				t.Fatalf("index: %s\nloop:  %s", got, want)
			}
			fires += len(event.Verdicts)
		}
	}
	t.Logf("%d rules, %d indexed, %d verdicts", total, indexed, fires)
	if indexed*5 < total || fires < rounds*100 {
		t.Errorf("the test checks too little: %d of %d rules are indexed, %d verdicts", indexed, total, fires)
	}
}

// diff returns the words that one of two texts has and the other has not.
func diff(first, second string) (out []string) {
	inFirst, inSecond := strings.Fields(first), strings.Fields(second)
	for _, id := range slices.Concat(inFirst, inSecond) {
		if slices.Contains(inFirst, id) != slices.Contains(inSecond, id) {
			out = append(out, id)
		}
	}
	return out
}

// TestBatchSizeDoesNotChangeVerdicts: verdicts do not depend on the events that a worker evaluated before.
func TestBatchSizeDoesNotChangeVerdicts(t *testing.T) {
	random := generator{rand.New(rand.NewPCG(1, 1))}
	set := random.set(t, 100)
	var events []*pipeline.Event
	for range 500 {
		events = append(events, random.event())
	}
	// verdictsOf evaluates copies of the events in blocks of a size, and returns all verdicts.
	verdictsOf := func(size int) string {
		var out []string
		for chunk := range slices.Chunk(events, size) {
			copies := make([]*pipeline.Event, len(chunk))
			for i, event := range chunk {
				copies[i] = proto.Clone(event).(*pipeline.Event)
			}
			set.Evaluate(copies)
			for _, event := range copies {
				for _, verdict := range event.Verdicts {
					out = append(out, verdict.String())
				}
				out = append(out, "|")
			}
		}
		return strings.Join(out, "\n")
	}
	want := verdictsOf(1)
	for _, size := range []int{2, 7, 100, 500} {
		if verdictsOf(size) != want {
			t.Errorf("blocks of %d have other verdicts", size)
		}
	}
}

// TestVerdictsDoNotAliasTheEvent: the strings of an event are in a buffer that the next block overwrites.
func TestVerdictsDoNotAliasTheEvent(t *testing.T) {
	text := ruleYAML("r", `message contains "secret"`) + "  alert: '{message}'\n  group: [message]\n"
	set, err := compileText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	buf := []byte("secret line")
	event := &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: aliasOf(buf)}}
	set.Evaluate([]*pipeline.Event{event})
	copy(buf, "XXXXXXXXXXX")
	if verdict := event.Verdicts[0]; verdict.Evidence != "secret line" || verdict.Group != `message="secret line"` {
		t.Errorf("%q %q", verdict.Evidence, verdict.Group)
	}
}

// aliasOf returns a string that shares the bytes of b.
func aliasOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// TestRequiredLiteralsAreNecessary: every text that a regular expression matches contains one of its required
// literals.
func TestRequiredLiteralsAreNecessary(t *testing.T) {
	random := generator{rand.New(rand.NewPCG(9, 9))}
	patterns := []string{
		`a(b|c)+d`, `(?i)sel(x|ection)?`, `(abc|abd|x{2,3}y)`, `\Aab`, `(?i)union\s+select`, `ab*c+`, `(a|b)(c|d)`,
		`[aA]bc`, `(?i:k)ab`, `é+`, `\x{fffd}a`, `a?b`, `(ab){2}`, `a{0}b`, `(?i)\x{17f}elect`, `(?i)passwd`, `x(?:)y`,
		`(?i)(ab|AB)c`, `\babc\b`, `İ|i`,
	}
	matched := 0
	for _, pattern := range patterns {
		re := regexp.MustCompile(pattern)
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		literals, fold := requiredLiterals(tree, 0)
		for range 4000 {
			text := random.text() + random.pick("abc", "abd", "ac", "xxy", "SELECT", "ſelect", "\xffa", "", "union  SELECT",
				"PAſſWD", "\u212aab", "xy", "abab", "ABC")
			if !re.MatchString(text) {
				continue
			}
			matched++
			has := literals == nil
			for _, literal := range literals {
				has = has || strings.Contains(text, literal) ||
					fold && strings.Contains(lowerASCII(text), lowerASCII(literal))
			}
			if !has {
				t.Fatalf("%s matches %q, but none of %q (fold %v) is in it", pattern, text, literals, fold)
			}
		}
	}
	if matched < 10000 {
		t.Errorf("only %d matches", matched)
	}
}

// TestAutomatonFindsEveryLiteral: the literals are of few letters, so that they overlap and end within each
// other, or of all bytes.
func TestAutomatonFindsEveryLiteral(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	// word returns a random word of some letters, or of all bytes if letters is empty.
	word := func(length int, letters string) string {
		chosen := make([]byte, length)
		for i := range chosen {
			if letters == "" {
				chosen[i] = byte(rng.IntN(256))
			} else {
				chosen[i] = letters[rng.IntN(len(letters))]
			}
		}
		return string(chosen)
	}

	for round := range 400 {
		letters, fold := []string{"ab", "abcAB", "", "xyz./%"}[round%4], round%3 == 0
		seen := map[string]bool{}
		var patterns []string
		for range 1 + rng.IntN(60) {
			pattern := word(1+rng.IntN(literalBytes), letters)
			if fold {
				pattern = lowerASCII(pattern)
			}
			if !seen[pattern] {
				seen[pattern] = true
				patterns = append(patterns, pattern)
			}
		}
		automaton := newAutomaton(patterns, fold)
		for range 20 {
			text := word(rng.IntN(40), letters)
			found := map[int32]bool{} // the indexes of patterns
			state := int32(0)
			for i := range len(text) {
				state = automaton.next[state+int32(automaton.class[text[i]])]
				if state >= automaton.firstOutput {
					for _, index := range automaton.output[(state-automaton.firstOutput)/automaton.classes] {
						found[index] = true
					}
				}
			}
			where := text
			if fold {
				where = lowerASCII(text)
			}
			for i, pattern := range patterns {
				if strings.Contains(where, pattern) && !found[int32(i)] {
					t.Fatalf("%q in %q was not found (fold %v)", pattern, text, fold)
				}
			}
		}
	}
}
