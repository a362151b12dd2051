package rules

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOddValuesAreErrors replaces each value of rule files, with what belongs to it, by values that a half-written file
// has. Compile must not panic, and an empty item of a list is an error.
func TestOddValuesAreErrors(t *testing.T) {
	files, err := filepath.Glob("testdata/*.good.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, "no files")
	}
	texts := blocks(t, "../../docs/RULES.md", "yaml")
	for _, name := range append(files, "../../rules/containers.yaml", "../../rules/memcached.yaml") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(data))
	}
	for _, text := range texts {
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			key := line[:len(line)-len(strings.TrimLeft(line, " -"))]
			indent := len(key)
			if name, _, ok := strings.Cut(line, ":"); ok {
				key = name + ": "
			} else if !strings.Contains(key, "- ") {
				continue // a comment, or text over several lines
			}
			end := i + 1
			for end < len(lines) && (lines[end] == "" || len(lines[end])-len(strings.TrimLeft(lines[end], " ")) > indent) {
				end++
			}
			for _, odd := range []string{"", "null", "[]", "[null]", "{}", "{a: null}", "1", "- ", "\n" + strings.Repeat(" ", indent+2) + "-", "*a", "&a"} {
				text := strings.Join(lines[:i], "\n") + "\n" + key + odd + "\n" + strings.Join(lines[end:], "\n")
				set, err := Compile(Default(), []Source{{"odd.yaml", []byte(text)}}, nil, nil)
				if err == nil {
					set.Test()
				}
			}
		}
	}
	for _, text := range []string{"rules:\n  -", "rules:\n  - id: a\n  -\n", "- \n", "lists:\n  a:\n    - x\n    -\n"} {
		_, err := Compile(Default(), []Source{{"odd.yaml", []byte(text)}}, nil, nil)
		if err == nil || !strings.Contains(err.Error(), "odd.yaml:") {
			t.Errorf("%q: %v, want an error with file and line", text, err)
		}
	}
}

// TestFIFOInTheFolderIsAnError: opening it would wait for a writer, and end reloading for good.
func TestFIFOInTheFolderIsAnError(t *testing.T) {
	cfg := Default()
	cfg.Dir = t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(cfg.Dir, "c.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(cfg, slog.New(slog.DiscardHandler), nil); err == nil || !strings.Contains(err.Error(), "c.yaml") {
		t.Errorf("%v, want an error that names the file", err)
	}
}
