package backtest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/zeebo/xxh3"

	"tidegate/detectors/rules"
)

// A Change is a rule that is not the same in two sets, with what both versions have matched.
type Change struct {
	Rule  string
	Kind  string // new, gone or changed
	Old   int64  // matches of the version before
	New   int64  // and after
	Added int64  // matches that only the new version has
	Gone  int64  // and only the old one
	Adds  []Sample
	Takes []Sample // of the matches that are gone
}

const (
	maxChangeSamples = 5         // of the added and of the gone matches of a rule
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
			kind = "new"
		case pair[1] == "":
			kind = "gone"
		}
		changes = append(changes, Change{Rule: id, Kind: kind})
	}
	return changes
}

// Compare evaluates the versions of the rule of c in two sets. Options.Set, Rule and Match are not used. A match of one version
// is the same as one of the other if it has the same event, time and group.
func (c *Change) Compare(ctx context.Context, options Options, before, after *rules.Set) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keyOf := func(match *Sample) uint64 {
		return xxh3.HashString(fmt.Sprint(match.At.UnixNano(), match.Event, " ", match.Group))
	}
	counts := map[uint64]int{} // matches of the old version less those of the new one
	count := func(match *Sample, by int) int {
		key := keyOf(match)
		if counts[key] += by; len(counts) > maxCompared {
			cancel(fmt.Errorf("%s has more than %d matches to compare: choose a shorter time", c.Rule, maxCompared))
		}
		return counts[key]
	}
	run := func(set *rules.Set, match func(Sample)) error {
		options.Set, options.Match = set, match
		i := slices.IndexFunc(set.Rules(), func(rule *rules.Rule) bool { return rule.ID == c.Rule })
		if i < 0 {
			return nil
		}
		options.Rule = set.Rules()[i]
		_, err := Run(ctx, options)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}

	if err := run(before, func(match Sample) { c.Old++; count(&match, 1) }); err != nil {
		return err
	}
	if err := run(after, func(match Sample) {
		if c.New++; count(&match, -1) >= 0 {
			return
		}
		if c.Added++; len(c.Adds) < maxChangeSamples {
			c.Adds = append(c.Adds, match)
		}
	}); err != nil {
		return err
	}
	for _, left := range counts {
		c.Gone += int64(max(left, 0))
	}
	if c.Gone == 0 {
		return nil
	}
	return run(before, func(match Sample) {
		if key := keyOf(&match); counts[key] > 0 && len(c.Takes) < maxChangeSamples {
			counts[key]--
			c.Takes = append(c.Takes, match)
		}
	})
}
