package rules

import (
	"regexp"
	"slices"

	"tidegate/pipeline/config"
)

// A ruleFile is a parsed rule file whose expressions are not compiled yet.
type ruleFile struct {
	doc       *config.Document // collects the errors of the file
	shared    bool             // its lists and macros are defined in all files
	names     names            // the lists and macros that its rules can use
	macros    []namedText      // the macros of the file itself, in its order
	listFiles []listReference  // the lists that are in files of their own
	rules     []*parsedRule
}

// A namedText is the text of a macro under its name.
type namedText struct {
	name string
	text config.Text
}

// yamlFile is the YAML form of a file that has lists or macros beside rules.
type yamlFile struct {
	Shared bool          `yaml:"shared"`
	Lists  config.Node   `yaml:"lists"`
	Macros config.Node   `yaml:"macros"`
	Rules  []config.Node `yaml:"rules"`
}

var fileKeys = []string{"shared", "lists", "macros", "rules"}

// namePattern matches the names of lists and macros.
var namePattern = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,63}$`)

// parseFile parses a file that is a list of rules, one rule, or a mapping with rules, lists and macros. It
// adds errors to the doc of the result.
func parseFile(source Source) *ruleFile {
	file := &ruleFile{doc: config.Parse(source.Name, source.Data)}
	file.names = names{lists: map[string]*list{}, macros: map[string]*macro{}}

	// Aliases could expand a small file to a huge one.
	if aliases := file.doc.Aliases(); len(aliases) > 0 {
		file.doc.AddError(aliases[0], "", "aliases are not supported: use lists and macros")
		return file
	}

	// A mapping with a key of a section has sections; any other mapping is one rule.
	root, ok := file.doc.Root()
	switch {
	case !ok: // the file is empty or not YAML; the doc has the error
	case root.IsList():
		file.parseRules(root.Items())
	case !root.IsMapping():
		root.Errorf("expected a list of rules or a mapping, got %s", root.Kind())
	case slices.ContainsFunc(root.Entries(), isSection):
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

// isSection reports whether an entry of a file is one of the sections of yamlFile.
func isSection(entry config.Entry) bool { return slices.Contains(fileKeys, entry.Key) }

// parseRules parses a list of rules, and appends those that are mappings to f.rules.
func (f *ruleFile) parseRules(items []config.Node) {
	if len(items) > maxRules {
		items[maxRules].Errorf("more than %d rules", maxRules)
		items = items[:maxRules]
	}
	for _, item := range items {
		if rule := parseRule(item, f); rule != nil {
			f.rules = append(f.rules, rule)
		}
	}
}

// entriesOf returns the entries of a section. It adds an error if the section is set and not a mapping.
func entriesOf(node config.Node) []config.Entry {
	if node.IsSet() && !node.IsMapping() {
		node.Errorf("expected a mapping (key: value), got %s", node.Kind())
	}
	return node.Entries()
}

// isReserved reports whether a name is that of a field or of a function.
func isReserved(name string) bool {
	return lookupField(name) != nil || slices.Contains(functions, name)
}

// nameIsFree reports whether a list or macro can have the name of entry. It adds an error if it cannot.
func (f *ruleFile) nameIsFree(entry config.Entry) bool {
	problem := ""
	switch {
	case !namePattern.MatchString(entry.Key):
		problem = "a name is made of a-z, 0-9 and _"
	case isReserved(entry.Key):
		problem = "is the name of a field or function already"
	case f.names.lists[entry.Key] != nil, f.names.macros[entry.Key] != nil:
		problem = "is defined already"
	default:
		return true
	}
	f.doc.AddError(entry.Position, entry.Value.Key(), "%s", problem)
	return false
}

// parseLists adds the lists of a file to f.names.
func (f *ruleFile) parseLists(section config.Node) {
	for _, entry := range entriesOf(section) {
		if !f.nameIsFree(entry) {
			continue
		}

		if entry.Value.IsMapping() {
			f.names.lists[entry.Key] = f.parseListFile(entry.Value)
			continue
		}

		// A single value is a list of one.
		items := entry.Value.Items()
		if !entry.Value.IsList() {
			items = []config.Node{entry.Value}
		}
		if len(items) > maxList {
			entry.Value.Errorf("list of %d entries, the limit is %d", len(items), maxList)
			continue
		}

		// Exactly one of texts and numbers must have elements.
		if parsed := parseList(items); len(parsed.texts) > 0 != (len(parsed.numbers) > 0) {
			f.names.lists[entry.Key] = parsed
		} else {
			entry.Value.Errorf("a list holds texts or numbers, at least one and not both")
		}
	}
}

// parseList returns the numbers and texts of items.
func parseList(items []config.Node) *list {
	parsed := &list{}
	for _, item := range items {
		if number, ok := item.Int(); ok {
			parsed.numbers = append(parsed.numbers, number)
			continue
		}
		var text config.Text
		if text.DecodeNode(item); text.IsSet() && withinLimit(text, maxText) {
			parsed.texts = append(parsed.texts, text.Value)
		}
	}
	return parsed
}

// parseMacros adds the macros of a file to f.names and f.macros.
func (f *ruleFile) parseMacros(section config.Node) {
	for _, entry := range entriesOf(section) {
		if !f.nameIsFree(entry) {
			continue
		}
		var text config.Text
		if text.DecodeNode(entry.Value); text.IsSet() && withinLimit(text, maxExpression) {
			checkComment(text)
			f.names.macros[entry.Key] = &macro{text: text.Value}
			f.macros = append(f.macros, namedText{entry.Key, text})
		}
	}
}

// continues matches the rest of an expression behind # in a comment: an operator, a sign, or a bracket that
// closes.
var continues = regexp.MustCompile(`^#\s*(and|or|not|in|contains|startsWith|endsWith|matches|[-=!<>+*/%.,)\]|&])`)

// checkComment reports an expression in a plain scalar whose rest became a comment of YAML: it could compile
// without that rest. A comment that does not look like one is allowed.
func checkComment(text config.Text) {
	if comment := text.Comment(); continues.MatchString(comment) {
		text.Errorf("YAML takes what follows the blank and # for a comment (%s): "+
			"write the expression between quotes, or in the lines behind >",
			quoteShort(comment))
	}
}

// withinLimit reports whether text has at most limit bytes. It adds an error if text is longer.
func withinLimit(text config.Text, limit int) bool {
	if len(text.Value) > limit {
		text.Errorf("text of %d bytes, the limit is %d", len(text.Value), limit)
		return false
	}
	return true
}
