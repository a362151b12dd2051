package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"tidegate/detectors"
	"tidegate/detectors/bundles"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// openBundleStore opens the folder of the signed bundle that this engine runs. It returns nil without rules.bundle_keys.
func (c *Config) openBundleStore() (*bundles.Store, error) {
	if len(c.Rules.BundleKeys) == 0 {
		return nil, nil
	}
	keys, err := c.bundleKeys()
	if err != nil {
		return nil, err
	}
	topic := c.Kafka.TopicPrefix + "." + pipeline.TopicBundles
	return bundles.OpenStore(filepath.Join(c.DataDir, "bundles"), keys, topic)
}

// bundleKeys reads the public keys whose bundles engines run.
func (c *Config) bundleKeys() ([]ed25519.PublicKey, error) {
	keys, err := bundles.ReadPublicKeys(c.Rules.BundleKeys)
	if err != nil {
		return nil, fmt.Errorf("rules.bundle_keys: %w", err)
	}
	return keys, nil
}

// A storedBundle is what an engine found in its folder at the start.
type storedBundle struct {
	store    *bundles.Store
	bundle   *bundles.Bundle // that the detectors run; nil: none
	since    time.Time
	unloaded *bundles.Bundle // that they do not run, since it does not load because of problem; nil: none
	problem  error
}

// loadStoredBundle reads the stored bundle. A bundle that cannot be read is no reason not to start: the engine runs the
// configured rules, logs that and reports it.
func (p *process) loadStoredBundle() (*detectors.Replacement, error) {
	var err error
	if p.stored.store, err = p.cfg.openBundleStore(); err != nil || p.stored.store == nil {
		return nil, err
	}
	p.stored.bundle, p.stored.since, p.stored.problem = p.stored.store.Load()
	if p.stored.bundle == nil {
		return nil, nil
	}
	replacement, err := replacementOf(p.stored.store, p.stored.bundle)
	if err != nil {
		p.stored.problem = err
		return nil, nil
	}
	return replacement, nil
}

// replacementOf returns what the detectors load of a bundle.
func replacementOf(store *bundles.Store, bundle *bundles.Bundle) (*detectors.Replacement, error) {
	feedConfigs, err := store.WriteFeeds(bundle)
	if err != nil {
		return nil, err
	}
	return &detectors.Replacement{Name: "bundle " + bundle.Name(), Rules: bundle.Rules(), Sigma: bundle.Sigma(), Feeds: feedConfigs}, nil
}

// reportStoredBundle logs with which rules the engine starts.
func (p *process) reportStoredBundle(replacement *detectors.Replacement) {
	stored := &p.stored
	if err := p.detectors.ReplacementError(); err != nil {
		stored.problem = fmt.Errorf("load the stored bundle %s: %w", stored.bundle.Name(), err)
		replacement = nil
	}
	if replacement != nil {
		p.log.Info("starting with the stored bundle", "bundle", stored.bundle.Name(), "pushed", stored.bundle.Pushed, "by", stored.bundle.By)
		return
	}
	stored.bundle, stored.unloaded, stored.since = nil, stored.bundle, time.Now()
	if stored.problem == nil {
		p.log.Warn("no signed bundle yet: starting with the rules and feeds of the configuration", "dir", p.cfg.Rules.Dir)
		p.printLine("no signed bundle of rules yet: running those of the configuration")
		return
	}
	reason := "it is damaged, or none of rules.bundle_keys has signed it"
	if stored.unloaded != nil {
		reason = "it does not load"
	}
	for line := range strings.SplitSeq(stored.problem.Error(), "\n") {
		p.log.Error("stored bundle not used: starting with the rules and feeds of the configuration", "reason", reason, "err", line, "dir", p.cfg.Rules.Dir)
	}
	p.printLine("the stored bundle of rules is not used, %s: running those of the configuration; see the log", reason)
}

// startBundles follows the topic of signed bundles, if rules.bundle_keys has a key.
func (p *process) startBundles(ctx context.Context) error {
	store := p.stored.store
	metrics := bundles.NewMetrics(p.reg)
	if store == nil {
		return nil
	}
	engine, release, err := store.Engine(ctx, p.cfg.Host)
	if err != nil {
		return err
	}
	cfg := bundles.FollowerConfig{
		Kafka: p.kafka, Store: store, Current: p.stored.bundle, Since: p.stored.since,
		Unloaded: p.stored.unloaded, UnloadedErr: p.stored.problem,
		Load: func(bundle *bundles.Bundle) error {
			replacement, err := replacementOf(store, bundle)
			if err != nil {
				return err
			}
			return p.detectors.Replace(replacement)
		},
		Detectors: func() string { return p.detectors.Bundle().Version },
		Engine:    engine, Host: p.cfg.Host, Program: version, Failpoint: killFailpoint(),
	}
	if p.stored.problem != nil && p.stored.unloaded == nil {
		cfg.Problem = p.stored.problem.Error()
	}
	p.lifecycle.startComponent("bundles", func(ctx context.Context) error {
		defer release()
		return bundles.NewFollower(cfg, p.log, metrics).Run(ctx)
	})
	return nil
}

// openKafka returns a client of the configured Kafka for a command that is no service. The caller closes it.
func (c *Config) openKafka() (*kafka.Client, error) {
	cfg := c.Kafka
	if c.embeddedBroker() {
		cfg.Brokers = []string{c.Embedded.Broker.Addr}
		cfg.Partitions, cfg.ReplicationFactor = c.Embedded.Broker.Partitions, 1
	}
	client, err := kafka.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return client, nil
}
