package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"tidegate/pipeline"
)

// A parsedRule is a rule as it was read, before its expressions are compiled.
type parsedRule struct {
	Rule
	doc        *document
	at         position
	when       sourceText
	exceptions []sourceText
	alert      sourceText
	names      *names
	datasets   datasetMask
}

// parseRule reads one rule.
func (f *ruleFile) parseRule(n ast.Node) {
	ps, ok := f.doc.readMapping(n, "")
	if !ok {
		return
	}
	r := &parsedRule{doc: f.doc, at: positionOfNode(n), names: &f.names, datasets: allDatasets}
	r.File, r.Line, r.Score = f.doc.file, r.at.line, 100
	where := ""
	for _, p := range ps {
		if t, ok := scalarText(p.value); ok && p.key == "id" {
			where, r.at = t, p.at
		}
	}
	f.doc.rejectUnknownKeys(ps, where, ruleKeys)
	for _, p := range ps {
		r.parseKey(p, where)
	}
	for _, missing := range []struct {
		key   string
		there bool
	}{{"id", r.ID != ""}, {"title", r.Title != ""}, {"severity", r.Severity != 0}, {"when", r.when.doc != nil}} {
		if !missing.there && !slices.ContainsFunc(ps, func(p pair) bool { return p.key == missing.key }) {
			f.doc.addError(r.at, joinKeys(where, missing.key), "is missing")
		}
	}
	f.drafts = append(f.drafts, r)
}

// parseKey reads one key of a rule.
func (r *parsedRule) parseKey(p pair, where string) {
	d, key := r.doc, joinKeys(where, p.key)
	str := func(into *string) {
		if t, ok := d.readText(p.value, key, maxText); ok {
			if *into = strings.TrimSpace(t.text); *into == "" {
				d.addError(positionOfNode(p.value), key, "is empty")
			}
		}
	}
	switch p.key {
	case "id":
		if str(&r.ID); r.ID != "" && !idForm.MatchString(r.ID) {
			d.addError(positionOfNode(p.value), key, "an id is made of a-z, 0-9, '.', '_' and '-', at most 100, and begins with a letter or digit")
		}
	case "title":
		str(&r.Title)
	case "description":
		str(&r.Description)
	case "author":
		str(&r.Author)
	case "version":
		str(&r.Version)
	case "severity":
		var name string
		if str(&name); name != "" {
			if r.Severity = pipeline.SeverityByName(name); r.Severity == 0 {
				d.addError(positionOfNode(p.value), key, "unknown severity %q: info, low, medium, high or critical", name)
			}
		}
	case "score":
		if v, ok := d.readNumber(p.value, key, 1, 100); ok {
			r.Score = uint32(v)
		}
	case "references":
		r.References = d.readTexts(p.value, key, 100)
	case "tags":
		r.Tags = d.readTexts(p.value, key, 100)
	case "dataset", "datasets":
		r.parseDatasets(p, key)
	case "when":
		r.when, _ = d.readText(p.value, key, maxExpression)
	case "exceptions":
		for _, v := range d.readList(p.value, key, 100) {
			if t, ok := d.readText(v, key, maxExpression); ok {
				r.exceptions = append(r.exceptions, t)
			}
		}
	case "group":
		r.parseGroup(p, key)
	case "alert":
		r.alert, _ = d.readText(p.value, key, maxText)
	case "tests":
		r.parseTests(p, key)
	}
}

func (r *parsedRule) parseDatasets(p pair, key string) {
	r.datasets = 0
	for _, v := range r.doc.readList(p.value, key, pipeline.NumDatasets) {
		t, ok := r.doc.readText(v, key, maxText)
		if !ok {
			continue
		}
		ds := pipeline.DatasetByName(t.text)
		if ds == pipeline.Dataset_DATASET_NONE {
			r.doc.addError(t.at, key, "unknown dataset %q%s", t.text, didYouMean(t.text, pipeline.DatasetNames()))
		}
		r.datasets |= maskOf(ds)
	}
}

func (r *parsedRule) parseGroup(p pair, key string) {
	for _, v := range r.doc.readList(p.value, key, 8) {
		t, ok := r.doc.readText(v, key, maxText)
		if !ok {
			continue
		}
		f := pipeline.Lookup(t.text)
		if f == nil {
			r.doc.addError(t.at, key, "unknown field %q%s", t.text, didYouMean(t.text, fieldNames()))
			continue
		}
		if _, err := fieldKind(f); err != nil {
			r.doc.addError(t.at, key, "%v", err)
			continue
		}
		r.Group = append(r.Group, f.Name)
		r.fields = append(r.fields, f)
	}
}

func (r *parsedRule) parseTests(p pair, key string) {
	for i, v := range r.doc.readList(p.value, key, maxTests) {
		ps, ok := r.doc.readMapping(v, key)
		if !ok {
			continue
		}
		c := Case{Name: fmt.Sprintf("case %d", i+1), Line: positionOfNode(v).line}
		r.doc.rejectUnknownKeys(ps, key, testKeys)
		fires := false
		for _, q := range ps {
			switch q.key {
			case "name":
				if t, ok := r.doc.readText(q.value, joinKeys(key, q.key), maxText); ok {
					c.Name = t.text
				}
			case "fires":
				c.Fires, _ = r.doc.readBool(q.value, joinKeys(key, q.key))
				fires = true
			case "event":
				c.event = r.doc.readEvent(q.value, joinKeys(key, q.key))
			}
		}
		if !fires {
			r.doc.addError(positionOfNode(v), joinKeys(key, "fires"), "is missing")
		}
		if c.event == nil {
			r.doc.addError(positionOfNode(v), joinKeys(key, "event"), "is missing")
		}
		r.Tests = append(r.Tests, c)
	}
}

// shortHash is the first bytes of SHA-256 over parts, hex.
func shortHash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
