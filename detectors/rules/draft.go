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

// A draft is a rule as it was read, before its expressions are compiled.
type draft struct {
	Rule
	doc        *document
	at         place
	when       passage
	exceptions []passage
	alert      passage
	names      *names
	datasets   mask
}

// rule reads one rule.
func (f *ruleFile) rule(n ast.Node) {
	ps, ok := f.doc.pairs(n, "")
	if !ok {
		return
	}
	r := &draft{doc: f.doc, at: placeOf(n), names: &f.names, datasets: everywhere}
	r.File, r.Line, r.Score = f.doc.file, r.at.line, 100
	where := ""
	for _, p := range ps {
		if t, ok := scalarText(p.value); ok && p.key == "id" {
			where, r.at = t, p.at
		}
	}
	f.doc.only(ps, where, ruleKeys)
	for _, p := range ps {
		r.key(p, where)
	}
	for _, missing := range []struct {
		key   string
		there bool
	}{{"id", r.ID != ""}, {"title", r.Title != ""}, {"severity", r.Severity != 0}, {"when", r.when.doc != nil}} {
		if !missing.there && !slices.ContainsFunc(ps, func(p pair) bool { return p.key == missing.key }) {
			f.doc.fail(r.at, join(where, missing.key), "is missing")
		}
	}
	f.drafts = append(f.drafts, r)
}

// key reads one key of a rule.
func (r *draft) key(p pair, where string) {
	d, key := r.doc, join(where, p.key)
	str := func(into *string) {
		if t, ok := d.text(p.value, key, maxText); ok {
			if *into = strings.TrimSpace(t.text); *into == "" {
				d.fail(placeOf(p.value), key, "is empty")
			}
		}
	}
	switch p.key {
	case "id":
		if str(&r.ID); r.ID != "" && !idForm.MatchString(r.ID) {
			d.fail(placeOf(p.value), key, "an id is made of a-z, 0-9, '.', '_' and '-', at most 100, and begins with a letter or digit")
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
				d.fail(placeOf(p.value), key, "unknown severity %q: info, low, medium, high or critical", name)
			}
		}
	case "score":
		if v, ok := d.number(p.value, key, 1, 100); ok {
			r.Score = uint32(v)
		}
	case "references":
		r.References = d.texts(p.value, key, 100)
	case "tags":
		r.Tags = d.texts(p.value, key, 100)
	case "dataset", "datasets":
		r.dataset(p, key)
	case "when":
		r.when, _ = d.text(p.value, key, maxExpression)
	case "exceptions":
		for _, v := range d.items(p.value, key, 100) {
			if t, ok := d.text(v, key, maxExpression); ok {
				r.exceptions = append(r.exceptions, t)
			}
		}
	case "group":
		r.group(p, key)
	case "alert":
		r.alert, _ = d.text(p.value, key, maxText)
	case "tests":
		r.tests(p, key)
	}
}

func (r *draft) dataset(p pair, key string) {
	r.datasets = 0
	for _, v := range r.doc.items(p.value, key, 10) {
		t, ok := r.doc.text(v, key, maxText)
		if !ok {
			continue
		}
		ds := pipeline.DatasetByName(t.text)
		if ds == pipeline.Dataset_DATASET_NONE {
			var known []string
			for i := pipeline.Dataset_SESSION; i <= pipeline.Dataset_CONTAINER; i++ {
				known = append(known, i.Name())
			}
			r.doc.fail(t.at, key, "unknown dataset %q%s", t.text, meant(t.text, known))
		}
		r.datasets |= maskOf(ds)
	}
}

func (r *draft) group(p pair, key string) {
	for _, v := range r.doc.items(p.value, key, 8) {
		t, ok := r.doc.text(v, key, maxText)
		if !ok {
			continue
		}
		f := pipeline.Lookup(t.text)
		if f == nil {
			r.doc.fail(t.at, key, "unknown field %q%s", t.text, meant(t.text, fieldNames()))
			continue
		}
		if _, err := fieldKind(f); err != nil {
			r.doc.fail(t.at, key, "%v", err)
			continue
		}
		r.Group = append(r.Group, f.Name)
		r.fields = append(r.fields, f)
	}
}

func (r *draft) tests(p pair, key string) {
	for i, v := range r.doc.items(p.value, key, maxTests) {
		ps, ok := r.doc.pairs(v, key)
		if !ok {
			continue
		}
		c := Case{Name: fmt.Sprintf("case %d", i+1), Line: placeOf(v).line}
		r.doc.only(ps, key, testKeys)
		fires := false
		for _, q := range ps {
			switch q.key {
			case "name":
				if t, ok := r.doc.text(q.value, join(key, q.key), maxText); ok {
					c.Name = t.text
				}
			case "fires":
				c.Fires, _ = r.doc.boolean(q.value, join(key, q.key))
				fires = true
			case "event":
				c.event = r.doc.event(q.value, join(key, q.key))
			}
		}
		if !fires {
			r.doc.fail(placeOf(v), join(key, "fires"), "is missing")
		}
		if c.event == nil {
			r.doc.fail(placeOf(v), join(key, "event"), "is missing")
		}
		r.Tests = append(r.Tests, c)
	}
}

// hash is the first bytes of SHA-256 over parts, hex.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:6])
}
