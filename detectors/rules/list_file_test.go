package rules

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tidegate/pipeline"
)

const listRule = `lists:
  tools: {file: lists/tools.txt}
rules:
  - id: r
    title: t
    severity: low
    when: user_agent.original contains tools
`

// loadFiles loads rule files, and files with lists, from memory.
func loadFiles(files map[string]string) (*Set, error) {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return LoadFS(fsys, "p", nil, nil)
}

// TestListStandsInAFileOfItsOwn: a text a line, without comments, blanks around it, and the marks of other systems.
func TestListStandsInAFileOfItsOwn(t *testing.T) {
	set, err := loadFiles(map[string]string{
		"sub/r.yaml": listRule, "sub/lists/tools.txt": "\ufeff# tools\r\nsqlmap/\r\n\n  # more\n\tnikto # 2 \nwith, \"quotes\": 'x'", "lists/tools.txt": "other", "notes.txt": "\xff",
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(set.rules[0].when.root.texts, "|"), `sqlmap/|nikto # 2|with, "quotes": 'x'`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UserAgent: "sqlmap/1.7"}}
	if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 {
		t.Error("the rule does not match")
	}

	// All files can use the list of a shared one, and the version of a rule covers what is in the list.
	shared := map[string]string{
		"a.yaml": "shared: true\nlists: {tools: {file: t.txt}}\n", "b.yaml": ruleYAML("r", `user_agent.original contains tools`), "t.txt": "one",
	}
	first, err := loadFiles(shared)
	if err != nil {
		t.Fatal(err)
	}
	shared["t.txt"] = "# comment\none\n"
	same, err := loadFiles(shared)
	if err != nil {
		t.Fatal(err)
	}
	shared["t.txt"] = "two"
	changed, err := loadFiles(shared)
	if err != nil {
		t.Fatal(err)
	}
	if first.Version() != same.Version() || first.Version() == changed.Version() || first.rules[0].Hash == changed.rules[0].Hash {
		t.Errorf("versions %s, %s with a comment, %s with another text", first.Version(), same.Version(), changed.Version())
	}
}

// TestMistakesInListFilesAreNamed with their file and line.
func TestMistakesInListFilesAreNamed(t *testing.T) {
	check := func(reference, name, text, want string) {
		t.Helper()
		_, err := loadFiles(map[string]string{"r.yaml": strings.Replace(listRule, "{file: lists/tools.txt}", reference, 1), name: text})
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", reference, err, want)
		}
	}
	check("{file: t.txt}", "t.txt", "a\n\xff\n", "p/t.txt:2:1: lists.tools: the line is not text in UTF-8")
	check("{file: t.txt}", "t.txt", "a\nb\x00\n", "p/t.txt:2:1: lists.tools: the line is not text in UTF-8")
	check("{file: t.txt}", "t.txt", "a\n\n"+strings.Repeat("x", maxText+1), "p/t.txt:3:1: lists.tools: text of 4097 bytes, the limit is 4096")
	check("{file: t.txt}", "t.txt", strings.Repeat("a\n", maxList+1), "p/t.txt:10001:1: lists.tools: more than 10000 texts: a longer list belongs in a feed")
	check("{file: t.txt}", "t.txt", "# nothing\n", "p/t.txt:1:1: lists.tools: the list has no text: one stands in each line, and a line that begins with # is a comment")
	check("{file: t.txt}", "t.txt", strings.Repeat("#\n", 4<<20), "p/t.txt:1:1: lists.tools: file of more than 4194304 bytes")
	check("{file: u.txt}", "t.txt", "a", "p/r.yaml:2:17: lists.tools.file: p/u.txt does not exist, or its name or that of its folder begins with a dot")
	for _, name := range []string{"../t.txt", "/etc/passwd.txt", "t.csv", "./t.txt", "a//t.txt"} {
		check("{file: "+name+"}", "t.txt", "a", fmt.Sprintf("p/r.yaml:2:17: lists.tools.file: %q is not the name of a file beside this one or below it that ends in .txt", name))
	}
	check("{}", "t.txt", "a", "p/r.yaml:2:10: lists.tools: a list is a list of texts or numbers, or a mapping with the key file")
	check("{file: t.txt, fil: x}", "t.txt", "a", `p/r.yaml:2:24: lists.tools.fil: unknown key, did you mean "file"?`)
}

// TestRulesAreLoadedAgainWhenAListChanges, and those that were loaded before stay if it is gone.
func TestRulesAreLoadedAgainWhenAListChanges(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("r.yaml", strings.Replace(listRule, "lists/tools.txt", "tools.txt", 1))
	write("tools.txt", "one")
	cfg := Default()
	cfg.Dir, cfg.Shipped = dir, false
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	loaded := make(chan *Set)
	go Watcher{Config: cfg, Current: set, Log: slog.New(slog.DiscardHandler), OnChange: func(set *Set) { loaded <- set }}.Run(ctx)
	write("tools.txt", "one\ntwo")
	select {
	case changed := <-loaded:
		if got := strings.Join(changed.rules[0].when.root.texts, " "); got != "one two" {
			t.Errorf("the list is %q", got)
		}
	case <-ctx.Done():
		t.Fatal("the rules were not loaded again")
	}
	if err := os.Remove(filepath.Join(dir, "tools.txt")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(cfg, nil, nil); err == nil || !strings.Contains(err.Error(), "tools.txt does not exist") {
		t.Error(err)
	}
}

// FuzzListFile checks that no file breaks the parser of lists.
func FuzzListFile(f *testing.F) {
	f.Add([]byte("\ufeff# a\nb\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		texts, _, err := parseListTexts(data)
		for _, text := range texts {
			if text == "" || text[0] == '#' || strings.TrimSpace(text) != text || len(text) > maxText {
				t.Errorf("%q, %v", text, err)
			}
		}
		if (err == nil) != (len(texts) > 0) {
			t.Errorf("%d texts, %v", len(texts), err)
		}
	})
}
