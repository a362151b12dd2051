package correlate

import "github.com/zeebo/xxh3"

// firstSeen is the state of FirstSeen for a group. The values of all groups of a rule are in Fold.known.
type firstSeen struct {
	began int64 // the first signal: values are only learned for Rule.Learn from then on
	last  int64
}

// sweepAt is the number of values of a rule at which those that are no longer remembered are removed for the first time.
const sweepAt = 1 << 16

func (n *firstSeen) add(f *Fold, g *group, s *Signal, at int64) {
	if n.began == 0 {
		n.began = at
	}
	n.last = at
	known := f.known[g.rule.ID]
	if known == nil {
		known = &knownValues{last: map[uint64]int64{}, sweep: sweepAt}
		f.known[g.rule.ID] = known
	}
	key := xxh3.HashStringSeed(g.name, uint64(s.Value))
	last, isKnown := known.last[key]
	known.last[key] = at
	if isKnown && at-last <= int64(g.rule.Remember) || at-n.began < int64(g.rule.Learn) {
		return
	}
	f.match(g, Match{At: at, Count: 1, First: s.Start, Last: s.Start, Text: s.Text, Events: []Event{{s.Step, s.Start, s.Event}}})
	if len(known.last) >= known.sweep {
		known.removeOld(at - int64(g.rule.Remember))
	}
}

// A group that is silent for as long as its values are remembered is a new one.
func (n *firstSeen) pass(*Fold, *group, int64) { *n = firstSeen{} }

func (n *firstSeen) deadline(r *Rule) int64 {
	if n.began == 0 {
		return 0
	}
	return n.last + int64(max(r.Learn, r.Remember)) + 1
}

// knownValues are the values of a rule of FirstSeen.
type knownValues struct {
	last  map[uint64]int64 // hash of group and value to when it was there last
	sweep int              // the number of values at which old ones are removed
}

// removeOld removes the values that were there before a time.
func (k *knownValues) removeOld(before int64) {
	for key, last := range k.last {
		if last < before {
			delete(k.last, key)
		}
	}
	k.sweep = max(sweepAt, 2*len(k.last))
}
