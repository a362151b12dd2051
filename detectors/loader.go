package detectors

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/detectors/watch"
	"tidegate/pipeline"
)

// Config holds the settings of the detectors.
type Config struct {
	Rules      rules.Config
	Feeds      []feeds.Config
	Classifier classifier.Config
	Model      []byte // the classifier's model

	// Replacement is what a signed bundle has in place of Rules.Dir and of feeds; nil: nothing. If it does not load, the
	// loader starts without it.
	Replacement *Replacement

	// OnReload is called after each reload with a summary for a person at a terminal. It may be nil.
	OnReload func(summary string)
}

// A Replacement takes the place of the folder of rules, of that of Sigma rules if it has some, and of the feeds with the
// names of its feeds.
type Replacement struct {
	Name  string // for errors
	Rules fs.FS
	Sigma fs.FS // nil: none
	Feeds []feeds.Config
}

// applyTo returns the settings with the replacement in its place.
func (r *Replacement) applyTo(ruleConfig rules.Config, feedConfigs []feeds.Config) (rules.Config, []feeds.Config) {
	if r == nil {
		return ruleConfig, feedConfigs
	}
	ruleConfig.Dir, ruleConfig.Files, ruleConfig.FilesName = "", r.Rules, r.Name
	if r.Sigma != nil {
		ruleConfig.Sigma, ruleConfig.SigmaFiles = "", r.Sigma
	}
	isReplaced := func(cfg feeds.Config) bool {
		return slices.ContainsFunc(r.Feeds, func(own feeds.Config) bool { return own.Name == cfg.Name })
	}
	return ruleConfig, append(slices.DeleteFunc(slices.Clone(feedConfigs), isReplaced), r.Feeds...)
}

// A Loader loads the detectors, and replaces rules and feeds when their files change. It is safe for
// concurrent use.
type Loader struct {
	cfg         Config
	log         *slog.Logger
	ruleMetrics *rules.Metrics
	feedMetrics *feeds.Metrics
	before      *Loader                // of a loader that reload makes: what is kept of feeds and Sigma rules that are held back; else nil
	classifier  *classifier.Classifier // nil: disabled

	reconfigured chan struct{} // signals Watch that the settings were replaced

	changing sync.Mutex // held while other settings are loaded; taken before mu

	mu         sync.Mutex // guards the fields below and the settings of rules and feeds, and serializes writes of bundle
	generation int        // number of replacements of the settings
	// base holds the settings without the replacement, and cfg those with it.
	base struct {
		rules rules.Config
		feeds []feeds.Config
	}
	replacement *Replacement
	rules       *rules.Set
	feeds       *feeds.Set
	bundle      atomic.Pointer[pipeline.Bundle] // read without mu

	replacementError error // of Config.Replacement; set before NewLoader returns

	guard watch.Guard // holds back files that look like failed updates
}

// NewLoader loads all detectors. If rules do not compile, the error lists all their errors.
func NewLoader(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Loader, error) {
	loader := &Loader{
		cfg: cfg, log: log, ruleMetrics: rules.NewMetrics(reg), feedMetrics: feeds.NewMetrics(reg),
		reconfigured: make(chan struct{}, 1),
	}
	if err := loader.loadFiles(cfg.Rules, cfg.Feeds, cfg.Replacement); err != nil {
		if cfg.Replacement == nil {
			return nil, err
		}
		loader.replacementError = err
		if err := loader.loadFiles(cfg.Rules, cfg.Feeds, nil); err != nil {
			return nil, err
		}
	}
	var err error
	if cfg.Classifier.Enabled {
		if loader.classifier, err = classifier.New(cfg.Classifier, cfg.Model, reg); err != nil {
			return nil, fmt.Errorf("load the classifier: %w", err)
		}
	}
	loader.updateBundle()
	return loader, nil
}

// Bundle returns the current detectors. A worker of the engine calls it once for each block.
func (l *Loader) Bundle() *pipeline.Bundle { return l.bundle.Load() }

// Summary returns the numbers of loaded rules and indicators, such as "35 rules, 1 indicator".
func (l *Loader) Summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return plural(len(l.rules.Rules()), "rule") + ", " + plural(l.feeds.Len(), "indicator")
}

// Warnings returns what is wrong with files and settings without being an error: a feed without indicators, a
// rule id that does not exist, files that are held back.
func (l *Loader) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	warnings := slices.Concat(l.rules.Warnings(), l.feeds.Warnings())
	for _, name := range l.guard.Held() {
		warnings = append(warnings, name+" is held back: it looks like a failed update")
	}
	return warnings
}

// Held returns the names of the feeds that are held back because their files look like failed updates, and
// "rules.dir" if that is.
func (l *Loader) Held() []string { return l.guard.Held() }

// updateBundle publishes a bundle of the current detectors. The bundle's version is a hash of the versions
// and settings of the detectors: bundles of the same version return the same verdicts. l.mu must be held,
// except in NewLoader.
func (l *Loader) updateBundle() {
	// Everything that determines verdicts goes into the hash.
	list := []pipeline.Detector{l.rules.WithFeeds(l.feeds), l.feeds}
	versions := "rules " + l.rules.Version() + " feeds " + l.feeds.Version()
	if l.classifier != nil {
		list = append(list, l.classifier)
		cfg := l.cfg.Classifier
		versions += fmt.Sprintf(" classifier %s %v %v", l.classifier.Version(), cfg.Threshold, cfg.Shadow)
	}
	sum := sha256.Sum256([]byte(versions))
	version := hex.EncodeToString(sum[:6])

	// Workers that evaluate a block keep the old bundle until the end of the block.
	l.bundle.Store(&pipeline.Bundle{Version: version, Detectors: list, Policies: l.rules.Policies()})
	l.log.Info("detectors loaded", "bundle", version, "rules", len(l.rules.Rules()), "indicators", l.feeds.Len())
}

// ReplacementError returns why the loader started without Config.Replacement, or nil.
func (l *Loader) ReplacementError() error { return l.replacementError }

// Reconfigure replaces the settings of rules and feeds, and loads both anew, files that are held back too. A replacement
// stays. After an error the settings and the detectors stay as they were.
func (l *Loader) Reconfigure(ruleConfig rules.Config, feedConfigs []feeds.Config) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.reload(ruleConfig, feedConfigs, l.replacement, false)
}

// Replace puts a replacement in the place of the folder of rules and of feeds. What is held back, or cannot be read, of the
// other feeds and of the Sigma rules stays as it was. After an error the detectors stay as they were.
func (l *Loader) Replace(replacement *Replacement) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if err := l.reload(l.base.rules, l.base.feeds, replacement, true); err != nil {
		return err
	}
	if l.cfg.OnReload != nil {
		l.cfg.OnReload(replacement.Name + " loaded: " + l.Summary())
	}
	return nil
}

// reload loads rules and feeds with other settings and publishes them. If keepsHeld, what is held back stays so. l.changing
// must be held.
func (l *Loader) reload(ruleConfig rules.Config, feedConfigs []feeds.Config, replacement *Replacement, keepsHeld bool) error {
	next := &Loader{log: l.log, ruleMetrics: l.ruleMetrics, feedMetrics: l.feedMetrics}
	if keepsHeld {
		next.before = l
	}
	if err := next.loadFiles(ruleConfig, feedConfigs, replacement); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Rules, l.cfg.Feeds = next.cfg.Rules, next.cfg.Feeds
	l.base, l.replacement = next.base, replacement
	l.rules, l.feeds = next.rules, next.feeds
	l.generation++
	if keepsHeld {
		l.guard.Keep(l.watches)
	} else {
		l.guard.Reset()
	}
	l.updateBundle()
	select {
	case l.reconfigured <- struct{}{}:
	default: // Watch has not seen the last change yet
	}
	return nil
}

// watches reports whether what has this name for the guard is one of the files that are watched. l.mu must be held.
func (l *Loader) watches(name string) bool {
	isFeed := func(cfg feeds.Config) bool { return cfg.Name == name }
	return l.cfg.Rules.Watches(name) || slices.ContainsFunc(l.cfg.Feeds, isFeed)
}

// loadFiles loads rules and feeds and keeps the settings. l.mu must be held, except in NewLoader and reload.
func (l *Loader) loadFiles(ruleConfig rules.Config, feedConfigs []feeds.Config, replacement *Replacement) error {
	effectiveRules, effectiveFeeds := replacement.applyTo(ruleConfig, feedConfigs)
	effectiveRules.FeedNames = make([]string, 0, len(effectiveFeeds))
	for _, feed := range effectiveFeeds {
		effectiveRules.FeedNames = append(effectiveRules.FeedNames, feed.Name)
	}
	ruleSet, err := l.loadRules(effectiveRules)
	if err != nil {
		return err
	}
	feedSet, err := l.loadFeeds(effectiveFeeds)
	if err != nil {
		return err
	}
	l.rules, l.feeds = ruleSet, feedSet
	l.cfg.Rules, l.cfg.Feeds = effectiveRules, effectiveFeeds
	l.base.rules, l.base.feeds, l.replacement = ruleConfig, feedConfigs, replacement
	return nil
}

func (l *Loader) loadRules(cfg rules.Config) (*rules.Set, error) {
	if l.before == nil {
		return rules.Load(cfg, l.log, l.ruleMetrics)
	}
	ruleSet, _ := l.before.loaded()
	return rules.Reload(cfg, ruleSet, &l.before.guard, l.log, l.ruleMetrics)
}

func (l *Loader) loadFeeds(cfgs []feeds.Config) (*feeds.Set, error) {
	if l.before == nil {
		return feeds.LoadAndLog(cfgs, l.log, l.feedMetrics)
	}
	_, feedSet := l.before.loaded()
	return feeds.Reload(cfgs, feedSet, &l.before.guard, l.log, l.feedMetrics)
}

// loaded returns the current rules and feeds.
func (l *Loader) loaded() (*rules.Set, *feeds.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules, l.feeds
}

// Watch reloads rules and feeds when their files change, until ctx ends. After Reconfigure it watches the files
// of the new settings.
func (l *Loader) Watch(ctx context.Context) error {
	for ctx.Err() == nil {
		watching, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.watchFiles(watching)
		}()
		select {
		case <-ctx.Done():
		case <-l.reconfigured:
		}
		cancel()
		<-done
	}
	return nil
}

// watchFiles watches the files of the current settings until ctx ends.
func (l *Loader) watchFiles(ctx context.Context) {
	l.mu.Lock()
	generation := l.generation
	ruleWatcher := rules.Watcher{
		Config: l.cfg.Rules, Current: l.rules, Log: l.log, Metrics: l.ruleMetrics, Guard: &l.guard,
		OnChange: func(set *rules.Set) {
			l.replace(generation, "rules", plural(len(set.Rules()), "rule"), func() { l.rules = set })
		},
	}
	feedWatcher := feeds.Watcher{
		Feeds: l.cfg.Feeds, Current: l.feeds, Log: l.log, Metrics: l.feedMetrics, Guard: &l.guard,
		OnChange: func(set *feeds.Set) {
			l.replace(generation, "feeds", plural(set.Len(), "indicator"), func() { l.feeds = set })
		},
	}
	l.mu.Unlock()

	// All run until ctx ends. The watchers call OnChange from goroutines of their own, so replace locks.
	var watchers sync.WaitGroup
	watchers.Go(func() { ruleWatcher.Run(ctx) })
	watchers.Go(func() { feedWatcher.Run(ctx) })
	watchers.Go(func() { feeds.Download(ctx, feedWatcher.Feeds, l.log, l.feedMetrics) })
	watchers.Wait()
}

// replace calls setDetector, which sets one detector, and publishes a new bundle. It does nothing if the
// settings were replaced since the generation of the watcher.
func (l *Loader) replace(generation int, detector, content string, setDetector func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if generation != l.generation {
		return
	}
	setDetector()
	l.updateBundle()
	if l.cfg.OnReload != nil {
		l.cfg.OnReload(detector + " loaded: " + content)
	}
}

// plural returns a count with its noun, such as "1 rule" or "2 rules".
func plural(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", count, noun)
}
