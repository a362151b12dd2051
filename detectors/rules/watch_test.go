package rules

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// watchedFolder is a folder that a Watcher watches in a synctest bubble.
type watchedFolder struct {
	*testing.T
	dir     string
	log     *bytes.Buffer
	mu      sync.Mutex
	sets    []*Set // the sets that the Watcher has loaded; guarded by mu
	metrics *Metrics
	reg     *prometheus.Registry
}

// whileWatching calls a test function while a Watcher watches a folder with one rule, r1.
func whileWatching(t *testing.T, test func(folder *watchedFolder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		folder := &watchedFolder{T: t, dir: t.TempDir(), log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
		folder.metrics = NewMetrics(folder.reg)
		folder.write("a.yaml", ruleYAML("r1", `message contains "one"`))
		cfg := Default()
		cfg.Dir, cfg.Shipped = folder.dir, false
		log := slog.New(slog.NewTextHandler(folder.log, nil))
		set, err := Load(cfg, log, folder.metrics)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		onChange := func(set *Set) {
			folder.mu.Lock()
			defer folder.mu.Unlock()
			folder.sets = append(folder.sets, set)
		}
		go Watcher{Config: cfg, Current: set, OnChange: onChange, Log: log, Metrics: folder.metrics}.Run(ctx)
		time.Sleep(5 * time.Second)
		test(folder)
		cancel()
		synctest.Wait()
	})
}

// write writes a file into the folder.
func (w *watchedFolder) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

// expect checks, after a while, the number of loaded sets and the rules of the last one.
func (w *watchedFolder) expect(changes int, last string) {
	w.Helper()
	time.Sleep(5 * time.Second)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) != changes {
		w.Fatalf("%d changes, want %d\n%s", len(w.sets), changes, w.log)
	}
	if changes == 0 {
		return
	}
	var ids []string
	for _, rule := range w.sets[changes-1].Rules() {
		ids = append(ids, rule.ID)
	}
	if got := strings.Join(ids, " "); got != last {
		w.Errorf("rules %s, want %s", got, last)
	}
}

func TestWatchLoadsAChange(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		folder.expect(0, "")
		folder.write("b.yml", ruleYAML("r2", `message contains "two"`))
		folder.expect(1, "r1 r2")
		folder.write("a.yaml", ruleYAML("r3", `message contains "one"`))
		folder.expect(2, "r2 r3")
		if err := os.Remove(filepath.Join(folder.dir, "b.yml")); err != nil {
			t.Fatal(err)
		}
		folder.expect(3, "r3")
		folder.write("notes.txt", "not a rule")
		folder.expect(3, "r3")
	})
}

// TestWatchLoadsAMovedFile: a file that is moved into the folder keeps its old modification time.
func TestWatchLoadsAMovedFile(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		old := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(old, []byte(ruleYAML("moved", `message contains "one"`)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(old, filepath.Join(folder.dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		folder.expect(1, "moved")
	})
}

// TestWatchFollowsAConfigMap: the kubelet replaces all files of a ConfigMap by the rename of one symlink.
func TestWatchFollowsAConfigMap(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		// link writes two files into a new folder, and points the symlink ..data to it.
		link := func(version string) {
			folder.Helper()
			inner := filepath.Join(folder.dir, ".."+version)
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			folder.write(".."+version+"/c.yaml", ruleYAML("c-"+version, `message contains "c"`))
			folder.write(".."+version+"/d.yaml", ruleYAML("d-"+version, `message contains "d"`))
			if err := os.Symlink(".."+version, filepath.Join(folder.dir, "..tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(folder.dir, "..tmp"), filepath.Join(folder.dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		link("v1")
		for _, name := range []string{"c.yaml", "d.yaml"} {
			if err := os.Symlink("..data/"+name, filepath.Join(folder.dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		folder.expect(1, "c-v1 d-v1 r1")
		link("v2")
		folder.expect(2, "c-v2 d-v2 r1")
	})
}

// TestWatchLoadsAChangeOfManyFilesOnce: while the files continue to change, nothing is loaded.
func TestWatchLoadsAChangeOfManyFilesOnce(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		for i := range 8 {
			folder.write(fmt.Sprintf("f%d.yaml", i), ruleYAML(fmt.Sprintf("f%d", i), `message contains "x"`))
			time.Sleep(700 * time.Millisecond) // each poll finds another state
		}
		folder.expect(1, "f0 f1 f2 f3 f4 f5 f6 f7 r1")
	})
}

// TestWatchKeepsTheOldRulesAfterAnError: no file is loaded if one has an error, and the error is logged once.
func TestWatchKeepsTheOldRulesAfterAnError(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		folder.write("good.yaml", ruleYAML("r2", `message contains "two"`))
		folder.write("bad.yaml", ruleYAML("r3", `mesage contains "two"`))
		folder.expect(0, "")
		time.Sleep(time.Minute)
		const message = `bad.yaml:4:10: r3: when: unknown field \"mesage\", did you mean \"message\"?`
		if lines := strings.Count(folder.log.String(), message); lines != 1 {
			t.Errorf("the error was logged %d times:\n%s", lines, folder.log)
		}
		if !strings.Contains(folder.log.String(), "keeping those that were loaded before") {
			t.Errorf("the log does not name the rules that stay loaded:\n%s", folder.log)
		}
		if failed := metric(folder.reg, "tidegate_detectors_rules_loads_total", "error"); failed != 1 {
			t.Errorf("%v loads failed", failed)
		}
		folder.write("bad.yaml", ruleYAML("r3", `message contains "two"`))
		folder.expect(1, "r1 r2 r3")
		if loaded := metric(folder.reg, "tidegate_detectors_rules_info", folder.sets[0].Version()); loaded != 1 {
			t.Error("the metric does not name the loaded bundle")
		}
	})
}

// TestBlockIsEvaluatedByOneSet: four workers evaluate blocks while the set is replaced. All verdicts of a
// block have one version.
func TestBlockIsEvaluatedByOneSet(t *testing.T) {
	sets := make([]*Set, 4)
	metrics := NewMetrics(prometheus.NewRegistry())
	for i := range sets {
		var text strings.Builder
		for rule := range 5 {
			text.WriteString(ruleYAML(fmt.Sprintf("r%d", rule), `message contains "x"`) + fmt.Sprintf("  version: v%d\n", i))
		}
		set, err := Compile(Default(), []Source{{"t", []byte(text.String())}}, nil, metrics)
		if err != nil {
			t.Fatal(err)
		}
		sets[i] = set
	}
	var current atomic.Pointer[Set]
	current.Store(sets[0])
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for range 300 {
				block := make([]*pipeline.Event, 20)
				for i := range block {
					block[i] = &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "x"}}
				}
				current.Load().Evaluate(block)
				version := block[0].Verdicts[0].Version
				for _, event := range block {
					if len(event.Verdicts) != 5 {
						t.Errorf("%d verdicts", len(event.Verdicts))
						return
					}
					for _, verdict := range event.Verdicts {
						if verdict.Version != version {
							t.Errorf("%s and %s in one block", verdict.Version, version)
							return
						}
					}
				}
			}
		})
	}
	for i := range 1000 {
		current.Store(sets[i%len(sets)])
	}
	workers.Wait()
}

// TestWatchFollowsALinkedFolder: rules.dir is a symlink. An edit below it is loaded, and so is a link that is
// pointed elsewhere.
func TestWatchFollowsALinkedFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := t.TempDir()
		folder := &watchedFolder{T: t, dir: filepath.Join(base, "v1"), log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
		link := filepath.Join(base, "rules")
		point := func(version string) {
			folder.dir = filepath.Join(base, version)
			if err := os.MkdirAll(folder.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			folder.write("a.yaml", ruleYAML("a-"+version, `message contains "one"`))
			if err := os.Symlink(version, link+".new"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link+".new", link); err != nil {
				t.Fatal(err)
			}
		}
		point("v1")
		folder.metrics = NewMetrics(folder.reg)
		cfg := Default()
		cfg.Dir, cfg.Shipped = link, false
		log := slog.New(slog.NewTextHandler(folder.log, nil))
		set, err := Load(cfg, log, folder.metrics)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		onChange := func(set *Set) {
			folder.mu.Lock()
			defer folder.mu.Unlock()
			folder.sets = append(folder.sets, set)
		}
		go Watcher{Config: cfg, Current: set, OnChange: onChange, Log: log, Metrics: folder.metrics}.Run(ctx)
		folder.expect(0, "")
		folder.write("b.yaml", ruleYAML("b", `message contains "two"`))
		folder.expect(1, "a-v1 b")
		point("v2")
		folder.expect(2, "a-v2")
		point("v1")
		folder.expect(3, "a-v1 b")
		cancel()
		synctest.Wait()
	})
}

// TestLinkedSubfolderIsNamed: it is not read, because links may form a loop.
func TestLinkedSubfolderIsNamed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(dir, "a.yaml"): ruleYAML("r1", `message contains "one"`), filepath.Join(other, "b.yaml"): ruleYAML("r2", `message contains "two"`),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"team": other, "loop": dir, ".hidden": other} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Default()
	cfg.Dir, cfg.Shipped, cfg.Disable = dir, false, []string{"r1", "gone"}
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	warnings := strings.Join(set.Warnings(), "\n")
	if len(set.Warnings()) != 3 || !strings.Contains(warnings, "team is a link to a folder") ||
		!strings.Contains(warnings, "loop is a link to a folder") || !strings.Contains(warnings, `no rule has the id "gone"`) {
		t.Errorf("warnings %s", warnings)
	}
	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	if set, err = Load(cfg, nil, nil); err != nil || !strings.Contains(strings.Join(set.Warnings(), "\n"), "has no rule file") {
		t.Errorf("an empty folder has no warning: %v, %v", set.Warnings(), err)
	}
}

// TestFolderThatLosesItsRulesIsHeldBack: the folder is emptied, or loses half of its rules, as when its volume is
// gone. Its rules stay loaded until the folder was like this for an hour.
func TestFolderThatLosesItsRulesIsHeldBack(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		held := func() float64 { return metric(folder.reg, "tidegate_detectors_rules_held", "") }
		if err := os.Remove(filepath.Join(folder.dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		folder.expect(0, "")
		if held() != 1 || strings.Count(folder.log.String(), "rules held back") != 1 {
			t.Errorf("held %v, log %s", held(), folder.log)
		}
		for i := range 10 {
			folder.write(fmt.Sprintf("f%d.yaml", i), ruleYAML(fmt.Sprintf("f%d", i), `message contains "x"`))
		}
		folder.expect(1, "f0 f1 f2 f3 f4 f5 f6 f7 f8 f9")
		for i := range 5 {
			if err := os.Remove(filepath.Join(folder.dir, fmt.Sprintf("f%d.yaml", i))); err != nil {
				t.Fatal(err)
			}
		}
		folder.expect(1, "f0 f1 f2 f3 f4 f5 f6 f7 f8 f9")
		if held() != 1 {
			t.Error("the folder is not held back")
		}
		time.Sleep(time.Hour)
		folder.expect(2, "f5 f6 f7 f8 f9")
		if held() != 0 {
			t.Error("the folder is still held back")
		}
	})
}

// TestErrorsThatAreGoneAreLogged once: the broken file is removed again, and the rules are as before.
func TestErrorsThatAreGoneAreLogged(t *testing.T) {
	whileWatching(t, func(folder *watchedFolder) {
		folder.write("b.yaml", "not a rule")
		folder.expect(0, "")
		const line = "rules: the errors are gone"
		if log := folder.log.String(); !strings.Contains(log, "rules not loaded") || strings.Contains(log, line) {
			t.Errorf("log %s", log)
		}
		if err := os.Remove(filepath.Join(folder.dir, "b.yaml")); err != nil {
			t.Fatal(err)
		}
		folder.expect(0, "")
		folder.expect(0, "")
		if log := folder.log.String(); strings.Count(log, line) != 1 {
			t.Errorf("log %s", log)
		}
	})
}

// TestLossesOfRulesThatAreHeldBack: half of ten and more, three quarters of four to nine, all of any.
func TestLossesOfRulesThatAreHeldBack(t *testing.T) {
	check := func(before, after int, want bool) {
		t.Helper()
		if got := lossOfRules(after, before) != ""; got != want {
			t.Errorf("from %d to %d: held %t", before, after, got)
		}
	}
	check(11, 1, true)
	check(10, 5, true)
	check(10, 6, false)
	check(9, 4, false)
	check(9, 2, true)
	check(8, 1, true)
	check(8, 3, false)
	check(4, 1, true)
	check(4, 2, false)
	check(3, 1, false)
	check(1, 0, true)
	check(0, 0, false)
}
