package rules

import (
	"regexp"
	"slices"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A ruleFile is a rule file as it was read, before its expressions are compiled.
type ruleFile struct {
	doc    *config.Document
	shared bool // its lists and macros are known in all files
	names  names
	macros []namedText // in the order of the file, to be compiled one by one
	rules  []*parsedRule
}

type namedText struct {
	name string
	text config.Text
}

// yamlFile is the form of a file that holds more than rules.
type yamlFile struct {
	Shared bool          `yaml:"shared"`
	Lists  config.Node   `yaml:"lists"`
	Macros config.Node   `yaml:"macros"`
	Rules  []config.Node `yaml:"rules"`
}

var fileKeys = []string{"shared", "lists", "macros", "rules"}

// nameForm is the form of the names of lists and macros.
var nameForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,63}$`)

// parseFile reads a file that is a list of rules, one rule, or a mapping with rules, lists and macros. What
// is wrong is in the file's doc.
func parseFile(src Source) *ruleFile {
	file := &ruleFile{doc: config.Parse(src.Name, src.Data)}
	file.names = names{lists: map[string]*list{}, macros: map[string]*macro{}}
	if aliases := file.doc.Aliases(); len(aliases) > 0 {
		file.doc.AddError(aliases[0], "", "aliases are not supported: use lists and macros")
		return file
	}

	// Which of the three forms it is.
	root, ok := file.doc.Root()
	switch {
	case !ok:
	case root.IsList():
		file.parseRules(root.Items())
	case !root.IsMapping():
		root.Errorf("expected a list of rules or a mapping, got %s", root.Kind())
	case slices.ContainsFunc(root.Entries(), func(e config.Entry) bool { return slices.Contains(fileKeys, e.Key) }):
		var sections yamlFile
		root.Decode(&sections)
		file.shared = sections.Shared
		file.parseLists(sections.Lists)
		file.parseMacros(sections.Macros)
		file.parseRules(sections.Rules)
	default:
		file.parseRules([]config.Node{root})
	}
	return file
}

func (f *ruleFile) parseRules(items []config.Node) {
	if len(items) > maxRules {
		items[maxRules].Errorf("more than %d rules", maxRules)
		items = items[:maxRules]
	}
	for _, n := range items {
		if rule := parseRule(n, f); rule != nil {
			f.rules = append(f.rules, rule)
		}
	}
}

// entriesOf returns the entries of a section that must be a mapping, if the file has it.
func entriesOf(node config.Node) []config.Entry {
	if node.IsSet() && !node.IsMapping() {
		node.Errorf("expected a mapping (key: value), got %s", node.Kind())
	}
	return node.Entries()
}

// nameIsFree reports whether a list or macro can have the name of e, and adds an error if it cannot.
func (f *ruleFile) nameIsFree(entry config.Entry) bool {
	problem := ""
	switch {
	case !nameForm.MatchString(entry.Key):
		problem = "a name is made of a-z, 0-9 and _"
	case pipeline.Lookup(entry.Key) != nil, slices.Contains(functions, entry.Key):
		problem = "is the name of a field or function already"
	case f.names.lists[entry.Key] != nil, f.names.macros[entry.Key] != nil:
		problem = "is defined already"
	default:
		return true
	}
	f.doc.AddError(entry.Position, entry.Value.Key(), "%s", problem)
	return false
}

func (f *ruleFile) parseLists(n config.Node) {
	for _, entry := range entriesOf(n) {
		if !f.nameIsFree(entry) {
			continue
		}
		items := entry.Value.Items()
		if !entry.Value.IsList() {
			items = []config.Node{entry.Value} // one value is a list of one
		}
		if len(items) > maxList {
			entry.Value.Errorf("list of %d entries, the limit is %d", len(items), maxList)
			continue
		}
		if parsed := parseList(items); len(parsed.texts) > 0 != (len(parsed.numbers) > 0) {
			f.names.lists[entry.Key] = parsed
		} else {
			entry.Value.Errorf("a list holds texts or numbers, at least one and not both")
		}
	}
}

func parseList(items []config.Node) *list {
	parsed := &list{}
	for _, item := range items {
		if number, ok := item.Int(); ok {
			parsed.numbers = append(parsed.numbers, number)
			continue
		}
		var t config.Text
		if t.DecodeNode(item); t.IsSet() && withinLimit(t, maxText) {
			parsed.texts = append(parsed.texts, t.Value)
		}
	}
	return parsed
}

func (f *ruleFile) parseMacros(n config.Node) {
	for _, entry := range entriesOf(n) {
		if !f.nameIsFree(entry) {
			continue
		}
		var text config.Text
		if text.DecodeNode(entry.Value); text.IsSet() && withinLimit(text, maxExpression) {
			f.names.macros[entry.Key] = &macro{text: text.Value}
			f.macros = append(f.macros, namedText{entry.Key, text})
		}
	}
}

// withinLimit reports whether t has at most limit bytes, and adds an error if it is longer.
func withinLimit(t config.Text, limit int) bool {
	if len(t.Value) > limit {
		t.Errorf("text of %d bytes, the limit is %d", len(t.Value), limit)
		return false
	}
	return true
}
