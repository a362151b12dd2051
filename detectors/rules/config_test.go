package rules

import (
	"errors"
	"fmt"
	"os"
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
	check(func(c *Config) { c.GeoDatabase, c.ASNDatabase = "/nonexistent/city.mmdb", t.TempDir() }, "geo_database asn_database")
	check(func(c *Config) { c.LossGrace = -1 }, "loss_grace")
	check(func(c *Config) { c.LossGrace = 366 * 24 * time.Hour }, "loss_grace")
	check(func(c *Config) { c.MaxMeanTime = 0 }, "max_mean_time")
	check(func(c *Config) { c.MaxTime = 0 }, "max_time")
	check(func(c *Config) { c.MaxMeanTime, c.MaxTime = time.Nanosecond, time.Nanosecond }, "")
}

// TestErrorsOfAllFilesAreBounded: a thousand are shown, and one says how many are not.
func TestErrorsOfAllFilesAreBounded(t *testing.T) {
	for first, want := range map[int]int{1: 501, 500: 1000, 501: 1001, 504: 1001} {
		var sources []Source
		for name, count := range map[string]int{"a": first, "b": maxShownErrors / 2} {
			var text strings.Builder
			for i := range count {
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
		more := fmt.Sprintf("%d more errors are not shown", first-maxShownErrors/2)
		if isCut := strings.HasSuffix(last, more); len(list) != want || isCut != (want > maxShownErrors) {
			t.Errorf("%d in the first file: %d errors, want %d; the last is %q", first, len(list), want, last)
		}
	}
}

// TestErrorsAreSortedByFile, those of one file by line, whatever the order in which the files are read.
func TestErrorsAreSortedByFile(t *testing.T) {
	cfg := Default()
	cfg.Exceptions = map[string][]string{"a1": {"mysql.rows"}}
	two := func(name string) Source {
		return Source{Name: name + ".yaml", Data: []byte(ruleYAML(name+"1", "mysql.rows") + ruleYAML(name+"2", "mysql.rows"))}
	}
	for _, sources := range [][]Source{{two("a"), two("d"), two("e")}, {two("e"), two("a"), two("d")}} {
		_, err := Compile(cfg, sources, nil, nil)
		var list Errors
		if !errors.As(err, &list) {
			t.Fatal(err)
		}
		var places []string
		for _, one := range list {
			places = append(places, fmt.Sprintf("%s:%d", one.File, one.Line))
		}
		if got := strings.Join(places, " "); got != "a.yaml:4 a.yaml:8 config:0 d.yaml:4 d.yaml:8 e.yaml:4 e.yaml:8" {
			t.Error(got)
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) != len(list) || lines[3] != list[3].Error() || len(list.Unwrap()) != len(list) {
			t.Errorf("%q", lines)
		}
	}
}

// TestFolderOfTheNameOfTheShippedRules: its rules are those of the folder, and the shipped ones stay those of the program.
func TestFolderOfTheNameOfTheShippedRules(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(shippedPrefix, 0o700); err != nil {
		t.Fatal(err)
	}
	text := ruleYAML("own", `message contains "abcdef"`)
	if err := os.WriteFile(shippedPrefix+"/own.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, withShipped := range []bool{true, false} {
		cfg := Default()
		cfg.Dir, cfg.Shipped = shippedPrefix, withShipped
		set, err := Load(cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if set.Own() != 1 || len(set.Warnings()) != 0 || len(set.Rules()) > 1 != withShipped {
			t.Errorf("%d of %d rules are own ones, warnings %q", set.Own(), len(set.Rules()), set.Warnings())
		}
		for _, rule := range set.Rules() {
			if rule.IsShipped() != (rule.ID != "own") {
				t.Errorf("%s of %s is shipped: %t", rule.ID, rule.File, rule.IsShipped())
			}
			if got, err := rule.Text(); err != nil || rule.ID == "own" && got != text || !strings.Contains(got, rule.ID) {
				t.Errorf("%s: %q, %v", rule.ID, got, err)
			}
		}
	}
}
