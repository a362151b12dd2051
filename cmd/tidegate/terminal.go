package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"tidegate/pipeline"
)

// A terminal writes the output of `tidegate run` for a person: lines, and below them a status line that is
// redrawn. Where the output is not a terminal, the status line is written every few seconds instead. It is
// safe for concurrent use.
type terminal struct {
	out         io.Writer
	interactive bool // out is a terminal that can redraw a line

	mu     sync.Mutex // guards out and the fields below
	status string     // the status line that is shown; "" none
	last   time.Time  // when the last status line was written, where out cannot redraw
}

func newTerminal(f *os.File) *terminal {
	return &terminal{out: f, interactive: isTerminal(f) && os.Getenv("TERM") != "dumb"}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// plainStatusInterval is the time between status lines where they are not redrawn.
const plainStatusInterval = 5 * time.Second

// Printf writes a line above the status line. Control characters in it do not reach the terminal.
func (t *terminal) Printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearStatus()
	_, _ = io.WriteString(t.out, stripControl(fmt.Sprintf(format, args...))+"\n")
	t.drawStatus()
}

// Write implements io.Writer for a logger, whose records appear above the status line.
func (t *terminal) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearStatus()
	n, err := t.out.Write(data)
	t.drawStatus()
	return n, err
}

// Status replaces the status line.
func (t *terminal) Status(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interactive {
		t.clearStatus()
		t.status = line
		t.drawStatus()
		return
	}
	if now := time.Now(); now.Sub(t.last) >= plainStatusInterval {
		t.last = now
		_, _ = fmt.Fprintln(t.out, line)
	}
}

// Done ends the redrawing and leaves the last status line where it is.
func (t *terminal) Done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interactive && t.status != "" {
		_, _ = fmt.Fprintln(t.out)
	}
	t.status = ""
}

func (t *terminal) clearStatus() {
	if t.interactive && t.status != "" {
		_, _ = io.WriteString(t.out, "\r\x1b[K")
	}
}

func (t *terminal) drawStatus() {
	if t.interactive && t.status != "" {
		_, _ = io.WriteString(t.out, t.status)
	}
}

// alertLine returns an alert as one line for a person, without control characters:
// ALERT high redis-config-write Redis writes into cron · shop-cache · 172.30.0.2:30101 → 172.30.0.3:6379.
func alertLine(alert *pipeline.Alert) string {
	where := alert.ContainerName
	if where == "" {
		where = alert.Host
	}
	line := fmt.Sprintf("ALERT %-8s %s %s · %s", alert.Severity, alert.Rule, alert.Title, where)
	switch {
	case alert.Source != "" && alert.Destination != "":
		line += " · " + alert.Source + " → " + alert.Destination
	case alert.Evidence != "":
		line += " · " + alert.Evidence
	}
	if alert.Count > 1 {
		line += fmt.Sprintf(" · %s times", formatCount(alert.Count))
	}
	return oneLineText(line, 240)
}

// oneLineText returns text as one line of at most most characters, without control characters.
func oneLineText(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '·'
		}
		return r
	}, stripControl(text))
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// stripControl replaces what a terminal interprets instead of showing it: C0 and C1 control characters except
// line feed and tab, and the marks that change the direction of writing, with which one name can look like
// another. Bytes that are not UTF-8 become U+FFFD.
func stripControl(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return '·'
		}
		return r
	}, text)
}

// A stripControlWriter applies stripControl to text of foreign origin. Each Write must hold whole characters.
type stripControlWriter struct{ out io.Writer }

func (w stripControlWriter) Write(data []byte) (int, error) {
	if _, err := io.WriteString(w.out, stripControl(string(data))); err != nil {
		return 0, err
	}
	return len(data), nil
}

// countOf returns a count and its noun: "1 container", "2 containers".
func countOf(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return formatCount(n) + " " + noun + "s"
}

// formatCount returns a count with its digits grouped: 1,234,567.
func formatCount[T int | int64 | uint64](n T) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
