package detectors

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
)

// Config says which detectors run and what they read.
type Config struct {
	Rules      rules.Config
	Feeds      []feeds.Config
	Classifier classifier.Config
	Model      []byte // the classifier's model

	OnReload func(summary string) // is called after each reload, for a person at a terminal; may be nil
}

// A Loader loads the detectors and replaces rules and feeds when their files change. It is safe for
// concurrent use.
type Loader struct {
	cfg         Config
	log         *slog.Logger
	ruleMetrics *rules.Metrics
	feedMetrics *feeds.Metrics
	classifier  *classifier.Classifier // nil: disabled

	mu     sync.Mutex // guards rules and feeds, and orders changes of bundle
	rules  *rules.Set
	feeds  *feeds.Set
	bundle atomic.Pointer[pipeline.Bundle]
}

// NewLoader loads all detectors. The error holds everything that is wrong with the rules.
func NewLoader(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Loader, error) {
	loader := &Loader{cfg: cfg, log: log, ruleMetrics: rules.NewMetrics(reg), feedMetrics: feeds.NewMetrics(reg)}
	var err error
	if loader.rules, err = rules.Load(cfg.Rules, log, loader.ruleMetrics); err != nil {
		return nil, err
	}
	if loader.feeds, err = feeds.LoadAndLog(cfg.Feeds, log, loader.feedMetrics); err != nil {
		return nil, err
	}
	if cfg.Classifier.Enabled {
		if loader.classifier, err = classifier.New(cfg.Classifier, cfg.Model, reg); err != nil {
			return nil, fmt.Errorf("load the classifier: %w", err)
		}
	}
	loader.updateBundle()
	return loader, nil
}

// Bundle returns the detectors that are loaded. A worker of the engine asks for them once a block.
func (l *Loader) Bundle() *pipeline.Bundle { return l.bundle.Load() }

// Summary describes what is loaded: "35 rules, 1 indicator".
func (l *Loader) Summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return plural(len(l.rules.Rules()), "rule") + ", " + plural(l.feeds.Len(), "indicator")
}

// updateBundle makes a bundle of what is loaded. Its version is a hash of the detectors' versions and
// settings: bundles of the same version give the same verdicts.
func (l *Loader) updateBundle() {
	list := []pipeline.Detector{l.rules, l.feeds}
	content := "rules " + l.rules.Version() + " feeds " + l.feeds.Version()
	if l.classifier != nil {
		list = append(list, l.classifier)
		cfg := l.cfg.Classifier
		content += fmt.Sprintf(" classifier %s %v %v", l.classifier.Version(), cfg.Threshold, cfg.Shadow)
	}
	sum := sha256.Sum256([]byte(content))
	version := hex.EncodeToString(sum[:6])
	l.bundle.Store(&pipeline.Bundle{Version: version, Detectors: list})
	l.log.Info("detectors loaded", "bundle", version, "rules", len(l.rules.Rules()), "indicators", l.feeds.Len())
}

// Watch reloads rules and feeds when their files change, until ctx ends.
func (l *Loader) Watch(ctx context.Context) error {
	ruleWatcher := rules.Watcher{
		Config: l.cfg.Rules, Current: l.rules, Log: l.log, Metrics: l.ruleMetrics,
		OnChange: func(s *rules.Set) {
			l.replace("rules", plural(len(s.Rules()), "rule"), func() { l.rules = s })
		},
	}
	feedWatcher := feeds.Watcher{
		Feeds: l.cfg.Feeds, Current: l.feeds, Log: l.log, Metrics: l.feedMetrics,
		OnChange: func(s *feeds.Set) {
			l.replace("feeds", plural(s.Len(), "indicator"), func() { l.feeds = s })
		},
	}
	var watchers sync.WaitGroup
	watchers.Go(func() { ruleWatcher.Run(ctx) })
	watchers.Go(func() { feedWatcher.Run(ctx) })
	watchers.Wait()
	return nil
}

// replace changes one detector and makes a new bundle.
func (l *Loader) replace(what, content string, change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.updateBundle()
	if l.cfg.OnReload != nil {
		l.cfg.OnReload(what + " loaded: " + content)
	}
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
