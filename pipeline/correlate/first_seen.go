package correlate

import "github.com/zeebo/xxh3"

// firstSeen is the state of FirstSeen for a group. The values of all groups of a rule are in Fold.seen.
type firstSeen struct {
	began int64 // the first signal: values are only learned for Rule.Baseline from then on
	last  int64
}

// sweepAt is the number of values of a rule at which those that are no longer remembered are removed for the
// first time.
const sweepAt = 1 << 16

func (n *firstSeen) addSignal(f *Fold, g *group, s *Signal, at int64) {
	if n.began == 0 {
		n.began = at
	}
	n.last = at
	seen := f.seen[g.rule.ID]
	if seen == nil {
		seen = &seenValues{last: map[uint64]int64{}, sweep: sweepAt}
		f.seen[g.rule.ID] = seen
	}
	key := xxh3.HashStringSeed(g.name, uint64(s.Value))
	last, isKnown := seen.last[key]
	seen.last[key] = at
	if len(seen.last) >= seen.sweep || len(seen.last) > f.limits.Values {
		f.counts.Evicted += seen.removeOld(at-int64(g.rule.ExpireAfter), f.limits.Values)
	}
	if isKnown && at-last <= int64(g.rule.ExpireAfter) || at-n.began < int64(g.rule.Baseline) {
		return
	}
	f.addMatch(g, Match{At: at, Count: 1, First: s.Start, Last: s.Start, Origin: s.Origin, Events: []Event{{s.Step, s.Start, s.Event}}})
}

// passDeadline ends a group without a signal for as long as its values are remembered: the next one is of a
// new group.
func (n *firstSeen) passDeadline(*Fold, *group, int64) { *n = firstSeen{} }

func (n *firstSeen) nextDeadline(r *Rule) int64 {
	if n.began == 0 {
		return 0
	}
	return n.last + int64(max(r.Baseline, r.ExpireAfter)) + 1
}

// seenValues are the values of a rule of FirstSeen.
type seenValues struct {
	last  map[uint64]int64 // hash of group and value to when it was there last
	sweep int              // the number of values at which old ones are removed
}

// removeOld removes the values that were there before a time. Of more than limit values it removes as many as
// are too many, and a sixteenth of limit more, so that it is called rarely. It returns the number of these.
func (k *seenValues) removeOld(before int64, limit int) (evicted uint64) {
	for key, last := range k.last {
		if last < before {
			delete(k.last, key)
		}
	}
	if len(k.last) > limit {
		for key := range k.last {
			if len(k.last) <= limit-limit/16 {
				break
			}
			delete(k.last, key)
			evicted++
		}
	}
	k.sweep = max(sweepAt, 2*len(k.last))
	return evicted
}

func (n *firstSeen) bytes() int { return 0 }
