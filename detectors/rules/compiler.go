package rules

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// Compile compiles rule files into a Set. The order of the sources does not matter. The error is of type
// Errors.
func Compile(cfg Config, sources []Source, log *slog.Logger, metrics *Metrics) (*Set, error) {
	start := time.Now()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}

	// 1. Parse all files before any expression is compiled, because some define names for the others.
	var files []*ruleFile
	lists := map[string][]byte{}
	for _, source := range sources {
		if isListFile(source.Name) {
			lists[source.Name] = source.Data
		} else {
			files = append(files, parseFile(source))
		}
	}
	var listErrors []*config.Error
	for _, file := range files {
		listErrors = append(listErrors, file.readLists(lists)...)
	}
	importShared(files)

	// 2. Compile macros before rules, so that a broken macro is reported once and not for every use.
	compiler := &compiler{cfg: cfg, slots: newSlotTable(), parsed: map[string]*parsedRule{}, configErrors: listErrors}
	compiler.slots.databases.geo, compiler.slots.databases.asn = cfg.GeoDatabase, cfg.ASNDatabase
	compiler.slots.models.files, compiler.slots.feedNames = cfg.Models, cfg.FeedNames
	for _, file := range files {
		compiler.compileMacros(file)
	}
	for _, file := range files {
		for _, rule := range file.rules {
			compiler.compileRule(rule)
		}
	}

	compiler.resolveReferences()

	// 3. Any error prevents the whole Set: a set that lacks some rules would look complete.
	if errs := errorsOf(files, compiler.configErrors); errs != nil {
		return nil, compiler.slots.databases.mark(errs)
	}

	// 4. Disabled rules are compiled and checked like the others, and left out of the index.
	rulesOfFile := map[string]int{}
	for _, rule := range compiler.parsed {
		rulesOfFile[rule.File]++
	}
	compiler.disableRules()
	set := newSet(compiler, cfg, log, metrics)
	set.warnings, set.rulesOfFile = compiler.checkIDs(), rulesOfFile
	set.took = time.Since(start)
	return set, nil
}

// firstLine is the position of errors about a file as a whole.
var firstLine = config.Position{Line: 1, Column: 1}

// importShared defines the lists and macros of shared files in all other files.
func importShared(files []*ruleFile) {
	// 1. Collect the files that define the shared names. A name that two of them define is an error.
	definedIn := map[string]*ruleFile{}
	for _, file := range files {
		if !file.shared {
			continue
		}
		for _, name := range file.names.sorted() {
			if other := definedIn[name]; other != nil {
				file.doc.AddError(firstLine, name, "shared name is defined in %s already", other.doc.File)
				continue
			}
			definedIn[name] = file
		}
	}

	// 2. Add them to all other files. A file that defines the same name itself has an error.
	for _, file := range files {
		own := file.names.sorted()
		for name, source := range definedIn {
			switch {
			case source == file: // the file defines it
			case slices.Contains(own, name):
				file.doc.AddError(firstLine, name, "is a shared name already, defined in %s", source.doc.File)
			case source.names.lists[name] != nil:
				file.names.lists[name] = source.names.lists[name]
			default:
				file.names.macros[name] = source.names.macros[name]
			}
		}
	}
}

// sorted returns the names of all lists and macros, sorted.
func (n *names) sorted() []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(n.lists)), maps.Keys(n.macros))
	slices.Sort(all)
	return all
}

// A compiler compiles the rules of a set one after the other. All rules share one slot table.
type compiler struct {
	cfg    Config
	slots  *slotTable
	parsed map[string]*parsedRule // by id, also rules with errors
	rules  []*compiledRule        // rules and steps without errors: what is evaluated
	lints  []Lint
	total  int // number of rules so far, with and without errors

	correlations []*parsedRule // correlation rules, also those with errors
	references   []reference
	configErrors []*config.Error
}

// disableRules removes the rules that the configuration disables, and the steps of such rules.
func (c *compiler) disableRules() {
	disabled := func(id string) bool { return slices.Contains(c.cfg.Disable, id) }
	c.correlations = slices.DeleteFunc(c.correlations, func(parsed *parsedRule) bool { return disabled(parsed.ID) })
	c.rules = slices.DeleteFunc(c.rules, func(rule *compiledRule) bool {
		if !rule.isStep {
			rule.signalSteps = slices.DeleteFunc(rule.signalSteps, func(s *step) bool { return disabled(s.rule.ID) })
			return disabled(rule.ID)
		}
		return disabled(rule.signalSteps[0].rule.ID)
	})
}

// A compiledRule is a rule or a step with its prefilter, from which the index is built.
type compiledRule struct {
	*Rule
	prefilter prefilter
}

// checkIDs returns a warning for each id of the configuration that no rule has. It is no error: a rule may be gone
// after an upgrade.
func (c *compiler) checkIDs() (warnings []string) {
	check := func(key string, ids []string) {
		for _, id := range ids {
			if c.parsed[id] == nil {
				hint := config.DidYouMean(id, slices.Sorted(maps.Keys(c.parsed)))
				warnings = append(warnings, fmt.Sprintf("rules.%s: no rule has the id %q%s", key, id, hint))
			}
		}
	}
	check("disable", c.cfg.Disable)
	check("exceptions", slices.Sorted(maps.Keys(c.cfg.Exceptions)))
	check("severity", slices.Sorted(maps.Keys(c.cfg.Severity)))
	for _, parsed := range c.correlations {
		for _, id := range parsed.referredRules {
			if slices.Contains(c.cfg.Disable, id) {
				warnings = append(warnings, fmt.Sprintf("rules.disable: %s refers to %s, which is disabled", parsed.ID, id))
			}
		}
	}
	return warnings
}

// applyConfig adds the exceptions that the configuration has for a rule, and replaces its severity.
func (c *compiler) applyConfig(parsed *parsedRule) {
	rule := &parsed.Rule
	if severity := pipeline.SeverityByName(c.cfg.Severity[rule.ID]); severity != pipeline.Severity_SEVERITY_NONE {
		rule.Severity = severity
	}
	for i, text := range c.cfg.Exceptions[rule.ID] {
		compiled, errs := compileExpression(text, parsed.names, c.slots)
		for _, err := range errs {
			key := fmt.Sprintf("rules.exceptions.%s[%d]", rule.ID, i)
			c.configErrors = append(c.configErrors, &config.Error{
				File: "config", Key: key, Err: fmt.Errorf("%s (at character %d of %q)", err.message, err.at+1, text),
			})
		}
		rule.Exceptions = append(rule.Exceptions, text)
		rule.exceptions = append(rule.exceptions, compiled)
	}
}

// compileMacros compiles each macro of a file alone, so that its errors are reported at its definition.
func (c *compiler) compileMacros(file *ruleFile) {
	for _, macro := range file.macros {
		compiled, errs := compileExpression(macro.text.Value, &file.names, c.slots)
		addErrors(macro.text, errs)
		file.names.macros[macro.name].broken = compiled == nil
	}
}

// addErrors reports the errors of an expression or a template at their positions in the file.
func addErrors(text config.Text, errs []syntaxError) {
	for _, err := range errs {
		text.ErrorfAt(err.at, "%s", err.message)
	}
}

// compileRule compiles one rule and appends it to c.rules, or adds its errors to the file.
func (c *compiler) compileRule(parsed *parsedRule) {
	// 1. The limit of rules holds for all files together, and ids are unique in all files.
	if c.total++; c.total > maxRules {
		if c.total == maxRules+1 {
			parsed.node.Errorf("more than %d rules", maxRules)
		}
		return
	}
	if parsed.ID != "" {
		if first := c.parsed[parsed.ID]; first != nil {
			parsed.node.Named(parsed.node.Key()+"id").
				Errorf("is the id of the rule at %s:%d already", first.File, first.Line)
			return
		}
		c.parsed[parsed.ID] = parsed
	}

	// 2. Compile every part, also after an error in another, so that all errors of the rule are reported.
	rule := &parsed.Rule
	c.compileLets(parsed)
	rule.lets = parsed.lets
	for _, exception := range parsed.exceptions {
		rule.Exceptions = append(rule.Exceptions, exception.Value)
		rule.exceptions = append(rule.exceptions, c.compileText(parsed, exception))
	}
	c.applyConfig(parsed)
	c.parseAlert(parsed)
	if parsed.correlation != nil {
		c.compileCorrelation(parsed)
		return
	}
	if !parsed.when.IsSet() || !c.compileCondition(parsed, rule, parsed.when) {
		return
	}
	if rule.template == nil {
		rule.template = c.defaultAlert(rule.when)
	}

	// 3. The hash is the version of a rule whose file has none.
	if rule.Hash = parsed.contentHash(); rule.Version == "" {
		rule.Version = rule.Hash
	}
	c.lintCondition(rule)
	c.lintCases(rule)
}

// compileCondition compiles the condition of a rule or of a step and appends it to c.rules. It reports whether there was
// no error; errors are added to the file.
func (c *compiler) compileCondition(parsed *parsedRule, rule *Rule, when config.Text) bool {
	rule.When, rule.when = when.Value, c.compileText(parsed, when)
	if rule.when == nil {
		return false
	}
	rule.exceptionSlots = slotsOfExceptions(rule)

	// It can match events that pass the prefilter of its condition and are of a dataset that the file lists. An empty
	// intersection is a mistake of the author.
	filter := c.slots.prefilterOf(rule.when.root, true, noElement)
	if filter.datasets &= parsed.datasets; filter.datasets == 0 {
		when.Errorf("can never be true: %s", c.slots.contradiction(rule.when.root, parsed.datasets))
		return false
	}
	rule.datasets, rule.Datasets, rule.Indexed = filter.datasets, filter.datasets.names(), filter.keys != nil
	c.rules = append(c.rules, &compiledRule{rule, filter})
	return true
}

// slotsOfExceptions returns the slots that the exceptions of a rule read and its condition does not.
func slotsOfExceptions(rule *Rule) (slots []int) {
	for _, exception := range rule.exceptions {
		if exception == nil {
			continue // it has errors
		}
		for _, slot := range exception.slots {
			if !slices.Contains(rule.when.slots, slot) && !slices.Contains(slots, slot) {
				slots = append(slots, slot)
			}
		}
	}
	return slots
}

// compileText compiles the condition or an exception of a rule. It returns nil if the text has errors or is too long.
func (c *compiler) compileText(parsed *parsedRule, text config.Text) *expression {
	if len(text.Value) > maxExpression {
		return nil // reported when the file was parsed
	}
	compiled, errs := compileExpression(text.Value, parsed.names, c.slots)
	addErrors(text, errs)
	return compiled
}

// parseAlert parses the template of a rule that has one.
func (c *compiler) parseAlert(parsed *parsedRule) {
	if !parsed.alert.IsSet() || len(parsed.alert.Value) > maxText { // the limit was reported when the file was parsed
		return
	}
	var errs []syntaxError
	parsed.Alert = strings.TrimSpace(parsed.alert.Value)
	parsed.template, errs = parseTemplate(parsed.alert.Value, parsed)
	addErrors(parsed.alert, errs)
}

// defaultAlert returns a template of the first fields that a condition reads, as "name=value name=value".
func (c *compiler) defaultAlert(when *expression) (out template) {
	// Slots are sorted by their first use in the set; lower(field) and len(field) have the same field.
	const most = 5
	var fields []*pipeline.Field
	for _, slot := range when.slots {
		field := c.slots.list[slot].field
		if field != nil && !slices.Contains(fields, field) && len(fields) < most {
			fields = append(fields, field)
			out = append(out, templatePart{text: field.Name + "=", field: field})
		}
	}
	return out
}

// contentHash returns a hash of everything that determines which events a rule matches and what its verdicts
// contain.
func (p *parsedRule) contentHash() string {
	rule := &p.Rule
	content := []string{rule.ID, rule.Title, rule.Severity.Name(), fmt.Sprint(rule.Score, p.datasets), rule.Alert}
	content = append(content, rule.Tags...)
	content = append(content, "group")
	content = append(content, rule.Group...)
	for _, let := range p.lets {
		content = append(content, "let", let.name, let.content)
	}
	return shortHash(append(content, p.conditionsContent()...)...)
}

// conditionsContent returns the condition and the exceptions of a rule, with the lists and macros that they use.
func (p *parsedRule) conditionsContent() (content []string) {
	for _, condition := range append([]*expression{p.Rule.when}, p.Rule.exceptions...) {
		if condition != nil {
			content = append(content, condition.text, dependencies(condition.text, p.names, 0))
		}
	}
	return content
}

// dependencies returns the content of the lists and macros that an expression uses, directly or through
// macros. A change of one of them changes the hash of the rule.
func dependencies(text string, ns *names, depth int) string {
	if depth > maxMacroDepth {
		return ""
	}
	var out strings.Builder

	// identifiers also returns words inside texts. So the result may contain a list that is not used, but
	// never lacks one that is.
	for _, word := range identifiers(text) {
		if list := ns.lists[word]; list != nil {
			fmt.Fprintf(&out, "%s=%q%v;", word, list.texts, list.numbers)
		} else if macro := ns.macros[word]; macro != nil {
			fmt.Fprintf(&out, "%s=%s;%s", word, macro.text, dependencies(macro.text, ns, depth+1))
		}
		if out.Len() > 1<<20 {
			return shortHash(out.String())
		}
	}
	return out.String()
}

// identifiers returns the words of an expression that can be names of lists or macros, each once, sorted.
// Words inside texts are included.
func identifiers(text string) []string {
	all := strings.FieldsFunc(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
	slices.Sort(all)
	return slices.Compact(all)
}

// lintCondition adds lints for the conditions of a rule or a step, and one if the index cannot rule it out.
func (c *compiler) lintCondition(rule *Rule) {
	lint := Lint{Rule: rule.ID, File: rule.File, Line: rule.Line}
	if !rule.Indexed {
		lint.Hint = hintNoIndexKey
		lint.Message = "has no index key: it is evaluated for every event of " +
			strings.Join(rule.Datasets, ", ") +
			"; compare a field with a constant, or look for a literal in one"
		c.lints = append(c.lints, lint)
	}
	for _, condition := range append([]*expression{rule.when}, rule.exceptions...) {
		if condition == nil {
			continue // it has errors
		}
		add := func(hint string, messages ...string) {
			for _, message := range messages {
				lint.Hint, lint.Message = hint, message
				c.lints = append(c.lints, lint)
			}
		}
		never, always := c.slots.lintContradictions(condition.root)
		add(hintValueForm, c.slots.impossible(condition.root)...)
		add(hintAbsent, c.slots.trueWhenAbsent(condition.root)...)
		add(hintNeverTrue, never...)
		add(hintAlwaysTrue, always...)
		if mixesAndOr(condition.text) {
			add(hintBrackets, "and and or stand side by side without brackets; and binds first, "+
				"so write a or (b and c), or (a or b) and c: "+quoteShort(condition.text))
		}
	}
}

// lintCases adds lints for the group of a rule and for a missing test case.
func (c *compiler) lintCases(rule *Rule) {
	lint := Lint{Rule: rule.ID, File: rule.File, Line: rule.Line}
	for _, message := range lintGroup(rule.groupValues) {
		lint.Hint, lint.Message = hintGroup, message
		c.lints = append(c.lints, lint)
	}
	for _, tag := range rule.Tags {
		if wrong := wrongTag(tag); wrong != "" {
			lint.Hint, lint.Message = hintTag, wrong
			c.lints = append(c.lints, lint)
		}
	}
	if missing := rule.missingCase(); missing != "" {
		lint.Hint, lint.Message = hintMissingCase, "has no "+missing
		c.lints = append(c.lints, lint)
	}
}
