package feeds

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestCheckNamesEveryProblemOfAFeed: a good configuration has no problem, and each value outside of its range has one
// with its key.
func TestCheckNamesEveryProblemOfAFeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed.txt")
	if err := os.WriteFile(path, []byte("evil.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(change func(*Config), want string) {
		t.Helper()
		cfg := Config{Name: "a", Path: path}
		change(&cfg)
		var keys []string
		for _, problem := range cfg.Check() {
			keys = append(keys, problem.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("problems of %q, want %q", got, want)
		}
	}
	check(func(*Config) {}, "")
	for _, severity := range []string{"", "info", "low", "medium", "high", "critical"} {
		check(func(c *Config) { c.Severity = severity }, "")
	}
	check(func(c *Config) { c.Severity = "urgent" }, "severity")
	check(func(c *Config) { c.Name = "" }, "name")
	check(func(c *Config) { c.Path += ".gone" }, "path")
	check(func(c *Config) { c.Confidence = 100 }, "")
	check(func(c *Config) { c.Confidence = 101 }, "confidence")
	check(func(c *Config) { c.LossGrace = -time.Second }, "loss_grace")
	check(func(c *Config) { c.LossGrace = 366 * 24 * time.Hour }, "loss_grace")
}

// TestByteOrderMarkIsNoPartOfTheFirstLine: the mark of UTF-8 stands before an address, a comment or a name.
func TestByteOrderMarkIsNoPartOfTheFirstLine(t *testing.T) {
	for _, first := range []string{"203.0.113.7", "203.0.113.0/24", "# a comment\n203.0.113.7", "0.0.0.0 evil.example\n203.0.113.7"} {
		set, skipped := load(t, "\xef\xbb\xbf"+first+"\nbad line\nlast.example")
		for _, event := range []*pipeline.Event{sessionTo("203.0.113.7"), lookup("last.example")} {
			set.Evaluate([]*pipeline.Event{event})
			if len(event.Verdicts) != 1 {
				t.Errorf("%q: %d verdicts on %v", first, len(event.Verdicts), event)
			}
		}
		if want := 2 + strings.Count(first, "\n"); skipped.Count != 1 || skipped.Errors[0].Line != want {
			t.Errorf("%q: skipped %v, want line %d", first, skipped.Errors, want)
		}
	}
}

// TestSkippedLinesAreCountedAndTheFirstKept: an error page of a million lines keeps 100 errors.
func TestSkippedLinesAreCountedAndTheFirstKept(t *testing.T) {
	_, skipped := load(t, strings.Repeat("bad line\n", 250))
	if skipped.Count != 250 || len(skipped.Errors) != 100 || skipped.Errors[0].Line != 1 || skipped.Errors[99].Line != 100 {
		t.Errorf("%d skipped, %d errors are kept", skipped.Count, len(skipped.Errors))
	}
}

// TestIndicatorsBeyondTheLimitAreSkipped: a list has as many as it has room for, and the others are counted.
func TestIndicatorsBeyondTheLimitAreSkipped(t *testing.T) {
	read := list{name: "a"}
	if err := read.newParser(2).readLines(strings.NewReader("a.example\nb.example\nc.example\n")); err != nil {
		t.Fatal(err)
	}
	if read.index.count != 2 || read.skipped.Count != 1 || read.skipped.Errors[0].Line != 3 {
		t.Errorf("%d indicators, skipped %v", read.index.count, read.skipped.Errors)
	}
}

// TestLinesUpToTheLimitAreRead: a line of 4 KiB is too long with its end; the next line is read either way.
func TestLinesUpToTheLimitAreRead(t *testing.T) {
	for size, want := range map[int]int{maxLine - 1: 2, maxLine: 1, 3 * maxLine: 1} {
		line := "long.example,50," + strings.Repeat("n", size-len("long.example,50,"))
		set, skipped := load(t, line+"\nevil.example\n")
		if set.Len() != want || skipped.Count != 2-want {
			t.Errorf("line of %d bytes: %d indicators, skipped %v", size, set.Len(), skipped.Errors)
		}
	}
}

// TestNetworksHaveAShortestPrefix: IPv4 from /8 on, IPv6 from /16 on; each address of a network matches, and none
// beside it.
func TestNetworksHaveAShortestPrefix(t *testing.T) {
	check := func(network, inside, outside string) {
		t.Helper()
		set, skipped := load(t, network+"\n")
		if inside == "" {
			if set.Len() != 0 || skipped.Count != 1 {
				t.Errorf("%s is taken", network)
			}
			return
		}
		for ip, want := range map[string]int{inside: 1, outside: 0} {
			event := sessionTo(ip)
			set.Evaluate([]*pipeline.Event{event})
			if len(event.Verdicts) != want {
				t.Errorf("%s: %s has %d verdicts, want %d", network, ip, len(event.Verdicts), want)
			}
		}
	}
	check("45.0.0.0/8", "45.255.255.255", "46.0.0.0")
	check("44.0.0.0/7", "", "")
	check("2a00::/16", "2a00:ffff::1", "2a01::1")
	check("2a00::/15", "", "")
	check("203.0.113.7/31", "203.0.113.6", "203.0.113.8") // the bits of the host do not count
	check("203.0.113.7/32", "203.0.113.7", "203.0.113.6")
	check("172.32.0.1", "172.32.0.1", "172.32.0.2")
	check("172.31.255.255", "", "")
	check("100.128.0.1", "100.128.0.1", "100.128.0.2")
	check("100.127.0.1", "", "")
}

// TestTargetStandsBehindTheNumbersOfARecord: the data of each type has its own number of fields before the target.
func TestTargetStandsBehindTheNumbersOfARecord(t *testing.T) {
	set, _ := load(t, "evil.example\n")
	for _, record := range []string{
		"CNAME evil.example", "DNAME evil.example", "MX 10 evil.example", "SRV 1 2 443 evil.example",
		"HTTPS 1 evil.example alpn=\"h2\"", "SVCB 0 evil.example",
	} {
		typ, data, _ := strings.Cut(record, " ")
		event := lookup("good.example")
		event.Dns.AnswersType, event.Dns.AnswersData = []string{"A", typ}, []string{"192.0.2.1", data}
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 1 || !strings.Contains(event.Verdicts[0].Evidence, "dns.answers.data") {
			t.Errorf("%s: %v", record, event.Verdicts)
		}
	}
	for _, record := range []string{"TXT evil.example", "NS evil.example", "MX evil.example 10", "SRV 1 2 evil.example"} {
		typ, data, _ := strings.Cut(record, " ")
		event := lookup("good.example")
		event.Dns.AnswersType, event.Dns.AnswersData = []string{typ}, []string{data}
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 0 {
			t.Errorf("%s: %v", record, event.Verdicts)
		}
	}
}

// TestQuotesAroundFieldsAreRemoved: double and single ones, around each field, with white space on either side.
func TestQuotesAroundFieldsAreRemoved(t *testing.T) {
	for _, line := range []string{`"evil.example"`, `'evil.example'`, `'evil.example','60','n'`, `"evil.example";'60'`} {
		set, skipped := load(t, line+"\n")
		event := lookup("evil.example")
		set.Evaluate([]*pipeline.Event{event})
		if len(event.Verdicts) != 1 || skipped.Count != 0 {
			t.Errorf("%s: %d verdicts, skipped %v", line, len(event.Verdicts), skipped.Errors)
			continue
		}
		want := uint32(75)
		if strings.Contains(line, "60") {
			want = 60
		}
		if event.Verdicts[0].Score != want {
			t.Errorf("%s: score %d, want %d", line, event.Verdicts[0].Score, want)
		}
	}
	for _, text := range []string{`"`, `'`, `""`, `''`, `'"`} {
		if got := string(unquote([]byte(text))); strings.Trim(got, `'`) != "" {
			t.Errorf("%s is %q", text, got)
		}
	}
	if note := truncate(strings.Repeat("é", 150), maxNote); note != strings.Repeat("é", 100)+"…" {
		t.Errorf("the note is %q", note)
	}
}

// TestEmptyIndicatorsAreSkipped: what is left of a line without its quotes, marks and port may be nothing.
func TestEmptyIndicatorsAreSkipped(t *testing.T) {
	for _, line := range []string{`""`, `'',50`, `,50,note`, `||^`, `"",""`, "0.0.0.0 \"\"", ":443", "[]", "[]:443", "/", "/24", ":"} {
		set, skipped := load(t, line+"\nevil.example\n")
		if set.Len() != 1 || skipped.Count != 1 {
			t.Errorf("%s: %d indicators, skipped %v", line, set.Len(), skipped.Errors)
		}
	}
}

// TestFIFOIsNoFeed: opening it would wait for a writer, and end reloading for good.
func TestFIFOIsNoFeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feed")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readList(t.Context(), Config{Name: "f", Path: path}, wholeRoom); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want an error that names the file", err)
	}
}
