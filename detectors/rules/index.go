package rules

import (
	"maps"
	"net/netip"
	"slices"

	"tidegate/pipeline"
)

// An index finds the rules whose prefilter an event passes. Its cost depends on the event, not on the number
// of rules: it looks up the value of each slot that has keys in hash tables, and scans texts for literals
// with an automaton. Rules are numbered in the order of the set.
type index struct {
	rules    int                             // number of rules
	always   [pipeline.NumDatasets][]int32   // by dataset: rules without keys
	lookups  [pipeline.NumDatasets][]*lookup // by dataset: the lookups of slots that its events can have
	literals int                             // number of literals of all lookups
}

// A lookup maps the keys of one slot to rules.
type lookup struct {
	slot     int
	datasets datasetMask // union over the rules

	// Keys of equality: the rules for each value of the slot.
	texts     map[string][]int32
	numbers   map[int64][]int32
	addresses map[netip.Addr][]int32

	// Keys of literals: the rules for each literal inside a text.
	automaton    *automaton         // nil: no key is a literal
	fold         bool               // the automaton ignores ASCII case
	firstLiteral int                // number of the automaton's first literal among all literals of the index
	rulesOf      [][]int32          // by literal of the automaton
	added        map[string][]int32 // rules by whole literal, until buildAutomaton
}

// newIndex returns an index over prefilters. The number of a rule is its index in prefilters.
func newIndex(slots *slotTable, prefilters []prefilter) *index {
	built := &index{rules: len(prefilters)}

	// 1. Sort the keys of all rules by slot.
	bySlot := map[int]*lookup{}
	for rule, filter := range prefilters {
		// Without keys the rule is a candidate for every event of its datasets.
		for dataset := range built.always {
			if filter.keys == nil && filter.datasets&(1<<dataset) != 0 {
				built.always[dataset] = append(built.always[dataset], int32(rule))
			}
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

	// 2. Build the automata, and enter each lookup for the datasets in which its slot and its rules occur.
	// The order of the lookups does not affect the result; sorting makes it reproducible.
	for _, slot := range slices.Sorted(maps.Keys(bySlot)) {
		keys := bySlot[slot]
		keys.buildAutomaton(built)
		reach := keys.datasets & slots.slotDatasets(slot)
		for dataset := range built.lookups {
			if reach&(1<<dataset) != 0 {
				built.lookups[dataset] = append(built.lookups[dataset], keys)
			}
		}
	}
	return built
}

func newLookup(slot int) *lookup {
	return &lookup{
		slot: slot, texts: map[string][]int32{}, numbers: map[int64][]int32{}, addresses: map[netip.Addr][]int32{},
		added: map[string][]int32{},
	}
}

// addKey adds a key of a rule. All keys of one rule are added before those of the next, so a rule that is in
// a list already is its last element.
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
		// One literal that ignores case makes the whole automaton ignore case. The automaton then finds the
		// other literals too often, and the expressions decide.
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

// buildAutomaton builds the automaton over the literals of the lookup. owner numbers the literals of all its
// lookups.
func (l *lookup) buildAutomaton(owner *index) {
	// 1. Cut each literal to its rarest part. Literals with the same part share one entry with all their
	// rules.
	rulesOf := map[string][]int32{} // by part
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

	// 2. Number the parts, first within the automaton, then within the index.
	parts := slices.Sorted(maps.Keys(rulesOf))
	for _, part := range parts {
		rules := rulesOf[part]
		slices.Sort(rules)
		l.rulesOf = append(l.rulesOf, slices.Compact(rules))
	}
	l.automaton = newAutomaton(parts, l.fold)
	l.firstLiteral = owner.literals
	owner.literals += len(parts)
}

// A finder collects the rules that an index finds for one event, each once. It belongs to one worker. A mark
// holds the number of the last event, so marks need not be cleared between events.
type finder struct {
	index       *index
	values      *eventValues
	found       []int32
	ruleMark    []uint32 // by rule: number of the last event for which the rule was found
	literalMark []uint32 // by literal: number of the last event in which the literal was found
}

func newFinder(over *index, values *eventValues) *finder {
	return &finder{
		index: over, values: values, found: make([]int32, 0, 64),
		ruleMark: make([]uint32, over.rules), literalMark: make([]uint32, over.literals),
	}
}

// candidates returns the rules whose prefilter the event of f.values passes, sorted. The list is valid until
// the next call.
func (f *finder) candidates(dataset pipeline.Dataset) []int32 {
	if dataset < 0 || int(dataset) >= len(f.index.lookups) {
		return nil // a dataset that this binary does not have
	}
	if f.values.eventNumber == 1 { // The number has wrapped, so old marks would match again.
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

// lookUp adds the rules that have a key for the value of one slot.
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

// lookUpText adds the rules with a key that equals text or is inside it. An empty text has no keys.
func (f *finder) lookUpText(l *lookup, text string) {
	if text == "" {
		return
	}
	if len(l.texts) > 0 {
		f.addRules(l.texts[text])
	}
	if l.automaton != nil {
		f.scanText(l, text)
	}
}

// scanText runs the automaton over text. A literal adds its rules once for each event, however often it
// occurs.
func (f *finder) scanText(l *lookup, text string) {
	automaton, now := l.automaton, f.values.eventNumber
	next, firstOutput, state := automaton.next, automaton.firstOutput, int32(0)
	for i := range len(text) {
		state = next[state+int32(automaton.class[text[i]])]
		if state < firstOutput { // No literal ends here, as after nearly all bytes.
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

// addRules adds the rules that were not found for this event yet.
func (f *finder) addRules(rules []int32) {
	now := f.values.eventNumber
	for _, rule := range rules {
		if f.ruleMark[rule] != now {
			f.ruleMark[rule] = now
			f.found = append(f.found, rule)
		}
	}
}
