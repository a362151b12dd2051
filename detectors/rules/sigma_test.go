package rules

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/pipeline"
)

// sigmaRule returns a Sigma rule about a request with a path, and one that is refused.
func sigmaRule(id, path string) string {
	return "title: A request\nid: " + id + "\nauthor: Ann\nlevel: low\nlogsource: {category: webserver}\ndetection:\n    s: {cs-uri-stem: " + path + "}\n    condition: s\n"
}

const (
	sigmaID     = "00000000-0000-0000-0000-00000000000a"
	refusedRule = "title: Of Windows\nid: 00000000-0000-0000-0000-00000000000b\nlogsource: {product: windows}\ndetection:\n    s: {a: b}\n    condition: s\n"
)

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSigmaFolderIsLoaded loads a folder with a rule, one that is refused and one whose id is taken.
func TestSigmaFolderIsLoaded(t *testing.T) {
	dir, own := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(own, "own.yaml"), ruleYAML("taken", `url.path == "/own"`))
	writeFile(t, filepath.Join(dir, "a.yml"), "# a comment\n"+sigmaRule(sigmaID, "/a")+"---\n"+refusedRule)
	writeFile(t, filepath.Join(dir, "b.yml"), sigmaRule("taken", "/b"))
	cfg := Default()
	cfg.Dir, cfg.Sigma, cfg.Shipped = own, dir, false
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set.Own() != 1 || set.FromSigma() != 1 || len(set.Rules()) != 2 || len(set.Refused()) != 2 {
		t.Fatalf("%d own, %d Sigma, %d in all, %d refused", set.Own(), set.FromSigma(), len(set.Rules()), len(set.Refused()))
	}
	refused := set.Refused()[0].Err.Error() + "\n" + set.Refused()[1].Err.Error()
	if !strings.Contains(refused, "a.yml:13:") || !strings.Contains(refused, "product windows") || !strings.Contains(refused, "has the id taken of the rule at") {
		t.Errorf("refused: %s", refused)
	}
	if warnings := strings.Join(set.Warnings(), "\n"); !strings.Contains(warnings, "rules.sigma: 2 of 3 Sigma rules are refused") {
		t.Errorf("warnings: %s", warnings)
	}
	rule := set.Rules()[0]
	if rule.ID != sigmaID || rule.Author != "Ann" || rule.Line != 2 || rule.IsShipped() || !strings.HasSuffix(rule.File, "a.yml") {
		t.Errorf("got %+v", rule)
	}
	if text, err := rule.Text(); err != nil || !strings.Contains(text, `author: "Ann"`) {
		t.Errorf("got %q, %v", text, err)
	}
	event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlPath: "/A"}}
	set.Evaluate([]*pipeline.Event{event})
	if len(event.Verdicts) != 1 || event.Verdicts[0].Evidence != "url.path=/A (Sigma rule by Ann)" {
		t.Errorf("got %v", event.Verdicts)
	}
}

// TestRuleThatDoesNotCompileIsRefused: a limit of our rules refuses the Sigma rule that exceeds it, and no other.
func TestRuleThatDoesNotCompileIsRefused(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.yml"), sigmaRule(sigmaID, "/a"))
	writeFile(t, filepath.Join(dir, "b.yml"), strings.Replace(sigmaRule("big", "x"), "cs-uri-stem: x", "'cs-uri-stem|re': '"+strings.Repeat("a", 1001)+"'", 1))
	cfg := Default()
	cfg.Sigma, cfg.Shipped = dir, false
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set.FromSigma() != 1 || len(set.Refused()) != 1 || !strings.Contains(set.Refused()[0].Err.Error(), "b.yml:7:27: detection.s.cs-uri-stem|re: regular expression of 1001 bytes") {
		t.Errorf("%d loaded, refused: %v", set.FromSigma(), set.Refused()[0].Err)
	}
}

// TestSigmaFolderIsReloaded changes a folder of Sigma rules that is watched.
func TestSigmaFolderIsReloaded(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yml")
	writeFile(t, file, sigmaRule(sigmaID, "/a"))
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.Sigma, cfg.Shipped = dir, false
		set, err := Load(cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		changed := make(chan *Set, 10)
		watcher := Watcher{Config: cfg, Current: set, Log: slog.New(slog.DiscardHandler), OnChange: func(set *Set) { changed <- set }}
		go watcher.Run(t.Context())
		time.Sleep(5 * time.Second)
		writeFile(t, file, sigmaRule(sigmaID, "/b"))
		time.Sleep(10 * time.Second)
		select {
		case set := <-changed:
			if set.FromSigma() != 1 || !strings.Contains(set.Rules()[0].When, "/b") {
				t.Errorf("got %q", set.Rules()[0].When)
			}
		default:
			t.Error("the rules were not loaded again")
		}

		// A folder that is suddenly empty is held back.
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if len(changed) > 0 {
			t.Error("an empty folder replaced the rules")
		}
	})
}

// TestLargeSigmaFolder loads as many files as SigmaHQ has, most of them refused.
func TestLargeSigmaFolder(t *testing.T) {
	dir := t.TempDir()
	for i := range 2500 {
		text := refusedRule
		if i%10 == 0 {
			text = sigmaRule(fmt.Sprint("r", i), "/a")
		}
		writeFile(t, filepath.Join(dir, fmt.Sprint(i, ".yml")), text)
	}
	cfg := Default()
	cfg.Sigma, cfg.Shipped = dir, false
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if set.FromSigma() != 250 || len(set.Refused()) != 2250 {
		t.Errorf("%d loaded, %d refused", set.FromSigma(), len(set.Refused()))
	}
}
