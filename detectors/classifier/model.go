package classifier

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A Card says what a model is and how good it was on what it had not seen.
type Card struct {
	Name         string             `json:"name"`
	Task         string             `json:"task"`
	TrainedOn    map[string]string  `json:"trained_on"` // data set: sha256 of its bytes
	Rows         map[string]int     `json:"rows"`
	Threshold    float64            `json:"threshold"`
	Metrics      map[string]float64 `json:"metrics"`
	HowMeasured  string             `json:"how_measured"`
	FeatureNames []string           `json:"features"`
}

// A Model is a trained classifier as it lies in a file: gzip of the sections of wire, all of fixed order.
type Model struct {
	Card      Card
	names     trigramModel // labels that people chose
	generated trigramModel
	suffixes  map[string]float32 // public suffix: how much more often it is under a generated label, as a logarithm
	bins      bins
	forest    forest
	version   string
}

// modelFile is the form of the file. JSON keeps it readable after gunzip; the file is small.
type modelFile struct {
	Format    int                `json:"format"`
	Card      Card               `json:"card"`
	Names     []byte             `json:"names"`
	Generated []byte             `json:"generated"`
	Suffixes  map[string]float32 `json:"suffixes"`
	Bins      bins               `json:"bins"`
	Roots     []int32            `json:"roots"`
	First     []int32            `json:"first"`
	Feature   []byte             `json:"feature"`
	Score     []byte             `json:"score"`
}

const formatVersion = 1

// Bounds of a file that is believed.
const (
	maxModel = 64 << 20
	maxNodes = 4 << 20
	maxTrees = 4096
	maxBins  = 64
)

// Version is the beginning of the sha256 of the file.
func (m *Model) Version() string { return m.version }

// Encode writes m; the same model is the same bytes.
func (m *Model) Encode() ([]byte, error) {
	w := modelFile{Format: formatVersion, Card: m.Card, Names: toBytes(m.names), Generated: toBytes(m.generated), Suffixes: m.suffixes, Bins: m.bins, Roots: m.forest.roots}
	for _, n := range m.forest.nodes {
		w.First, w.Feature, w.Score = append(w.First, n.first), append(w.Feature, n.feature), append(w.Score, n.score)
	}
	b, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("encode the model: %w", err)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Decode reads a model and checks all of it: whatever the file says, judging stays within its arrays and comes to an end.
func Decode(b []byte) (*Model, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxModel+1))
	if err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	if len(plain) > maxModel {
		return nil, fmt.Errorf("the model is larger than %d bytes", maxModel)
	}
	var w modelFile
	if err := json.Unmarshal(plain, &w); err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	if w.Format != formatVersion {
		return nil, fmt.Errorf("the model has format %d, this version reads %d", w.Format, formatVersion)
	}
	m := &Model{Card: w.Card, names: fromBytes(w.Names), generated: fromBytes(w.Generated), suffixes: w.Suffixes, bins: w.Bins}
	m.forest.roots = w.Roots
	if len(w.Feature) != len(w.First) || len(w.Score) != len(w.First) {
		return nil, errors.New("the model's nodes are not whole")
	}
	for i := range w.First {
		m.forest.nodes = append(m.forest.nodes, node{w.First[i], w.Feature[i], w.Score[i]})
	}
	if err := m.checkBounds(); err != nil {
		return nil, err
	}
	m.forest.packSteps()
	sum := sha256.Sum256(b)
	m.version = hex.EncodeToString(sum[:6])
	return m, nil
}

func (m *Model) checkBounds() error {
	if len(m.names) != trigrams || len(m.generated) != trigrams {
		return errors.New("the model's languages have another alphabet")
	}
	nodes := m.forest.nodes
	if len(nodes) == 0 || len(nodes) > maxNodes || len(m.forest.roots) == 0 || len(m.forest.roots) > maxTrees {
		return fmt.Errorf("the model has %d nodes in %d trees", len(nodes), len(m.forest.roots))
	}
	for f, edges := range m.bins {
		if len(edges) >= maxBins {
			return fmt.Errorf("feature %s has %d bins", Features[f], len(edges)+1)
		}
	}
	for _, r := range m.forest.roots {
		if r < 0 || int(r) >= len(nodes) {
			return fmt.Errorf("a tree begins at node %d of %d", r, len(nodes))
		}
	}
	for i, n := range nodes {
		if n.first == 0 {
			continue
		}
		// Children lie behind their node, so every way down ends.
		if int(n.feature) >= nFeatures || n.first <= int32(i) || int(n.first)+len(m.bins[n.feature]) >= len(nodes) {
			return fmt.Errorf("node %d of the model asks feature %d and goes on at %d of %d", i, n.feature, n.first, len(nodes))
		}
	}
	return nil
}

func toBytes(l trigramModel) []byte {
	b := make([]byte, len(l))
	for i, v := range l {
		b[i] = byte(v)
	}
	return b
}

func fromBytes(b []byte) trigramModel {
	l := make(trigramModel, len(b))
	for i, v := range b {
		l[i] = int8(v)
	}
	return l
}

// Score is how sure the model is that a label under a public suffix was generated, 0 to 1. It does not allocate.
func (m *Model) Score(label, suffix string) float64 {
	var v featureVector
	m.computeFeatures(&v, label, suffix)
	at := m.binFeatures(&v)
	return m.forest.score(&at)
}

func (m *Model) binFeatures(v *featureVector) (at binned) {
	for f := range v {
		at[f] = uint8(m.bins.binOf(f, v[f]))
	}
	return at
}
