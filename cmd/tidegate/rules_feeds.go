package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/models"
)

// defaultRules returns the settings of rules, with the models that come with tidegate.
func defaultRules() rules.Config {
	cfg := rules.Default()
	cfg.Models = map[string][]byte{"generated-domains": models.GeneratedDomains}
	return cfg
}

// feedNames returns the names of the configured feeds.
func feedNames(cfg *Config) []string {
	names := make([]string, 0, len(cfg.Feeds))
	for _, feed := range cfg.Feeds {
		names = append(names, feed.Name)
	}
	return names
}

// withFeeds returns the rules with the configured feeds that they ask. It prints a warning if one is not configured.
func withFeeds(cfg *Config, set *rules.Set) (*rules.Set, error) {
	asked := set.FeedNames()
	if len(asked) == 0 {
		return set, nil
	}
	var configured []feeds.Config
	for _, feed := range cfg.Feeds {
		if feed.Allow || slices.Contains(asked, feed.Name) { // an allow-list ends the lookups of others
			configured = append(configured, feed)
		}
	}
	known := feedNames(cfg)
	if unknown := slices.DeleteFunc(slices.Clone(asked), func(name string) bool { return slices.Contains(known, name) }); len(unknown) > 0 {
		warnOfFeeds(unknown, "the configuration has none of this name")
	}
	loaded, _, err := feeds.Load(context.Background(), configured)
	if err != nil {
		return nil, err
	}
	return set.WithFeeds(loaded), nil
}

// warnOfFeeds prints that rules ask feeds that list nothing.
func warnOfFeeds(names []string, reason string) {
	_, _ = fmt.Fprintf(&stripControlWriter{out: os.Stderr}, "warning: rules ask the feed %s, and %s: feed() is false\n", strings.Join(names, ", "), reason)
}
