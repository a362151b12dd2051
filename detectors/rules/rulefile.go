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
	f := &ruleFile{doc: config.Parse(src.Name, src.Data)}
	f.names = names{lists: map[string]*list{}, macros: map[string]*macro{}}
	if aliases := f.doc.Aliases(); len(aliases) > 0 {
		f.doc.AddError(aliases[0], "", "aliases are not supported: use lists and macros")
		return f
	}

	// Which of the three forms it is.
	root, ok := f.doc.Root()
	switch {
	case !ok:
	case root.IsList():
		f.parseRules(root.Items())
	case !root.IsMapping():
		root.Errorf("expected a list of rules or a mapping, got %s", root.Kind())
	case slices.ContainsFunc(root.Entries(), func(e config.Entry) bool { return slices.Contains(fileKeys, e.Key) }):
		var sections yamlFile
		root.Decode(&sections)
		f.shared = sections.Shared
		f.parseLists(sections.Lists)
		f.parseMacros(sections.Macros)
		f.parseRules(sections.Rules)
	default:
		f.parseRules([]config.Node{root})
	}
	return f
}

func (f *ruleFile) parseRules(items []config.Node) {
	if len(items) > maxRules {
		items[maxRules].Errorf("more than %d rules", maxRules)
		items = items[:maxRules]
	}
	for _, n := range items {
		if r := parseRule(n, f); r != nil {
			f.rules = append(f.rules, r)
		}
	}
}

// entriesOf returns the entries of a section that must be a mapping, if the file has it.
func entriesOf(n config.Node) []config.Entry {
	if n.IsSet() && !n.IsMapping() {
		n.Errorf("expected a mapping (key: value), got %s", n.Kind())
	}
	return n.Entries()
}

// nameIsFree reports whether a list or macro can have the name of e, and adds an error if it cannot.
func (f *ruleFile) nameIsFree(e config.Entry) bool {
	problem := ""
	switch {
	case !nameForm.MatchString(e.Key):
		problem = "a name is made of a-z, 0-9 and _"
	case pipeline.Lookup(e.Key) != nil, slices.Contains(functions, e.Key):
		problem = "is the name of a field or function already"
	case f.names.lists[e.Key] != nil, f.names.macros[e.Key] != nil:
		problem = "is defined already"
	default:
		return true
	}
	f.doc.AddError(e.Position, e.Value.Key(), "%s", problem)
	return false
}

func (f *ruleFile) parseLists(n config.Node) {
	for _, e := range entriesOf(n) {
		if !f.nameIsFree(e) {
			continue
		}
		items := e.Value.Items()
		if !e.Value.IsList() {
			items = []config.Node{e.Value} // one value is a list of one
		}
		if len(items) > maxList {
			e.Value.Errorf("list of %d entries, the limit is %d", len(items), maxList)
			continue
		}
		if l := parseList(items); len(l.texts) > 0 != (len(l.numbers) > 0) {
			f.names.lists[e.Key] = l
		} else {
			e.Value.Errorf("a list holds texts or numbers, at least one and not both")
		}
	}
}

func parseList(items []config.Node) *list {
	l := &list{}
	for _, item := range items {
		if number, ok := item.Int(); ok {
			l.numbers = append(l.numbers, number)
			continue
		}
		var t config.Text
		if t.DecodeNode(item); t.IsSet() && withinLimit(t, maxText) {
			l.texts = append(l.texts, t.Value)
		}
	}
	return l
}

func (f *ruleFile) parseMacros(n config.Node) {
	for _, e := range entriesOf(n) {
		if !f.nameIsFree(e) {
			continue
		}
		var t config.Text
		if t.DecodeNode(e.Value); t.IsSet() && withinLimit(t, maxExpression) {
			f.names.macros[e.Key] = &macro{text: t.Value}
			f.macros = append(f.macros, namedText{e.Key, t})
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
