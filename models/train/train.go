package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand"
	"slices"
	"strings"

	"github.com/sjwhitworth/golearn/base"
	"github.com/sjwhitworth/golearn/trees"

	"tidegate/detectors/classifier"
)

// A sample is one labelled domain.
type sample struct {
	label, suffix string
	family        string // of the algorithm that generated it; "" for a name that people chose
}

// options are the parameters of training. The same options and samples make the same model, to the byte.
// golearn's own bagging does not (it draws from a global source in goroutines), so the bags are drawn here,
// one after the other, from one source.
type options struct {
	seed     int64
	trees    int
	rows     int // in each bag, half of them generated
	features int // number of features that one tree may test
	bins     int // bins of each feature
	minRows  int // a node with fewer rows is not split
}

func defaultOptions() options {
	return options{seed: 1, trees: 60, rows: 12000, features: 6, bins: 10, minRows: 25}
}

// train trains a model. Half of the samples train the language models and the other half the trees, so that
// the trees are trained on scores of labels that the language models were not trained on.
func train(samples []sample, opt options, card classifier.Card) (*classifier.Model, error) {
	// 1. Train the language models on the first half of the shuffled samples.
	rng := rand.New(rand.NewSource(opt.seed))
	samples = slices.Clone(samples)
	rng.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
	half := len(samples) / 2
	languages := learnLanguages(samples[:half])
	samples = samples[half:]

	// 2. Compute the features of the other half.
	rows := make([]classifier.FeatureVector, len(samples))
	var ordinary, generated []int // indexes of rows
	for i, sample := range samples {
		languages.ComputeFeatures(&rows[i], sample.label, sample.suffix)
		if sample.family == "" {
			ordinary = append(ordinary, i)
		} else {
			generated = append(generated, i)
		}
	}
	if len(ordinary) == 0 || len(generated) == 0 {
		return nil, fmt.Errorf("train: %d ordinary and %d generated names; both are needed", len(ordinary), len(generated))
	}

	// 3. Grow the trees. Each has its own random features and its own bag, half ordinary and half generated.
	forest := forest{rows: rows, samples: samples, bins: quantiles(rows, opt.bins), minRows: opt.minRows}
	for range opt.trees {
		features := rng.Perm(classifier.NumFeatures)[:opt.features]
		slices.Sort(features)
		bag := make([]int, 0, opt.rows)
		for range opt.rows / 2 {
			bag = append(bag, ordinary[rng.Intn(len(ordinary))], generated[rng.Intn(len(generated))])
		}
		if err := forest.growTree(bag, features); err != nil {
			return nil, err
		}
	}
	return classifier.NewModel(card, languages, forest.bins, forest.roots, forest.nodes)
}

// learnLanguages trains the language models and the weights of public suffixes.
func learnLanguages(samples []sample) classifier.Languages {
	const minSuffix = 20 // samples; rarer suffixes have no weight
	var names, generated []string
	counts := map[string][2]float64{} // by suffix: ordinary, generated
	for _, sample := range samples {
		count := counts[sample.suffix]
		if sample.family == "" {
			names = append(names, sample.label)
			count[0]++
		} else {
			generated = append(generated, sample.label)
			count[1]++
		}
		counts[sample.suffix] = count
	}
	languages := classifier.Languages{Names: learnTrigrams(names), Generated: learnTrigrams(generated), Suffixes: map[string]float32{}}
	for suffix, count := range counts {
		if count[0]+count[1] >= minSuffix {
			ratio := math.Log((count[1]+5)/(float64(len(generated))+10)) - math.Log((count[0]+5)/(float64(len(names))+10))
			languages.Suffixes[suffix] = float32(math.Round(ratio*100) / 100)
		}
	}
	return languages
}

// learnTrigrams estimates the probability of each trigram from labels. A trigram that is rare or unseen gets
// most of its probability from that of its last two symbols, and that from its last symbol.
func learnTrigrams(labels []string) classifier.Trigrams {
	const symbols = classifier.NumSymbols
	tri, bi, uni := make([]float64, classifier.NumTrigrams), make([]float64, symbols*symbols), make([]float64, symbols)
	for _, label := range labels {
		classifier.EachTrigram(label, func(a, b, c int) {
			tri[classifier.TrigramIndex(a, b, c)]++
			bi[b*symbols+c]++
			uni[c]++
		})
	}
	all := 0.0
	for _, count := range uni {
		all += count
	}

	// Each estimate is mixed with that of the shorter context, by the weight of 5 or 10 observations.
	out := make(classifier.Trigrams, classifier.NumTrigrams)
	for first := range symbols {
		for second := range symbols {
			context, biContext := 0.0, 0.0
			for c := range symbols {
				context += tri[classifier.TrigramIndex(first, second, c)]
				biContext += bi[second*symbols+c]
			}
			for third := range symbols {
				pUni := (uni[third] + 0.5) / (all + 0.5*symbols)
				pBi := (bi[second*symbols+third] + 10*pUni) / (biContext + 10)
				p := (tri[classifier.TrigramIndex(first, second, third)] + 5*pBi) / (context + 5)
				out[classifier.TrigramIndex(first, second, third)] = int8(max(-127, math.Round(16*math.Log(p))))
			}
		}
	}
	return out
}

// quantiles returns edges between bins that hold about the same number of rows each.
func quantiles(rows []classifier.FeatureVector, count int) classifier.Bins {
	var bins classifier.Bins
	column := make([]float32, len(rows))
	for feature := range classifier.NumFeatures {
		for i, row := range rows {
			column[i] = row[feature]
		}
		slices.Sort(column)
		for k := 1; k < count; k++ {
			edge := column[k*len(column)/count]
			edges := bins[feature]
			if len(edges) == 0 && edge > column[0] || len(edges) > 0 && edge > edges[len(edges)-1] {
				bins[feature] = append(edges, edge)
			}
		}
	}
	return bins
}

// A forest grows tree by tree, in the flat form that classifier evaluates.
type forest struct {
	rows    []classifier.FeatureVector
	samples []sample // of the rows
	bins    classifier.Bins
	minRows int

	roots []int32
	nodes []classifier.Node
}

const (
	classOrdinary  = "ordinary"
	classGenerated = "generated"
)

// growTree makes one ID3 tree by golearn of the rows in bag, and appends it.
func (f *forest) growTree(bag, features []int) error {
	data, err := f.instances(bag, features)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	tree := trees.NewID3DecisionTreeFromRule(0, orderedRule{})
	if err := tree.Fit(data); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	byName := map[string]uint8{}
	for _, feature := range features {
		byName[classifier.Features[feature]] = uint8(feature)
	}
	root := int32(len(f.nodes))
	f.roots = append(f.roots, root)
	f.nodes = append(f.nodes, classifier.Node{})
	f.appendNode(root, tree.Root, byName, 0.5)
	return nil
}

// orderedRule splits by the feature with the least entropy after the split, as golearn's information gain
// does. golearn's rule sums over maps and tries features in the order of a map, so that sums which differ in
// their last bit, and ties, make another tree at each training.
type orderedRule struct{}

// GenerateSplitRule implements trees.RuleGenerator.
func (orderedRule) GenerateSplitRule(data base.FixedDataGrid) *trees.DecisionTreeRule {
	var best base.Attribute
	least := math.Inf(1)
	candidates := base.NonClassAttributes(data)
	slices.SortFunc(candidates, func(a, b base.Attribute) int { return strings.Compare(a.GetName(), b.GetName()) })
	for _, attribute := range candidates {
		if entropy := splitEntropy(base.GetClassDistributionAfterSplit(data, attribute)); entropy < least {
			best, least = attribute, entropy
		}
	}
	return &trees.DecisionTreeRule{SplitAttr: best}
}

// splitEntropy returns the entropy of the classes within the bins, weighted by the rows of each bin.
func splitEntropy(counts map[string]map[string]int) float64 {
	all := 0
	for _, classes := range counts {
		all += classes[classOrdinary] + classes[classGenerated]
	}
	entropy := 0.0
	for _, bin := range slices.Sorted(maps.Keys(counts)) {
		ordinary, generated := float64(counts[bin][classOrdinary]), float64(counts[bin][classGenerated])
		for _, count := range []float64{ordinary, generated} {
			if count > 0 {
				entropy -= count / float64(all) * math.Log2(count/(ordinary+generated))
			}
		}
	}
	return entropy
}

// instances returns the rows in bag as golearn takes them: the bins of some features as categories, and the
// class.
func (f *forest) instances(bag, features []int) (*base.DenseInstances, error) {
	data := base.NewDenseInstances()
	attributes := make([]*base.CategoricalAttribute, len(features))
	specs := make([]base.AttributeSpec, len(features))
	for column, feature := range features {
		attribute := base.NewCategoricalAttribute()
		attribute.SetName(classifier.Features[feature])
		for bin := range len(f.bins[feature]) + 1 {
			attribute.GetSysValFromString(fmt.Sprint(bin)) // all categories in order, whatever the bag holds
		}
		attributes[column], specs[column] = attribute, data.AddAttribute(attribute)
	}

	// The class is an attribute too.
	class := base.NewCategoricalAttribute()
	class.SetName("class")
	class.GetSysValFromString(classOrdinary)
	class.GetSysValFromString(classGenerated)
	classSpec := data.AddAttribute(class)
	if err := data.AddClassAttribute(class); err != nil {
		return nil, err
	}
	if err := data.Extend(len(bag)); err != nil {
		return nil, err
	}
	for at, row := range bag {
		for column, feature := range features {
			bin := f.bins.BinOf(feature, f.rows[row][feature])
			data.Set(specs[column], at, attributes[column].GetSysValFromString(fmt.Sprint(bin)))
		}
		word := classOrdinary
		if f.samples[row].family != "" {
			word = classGenerated
		}
		data.Set(classSpec, at, class.GetSysValFromString(word))
	}
	return data, nil
}

// appendNode writes a node of golearn's tree at index at, and appends its children in the order of their
// bins. The score of a node is the share of generated rows, moved towards the share of the parent node. A
// child without training rows has the score of its parent.
func (f *forest) appendNode(at int32, grown *trees.DecisionTreeNode, byName map[string]uint8, shareAbove float64) {
	generated, ordinary := float64(grown.ClassDist[classGenerated]), float64(grown.ClassDist[classOrdinary])
	share := (generated + 2*shareAbove) / (generated + ordinary + 2)
	node := classifier.Node{Score: uint8(math.Round(255 * share))}

	// The children of a node are adjacent, so they are all appended before the first of them is filled in.
	isRule := grown.Type == trees.RuleNode && grown.SplitRule != nil && grown.SplitRule.SplitAttr != nil
	if isRule && int(generated+ordinary) >= f.minRows {
		node.Feature = byName[grown.SplitRule.SplitAttr.GetName()]
		node.First = int32(len(f.nodes))
		width := len(f.bins[node.Feature]) + 1
		for range width {
			f.nodes = append(f.nodes, classifier.Node{Score: node.Score})
		}
		for bin := range width {
			if child := grown.Children[fmt.Sprint(bin)]; child != nil {
				f.appendNode(node.First+int32(bin), child, byName, share)
			}
		}
	}
	f.nodes[at] = node
}
