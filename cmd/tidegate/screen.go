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

// A screen is what a person sees of `tidegate run`: lines that stay, and below them, on a terminal, one line of counts that is
// redrawn. Elsewhere the counts are a line every few seconds.
type screen struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	status   string
	last     time.Time
}

func newScreen(f *os.File) *screen {
	return &screen{out: f, terminal: isTerminal(f) && os.Getenv("TERM") != "dumb"}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

const plainEvery = 5 * time.Second

// Printf writes a line that stays. Whatever its values are, they do not steer the terminal.
func (s *screen) Printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	_, _ = io.WriteString(s.out, harmless(fmt.Sprintf(format, args...))+"\n")
	s.draw()
}

// Write lets a logger write above the counts.
func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	n, err := s.out.Write(b)
	s.draw()
	return n, err
}

// Status replaces the line of counts.
func (s *screen) Status(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.clear()
		s.status = line
		s.draw()
		return
	}
	if now := time.Now(); now.Sub(s.last) >= plainEvery {
		s.last = now
		_, _ = fmt.Fprintln(s.out, line)
	}
}

// Done leaves the last line of counts where it is.
func (s *screen) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal && s.status != "" {
		_, _ = fmt.Fprintln(s.out)
	}
	s.status = ""
}

func (s *screen) clear() {
	if s.terminal && s.status != "" {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
	}
}

func (s *screen) draw() {
	if s.terminal && s.status != "" {
		_, _ = io.WriteString(s.out, s.status)
	}
}

// alertLine is one alert for a person: ALERT high redis-config-write Redis writes into cron · shop-cache · 172.30.0.2:30101 → 172.30.0.3:6379.
// What it shows may come from a wire, so control characters do not reach the terminal.
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
		line += fmt.Sprintf(" · %s times", grouped(a.Count))
	}
	return printable(line, 240)
}

// printable makes one line of s, of at most so many characters, that is shown as it is.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '·'
		}
		return r
	}, harmless(s))
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// harmless replaces everything that a terminal obeys instead of showing it, but for the line feed and the tab: control characters of
// both sets, and the marks that turn the direction of writing, by which a name can look like another. Bytes that are not UTF-8 become
// U+FFFD.
func harmless(s string) string {
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

// A harmlessWriter is for text that others put together. Each Write is a whole number of characters.
type harmlessWriter struct{ out io.Writer }

func (w harmlessWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(w.out, harmless(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// grouped writes a count for a person: 1,234,567.
func grouped[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
