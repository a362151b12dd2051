package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// What rules of FirstSeen remember is kept in the store, since it is older than the signals topic. A foldWorker stores it when
// the offset behind it is committed, so that no value is stored whose alert may still be missing, and keeps the place from which it would read again
// (checkpoints) before everything that is not stored. To read a signal again that is stored changes nothing.

const (
	// seenInterval is the time after which a foldWorker stores what rules of FirstSeen have newly seen.
	seenInterval = 30 * time.Second
	// maxChangedSeen is the number of values from which on it does so at once.
	maxChangedSeen = 50_000
)

// restoreSeen gives the fold what the stored rules of FirstSeen remember that it did not have before.
func (f *foldWorker) restoreSeen(ctx context.Context) error {
	kept := map[string]string{}
	for _, rule := range f.correlation.rulesOf(correlate.FirstSeen) {
		kept[rule.ID] = rule.Version
		if f.seenRules[rule.ID] == rule.Version {
			continue
		}
		filter := pipeline.SeenFilter{
			TopicPartition: f.source, Partitions: int(f.foldPartitions.Load()), Rule: rule.ID, Version: rule.Version, Limit: f.foldLimits().Values,
		}
		if err := f.withRetry(ctx, "restore what was seen", func() error {
			return f.deps.Store.SeenValues(ctx, filter, func(seen pipeline.SeenValue) { f.fold.RestoreSeen(rule, seen) })
		}); err != nil {
			return err
		}
	}
	f.seenRules = kept
	return nil
}

// rulesOf returns the rules of a kind.
func (c *correlation) rulesOf(kind correlate.Kind) (rules []*correlate.Rule) {
	if c == nil {
		return nil
	}
	for _, rule := range c.rules {
		if rule.Kind == kind {
			rules = append(rules, rule)
		}
	}
	return rules
}

// storeSeen stores what rules of FirstSeen have newly seen, if it was not done a moment ago. All records that the fold has read must be before
// the committed offset.
func (f *foldWorker) storeSeen(ctx context.Context) error {
	changed := f.fold.ChangedSeen()
	if changed > 0 {
		if changed < maxChangedSeen && time.Since(f.seenStored) < f.deps.seenInterval {
			return nil
		}
		values := f.fold.TakeSeen()
		if err := f.withRetry(ctx, "store what was seen", func() error {
			return f.deps.Store.InsertSeenValues(ctx, f.source.Topic, values)
		}); err != nil {
			return err
		}
		f.seenStored = time.Now()
	}
	f.seenWatermark = f.state.watermark
	return nil
}
