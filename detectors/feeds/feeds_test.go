package feeds

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// load returns the set of a feed with these lines.
func load(t testing.TB, content string) (*Set, SkippedLines) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "feed.txt")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	set, skipped, err := Load(t.Context(), []Config{{Name: "test", Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	return set, skipped
}

// lookup returns a DNS message with the addresses of its answer.
func lookup(name string, resolved ...string) *pipeline.Event {
	message := &pipeline.DNSMessage{QuestionName: name, ResolvedIp: resolved}
	return &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: message}
}

// sessionTo returns a session with a server.
func sessionTo(ip string) *pipeline.Event {
	server := &pipeline.Endpoint{Ip: netip.MustParseAddr(ip).AsSlice()}
	return &pipeline.Event{Dataset: pipeline.Dataset_SESSION, Destination: server}
}

// mixed is a feed with a line of each form.
const mixed = `# a comment
evil.example
0.0.0.0 tracker.example other.example # a hosts line
"quoted.example",90,"calls, home"
203.0.113.7,40,scanner
198.51.100.0/24
2001:db8:bad::/48
UPPER.Example.
*.wild.example
bücher.example
`

func TestIndicatorsAreFound(t *testing.T) {
	set, skipped := load(t, mixed)
	if skipped.Count != 0 {
		t.Fatalf("skipped %v", skipped.Errors)
	}
	// check checks that the event has one verdict, whose evidence contains want, or none if want is empty.
	check := func(event *pipeline.Event, want string) {
		t.Helper()
		set.Evaluate([]*pipeline.Event{event})
		got := ""
		for _, verdict := range event.Verdicts {
			got += verdict.Evidence + "; "
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if want != "" && len(event.Verdicts) != 1 {
			t.Errorf("%q: %d verdicts", want, len(event.Verdicts))
		}
	}
	check(lookup("evil.example"), "dns.question.name evil.example is listed in feed test, confidence 75")
	check(lookup("a.b.evil.example"), "dns.question.name a.b.evil.example is listed as evil.example in feed test")
	check(lookup("A.EVIL.example"), "is listed as evil.example")
	check(lookup("evil.example", "203.0.113.7"), "evil.example is listed in feed test") // one verdict for two indicators
	check(lookup("notevil.example"), "")
	check(lookup("example"), "")
	check(lookup(""), "")
	check(lookup("tracker.example"), "tracker.example")
	check(lookup("other.example"), "other.example")
	check(lookup("quoted.example"), "calls, home")
	check(lookup("upper.example"), "upper.example")
	check(lookup("x.wild.example"), "wild.example")
	check(lookup("xn--bcher-kva.example"), "xn--bcher-kva.example")
	check(lookup("fine.test", "203.0.113.7", "203.0.113.7"),
		"dns.resolved_ip 203.0.113.7 is listed in feed test, confidence 40: scanner")
	check(sessionTo("198.51.100.9"), "destination.ip 198.51.100.9 is listed as 198.51.100.0/24")
	check(sessionTo("198.51.101.9"), "")
	check(sessionTo("2001:db8:bad:1::1"), "2001:db8:bad::/48")
	check(sessionTo("::ffff:203.0.113.7"), "203.0.113.7")

	exchange := &pipeline.HTTPExchange{UrlDomain: "evil.example"}
	check(&pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: exchange}, "url.domain evil.example is listed")
	handshake := &pipeline.TLSHandshake{ServerName: "evil.example"}
	check(&pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: handshake}, "tls.client.server_name")
	invalid := &pipeline.Endpoint{Ip: []byte{1, 2}}
	check(&pipeline.Event{Dataset: pipeline.Dataset_SESSION, Source: invalid}, "")
}

func TestBadLinesAreNamedAndSkipped(t *testing.T) {
	check := func(line, want string) {
		t.Helper()
		set, skipped := load(t, "good.example\n"+line+"\nalso-good.example\n")
		if set.Len() != 2 || skipped.Count != 1 {
			t.Fatalf("%q: %d indicators, skipped %v; want %q", line, set.Len(), skipped.Errors, want)
		}
		message := skipped.Errors[0].Error()
		if !strings.Contains(message, "feed.txt:2: ") || !strings.Contains(message, want) {
			t.Errorf("%q: skipped %v; want %q", line, skipped.Errors, want)
		}
	}
	check("com", "not a network")
	check("co.uk", "public suffix")
	check("a..b", "label")
	check("bad domain.example", "neither one indicator")
	check("300.1.2.3/24", "not a network")
	check("10.0.0.0/4", "too wide")
	check("127.0.0.1", "not that of one host")
	check("evil2.example,many", "confidence")
	check("evil2.example,101", "confidence")
	check(strings.Repeat("x", maxLine+10), "longer than")
	check("sp\x00ace.example", "label")
}

func TestMissingFileIsAnError(t *testing.T) {
	_, _, err := Load(t.Context(), []Config{{Name: "gone", Path: "/nonexistent/feed"}})
	if err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
}

// TestFilterNeverMisses: each of 40,000 indicators is found, also by its subdomains, and nothing else is.
func TestFilterNeverMisses(t *testing.T) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "d%d.example\n45.%d.%d.1\n", i, i/250, i%250)
	}
	set, _ := load(t, text.String())
	for i := range 20000 {
		for _, event := range []*pipeline.Event{
			lookup(fmt.Sprintf("x.d%d.example", i)), sessionTo(fmt.Sprintf("45.%d.%d.1", i/250, i%250)),
		} {
			if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 {
				t.Fatalf("%v was not found", event)
			}
		}
		for _, event := range []*pipeline.Event{
			lookup(fmt.Sprintf("x.e%d.example", i)), sessionTo(fmt.Sprintf("45.%d.%d.2", i/250, i%250)),
		} {
			if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 0 {
				t.Fatalf("%v was found", event)
			}
		}
	}
}

// TestVerdictsDoNotAliasTheEvent: the strings of an event are in a buffer that the next block overwrites.
func TestVerdictsDoNotAliasTheEvent(t *testing.T) {
	set, _ := load(t, mixed)
	buf := []byte("x.evil.example")
	event := lookup(string(buf))
	event.Dns.QuestionName = unsafeString(buf)
	set.Evaluate([]*pipeline.Event{event})
	before := event.Verdicts[0].Evidence
	want := strings.Clone(before)
	copy(buf, "################")
	if event.Verdicts[0].Evidence != want {
		t.Error("the evidence aliases the event")
	}
}

// FuzzFeedLines checks that each domain that is read from any text is found.
func FuzzFeedLines(f *testing.F) {
	for line := range strings.SplitSeq(mixed, "\n") {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, in string) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in string) {
			read := &list{name: "f", config: Config{Path: "f"}, details: details{room: maxDetails}}
			var names []string
			read.onAdd = func(key []byte) {
				if typeOf(key) == DomainType {
					names = append(names, keyText(key))
				}
			}
			if err := read.newParser(maxIndicators).readLines(strings.NewReader(in)); err != nil {
				t.Fatal(err)
			}
			read.finish()
			set := newSet([]*list{read})
			for _, name := range names {
				event := lookup("x." + name)
				if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) == 0 && len(name) < 250 {
					t.Errorf("%q was read and is not found", name)
				}
			}
		})
	})
}

// BenchmarkEvaluateClean measures events without an indicator, against a feed of 200,000.
func BenchmarkEvaluateClean(b *testing.B) {
	var feed strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&feed, "d%d.example\n45.%d.%d.1\n", i, i/250%250, i%250)
	}
	set, _ := load(b, feed.String())
	chain := lookup("www.shop.example.test", "192.0.2.1")
	chain.Dns.AnswersType, chain.Dns.AnswersData = []string{"CNAME", "A"}, []string{"cdn.shop.example.test", "192.0.2.1"}
	block := []*pipeline.Event{
		lookup("www.shop.example.test", "192.0.2.1"), sessionTo("192.0.2.1"),
		{Dataset: pipeline.Dataset_LOG},
		chain,
		{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlDomain: "www.shop.example.test"}},
		{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{ServerName: "www.shop.example.test"}},
	}
	b.ReportAllocs()
	for b.Loop() {
		set.Evaluate(block)
	}
}

// unsafeString returns a string that shares the bytes of b.
func unsafeString(b []byte) string { return unsafe.String(&b[0], len(b)) }

// TestWatchLoadsAChangedFeed: a changed file is loaded into a new set. After a file was removed, the old set
// stays.
func TestWatchLoadsAChangedFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "feed.txt")
		write := func(text string) {
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		write("one.example\n")
		cfgs := []Config{{Name: "test", Path: path}}
		log, metrics := slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry())
		first, err := LoadAndLog(cfgs, log, metrics)
		if err != nil {
			t.Fatal(err)
		}
		var sets []*Set
		ctx, cancel := context.WithCancel(t.Context())
		write("one.example\ntwo.example\n") // between the load and the watch
		onChange := func(set *Set) { sets = append(sets, set) }
		go Watcher{Feeds: cfgs, Current: first, OnChange: onChange, Log: log, Metrics: metrics}.Run(ctx)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(sets) != 1 || sets[0].Len() != 2 || sets[0].Version() == first.Version() {
			t.Fatalf("got %v", sets)
		}

		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(sets) != 1 {
			t.Fatalf("a removed file has replaced the set")
		}

		write("three.example\n")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(sets) != 2 || sets[1].Len() != 1 {
			t.Fatalf("got %v", sets)
		}
		cancel()
		synctest.Wait()
	})
}

// TestConfidenceIsThatOfTheLine: a confidence of 0 in the line counts too. A line without a confidence has
// that of the feed.
func TestConfidenceIsThatOfTheLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed.csv")
	const lines = "zero.example,0\nsome.example,40\nnone.example,,a note\nplain.example\n203.0.113.7,0\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(feed uint32, event *pipeline.Event, want uint32) {
		t.Helper()
		set, _, err := Load(t.Context(), []Config{{Name: "test", Path: path, Confidence: feed}})
		if err != nil {
			t.Fatal(err)
		}
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 1 || event.Verdicts[0].Score != want {
			t.Errorf("got %v, want score %d", event.Verdicts, want)
		}
	}
	check(0, lookup("zero.example"), 0)
	check(0, sessionTo("203.0.113.7"), 0)
	check(60, lookup("some.example"), 40)
	check(60, lookup("none.example"), 60)
	check(60, lookup("plain.example"), 60)
	check(0, lookup("plain.example"), 75)
}

// TestVersionFollowsFilesAndSettings: sets with different verdicts have different versions.
func TestVersionFollowsFilesAndSettings(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	seen := map[string]string{}
	check := func(name string, cfgs ...Config) {
		t.Helper()
		set, _, err := Load(t.Context(), cfgs)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[set.Version()]; ok {
			t.Errorf("%s has the version of %s", name, before)
		}
		seen[set.Version()] = name
	}
	one, two := file("one", "a.example\n"), file("two", "b.example\n")
	both, none := file("both", "a.example\nb.example\n"), file("none", "")
	check("low", Config{Name: "x", Path: one, Severity: "low"})
	check("high", Config{Name: "x", Path: one, Severity: "high"})
	check("confidence", Config{Name: "x", Path: one, Severity: "high", Confidence: 90})
	check("name", Config{Name: "y", Path: one, Severity: "high"})
	check("one and two", Config{Name: "x", Path: one}, Config{Name: "y", Path: two})
	check("both and none", Config{Name: "x", Path: both}, Config{Name: "y", Path: none})
}

// TestIndicatorsDoNotKeepTheirLines: with lines of 4 KiB, a feed of twenty million lines would take 80 GB.
func TestIndicatorsDoNotKeepTheirLines(t *testing.T) {
	const lines = 4000
	path := filepath.Join(t.TempDir(), "feed.csv")
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "d%d.example,50,%s\n", i, strings.Repeat("long note ", 350))
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before := heap()
	set, _, err := Load(t.Context(), []Config{{Name: "test", Path: path}})
	if err != nil || set.Len() != lines {
		t.Fatalf("%d indicators, %v", set.Len(), err)
	}
	if each := (heap() - before) / lines; each > 1000 {
		t.Errorf("%d bytes per indicator", each)
	}
	runtime.KeepAlive(set)
	runtime.KeepAlive(&text)
}

// TestFilterMissesNoIndicator: the bloom filter passes every key of the lists, and few others.
func TestFilterMissesNoIndicator(t *testing.T) {
	var text strings.Builder
	const count = 20_000
	for i := range count {
		fmt.Fprintf(&text, "d%d.example\n", i)
	}
	set, _ := load(t, text.String())
	passed := 0
	for i := range count {
		if !set.filter.mayContain(hashKey(fmt.Appendf(nil, "d%d.example", i))) {
			t.Fatalf("d%d.example does not pass the filter", i)
		}
		if set.filter.mayContain(hashKey(fmt.Appendf(nil, "o%d.example", i))) {
			passed++
		}
	}
	if share := float64(passed) / count; share > 3*falsePositives {
		t.Errorf("%.4f of other names pass the filter, want about %v", share, falsePositives)
	}
}
