package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// coverage holds what each test of a package executes of the packages that are changed.
type coverage struct {
	Tests []testCoverage
}

// testCoverage holds the lines that one test executes. Lines that only its child processes execute are unknown.
type testCoverage struct {
	Name     string
	Duration time.Duration
	Lines    map[string][][2]int // import path and name of a file → first and last lines of executed blocks
}

// testsOf returns the names of the tests that execute a line, those that end in less than quickTest apart.
func (c *coverage) testsOf(file string, line int) (quick, slow []string) {
	for _, test := range c.Tests {
		for _, block := range test.Lines[file] {
			if block[0] <= line && line <= block[1] {
				if test.Duration < quickTest {
					quick = append(quick, test.Name)
				} else {
					slow = append(slow, test.Name)
				}
				break
			}
		}
	}
	return quick, slow
}

func (c *coverage) duration() time.Duration {
	var sum time.Duration
	for _, test := range c.Tests {
		sum += test.Duration
	}
	return sum
}

// durationOf returns the duration of the named tests.
func (c *coverage) durationOf(names []string) time.Duration {
	var sum time.Duration
	for _, test := range c.Tests {
		if slices.Contains(names, test.Name) {
			sum += test.Duration
		}
	}
	return sum
}

// quickTest separates the tests that run first from the others.
const quickTest = time.Second

// measureCoverage runs the quick tests of a package one by one. The result is kept in cache, by the digest of the
// test binary: a package is measured again only if it or something that it imports has changed.
func (r *runner) measureCoverage(ctx context.Context, pkg string, changed []string) (*coverage, error) {
	binary := filepath.Join(r.folder, "cover.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-cover", "-covermode=set",
		"-coverpkg="+strings.Join(changed, ","), "-o", binary, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the tests of %s: %w\n%s", pkg, err, out)
	}
	defer func() { _ = os.Remove(binary) }()
	text, err := os.ReadFile(binary)
	if errors.Is(err, os.ErrNotExist) {
		return &coverage{}, nil // no test files
	} else if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(text)
	kept := filepath.Join(r.cache, hex.EncodeToString(digest[:16])+".json")
	measured := &coverage{}
	if text, err := os.ReadFile(kept); err == nil && json.Unmarshal(text, measured) == nil {
		return measured, nil
	}
	out, err := r.testCommand(ctx, binary, pkg, time.Minute, "-test.list=.").Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests of %s: %w", pkg, err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(name, "Benchmark") {
			continue
		}
		test, err := r.measureTest(ctx, binary, pkg, name)
		if err != nil {
			return nil, err
		}
		measured.Tests = append(measured.Tests, test)
	}
	text, err = json.Marshal(measured)
	if err != nil {
		return nil, err
	}
	return measured, os.WriteFile(kept, text, 0o600)
}

// measureTest runs one test, which has to pass. A test that fails is run a second time: the machine may be busy.
func (r *runner) measureTest(ctx context.Context, binary, pkg, name string) (testCoverage, error) {
	profile := filepath.Join(r.folder, "profile")
	var out []byte
	var err error
	for range 2 {
		began := time.Now()
		out, err = r.testCommand(ctx, binary, pkg, 20*time.Minute, "-test.coverprofile="+profile,
			"-test.run="+exactly([]string{name})).CombinedOutput()
		if err == nil {
			lines, err := readProfile(profile)
			return testCoverage{Name: name, Duration: time.Since(began), Lines: lines}, err
		}
	}
	return testCoverage{}, fmt.Errorf("the tests of %s fail without a mutant: %s: %w\n%s", pkg, name, err, out)
}

// exactly returns the pattern of the named tests.
func exactly(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }

var executedBlock = regexp.MustCompile(`^(.+):(\d+)\.\d+,(\d+)\.\d+ \d+ (\d+)$`)

// readProfile returns the executed blocks of a coverage profile by file.
func readProfile(name string) (map[string][][2]int, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	lines := map[string][][2]int{}
	for line := range strings.Lines(string(text)) {
		match := executedBlock.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil || match[4] == "0" {
			continue
		}
		first, _ := strconv.Atoi(match[2])
		last, _ := strconv.Atoi(match[3])
		lines[match[1]] = append(lines[match[1]], [2]int{first, last})
	}
	return lines, nil
}

// profileName returns the name that a coverage profile has for the file of a mutant.
func (m *mutant) profileName() string {
	return path.Join(m.function.pkg.path, filepath.Base(m.function.file))
}
