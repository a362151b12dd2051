package classifier

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand"
	"strings"
	"testing"

	"tidegate/models"
)

// shippedModel returns the shipped model.
func shippedModel(t *testing.T) *Model {
	t.Helper()
	model, err := Decode(models.GeneratedDomains)
	if err != nil {
		t.Fatal(err)
	}
	return model
}

// featuresByDefinition computes the features of a label one by one, by what their names say.
func featuresByDefinition(languages *Languages, label, suffix string) (all [NumFeatures]float64) {
	label = label[:min(len(label), 63)]
	counts := map[byte]float64{}
	kinds := "" // of each byte: v is a vowel, c a consonant, d a digit, o another byte
	for i := range len(label) {
		char, kind := label[i], "o"
		if char >= 'A' && char <= 'Z' {
			char += 'a' - 'A'
		}
		switch {
		case strings.IndexByte("aeiouy", char) >= 0:
			kind = "v"
		case char >= 'a' && char <= 'z':
			kind = "c"
		case char >= '0' && char <= '9':
			kind = "d"
		case char != '-':
			char = 0xff // all other bytes are one symbol
		}
		counts[char]++
		kinds += kind
	}
	size := float64(len(label))
	share := 1 / max(size, 1)
	entropy := 0.0
	for _, count := range counts {
		entropy -= count / size * math.Log2(count/size)
	}
	run := 0
	for _, consonants := range strings.FieldsFunc(kinds, func(r rune) bool { return r != 'c' }) {
		run = max(run, len(consonants))
	}
	changes := 0
	classes := strings.NewReplacer("v", "l", "c", "l").Replace(kinds)
	for i := 1; i < len(classes); i++ {
		if classes[i] != classes[i-1] {
			changes++
		}
	}
	copy(all[:], []float64{
		size, entropy, float64(strings.Count(kinds, "d")) * share, float64(strings.Count(kinds, "v")) * share,
		float64(run), float64(len(counts)) * share, float64(changes),
	})

	var names, generated []int
	EachTrigram(label, func(a, b, c int) {
		names = append(names, int(languages.Names[TrigramIndex(a, b, c)]))
		generated = append(generated, int(languages.Generated[TrigramIndex(a, b, c)]))
	})
	sum, sumGenerated, unseen, least := 0, 0, 0, 0
	for i, value := range names {
		sum, sumGenerated = sum+value, sumGenerated+generated[i]
		if value <= -100 {
			unseen++
		}
		if i >= 3 {
			least = min(least, names[i]+names[i-1]+names[i-2]+names[i-3])
		}
	}
	count := float64(len(names))
	copy(all[7:], []float64{
		float64(sum) / count, float64(least), float64(sumGenerated-sum) / count, float64(unseen) / count,
		float64(languages.Suffixes[suffix]),
	})
	return all
}

// labels returns labels of all shapes: of words, digits, hyphens, other bytes, capitals, and of every length up to
// one that no DNS name has.
func labels() []string {
	rng := rand.New(rand.NewSource(17))
	all := []string{"", "a", "-", "7", "wikipedia", "stackoverflow", "xn--bcher-kva", "RHYTHMS", "b\xc3\xbccher", "_dmarc"}
	for _, alphabet := range []string{
		"abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz0123456789-", "0123456789abcdef", "aeiouy",
		"bcdfg-_\xff", "AbCd9",
	} {
		for length := range 70 {
			label := make([]byte, length)
			for i := range label {
				label[i] = alphabet[rng.Intn(len(alphabet))]
			}
			all = append(all, string(label))
		}
	}
	return all
}

func TestFeaturesAreThoseOfTheirDefinitions(t *testing.T) {
	languages := shippedModel(t).languages
	suffixes := []string{"com", "co.uk", "info", "none-such"}
	for i, label := range labels() {
		suffix := suffixes[i%len(suffixes)]
		var vector FeatureVector
		languages.ComputeFeatures(&vector, label, suffix)
		for feature, want := range featuresByDefinition(&languages, label, suffix) {
			if got := float64(vector[feature]); math.Abs(got-want) > 1e-4 {
				t.Errorf("%q under %s: %s is %v, want %v", label, suffix, Features[feature], got, want)
			}
		}
	}
}

// TestScoreIsThatOfTheFeatures: the score is that of the bins of the features by definition. A value that is
// computed in another order may fall on the other side of an edge, which is rare.
func TestScoreIsThatOfTheFeatures(t *testing.T) {
	model := shippedModel(t)
	differ, all := 0, labels()
	for _, label := range all {
		var vector FeatureVector
		for feature, value := range featuresByDefinition(&model.languages, label, "com") {
			vector[feature] = float32(value)
		}
		bins := model.binFeatures(&vector)
		if model.Score(label, "com") != model.forest.score(&bins) {
			differ++
		}
	}
	if differ > len(all)/50 {
		t.Errorf("%d of %d scores are not those of the features", differ, len(all))
	}
}

// TestModelsWithIndexesOutOfBoundsAreRejected changes one value at a time of the file of the shipped model, which
// is well-formed before and behind the change.
func TestModelsWithIndexesOutOfBoundsAreRejected(t *testing.T) {
	reader, err := gzip.NewReader(bytes.NewReader(models.GeneratedDomains))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string, change func(file *modelFile)) {
		t.Helper()
		var content modelFile
		if err := json.Unmarshal(plain, &content); err != nil {
			t.Fatal(err)
		}
		change(&content)
		var file bytes.Buffer
		writer, _ := gzip.NewWriterLevel(&file, gzip.NoCompression)
		if err := json.NewEncoder(writer).Encode(content); err != nil {
			t.Fatal(err)
		}
		_ = writer.Close()
		_, err = Decode(file.Bytes())
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	inner := func(file *modelFile) int { // a node that has children, not the first one
		for i, first := range file.First {
			if i > 0 && first != 0 {
				return i
			}
		}
		t.Fatal("no inner node")
		return 0
	}
	check("", func(*modelFile) {})
	check("format", func(file *modelFile) { file.Format++ })
	check("symbols", func(file *modelFile) { file.Names = file.Names[1:] })
	check("symbols", func(file *modelFile) { file.Generated = nil })
	check("differ in length", func(file *modelFile) { file.Feature = file.Feature[1:] })
	check("differ in length", func(file *modelFile) { file.Score = append(file.Score, 0) })
	check("in 0 trees", func(file *modelFile) { file.Roots = nil })
	check("in 4097 trees", func(file *modelFile) { file.Roots = make([]int32, maxTrees+1) })
	check("0 nodes", func(file *modelFile) { file.First, file.Feature, file.Score = nil, nil, nil })
	check("bins", func(file *modelFile) { file.Bins[3] = make([]float32, maxBins) })
	check("begins at node -1", func(file *modelFile) { file.Roots[0] = -1 })
	check("begins at node", func(file *modelFile) { file.Roots[len(file.Roots)-1] = int32(len(file.First)) })
	check("tests feature", func(file *modelFile) { file.Feature[inner(file)] = byte(NumFeatures) })
	check("continues at", func(file *modelFile) { i := inner(file); file.First[i] = int32(i) })
	check("continues at", func(file *modelFile) { file.First[inner(file)] = -1 })
	check("continues at", func(file *modelFile) {
		i := inner(file)
		file.First[i] = int32(len(file.First) - len(file.Bins[file.Feature[i]]))
	})
}
