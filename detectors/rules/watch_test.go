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

// watched is a folder that a Watcher watches in a synctest bubble.
type watched struct {
	*testing.T
	dir  string
	log  *bytes.Buffer
	mu   sync.Mutex
	sets []*Set // guarded by mu
	m    *Metrics
	reg  *prometheus.Registry
}

// whileWatching runs story while a Watcher watches a folder with one rule, r1.
func whileWatching(t *testing.T, story func(w *watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{T: t, dir: t.TempDir(), log: &bytes.Buffer{}, reg: prometheus.NewRegistry()}
		w.m = NewMetrics(w.reg)
		w.write("a.yaml", ruleYAML("r1", `message contains "one"`))
		cfg := Default()
		cfg.Dir, cfg.Shipped = w.dir, false
		log := slog.New(slog.NewTextHandler(w.log, nil))
		set, err := Load(cfg, log, w.m)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		onChange := func(s *Set) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sets = append(w.sets, s)
		}
		go Watcher{Config: cfg, Current: set, OnChange: onChange, Log: log, Metrics: w.m}.Run(ctx)
		time.Sleep(5 * time.Second)
		story(w)
		cancel()
		synctest.Wait()
	})
}

func (w *watched) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
}

func (w *watched) expect(changes int, last string) {
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
	for _, r := range w.sets[changes-1].Rules() {
		ids = append(ids, r.ID)
	}
	if got := strings.Join(ids, " "); got != last {
		w.Errorf("rules %s, want %s", got, last)
	}
}

func TestWatchLoadsAChange(t *testing.T) {
	whileWatching(t, func(w *watched) {
		w.expect(0, "")
		w.write("b.yml", ruleYAML("r2", `message contains "two"`))
		w.expect(1, "r1 r2")
		w.write("a.yaml", ruleYAML("r3", `message contains "one"`))
		w.expect(2, "r2 r3")
		if err := os.Remove(filepath.Join(w.dir, "b.yml")); err != nil {
			t.Fatal(err)
		}
		w.expect(3, "r3")
		w.write("notes.txt", "not a rule")
		w.expect(3, "r3")
	})
}

// TestWatchSeesAMovedFile: a file that is moved in keeps its old time.
func TestWatchSeesAMovedFile(t *testing.T) {
	whileWatching(t, func(w *watched) {
		old := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(old, []byte(ruleYAML("moved", `message contains "one"`)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(old, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(old, filepath.Join(w.dir, "a.yaml")); err != nil {
			t.Fatal(err)
		}
		w.expect(1, "moved")
	})
}

// TestWatchFollowsAConfigMap: the kubelet changes all files by one symlink.
func TestWatchFollowsAConfigMap(t *testing.T) {
	whileWatching(t, func(w *watched) {
		link := func(version string) {
			w.Helper()
			inner := filepath.Join(w.dir, ".."+version)
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			w.write(".."+version+"/c.yaml", ruleYAML("c-"+version, `message contains "c"`))
			w.write(".."+version+"/d.yaml", ruleYAML("d-"+version, `message contains "d"`))
			if err := os.Symlink(".."+version, filepath.Join(w.dir, "..tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(w.dir, "..tmp"), filepath.Join(w.dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		link("v1")
		for _, f := range []string{"c.yaml", "d.yaml"} {
			if err := os.Symlink("..data/"+f, filepath.Join(w.dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		w.expect(1, "c-v1 d-v1 r1")
		link("v2")
		w.expect(2, "c-v2 d-v2 r1")
	})
}

// TestWatchTakesAChangeOfManyFilesAsOne: while files go on changing, nothing is loaded.
func TestWatchTakesAChangeOfManyFilesAsOne(t *testing.T) {
	whileWatching(t, func(w *watched) {
		for i := range 8 {
			w.write(fmt.Sprintf("f%d.yaml", i), ruleYAML(fmt.Sprintf("f%d", i), `message contains "x"`))
			time.Sleep(700 * time.Millisecond) // each look sees another state
		}
		w.expect(1, "f0 f1 f2 f3 f4 f5 f6 f7 r1")
	})
}

// TestWatchKeepsTheOldRules: a load is all or nothing, and errors are logged once.
func TestWatchKeepsTheOldRules(t *testing.T) {
	whileWatching(t, func(w *watched) {
		w.write("good.yaml", ruleYAML("r2", `message contains "two"`))
		w.write("bad.yaml", ruleYAML("r3", `mesage contains "two"`))
		w.expect(0, "")
		time.Sleep(time.Minute)
		if n := strings.Count(w.log.String(), `bad.yaml:4:10: r3: when: unknown field \"mesage\", did you mean \"message\"?`); n != 1 {
			t.Errorf("the error was logged %d times:\n%s", n, w.log)
		}
		if !strings.Contains(w.log.String(), "keeping those that were loaded before") {
			t.Errorf("log does not say what runs:\n%s", w.log)
		}
		if n := metric(w.reg, "tidegate_detectors_rules_loads_total", "error"); n != 1 {
			t.Errorf("%v loads refused", n)
		}
		w.write("bad.yaml", ruleYAML("r3", `message contains "two"`))
		w.expect(1, "r1 r2 r3")
		if n := metric(w.reg, "tidegate_detectors_rules_info", w.sets[0].Version()); n != 1 {
			t.Error("the metric does not name the bundle that runs")
		}
	})
}

// TestReloadUnderLoadIsNeverTorn: each block is evaluated by one set, while sets are replaced.
func TestReloadUnderLoadIsNeverTorn(t *testing.T) {
	sets := make([]*Set, 4)
	m := NewMetrics(prometheus.NewRegistry())
	for i := range sets {
		var b strings.Builder
		for r := range 5 {
			b.WriteString(ruleYAML(fmt.Sprintf("r%d", r), `message contains "x"`) + fmt.Sprintf("  version: v%d\n", i))
		}
		set, err := Compile(Default(), []Source{{"t", []byte(b.String())}}, nil, m)
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
				for _, e := range block {
					if len(e.Verdicts) != 5 {
						t.Errorf("%d verdicts", len(e.Verdicts))
						return
					}
					for _, v := range e.Verdicts {
						if v.Version != version {
							t.Errorf("%s and %s in one block", v.Version, version)
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
