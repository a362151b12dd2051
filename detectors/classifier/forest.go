package classifier

// A forest holds decision trees in flat arrays, so that evaluation does not allocate.
type forest struct {
	roots []int32 // by tree: index of its root in nodes
	nodes []Node  // of all trees
	steps []step  // nodes in the compact form that score reads; written by packSteps
}

// A Node is a node of a decision tree. An inner node tests one feature and has a child for each bin of that
// feature. The children are adjacent in the array: the child of bin b is at First+b.
type Node struct {
	First   int32 // index of the first child, greater than the node's own index; 0: the node is a leaf
	Feature uint8 // index in Features
	Score   uint8 // 0…255: share of generated labels among the training labels that reached this node
}

// A step is a Node in half the size, so that more of the forest stays in the CPU's cache. The step of a leaf
// is its score. The step of an inner node has the bit innerStep, the index of the first child, and the
// feature in the low featureBits.
type step uint32

const (
	innerStep   step = 1 << 31
	featureBits      = 4
)

// packSteps computes steps from nodes. checkBounds has made sure that indexes and features fit into a step.
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

// Bins divides the values of each feature into bins: it holds the upper edges of the bins in ascending order.
// The last bin has no edge.
type Bins [NumFeatures][]float32

// BinOf returns the bin of a feature's value.
func (b *Bins) BinOf(feature int, value float32) int {
	bin := 0
	for _, edge := range b[feature] {
		if value < edge {
			break
		}
		bin++
	}
	return bin
}

// binnedFeatures holds the bin of each feature of one label. Its length is a power of two, so that the
// compiler omits the bounds check for an index of featureBits bits.
type binnedFeatures [1 << featureBits]uint8

// score returns the mean score of the leaves that a label reaches, from 0 to 1.
func (f *forest) score(bins *binnedFeatures) float64 {
	sum := 0
	steps, roots := f.steps, f.roots

	// next returns the child of the inner node s for the label: first child plus bin of the node's feature.
	next := func(s step) step { return steps[s&^innerStep>>featureBits+step(bins[s&(1<<featureBits-1)])] }

	// Four trees are walked at a time, because each step waits for memory: this takes a fifth less time than
	// one tree after the other.
	for ; len(roots) >= 4; roots = roots[4:] {
		first, second, third, fourth := steps[roots[0]], steps[roots[1]], steps[roots[2]], steps[roots[3]]
		for first&second&third&fourth >= innerStep { // All four have the bit of an inner node.
			first, second, third, fourth = next(first), next(second), next(third), next(fourth)
		}

		// At least one is at a leaf; the others continue one by one.
		for _, leaf := range [...]step{first, second, third, fourth} {
			for leaf >= innerStep {
				leaf = next(leaf)
			}
			sum += int(leaf)
		}
	}

	// The last one to three trees.
	for _, root := range roots {
		current := steps[root]
		for current >= innerStep {
			current = next(current)
		}
		sum += int(current)
	}
	return float64(sum) / float64(255*len(f.roots))
}

// addContributions adds to total how much each feature changed the score on the paths from the roots to the
// leaves that a label reaches.
func (f *forest) addContributions(bins *binnedFeatures, total *[NumFeatures]int) {
	for _, root := range f.roots {
		node := &f.nodes[root]
		for node.First != 0 {
			child := &f.nodes[node.First+int32(bins[node.Feature])]
			total[node.Feature] += int(child.Score) - int(node.Score)
			node = child
		}
	}
}
