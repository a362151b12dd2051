package rules

import (
	"slices"
	"strings"
)

// literalBytes is the maximum length of a literal in the automaton; longer ones are cut to their rarest part.
// A text that contains the literal contains the part, so the index rules out no match. The expression
// compares the whole literal.
const literalBytes = 8

// An automaton finds which of many literals are in a text, in one pass whose time does not depend on their
// number (Aho and Corasick, 1975). It is a table of transitions, complete for every state and class of bytes.
// Bytes that are in no literal share class 0.
type automaton struct {
	class       [256]uint8
	classes     int32
	next        []int32   // state + class → state; a state is the index of its row, so all are multiples of classes
	firstOutput int32     // states from here on end a literal
	output      [][]int32 // by (state - firstOutput) / classes: the literals that end there
}

// maxClasses is the number of classes that fit a byte, 0 included. If the literals have more bytes than that,
// the rest share the last class: the automaton then finds more than it must, and the expression decides.
const maxClasses = 255

// newAutomaton returns the automaton of literals that are not empty and have at most literalBytes. With fold
// they are in lower case and found in any case.
func newAutomaton(literals []string, fold bool) *automaton {
	built := &automaton{classes: 1}

	// 1. Assign a class to each byte that occurs. With fold, upper case has the classes of lower case.
	for _, literal := range literals {
		for i := range len(literal) {
			switch c := literal[i]; {
			case built.class[c] != 0:
			case built.classes == maxClasses:
				built.class[c] = maxClasses - 1
			default:
				built.class[c] = uint8(built.classes)
				built.classes++
			}
		}
	}
	if fold {
		for c := 'A'; c <= 'Z'; c++ {
			built.class[c] = built.class[c+'a'-'A']
		}
	}

	// 2. Build the trie of the literals, complete its transitions, and write it as a table.
	trie := built.newTrie(literals)
	trie.linkSuffixes()
	built.layOut(trie)
	return built
}

// A trie is the automaton under construction. State s has its transitions in next[s*classes:].
type trie struct {
	classes int
	next    []int32   // 0: no transition; only after linkSuffixes can 0 mean the root
	ends    [][]int32 // by state: the literals that end there
	order   []int32   // states, breadth first
}

// newTrie returns the trie of literals. The number of a literal is its index.
func (a *automaton) newTrie(literals []string) *trie {
	classes := int(a.classes)
	trie := &trie{classes: classes, next: make([]int32, classes), ends: make([][]int32, 1)}
	for id, literal := range literals {
		state := 0
		for i := range len(literal) {
			at := state*classes + int(a.class[literal[i]])
			if trie.next[at] == 0 {
				trie.next[at] = int32(len(trie.ends))
				trie.next = append(trie.next, make([]int32, classes)...)
				trie.ends = append(trie.ends, nil)
			}
			state = int(trie.next[at])
		}
		trie.ends[state] = append(trie.ends[state], int32(id))
	}
	return trie
}

// linkSuffixes completes the transitions: where a state's own branch ends, the scan continues in the state of
// the longest suffix that is also a prefix of a literal. It goes breadth first: when a state is visited, the
// shorter states, and so the one of its suffix, are complete.
func (t *trie) linkSuffixes() {
	suffix := make([]int32, len(t.ends)) // by state
	var queue []int32                    // states whose transitions are to be completed
	for class := range t.classes {
		if state := t.next[class]; state != 0 {
			queue = append(queue, state)
		}
	}

	// Invariant: the transitions of all states in order are complete, and the suffix of each queued state is
	// set.
	t.order = append(t.order, 0)
	for len(queue) > 0 {
		state := queue[0]
		queue = queue[1:]
		t.order = append(t.order, state)
		fallback := suffix[state]
		if len(t.ends[fallback]) > 0 { // A literal that is a suffix of this state's text ends here too.
			t.ends[state] = append(slices.Clip(t.ends[state]), t.ends[fallback]...)
		}
		for class := range t.classes {
			at := int(state)*t.classes + class
			viaFallback := t.next[int(fallback)*t.classes+class]
			if child := t.next[at]; child != 0 {
				suffix[child] = viaFallback
				queue = append(queue, child)
			} else {
				t.next[at] = viaFallback
			}
		}
	}
}

// layOut numbers the states so that those with output come last: one comparison finds them. States near the
// root, where a scan spends its time, are together in memory.
func (a *automaton) layOut(t *trie) {
	// States without output come first, then those with output, both breadth first.
	row := make([]int32, len(t.ends)) // by state of the trie: the index of its row in a.next
	rows := int32(0)
	for _, state := range t.order {
		if len(t.ends[state]) == 0 {
			row[state] = rows * a.classes
			rows++
		}
	}
	a.firstOutput = rows * a.classes
	for _, state := range t.order {
		if ends := t.ends[state]; len(ends) > 0 {
			row[state] = rows * a.classes
			a.output = append(a.output, ends)
			rows++
		}
	}

	// Transitions hold indexes of rows, so that the scan needs no multiplication.
	a.next = make([]int32, len(t.next))
	for state := range t.ends {
		to := a.next[row[state]:]
		for class := range t.classes {
			to[class] = row[t.next[state*t.classes+class]]
		}
	}
}

// An automaton serves lists of minAutomaton texts or more. Its table has a row for each byte of the texts, so the bytes
// of a list are bounded; a list with more is searched text by text.
const (
	minAutomaton  = 8
	maxAutomatonB = 8 << 10
)

// useAutomaton reports whether an automaton finds texts exactly and faster than one search for each of them.
func useAutomaton(texts []string) bool {
	var seen [256]bool
	size, distinct := 0, 0
	for _, text := range texts {
		if text == "" {
			return false
		}
		size += len(text)
		for i := range len(text) {
			if !seen[text[i]] {
				seen[text[i]] = true
				distinct++
			}
		}
	}
	return len(texts) >= minAutomaton && size <= maxAutomatonB && distinct < maxClasses-1
}

// hasAny reports whether one of the literals is in text.
func (a *automaton) hasAny(text string) bool {
	state := int32(0)
	for i := range len(text) {
		if state = a.next[state+int32(a.class[text[i]])]; state >= a.firstOutput {
			return true
		}
	}
	return false
}

// rarestPart returns the literalBytes of a literal that are least likely in ordinary text.
func rarestPart(literal string) string {
	if len(literal) <= literalBytes {
		return literal
	}
	best, at := -1, 0
	for i := 0; i+literalBytes <= len(literal); i++ {
		score := 0
		for j := range literalBytes {
			weight := literalBytes - j // The first bytes decide how often the automaton leaves its root.
			score += weight * byteRarity(literal[i+j])
		}
		if score > best {
			best, at = score, i
		}
	}
	return literal[at : at+literalBytes]
}

// byteRarity is a rough order of bytes in URLs, statements, names and log lines.
func byteRarity(c byte) int {
	switch {
	case strings.IndexByte(" etaoinsr/.", c) >= 0:
		return 0
	case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '=' || c == '_':
		return 1
	case c >= 'A' && c <= 'Z' || c == ':' || c == '%' || c == '&' || c == '"':
		return 2
	}
	return 4
}
