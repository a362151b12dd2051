package feeds

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/watch"
)

// A watchedFeeds watches feeds on the clock of a synctest bubble.
type watchedFeeds struct {
	*testing.T
	dir      string
	cfgs     []Config
	registry *prometheus.Registry
	guard    watch.Guard
	mu       sync.Mutex // guards log
	log      bytes.Buffer
	set      *Set // the newest
	sets     int
}

func (w *watchedFeeds) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

// warnings returns the log since the last call.
func (w *watchedFeeds) warnings() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.log.Reset()
	return w.log.String()
}

func (w *watchedFeeds) path(name string) string { return filepath.Join(w.dir, name) }

func (w *watchedFeeds) write(name, text string) {
	w.Helper()
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.Fatal(err)
	}
}

// names returns lines with n domains.
func names(prefix string, n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "%s%d.example\n", prefix, i)
	}
	return text.String()
}

// check waits, and checks the number of indicators of all feeds and of feeds that are held back.
func (w *watchedFeeds) check(wait time.Duration, indicators, held int) {
	w.Helper()
	time.Sleep(wait)
	synctest.Wait()
	got := 0.0
	families, _ := w.registry.Gather()
	for _, family := range families {
		if family.GetName() == "tidegate_detectors_feed_held" {
			for _, metric := range family.Metric {
				got += metric.GetGauge().GetValue()
			}
		}
	}
	if w.set.Len() != indicators || got != float64(held) {
		w.Errorf("%d indicators and %v feeds held back, want %d and %d", w.set.Len(), got, indicators, held)
	}
}

// watchFeeds calls test while the feeds a, of 100 domains, and b, of 10, are watched.
func watchFeeds(t *testing.T, test func(w *watchedFeeds)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watchedFeeds{T: t, dir: t.TempDir(), registry: prometheus.NewRegistry()}
		w.cfgs = []Config{{Name: "a", Path: w.path("a")}, {Name: "b", Path: w.path("b")}}
		w.write("a", names("a", 100))
		w.write("b", names("b", 10))
		log, metrics := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn})), NewMetrics(w.registry)
		first, err := LoadAndLog(w.cfgs, log, metrics)
		if err != nil {
			t.Fatal(err)
		}
		w.set = first
		ctx, cancel := context.WithCancel(t.Context())
		onChange := func(set *Set) { w.set = set; w.sets++ }
		go Watcher{Feeds: w.cfgs, Current: first, OnChange: onChange, Log: log, Metrics: metrics, Guard: &w.guard}.Run(ctx)
		w.check(3*time.Second, 110, 0)
		test(w)
		cancel()
		synctest.Wait()
	})
}

// errorPage is what a server answers instead of a list.
var errorPage = "<html>\n<head><title>503 Service Unavailable</title></head>\n" +
	strings.Repeat("<p>The service is down, and you may try again later.</p>\n", 40) + "example.org\n</html>\n"

// TestFailedUpdateOfAFeedIsHeldBack: a file that is empty, cut, or an error page replaces nothing, and is told
// once. A good file is loaded at once.
func TestFailedUpdateOfAFeedIsHeldBack(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing today\n\n", "half": names("a", 50), "cut": names("a", 3), "error page": errorPage,
		"mostly invalid": names("a", 90) + strings.Repeat("bad line\n", 95),
	} {
		t.Run(name, func(t *testing.T) {
			watchFeeds(t, func(w *watchedFeeds) {
				w.write("a", text)
				w.check(30*time.Minute, 110, 1)
				if log := w.warnings(); strings.Count(log, "feed held back") != 1 || !strings.Contains(log, "feed=a") {
					t.Errorf("log %s", log)
				}
				w.write("b", names("b", 12)) // another feed is loaded meanwhile
				w.check(5*time.Second, 112, 1)
				w.write("a", names("new", 110))
				w.check(5*time.Second, 122, 0)
			})
		})
	}
}

// TestFileThatStaysShortIsLoadedAfterItsGrace: also if it is written again and again meanwhile.
func TestFileThatStaysShortIsLoadedAfterItsGrace(t *testing.T) {
	watchFeeds(t, func(w *watchedFeeds) {
		w.write("a", names("a", 20))
		w.check(30*time.Minute, 110, 1)
		w.write("a", names("a", 21))
		w.check(29*time.Minute, 110, 1)
		w.check(2*time.Minute, 31, 0)
		if log := w.warnings(); !strings.Contains(log, "loaded, although") {
			t.Errorf("log %s", log)
		}
		w.write("a", "")
		w.check(30*time.Minute, 31, 1)
	})
}

func TestOperatorAcceptsAFileThatIsHeldBack(t *testing.T) {
	watchFeeds(t, func(w *watchedFeeds) {
		w.write("a", names("a", 20))
		w.check(5*time.Second, 110, 1)
		if accepted := w.guard.Accept(); len(accepted) != 1 || accepted[0] != "a" {
			t.Errorf("accepted %v", accepted)
		}
		w.check(5*time.Second, 30, 0)
	})
}

// TestSmallEditsAreLoadedAtOnce: a list that grows, loses a third, or is short anyway is no failed update.
func TestSmallEditsAreLoadedAtOnce(t *testing.T) {
	watchFeeds(t, func(w *watchedFeeds) {
		w.write("a", names("x", 70))
		w.check(5*time.Second, 80, 0)
		w.write("b", names("b", 6))
		w.check(5*time.Second, 76, 0)
		w.write("b", names("b", 1))
		w.check(5*time.Second, 71, 0)
	})
}

// TestUnreadableFeedDelaysNoOther: a file is gone. Its indicators stay, other feeds are loaded, and it is loaded
// when it is back.
func TestUnreadableFeedDelaysNoOther(t *testing.T) {
	watchFeeds(t, func(w *watchedFeeds) {
		if err := os.Remove(w.path("a")); err != nil {
			t.Fatal(err)
		}
		w.write("b", names("b", 20))
		w.check(5*time.Second, 120, 0)
		if log := w.warnings(); strings.Count(log, "feed not loaded") != 1 {
			t.Errorf("log %s", log)
		}
		w.write("b", names("b", 30))
		w.check(5*time.Second, 130, 0)
		w.write("a", names("new", 90))
		w.check(5*time.Second, 120, 0)
	})
}

// TestUnchangedFeedIsNotReadAgain: a change of one file reads only that file.
func TestUnchangedFeedIsNotReadAgain(t *testing.T) {
	watchFeeds(t, func(w *watchedFeeds) {
		before := w.set.lists[0]
		w.write("b", names("b", 20))
		w.check(5*time.Second, 120, 0)
		if w.set.lists[0] != before {
			t.Error("the other list was read again")
		}
	})
}
