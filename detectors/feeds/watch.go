package feeds

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
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
	perFeed      *prometheus.GaugeVec
	held         *prometheus.GaugeVec

	lastLoad, lastGoodLoad *prometheus.GaugeVec
}

// NewMetrics registers the metrics of feeds; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := metrics.With(reg)
	metrics := &Metrics{
		indicators: factory.Gauge("tidegate_detectors_feeds_indicators",
			"Indicators of all loaded feeds together; one that several feeds list counts for each."),
		loads: factory.CounterVec("tidegate_detectors_feeds_loads_total",
			"Loads of feeds, by result: ok, error (a file or a download that cannot be read; what was loaded before stays) or held (it looks "+
				"like a failed update).", "result"),
		skippedLines: factory.Counter("tidegate_detectors_feeds_skipped_lines_total",
			"Lines of feeds, or objects of JSON, that were left out because they hold no indicator that can be looked up."),
		perFeed: factory.GaugeVec("tidegate_detectors_feed_indicators", "Loaded indicators of the feed, without those that it has twice.", "feed"),
		held: factory.GaugeVec("tidegate_detectors_feed_held",
			"1 for a feed whose file looks like a failed update: the indicators that were loaded before stay.", "feed"),
		lastLoad: factory.GaugeVec(lastLoadMetric,
			"Unix time at which the feed was last downloaded or, without a url, its file last read, whether that succeeded or not.", "feed"),
		lastGoodLoad: factory.GaugeVec(lastGoodLoadMetric,
			"Unix time at which that last succeeded, also by the answer that nothing has changed; of a download also before the last restart.", "feed"),
	}
	for _, result := range []string{"ok", "error", "held"} {
		metrics.loads.WithLabelValues(result)
	}
	return metrics
}

const (
	lastLoadMetric     = "tidegate_detectors_feed_last_load_timestamp_seconds"
	lastGoodLoadMetric = "tidegate_detectors_feed_last_good_load_timestamp_seconds"
)

// setLoadTime records that a feed was downloaded or read now.
func (m *Metrics) setLoadTime(feed string, isGood bool) {
	m.lastLoad.WithLabelValues(feed).SetToCurrentTime()
	if isGood {
		m.lastGoodLoad.WithLabelValues(feed).SetToCurrentTime()
	}
}

// setLoaded records that set is the one that evaluates events.
func (m *Metrics) setLoaded(set *Set) {
	m.indicators.Set(float64(set.Len()))
	for _, list := range set.lists {
		m.perFeed.WithLabelValues(list.name).Set(float64(list.index.count))
	}
}

// maxLoggedLines is the number of skipped lines of a load that are logged one by one.
const maxLoggedLines = 3

// LoadAndLog calls Load, and logs and counts the result.
func LoadAndLog(cfgs []Config, log *slog.Logger, metrics *Metrics) (*Set, error) {
	start := time.Now()
	set, skipped, err := Load(context.Background(), cfgs)
	if err != nil {
		metrics.loads.WithLabelValues("error").Inc()
		return nil, err
	}
	metrics.loads.WithLabelValues("ok").Inc()
	metrics.setLoaded(set)
	logSkipped(log, metrics, skipped)
	for _, list := range set.lists {
		metrics.held.WithLabelValues(list.name).Set(0)
		if list.config.URL == "" {
			metrics.setLoadTime(list.name, true)
		}
	}
	for _, text := range set.Warnings() {
		log.Warn("feeds", "problem", text)
	}
	if len(cfgs) > 0 {
		log.Info("feeds loaded",
			"feeds", len(cfgs), "indicators", set.Len(), "version", set.Version(), "took", time.Since(start))
	}
	return set, nil
}

// Reload is LoadAndLog beside the feeds of before: one that has the same settings there is read again only if its file has
// changed, and stays as it was if the file cannot be read or is held back by guard.
func Reload(cfgs []Config, before *Set, guard *watch.Guard, log *slog.Logger, metrics *Metrics) (*Set, error) {
	if len(cfgs) > maxFeeds {
		return nil, fmt.Errorf("%d feeds, at most %d are possible", len(cfgs), maxFeeds)
	}
	watcher := Watcher{Log: log, Metrics: metrics, Guard: guard, errors: map[string]string{}}
	lists, free := make([]*list, len(cfgs)), wholeRoom
	for i, cfg := range cfgs {
		at := slices.IndexFunc(before.lists, func(known *list) bool { return known.config == cfg })
		if at >= 0 {
			lists[i], _ = watcher.reloadList(context.Background(), before.lists[at], free) // which logs an error
		} else {
			loaded, err := readList(context.Background(), cfg, free)
			if err != nil {
				metrics.loads.WithLabelValues("error").Inc()
				return nil, err
			}
			logSkipped(log, metrics, loaded.skipped)
			guard.Holds(cfg.Name, "", 0)
			metrics.held.WithLabelValues(cfg.Name).Set(0)
			lists[i] = loaded
		}
		free = free.without(lists[i])
	}
	set := newSet(lists)
	metrics.loads.WithLabelValues("ok").Inc()
	metrics.setLoaded(set)
	for _, text := range set.Warnings() {
		log.Warn("feeds", "problem", text)
	}
	return set, nil
}

// logSkipped logs the first skipped lines one by one, the rest as a number.
func logSkipped(log *slog.Logger, metrics *Metrics, skipped SkippedLines) {
	metrics.skippedLines.Add(float64(skipped.Count))
	for _, lineError := range skipped.Errors[:min(maxLoggedLines, len(skipped.Errors))] {
		log.Warn("feed: invalid line skipped", "err", lineError)
	}
	if more := skipped.Count - maxLoggedLines; more > 0 {
		log.Warn("feed: more invalid lines skipped", "lines", more)
	}
}

// A Watcher reloads a feed when its file changes. Guard, if it is not nil, holds back a file that looks like a
// failed update.
type Watcher struct {
	Feeds    []Config
	Current  *Set       // the set that was loaded before Run
	OnChange func(*Set) // is called with every new set, from the goroutine of Run
	Log      *slog.Logger
	Metrics  *Metrics
	Guard    *watch.Guard

	errors map[string]string // the last error of each feed
}

// Run watches until ctx ends. If a file cannot be read, or is held back, its feed stays as it is.
func (w Watcher) Run(ctx context.Context) {
	if len(w.Feeds) == 0 {
		<-ctx.Done()
		return
	}
	if w.Guard == nil {
		w.Guard = &watch.Guard{}
	}
	w.errors = map[string]string{}
	poller := watch.Poller[*Set]{
		State:  func() (string, error) { return filesState(w.Feeds) + w.Guard.State(), nil },
		Load:   func() (*Set, error) { return w.reload(ctx) },
		Use:    w.activate,
		Failed: func(error) {}, // reload reports the errors of each feed
		Recovered: func() {
			w.Log.Info("feeds: the errors are gone", "version", w.Current.Version(), "indicators", w.Current.Len())
		},
		Loaded: w.Current.filesState() + w.Guard.State(),
	}
	poller.Run(ctx)
}

func (w *Watcher) activate(set *Set) {
	if set.Version() == w.Current.Version() {
		return
	}
	w.Current = set
	w.Metrics.loads.WithLabelValues("ok").Inc()
	w.Metrics.setLoaded(set)
	w.Log.Info("feeds loaded", "feeds", len(set.lists), "indicators", set.Len(), "version", set.Version())
	w.OnChange(set)
}

// reload returns a set in which each list whose file has changed is read again. A list that cannot be read is
// the one of before, and its error is returned too, so that the Poller tries again.
func (w *Watcher) reload(ctx context.Context) (*Set, error) {
	lists, free := slices.Clone(w.Current.lists), wholeRoom
	var failed error
	for i, before := range w.Current.lists {
		loaded, err := w.reloadList(ctx, before, free)
		failed = cmp.Or(failed, err)
		lists[i] = loaded
		free = free.without(loaded)
	}
	set := w.Current
	if !slices.Equal(lists, set.lists) {
		set = newSet(lists)
	}
	if failed != nil {
		w.activate(set) // the feeds that can be read
	}
	return set, failed
}

// reloadList returns the list of a feed as its file is now, or before if the file has not changed, cannot be
// read, or is held back.
func (w *Watcher) reloadList(ctx context.Context, before *list, free room) (*list, error) {
	name := before.name
	downloaded := before.config.URL != "" // then Download holds back
	if fileState(before.config.Path) == before.fileState {
		if downloaded {
			return before, nil
		}
		w.Guard.Holds(name, "", 0)
		w.Metrics.held.WithLabelValues(name).Set(0)
		return before, nil
	}
	loaded, err := readList(ctx, before.config, free)
	if ctx.Err() != nil {
		return before, ctx.Err() // the process ends
	}
	if err != nil {
		if !downloaded {
			w.Metrics.setLoadTime(name, false)
		}
		if w.errors[name] != err.Error() {
			w.Metrics.loads.WithLabelValues("error").Inc()
			w.Log.Error("feed not loaded, keeping what was loaded before", "feed", name, "err", err)
		}
		w.errors[name] = err.Error()
		return before, err
	}
	delete(w.errors, name)
	if downloaded {
		logSkipped(w.Log, w.Metrics, loaded.skipped)
		return loaded, nil
	}

	content := watch.Content{Entries: loaded.index.count, Invalid: loaded.skipped.Count}
	loss := content.LossFrom(watch.Content{Entries: before.index.count, Invalid: before.skipped.Count})
	holds, isNew := w.Guard.Holds(name, loss, before.config.lossGrace())
	w.Metrics.held.WithLabelValues(name).Set(map[bool]float64{true: 1}[holds])
	w.Metrics.setLoadTime(name, !holds)
	switch {
	case isNew:
		w.Metrics.loads.WithLabelValues("held").Inc()
		w.Log.Warn("feed held back, its file looks like a failed update; what was loaded before stays: "+
			"if the file is right, send SIGHUP or restart", "feed", name, "path", before.config.Path,
			"reason", loss, "loaded_anyway_after", before.config.lossGrace())
	case loss != "" && !holds:
		w.Log.Warn("feed loaded, although its file looks like a failed update", "feed", name, "reason", loss)
	}
	if holds {
		return before, nil
	}
	logSkipped(w.Log, w.Metrics, loaded.skipped)
	return loaded, nil
}

// filesState returns the state of the files from which the lists of a set were read.
func (s *Set) filesState() string {
	var out strings.Builder
	for _, list := range s.lists {
		out.WriteString(list.fileState)
	}
	return out.String()
}

// filesState returns the state of the files of all feeds, for watch.Poller.
func filesState(cfgs []Config) string {
	var out strings.Builder
	for _, cfg := range cfgs {
		out.WriteString(fileState(cfg.Path))
	}
	return out.String()
}
