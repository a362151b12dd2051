package rules

import "slices"

// literalBytes is how much of a literal goes into the automaton. Longer ones are cut to their rarest part: the index only has to
// be right when it says no, and expr compares the whole.
const literalBytes = 8

// An automaton finds which of many literals are in a text, in one pass whose time does not depend on how many there are
// (Aho and Corasick, 1975). It is a full table over classes of bytes: bytes that are in no literal share class 0.
type automaton struct {
	class   [256]uint8
	next    []int32   // state + class → state; states are multiples of classes, those with output come last
	output  [][]int32 // by (state - first) / classes: the patterns that end there
	first   int32     // states from here on have output
	classes int32
}

// newAutomaton builds it. Patterns are not empty and at most literalBytes long; with fold they are lower case and found in any case.
func newAutomaton(patterns []string, fold bool) *automaton {
	a := &automaton{classes: 1}
	for _, p := range patterns {
		for i := range len(p) {
			if a.class[p[i]] == 0 {
				if a.classes == 255 { // more distinct bytes than classes: the rest share the last, expr tells them apart
					a.class[p[i]] = 254
					continue
				}
				a.class[p[i]] = uint8(a.classes)
				a.classes++
			}
		}
	}
	if fold {
		for c := 'A'; c <= 'Z'; c++ {
			a.class[c] = a.class[c+'a'-'A']
		}
	}
	t := a.buildTrie(patterns)
	t.linkSuffixes()
	a.layOut(t)
	return a
}

// A trie is the automaton under construction: state s has its transitions at next[s*classes:].
type trie struct {
	next    []int32 // 0: none (no transition leads to the root before link)
	ends    [][]int32
	order   []int32 // breadth first: the states near the root, where a scan spends its time, lie together in memory
	classes int
}

func (a *automaton) buildTrie(patterns []string) *trie {
	n := int(a.classes)
	t := &trie{next: make([]int32, n), ends: make([][]int32, 1), classes: n}
	for id, p := range patterns {
		s := 0
		for i := range len(p) {
			at := s*n + int(a.class[p[i]])
			if t.next[at] == 0 {
				t.next[at] = int32(len(t.ends))
				t.next = append(t.next, make([]int32, n)...)
				t.ends = append(t.ends, nil)
			}
			s = int(t.next[at])
		}
		t.ends[s] = append(t.ends[s], int32(id))
	}
	return t
}

// linkSuffixes fills in where a state goes when its own branch ends: breadth first, so that the shorter suffixes are done before.
func (t *trie) linkSuffixes() {
	fail := make([]int32, len(t.ends))
	queue := make([]int32, 0, len(t.ends))
	for c := range t.classes {
		if s := t.next[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	t.order = append(t.order, 0)
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		t.order = append(t.order, s)
		f := fail[s]
		if len(t.ends[f]) > 0 {
			t.ends[s] = append(slices.Clip(t.ends[s]), t.ends[f]...)
		}
		for c := range t.classes {
			at := int(s)*t.classes + c
			back := t.next[int(f)*t.classes+c]
			if to := t.next[at]; to != 0 {
				fail[to] = back
				queue = append(queue, to)
			} else {
				t.next[at] = back
			}
		}
	}
}

// layOut numbers the states so that one comparison tells whether one has output, and multiplies them by the width of a row.
func (a *automaton) layOut(t *trie) {
	number := make([]int32, len(t.ends))
	n := int32(0)
	for _, s := range t.order {
		if len(t.ends[s]) == 0 {
			number[s] = n * a.classes
			n++
		}
	}
	a.first = n * a.classes
	for _, s := range t.order {
		if ends := t.ends[s]; len(ends) > 0 {
			number[s] = n * a.classes
			a.output = append(a.output, ends)
			n++
		}
	}
	a.next = make([]int32, len(t.next))
	for s := range t.ends {
		row := a.next[number[s]:]
		for c := range t.classes {
			row[c] = number[t.next[s*t.classes+c]]
		}
	}
}

// rarestPart cuts a literal to the part that is least likely in ordinary text.
func rarestPart(s string) string {
	if len(s) <= literalBytes {
		return s
	}
	best, at := -1, 0
	for i := 0; i+literalBytes <= len(s); i++ {
		score := 0
		for j := range literalBytes {
			w := literalBytes - j // the first bytes decide how often the automaton leaves its root
			score += w * byteRarity(s[i+j])
		}
		if score > best {
			best, at = score, i
		}
	}
	return s[at : at+literalBytes]
}

// byteRarity is a rough order of bytes in URLs, statements, names and log lines.
func byteRarity(c byte) int {
	switch {
	case c == ' ' || c == 'e' || c == 't' || c == 'a' || c == 'o' || c == 'i' || c == 'n' || c == 's' || c == 'r' || c == '/' || c == '.':
		return 0
	case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '=' || c == '_':
		return 1
	case c >= 'A' && c <= 'Z' || c == ':' || c == '%' || c == '&' || c == '"':
		return 2
	}
	return 4
}
