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

// A Card describes a model: its training data, and its results on data that it was not trained on.
type Card struct {
	Name         string             `json:"name"`
	Task         string             `json:"task"`
	Scope        string             `json:"scope"`      // which names are scored
	TrainedOn    map[string]string  `json:"trained_on"` // by data set: SHA-256 of its bytes
	Rows         map[string]int     `json:"rows"`
	Threshold    float64            `json:"threshold"`
	Metrics      map[string]float64 `json:"metrics"`
	HowMeasured  string             `json:"how_measured"`
	FeatureNames []string           `json:"features"`
}

// A Model is a trained classifier. It is immutable and safe for concurrent use.
type Model struct {
	Card Card

	languages Languages
	bins      Bins
	forest    forest
	version   string // hash of the file that the model was decoded from
}

// NewModel returns a model of trained parts. It returns an error if an index of them is out of bounds.
func NewModel(card Card, languages Languages, bins Bins, roots []int32, nodes []Node) (*Model, error) {
	model := &Model{Card: card, languages: languages, bins: bins, forest: forest{roots: roots, nodes: nodes}}
	if err := model.checkBounds(); err != nil {
		return nil, err
	}
	model.forest.packSteps()
	return model, nil
}

// modelFile is the content of a model's file, which is JSON in gzip. The last three lists are the columns of
// the nodes.
type modelFile struct {
	Format    int                `json:"format"`
	Card      Card               `json:"card"`
	Names     []byte             `json:"names"`
	Generated []byte             `json:"generated"`
	Suffixes  map[string]float32 `json:"suffixes"`
	Bins      Bins               `json:"bins"`
	Roots     []int32            `json:"roots"`
	First     []int32            `json:"first"`
	Feature   []byte             `json:"feature"`
	Score     []byte             `json:"score"`
}

const formatVersion = 1

// The bounds of a file that Decode accepts.
const (
	maxModel = 64 << 20 // bytes, uncompressed
	maxNodes = 4 << 20
	maxTrees = 4096
	maxBins  = 64
)

// Version returns the first bytes of the SHA-256 of the model's file, in hex.
func (m *Model) Version() string { return m.version }

// Encode returns the file of m. The same model has the same file, byte for byte.
func (m *Model) Encode() ([]byte, error) {
	file := modelFile{
		Format: formatVersion, Card: m.Card,
		Names: toBytes(m.languages.Names), Generated: toBytes(m.languages.Generated),
		Suffixes: m.languages.Suffixes, Bins: m.bins, Roots: m.forest.roots,
	}
	for _, node := range m.forest.nodes {
		file.First = append(file.First, node.First)
		file.Feature = append(file.Feature, node.Feature)
		file.Score = append(file.Score, node.Score)
	}

	// Go writes the keys of maps in sorted order, and gzip has no time in its header: the bytes are reproducible.
	plain, err := json.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("encode the model: %w", err)
	}
	var out bytes.Buffer
	writer, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := writer.Write(plain); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Decode parses and checks the file of a model. Evaluation of a model that Decode returns never leaves its
// arrays and always ends, whatever the file contained.
func Decode(file []byte) (*Model, error) {
	// 1. Decompress, but not more than the limit.
	reader, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(reader, maxModel+1))
	if err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	if len(plain) > maxModel {
		return nil, fmt.Errorf("the model is larger than %d bytes", maxModel)
	}

	// 2. Parse, and check the format.
	var content modelFile
	if err := json.Unmarshal(plain, &content); err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	if content.Format != formatVersion {
		return nil, fmt.Errorf("the model has format %d, this version reads %d", content.Format, formatVersion)
	}

	// 3. Assemble the nodes from their columns. NewModel checks the bounds of all values.
	if len(content.Feature) != len(content.First) || len(content.Score) != len(content.First) {
		return nil, errors.New("the model's lists of nodes differ in length")
	}
	nodes := make([]Node, len(content.First))
	for i := range nodes {
		nodes[i] = Node{content.First[i], content.Feature[i], content.Score[i]}
	}
	languages := Languages{
		Names: fromBytes(content.Names), Generated: fromBytes(content.Generated), Suffixes: content.Suffixes,
	}
	model, err := NewModel(content.Card, languages, content.Bins, content.Roots, nodes)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(file)
	model.version = hex.EncodeToString(sum[:6])
	return model, nil
}

// checkBounds returns an error unless every index of the model is within its array and every walk down a tree
// ends.
func (m *Model) checkBounds() error {
	if len(m.languages.Names) != NumTrigrams || len(m.languages.Generated) != NumTrigrams {
		return errors.New("the model's languages have another set of symbols")
	}

	// 1. The lengths of the lists. A step has room for an index below maxNodes.
	nodes := m.forest.nodes
	if len(nodes) == 0 || len(nodes) > maxNodes || len(m.forest.roots) == 0 || len(m.forest.roots) > maxTrees {
		return fmt.Errorf("the model has %d nodes in %d trees", len(nodes), len(m.forest.roots))
	}
	for feature, edges := range m.bins {
		if len(edges) >= maxBins {
			return fmt.Errorf("feature %s has %d bins", Features[feature], len(edges)+1)
		}
	}

	// 2. The indexes.
	for _, root := range m.forest.roots {
		if root < 0 || int(root) >= len(nodes) {
			return fmt.Errorf("a tree begins at node %d of %d", root, len(nodes))
		}
	}
	for i, node := range nodes {
		if node.First == 0 {
			continue
		}
		// Children have greater indexes than their node, so a walk cannot go in a circle.
		if int(node.Feature) >= NumFeatures || node.First <= int32(i) ||
			int(node.First)+len(m.bins[node.Feature]) >= len(nodes) {
			return fmt.Errorf("node %d of the model tests feature %d and continues at %d of %d",
				i, node.Feature, node.First, len(nodes))
		}
	}
	return nil
}

// toBytes returns trigrams as bytes, which JSON writes in base64.
func toBytes(trigrams Trigrams) []byte {
	data := make([]byte, len(trigrams))
	for i, value := range trigrams {
		data[i] = byte(value)
	}
	return data
}

// fromBytes is the inverse of toBytes.
func fromBytes(data []byte) Trigrams {
	trigrams := make(Trigrams, len(data))
	for i, value := range data {
		trigrams[i] = int8(value)
	}
	return trigrams
}

// Score returns the probability that a label under a public suffix was generated, from 0 to 1. It does not
// allocate.
func (m *Model) Score(label, suffix string) float64 {
	var vector FeatureVector
	m.languages.ComputeFeatures(&vector, label, suffix)
	bins := m.binFeatures(&vector)
	return m.forest.score(&bins)
}

// binFeatures returns the bin of each feature.
func (m *Model) binFeatures(vector *FeatureVector) (bins binnedFeatures) {
	for feature, value := range vector {
		bins[feature] = uint8(m.bins.BinOf(feature, value))
	}
	return bins
}
