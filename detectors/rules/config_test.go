package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCheckNamesEveryProblemOfTheRules: the defaults have no problem, and each wrong value has one with its key.
func TestCheckNamesEveryProblemOfTheRules(t *testing.T) {
	check := func(change func(*Config), want string) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		var keys []string
		for _, problem := range cfg.Check() {
			keys = append(keys, problem.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("problems of %q, want %q", got, want)
		}
	}
	check(func(*Config) {}, "")
	check(func(c *Config) { c.Dir, c.Shipped = t.TempDir(), false }, "")
	check(func(c *Config) { c.Dir, c.Shipped = "", false }, "dir")
	check(func(c *Config) { c.Dir = "/nonexistent/rules" }, "dir")
	check(func(c *Config) { c.Severity = map[string]string{"a": "low", "b": "urgent", "c": ""} }, "severity.b severity.c")
	check(func(c *Config) { c.LossGrace = -1 }, "loss_grace")
	check(func(c *Config) { c.LossGrace = 366 * 24 * time.Hour }, "loss_grace")
	check(func(c *Config) { c.MaxMeanTime = 0 }, "max_mean_time")
	check(func(c *Config) { c.MaxTime = 0 }, "max_time")
	check(func(c *Config) { c.MaxMeanTime, c.MaxTime = time.Nanosecond, time.Nanosecond }, "")
}

// TestErrorsOfAllFilesAreBounded: a thousand are shown, and one says how many are not.
func TestErrorsOfAllFilesAreBounded(t *testing.T) {
	for each, want := range map[int]int{1: 2, maxShownErrors / 2: maxShownErrors, maxShownErrors/2 + 4: maxShownErrors + 1} {
		var sources []Source
		for _, name := range []string{"a", "b"} {
			var text strings.Builder
			for i := range each {
				text.WriteString(ruleYAML(fmt.Sprint(name, i), "mysql.rows"))
			}
			sources = append(sources, Source{Name: name + ".yaml", Data: []byte(text.String())})
		}
		_, err := Compile(Default(), sources, nil, nil)
		var list Errors
		if !errors.As(err, &list) {
			t.Fatal(err)
		}
		last := list[len(list)-1].Error()
		if isCut := strings.Contains(last, "more errors are not shown"); len(list) != want || isCut != (want > maxShownErrors) {
			t.Errorf("%d in each file: %d errors, want %d; the last is %q", each, len(list), want, last)
		}
	}
}
