package classifier

// A forest is many decision trees in flat arrays, so that judging walks them without allocating. A node asks for one feature and has
// a child per bin of that feature, one after the other.
type forest struct {
	roots []int32
	nodes []node
}

type node struct {
	first   int32 // its first child; 0: a leaf
	feature uint8
	score   uint8 // 0…255: the share of generated domains among those of training that came here
}

// bins turn each feature's value into the number of its bin.
type bins [nFeatures][]float32

func (b *bins) of(f int, v float32) int {
	n := 0
	for _, edge := range b[f] {
		if v < edge {
			break
		}
		n++
	}
	return n
}

// judge averages the leaves that v comes to. Where why is not nil, it adds up how far each feature moved the score on the way.
func (f *forest) judge(at *[nFeatures]uint8, why *[nFeatures]int) float64 {
	sum := 0
	for _, i := range f.roots {
		n := &f.nodes[i]
		for n.first != 0 {
			next := &f.nodes[n.first+int32(at[n.feature])]
			if why != nil {
				why[n.feature] += int(next.score) - int(n.score)
			}
			n = next
		}
		sum += int(n.score)
	}
	return float64(sum) / float64(255*len(f.roots))
}
