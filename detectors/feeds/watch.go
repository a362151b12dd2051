package feeds

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell which feeds judge.
type Metrics struct {
	indicators   prometheus.Gauge
	loads        *prometheus.CounterVec
	skippedLines prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		indicators:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_detectors_feed_indicators", Help: "Indicators of all feeds that judge."}),
		loads:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_detectors_feed_loads_total", Help: "Times that the feeds were loaded."}, []string{"result"}),
		skippedLines: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_detectors_feed_bad_lines_total", Help: "Lines of feeds that could not be used."}),
	}
	reg.MustRegister(m.indicators, m.loads, m.skippedLines)
	return m
}

// LoadAndLog is Load, with what it skipped told and counted: the first few lines by themselves, the rest as a number.
func LoadAndLog(cfgs []Config, log *slog.Logger, m *Metrics) (*Set, error) {
	start := time.Now()
	s, skipped, err := Load(cfgs)
	if err != nil {
		m.loads.WithLabelValues("failed").Inc()
		return nil, err
	}
	m.loads.WithLabelValues("ok").Inc()
	m.indicators.Set(float64(s.Len()))
	m.skippedLines.Add(float64(skipped.Count))
	for _, e := range skipped.Errors[:min(3, len(skipped.Errors))] {
		log.Warn("line of a feed is left out", "err", e)
	}
	if n := skipped.Count - 3; n > 0 {
		log.Warn("more lines of feeds are left out", "lines", n)
	}
	if len(cfgs) > 0 {
		log.Info("feeds loaded", "feeds", len(cfgs), "indicators", s.Len(), "version", s.Version(), "took", time.Since(start))
	}
	return s, nil
}

const pollEvery = time.Second

// Watch loads the feeds again when a file has changed and then stayed as it is for one look, and calls onChange with the new set,
// beginning with what was changed since current was loaded.
// Where a file cannot be read, the set that runs goes on. Watch returns when ctx ends.
func Watch(ctx context.Context, cfgs []Config, current *Set, onChange func(*Set), log *slog.Logger, m *Metrics) {
	if len(cfgs) == 0 {
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	loaded := current.files
	before := loaded
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := filesState(cfgs)
		if now != loaded && now == before {
			loaded = now
			if s, err := LoadAndLog(cfgs, log, m); err != nil {
				log.Error("feeds are not reloaded, the old ones go on", "err", err)
			} else {
				onChange(s)
			}
		}
		before = now
	}
}

// filesState is what tells a changed file from an unchanged one; a file that was replaced has another inode.
func filesState(cfgs []Config) string {
	var b strings.Builder
	for _, c := range cfgs {
		if info, err := os.Stat(c.Path); err != nil {
			fmt.Fprintf(&b, "%s: gone\n", c.Path)
		} else {
			fmt.Fprintf(&b, "%s: %d %v %v\n", c.Path, info.Size(), info.ModTime().UnixNano(), inode(info))
		}
	}
	return b.String()
}
