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

// generator makes random rules and events over a small vocabulary, so that rules match.
type generator struct{ *rand.Rand }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

// vocabulary has texts that indexes get wrong: upper and lower case, characters that fold to ASCII (ſ, K, İ),
// bytes that are not UTF-8, prefixes of each other.
var vocabulary = []string{
	"", "a", "ab", "abc", "ABC", "aBcd", "union select", "UNION SELECT", "../", "%2e%2e/", "%252e", "k", "K", "\u212a", "ſelect", "İd", "i", "\xff\xfe", "\ufffd",
	"passwd", "/etc/passwd", "/etc/shadow", "10.0.0.1", "x+y", "x y", "${jndi:ldap", "aaaaaaaaaaaaaaaa", "abababab", "é", "GET", "POST", "log", "http",
}

func (g generator) text() string {
	var b strings.Builder
	for range g.IntN(4) {
		b.WriteString(vocabulary[g.IntN(len(vocabulary))])
	}
	return b.String()
}

func (g generator) constant() string {
	for {
		t := g.text()
		if strings.ToValidUTF8(t, "") == t {
			return t
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
	e := &pipeline.Event{
		Dataset:   pipeline.Dataset(g.IntN(pipeline.NumDatasets + 2)), // with ones that this binary does not know
		Outcome:   pipeline.Outcome(g.IntN(3)),
		Partial:   g.IntN(2) == 0,
		Source:    &pipeline.Endpoint{Ip: g.addr(), Port: uint32(g.IntN(3))},
		Container: &pipeline.Container{Name: g.text(), Labels: []*pipeline.Label{{Key: "app", Value: g.text()}}},
	}
	// Sometimes the body is of another dataset than the event says.
	body := int(e.Dataset)
	if g.IntN(5) == 0 {
		body = g.IntN(pipeline.NumDatasets)
	}
	switch pipeline.Dataset(body) {
	case pipeline.Dataset_HTTP:
		e.Http = &pipeline.HTTPExchange{
			Method: g.pick("", "GET", "POST"), UrlPath: g.text(), UrlQuery: g.text(), StatusCode: uint32(g.IntN(3) * 200), UserAgent: g.text(),
			XForwardedFor: g.texts(),
		}
	case pipeline.Dataset_DNS:
		e.Dns = &pipeline.DNSMessage{QuestionName: g.text(), AnswersData: g.texts(), AnswersTtl: []uint32{uint32(g.IntN(3)), 1}, AnswersCount: uint32(g.IntN(3))}
	case pipeline.Dataset_LOG:
		e.Log = &pipeline.LogLine{Message: g.text(), Truncated: g.IntN(2) == 0}
	case pipeline.Dataset_CONTAINER:
		e.Change = &pipeline.ContainerChange{Action: g.pick("die", "oom", ""), ExitCode: int32(g.IntN(2) * 137)}
	}
	return e
}

func (g generator) subject() string {
	s := g.pick("url.path", "url.query", "user_agent.original", "message", "dns.question.name", "container.name", `label("app")`, "http.request.method")
	switch g.IntN(5) {
	case 0:
		return "lower(" + s + ")"
	case 1:
		return "unescape(" + s + ")"
	case 2:
		return "lower(unescape(" + s + "))"
	}
	return s
}

func (g generator) list() string {
	var parts []string
	for range 1 + g.IntN(3) {
		parts = append(parts, fmt.Sprintf("%q", g.constant()))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (g generator) regex() string {
	return g.pick(`ab+c`, `(?i)abc`, `(?i)select`, `(?i)k`, `^/etc/(passwd|shadow)`, `union\\s+select`, `[a-z]*`, `a|b`, `(foo)?`, `.{2,5}`, `x{0,3}`, `(?i:union) SELECT`, `\\x{fffd}`, `é`, `a$`, `(?s).+`, `(?i)İ`)
}

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

func (g generator) leaf() string {
	switch g.IntN(14) {
	case 0:
		return fmt.Sprintf("http.response.status_code %s %d", g.pick("==", "!=", "<", "<=", ">", ">="), g.IntN(3)*200)
	case 1:
		return fmt.Sprintf("http.response.status_code in [%d, %d]", g.IntN(3)*200, g.IntN(3)*200)
	case 2:
		return g.pick("event.partial", "log.truncated", "has(url.path)", "has(process.exit_code)", "has(source.ip)", "has(message)")
	case 3:
		return fmt.Sprintf(`source.ip %s "10.0.0.%d"`, g.pick("==", "!="), g.IntN(4))
	case 4:
		return fmt.Sprintf(`cidr(source.ip, "10.0.0.%d/%d", "10.0.0.0")`, g.IntN(2)*2, 31)
	case 5:
		return fmt.Sprintf("%s(%s, %s)", g.pick("any", "all", "none", "one"), g.pick("http.request.x_forwarded_for", "dns.answers.data"), g.condition(1, "#"))
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

func (g generator) set(tb testing.TB, n int) *Set {
	var b strings.Builder
	for i := range n {
		b.WriteString(ruleYAML(fmt.Sprintf("r%04d", i), g.condition(g.IntN(4), "")))
		if g.IntN(4) == 0 {
			b.WriteString("  exceptions: ['" + g.condition(1, "") + "']\n")
		}
	}
	sources := []Source{{Name: "random", Data: []byte(b.String())}}
	for {
		set, err := Compile(Default(), sources, nil, nil)
		if err == nil {
			return set
		}
		// Rules whose condition can never be true do not compile; they are removed.
		text := string(sources[0].Data)
		var list Errors
		if !errors.As(err, &list) {
			tb.Fatal(err)
		}
		for _, e := range list {
			if !strings.Contains(e.Err.Error(), "can never be true") {
				tb.Fatal(e)
			}
			id, _, _ := strings.Cut(e.Key, ":")
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

// plain evaluates e by every rule, without the index and its datasets.
func plain(s *Set, e *pipeline.Event) string {
	w := s.acquireWorker()
	defer s.releaseWorker(w)
	w.values.setEvent(e)
	var ids []string
	if int(e.Dataset) >= pipeline.NumDatasets {
		return ""
	}
	for _, r := range s.rules {
		if s.matchesRule(w, r) {
			ids = append(ids, r.ID)
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
		g := generator{rand.New(rand.NewPCG(uint64(seed), 7))}
		set := g.set(t, 60)
		for _, r := range set.Rules() {
			if total++; r.Indexed {
				indexed++
			}
		}
		for range 300 {
			e := g.event()
			want := plain(set, e)
			set.Evaluate([]*pipeline.Event{e})
			if got := fired(e); got != want {
				for _, id := range diff(got, want) {
					i := slices.IndexFunc(set.rules, func(r *Rule) bool { return r.ID == id })
					t.Errorf("seed %d: %s: %s\n  %v", seed, id, set.rules[i].When, e)
				}
				t.Fatalf("index: %s\nloop:  %s", got, want)
			}
			fires += len(e.Verdicts)
		}
	}
	t.Logf("%d rules, %d indexed, %d verdicts", total, indexed, fires)
	if indexed*5 < total || fires < rounds*100 {
		t.Errorf("the test has gone blind: %d of %d rules are indexed, %d verdicts", indexed, total, fires)
	}
}

func diff(a, b string) (out []string) {
	x, y := strings.Fields(a), strings.Fields(b)
	for _, id := range append(x, y...) {
		if slices.Contains(strings.Fields(a), id) != slices.Contains(strings.Fields(b), id) {
			out = append(out, id)
		}
	}
	return out
}

// TestBatchSizeDoesNotChangeVerdicts: verdicts do not depend on the events that a worker evaluated before.
func TestBatchSizeDoesNotChangeVerdicts(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 1))}
	set := g.set(t, 100)
	var events []*pipeline.Event
	for range 500 {
		events = append(events, g.event())
	}
	verdictsOf := func(size int) string {
		var out []string
		for chunk := range slices.Chunk(events, size) {
			copies := make([]*pipeline.Event, len(chunk))
			for i, e := range chunk {
				copies[i] = proto.Clone(e).(*pipeline.Event)
			}
			set.Evaluate(copies)
			for _, e := range copies {
				for _, v := range e.Verdicts {
					out = append(out, v.String())
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

// TestVerdictsDoNotAliasTheEvent: its strings lie in a buffer that the next block overwrites.
func TestVerdictsDoNotAliasTheEvent(t *testing.T) {
	set, err := compileText(t, ruleYAML("r", `message contains "secret"`)+"  alert: '{message}'\n  group: [message]\n")
	if err != nil {
		t.Fatal(err)
	}
	buf := []byte("secret line")
	e := &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: aliasOf(buf)}}
	set.Evaluate([]*pipeline.Event{e})
	copy(buf, "XXXXXXXXXXX")
	if v := e.Verdicts[0]; v.Evidence != "secret line" || v.Group != "secret line" {
		t.Errorf("%q %q", v.Evidence, v.Group)
	}
}

func aliasOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// TestRequiredLiteralsAreNecessary: every match of a regular expression contains one of its required
// literals.
func TestRequiredLiteralsAreNecessary(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(9, 9))}
	patterns := []string{
		`a(b|c)+d`, `(?i)sel(x|ection)?`, `(abc|abd|x{2,3}y)`, `\Aab`, `(?i)union\s+select`, `ab*c+`, `(a|b)(c|d)`, `[aA]bc`, `(?i:k)ab`, `é+`, `\x{fffd}a`, `a?b`, `(ab){2}`, `a{0}b`,
		`(?i)\x{17f}elect`, `(?i)passwd`, `x(?:)y`, `(?i)(ab|AB)c`, `\babc\b`, `İ|i`,
	}
	matched := 0
	for _, p := range patterns {
		re := regexp.MustCompile(p)
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		lits, fold := requiredLiterals(tree, 0)
		for range 4000 {
			s := g.text() + g.pick("abc", "abd", "ac", "xxy", "SELECT", "ſelect", "\xffa", "", "union  SELECT", "PAſſWD", "\u212aab", "xy", "abab", "ABC")
			if !re.MatchString(s) {
				continue
			}
			matched++
			has := lits == nil
			for _, l := range lits {
				has = has || strings.Contains(s, l) || fold && strings.Contains(lowerASCII(s), lowerASCII(l))
			}
			if !has {
				t.Fatalf("%s matches %q, but none of %q (fold %v) is in it", p, s, lits, fold)
			}
		}
	}
	if matched < 10000 {
		t.Errorf("only %d matches", matched)
	}
}

// TestAutomatonFindsEveryLiteral: also literals that end within others, over few letters so that they
// overlap, and over all bytes.
func TestAutomatonFindsEveryLiteral(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	word := func(n int, letters string) string {
		b := make([]byte, n)
		for i := range b {
			if letters == "" {
				b[i] = byte(r.IntN(256))
			} else {
				b[i] = letters[r.IntN(len(letters))]
			}
		}
		return string(b)
	}
	for round := range 400 {
		letters, fold := []string{"ab", "abcAB", "", "xyz./%"}[round%4], round%3 == 0
		seen := map[string]bool{}
		var patterns []string
		for range 1 + r.IntN(60) {
			p := word(1+r.IntN(literalBytes), letters)
			if fold {
				p = lowerASCII(p)
			}
			if !seen[p] {
				seen[p] = true
				patterns = append(patterns, p)
			}
		}
		a := newAutomaton(patterns, fold)
		for range 20 {
			text := word(r.IntN(40), letters)
			found := map[int32]bool{}
			state := int32(0)
			for i := range len(text) {
				state = a.next[state+int32(a.class[text[i]])]
				if state >= a.firstOutput {
					for _, w := range a.output[(state-a.firstOutput)/a.classes] {
						found[w] = true
					}
				}
			}
			where := text
			if fold {
				where = lowerASCII(text)
			}
			for i, p := range patterns {
				if strings.Contains(where, p) && !found[int32(i)] {
					t.Fatalf("%q in %q was not found (fold %v)", p, text, fold)
				}
			}
		}
	}
}
