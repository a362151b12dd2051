// Package classifier is a pipeline.Detector that scores domains with a trained model: how likely an algorithm
// of malware generated them (DGA).
//
// It receives blocks of events from the engine. It appends verdicts with the score and the features that
// raised the score most. A model is a file in models, which models/train writes. It is a random forest over
// features of a label (features.go), two language models among them; training and evaluation share that code.
// Evaluation walks flat arrays (forest.go) and does not allocate. docs/adr/0011 explains the choice of the
// model.
package classifier

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/publicsuffix"

	"tidegate/pipeline"
	"tidegate/pipeline/metrics"
)

// A Classifier evaluates DNS events with one model. It is safe for concurrent use.
type Classifier struct {
	model     *Model
	threshold float64
	shadow    bool // verdicts are counted, but not appended

	evaluated prometheus.Counter
	flagged   prometheus.Counter
	scores    prometheus.Histogram
}

var _ pipeline.Detector = (*Classifier)(nil)

// New decodes the file of a model and returns its detector; reg may be nil.
func New(cfg Config, file []byte, reg prometheus.Registerer) (*Classifier, error) {
	model, err := Decode(file)
	if err != nil {
		return nil, err
	}
	factory := metrics.With(reg)
	flagged := factory.CounterVec("tidegate_detectors_classifier_flagged_total",
		"Domains that the classifier scored at or above its threshold; shadow is true for those that got no verdict.",
		"shadow")
	classifier := &Classifier{
		model: model, threshold: cfg.Threshold, shadow: cfg.Shadow,
		evaluated: factory.Counter("tidegate_detectors_classifier_evaluated_total",
			"Domains that the classifier scored."),
		flagged: flagged.WithLabelValues(strconv.FormatBool(cfg.Shadow)),
		scores: factory.Histogram("tidegate_detectors_classifier_score",
			"Scores of domains by the classifier. A shift means that traffic is no longer like the training data.",
			[]float64{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}),
	}
	if classifier.threshold == 0 {
		classifier.threshold = model.Card.Threshold
	}
	return classifier, nil
}

// Version returns the version of the model.
func (c *Classifier) Version() string { return c.model.version }

// minLabel is the length of the shortest label that is scored. The classes do not differ in shorter ones.
const minLabel = 6

// Evaluate scores the name of each query for an address. It appends a verdict if the score reaches the
// threshold.
func (c *Classifier) Evaluate(block []*pipeline.Event) {
	for _, event := range block {
		label, suffix := scoredLabel(event)
		if label == "" {
			continue
		}

		// The metrics count every score, also in shadow mode.
		score := c.model.Score(label, suffix)
		c.evaluated.Inc()
		c.scores.Observe(score)
		if score < c.threshold {
			continue
		}
		c.flagged.Inc()
		if !c.shadow {
			c.addVerdict(event, label, suffix, score)
		}
	}
}

// ScoreEvent returns the score of the name that a DNS event asks for, 0 if it has none that is scored.
func (m *Model) ScoreEvent(event *pipeline.Event) float64 {
	label, suffix := scoredLabel(event)
	if label == "" {
		return 0
	}
	return m.Score(label, suffix)
}

// scoredLabel returns the label of an event that is scored, and the public suffix after it; "" if there is none.
func scoredLabel(event *pipeline.Event) (label, suffix string) {
	// Only queries for an address are scored.
	message := event.Dns
	if message == nil || message.QuestionName == "" ||
		message.QuestionType != "A" && message.QuestionType != "AAAA" {
		return "", ""
	}

	// Labels in punycode look random whoever chose them.
	label, suffix = chosenLabel(message)
	if len(label) < minLabel || strings.HasPrefix(label, "xn--") {
		return "", ""
	}
	return label, suffix
}

// chosenLabel returns the label that was registered, by a person or an algorithm, and the public suffix after
// it. Both are empty if nobody registered the name: it is a public suffix, or below a private one.
func chosenLabel(message *pipeline.DNSMessage) (label, suffix string) {
	name := message.RegisteredDomain
	if name == "" {
		var err error
		if name, err = publicsuffix.EffectiveTLDPlusOne(message.QuestionName); err != nil {
			return "", ""
		}
	}
	if label, suffix = Split(name); IsPrivateSuffix(suffix) {
		return "", ""
	}
	return label, suffix
}

// addVerdict appends the verdict of a score that reached the threshold.
func (c *Classifier) addVerdict(event *pipeline.Event, label, suffix string, score float64) {
	event.Verdicts = append(event.Verdicts, &pipeline.Verdict{
		Detector: "classifier", Rule: "generated-domain", Version: c.model.version,
		Severity: pipeline.Severity_MEDIUM, Score: uint32(score*100 + 0.5),
		Title: "DNS query for a domain that looks generated",
		Evidence: fmt.Sprintf("%s.%s scores %.2f (threshold %.2f), mostly by %s",
			label, suffix, score, c.threshold, c.topFeatures(label, suffix)),
		Tags: []string{"attack.command_and_control", "attack.t1568.002"},
	})
}

// topFeatures returns the names and values of the three features that raised the score most.
func (c *Classifier) topFeatures(label, suffix string) string {
	const most = 3

	// Evaluate has not kept the features: few scores reach the threshold, so they are computed again here.
	var vector FeatureVector
	c.model.languages.ComputeFeatures(&vector, label, suffix)
	bins := c.model.binFeatures(&vector)
	var contributions [NumFeatures]int
	c.model.forest.addContributions(&bins, &contributions)

	// The features by contribution, largest first. Features that lowered the score are not named.
	order := make([]int, NumFeatures)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return contributions[b] - contributions[a] })
	var parts []string
	for _, feature := range order[:most] {
		if contributions[feature] > 0 {
			parts = append(parts, fmt.Sprintf("%s %.3g", Features[feature], vector[feature]))
		}
	}
	return strings.Join(parts, ", ")
}
