// Package sigma converts Sigma rules (https://sigmahq.io, specification 2.1) to the rules of package rules.
//
// Convert takes the files of a folder and returns a Conversion for each rule in them: the text of a rule file
// of ours, or the one reason for which the rule is refused. Package rules calls it when it loads Config.Sigma
// and compiles what it returns; `tidegate rules convert sigma` prints it.
//
// The path of a rule:
//
//	rule.go                   splits a file into documents and parses them, with pipeline/config
//	modifier.go, pattern.go   turn "field|modifier: values" into an item
//	condition.go              parses the condition, a tree over the items
//	sources.go                says which of our events a log source stands for, and where its fields are
//	emit.go                   writes the tree as an expression
//	correlation.go            parses correlations, and finds the rules that they refer to
//	correlation_rule.go       converts them
//	sigma.go                  writes the rule, with its author, references and cases
//	reference.go              writes the tables of docs/SIGMA.md
//
// example.go and event.go make the cases: an event that the detection matches, and a similar one that it does
// not. They read the tree and not the expression, and so test the conversion.
//
// The texts of Sigma are compared without regard to case: lower(field) contains "…", which costs the index
// nothing. Only A to Z have a lower case there.
package sigma

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// A Source is a Sigma file.
type Source struct {
	Name string // path, as errors show it
	Data []byte
}

// A Conversion is a rule of a Sigma file as a rule of ours, or the reason why there is none.
type Conversion struct {
	File      string
	Line      int    // where the rule begins
	ID        string // "" if the file is not readable
	Title     string
	Author    string
	Level     string
	Logsource string // as the file has it
	Reads     string // what of our events it looks at
	License   string

	// Err is why the rule is refused, with file, line and key; else nil.
	Err *config.Error

	// Examples is true if the rule has cases, one that matches and one that does not.
	Examples bool

	rule  string      // the rule in YAML, an item of a list
	lists []namedList // the lists that it uses
}

// Text returns a rule file of ours that holds the rule.
func (c *Conversion) Text() []byte { return Join([]*Conversion{c}) }

// DropExamples removes the cases, as those that are made from an odd detection may be no events.
func (c *Conversion) DropExamples() {
	c.rule, _, _ = strings.Cut(c.rule, "    tests:\n")
	c.Examples = false
}

// Join returns a rule file of ours that holds the rules of all conversions that have one.
func Join(all []*Conversion) []byte {
	var out strings.Builder
	written := map[string]bool{}
	for _, c := range all {
		for _, list := range c.lists {
			if written[list.name] {
				continue
			}
			if len(written) == 0 {
				out.WriteString("lists:\n")
			}
			written[list.name] = true
			out.WriteString("  " + list.name + ":\n")
			for _, text := range list.texts {
				out.WriteString("    - " + yamlQuote(text) + "\n")
			}
		}
	}
	out.WriteString("rules:\n")
	for _, c := range all {
		out.WriteString(c.rule)
	}
	return []byte(out.String())
}

// Convert converts the rules of files. Rules that only correlations refer to have no conversion of their own,
// unless the correlation generates their alerts too.
func Convert(sources []Source) []*Conversion {
	var documents []*document
	for _, source := range sources {
		documents = append(documents, parseFile(source.Name, source.Data)...)
	}
	known := names(documents)
	for _, d := range documents {
		if d.correlation != nil {
			d.resolveCorrelation(known)
		}
	}
	var out []*Conversion
	for _, d := range documents {
		if d.referredBy > 0 && !d.generates && d.refusal == nil {
			continue
		}
		out = append(out, d.convert())
	}
	return out
}

// names returns documents by the ids and names by which correlations refer to them.
func names(documents []*document) map[string]*document {
	byName := map[string]*document{}
	for _, d := range documents {
		for _, name := range []string{d.name, d.id, d.title} {
			if name != "" && byName[name] == nil {
				byName[name] = d
			}
		}
	}
	return byName
}

// convert returns the conversion of a document.
func (d *document) convert() *Conversion {
	c := &Conversion{
		ID: d.id, Title: d.title, Author: d.author, License: d.license, Level: d.level, Logsource: d.logsource.String(), Line: 1,
	}
	if d.doc != nil {
		c.File = d.doc.File
	}
	if d.node.IsSet() {
		c.Line = d.node.Position().Line
	}
	if d.source != nil {
		c.Reads = d.source.title
	}
	if d.refusal == nil && d.correlation != nil {
		d.writeCorrelation(c)
	} else if d.refusal == nil {
		d.writeRule(c)
	}
	if d.refusal != nil {
		var located *config.Error
		if !errors.As(d.refusal, &located) {
			located = &config.Error{File: c.File, Position: config.Position{Line: c.Line, Column: 1}, Err: d.refusal}
		}
		c.Err, c.rule, c.lists, c.Examples = located, "", nil, false
		c.File = cmp.Or(c.File, located.File)
	}
	return c
}

// newEmitter returns an emitter for a rule.
func (d *document) newEmitter() *emitter {
	prefix := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, d.id)
	// Other ids than UUIDs may differ in what is left out of the name only.
	if len(prefix) != 32 || len(d.id) != 36 {
		hash := fnv.New64a()
		hash.Write([]byte(d.id))
		prefix = fmt.Sprintf("%s_%016x", prefix[:min(len(prefix), 16)], hash.Sum64())
	}
	return &emitter{source: d.source, prefix: prefix}
}

// expression returns the condition of a rule over one event, with the guard of its source.
func (d *document) expression(e *emitter) (string, *problem) {
	expression, err := e.condition(d.condition)
	if err != nil || d.source.guard == "" {
		return expression, err
	}
	if d.condition.op == "and" {
		expression = trimBrackets(expression)
	}
	// The guard comes last: of conditions that select alike, the index takes the first one.
	return "(" + expression + " and " + d.source.guard + ")", nil
}

// writeRule writes a rule over one event.
func (d *document) writeRule(c *Conversion) {
	e := d.newEmitter()
	expression, err := d.expression(e)
	if err != nil {
		d.refuse(err.node, "%s", err.message)
		return
	}
	var out strings.Builder
	d.writeHead(&out)
	fmt.Fprintf(&out, "    datasets: [%s]\n", strings.Join(d.source.datasets, ", "))
	writeBlock(&out, "    when", trimBrackets(expression))
	fmt.Fprintf(&out, "    alert: %s\n", yamlQuote(d.alert(e.fields)))

	match, other := exampleSamples(d.condition)
	if match != nil && other != nil {
		c.Examples = true
		out.WriteString("    tests:\n")
		writeCase(&out, d.source.eventOf(match), true)
		writeCase(&out, d.source.eventOf(other), false)
	}
	c.rule, c.lists = out.String(), e.lists
}

// writeHead writes what is known of a rule.
func (d *document) writeHead(out *strings.Builder) {
	fmt.Fprintf(out, "  - id: %s\n    title: %s\n", yamlQuote(d.id), yamlQuote(d.title))
	var about []string
	if d.description != "" {
		about = append(about, cut(d.description, 3000))
	}
	if len(d.positives) > 0 {
		about = append(about, "False positives: "+cut(strings.Join(d.positives, "; "), 500))
	}
	if d.license != "" {
		about = append(about, "License: "+d.license)
	}
	if len(about) > 0 {
		fmt.Fprintf(out, "    description: %s\n", yamlQuote(strings.Join(about, "\n")))
	}
	if d.author != "" {
		fmt.Fprintf(out, "    author: %s\n", yamlQuote(d.author))
	}
	writeList(out, "references", d.references)
	fmt.Fprintf(out, "    severity: %s\n", d.severity())
	writeList(out, "tags", d.tags)
}

func writeList(out *strings.Builder, name string, texts []string) {
	if len(texts) == 0 {
		return
	}
	fmt.Fprintf(out, "    %s:\n", name)
	for _, text := range texts {
		fmt.Fprintf(out, "      - %s\n", yamlQuote(text))
	}
}

// writeBlock writes an expression as a block of YAML, a line for each part of its outermost "and" or "or".
func writeBlock(out *strings.Builder, name, expression string) {
	fmt.Fprintf(out, "%s: |-\n", name)
	indent := strings.Repeat(" ", len(name)-len(strings.TrimLeft(name, " "))+2)
	for _, line := range breakLines(expression) {
		out.WriteString(indent + line + "\n")
	}
}

// breakLines breaks an expression in front of each "and" and "or" outside of brackets and texts.
func breakLines(expression string) (lines []string) {
	depth, start := 0, 0
	for i := 0; i < len(expression); i++ {
		switch c := expression[i]; c {
		case '"', '`':
			for i++; i < len(expression) && expression[i] != c; i++ {
				if expression[i] == '\\' && c == '"' {
					i++
				}
			}
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case ' ':
			rest := expression[i+1:]
			if depth == 0 && (strings.HasPrefix(rest, "and ") || strings.HasPrefix(rest, "or ")) {
				lines = append(lines, expression[start:i])
				start = i + 1
			}
		}
	}
	return append(lines, expression[start:])
}

// alert returns the text of the alerts of a rule. It names the author, as the Detection Rule License asks.
func (d *document) alert(fields []string) string {
	const most = 5
	var parts []string
	for _, field := range fields {
		if len(parts) < most {
			parts = append(parts, field+"={"+field+"}")
		}
	}
	by := "Sigma rule " + d.id
	if d.author != "" {
		by = "Sigma rule by " + strings.NewReplacer("{", "{{", "}", "}}", "\n", " ").Replace(d.author)
	}
	return strings.Join(append(parts, "("+by+")"), " ")
}

// writeCase writes a test case of one event.
func writeCase(out *strings.Builder, event map[string]string, fires bool) {
	fmt.Fprintf(out, "      - event: %s\n        fires: %v\n", flowEvent(event), fires)
}

// flowEvent returns an event as a mapping in one line.
func flowEvent(event map[string]string) string {
	var parts []string
	for _, field := range slices.Sorted(maps.Keys(event)) {
		parts = append(parts, field+": "+event[field])
	}
	return "{" + strings.Join(parts, ", ") + "}"
}
