package rules

import (
	"maps"
	"net/netip"
	"slices"

	"tidegate/pipeline"
)

// An index finds the rules that can match an event. Its cost depends on the event, not on the number of
// rules: it looks each slot that some prefilter names up in hash tables, and runs an automaton over the texts
// in which literals are looked for.
type index struct {
	rules    int
	always   [pipeline.NumDatasets][]int32 // by dataset: rules without keys
	lookups  [pipeline.NumDatasets][]*lookup
	literals int // of all lookups
}

// A lookup holds the keys of one slot, and the rules that have them.
type lookup struct {
	slot     int
	datasets datasetMask // of the rules

	// The rules of a value.
	texts     map[string][]int32
	numbers   map[int64][]int32
	addresses map[netip.Addr][]int32

	// The rules of a literal within a text.
	automaton    *automaton // nil: no key is a literal
	fold         bool       // the automaton ignores ASCII case
	firstLiteral int        // number of the automaton's first literal among those of the index
	rulesOf      [][]int32  // by literal of the automaton
	added        map[string][]int32
}

// newIndex returns an index over the prefilters of rules; a rule is known by its place in the list.
func newIndex(slots *slotTable, prefilters []prefilter) *index {
	x := &index{rules: len(prefilters)}
	bySlot := map[int]*lookup{}
	for rule, filter := range prefilters {
		// Without keys the rule is a candidate for every event of its datasets.
		if filter.keys == nil {
			for dataset := range x.always {
				if filter.datasets&(1<<dataset) != 0 {
					x.always[dataset] = append(x.always[dataset], int32(rule))
				}
			}
			continue
		}
		for _, key := range filter.keys {
			keys := bySlot[key.slot]
			if keys == nil {
				keys = newLookup(key.slot)
				bySlot[key.slot] = keys
			}
			keys.addKey(slots.list[key.slot].kind, key, int32(rule), filter.datasets)
		}
	}

	// The order of lookups does not matter for the result; sorted, it is the same for the same rules.
	for _, i := range slices.Sorted(maps.Keys(bySlot)) {
		keys := bySlot[i]
		keys.buildAutomaton(x)
		reach := keys.datasets & slots.slotDatasets(i)
		for dataset := range x.lookups {
			if reach&(1<<dataset) != 0 {
				x.lookups[dataset] = append(x.lookups[dataset], keys)
			}
		}
	}
	return x
}

func newLookup(slot int) *lookup {
	return &lookup{
		slot: slot, texts: map[string][]int32{}, numbers: map[int64][]int32{}, addresses: map[netip.Addr][]int32{},
		added: map[string][]int32{},
	}
}

// addKey adds a key of a rule. The keys of a rule come one after the other.
func (l *lookup) addKey(k kind, key prefilterKey, rule int32, datasets datasetMask) {
	l.datasets |= datasets
	with := func(rules []int32) []int32 {
		if len(rules) > 0 && rules[len(rules)-1] == rule {
			return rules
		}
		return append(rules, rule)
	}
	switch {
	case key.literal:
		// One literal that ignores case makes the whole automaton ignore it. For the other literals it finds
		// more than it must.
		l.fold = l.fold || key.folded
		l.added[key.text] = with(l.added[key.text])
	case key.addr.IsValid():
		l.addresses[key.addr] = with(l.addresses[key.addr])
	case k == number || k == numberList:
		l.numbers[key.number] = with(l.numbers[key.number])
	default:
		l.texts[key.text] = with(l.texts[key.text])
	}
}

// buildAutomaton makes the automaton of the literals that were added.
func (l *lookup) buildAutomaton(x *index) {
	// Several literals may have the same rarest part; they share their rules.
	rulesOf := map[string][]int32{} // by part of a literal that goes into the automaton
	for literal, rules := range l.added {
		if l.fold {
			literal = lowerASCII(literal)
		}
		part := rarestPart(literal)
		rulesOf[part] = append(rulesOf[part], rules...)
	}
	l.added = nil
	if len(rulesOf) == 0 {
		return
	}
	parts := slices.Sorted(maps.Keys(rulesOf))
	for _, part := range parts {
		rules := rulesOf[part]
		slices.Sort(rules)
		l.rulesOf = append(l.rulesOf, slices.Compact(rules))
	}
	l.automaton = newAutomaton(parts, l.fold)
	l.firstLiteral = x.literals
	x.literals += len(parts)
}

// A finder gathers the candidates of one event, each once. It belongs to one worker.
type finder struct {
	index       *index
	values      *eventValues
	found       []int32
	ruleMark    []uint32 // by rule: number of the event for which it was found last
	literalMark []uint32 // by literal: number of the event in which it was found last
}

func newFinder(x *index, v *eventValues) *finder {
	return &finder{
		index: x, values: v, found: make([]int32, 0, 64),
		ruleMark: make([]uint32, x.rules), literalMark: make([]uint32, x.literals),
	}
}

// candidates returns the rules that can match the event of f.values, in their order. The list is valid until
// the next call.
func (f *finder) candidates(dataset pipeline.Dataset) []int32 {
	if dataset < 0 || int(dataset) >= len(f.index.lookups) {
		return nil // a dataset that this binary does not have
	}
	if f.values.eventNumber == 1 { // After a wrap of the number old marks would match again.
		clear(f.ruleMark)
		clear(f.literalMark)
	}
	f.found = append(f.found[:0], f.index.always[dataset]...)
	for _, l := range f.index.lookups[dataset] {
		f.lookUp(l)
	}
	if len(f.found) > 1 {
		slices.Sort(f.found)
	}
	return f.found
}

// lookUp adds the rules that have a key for the event's value of one slot.
func (f *finder) lookUp(l *lookup) {
	value := f.values.slot(l.slot)
	switch f.values.table.list[l.slot].kind {
	case text:
		f.lookUpText(l, value.text)
	case textList:
		for _, t := range value.texts {
			f.lookUpText(l, t)
		}
	case number:
		f.addRules(l.numbers[value.number])
	case numberList:
		for _, n := range value.numbers {
			f.addRules(l.numbers[n])
		}
	case address:
		f.addRules(l.addresses[value.address])
	}
}

func (f *finder) lookUpText(l *lookup, t string) {
	if t == "" {
		return
	}
	if len(l.texts) > 0 {
		f.addRules(l.texts[t])
	}
	if l.automaton != nil {
		f.scanText(l, t)
	}
}

// scanText runs the automaton over t. A literal adds its rules only once for an event, however often it
// occurs.
func (f *finder) scanText(l *lookup, t string) {
	automaton, now := l.automaton, f.values.eventNumber
	next, firstOutput, state := automaton.next, automaton.firstOutput, int32(0)
	for i := range len(t) {
		state = next[state+int32(automaton.class[t[i]])]
		if state < firstOutput {
			continue
		}
		for _, literal := range automaton.output[(state-firstOutput)/automaton.classes] {
			if mark := &f.literalMark[l.firstLiteral+int(literal)]; *mark != now {
				*mark = now
				f.addRules(l.rulesOf[literal])
			}
		}
	}
}

func (f *finder) addRules(rules []int32) {
	now := f.values.eventNumber
	for _, rule := range rules {
		if f.ruleMark[rule] != now {
			f.ruleMark[rule] = now
			f.found = append(f.found, rule)
		}
	}
}
