package rules

import (
	"net/netip"
	"slices"

	"tidegate/pipeline"
)

// An index finds the rules that an event can fire. Its cost depends on the event, not on the number of rules.
type index struct {
	rules  int
	always [pipeline.NumDatasets][]int32 // by dataset: rules that need nothing that can be looked up
	probes [pipeline.NumDatasets][]*lookup
	sizes  int // literals of all probes, for their marks
}

// A lookup looks one slot of the event up.
type lookup struct {
	slot   int
	mask   datasetMask
	texts  map[string][]int32
	counts map[int64][]int32
	addrs  map[netip.Addr][]int32

	words   *automaton
	fold    bool
	base    int       // of this automaton's literals in the marks
	wanted  [][]int32 // by literal: its rules
	pending map[string][]int32
}

// newIndex builds it from what each rule needs.
func newIndex(t *slotTable, needs []prefilter) *index {
	x := &index{rules: len(needs)}
	bySlot := map[int]*lookup{}
	for id, n := range needs {
		if n.keys == nil {
			for d := range x.always {
				if n.datasets&(1<<d) != 0 {
					x.always[d] = append(x.always[d], int32(id))
				}
			}
			continue
		}
		for _, k := range n.keys {
			p := bySlot[k.slot]
			if p == nil {
				p = &lookup{slot: k.slot, texts: map[string][]int32{}, counts: map[int64][]int32{}, addrs: map[netip.Addr][]int32{}, pending: map[string][]int32{}}
				bySlot[k.slot] = p
			}
			p.addKey(t, k, int32(id), n.datasets)
		}
	}
	order := make([]int, 0, len(bySlot))
	for s := range bySlot {
		order = append(order, s)
	}
	slices.Sort(order)
	for _, s := range order {
		p := bySlot[s]
		p.buildAutomaton(x)
		reach := p.mask
		if body := t.list[s].body; body != pipeline.Dataset_DATASET_NONE {
			reach &= maskOf(body)
		}
		for d := range x.probes {
			if reach&(1<<d) != 0 {
				x.probes[d] = append(x.probes[d], p)
			}
		}
	}
	return x
}

func (p *lookup) addKey(t *slotTable, k prefilterKey, rule int32, m datasetMask) {
	p.mask |= m
	put := func(list []int32) []int32 {
		if len(list) > 0 && list[len(list)-1] == rule {
			return list
		}
		return append(list, rule)
	}
	kind := t.list[k.slot].kind
	switch {
	case k.literal:
		// One literal that is sought in any case makes the whole automaton fold: the others find a little more than they need.
		p.fold = p.fold || k.folded
		p.pending[k.text] = put(p.pending[k.text])
	case k.addr.IsValid():
		p.addrs[k.addr] = put(p.addrs[k.addr])
	case kind == number || kind == numberList:
		p.counts[k.number] = put(p.counts[k.number])
	default:
		p.texts[k.text] = put(p.texts[k.text])
	}
}

// buildAutomaton builds the automaton of the literals that were added.
func (p *lookup) buildAutomaton(x *index) {
	cut := map[string][]int32{}
	for text, rules := range p.pending {
		if p.fold {
			text = lowerASCII(text)
		}
		text = rarestPart(text)
		cut[text] = append(cut[text], rules...)
	}
	p.pending = nil
	if len(cut) == 0 {
		return
	}
	patterns := make([]string, 0, len(cut))
	for text := range cut {
		patterns = append(patterns, text)
	}
	slices.Sort(patterns)
	for _, text := range patterns {
		rules := cut[text]
		slices.Sort(rules)
		p.wanted = append(p.wanted, slices.Compact(rules))
	}
	p.words = newAutomaton(patterns, p.fold)
	p.base = x.sizes
	x.sizes += len(patterns)
}

// A finder gathers the candidates of one event, each once.
type finder struct {
	index  *index
	values *eventValues
	found  []int32
	rules  []uint32 // marks: the event's number where it was found already
	words  []uint32
}

func newFinder(x *index, v *eventValues) *finder {
	return &finder{index: x, values: v, rules: make([]uint32, x.rules), words: make([]uint32, x.sizes), found: make([]int32, 0, 64)}
}

// candidates lists the rules that the event at hand can fire, in their order. The list is valid until the next call.
func (f *finder) candidates(d pipeline.Dataset) []int32 {
	if d < 0 || int(d) >= len(f.index.probes) {
		return nil
	}
	if f.values.eventNumber == 1 {
		clear(f.rules)
		clear(f.words)
	}
	f.found = append(f.found[:0], f.index.always[d]...)
	for _, p := range f.index.probes[d] {
		f.lookUp(p)
	}
	if len(f.found) > 1 {
		slices.Sort(f.found)
	}
	return f.found
}

func (f *finder) lookUp(p *lookup) {
	value := f.values.slot(p.slot)
	switch f.values.table.list[p.slot].kind {
	case text:
		f.lookUpText(p, value.text)
	case textList:
		for _, t := range value.texts {
			f.lookUpText(p, t)
		}
	case number:
		f.addRules(p.counts[value.number])
	case numberList:
		for _, n := range value.numbers {
			f.addRules(p.counts[n])
		}
	case address:
		f.addRules(p.addrs[value.address])
	}
}

func (f *finder) lookUpText(p *lookup, t string) {
	if t == "" {
		return
	}
	if len(p.texts) > 0 {
		f.addRules(p.texts[t])
	}
	if p.words != nil {
		f.scanText(p, t)
	}
}

// scanText runs the automaton over t.
func (f *finder) scanText(p *lookup, t string) {
	a, now := p.words, f.values.eventNumber
	next, first, s := a.next, a.first, int32(0)
	for i := range len(t) {
		s = next[s+int32(a.class[t[i]])]
		if s < first {
			continue
		}
		for _, w := range a.output[(s-first)/a.classes] {
			if mark := &f.words[p.base+int(w)]; *mark != now {
				*mark = now
				f.addRules(p.wanted[w])
			}
		}
	}
}

func (f *finder) addRules(rules []int32) {
	now := f.values.eventNumber
	for _, r := range rules {
		if f.rules[r] != now {
			f.rules[r] = now
			f.found = append(f.found, r)
		}
	}
}
