package classifier

import (
	"math/rand"
	"testing"

	"tidegate/models"
)

// TestStepsLeadWhereNodesDo walks the shipped forest node by node, one tree after the other, and compares;
// also with numbers of trees that are no multiple of four.
func TestStepsLeadWhereNodesDo(t *testing.T) {
	m, err := Decode(models.GeneratedDomains)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(3))
	all := m.forest.roots
	for i := range 2000 {
		f := m.forest
		f.roots = all[i%7 : len(all)-i%3]
		var at binnedFeatures
		for k := range NumFeatures {
			at[k] = uint8(rng.Intn(len(m.bins[k]) + 1))
		}
		sum := 0
		for _, r := range f.roots {
			n := f.nodes[r]
			for n.First != 0 {
				n = f.nodes[n.First+int32(at[n.Feature])]
			}
			sum += int(n.Score)
		}
		if got, want := f.score(&at), float64(sum)/float64(255*len(f.roots)); got != want {
			t.Fatalf("%v: got %v, want %v", at, got, want)
		}
	}
}

// TestStepHasRoomForEveryNode: what a step packs is bounded by constants that others may raise.
func TestStepHasRoomForEveryNode(t *testing.T) {
	if NumFeatures > 1<<featureBits || uint64(maxNodes)<<featureBits > uint64(innerStep) {
		t.Errorf("%d features and %d nodes do not fit", NumFeatures, maxNodes)
	}
}
