package main

import (
	"bytes"
	"math/rand"
	"strings"
	"testing"

	"tidegate/detectors/classifier"
)

// syntheticSamples returns pairs of samples: a label of syllables, and a label of random characters.
func syntheticSamples(pairs int) []sample {
	rng := rand.New(rand.NewSource(7))
	syllables := strings.Fields("ba na to mi ler shop ing da ta blue green tech soft work net cloud house press media ra")
	var out []sample
	for range pairs {
		name := ""
		for len(name) < 8 {
			name += syllables[rng.Intn(len(syllables))]
		}
		random := make([]byte, 12)
		for i := range random {
			random[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.Intn(36)]
		}
		out = append(out,
			sample{label: name, suffix: "com"}, sample{label: string(random), suffix: "net", family: "random"})
	}
	return out
}

// TestTrainingIsReproducible: three trainings with the same samples yield the same bytes. The bagging of
// golearn itself is not reproducible.
func TestTrainingIsReproducible(t *testing.T) {
	opt := defaultOptions()
	opt.trees, opt.rows = 6, 800
	var files [][]byte
	for range 3 {
		model, err := train(syntheticSamples(600), opt, classifier.Card{})
		if err != nil {
			t.Fatal(err)
		}
		file, err := model.Encode()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	if !bytes.Equal(files[0], files[1]) || !bytes.Equal(files[0], files[2]) {
		t.Error("three trainings made different models")
	}
	model, err := classifier.Decode(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if good, bad := model.Score("datashopler", "com"), model.Score("x8kq2zv7wj1p", "net"); good > 0.3 || bad < 0.7 {
		t.Errorf("a name of syllables scores %v, random letters %v", good, bad)
	}
}
