package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeModule makes a module of a package and a package that imports it, and changes into it.
func writeModule(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod": "module example\n\ngo 1.24\n",
		"limit/limit.go": `package limit

// Clamp is tested on both sides, but not at its borders.
func Clamp(n int) int {
	if n > 10 {
		return 10
	}
	return n
}

// Twice is tested by its importer alone.
func Twice(n int) int { return n + n }

// Untested has no test.
func Untested(n int) bool { return n == 7 }
`,
		"limit/set.go": `package limit

type Set[T comparable] struct{ all map[T]bool }

// Add has a mutant that does not compile: without its last line "old" is not used.
func (s *Set[T]) Add(value T, _ ...int) (added bool) {
	old := s.all[value]
	added = !old
	if s.all == nil {
		s.all = map[T]bool{}
	}
	s.all[value] = true
	return
}

func (Set[T]) Ignore(int, string) { panic("ignored") }

func Join[T comparable, L ~[]T](list L, more ...T) (all L) {
	all = append(list, more...)
	return all
}
`,
		"limit/limit_test.go": `package limit

import "testing"

func TestClamp(t *testing.T) {
	if Clamp(100) != 10 || Clamp(5) != 5 {
		t.Fatal()
	}
}

func TestSet(t *testing.T) {
	var set Set[string]
	if !set.Add("a", 1, 2) || !set.Add("b") || set.Add("a") || len(set.all) != 2 {
		t.Fatal()
	}
	if len(Join([]int{1}, 2, 3)) != 3 {
		t.Fatal()
	}
	defer func() {
		if recover() == nil {
			t.Fatal()
		}
	}()
	set.Ignore(1, "")
}
`,
		"user/user.go": "package user\n\nimport \"example/limit\"\n\nfunc Four() int { return limit.Twice(2) }\n",
		"user/user_test.go": `package user

import "testing"

func TestFour(t *testing.T) {
	if Four() != 4 {
		t.Fatal()
	}
}
`,
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSurvivorsAreWhatNoTestNotices(t *testing.T) {
	writeModule(t)
	packages, err := loadPackages(t.Context(), []string{"./limit"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunner(t.Context(), packages, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	result, err := r.testAll(t.Context(), newSampler(packages, 1), 100, 2)
	if err != nil {
		t.Fatal(err)
	}

	var got []string
	for _, m := range result.survived {
		got = append(got, m.function.name+" "+m.kind+" "+m.before)
	}
	slices.Sort(got)
	// Clamp(10) is 10 on both sides of the border: an equivalent mutant. 11 → 10 is none: Clamp(11) differs.
	want := []string{"Clamp boundary >", "Clamp constant 10", "Clamp constant 10", "Untested constant 7", "Untested constant 7", "Untested operator =="}
	if !slices.Equal(got, want) {
		t.Errorf("survived:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if counts := result.counts["example/limit"]; counts[killedByImporter] != 1 || counts[killed] < 8 || counts[notBuilt] != 1 {
		t.Errorf("counts %v: Twice is tested by its importer alone, one mutant of Add does not compile", counts)
	}
}

func TestTestsThatFailWithoutAMutantAreAnError(t *testing.T) {
	writeModule(t)
	if err := os.WriteFile("user/user_test.go", []byte("package user\n\nimport \"testing\"\n\nfunc TestFour(t *testing.T) { t.Fatal() }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	packages, err := loadPackages(t.Context(), []string{"./limit"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunner(t.Context(), packages, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	_, err = r.testAll(t.Context(), newSampler(packages, 1), 100, 2)
	if err == nil || !strings.Contains(err.Error(), "example/user") {
		t.Errorf("error %v, want one that names the package", err)
	}
}

func TestPackagesOfTestsAreNotMutated(t *testing.T) {
	writeModule(t)
	for name, text := range map[string]string{
		"limittest/limittest.go": "package limittest\n\nfunc Seven() int { return 7 }\n",
		"user/seven_test.go": "package user\n\nimport (\n\t\"testing\"\n\n\t\"example/limittest\"\n)\n\n" +
			"func TestSeven(t *testing.T) { _ = limittest.Seven() }\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	packages, err := loadPackages(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, pkg := range packages {
		got = append(got, pkg.path)
	}
	if want := []string{"example/limit", "example/user"}; !slices.Equal(got, want) {
		t.Errorf("mutants of %q, want of %q", got, want)
	}
}

func TestSampleIsSpreadOverFunctionsAndRepeatable(t *testing.T) {
	writeModule(t)
	draw := func(seed uint64) (described []string, functions []string) {
		t.Helper()
		packages, err := loadPackages(t.Context(), []string{"./limit"})
		if err != nil {
			t.Fatal(err)
		}
		s := newSampler(packages, seed)
		for m, ok := s.nextMutant(); ok; m, ok = s.nextMutant() {
			described = append(described, m.describe())
			functions = append(functions, m.function.name)
		}
		return described, functions
	}
	first, functions := draw(3)
	again, _ := draw(3)
	other, _ := draw(4)
	if !slices.Equal(first, again) || slices.Equal(first, other) {
		t.Errorf("the seed decides the order: %q, %q, %q", first, again, other)
	}
	begin := slices.Clone(functions[:5])
	slices.Sort(begin)
	if !slices.Equal(begin, []string{"(*Set[T]).Add", "Clamp", "Join", "Twice", "Untested"}) {
		t.Errorf("the first five mutants are of %q, want one of each function", begin)
	}
}

// TestNamedMutantsAreTestedAlone: those of a report, wherever they stand by now.
func TestNamedMutantsAreTestedAlone(t *testing.T) {
	writeModule(t)
	report := "killed  example/limit/limit.go:1: Twice: operator: + → -  (example/user TestFour)\n" +
		"survived  example/limit/limit.go:77: Clamp: boundary: > → >=\nexample/limit/limit.go:8: Gone: operator: + → -\n"
	if err := os.WriteFile("report.txt", []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	packages, err := loadPackages(t.Context(), []string{"./..."})
	if err != nil {
		t.Fatal(err)
	}
	if err := keepNamed(packages, "report.txt"); err != nil {
		t.Fatal(err)
	}
	var got []string
	s := newSampler(packages, 1)
	for m, ok := s.nextMutant(); ok; m, ok = s.nextMutant() {
		got = append(got, m.function.name+" "+m.kind)
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"Clamp boundary", "Twice operator"}) {
		t.Errorf("mutants %q", got)
	}
	if err := keepNamed(packages[1:], "report.txt"); err == nil {
		t.Error("no error although the report names no mutant of the package")
	}
}

// TestMutantOfACaseIsTestedByTheTestsOfItsSwitch: coverage has no block for the expression of a case.
func TestMutantOfACaseIsTestedByTheTestsOfItsSwitch(t *testing.T) {
	result := testEveryMutant(t, `func isFew(n int) bool {
	switch {
	case n > 0 && n < 5:
		return true
	}
	return false
}
`, "if isFew(9) {\n\t\tt.Fatal()\n\t}")
	for _, m := range result.survived {
		if m.before == "n > 0 && n < 5" || m.text == "||" {
			t.Errorf("survived: %s", m.describe())
		}
	}
	if counts := result.counts["example"]; counts[killed] == 0 {
		t.Errorf("counts %v: no mutant of the case was killed", counts)
	}
}

// TestMutantBehindALiteralIsTested: coverage does not count what stands behind a function literal in a statement; the literal
// itself is counted by its own lines.
func TestMutantBehindALiteralIsTested(t *testing.T) {
	result := testEveryMutant(t, `func sizes(n int, isOn func(int) bool) []int {
	return append(
		filter(n, func(v int) bool {
			return v > 700
		}),
		n+500,
	)
}

func filter(int, func(int) bool) []int { return nil }
`, "if got := sizes(1, nil); got[0] != 501 {\n\t\tt.Fatal()\n\t}")
	var survived []string
	for _, m := range result.survived {
		survived = append(survived, m.before)
	}
	if len(survived) == 0 || slices.ContainsFunc(survived, func(text string) bool { return strings.Contains(text, "500") }) {
		t.Errorf("survived: %q", survived)
	}
	for _, m := range result.survived {
		if strings.Contains(m.before, "700") && m.executed != m.line {
			t.Errorf("%s is executed with line %d", m.describe(), m.executed)
		}
	}
}

// testEveryMutant tests the mutants of a package with one file, and with one test that consists of a statement.
func testEveryMutant(t *testing.T, code, statement string) *report {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"go.mod":       "module example\n\ngo 1.24\n",
		"size.go":      "package size\n\n" + code,
		"size_test.go": "package size\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) {\n\t" + statement + "\n}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	packages, err := loadPackages(t.Context(), []string{"."})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRunner(t.Context(), packages, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.rest = false
	result, err := r.testAll(t.Context(), newSampler(packages, 1), 100, 1)
	if err != nil {
		t.Fatal(err)
	}
	return result
}
