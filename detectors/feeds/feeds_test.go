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
)

func load(t testing.TB, content string) (*Set, SkippedLines) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "feed.txt")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s, skipped, err := Load([]Config{{Name: "test", Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	return s, skipped
}

func lookup(name string, resolved ...string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: name, ResolvedIp: resolved}}
}

func reach(ip string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_SESSION, Destination: &pipeline.Endpoint{Ip: netip.MustParseAddr(ip).AsSlice()}}
}

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
	s, skipped := load(t, mixed)
	if skipped.Count != 0 {
		t.Fatalf("skipped %v", skipped.Errors)
	}
	check := func(e *pipeline.Event, want string) {
		t.Helper()
		s.Evaluate([]*pipeline.Event{e})
		got := ""
		for _, v := range e.Verdicts {
			got += v.Evidence + "; "
		}
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if want != "" && len(e.Verdicts) != 1 {
			t.Errorf("%q: %d verdicts", want, len(e.Verdicts))
		}
	}
	check(lookup("evil.example"), "dns.question.name evil.example is listed in feed test, confidence 75")
	check(lookup("a.b.evil.example"), "dns.question.name a.b.evil.example is listed as evil.example in feed test")
	check(lookup("A.EVIL.example"), "is listed as evil.example")
	check(lookup("evil.example", "203.0.113.7"), "evil.example is listed in feed test") // one indicator of a query is enough
	check(lookup("notevil.example"), "")
	check(lookup("example"), "")
	check(lookup(""), "")
	check(lookup("tracker.example"), "tracker.example")
	check(lookup("other.example"), "other.example")
	check(lookup("quoted.example"), "calls, home")
	check(lookup("upper.example"), "upper.example")
	check(lookup("x.wild.example"), "wild.example")
	check(lookup("xn--bcher-kva.example"), "xn--bcher-kva.example")
	check(lookup("fine.test", "203.0.113.7", "203.0.113.7"), "dns.resolved_ip 203.0.113.7 is listed in feed test, confidence 40: scanner")
	check(reach("198.51.100.9"), "destination.ip 198.51.100.9 is listed as 198.51.100.0/24")
	check(reach("198.51.101.9"), "")
	check(reach("2001:db8:bad:1::1"), "2001:db8:bad::/48")
	check(reach("::ffff:203.0.113.7"), "203.0.113.7")
	check(&pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlDomain: "evil.example"}}, "url.domain evil.example is listed")
	check(&pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{ServerName: "evil.example"}}, "tls.client.server_name")
	check(&pipeline.Event{Dataset: pipeline.Dataset_SESSION, Source: &pipeline.Endpoint{Ip: []byte{1, 2}}}, "")
}

func TestBadLinesAreNamedAndSkipped(t *testing.T) {
	check := func(line, want string) {
		t.Helper()
		s, skipped := load(t, "good.example\n"+line+"\nalso-good.example\n")
		if s.Len() != 2 || skipped.Count != 1 || !strings.Contains(skipped.Errors[0].Error(), "feed.txt:2: ") || !strings.Contains(skipped.Errors[0].Error(), want) {
			t.Errorf("%q: %d indicators, skipped %v; want %q", line, s.Len(), skipped.Errors, want)
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

func TestAMissingFileIsAnError(t *testing.T) {
	if _, _, err := Load([]Config{{Name: "gone", Path: "/nonexistent/feed"}}); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("got %v", err)
	}
}

// TestTheFilterNeverMisses: whatever is in the feed is found, with its sub-domains, and what is not is not.
func TestTheFilterNeverMisses(t *testing.T) {
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "d%d.example\n10.%d.%d.1\n", i, i/250, i%250)
	}
	s, _ := load(t, b.String())
	for i := range 20000 {
		for _, e := range []*pipeline.Event{lookup(fmt.Sprintf("x.d%d.example", i)), reach(fmt.Sprintf("10.%d.%d.1", i/250, i%250))} {
			if s.Evaluate([]*pipeline.Event{e}); len(e.Verdicts) != 1 {
				t.Fatalf("%v was not found", e)
			}
		}
		for _, e := range []*pipeline.Event{lookup(fmt.Sprintf("x.e%d.example", i)), reach(fmt.Sprintf("10.%d.%d.2", i/250, i%250))} {
			if s.Evaluate([]*pipeline.Event{e}); len(e.Verdicts) != 0 {
				t.Fatalf("%v was found", e)
			}
		}
	}
}

// TestVerdictsKeepNothingOfTheEvent: the strings of an event lie in Kafka's buffer, which is used again.
func TestVerdictsKeepNothingOfTheEvent(t *testing.T) {
	s, _ := load(t, mixed)
	buf := []byte("x.evil.example")
	e := lookup(string(buf))
	e.Dns.QuestionName = unsafeString(buf)
	s.Evaluate([]*pipeline.Event{e})
	before := e.Verdicts[0].Evidence
	want := strings.Clone(before)
	copy(buf, "################")
	if e.Verdicts[0].Evidence != want {
		t.Error("the evidence aliases the event")
	}
}

func FuzzFeedLines(f *testing.F) {
	for l := range strings.SplitSeq(mixed, "\n") {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, skipped := newSet(), SkippedLines{}
		s.feeds = []feed{{name: "f"}}
		if err := s.readLines(Config{Path: "f"}, 0, strings.NewReader(in), &skipped); err != nil {
			t.Fatal(err)
		}
		s.buildFilter()
		for name := range s.domains {
			e := lookup("x." + name)
			if s.Evaluate([]*pipeline.Event{e}); len(e.Verdicts) == 0 && len(name) < 250 {
				t.Errorf("%q was taken and is not found", name)
			}
		}
	})
}

func BenchmarkEvaluateClean(b *testing.B) {
	var feed strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&feed, "d%d.example\n10.%d.%d.1\n", i, i/250%250, i%250)
	}
	s, _ := load(b, feed.String())
	block := []*pipeline.Event{lookup("www.shop.example.test", "192.0.2.1"), reach("192.0.2.1"), {Dataset: pipeline.Dataset_LOG}}
	b.ReportAllocs()
	for b.Loop() {
		s.Evaluate(block)
	}
}

func unsafeString(b []byte) string { return unsafe.String(&b[0], len(b)) }

// TestWatchSwapsAChangedFeed: a changed file makes a new set, and a file that vanishes leaves the old one.
func TestWatchSwapsAChangedFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "feed.txt")
		write := func(s string) {
			if err := os.WriteFile(path+".new", []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		write("one.example\n")
		cfgs := []Config{{Name: "test", Path: path}}
		log, m := slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry())
		first, err := LoadAndLog(cfgs, log, m)
		if err != nil {
			t.Fatal(err)
		}
		var sets []*Set
		ctx, cancel := context.WithCancel(t.Context())
		write("one.example\ntwo.example\n") // between the load and the watch
		go Watcher{Feeds: cfgs, Current: first, OnChange: func(s *Set) { sets = append(sets, s) }, Log: log, Metrics: m}.Run(ctx)
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
			t.Fatalf("a vanished file made a set")
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

// TestConfidenceOfALine: what a line says counts, nothing at all included; only where it says none is it the
// feed's.
func TestConfidenceOfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed.csv")
	if err := os.WriteFile(path, []byte("zero.example,0\nsome.example,40\nnone.example,,a note\nplain.example\n203.0.113.7,0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(feed uint32, e *pipeline.Event, want uint32) {
		t.Helper()
		s, _, err := Load([]Config{{Name: "test", Path: path, Confidence: feed}})
		if err != nil {
			t.Fatal(err)
		}
		s.Evaluate([]*pipeline.Event{e})
		if len(e.Verdicts) != 1 || e.Verdicts[0].Score != want {
			t.Errorf("got %v, want score %d", e.Verdicts, want)
		}
	}
	check(0, lookup("zero.example"), 0)
	check(0, reach("203.0.113.7"), 0)
	check(60, lookup("some.example"), 40)
	check(60, lookup("none.example"), 60)
	check(60, lookup("plain.example"), 60)
	check(0, lookup("plain.example"), 75)
}

// TestVersionIsOfFilesAndSettings: two sets of the same version give the same verdicts.
func TestVersionIsOfFilesAndSettings(t *testing.T) {
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
		s, _, err := Load(cfgs)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[s.Version()]; ok {
			t.Errorf("%s has the version of %s", name, before)
		}
		seen[s.Version()] = name
	}
	one, two, both, none := file("one", "a.example\n"), file("two", "b.example\n"), file("both", "a.example\nb.example\n"), file("none", "")
	check("low", Config{Name: "x", Path: one, Severity: "low"})
	check("high", Config{Name: "x", Path: one, Severity: "high"})
	check("surer", Config{Name: "x", Path: one, Severity: "high", Confidence: 90})
	check("named", Config{Name: "y", Path: one, Severity: "high"})
	check("one and two", Config{Name: "x", Path: one}, Config{Name: "y", Path: two})
	check("both and none", Config{Name: "x", Path: both}, Config{Name: "y", Path: none})
}

// TestIndicatorsDoNotKeepTheirLines: 4 KiB a line would be 80 GB of a feed of twenty millions.
func TestIndicatorsDoNotKeepTheirLines(t *testing.T) {
	const lines = 4000
	path := filepath.Join(t.TempDir(), "feed.csv")
	var b strings.Builder
	for i := range lines {
		fmt.Fprintf(&b, "d%d.example,50,%s\n", i, strings.Repeat("long note ", 350))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	s, _, err := Load([]Config{{Name: "test", Path: path}})
	if err != nil || s.Len() != lines {
		t.Fatalf("%d indicators, %v", s.Len(), err)
	}
	if each := (heap() - before) / lines; each > 1000 {
		t.Errorf("%d bytes an indicator", each)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(&b)
}
