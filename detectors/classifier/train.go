package classifier

import (
	"fmt"
	"math"
	"math/rand"
	"slices"

	"github.com/sjwhitworth/golearn/base"
	"github.com/sjwhitworth/golearn/trees"
)

// A Sample is one labelled domain.
type Sample struct {
	Label, Suffix string
	Family        string // "" of a name that people chose
}

// Options of training. The same options and samples make the same model, to the byte: golearn's own bagging does not (it draws from
// a global source in goroutines), so the bags are drawn here, one after the other, from a source of our own.
type Options struct {
	Seed     int64
	Trees    int
	Rows     int // in each bag, half of them generated
	Features int // that a tree may ask for
	Bins     int
	Leaf     int // rows below which a node is not split further
}

// DefaultOptions are what models/train uses.
func DefaultOptions() Options {
	return Options{Seed: 1, Trees: 60, Rows: 12000, Features: 6, Bins: 10, Leaf: 25}
}

// Train makes a model. Half of the samples teach the languages, the other half the trees, so that the trees see what the languages
// say of labels that they were not taught.
func Train(samples []Sample, opt Options) (*Model, error) {
	rng := rand.New(rand.NewSource(opt.Seed))
	samples = slices.Clone(samples)
	rng.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
	half := len(samples) / 2
	m := &Model{}
	m.learnLanguages(samples[:half])
	rows := make([]featureVector, 0, len(samples)-half)
	var chosen, generated []int
	for i, s := range samples[half:] {
		var v featureVector
		m.computeFeatures(&v, s.Label, s.Suffix)
		rows = append(rows, v)
		if s.Family == "" {
			chosen = append(chosen, i)
		} else {
			generated = append(generated, i)
		}
	}
	if len(chosen) == 0 || len(generated) == 0 {
		return nil, fmt.Errorf("train: %d chosen and %d generated names; both are needed", len(chosen), len(generated))
	}
	m.bins = quantiles(rows, opt.Bins)
	for range opt.Trees {
		features := rng.Perm(nFeatures)[:opt.Features]
		slices.Sort(features)
		bag := make([]int, 0, opt.Rows)
		for range opt.Rows / 2 {
			bag = append(bag, chosen[rng.Intn(len(chosen))], generated[rng.Intn(len(generated))])
		}
		if err := m.growTree(rows, samples[half:], bag, features, opt); err != nil {
			return nil, err
		}
	}
	m.forest.packSteps()
	return m, nil
}

func (m *Model) learnLanguages(samples []Sample) {
	var names, generated []string
	suffix := map[string][2]float64{}
	for _, s := range samples {
		n := suffix[s.Suffix]
		if s.Family == "" {
			names = append(names, s.Label)
			n[0]++
		} else {
			generated = append(generated, s.Label)
			n[1]++
		}
		suffix[s.Suffix] = n
	}
	m.names, m.generated = learnTrigrams(names), learnTrigrams(generated)
	m.suffixes = map[string]float32{}
	for s, n := range suffix {
		if n[0]+n[1] >= 20 {
			ratio := math.Log((n[1]+5)/(float64(len(generated))+10)) - math.Log((n[0]+5)/(float64(len(names))+10))
			m.suffixes[s] = float32(math.Round(ratio*100) / 100)
		}
	}
}

// quantiles are the edges between bins that hold about the same number of rows.
func quantiles(rows []featureVector, n int) bins {
	var b bins
	column := make([]float32, len(rows))
	for f := range nFeatures {
		for i, v := range rows {
			column[i] = v[f]
		}
		slices.Sort(column)
		for k := 1; k < n; k++ {
			edge := column[k*len(column)/n]
			if len(b[f]) == 0 && edge > column[0] || len(b[f]) > 0 && edge > b[f][len(b[f])-1] {
				b[f] = append(b[f], edge)
			}
		}
	}
	return b
}

const (
	classChosen    = "chosen"
	classGenerated = "generated"
)

// growTree lets golearn make one ID3 tree of a bag and lays it flat behind those that are there.
func (m *Model) growTree(rows []featureVector, samples []Sample, bag, features []int, opt Options) error {
	data := base.NewDenseInstances()
	attrs := make([]*base.CategoricalAttribute, len(features))
	specs := make([]base.AttributeSpec, len(features))
	for k, f := range features {
		a := base.NewCategoricalAttribute()
		a.SetName(Features[f])
		for bin := range len(m.bins[f]) + 1 {
			a.GetSysValFromString(fmt.Sprint(bin)) // all values in order, whatever the bag holds
		}
		attrs[k], specs[k] = a, data.AddAttribute(a)
	}
	class := base.NewCategoricalAttribute()
	class.SetName("class")
	class.GetSysValFromString(classChosen)
	class.GetSysValFromString(classGenerated)
	classSpec := data.AddAttribute(class)
	if err := data.AddClassAttribute(class); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := data.Extend(len(bag)); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	for at, i := range bag {
		for k, f := range features {
			data.Set(specs[k], at, attrs[k].GetSysValFromString(fmt.Sprint(m.bins.binOf(f, rows[i][f]))))
		}
		word := classChosen
		if samples[i].Family != "" {
			word = classGenerated
		}
		data.Set(classSpec, at, class.GetSysValFromString(word))
	}
	tree := trees.NewID3DecisionTree(0)
	if err := tree.Fit(data); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	byName := map[string]uint8{}
	for _, f := range features {
		byName[Features[f]] = uint8(f)
	}
	root := int32(len(m.forest.nodes))
	m.forest.roots = append(m.forest.roots, root)
	m.forest.nodes = append(m.forest.nodes, node{})
	m.flattenTree(root, tree.Root, byName, 0.5, opt.Leaf)
	return nil
}

// flattenTree lays n at index at, its children in the order of their bins behind everything that is there. A bin that training never saw
// has the score of its node.
func (m *Model) flattenTree(at int32, n *trees.DecisionTreeNode, byName map[string]uint8, above float64, leaf int) {
	yes, no := float64(n.ClassDist[classGenerated]), float64(n.ClassDist[classChosen])
	share := (yes + 2*above) / (yes + no + 2)
	me := node{score: uint8(math.Round(255 * share))}
	if n.Type == trees.RuleNode && n.SplitRule != nil && n.SplitRule.SplitAttr != nil && int(yes+no) >= leaf {
		me.feature = byName[n.SplitRule.SplitAttr.GetName()]
		me.first = int32(len(m.forest.nodes))
		width := len(m.bins[me.feature]) + 1
		for range width {
			m.forest.nodes = append(m.forest.nodes, node{score: me.score})
		}
		for bin := range width {
			if child := n.Children[fmt.Sprint(bin)]; child != nil {
				m.flattenTree(me.first+int32(bin), child, byName, share, leaf)
			}
		}
	}
	m.forest.nodes[at] = me
}
