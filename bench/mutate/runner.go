package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// outcome is the result of running the tests on a mutant.
type outcome string

const (
	killed           outcome = "killed"
	killedByImporter outcome = "killed by an importer"
	timedOut         outcome = "timed out"
	survived         outcome = "survived"
	notBuilt         outcome = "not built"
	notTested        outcome = "" // the run was interrupted
)

// runner runs tests on mutants.
type runner struct {
	folder    string                   // of the overlays
	durations map[string]time.Duration // of the tests of a package without a mutant
	importers bool
	verbose   bool // the report prints every mutant
}

// newRunner runs the tests of the packages without a mutant first: they have to pass, and their durations decide
// how long a mutant may run and in which order the importers follow.
func newRunner(ctx context.Context, packages []*mutablePackage, importers bool) (*runner, error) {
	folder, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return nil, err
	}
	r := &runner{folder: folder, durations: map[string]time.Duration{}, importers: importers}
	var paths []string
	for _, pkg := range packages {
		paths = append(paths, pkg.path)
		if importers {
			paths = append(paths, pkg.importers...)
		}
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for i, path := range paths {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kmutate: tests without a mutant: %d of %d: %s", i+1, len(paths), path)
		out, err := testCommand(ctx, path, "", 20*time.Minute).CombinedOutput()
		if err != nil {
			r.close()
			return nil, fmt.Errorf("the tests of %s fail without a mutant: %w\n%s", path, err, out)
		}
		r.durations[path] = testDuration(out)
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	for _, pkg := range packages {
		slices.SortStableFunc(pkg.importers, func(a, b string) int { return int(r.durations[a] - r.durations[b]) })
	}
	return r, nil
}

func (r *runner) close() { _ = os.RemoveAll(r.folder) }

// testCommand runs the quick tests of a package. The go command ends the test itself at the timeout; WaitDelay
// covers children that keep its output open.
func testCommand(ctx context.Context, path, overlay string, timeout time.Duration) *exec.Cmd {
	args := []string{"test", "-short", "-failfast", "-vet=off", "-count=1", "-timeout", timeout.String()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, path)...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// testAll tests mutants until count of them were built and tested, jobs at a time.
func (r *runner) testAll(ctx context.Context, s *sampler, count, jobs int) *report {
	result := &report{wanted: count, verbose: r.verbose}
	work := make(chan *mutant)
	var workers sync.WaitGroup
	for range max(jobs, 1) {
		workers.Go(func() {
			for m := range work {
				r.testUntilBuilt(ctx, s, m, result)
			}
		})
	}
	for range count {
		m, ok := s.nextMutant()
		if !ok || ctx.Err() != nil {
			break
		}
		work <- m
	}
	close(work)
	workers.Wait()
	return result
}

// testUntilBuilt tests a mutant. In place of one that does not compile it takes others of the same function.
func (r *runner) testUntilBuilt(ctx context.Context, s *sampler, m *mutant, result *report) {
	for {
		became, by := r.test(ctx, m)
		if ctx.Err() != nil {
			return
		}
		result.add(m, became, by)
		if became != notBuilt {
			return
		}
		other, ok := s.replace(m)
		if !ok {
			return
		}
		m = other
	}
}

// test runs the tests of the mutant's package, then those of the importers, until one fails. It returns the
// package whose test failed, with the names of the tests.
func (r *runner) test(ctx context.Context, m *mutant) (outcome, string) {
	overlay, err := r.writeOverlay(m)
	if err != nil {
		return notTested, err.Error()
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(overlay)) }()
	paths := []string{m.function.pkg.path}
	if r.importers {
		paths = append(paths, m.function.pkg.importers...)
	}
	for i, path := range paths {
		timeout := 30*time.Second + 5*r.durations[path]
		out, err := testCommand(ctx, path, overlay, timeout).CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
		case !errors.As(err, &exit):
			return notTested, err.Error()
		case bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")):
			return notBuilt, path
		case bytes.Contains(out, []byte("panic: test timed out")):
			return timedOut, path
		case i == 0:
			return killed, nameFailed(path, out)
		default:
			return killedByImporter, nameFailed(path, out)
		}
	}
	return survived, ""
}

var passedPackage = regexp.MustCompile(`(?m)^ok\s+\S+\s+([0-9.]+s)`)

// testDuration returns the duration of the tests of a package from the output of `go test`, without the build.
func testDuration(out []byte) time.Duration {
	match := passedPackage.FindSubmatch(out)
	if match == nil {
		return 0
	}
	duration, _ := time.ParseDuration(string(match[1]))
	return duration
}

var failedTest = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`)

// nameFailed returns a package with the tests of it that the output of `go test` calls failed, or else with the
// line that says how it ended.
func nameFailed(path string, out []byte) string {
	var names []string
	for _, match := range failedTest.FindAllSubmatch(out, -1) {
		names = append(names, string(match[1]))
	}
	if len(names) == 0 {
		for line := range bytes.Lines(out) {
			if bytes.HasPrefix(line, []byte("panic:")) || bytes.HasPrefix(line, []byte("fatal error:")) {
				names = append(names, oneLine(string(line)))
				break
			}
		}
	}
	return path + " " + strings.Join(names, " ")
}

// writeOverlay writes the mutated file and the overlay that names it. Each mutant has a folder of its own.
func (r *runner) writeOverlay(m *mutant) (string, error) {
	source := m.function.source
	folder, err := os.MkdirTemp(r.folder, "mutant")
	if err != nil {
		return "", err
	}
	mutated := filepath.Join(folder, "mutated.go")
	text := strings.Join([]string{string(source[:m.begin]), m.text, string(source[m.end:])}, "")
	if err := os.WriteFile(mutated, []byte(text), 0o600); err != nil {
		return "", err
	}
	encoded, err := json.Marshal(map[string]map[string]string{"Replace": {m.function.file: mutated}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(folder, "overlay.json")
	return overlay, os.WriteFile(overlay, encoded, 0o600)
}
