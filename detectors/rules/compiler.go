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

// Compile makes a Set of rule files. The order of the sources does not matter. The error is of type Errors.
func Compile(cfg Config, sources []Source, log *slog.Logger, metrics *Metrics) (*Set, error) {
	start := time.Now()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}

	// 1. All files are read before any expression is compiled, because some define names for the others.
	var files []*ruleFile
	for _, set := range sources {
		files = append(files, parseFile(set))
	}
	importShared(files)

	// 2. Macros come before rules: a rule that uses a broken macro is not reported for it again.
	compiler := &compiler{slots: newSlotTable(), parsed: map[string]*parsedRule{}}
	for _, file := range files {
		compiler.compileMacros(file)
	}
	for _, file := range files {
		for _, rule := range file.rules {
			compiler.compileRule(rule)
		}
	}

	// 3. One error anywhere is enough that there is no Set.
	if err := errorsOf(files, compiler.checkDisabled(cfg.Disable)); err != nil {
		return nil, err
	}
	compiler.rules = slices.DeleteFunc(compiler.rules, func(rule *compiledRule) bool { return slices.Contains(cfg.Disable, rule.ID) })
	set := newSet(compiler, cfg, log, metrics)
	set.took = time.Since(start)
	return set, nil
}

// firstLine is the place of errors about a file as a whole.
var firstLine = config.Position{Line: 1, Column: 1}

// importShared makes the lists and macros of files that are marked shared known in all others.
func importShared(files []*ruleFile) {
	definedIn := map[string]*ruleFile{}
	// 1. Where each shared name is defined.
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

	// 2. All other files get them, unless they define the name themselves.
	for _, file := range files {
		own := file.names.sorted()
		for name, source := range definedIn {
			switch {
			case source == file:
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

// sorted returns all names in n.
func (n *names) sorted() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(n.lists) {
			if !yield(name) {
				return
			}
		}
		for name := range maps.Keys(n.macros) {
			if !yield(name) {
				return
			}
		}
	})
}

// A compiler compiles the rules of a set one after the other. They share one slot table.
type compiler struct {
	slots  *slotTable
	parsed map[string]*parsedRule // by id
	rules  []*compiledRule        // those without errors
	lints  []Lint
	total  int // rules seen, with and without errors
}

type compiledRule struct {
	*Rule
	prefilter prefilter
}

// checkDisabled reports ids that no rule has.
func (c *compiler) checkDisabled(ids []string) []*config.Error {
	var errs []*config.Error
	for _, id := range ids {
		if c.parsed[id] == nil {
			hint := config.DidYouMean(id, slices.Sorted(maps.Keys(c.parsed)))
			errs = append(errs, &config.Error{
				File: "config", Key: "rules.disable", Err: fmt.Errorf("no rule has the id %q%s", id, hint),
			})
		}
	}
	return errs
}

// compileMacros compiles each macro of a file by itself, so that an error is reported where the macro is
// defined.
func (c *compiler) compileMacros(f *ruleFile) {
	for _, m := range f.macros {
		compiled, errs := compileExpression(m.text.Value, &f.names, c.slots)
		addErrors(m.text, errs)
		f.names.macros[m.name].broken = compiled == nil
	}
}

// addErrors reports the errors of an expression or a template at their places in the file.
func addErrors(t config.Text, errs []syntaxError) {
	for _, e := range errs {
		t.ErrorfAt(e.at, "%s", e.message)
	}
}

// compileRule compiles one rule and reports what is wrong with it.
func (c *compiler) compileRule(p *parsedRule) {
	if c.total++; c.total > maxRules {
		if c.total == maxRules+1 {
			p.node.Errorf("more than %d rules", maxRules)
		}
		return
	}
	if p.ID != "" {
		if first := c.parsed[p.ID]; first != nil {
			p.node.Named(p.node.Key()+"id").Errorf("is the id of the rule at %s:%d already", first.File, first.Line)
			return
		}
		c.parsed[p.ID] = p
	}

	// Every part is compiled, also after an error in another, so that all errors of the rule are reported.
	rule := &p.Rule
	if p.when.IsSet() {
		rule.When, rule.when = p.when.Value, c.compileText(p, p.when)
	}
	for _, exception := range p.exceptions {
		rule.Exceptions = append(rule.Exceptions, exception.Value)
		rule.exceptions = append(rule.exceptions, c.compileText(p, exception))
	}
	c.compileAlert(p)
	if rule.when == nil {
		return
	}

	// The prefilter of the expression, narrowed by the datasets that the author names, says where the rule
	// can match.
	filter := c.slots.prefilterOf(rule.when.root, true, noElement)
	if filter.datasets &= p.datasets; filter.datasets == 0 {
		p.when.Errorf("can never be true: %s", c.slots.contradiction(rule.when.root, p.datasets))
		return
	}
	rule.datasets, rule.Datasets, rule.Indexed = filter.datasets, filter.datasets.names(), filter.keys != nil
	if rule.Hash = p.contentHash(); rule.Version == "" {
		rule.Version = rule.Hash
	}
	c.lintRule(rule)
	c.rules = append(c.rules, &compiledRule{rule, filter})
}

func (c *compiler) compileText(p *parsedRule, t config.Text) *expression {
	compiled, errs := compileExpression(t.Value, p.names, c.slots)
	addErrors(t, errs)
	return compiled
}

// compileAlert parses the template of a rule. A rule without one shows the first fields that it reads.
func (c *compiler) compileAlert(p *parsedRule) {
	rule := &p.Rule
	if p.alert.IsSet() {
		var errs []syntaxError
		rule.Alert = strings.TrimSpace(p.alert.Value)
		rule.template, errs = parseTemplate(p.alert.Value)
		addErrors(p.alert, errs)
		return
	}
	if rule.when == nil {
		return
	}

	const most = 5
	var fields []*pipeline.Field
	for _, i := range rule.when.slots {
		field := c.slots.list[i].field
		if field != nil && !slices.Contains(fields, field) && len(fields) < most {
			fields = append(fields, field)
		}
	}
	separator := ""
	for _, field := range fields {
		rule.template = append(rule.template, templatePart{text: separator + field.Name + "="}, templatePart{field: field})
		separator = " "
	}
}

// contentHash returns a hash of everything that decides what a rule matches and what its verdicts say.
func (p *parsedRule) contentHash() string {
	rule := &p.Rule
	content := []string{rule.ID, rule.Title, rule.Severity.Name(), fmt.Sprint(rule.Score, p.datasets), rule.Alert}
	content = append(content, rule.Tags...)
	content = append(content, "group")
	content = append(content, rule.Group...)
	for _, e := range append([]*expression{rule.when}, rule.exceptions...) {
		if e != nil {
			content = append(content, e.text, dependencies(e.text, p.names, 0))
		}
	}
	return shortHash(content...)
}

// dependencies returns the content of the lists and macros that an expression uses: a change to one changes
// the rule.
func dependencies(text string, ns *names, depth int) string {
	if depth > maxMacroDepth {
		return ""
	}
	var out strings.Builder
	// Words within texts are looked up too. That adds a list that is not used at worst, never misses one that
	// is.
	for _, word := range identifiers(text) {
		if l := ns.lists[word]; l != nil {
			fmt.Fprintf(&out, "%s=%q%v;", word, l.texts, l.numbers)
		} else if m := ns.macros[word]; m != nil {
			fmt.Fprintf(&out, "%s=%s;%s", word, m.text, dependencies(m.text, ns, depth+1))
		}
		if out.Len() > 1<<20 {
			return shortHash(out.String())
		}
	}
	return out.String()
}

// identifiers returns the identifiers of an expression, each once, sorted. Words within texts are among them.
func identifiers(text string) []string {
	all := strings.FieldsFunc(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *compiler) lintRule(rule *Rule) {
	lint := Lint{Rule: rule.ID, File: rule.File, Line: rule.Line}
	if !rule.Indexed {
		lint.Message = "has no index key: it is evaluated for every event of " + strings.Join(rule.Datasets, ", ") +
			"; compare a field with a constant, or look for a literal in one"
		c.lints = append(c.lints, lint)
	}
	if missing := rule.missingCase(); missing != "" {
		lint.Message, lint.ofCases = "has no "+missing, true
		c.lints = append(c.lints, lint)
	}
}
