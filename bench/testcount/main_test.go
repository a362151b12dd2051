package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestSkippedTestsAreCounted reads the events of runs with and without skips and failures.
func TestSkippedTestsAreCounted(t *testing.T) {
	check := func(what, events string, noSkips, want bool, texts ...string) {
		t.Helper()
		var out bytes.Buffer
		results := newCounter(&out)
		if err := results.read(strings.NewReader(events)); err != nil {
			t.Fatal(err)
		}
		if got := results.print(noSkips); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		for _, text := range texts {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: no %q in\n%s", what, text, out.String())
			}
		}
	}
	const (
		pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
`
		skip = `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs root\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
`
		fail = `{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:3: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestC"}
`
		end = `{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
`
	)
	check("all pass", pass+end, true, true, "ok  \tp\t0.1s", "tests: 1 passed, 0 failed, 0 skipped")
	check("one skips", pass+skip+end, false, true, "skipped: p TestB: b_test.go:3: needs root", "1 skipped")
	check("one skips where none may", pass+skip+end, true, false, "none may be skipped here")
	check("one fails", pass+fail, false, false, "failed: p TestC: c_test.go:3: wrong\n", "1 passed, 1 failed")
	check("one ends with the process", `{"Action":"output","Package":"p","Test":"TestD","Output":"panic: x\n"}`, false, false,
		"panic: x", "1 failed")
	check("the compiler's text", pass+"p.go:1: undefined\n"+`{"Action":"build-fail","ImportPath":"p"}`, false, false, "undefined")
	check("nothing", "", false, false, "none has run")
}
