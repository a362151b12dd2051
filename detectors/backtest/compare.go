package backtest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/zeebo/xxh3"

	"tidegate/detectors/rules"
	"tidegate/pipeline/correlate"
)

// A Change is a rule that differs between two sets. Compare fills in the matches of both versions.
type Change struct {
	Rule          string
	Kind          string // added, removed or changed
	Before, After int64  // matches of each version
	Added         int64  // matches that only the version after has
	Removed       int64  // and only the one before

	AddedSamples, RemovedSamples []Sample // up to maxChangeSamples

	Counts []correlate.Counts // of each evaluation: bounds that a correlation rule has reached
}

const (
	maxChangeSamples = 5         // of the added and of the removed matches of a rule
	maxCompared      = 2_000_000 // matches of a rule, which are kept in memory
)

// Changes lists the rules that only one of two sets has, or that are not the same in both, by id.
func Changes(before, after *rules.Set) (changes []Change) {
	hashes := map[string][2]string{}
	for i, set := range []*rules.Set{before, after} {
		for _, rule := range set.Rules() {
			pair := hashes[rule.ID]
			pair[i] = rule.Hash
			hashes[rule.ID] = pair
		}
	}
	for _, id := range slices.Sorted(maps.Keys(hashes)) {
		pair, kind := hashes[id], "changed"
		switch {
		case pair[0] == pair[1]:
			continue
		case pair[0] == "":
			kind = "added"
		case pair[1] == "":
			kind = "removed"
		}
		changes = append(changes, Change{Rule: id, Kind: kind})
	}
	return changes
}

// Compare evaluates both versions of the rule. Options.Set, Rule and Match are not used. A match of one version is the same as
// one of the other if it has the same event, time and group.
func (c *Change) Compare(ctx context.Context, options Options, before, after *rules.Set) error {
	onlyBefore := map[uint64]int{} // by hash: the matches that only the version before has
	if err := c.run(ctx, options, before, func(match *Sample) error {
		c.Before++
		if onlyBefore[match.hash()]++; len(onlyBefore) > maxCompared {
			return fmt.Errorf("%s has more than %d matches to compare: choose a shorter time", c.Rule, maxCompared)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := c.run(ctx, options, after, func(match *Sample) error {
		c.After++
		if key := match.hash(); onlyBefore[key] > 0 {
			onlyBefore[key]--
			return nil
		}
		if c.Added++; len(c.AddedSamples) < maxChangeSamples {
			c.AddedSamples = append(c.AddedSamples, *match)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, left := range onlyBefore {
		c.Removed += int64(left)
	}
	if c.Removed == 0 {
		return nil
	}

	// Only hashes are kept, so the version before runs again for the samples.
	return c.run(ctx, options, before, func(match *Sample) error {
		if key := match.hash(); onlyBefore[key] > 0 && len(c.RemovedSamples) < maxChangeSamples {
			onlyBefore[key]--
			c.RemovedSamples = append(c.RemovedSamples, *match)
		}
		return nil
	})
}

// run evaluates the version of the rule in a set, if there is one, and calls match for each match until it returns an error.
func (c *Change) run(ctx context.Context, options Options, set *rules.Set, match func(*Sample) error) error {
	i := slices.IndexFunc(set.Rules(), func(rule *rules.Rule) bool { return rule.ID == c.Rule })
	if i < 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options.Set, options.Rule = set, set.Rules()[i]
	options.Match = func(found Sample) {
		if err := match(&found); err != nil {
			cancel(err)
		}
	}
	result, err := Run(ctx, options)
	c.Counts = append(c.Counts, result.Counts)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// hash identifies a match among those of both versions.
func (s *Sample) hash() uint64 {
	return xxh3.HashString(fmt.Sprint(s.At.UnixNano(), s.Event, " ", s.Group))
}
