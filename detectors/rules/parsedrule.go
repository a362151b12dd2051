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

// A parsedRule is a rule as it was read, before its expressions are compiled.
type parsedRule struct {
	Rule
	node       config.Node
	names      *names // lists and macros of its file
	when       config.Text
	exceptions []config.Text
	alert      config.Text
	datasets   datasetMask // those that its author names; all where none is named
}

// yamlRule is the form of a rule.
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
	Group       yamlTexts   `yaml:"group"`
	Alert       config.Text `yaml:"alert"`
	Tests       []yamlCase  `yaml:"tests"`
}

// UnknownKey words keys that other rule languages have.
func (*yamlRule) UnknownKey(key string) string { return foreignKeys[key] }

// yamlCase is the form of a test case.
type yamlCase struct {
	Name  config.Text `yaml:"name"`
	Fires *bool       `yaml:"fires"`
	Event config.Node `yaml:"event"`

	node config.Node
}

// DecodeNode keeps the node, whose line the case is known by.
func (c *yamlCase) DecodeNode(n config.Node) {
	type plain yamlCase
	n.Decode((*plain)(c))
	c.node = n
}

// A yamlTexts is a list of texts, or one text.
type yamlTexts []config.Text

// DecodeNode reads a list or a single text.
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
		var t config.Text
		if t.DecodeNode(item); t.IsSet() {
			*l = append(*l, t)
		}
	}
}

var idForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)

// parseRule reads one rule; nil where n is not a mapping.
func parseRule(node config.Node, f *ruleFile) *parsedRule {
	if !node.IsMapping() {
		node.Errorf("expected a rule (a mapping with id, title, severity and when), got %s", node.Kind())
		return nil
	}

	// Errors name the rule by its id, so that is read first.
	node = node.Named("")
	for _, entry := range node.Entries() {
		if id, ok := entry.Value.Scalar(); ok && entry.Key == "id" {
			node = node.Named(id + ": ")
		}
	}

	// Decode reports unknown keys and values of other types; what follows checks the values.
	var y yamlRule
	node.Decode(&y)
	rule := &parsedRule{node: node, names: &f.names, when: y.When, exceptions: y.Exceptions, alert: y.Alert}
	rule.File, rule.Line = f.doc.File, node.Position().Line
	for _, key := range []string{"id", "title", "severity", "when"} {
		if !hasKey(node, key) {
			f.doc.AddError(node.Position(), node.Key()+key, "is missing")
		}
	}

	// Every key is read, also after an error in another.
	rule.ID, rule.Title = requiredText(y.ID), requiredText(y.Title)
	rule.Description, rule.Author, rule.Version = requiredText(y.Description), requiredText(y.Author), requiredText(y.Version)
	rule.References, rule.Tags = texts(y.References), texts(y.Tags)
	if rule.ID != "" && !idForm.MatchString(rule.ID) {
		y.ID.Errorf("an id is made of a-z, 0-9, '.', '_' and '-', at most 100, and begins with a letter or digit")
	}
	rule.parseSeverity(y.Severity)
	rule.parseScore(y.Score)
	rule.parseDatasets(append(y.Dataset, y.Datasets...))
	rule.parseGroup(y.Group)
	rule.parseCases(y.Tests)
	rule.checkLimits()
	return rule
}

// checkLimits reports expressions and templates that are too long.
func (r *parsedRule) checkLimits() {
	withinLimit(r.when, maxExpression)
	withinLimit(r.alert, maxText)
	for i, exception := range r.exceptions {
		if i == maxTexts {
			exception.Errorf("more than %d exceptions", maxTexts)
			break
		}
		withinLimit(exception, maxExpression)
	}
}

// requiredText returns a text without blanks around it; one that is there must not be empty.
func requiredText(t config.Text) string {
	if !t.IsSet() || !withinLimit(t, maxText) {
		return ""
	}
	value := strings.TrimSpace(t.Value)
	if value == "" {
		t.Errorf("is empty")
	}
	return value
}

func texts(list yamlTexts) []string {
	var out []string
	for i, t := range list {
		if i == maxTexts {
			t.Errorf("more than %d entries", maxTexts)
			break
		}
		if withinLimit(t, maxText) {
			out = append(out, t.Value)
		}
	}
	return out
}

func (r *parsedRule) parseSeverity(t config.Text) {
	name := requiredText(t)
	if name == "" {
		return
	}
	if r.Severity = pipeline.SeverityByName(name); r.Severity == pipeline.Severity_SEVERITY_NONE {
		t.Errorf("unknown severity %q: info, low, medium, high or critical", name)
	}
}

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

func (r *parsedRule) parseDatasets(list yamlTexts) {
	if len(list) == 0 {
		r.datasets = allDatasets
	}
	for _, name := range list {
		dataset := pipeline.DatasetByName(name.Value)
		if dataset == pipeline.Dataset_DATASET_NONE {
			name.Errorf("unknown dataset %q%s", name.Value, config.DidYouMean(name.Value, pipeline.DatasetNames()))
		}
		r.datasets |= maskOf(dataset)
	}
}

func (r *parsedRule) parseGroup(list yamlTexts) {
	for i, name := range list {
		if i == maxGroup {
			name.Errorf("more than %d fields", maxGroup)
			return
		}
		field := pipeline.Lookup(name.Value)
		if field == nil {
			name.Errorf("%s", unknownName(name.Value, nil))
			continue
		}
		if _, err := fieldKind(field); err != nil {
			name.Errorf("%v", err)
			continue
		}
		r.Group = append(r.Group, field.Name)
		r.groupFields = append(r.groupFields, field)
	}
}

func (r *parsedRule) parseCases(list []yamlCase) {
	for i, form := range list {
		if i == maxTests {
			form.node.Errorf("more than %d test cases", maxTests)
			return
		}
		parsed := Case{Name: fmt.Sprintf("case %d", i+1), Line: form.node.Position().Line}
		if form.Name.IsSet() {
			parsed.Name = requiredText(form.Name)
		}
		// A key of another type has its error already; only one that is not there is missing.
		if form.Fires != nil {
			parsed.Fires = *form.Fires
		} else if !hasKey(form.node, "fires") {
			form.node.Named(form.node.Key() + ".fires").Errorf("is missing")
		}
		if form.Event.IsSet() {
			parsed.event = parseEvent(form.Event)
		} else {
			form.node.Named(form.node.Key() + ".event").Errorf("is missing")
		}
		r.Tests = append(r.Tests, parsed)
	}
}

func hasKey(n config.Node, key string) bool {
	return slices.ContainsFunc(n.Entries(), func(e config.Entry) bool { return e.Key == key && !e.Value.IsNull() })
}

// shortHash returns the first bytes of SHA-256 over parts, in hex.
func shortHash(parts ...string) string {
	hash := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(hash, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(hash.Sum(nil)[:6])
}
