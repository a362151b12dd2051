package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// decodeStrict decodes the YAML of a file over what into holds. Every error names file, line and key; a key that is not known, the
// nearest that is. All of the unknown keys are told, not the first.
func decodeStrict(name string, b []byte, into any) error {
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return inFile(name, err)
	}
	var errs []error
	for _, doc := range file.Docs {
		if doc.Body != nil {
			errs = append(errs, unknownKeys(name, "", doc.Body, reflect.TypeOf(into).Elem())...)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if err := yaml.UnmarshalWithOptions(b, into, yaml.Strict()); err != nil {
		return inFile(name, err)
	}
	return nil
}

// inFile rewrites what the library says of a place into one line.
func inFile(name string, err error) error {
	var ye yaml.Error
	if errors.As(err, &ye) && ye.GetToken() != nil {
		p := ye.GetToken().Position
		return fmt.Errorf("%s:%d:%d: %s", name, p.Line, p.Column, ye.GetMessage())
	}
	return fmt.Errorf("%s: %w", name, err)
}

func unknownKeys(file, path string, n ast.Node, t reflect.Type) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		var errs []error
		for _, v := range n.Values {
			errs = append(errs, unknownKey(file, path, v, t)...)
		}
		return errs
	case *ast.MappingValueNode:
		return unknownKey(file, path, n, t)
	case *ast.SequenceNode:
		if t.Kind() != reflect.Slice {
			return nil
		}
		var errs []error
		for i, v := range n.Values {
			errs = append(errs, unknownKeys(file, fmt.Sprintf("%s[%d]", path, i), v, t.Elem())...)
		}
		return errs
	}
	return nil
}

func unknownKey(file, path string, v *ast.MappingValueNode, t reflect.Type) []error {
	if t.Kind() != reflect.Struct {
		return nil // a map takes any key; a wrong type is the decoder's to tell
	}
	key := v.Key.String()
	full := strings.TrimPrefix(path+"."+key, ".")
	known := yamlKeys(t)
	if ft, ok := known[key]; ok {
		return unknownKeys(file, full, v.Value, ft)
	}
	hint := ""
	if near := nearest(key, known); near != "" {
		hint = fmt.Sprintf("; nearest is %q", near)
	}
	p := v.Key.GetToken().Position
	return []error{fmt.Errorf("%s:%d:%d: %s is not a key%s", file, p.Line, p.Column, full, hint)}
}

// yamlKeys are the keys of a struct, those of inlined structs included.
func yamlKeys(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case opts == "inline":
			maps.Copy(out, yamlKeys(f.Type))
		case name != "":
			out[name] = f.Type
		}
	}
	return out
}

func nearest[T any](word string, known map[string]T) string {
	best, bestAt := "", len(word)/2+1
	for k := range known {
		if d := distance(word, k); d < bestAt || d == bestAt && best != "" && k < best {
			best, bestAt = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
