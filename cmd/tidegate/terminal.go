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
	mu          sync.Mutex
	out         io.Writer
	interactive bool
	status      string
	last        time.Time
}

func newTerminal(f *os.File) *terminal {
	return &terminal{out: f, interactive: isTerminal(f) && os.Getenv("TERM") != "dumb"}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const plainStatusInterval = 5 * time.Second

// Printf writes a line above the status line. Control characters in it do not reach the terminal.
func (s *terminal) Printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearStatus()
	_, _ = io.WriteString(s.out, stripControl(fmt.Sprintf(format, args...))+"\n")
	s.drawStatus()
}

// Write implements io.Writer for a logger, whose records appear above the status line.
func (s *terminal) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clearStatus()
	n, err := s.out.Write(b)
	s.drawStatus()
	return n, err
}

// Status replaces the status line.
func (s *terminal) Status(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interactive {
		s.clearStatus()
		s.status = line
		s.drawStatus()
		return
	}
	if now := time.Now(); now.Sub(s.last) >= plainStatusInterval {
		s.last = now
		_, _ = fmt.Fprintln(s.out, line)
	}
}

// Done ends the redrawing and leaves the last status line where it is.
func (s *terminal) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interactive && s.status != "" {
		_, _ = fmt.Fprintln(s.out)
	}
	s.status = ""
}

func (s *terminal) clearStatus() {
	if s.interactive && s.status != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
	}
}

func (s *terminal) drawStatus() {
	if s.interactive && s.status != "" {
		_, _ = io.WriteString(s.out, s.status)
	}
}

// alertLine returns an alert as one line for a person, without control characters:
// ALERT high redis-config-write Redis writes into cron · shop-cache · 172.30.0.2:30101 → 172.30.0.3:6379.
func alertLine(a *pipeline.Alert) string {
	where := a.ContainerName
	if where == "" {
		where = a.Host
	}
	line := fmt.Sprintf("ALERT %-8s %s %s · %s", a.Severity, a.Rule, a.Title, where)
	switch {
	case a.Source != "" && a.Destination != "":
		line += " · " + a.Source + " → " + a.Destination
	case a.Evidence != "":
		line += " · " + a.Evidence
	}
	if a.Count > 1 {
		line += fmt.Sprintf(" · %s times", formatCount(a.Count))
	}
	return oneLineText(line, 240)
}

// oneLineText returns s as one line of at most most characters, without control characters.
func oneLineText(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '·'
		}
		return r
	}, stripControl(s))
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// stripControl replaces what a terminal interprets instead of showing it: C0 and C1 control characters except
// line feed and tab, and the marks that change the direction of writing, with which one name can look like
// another. Bytes that are not UTF-8 become U+FFFD.
func stripControl(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return '·'
		}
		return r
	}, s)
}

// A stripControlWriter applies stripControl to text of foreign origin. Each Write must hold whole characters.
type stripControlWriter struct{ out io.Writer }

func (w stripControlWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(w.out, stripControl(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
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
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
