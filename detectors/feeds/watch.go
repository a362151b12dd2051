package feeds

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/watch"
	"tidegate/pipeline/metrics"
)

// Metrics counts loads of feeds. All sets of a process share one.
type Metrics struct {
	indicators   prometheus.Gauge
	loads        *prometheus.CounterVec
	skippedLines prometheus.Counter
}

// NewMetrics registers the metrics of feeds; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := metrics.With(reg)
	metrics := &Metrics{
		indicators: factory.Gauge("tidegate_detectors_feeds_indicators", "Indicators of all feeds that are loaded."),
		loads:      factory.CounterVec("tidegate_detectors_feeds_loads_total", "Attempts to load the feeds, by result.", "result"),
		skippedLines: factory.Counter("tidegate_detectors_feeds_skipped_lines_total",
			"Lines of feeds that were skipped because they are invalid."),
	}
	for _, result := range []string{"ok", "error"} {
		metrics.loads.WithLabelValues(result)
	}
	return metrics
}

// maxLoggedLines is the number of skipped lines of a load that are logged one by one.
const maxLoggedLines = 3

// LoadAndLog calls Load, and logs and counts the result.
func LoadAndLog(cfgs []Config, log *slog.Logger, metrics *Metrics) (*Set, error) {
	start := time.Now()
	set, skipped, err := Load(cfgs)
	if err != nil {
		metrics.loads.WithLabelValues("error").Inc()
		return nil, err
	}
	metrics.loads.WithLabelValues("ok").Inc()
	metrics.indicators.Set(float64(set.Len()))
	metrics.skippedLines.Add(float64(skipped.Count))

	// The first skipped lines are logged one by one, the rest as a number.
	for _, lineError := range skipped.Errors[:min(maxLoggedLines, len(skipped.Errors))] {
		log.Warn("feed: invalid line skipped", "err", lineError)
	}
	if more := skipped.Count - maxLoggedLines; more > 0 {
		log.Warn("feed: more invalid lines skipped", "lines", more)
	}
	if len(cfgs) > 0 {
		log.Info("feeds loaded",
			"feeds", len(cfgs), "indicators", set.Len(), "version", set.Version(), "took", time.Since(start))
	}
	return set, nil
}

// A Watcher reloads the feeds when one of their files changes.
type Watcher struct {
	Feeds    []Config
	Current  *Set       // the set that was loaded before Run
	OnChange func(*Set) // is called with every new set, from the goroutine of Run
	Log      *slog.Logger
	Metrics  *Metrics
}

// Run watches until ctx ends. If a file cannot be read, it keeps the current set.
func (w Watcher) Run(ctx context.Context) {
	if len(w.Feeds) == 0 {
		<-ctx.Done()
		return
	}
	poller := watch.Poller[*Set]{
		State:  func() (string, error) { return filesState(w.Feeds), nil },
		Load:   func() (*Set, error) { return LoadAndLog(w.Feeds, w.Log, w.Metrics) },
		Use:    w.OnChange,
		Failed: func(err error) { w.Log.Error("feeds not loaded, keeping those that were loaded before", "err", err) },
		Loaded: w.Current.files,
	}
	poller.Run(ctx)
}

// filesState returns the state of the files of all feeds, for watch.Poller. The state of a file that cannot
// be read is the error, so that Load runs and reports it.
func filesState(cfgs []Config) string {
	var out strings.Builder
	for _, cfg := range cfgs {
		state, err := watch.FileState(cfg.Path)
		if err != nil {
			state = err.Error() + "\n"
		}
		out.WriteString(state)
	}
	return out.String()
}
