package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	folder    string               // of overlays and test binaries
	cache     string               // of measured coverage
	folders   map[string]string    // folder of each package of the module
	coverage  map[string]*coverage // of the tests of the changed packages, without a mutant
	importers bool
	rest      bool          // the tests that do not execute the line are run, too
	verbose   bool          // the report prints every mutant
	longest   time.Duration // importers whose tests take longer are left out; 0: none

	overlay  string     // of all mutants
	building sync.Mutex // guards the fields below
	binaries map[string]string
	checked  map[string]time.Duration // durations of the tests of importers without a mutant
}

// newRunner runs the tests of the packages without a mutant first: they have to pass, and the lines that they execute
// and their durations decide which tests run on a mutant, how long, and in which order.
func newRunner(ctx context.Context, packages []*mutablePackage, importers bool) (*runner, error) {
	r := &runner{
		folders: map[string]string{}, coverage: map[string]*coverage{}, importers: importers, rest: true,
		binaries: map[string]string{}, checked: map[string]time.Duration{},
	}
	module, err := listPackages(ctx, "./...")
	if err != nil {
		return nil, err
	}
	for _, listed := range module {
		r.folders[listed.ImportPath] = listed.Dir
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	r.cache = filepath.Join(cache, "tidegate", "mutate")
	if err := os.MkdirAll(r.cache, 0o700); err != nil {
		return nil, err
	}
	if r.folder, err = os.MkdirTemp("", "mutate"); err != nil {
		return nil, err
	}
	var changed []string
	for _, pkg := range packages {
		changed = append(changed, pkg.path)
	}
	slices.Sort(changed)
	for i, path := range changed {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kmutate: tests without a mutant: %d of %d: %s", i+1, len(changed), path)
		if r.coverage[path], err = r.measureCoverage(ctx, path, changed); err != nil {
			r.close()
			return nil, err
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")

	// Packages whose tests are known to be quick come first.
	duration := func(path string) time.Duration {
		if measured := r.coverage[path]; measured != nil {
			return measured.duration()
		}
		return time.Hour
	}
	for _, pkg := range packages {
		slices.SortStableFunc(pkg.importers, func(a, b string) int { return cmp.Compare(duration(a), duration(b)) })
	}
	return r, nil
}

func (r *runner) close() { _ = os.RemoveAll(r.folder) }

// testCommand runs tests of the test binary of a package. The binary ends itself at the timeout; WaitDelay covers
// children that keep its output open.
func (r *runner) testCommand(
	ctx context.Context, binary, path string, timeout time.Duration, flags ...string,
) *exec.Cmd {
	flags = append(flags, "-test.short", "-test.failfast", "-test.paniconexit0", "-test.timeout="+timeout.String())
	cmd := exec.CommandContext(ctx, binary, flags...)
	cmd.Dir = r.folders[path]
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// testAll tests count mutants that compile, jobs at a time.
func (r *runner) testAll(ctx context.Context, s *sampler, count, jobs int) (*report, error) {
	result := &report{wanted: count, verbose: r.verbose}
	mutants, err := r.drawMutants(ctx, s, count, result)
	if err != nil {
		return nil, err
	}
	if r.overlay, _, err = r.writeOverlay(mutants); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan *mutant)
	var workers sync.WaitGroup
	for range max(jobs, 1) {
		workers.Go(func() {
			for m := range work {
				became, by, err := r.testMutant(ctx, m)
				switch {
				case err != nil:
					cancel(err)
				case ctx.Err() == nil:
					result.add(m, became, by)
				}
			}
		})
	}
	for _, m := range mutants {
		if ctx.Err() != nil {
			break
		}
		work <- m
	}
	close(work)
	workers.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return result, nil
}

// testMutant runs the tests of the mutant's package, then those of the importers, until one fails. It returns the
// package whose test failed, with the names of the tests.
func (r *runner) testMutant(ctx context.Context, m *mutant) (outcome, string, error) {
	paths := []string{m.function.pkg.path}
	if r.importers {
		paths = append(paths, m.function.pkg.importers...)
	}
	for i, path := range paths {
		became, by, err := r.testPackage(ctx, m, path)
		if err != nil {
			return notTested, "", err
		}
		if became == killed && i > 0 {
			became = killedByImporter
		}
		if became != survived {
			return became, by, nil
		}
	}
	return survived, "", nil
}

// testPackage runs the tests of a package on a mutant in three parts: the quick ones that execute the line of the
// mutant, the slow ones that do, and all others, since what child processes execute is unknown.
func (r *runner) testPackage(ctx context.Context, m *mutant, path string) (outcome, string, error) {
	binary, err := r.buildTests(ctx, path)
	if binary == "" || err != nil {
		return survived, "", err
	}
	// A mutant may hang: the time of each part is bounded by that of its tests.
	type part struct {
		selected string
		duration time.Duration
	}
	var parts []part
	if measured := r.coverage[path]; measured != nil {
		quick, slow := measured.testsOf(m.profileName(), m.executed)
		for _, names := range [][]string{quick, slow} {
			if len(names) > 0 {
				parts = append(parts, part{"-test.run=" + exactly(names), measured.durationOf(names)})
			}
		}
		if r.rest {
			parts = append(parts, part{"-test.skip=" + exactly(append(quick, slow...)), measured.duration()})
		}
	} else {
		duration, err := r.checkImporter(ctx, binary, path)
		if err != nil {
			return notTested, "", err
		}
		if r.longest > 0 && duration > r.longest {
			return survived, "", nil
		}
		parts = []part{{"-test.run=.", duration}}
	}
	for _, part := range parts {
		cmd := r.testCommand(ctx, binary, path, 30*time.Second+5*part.duration, part.selected)
		cmd.Env = append(os.Environ(), activeVariable+"="+strconv.Itoa(m.number))
		out, err := cmd.CombinedOutput()
		switch {
		case err == nil:
		case !errors.As(err, new(*exec.ExitError)) && !errors.Is(err, exec.ErrWaitDelay):
			return notTested, "", err
		case bytes.Contains(out, []byte("panic: test timed out")):
			return timedOut, nameFailed(path, out), nil
		default:
			return killed, nameFailed(path, out), nil
		}
	}
	return survived, "", nil
}

// checkImporter runs the tests of an importing package once without a mutant, up to r.longest: they have to pass.
func (r *runner) checkImporter(ctx context.Context, binary, path string) (time.Duration, error) {
	r.building.Lock()
	defer r.building.Unlock()
	if duration, ok := r.checked[path]; ok {
		return duration, nil
	}
	began, timeout := time.Now(), 20*time.Minute
	if r.longest > 0 {
		timeout = r.longest + time.Second
	}
	out, err := r.testCommand(ctx, binary, path, timeout).CombinedOutput()
	isTooLong := r.longest > 0 && time.Since(began) > r.longest
	if err != nil && !isTooLong {
		return 0, fmt.Errorf("the tests of %s fail without a mutant: %w\n%s", path, err, out)
	}
	r.checked[path] = time.Since(began)
	return r.checked[path], nil
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
