package main

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
	"tidegate/models"
	"tidegate/pipeline"
)

// A brain holds the detectors that judge now. Rules and feeds are loaded again when their files change; then a new bundle takes the
// place of the old one, and every worker has it from its next block on.
type brain struct {
	cfg *Config
	log *slog.Logger

	mu         sync.Mutex // one change at a time
	rules      *rules.Set
	feeds      *feeds.Set
	classifier *classifier.Classifier
	current    atomic.Pointer[pipeline.Bundle]
	say        func(format string, args ...any) // to a person, of what was loaded again; nil: nobody is there

	ruleMetrics *rules.Metrics
	feedMetrics *feeds.Metrics
}

func newBrain(cfg *Config, log *slog.Logger, reg prometheus.Registerer) (*brain, error) {
	b := &brain{cfg: cfg, log: log, ruleMetrics: rules.NewMetrics(reg), feedMetrics: feeds.NewMetrics(reg)}
	var err error
	if b.rules, err = rules.Load(cfg.Rules, log, b.ruleMetrics); err != nil {
		return nil, err
	}
	if b.feeds, err = feeds.LoadAndLog(cfg.Feeds, log, b.feedMetrics); err != nil {
		return nil, err
	}
	if cfg.Classifier.Enabled {
		if b.classifier, err = classifier.New(cfg.Classifier, models.GeneratedDomains, reg); err != nil {
			return nil, fmt.Errorf("load the classifier: %w", err)
		}
	}
	b.swap()
	return b, nil
}

// Bundle is what the engine's workers load once a block.
func (b *brain) Bundle() *pipeline.Bundle { return b.current.Load() }

// swap makes a bundle of what is loaded. Its version is a hash of theirs and of how they are set: the same version judges alike.
func (b *brain) swap() {
	list := []pipeline.Detector{b.rules, b.feeds}
	version := "rules " + b.rules.Version() + " feeds " + b.feeds.Version()
	if b.classifier != nil {
		list = append(list, b.classifier)
		version += fmt.Sprintf(" classifier %s %v %v", b.classifier.Version(), b.cfg.Classifier.Threshold, b.cfg.Classifier.Shadow)
	}
	sum := sha256.Sum256([]byte(version))
	b.current.Store(&pipeline.Bundle{Version: hex.EncodeToString(sum[:6]), Detectors: list})
	b.log.Info("detectors loaded", "bundle", hex.EncodeToString(sum[:6]), "rules", len(b.rules.Rules()), "indicators", b.feeds.Len())
}

// watch reloads until ctx ends.
func (b *brain) watch(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		rules.Watch(ctx, b.cfg.Rules, b.rules, func(s *rules.Set) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.rules = s
			b.swap()
			if b.say != nil {
				b.say("rules loaded: %d rules", len(s.Rules()))
			}
		}, b.log, b.ruleMetrics)
	})
	wg.Go(func() {
		feeds.Watch(ctx, b.cfg.Feeds, b.feeds, func(s *feeds.Set) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.feeds = s
			b.swap()
			if b.say != nil {
				b.say("feeds loaded: %d indicators", s.Len())
			}
		}, b.log, b.feedMetrics)
	})
	wg.Wait()
	return nil
}
