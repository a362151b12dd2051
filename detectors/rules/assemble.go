package rules

import (
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline"
)

// share makes the lists and macros of files marked shared known in the others.
func share(files []*ruleFile) {
	from := map[string]*ruleFile{}
	for _, f := range files {
		if !f.shared {
			continue
		}
		for _, name := range f.names.all() {
			if other := from[name]; other != nil {
				f.doc.fail(place{1, 1}, name, "shared name is defined in %s already", other.doc.file)
				continue
			}
			from[name] = f
		}
	}
	for _, f := range files {
		own := f.names.all()
		for name, source := range from {
			if source == f {
				continue
			}
			if slices.Contains(own, name) {
				f.doc.fail(place{1, 1}, name, "is a shared name already, defined in %s", source.doc.file)
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

func (n *names) all() []string {
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

// An assembly gathers compiled rules.
type assembly struct {
	b     *builder
	errs  *problems
	ids   map[string]*draft
	list  []*compiled
	lints []Lint
	total int // rules seen
}

type compiled struct {
	rule *Rule
	need need
}

func (c *assembly) known() []string {
	var out []string
	for id := range c.ids {
		out = append(out, id)
	}
	return out
}

// macros compiles each macro of a file by itself, so that what is wrong with it is said where it stands.
func (c *assembly) macros(f *ruleFile) {
	for _, m := range f.macros {
		p, faults := c.b.compile(m.text.text, &f.names)
		c.report(m.text, join("macros", m.name), faults)
		f.names.macros[m.name].broken = p == nil
	}
}

func (c *assembly) report(p passage, key string, faults []fault) {
	for _, f := range faults {
		at := p.within(f.at)
		c.errs.add(&Error{File: p.doc.file, Line: at.line, Column: at.column, Key: key, Message: f.message})
	}
}

// rule compiles one rule and reports what is wrong with it.
func (c *assembly) rule(d *draft) {
	if c.total++; c.total > maxRules {
		if c.total == maxRules+1 {
			d.doc.fail(d.at, d.ID, "more than %d rules", maxRules)
		}
		return
	}
	if d.ID != "" {
		if first := c.ids[d.ID]; first != nil {
			d.doc.fail(d.at, join(d.ID, "id"), "is the id of the rule at %s:%d already", first.File, first.Line)
			return
		}
		c.ids[d.ID] = d
	}
	r := &d.Rule
	n := need{mask: everywhere}
	if d.when.doc != nil {
		r.When = d.when.text
		if r.when = c.expression(d, d.when, join(d.ID, "when")); r.when != nil {
			n = c.b.needs(r.when.tree, true, -1)
		}
	}
	for _, e := range d.exceptions {
		r.Exceptions = append(r.Exceptions, e.text)
		r.exceptions = append(r.exceptions, c.expression(d, e, join(d.ID, "exceptions")))
	}
	c.alert(d)
	if r.when == nil {
		return
	}
	if n.mask &= d.datasets; n.mask == 0 {
		d.doc.fail(d.when.at, join(d.ID, "when"), "can never be true: no event is of all the datasets that it needs")
		return
	}
	c.finish(d, n)
}

func (c *assembly) expression(d *draft, p passage, key string) *program {
	out, faults := c.b.compile(p.text, d.names)
	c.report(p, key, faults)
	return out
}

// alert reads the template; a rule without one shows the fields that it reads.
func (c *assembly) alert(d *draft) {
	r := &d.Rule
	if d.alert.doc != nil {
		r.Alert = strings.TrimSpace(d.alert.text)
		t, faults := parseTemplate(d.alert.text)
		c.report(d.alert, join(d.ID, "alert"), faults)
		r.template = t
		return
	}
	if r.when == nil {
		return
	}
	seen := map[*pipeline.Field]bool{}
	for _, i := range r.when.slots {
		f := c.b.slots.list[i].field
		if f == nil || seen[f] || len(seen) == 5 {
			continue
		}
		seen[f] = true
		sep := " "
		if len(r.template) == 0 {
			sep = ""
		}
		r.template = append(r.template, piece{text: sep + f.Name + "="}, piece{field: f})
	}
}

func (c *assembly) finish(d *draft, n need) {
	r := &d.Rule
	r.mask, r.Indexed = n.mask, n.keys != nil
	for i := range 10 {
		if n.mask&(1<<i) != 0 && i > 0 {
			r.Datasets = append(r.Datasets, pipeline.Dataset(i).Name())
		}
	}
	content := []string{r.ID, r.Title, r.Severity.Name(), fmt.Sprint(r.Score, d.datasets), r.Alert}
	content = append(content, r.Tags...)
	content = append(content, "group")
	content = append(content, r.Group...)
	for _, e := range append([]*program{r.when}, r.exceptions...) {
		if e != nil {
			content = append(content, e.text, meaning(e.text, d.names, 0))
		}
	}
	r.Hash = hash(content...)
	if r.Version == "" {
		r.Version = r.Hash
	}
	if !r.Indexed {
		c.lint(r, "has no index key: it runs for every event of "+strings.Join(r.Datasets, ", ")+"; compare a field with a constant, or ask it for a literal")
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
		c.lint(r, "has no test that fires")
	}
	if quiet == 0 {
		c.lint(r, "has no test that must not fire")
	}
	c.list = append(c.list, &compiled{r, n})
}

func (c *assembly) lint(r *Rule, message string) {
	c.lints = append(c.lints, Lint{r.ID, r.File, r.Line, message})
}

// meaning is the text of the lists and macros that an expression uses, for its hash: a change to one changes the rule.
func meaning(text string, ns *names, depth int) string {
	if depth > maxMacroDepth {
		return ""
	}
	var b strings.Builder
	for _, word := range words(text) {
		if l := ns.lists[word]; l != nil {
			fmt.Fprintf(&b, "%s=%q%v;", word, l.texts, l.numbers)
		} else if m := ns.macros[word]; m != nil {
			fmt.Fprintf(&b, "%s=%s;%s", word, m.text, meaning(m.text, ns, depth+1))
		}
		if b.Len() > 1<<20 {
			return hash(b.String())
		}
	}
	return b.String()
}

// words splits an expression into its identifiers, each once, in order.
func words(text string) []string {
	all := strings.FieldsFunc(text, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
	slices.Sort(all)
	return slices.Compact(all)
}
