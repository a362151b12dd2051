package feeds

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// TestFormsOfIndicators: each form in which lists write an indicator matches the same name or address.
func TestFormsOfIndicators(t *testing.T) {
	// check reads one line and returns the confidence with which event matches; -1: not at all.
	confidence := func(line string, event *pipeline.Event) int {
		set, _ := load(t, line+"\n")
		event.Verdicts = nil
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 1 {
			return -1
		}
		return int(event.Verdicts[0].Score)
	}
	check := func(line string, event *pipeline.Event, want int) {
		t.Helper()
		if got := confidence(line, event); got != want {
			t.Errorf("%q: confidence %d, want %d", line, got, want)
		}
	}
	name, sub := lookup("evil.example"), lookup("a.evil.example")
	addr, addr6 := sessionTo("203.0.113.7"), sessionTo("2001:db8::7")
	for _, line := range []string{
		"evil.example", ".evil.example", "*.evil.example", "evil.example.", "EVIL.Example", `"evil.example"`,
		"'evil.example'", "evil.example:443", "evil[.]example", "evil(.)example", "||evil.example^",
		"  evil.example\t", "evil.example # seen, often", "evil.example #x", "evil.example,", "evil.example;",
		"127.0.0.1\tevil.example", "0.0.0.0 evil.example # a, b", "::1 evil.example", ":: evil.example",
		"evil.example,,note", `"evil.example","","n"`, "evil.example\t\tnote",
	} {
		check(line, name, 75)
		check(line, sub, 75)
	}
	for line, want := range map[string]int{
		"evil.example,90": 90, `"evil.example","90","a, b"`: 90, "evil.example;90;x, y": 90, "evil.example\t90\tx": 90,
		"evil.example,90.5": 91, "evil.example, 90.4 ,n": 90, "evil.example,90%": 90, "evil.example:8080,12": 12,
		".evil.example;'33'": 33, "evil.example,100": 100, "evil.example,0": 0, "evil.example,1e1": 10,
		"evil.example,100.1": -1, "evil.example,-1": -1, "evil.example,NaN": -1, "evil.example,x": -1, "evil.example 90": -1,
		"evil.example,Inf": -1,
	} {
		check(line, name, want)
	}
	for _, line := range []string{
		"203.0.113.7", "203.0.113.7:4444", `"203.0.113.7","75"`, "203.0.113.7/32", "203.0.113.0/24", "::ffff:203.0.113.7",
		"203[.]0[.]113[.]7", "203.0.113.0/24 ; SBL000001", "203.0.113.7;comment",
	} {
		check(line, addr, 75)
	}
	for _, line := range []string{"2001:db8::7", "[2001:db8::7]:443", "[2001:db8::7]", "2001:DB8:0::7", "2001:db8::/32", "2001:db8::7/128"} {
		check(line, addr6, 75)
	}
}

// TestNameInUnicodeMatchesItsPunycode: a list and an event may write a name in either form.
func TestNameInUnicodeMatchesItsPunycode(t *testing.T) {
	for _, listed := range []string{"bücher.example", "xn--bcher-kva.example", "BÜCHER.example"} {
		set, skipped := load(t, listed+"\n")
		for _, name := range []string{"bücher.example", "www.BÜCHER.example", "xn--bcher-kva.example", "bücher。example"} {
			event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlDomain: name}}
			if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 {
				t.Errorf("%s does not match %s (%v)", listed, name, skipped)
			}
		}
	}
	set, _ := load(t, "bücher.example\n")
	set.Evaluate([]*pipeline.Event{lookup("\xff\xfe.example"), lookup(strings.Repeat("ü", 127))}) // no panic
}

// TestNamesAndAddressesOfPrivateNetworksAreRefused: they name other hosts in each network, so they would match
// ordinary traffic.
func TestNamesAndAddressesOfPrivateNetworksAreRefused(t *testing.T) {
	lines := []string{
		"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.0/16", "192.168.1.1:80", "169.254.169.254", "100.64.1.1",
		"127.1.2.3", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "172.0.0.0/8", "fe80::1", "fe80::1%eth0",
		"fd00::1", "fc00::/16", "::1", "::", "ff02::1", "::ffff:10.0.0.1", "10.0.0.0/8",
		"db.local", "localhost.localdomain", "a.localhost", "x.internal", "nas.home.arpa", "home.arpa", "7.in-addr.arpa",
		"1.0.0.2.ip6.arpa", "ipv4only.arpa", "_dns.resolver.arpa", "a.default.service.arpa", "localhost4.localdomain4",
		"localhost6.localdomain6", "kubernetes.default.svc", "x.alt", "x.consul", "x.mail", "host.docker.internal",
		"router.lan", "host.corp", "printer.home", "x.intranet", "1.2.3.999",
	}
	set, skipped := load(t, strings.Join(lines, "\n"))
	if set.Len() != 0 || skipped.Count != len(lines) {
		t.Errorf("%d were taken, and %d left out of %d", set.Len(), skipped.Count, len(lines))
	}
	good := "172.32.0.1\n100.128.0.1\n11.0.0.1\n2001:db8::1\nlocal.example\nlocalhost.example\n198.51.100.0/24\n"
	if set, skipped := load(t, good); set.Len() != 7 {
		t.Errorf("skipped %v", skipped.Errors[0])
	}

	path := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(path, []byte("10.1.2.3\nfd00::/64\n127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set, _, err := Load(t.Context(), []Config{{Name: "own", Path: path, AllowLocal: true}})
	if err != nil || set.Len() != 2 {
		t.Errorf("%d indicators of an own list, want those of private networks: %v", set.Len(), err)
	}
}

// TestTextsThatAreNearlyAddressesAreToldAndLeftOut: as a domain such a text could never match.
func TestTextsThatAreNearlyAddressesAreToldAndLeftOut(t *testing.T) {
	lines := []string{
		"192.0.2.1-5", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "9.9.9.9-10.0.0.1", "0.0.0.0-255.255.255.255", "203.0.113", "203.0.113.010", "300.1.2.3", "1.2.3.4.5", "1.2.3.x", "1.2.3.*",
		"1.2.3.4a", "1.2.3.4e1", "0xcb.0.0x71.9", "0xcb.0x00.0x71.0x09", "203.0.113.0x9", "01.02.03.04", "1.2.3.4/33",
		"1.2.3/24", "1.2.3.0/255.255.255.0", "1.2.3.4:80/tcp", "2001:db8::g", "2001:db8:::1", "2001:db8::1/129",
		"10/8", "1.2.3.4 1612345678", "203.0.113.1-", "1.2.3._",
	}
	for _, line := range lines {
		if set, skipped := load(t, line+"\n"); set.Len() != 0 || skipped.Count != 1 {
			t.Errorf("%q: %d indicators, %d lines left out", line, set.Len(), skipped.Count)
		}
	}
	good := "evil.xn--p1ai\n1.2.3.4.example\n0x7f.example\n4.co\nпример.рф\n1-2-3-4.example\n"
	if set, skipped := load(t, good); set.Len() != 6 {
		t.Errorf("skipped %v", skipped.Errors[0])
	}
}

// TestEachFeedHasItsVerdict: an indicator of two feeds has two verdicts, each with the severity of its feed, also
// where one feed lists a parent, a network, or only the address of a name that the other lists.
func TestEachFeedHasItsVerdict(t *testing.T) {
	dir := t.TempDir()
	feed := func(name, severity, text string) Config {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Config{Name: name, Path: path, Severity: severity}
	}
	set, _, err := Load(t.Context(), []Config{
		feed("surest", "info", "both.example,90\nwww.parent.example,90\n203.0.113.7,90\nnamed.example,90\n"),
		feed("critical", "critical", "both.example,50\nparent.example,50\n203.0.113.0/24,50\nboth.example,20\n"),
		feed("other", "low", "fine.example\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	check := func(event *pipeline.Event, want ...string) {
		t.Helper()
		set.Evaluate([]*pipeline.Event{event})
		var got []string
		for _, verdict := range event.Verdicts {
			got = append(got, verdict.Rule+" "+verdict.Severity.Name())
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("verdicts %v, want %v", got, want)
		}
	}
	both := []string{"feed-critical critical", "feed-surest info"}
	check(lookup("both.example"), both...)
	check(lookup("www.parent.example"), both...)
	check(lookup("x.www.parent.example"), both...)
	check(lookup("parent.example"), "feed-critical critical")
	check(sessionTo("203.0.113.7"), both...)
	check(sessionTo("203.0.113.8"), "feed-critical critical")
	check(lookup("named.example", "203.0.113.7"), both...)
	check(lookup("fine.example"), "feed-other low")
	if set.Len() != 8 {
		t.Errorf("%d indicators, want 8: one is listed twice in one feed", set.Len())
	}
}

// TestSurerLineOfAFeedCounts: a feed lists an indicator twice.
func TestSurerLineOfAFeedCounts(t *testing.T) {
	for _, text := range []string{"a.example,20\na.example,80\n", "a.example,80\na.example,20\n", "A.example,20\n.a.example,80,n"} {
		set, _ := load(t, text)
		event := lookup("a.example")
		if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 || event.Verdicts[0].Score != 80 {
			t.Errorf("%q: %v", text, event.Verdicts)
		}
	}
}

// BenchmarkLoad reads a feed of a million domains. It reports the memory of the loaded set per line.
func BenchmarkLoad(b *testing.B) {
	const lines = 1_000_000
	var text strings.Builder
	for i := range lines {
		fmt.Fprintf(&text, "host%d.sub%d.domain%d.example\n", i, i%100, i/7)
	}
	path := filepath.Join(b.TempDir(), "feed")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	heap := func() float64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return float64(stats.HeapAlloc)
	}
	before := heap()
	var set *Set
	for b.Loop() {
		set, _, _ = Load(context.Background(), []Config{{Name: "f", Path: path}})
	}
	b.ReportMetric((heap()-before)/lines, "B/line")
	if set.Len() != lines {
		b.Errorf("%d indicators", set.Len())
	}
}

// TestLabelWithoutPunycodeHidesNoDomain: a client chooses its first label.
func TestLabelWithoutPunycodeHidesNoDomain(t *testing.T) {
	set, _ := load(t, "evil-a.example\n")
	for host, want := range map[string]bool{
		"-é.evil-a.example": true, "xn--é.evil-a.example": true, "a.-é.evil-a.example": true, "é.evil-a.example": true, "-é.fine.example": false, "-é": false,
	} {
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlDomain: host}}
		set.Evaluate([]*pipeline.Event{event})
		if got := len(event.Verdicts) > 0; got != want {
			t.Errorf("%s: listed %t, want %t", host, got, want)
		}
	}
}
