// Package classifier judges events by trained models: so far, whether a domain that is looked up was made by an algorithm.
//
// In flow blocks of events from the engine, out flow verdicts that carry the score and the features that weighed most. The models
// are trained by models/train with golearn and lie in models; judging walks flat arrays and does not allocate. Features are
// computed in one place for both (features.go).
package classifier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/publicsuffix"

	"tidegate/pipeline"
)

// Classifier is a pipeline.Detector over one model. It is safe for concurrent use.
type Classifier struct {
	model     *Model
	threshold float64
	shadow    bool

	evaluated prometheus.Counter
	flagged   *prometheus.CounterVec
	scores    prometheus.Histogram
}

// New makes a detector of a model's file.
func New(cfg Config, file []byte, reg prometheus.Registerer) (*Classifier, error) {
	m, err := Decode(file)
	if err != nil {
		return nil, err
	}
	c := &Classifier{
		model: m, threshold: cfg.Threshold, shadow: cfg.Shadow,
		evaluated: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_detectors_classifier_evaluated_total", Help: "Domains that were judged."}),
		flagged:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_detectors_classifier_flagged_total", Help: "Domains above the threshold."}, []string{"shadow"}),
		scores: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tidegate_detectors_classifier_score", Help: "Scores of the domains that were judged: a shift is drift.",
			Buckets: []float64{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95},
		}),
	}
	if c.threshold == 0 {
		c.threshold = m.Card.Threshold
	}
	reg.MustRegister(c.evaluated, c.flagged, c.scores)
	return c, nil
}

// Version is the model's.
func (c *Classifier) Version() string { return c.model.version }

// minLabel label that is judged: of fewer characters nothing can be said.
const minLabel = 6

// Evaluate looks at the names that were looked up.
func (c *Classifier) Evaluate(block []*pipeline.Event) {
	for _, e := range block {
		d := e.Dns
		if d == nil || d.QuestionName == "" || d.QuestionType != "A" && d.QuestionType != "AAAA" {
			continue
		}
		label, suffix := chosenLabel(d)
		if len(label) < minLabel || strings.HasPrefix(label, "xn--") {
			continue
		}
		score := c.model.Score(label, suffix)
		c.evaluated.Inc()
		c.scores.Observe(score)
		if score >= c.threshold {
			c.addVerdict(e, label, suffix, score)
		}
	}
}

// chosenLabel is the label that somebody, or something, chose, and the public suffix behind it.
func chosenLabel(d *pipeline.DNSMessage) (label, suffix string) {
	name := d.RegisteredDomain
	if name == "" {
		var err error
		if name, err = publicsuffix.EffectiveTLDPlusOne(d.QuestionName); err != nil {
			return "", ""
		}
	}
	return Split(name)
}

func (c *Classifier) addVerdict(e *pipeline.Event, label, suffix string, score float64) {
	if c.shadow {
		c.flagged.WithLabelValues("true").Inc()
		return
	}
	c.flagged.WithLabelValues("false").Inc()
	e.Verdicts = append(e.Verdicts, &pipeline.Verdict{
		Detector: "classifier", Rule: "generated-domain", Version: c.model.version, Severity: pipeline.Severity_MEDIUM, Score: uint32(score*100 + 0.5),
		Title:    "Look-up of a domain that looks generated",
		Evidence: fmt.Sprintf("%s.%s scores %.2f (threshold %.2f); most by %s", label, suffix, score, c.threshold, c.topFeatures(label, suffix)),
		Tags:     []string{"attack.command_and_control", "attack.t1568.002"},
	})
}

// topFeatures names the three features that moved the score most, with their values.
func (c *Classifier) topFeatures(label, suffix string) string {
	var v featureVector
	c.model.computeFeatures(&v, label, suffix)
	var why [nFeatures]int
	at := c.model.binFeatures(&v)
	c.model.forest.addContributions(&at, &why)
	order := make([]int, nFeatures)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return why[b] - why[a] })
	var parts []string
	for _, f := range order[:3] {
		if why[f] > 0 {
			parts = append(parts, fmt.Sprintf("%s %.3g", Features[f], v[f]))
		}
	}
	return strings.Join(parts, ", ")
}
