// Command testcount runs `go test` with its arguments and counts the tests, which the output of go test does not
// show: a test that skips looks like one that passes.
//
//	go run ./bench/testcount -timeout 25m ./...
//	go run ./bench/testcount -no-skips ./...
//
// It prints what go test prints, without the output of tests that pass, then the first lines of each test that failed,
// a line for each test that was skipped, and one with the counts. It ends with 1 if go test fails, if no test ran, or if a test was skipped
// under -no-skips.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	args := os.Args[1:]
	noSkips := len(args) > 0 && args[0] == "-no-skips"
	if noSkips {
		args = args[1:]
	}
	passed, err := run(args, noSkips, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
	}
	if err != nil || !passed {
		os.Exit(1)
	}
}

// run runs go test and prints its results to out. It reports whether they are as they should be.
func run(args []string, noSkips bool, out io.Writer) (passed bool, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	results := newCounter(out)
	readErr := results.read(events)
	waitErr := cmd.Wait()
	if exit := (*exec.ExitError)(nil); readErr == nil && waitErr != nil && !errors.As(waitErr, &exit) {
		readErr = waitErr
	}
	return results.print(noSkips) && waitErr == nil, readErr
}

// A testEvent is a line of `go test -json` (`go doc test2json`).
type testEvent struct{ Action, Package, Test, Output string }

// A counter counts results. Tests and their subtests both count.
type counter struct {
	out                    io.Writer
	output                 map[string][]string // of tests that have not ended, by package and test
	passed, failed, builds int
	skipped                []string // a line for each
	failures               []string // the first lines of the output of each test that failed
}

func newCounter(out io.Writer) *counter { return &counter{out: out, output: map[string][]string{}} }

// read takes all events of a run. Lines that are no event, such as those of the compiler, are printed.
func (c *counter) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var event testEvent
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &event) != nil:
			_, _ = c.out.Write(line)
		default:
			c.add(event)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *counter) add(event testEvent) {
	name := event.Package + " " + event.Test
	switch {
	case event.Test == "" && (event.Action == "output" || event.Action == "build-output"):
		if event.Output != "PASS\n" {
			_, _ = io.WriteString(c.out, event.Output)
		}
	case event.Action == "build-fail":
		c.builds++
	case event.Test == "":
	case event.Action == "output":
		c.output[name] = append(c.output[name], event.Output)
	case event.Action == "pass":
		c.passed++
		delete(c.output, name)
	case event.Action == "skip":
		c.skipped = append(c.skipped, strings.TrimSpace(name)+": "+reason(c.output[name]))
		delete(c.output, name)
	case event.Action == "fail":
		c.addFailure(name)
		delete(c.output, name)
	}
}

// addFailure counts a test that failed and prints its output. A long run prints much after it, so that its first lines
// are kept for the end.
func (c *counter) addFailure(name string) {
	const mostLines, mostBytes = 12, 300
	c.failed++
	_, _ = io.WriteString(c.out, strings.Join(c.output[name], ""))
	lines := 0
	for _, line := range c.output[name] {
		if lines == mostLines {
			break
		}
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "=== ") {
			c.failures = append(c.failures, fmt.Sprintf("failed: %s: %.*s", strings.TrimSpace(name), mostBytes, text))
			lines++
		}
	}
}

// reason returns the text of t.Skip in the output of a test.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "--- ") && !strings.HasPrefix(text, "=== ") {
			return text
		}
	}
	return "no reason"
}

// print prints the counts, and reports whether the run is as it should be.
func (c *counter) print(noSkips bool) bool {
	for _, name := range slices.Sorted(maps.Keys(c.output)) { // a panic ends tests without a result
		c.addFailure(name)
	}
	for _, line := range c.failures {
		_, _ = fmt.Fprintln(c.out, line)
	}
	for _, line := range c.skipped {
		_, _ = fmt.Fprintln(c.out, "skipped:", line)
	}
	_, _ = fmt.Fprintf(c.out, "tests: %d passed, %d failed, %d skipped\n", c.passed, c.failed, len(c.skipped))
	switch {
	case c.failed > 0 || c.builds > 0:
		return false
	case c.passed == 0:
		_, _ = fmt.Fprintln(c.out, "tests: none has run")
		return false
	case noSkips && len(c.skipped) > 0:
		_, _ = fmt.Fprintln(c.out, "tests: none may be skipped here")
		return false
	}
	return true
}
