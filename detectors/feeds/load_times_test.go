package feeds

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/detectors/watch"
)

// TestLoadTimes: a load that fails or is held back moves the first time only, and one that succeeds both; they are found in the
// metrics by the name of the feed, whatever that is.
func TestLoadTimes(t *testing.T) {
	s := newFeedServer(t)
	s.cfg.Name = `a"b\c` + "\n"
	reg := prometheus.NewRegistry()
	metrics, log := NewMetrics(reg), slog.New(slog.DiscardHandler)
	check := func(what string, wantLast, wantGood bool) {
		t.Helper()
		stats := []Stats{{Feed: "other"}, {Feed: s.cfg.Name}}
		response := httptest.NewRecorder()
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(response, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
		if err := AddLoadTimes(stats, response.Body); err != nil {
			t.Fatal(err)
		}
		if got := stats[1]; (got.LastLoad != nil) != wantLast || (got.LastGoodLoad != nil) != wantGood || stats[0].LastLoad != nil {
			t.Errorf("%s: last load %v, good %v", what, got.LastLoad, got.LastGoodLoad)
		}
		for _, vec := range []*prometheus.GaugeVec{metrics.lastLoad, metrics.lastGoodLoad} {
			vec.Reset()
		}
	}
	d := &download{cfg: s.cfg, log: log, metrics: metrics}
	download := func(handler http.HandlerFunc) {
		s.handler = handler
		if err := d.update(t.Context()); err != nil {
			metrics.setLoadTime(s.cfg.Name, false) // as run does
		}
	}
	download(http.NotFound)
	check("404", true, false)
	download(serve(names("a", 20)))
	check("a download", true, true)
	if at := d.readState().LastGood; time.Since(at) > time.Hour {
		t.Errorf("the state has %v", at)
	}

	// A file.
	s.cfg.URL = ""
	set, err := LoadAndLog([]Config{s.cfg}, log, metrics)
	if err != nil {
		t.Fatal(err)
	}
	check("a file at the start", true, true)
	w := Watcher{Feeds: []Config{s.cfg}, Current: set, OnChange: func(*Set) {}, Log: log, Metrics: metrics, errors: map[string]string{}}
	w.Guard = &watch.Guard{}
	reload := func(text string) {
		if err := os.WriteFile(s.cfg.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		set, _ := w.reload(t.Context())
		w.activate(set)
	}
	reload(names("b", 30))
	check("a file that has changed", true, true)
	reload("")
	check("a file that is held back", true, false)
	reload(`{"objects": [`)
	check("a file that cannot be read", true, false)
	if testutil.ToFloat64(metrics.loads.WithLabelValues("error")) != 1 {
		t.Error("the error is not counted")
	}
}
