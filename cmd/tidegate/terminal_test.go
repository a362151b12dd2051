package main

import (
	"bufio"
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
)

// hostileText is a name as a hostile peer would choose it: C0 and C1 control characters, as runes and as a bare
// byte, a line break, and a mark that changes the direction of writing.
const hostileText = "a\x1b]0;owned\x07b\u009b2Jc\x9b31md\r\nALERT critical faked\x7f\u202egpj.exe\u2028"

// hasNoControl reports whether a terminal shows all of s and interprets none of it.
func hasNoControl(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) })
}

func TestAlertLineIsOneLineThatSteersNothing(t *testing.T) {
	for _, a := range []*pipeline.Alert{
		{Severity: "high", Rule: hostileText, Title: hostileText, ContainerName: hostileText, Source: hostileText, Destination: hostileText, Count: 1234},
		{Severity: hostileText, Host: hostileText, Evidence: strings.Repeat(hostileText, 100)},
	} {
		line := alertLine(a)
		if !hasNoControl(line) || strings.Contains(line, "\n") || utf8.RuneCountInString(line) > 240 {
			t.Errorf("got %q", line)
		}
	}
	a := &pipeline.Alert{Severity: "high", Rule: "redis-config-write", Title: "Redis writes into cron", ContainerName: "shop-cache", Source: "172.30.0.2:30101", Destination: "172.30.0.3:6379", Count: 1200}
	if got, want := alertLine(a), "ALERT high     redis-config-write Redis writes into cron · shop-cache · 172.30.0.2:30101 → 172.30.0.3:6379 · 1,200 times"; got != want {
		t.Errorf("got %q", got)
	}
}

func TestPrintableKeepsWhatIsShown(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		if got := oneLineText(in, 12); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	check("日本語 über", "日本語 über")
	check("a\tb\nc", "a·b·c")
	check("\x1b[31m", "·[31m")
	check("\xff\x9b", "\ufffd\ufffd")
	check("exactly twel", "exactly twel")
	check("more than twelve", "more than t…")
	check("üüüüüüüüüüüüü", "üüüüüüüüüüü…")
}

// TestPlainOutputHasNoEscapes: where the output is not a terminal, the status line is written every few
// seconds.
func TestPlainOutputHasNoEscapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &terminal{out: &out}
		for i := range 11 {
			s.showStatus("counts " + formatCount(i))
			time.Sleep(time.Second)
		}
		s.printLine("alert of %s", hostileText)
		s.endStatus()
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if !hasNoControl(out.String()) || len(lines) != 5 || strings.Join(lines[:3], ", ") != "counts 0, counts 5, counts 10" {
			t.Errorf("got %q", lines)
		}
	})
}

// TestTerminalRedrawsTheCounts: the status line is below the other lines, and complete after each of them.
func TestTerminalRedrawsTheCounts(t *testing.T) {
	var out bytes.Buffer
	s := &terminal{out: &out, interactive: true}
	s.printLine("hello")
	s.showStatus("one")
	s.showStatus("two")
	s.printLine("alert")
	slog.New(slog.NewTextHandler(s, nil)).Warn("odd name", "name", hostileText)
	s.endStatus()
	s.printLine("bye")
	const clear = "\r\x1b[K"
	got := out.String()
	if want := "hello\none" + clear + "two" + clear + "alert\ntwo" + clear + "time="; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want it to begin with %q", got, want)
	}
	if !strings.HasSuffix(got, "\"\ntwo\nbye\n") || !hasNoControl(strings.ReplaceAll(got, clear, "")) {
		t.Errorf("got %q", got)
	}
}

func TestTextOfOthersSteersNothing(t *testing.T) {
	var out bytes.Buffer
	text := []byte("FAIL x.yaml:3: \x1b[2J" + hostileText + "\tü\n")
	if n, err := (stripControlWriter{&out}).Write(text); n != len(text) || err != nil {
		t.Errorf("wrote %d of %d: %v", n, len(text), err)
	}
	if got := out.String(); !hasNoControl(strings.ReplaceAll(got, "\t", "")) || !strings.HasSuffix(got, "\tü\n") {
		t.Errorf("got %q", got)
	}
}

// TestDoctorAndReplayTablesSteerNothing: errors and rules of foreign origin may hold control characters.
func TestDoctorAndReplayTablesSteerNothing(t *testing.T) {
	var out bytes.Buffer
	cmd := doctorCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--config", "no\x1b[31m\u009bsuch\nfile.yaml"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || !hasNoControl(out.String()) || !strings.Contains(out.String(), "such") {
		t.Errorf("doctor: %v, %q", err, out.String())
	}
	out.Reset()
	r := replay{}
	r.block = []*pipeline.Event{{Dataset: pipeline.Dataset_LOG, Verdicts: []*pipeline.Verdict{{Severity: pipeline.Severity_HIGH, Rule: hostileText, Title: hostileText}}}}
	r.out, r.events, r.matches = bufio.NewWriter(&out), map[string]int{}, map[string]int{}
	r.flushBlock()
	r.rules = &rules.Set{}
	r.printTable()
	_ = r.out.Flush()
	if !hasNoControl(out.String()) || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("replay: %q", out.String())
	}
}
