package rules

import (
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// firstLine is the place of errors about a file as a whole.
var firstLine = config.Position{Line: 1, Column: 1}

// importShared makes the lists and macros of files marked shared known in the others.
func importShared(files []*ruleFile) {
	from := map[string]*ruleFile{}
	for _, f := range files {
		if !f.shared {
			continue
		}
		for _, name := range f.names.sortedNames() {
			if other := from[name]; other != nil {
				f.doc.AddError(firstLine, name, "shared name is defined in %s already", other.doc.File)
				continue
			}
			from[name] = f
		}
	}
	for _, f := range files {
		own := f.names.sortedNames()
		for name, source := range from {
			if source == f {
				continue
			}
			if slices.Contains(own, name) {
				f.doc.AddError(firstLine, name, "is a shared name already, defined in %s", source.doc.File)
				continue
			}
			if l := source.names.lists[name]; l != nil {
				f.names.lists[name] = l
			} else {
				f.names.macros[name] = source.names.macros[name]
			}
		}
	}
}

func (n *names) sortedNames() []string {
	var out []string
	for k := range n.lists {
		out = append(out, k)
	}
	for k := range n.macros {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// A compiler compiles the rules of a set, one after the other.
type compiler struct {
	slots *slotTable
	ids   map[string]*parsedRule
	list  []*compiledRule
	lints []Lint
	total int // rules seen
}

type compiledRule struct {
	rule *Rule
	need prefilter
}

func (c *compiler) ruleIDs() []string {
	var out []string
	for id := range c.ids {
		out = append(out, id)
	}
	return out
}

// compileMacros compiles each macro of a file by itself, so that what is wrong with it is said where it stands.
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
func (c *compiler) compileRule(d *parsedRule) {
	if c.total++; c.total > maxRules {
		if c.total == maxRules+1 {
			d.node.Errorf("more than %d rules", maxRules)
		}
		return
	}
	if d.ID != "" {
		if first := c.ids[d.ID]; first != nil {
			d.node.Named(d.node.Key()+"id").Errorf("is the id of the rule at %s:%d already", first.File, first.Line)
			return
		}
		c.ids[d.ID] = d
	}
	r := &d.Rule
	n := prefilter{datasets: allDatasets}
	if d.when.IsSet() {
		r.When = d.when.Value
		if r.when = c.compileExpression(d, d.when); r.when != nil {
			n = c.slots.prefilterOf(r.when.root, true, -1)
		}
	}
	for _, e := range d.exceptions {
		r.Exceptions = append(r.Exceptions, e.Value)
		r.exceptions = append(r.exceptions, c.compileExpression(d, e))
	}
	c.compileAlert(d)
	if r.when == nil {
		return
	}
	if n.datasets &= d.datasets; n.datasets == 0 {
		d.when.Errorf("can never be true: %s", c.slots.contradiction(r.when.root, d.datasets))
		return
	}
	c.finishRule(d, n)
}

func (c *compiler) compileExpression(d *parsedRule, t config.Text) *expression {
	compiled, errs := compileExpression(t.Value, d.names, c.slots)
	addErrors(t, errs)
	return compiled
}

// compileAlert reads the template; a rule without one shows the fields that it reads.
func (c *compiler) compileAlert(d *parsedRule) {
	r := &d.Rule
	if d.alert.IsSet() {
		r.Alert = strings.TrimSpace(d.alert.Value)
		t, errs := parseTemplate(d.alert.Value)
		addErrors(d.alert, errs)
		r.template = t
		return
	}
	if r.when == nil {
		return
	}
	seen := map[*pipeline.Field]bool{}
	for _, i := range r.when.slots {
		f := c.slots.list[i].field
		if f == nil || seen[f] || len(seen) == 5 {
			continue
		}
		seen[f] = true
		sep := " "
		if len(r.template) == 0 {
			sep = ""
		}
		r.template = append(r.template, templatePart{text: sep + f.Name + "="}, templatePart{field: f})
	}
}

func (c *compiler) finishRule(d *parsedRule, n prefilter) {
	r := &d.Rule
	r.mask, r.Indexed, r.Datasets = n.datasets, n.keys != nil, n.datasets.names()
	content := []string{r.ID, r.Title, r.Severity.Name(), fmt.Sprint(r.Score, d.datasets), r.Alert}
	content = append(content, r.Tags...)
	content = append(content, "group")
	content = append(content, r.Group...)
	for _, e := range append([]*expression{r.when}, r.exceptions...) {
		if e != nil {
			content = append(content, e.text, dependencies(e.text, d.names, 0))
		}
	}
	r.Hash = shortHash(content...)
	if r.Version == "" {
		r.Version = r.Hash
	}
	if !r.Indexed {
		c.addLint(r, "has no index key: it runs for every event of "+strings.Join(r.Datasets, ", ")+"; compare a field with a constant, or ask it for a literal")
	}
	fires, quiet := 0, 0
	for _, t := range r.Tests {
		if t.Fires {
			fires++
		} else {
			quiet++
		}
	}
	if fires == 0 {
		c.addLint(r, "has no test that fires")
	}
	if quiet == 0 {
		c.addLint(r, "has no test that must not fire")
	}
	c.list = append(c.list, &compiledRule{r, n})
}

func (c *compiler) addLint(r *Rule, message string) {
	c.lints = append(c.lints, Lint{r.ID, r.File, r.Line, message})
}

// dependencies is the text of the lists and macros that an expression uses, for its hash: a change to one changes the rule.
func dependencies(text string, ns *names, depth int) string {
	if depth > maxMacroDepth {
		return ""
	}
	var b strings.Builder
	for _, word := range identifiers(text) {
		if l := ns.lists[word]; l != nil {
			fmt.Fprintf(&b, "%s=%q%v;", word, l.texts, l.numbers)
		} else if m := ns.macros[word]; m != nil {
			fmt.Fprintf(&b, "%s=%s;%s", word, m.text, dependencies(m.text, ns, depth+1))
		}
		if b.Len() > 1<<20 {
			return shortHash(b.String())
		}
	}
	return b.String()
}

// identifiers splits an expression into its identifiers, each once, in order.
func identifiers(text string) []string {
	all := strings.FieldsFunc(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
	slices.Sort(all)
	return slices.Compact(all)
}
