package classifier

// A forest is many decision trees in flat arrays, so that judging walks them without allocating. A node asks for one feature and has
// a child per bin of that feature, one after the other.
type forest struct {
	roots []int32
	nodes []node
	steps []step // of nodes, for judging: made by compile
}

type node struct {
	first   int32 // its first child; 0: a leaf
	feature uint8
	score   uint8 // 0…255: the share of generated domains among those of training that came here
}

// A step is what judging needs of a node, in half the bytes, so that more of the forest stays in the cache: of a leaf its score; of any
// other node its first child, its feature and the bit inner.
type step uint32

const (
	inner       step = 1 << 31
	featureBits      = 4
)

// packSteps makes the steps. maxNodes and nFeatures leave room for both in a step.
func (f *forest) packSteps() {
	f.steps = make([]step, len(f.nodes))
	for i, n := range f.nodes {
		if n.first == 0 {
			f.steps[i] = step(n.score)
		} else {
			f.steps[i] = inner | step(n.first)<<featureBits | step(n.feature)
		}
	}
}

// bins turn each feature's value into the number of its bin.
type bins [nFeatures][]float32

func (b *bins) binOf(f int, v float32) int {
	n := 0
	for _, edge := range b[f] {
		if v < edge {
			break
		}
		n++
	}
	return n
}

// The bins of one label, with room for whatever featureBits can say, so that no index needs a check.
type binned [1 << featureBits]uint8

// score averages the leaves that a label comes to. Four trees are walked at a time: each waits for memory at every step, and so they
// wait together: of names of many shapes a fifth less time than one after the other.
func (f *forest) score(at *binned) float64 {
	sum := 0
	steps, roots := f.steps, f.roots
	next := func(s step) step { return steps[s&^inner>>featureBits+step(at[s&(1<<featureBits-1)])] }
	for ; len(roots) >= 4; roots = roots[4:] {
		a, b, c, d := steps[roots[0]], steps[roots[1]], steps[roots[2]], steps[roots[3]]
		for a&b&c&d >= inner { // none has come to a leaf
			a, b, c, d = next(a), next(b), next(c), next(d)
		}
		for _, s := range [...]step{a, b, c, d} {
			for s >= inner {
				s = next(s)
			}
			sum += int(s)
		}
	}
	for _, r := range roots {
		s := steps[r]
		for s >= inner {
			s = next(s)
		}
		sum += int(s)
	}
	return float64(sum) / float64(255*len(f.roots))
}

// addContributions adds up how far each feature moved the score on the way to the leaves.
func (f *forest) addContributions(at *binned, why *[nFeatures]int) {
	for _, i := range f.roots {
		n := &f.nodes[i]
		for n.first != 0 {
			next := &f.nodes[n.first+int32(at[n.feature])]
			why[n.feature] += int(next.score) - int(n.score)
			n = next
		}
	}
}
