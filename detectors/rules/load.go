package rules

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"tidegate/pipeline"
)

// The bounds of a set of rules.
const (
	maxFiles = 2000
	maxRules = 50000
	maxTests = 200
	maxText  = 4096
)

// A Source is one rule file.
type Source struct {
	Name string // as errors call it
	Data []byte
}

// Read finds the rule files under fsys (*.yaml, *.yml; what begins with a dot is left out, such as the inner folders of a
// ConfigMap), sorted by path. prefix goes before their names in errors.
func Read(fsys fs.FS, prefix string) ([]Source, error) {
	var out []Source
	err := fs.WalkDir(fsys, ".", func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if name != "." && strings.HasPrefix(name, ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || !isRuleFile(name) {
			return nil
		}
		if len(out) >= maxFiles {
			return fmt.Errorf("more than %d rule files", maxFiles)
		}
		data, err := readFile(fsys, p)
		if err != nil {
			return err
		}
		out = append(out, Source{Name: path.Join(prefix, p), Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read rules in %s: %w", prefix, err)
	}
	return out, nil
}

func isRuleFile(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// readFile reads a little more than is allowed, so that the excess is noticed without being held.
func readFile(fsys fs.FS, p string) ([]byte, error) {
	f, err := fsys.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", p)
	}
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

// A file is a rule file as it was read.
type ruleFile struct {
	doc    *document
	shared bool
	names  names
	macros []namedText // to check one by one
	drafts []*parsedRule
}

type namedText struct {
	name string
	text sourceText
}

var (
	idForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,99}$`)
	nameForm = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,63}$`)

	fileKeys = []string{"lists", "macros", "rules", "shared"}
	ruleKeys = []string{
		"alert", "author", "dataset", "datasets", "description", "exceptions", "group", "id", "references", "score", "severity", "tags",
		"tests", "title", "version", "when",
	}
	testKeys = []string{"event", "fires", "name"}
)

// parseFile reads one file: a list of rules, one rule, or a mapping with rules, lists and macros.
func parseFile(src Source, errs *problems) *ruleFile {
	f := &ruleFile{doc: &document{file: src.Name, data: src.Data, errs: errs}}
	f.names = names{lists: map[string]*list{}, macros: map[string]*macro{}}
	root := f.doc.parse()
	switch n := root.(type) {
	case nil:
	case *ast.SequenceNode:
		f.parseRules(n)
	default:
		ps, ok := f.doc.readMapping(n, "")
		if !ok {
			break
		}
		if slices.ContainsFunc(ps, func(p pair) bool { return slices.Contains(fileKeys, p.key) }) {
			f.parseSections(ps)
		} else {
			f.parseRule(n)
		}
	}
	return f
}

func (f *ruleFile) parseRules(n *ast.SequenceNode) {
	for _, v := range n.Values {
		if len(f.drafts) >= maxRules {
			f.doc.addError(positionOfNode(v), "", "more than %d rules", maxRules)
			return
		}
		f.parseRule(v)
	}
}

func (f *ruleFile) parseSections(ps []pair) {
	d := f.doc
	d.rejectUnknownKeys(ps, "", fileKeys)
	for _, p := range ps {
		switch p.key {
		case "shared":
			f.shared, _ = d.readBool(p.value, p.key)
		case "lists":
			f.parseLists(p.value)
		case "macros":
			f.parseMacros(p.value)
		case "rules":
			if s, ok := p.value.(*ast.SequenceNode); ok {
				f.parseRules(s)
			} else {
				d.addError(positionOfNode(p.value), p.key, "expected a list, got %s", kindOf(p.value))
			}
		}
	}
}

// nameIsFree tells whether a list or macro can have this name.
func (f *ruleFile) nameIsFree(p pair, where string) bool {
	switch {
	case !nameForm.MatchString(p.key):
		f.doc.addError(p.at, joinKeys(where, p.key), "a name is made of a-z, 0-9 and _")
	case pipeline.Lookup(p.key) != nil, slices.Contains(functions, p.key):
		f.doc.addError(p.at, joinKeys(where, p.key), "is the name of a field or function already")
	case f.names.lists[p.key] != nil, f.names.macros[p.key] != nil:
		f.doc.addError(p.at, joinKeys(where, p.key), "is defined already")
	default:
		return true
	}
	return false
}

func (f *ruleFile) parseLists(n ast.Node) {
	ps, _ := f.doc.readMapping(n, "lists")
	for _, p := range ps {
		key := joinKeys("lists", p.key)
		if !f.nameIsFree(p, "lists") {
			continue
		}
		l := &list{}
		for _, v := range f.doc.readList(p.value, key, maxList) {
			if i, ok := v.(*ast.IntegerNode); ok {
				if x, ok := f.doc.readNumber(i, key, -1<<62, 1<<62); ok {
					l.numbers = append(l.numbers, int64(x))
				}
			} else if t, ok := f.doc.readText(v, key, maxText); ok {
				l.texts = append(l.texts, t.text)
			}
		}
		if (len(l.texts) == 0) == (len(l.numbers) == 0) {
			f.doc.addError(positionOfNode(p.value), key, "a list holds texts or numbers, at least one and not both")
			continue
		}
		f.names.lists[p.key] = l
	}
}

func (f *ruleFile) parseMacros(n ast.Node) {
	ps, _ := f.doc.readMapping(n, "macros")
	for _, p := range ps {
		if !f.nameIsFree(p, "macros") {
			continue
		}
		if t, ok := f.doc.readText(p.value, joinKeys("macros", p.key), maxExpression); ok {
			f.names.macros[p.key] = &macro{text: t.text}
			f.macros = append(f.macros, namedText{p.key, t})
		}
	}
}
