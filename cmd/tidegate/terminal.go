package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"tidegate/pipeline"
)

// A terminal writes the output of `tidegate run` for a person: lines, and below them a status line that is
// redrawn. If the output is not a terminal, the status line is written every few seconds instead. Its methods
// are safe for concurrent use.
type terminal struct {
	out         io.Writer
	interactive bool // out is a terminal that can redraw a line

	mu     sync.Mutex // guards out and the fields below
	status string     // the status line that is shown, or was last written if out cannot redraw it; "": none
	last   time.Time  // when a status line was last written; only used if out cannot redraw it
}

func newTerminal(file *os.File) *terminal {
	return &terminal{out: file, interactive: isTerminal(file) && os.Getenv("TERM") != "dumb"}
}

// isTerminal reports whether a file is a terminal.
func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// Times between two status lines if they are not redrawn: of lines that differ, and of equal ones.
const (
	plainStatusInterval = 5 * time.Second
	equalStatusInterval = 10 * time.Minute
)

// printLine writes a line above the status line, without control characters.
func (t *terminal) printLine(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearStatus()
	_, _ = io.WriteString(t.out, stripControl(fmt.Sprintf(format, args...))+"\n")
	t.drawStatus()
}

// Write implements io.Writer for a logger. Records appear above the status line.
func (t *terminal) Write(data []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearStatus()
	written, err := t.out.Write(data)
	t.drawStatus()
	return written, err
}

// showStatus replaces the status line.
func (t *terminal) showStatus(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interactive {
		t.clearStatus()
		t.status = line
		t.drawStatus()
		return
	}
	age := time.Since(t.last)
	if age >= equalStatusInterval || line != t.status && age >= plainStatusInterval {
		t.status, t.last = line, time.Now()
		_, _ = fmt.Fprintln(t.out, line)
	}
}

// endStatus ends the redrawing: the last status line stays, and later output begins below it.
func (t *terminal) endStatus() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interactive && t.status != "" {
		_, _ = fmt.Fprintln(t.out)
	}
	t.status = ""
}

// removeStatus removes the status line and ends the redrawing.
func (t *terminal) removeStatus() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearStatus()
	t.status = ""
}

// clearStatus removes the status line from the terminal. The caller holds mu.
func (t *terminal) clearStatus() {
	if t.interactive && t.status != "" {
		_, _ = io.WriteString(t.out, "\r\x1b[K")
	}
}

// drawStatus writes the status line. The caller holds mu.
func (t *terminal) drawStatus() {
	if t.interactive && t.status != "" {
		_, _ = io.WriteString(t.out, t.status)
	}
}

// alertLine returns an alert as one line for a person, without control characters, such as
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

// oneLineText returns text on one line, without control characters and cut to at most limit characters.
func oneLineText(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return '·'
		}
		return r
	}, stripControl(text))
	if runes := []rune(text); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return text
}

// stripControl replaces what a terminal interprets instead of showing it: C0 and C1 control characters except
// line feed and tab, and the marks that change the direction of writing, with which one name can look like
// another. Bytes that are not UTF-8 become U+FFFD.
func stripControl(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && isControl(r) {
			return '·'
		}
		return r
	}, text)
}

func isControl(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// A stripControlWriter applies stripControl to what is written to it. A character may be divided between two
// calls of Write.
type stripControlWriter struct {
	out       io.Writer
	remainder []byte // the first bytes of a character, from the call before; at most 3
}

func (w *stripControlWriter) Write(data []byte) (int, error) {
	text := append(w.remainder, data...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if start := text[len(text)-back:]; utf8.RuneStart(start[0]) {
			if !utf8.FullRune(start) {
				whole -= back
			}
			break
		}
	}
	w.remainder = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(w.out, stripControl(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Close writes the bytes of a character that never became whole.
func (w *stripControlWriter) Close() error {
	_, err := io.WriteString(w.out, stripControl(string(w.remainder)))
	w.remainder = nil
	return err
}

// controlSequence matches what colours text: ESC [, parameters, a final byte (ECMA-48, section 5.4).
var controlSequence = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]")

// A tableWriter takes out of a table of ClickHouse what has no width there: control sequences, whole, control and format
// characters and bytes that are not UTF-8. Something printed in their place would move the columns behind it.
type tableWriter struct {
	out  io.Writer
	line []byte // the begin of a line whose end has not been written yet
}

func (w *tableWriter) Write(data []byte) (int, error) {
	w.line = append(w.line, data...)
	end := bytes.LastIndexByte(w.line, '\n') + 1
	_, err := io.WriteString(w.out, dropInvisible(string(w.line[:end])))
	w.line = append(w.line[:0], w.line[end:]...)
	return len(data), err
}

// Close writes a last line without an end.
func (w *tableWriter) Close() error {
	_, err := io.WriteString(w.out, dropInvisible(string(w.line)))
	w.line = nil
	return err
}

// dropInvisible returns text without control sequences, without the characters that stripControl replaces and without bytes
// that are not UTF-8.
func dropInvisible(text string) string {
	text = controlSequence.ReplaceAllString(text, "")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && isControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
}

// countOf returns a count with its noun, such as "1 container" and "2 containers".
func countOf(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "ch") { // match
		noun += "e"
	}
	return formatCount(count) + " " + noun + "s"
}

// formatCount returns a count with its digits grouped, such as 1,234,567.
func formatCount[T int | int64 | uint64](count T) string {
	text := fmt.Sprint(count)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
