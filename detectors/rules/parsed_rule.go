package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A parsedRule is a rule of a file whose expressions are not compiled yet. Its texts keep their positions in
// the file, for errors.
type parsedRule struct {
	Rule
	doc        *config.Document // of the file
	node       config.Node
	names      *names // lists and macros that the rule can use
	when       config.Text
	exceptions []config.Text
	alert      config.Text
	lets       []*letValue
	datasets   datasetMask // the datasets that the file lists; all if it lists none

	correlation *parsedCorrelation // nil: a rule over one event
}

// yamlRule is the YAML form of a rule.
type yamlRule struct {
	ID          config.Text `yaml:"id"`
	Title       config.Text `yaml:"title"`
	Description config.Text `yaml:"description"`
	Author      config.Text `yaml:"author"`
	Version     config.Text `yaml:"version"`
	References  yamlTexts   `yaml:"references"`
	Severity    config.Text `yaml:"severity"`
	Score       config.Node `yaml:"score"`
	Tags        yamlTexts   `yaml:"tags"`
	Dataset     yamlTexts   `yaml:"dataset"`
	Datasets    yamlTexts   `yaml:"datasets"`
	When        config.Text `yaml:"when"`
	Exceptions  yamlTexts   `yaml:"exceptions"`
	Let         config.Node `yaml:"let"`
	Group       yamlTexts   `yaml:"group"`
	Alert       config.Text `yaml:"alert"`
	Suppress    config.Node `yaml:"suppress"`
	Escalate    config.Node `yaml:"escalate"`
	Tests       []yamlCase  `yaml:"tests"`
	Accept      config.Node `yaml:"accept"`

	Correlation yamlCorrelation `yaml:",inline"`
}

// UnknownKey returns a hint for a key of another rule language, or "".
func (*yamlRule) UnknownKey(key string) string { return foreignKeys[key] }

// A yamlTexts is a list of texts, or one text.
type yamlTexts []config.Text

// DecodeNode decodes a list of texts, or one text as a list of one.
func (l *yamlTexts) DecodeNode(node config.Node) {
	items := node.Items()
	if !node.IsList() {
		if _, ok := node.Scalar(); !ok {
			node.Errorf("expected a list, got %s", node.Kind())
			return
		}
		items = []config.Node{node}
	}
	for _, item := range items {
		var text config.Text
		if text.DecodeNode(item); text.IsSet() {
			*l = append(*l, text)
		}
	}
}

// idPattern matches the ids of rules.
var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// parseRule parses one rule of file. It returns nil if node is not a mapping, and a rule with whatever is
// valid otherwise. Errors are added to the file's doc.
func parseRule(node config.Node, file *ruleFile) *parsedRule {
	if !node.IsMapping() {
		node.Errorf("expected a rule (a mapping with id, title, severity and when), got %s", node.Kind())
		return nil
	}

	if hasKey(node, "detection") && !hasKey(node, "when") {
		node.Errorf("is a Sigma rule: load its folder with rules.sigma or --sigma, or convert it (tidegate rules convert sigma)")
		return nil
	}

	// 1. Errors name the rule by its id, so the id is read first.
	node = node.Named("")
	for _, entry := range node.Entries() {
		if id, ok := entry.Value.Scalar(); ok && entry.Key == "id" {
			node = node.Named(id + ": ")
		}
	}

	// 2. Decode reports unknown keys and values of wrong types.
	var form yamlRule
	node.Decode(&form)
	rule := &parsedRule{
		doc: file.doc, node: node, names: &file.names, when: form.When, exceptions: form.Exceptions, alert: form.Alert,
	}
	rule.Kind = "event"
	rule.File, rule.Line = file.doc.File, node.Position().Line
	for _, key := range []string{"id", "title", "severity", "when"} {
		if !hasKey(node, key) && (key != "when" || len(form.Correlation.kinds()) == 0) {
			file.doc.AddError(node.Position(), node.Key()+key, "is missing")
		}
	}

	// 3. Check the values. An error in one key does not stop the check of the others, so that all are
	// reported.
	rule.ID, rule.Title = nonEmptyText(form.ID), nonEmptyText(form.Title)
	rule.Description, rule.Author = nonEmptyText(form.Description), nonEmptyText(form.Author)
	rule.Version = nonEmptyText(form.Version)
	rule.References, rule.Tags = texts(form.References), texts(form.Tags)
	if rule.ID != "" && !idPattern.MatchString(rule.ID) {
		form.ID.Errorf("an id is made of a-z, 0-9, '.', '_' and '-', at most 100, and begins with a letter or digit")
	}
	rule.parseSeverity(form.Severity)
	rule.parseScore(form.Score)
	rule.parseDatasets(append(form.Dataset, form.Datasets...))
	rule.parseLet(form.Let)
	rule.Group, rule.groupValues = rule.parseValues(form.Group)
	rule.parseCorrelation(form.When, &form.Correlation)
	rule.parsePolicy(&form)
	rule.parseCases(form.Tests)
	rule.parseAccept(form.Accept)
	rule.checkLimits()
	return rule
}

// checkLimits reports expressions and templates that are too long.
func (r *parsedRule) checkLimits() {
	withinLimit(r.when, maxExpression)
	checkComment(r.when)
	withinLimit(r.alert, maxText)
	for i, exception := range r.exceptions {
		if i == maxTexts {
			exception.Errorf("more than %d exceptions", maxTexts)
		}
		withinLimit(exception, maxExpression)
		checkComment(exception)
	}
}

// nonEmptyText returns text without blanks around it, or "" if it is not set. It adds an error if text is set
// and empty or too long.
func nonEmptyText(text config.Text) string {
	if !text.IsSet() || !withinLimit(text, maxText) {
		return ""
	}
	value := strings.TrimSpace(text.Value)
	if value == "" {
		text.Errorf("is empty")
	}
	return value
}

// texts returns the texts of list that are within the limit. It adds an error if there are too many.
func texts(list yamlTexts) []string {
	var out []string
	for i, text := range list {
		if i == maxTexts {
			text.Errorf("more than %d entries", maxTexts)
		}
		if withinLimit(text, maxText) {
			out = append(out, text.Value)
		}
	}
	return out
}

// parseSeverity sets Severity.
func (r *parsedRule) parseSeverity(text config.Text) {
	name := nonEmptyText(text)
	if name == "" {
		return
	}
	if r.Severity = pipeline.SeverityByName(name); r.Severity == pipeline.Severity_SEVERITY_NONE {
		text.Errorf("unknown severity %q: info, low, medium, high or critical", name)
	}
}

// parseScore sets Score; a rule without one has 100.
func (r *parsedRule) parseScore(node config.Node) {
	r.Score = 100
	if !node.IsSet() {
		return
	}
	score, ok := node.Int()
	switch {
	case !node.IsInteger():
		node.Errorf("expected a whole number, got %s", node.Kind())
	case !ok || score < 1 || score > 100:
		node.Errorf("must be from 1 to 100")
	default:
		r.Score = uint32(score)
	}
}

// parseDatasets sets datasets. It is the union of the listed ones, or all datasets if the list is empty.
func (r *parsedRule) parseDatasets(list yamlTexts) {
	if len(list) == 0 {
		r.datasets = allDatasets
	}
	for _, name := range list {
		dataset := pipeline.DatasetByName(name.Value)
		if dataset == pipeline.Dataset_DATASET_NONE {
			hint := config.DidYouMean(name.Value, pipeline.DatasetNames())
			name.Errorf("unknown dataset %q%s", name.Value, hint)
		}
		r.datasets |= maskOf(dataset)
	}
}

// hasKey reports whether a mapping has key with a value that is not null.
func hasKey(node config.Node, key string) bool {
	return slices.ContainsFunc(node.Entries(), func(entry config.Entry) bool {
		return entry.Key == key && !entry.Value.IsNull()
	})
}

// shortHash returns the first six bytes of SHA-256 over parts, in hex. The length before each part keeps
// different lists of parts apart.
func shortHash(parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(hash.Sum(nil)[:6])
}
