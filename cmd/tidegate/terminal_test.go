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

// hostileText is a name as an attacker would choose it. It has C0 and C1 control characters, as runes and as
// a bare byte, a line break, and a mark that changes the direction of writing.
const hostileText = "a\x1b]0;owned\x07b\u009b2Jc\x9b31md\r\nALERT critical faked\x7f\u202egpj.exe\u2028"

// hasNoControlCharacters reports whether a terminal shows every character of text and interprets none but the
// line feed.
func hasNoControlCharacters(text string) bool {
	isControl := func(r rune) bool { return r != '\n' && unicode.In(r, unicode.C, unicode.Zl, unicode.Zp) }
	return utf8.ValidString(text) && !strings.ContainsFunc(text, isControl)
}

func TestAlertLineHasNoControlCharacters(t *testing.T) {
	for _, alert := range []*pipeline.Alert{
		{
			Severity: "high", Rule: hostileText, Title: hostileText, ContainerName: hostileText,
			Source: hostileText, Destination: hostileText, Count: 1234,
		},
		{Severity: hostileText, Host: hostileText, Evidence: strings.Repeat(hostileText, 100)},
	} {
		line := alertLine(alert)
		if !hasNoControlCharacters(line) || strings.Contains(line, "\n") || utf8.RuneCountInString(line) > 240 {
			t.Errorf("got %q", line)
		}
	}

	alert := &pipeline.Alert{
		Severity: "high", Rule: "redis-config-write", Title: "Redis writes into cron", ContainerName: "shop-cache",
		Source: "172.30.0.2:30101", Destination: "172.30.0.3:6379", Count: 1200,
	}
	want := "ALERT high     redis-config-write Redis writes into cron · shop-cache" +
		" · 172.30.0.2:30101 → 172.30.0.3:6379 · 1,200 times"
	if got := alertLine(alert); got != want {
		t.Errorf("got %q", got)
	}
}

func TestOneLineTextKeepsPrintableCharacters(t *testing.T) {
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

// TestEqualStatusLinesAreWrittenRarely requires that the log of a service is not filled with one line.
func TestEqualStatusLinesAreWrittenRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		term := &terminal{out: &out}
		show := func(line string, seconds int) {
			for range seconds {
				term.showStatus(line)
				time.Sleep(time.Second)
			}
		}
		show("lag 0", 3600)
		if lines := strings.Count(out.String(), "\n"); lines != 6 {
			t.Errorf("%d equal lines in an hour, want one every ten minutes", lines)
		}
		out.Reset()
		show("lag 1", 10)
		if got := out.String(); got != "lag 1\n" {
			t.Errorf("a change is shown as %q", got)
		}
	})
}

// TestPlainOutputHasNoEscapes requires that the status line is written every five seconds, and without escape
// sequences, if the output is not a terminal.
func TestPlainOutputHasNoEscapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		term := &terminal{out: &out}
		for i := range 11 {
			term.showStatus("counts " + formatCount(i))
			time.Sleep(time.Second)
		}
		term.printLine("alert of %s", hostileText)
		term.endStatus()
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if !hasNoControlCharacters(out.String()) || len(lines) != 5 ||
			strings.Join(lines[:3], ", ") != "counts 0, counts 5, counts 10" {
			t.Errorf("got %q", lines)
		}
	})
}

// TestStatusLineIsRedrawnBelowOtherLines requires that the status line is removed before each line of text
// and written again below it.
func TestStatusLineIsRedrawnBelowOtherLines(t *testing.T) {
	var out bytes.Buffer
	term := &terminal{out: &out, interactive: true}
	term.printLine("hello")
	term.showStatus("one")
	term.showStatus("two")
	term.printLine("alert")
	slog.New(slog.NewTextHandler(term, nil)).Warn("odd name", "name", hostileText)
	term.endStatus()
	term.printLine("bye")
	const clear = "\r\x1b[K"
	got := out.String()
	if want := "hello\none" + clear + "two" + clear + "alert\ntwo" + clear + "time="; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want it to begin with %q", got, want)
	}
	if !strings.HasSuffix(got, "\"\ntwo\nbye\n") || !hasNoControlCharacters(strings.ReplaceAll(got, clear, "")) {
		t.Errorf("got %q", got)
	}
}

// TestWriterStripsControlCharacters writes the text of a rule file, as `rules test` does.
func TestWriterStripsControlCharacters(t *testing.T) {
	var out bytes.Buffer
	text := []byte("FAIL x.yaml:3: \x1b[2J" + hostileText + "\tü\n")
	if written, err := (&stripControlWriter{out: &out}).Write(text); written != len(text) || err != nil {
		t.Errorf("wrote %d of %d: %v", written, len(text), err)
	}
	got := out.String()
	if !hasNoControlCharacters(strings.ReplaceAll(got, "\t", "")) || !strings.HasSuffix(got, "\tü\n") {
		t.Errorf("got %q", got)
	}
}

// TestWriterStripsDividedCharacters writes a text one byte at a time, and every division of it in two.
func TestWriterStripsDividedCharacters(t *testing.T) {
	const text = "a\x1b[2J\u009b\u202eé漢🦀\xf0\x9f b\xff\xe6"
	want := stripControl(text)
	for split := range len(text) + 1 {
		var out bytes.Buffer
		writer := &stripControlWriter{out: &out}
		pieces := []string{text[:split], text[split:]}
		if split == len(text) {
			pieces = nil
			for i := range len(text) {
				pieces = append(pieces, text[i:i+1])
			}
		}
		for _, piece := range pieces {
			if written, err := writer.Write([]byte(piece)); written != len(piece) || err != nil {
				t.Fatal(written, err)
			}
		}
		if err := writer.Close(); err != nil || out.String() != want {
			t.Errorf("divided at %d: %q, want %q", split, out.String(), want)
		}
	}
}

// TestTableDropsWhatHasNoWidth writes a table as ClickHouse aligns it, where control characters have no width, in pieces.
func TestTableDropsWhatHasNoWidth(t *testing.T) {
	const text = "┌─a──────┬─b─┐\n│ a\x1b[1;31mred\x1b[0m b │ x │\n│ \x00\u202eplain\xff  │ \x1b[3│\n└────────┴───┘"
	const want = "┌─a──────┬─b─┐\n│ ared b │ x │\n│ plain  │ [3│\n└────────┴───┘"
	for split := range len(text) {
		var out bytes.Buffer
		writer := &tableWriter{out: &out}
		for _, piece := range []string{text[:split], text[split:]} {
			if written, err := writer.Write([]byte(piece)); written != len(piece) || err != nil {
				t.Fatal(written, err)
			}
		}
		if err := writer.Close(); err != nil || out.String() != want {
			t.Errorf("divided at %d: %q, want %q", split, out.String(), want)
		}
	}
}

// TestTablesHaveNoControlCharacters requires that the tables of doctor and replay show errors and rules of
// foreign origin without control characters.
func TestTablesHaveNoControlCharacters(t *testing.T) {
	var out bytes.Buffer
	cmd := doctorCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--config", "no\x1b[31m\u009bsuch\nfile.yaml"})
	err := cmd.ExecuteContext(t.Context())
	if err == nil || !hasNoControlCharacters(out.String()) || !strings.Contains(out.String(), "such") {
		t.Errorf("doctor: %v, %q", err, out.String())
	}

	out.Reset()
	verdict := &pipeline.Verdict{Severity: pipeline.Severity_HIGH, Rule: hostileText, Title: hostileText}
	job := replay{block: []*pipeline.Event{{Dataset: pipeline.Dataset_LOG, Verdicts: []*pipeline.Verdict{verdict}}}}
	job.out, job.events, job.matches = bufio.NewWriter(&out), map[string]int{}, map[string]int{}
	job.flushBlock()
	job.rules = &rules.Set{}
	job.printTable()
	_ = job.out.Flush()
	if !hasNoControlCharacters(out.String()) || strings.Count(out.String(), "\n") != 5 {
		t.Errorf("replay: %q", out.String())
	}
}
