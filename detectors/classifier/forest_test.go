package classifier

import (
	"math/rand"
	"testing"

	"tidegate/models"
)

// TestScoreIsThatOfTheNodes: the packed steps of the shipped forest yield the same score as a walk from node
// to node, tree by tree. The number of trees is not always a multiple of four.
func TestScoreIsThatOfTheNodes(t *testing.T) {
	model, err := Decode(models.GeneratedDomains)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(3))
	all := model.forest.roots
	for i := range 2000 {
		forest := model.forest
		forest.roots = all[i%7 : len(all)-i%3]
		var at binnedFeatures
		for feature := range NumFeatures {
			at[feature] = uint8(rng.Intn(len(model.bins[feature]) + 1))
		}
		sum := 0
		for _, root := range forest.roots {
			node := forest.nodes[root]
			for node.First != 0 {
				node = forest.nodes[node.First+int32(at[node.Feature])]
			}
			sum += int(node.Score)
		}
		if got, want := forest.score(&at), float64(sum)/float64(255*len(forest.roots)); got != want {
			t.Fatalf("%v: got %v, want %v", at, got, want)
		}
	}
}

// TestStepHasRoomForEveryNode: a step packs the index of a feature and of a node. The constants that limit
// them may be raised.
func TestStepHasRoomForEveryNode(t *testing.T) {
	if NumFeatures > 1<<featureBits || uint64(maxNodes)<<featureBits > uint64(innerStep) {
		t.Errorf("%d features and %d nodes do not fit", NumFeatures, maxNodes)
	}
}
