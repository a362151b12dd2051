package classifier

// A forest is many decision trees in flat arrays, so that evaluation does not allocate. Each tree is a root,
// an index into nodes.
type forest struct {
	roots []int32
	nodes []Node
	steps []step // the nodes in the form that evaluation reads; made by packSteps
}

// A Node of a decision tree asks for one feature and has a child for each bin of that feature, one after the
// other.
type Node struct {
	First   int32 // index of its first child, which is behind the node itself; 0: a leaf
	Feature uint8
	Score   uint8 // 0…255: the share of generated labels among those of the training that came to this node
}

// A step is a node in half the bytes, so that more of the forest stays in the CPU's cache. Of a leaf it is
// the score; of an inner node the index of the first child, the feature and the bit innerStep.
type step uint32

const (
	innerStep   step = 1 << 31
	featureBits      = 4
)

// packSteps makes the steps. maxNodes and NumFeatures leave room for both numbers in a step.
func (f *forest) packSteps() {
	f.steps = make([]step, len(f.nodes))
	for i, node := range f.nodes {
		if node.First == 0 {
			f.steps[i] = step(node.Score)
		} else {
			f.steps[i] = innerStep | step(node.First)<<featureBits | step(node.Feature)
		}
	}
}

// Bins holds, for each feature, the upper edges of its bins in ascending order. The last bin has none.
type Bins [NumFeatures][]float32

// BinOf returns the bin of a feature's value.
func (b *Bins) BinOf(feature int, value float32) int {
	n := 0
	for _, edge := range b[feature] {
		if value < edge {
			break
		}
		n++
	}
	return n
}

// binnedFeatures holds the bins of one label. It has room for every number of featureBits bits, so that no
// index needs a check.
type binnedFeatures [1 << featureBits]uint8

// score returns the mean of the leaves that a label comes to, as a number from 0 to 1. Four trees are walked
// at a time because each step waits for memory: together they take a fifth less time than one after the
// other.
func (f *forest) score(at *binnedFeatures) float64 {
	sum := 0
	steps, roots := f.steps, f.roots
	next := func(s step) step { return steps[s&^innerStep>>featureBits+step(at[s&(1<<featureBits-1)])] }
	for ; len(roots) >= 4; roots = roots[4:] {
		a, b, c, d := steps[roots[0]], steps[roots[1]], steps[roots[2]], steps[roots[3]]
		for a&b&c&d >= innerStep { // none is at a leaf
			a, b, c, d = next(a), next(b), next(c), next(d)
		}
		for _, s := range [...]step{a, b, c, d} {
			for s >= innerStep {
				s = next(s)
			}
			sum += int(s)
		}
	}
	for _, root := range roots {
		s := steps[root]
		for s >= innerStep {
			s = next(s)
		}
		sum += int(s)
	}
	return float64(sum) / float64(255*len(f.roots))
}

// addContributions adds to total how far each feature moved the score on the way from the roots to the
// leaves.
func (f *forest) addContributions(at *binnedFeatures, total *[NumFeatures]int) {
	for _, root := range f.roots {
		node := &f.nodes[root]
		for node.First != 0 {
			child := &f.nodes[node.First+int32(at[node.Feature])]
			total[node.Feature] += int(child.Score) - int(node.Score)
			node = child
		}
	}
}
