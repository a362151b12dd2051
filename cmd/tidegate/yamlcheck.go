package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

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
		return wrongValue(name, file, err)
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

// wrongValue says of which key a value does not fit, and what is meant.
func wrongValue(name string, file *ast.File, err error) error {
	var ye yaml.Error
	if !errors.As(err, &ye) || ye.GetToken() == nil {
		return inFile(name, err)
	}
	p, key := ye.GetToken().Position, ""
	for path, at := range keyPlaces(file) {
		if at.value == (place{p.Line, p.Column}) && len(path) > len(key) {
			key = path
		}
	}
	if key == "" {
		return inFile(name, err)
	}
	var te *yaml.TypeError
	var oe *yaml.OverflowError
	message := ye.GetMessage()
	switch {
	case errors.As(err, &te):
		message = fmt.Sprintf("%q is not %s", ye.GetToken().Value, meant(te.DstType))
	case errors.As(err, &oe):
		message = fmt.Sprintf("%s is out of range", oe.SrcNum)
	}
	return fmt.Errorf("%s:%d:%d: %s: %s", name, p.Line, p.Column, key, message)
}

// meant is a type in words.
func meant(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration like 150ms, 10s or 48h"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		return "a whole number"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Slice:
		return "a list, such as [a, b]"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Map:
		return "a section of keys"
	}
	return "a " + t.Kind().String()
}

// A place is a line and a column of a file, from 1.
type place struct{ line, column int }

type keyPlace struct{ key, value place }

// keyPlaces tells where each key of a file stands, by its path: kafka.tls.enabled, feeds[1].path; of an entry of a list, where it begins.
func keyPlaces(file *ast.File) map[string]keyPlace {
	out := map[string]keyPlace{}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			findKeys(out, "", doc.Body)
		}
	}
	return out
}

func findKeys(out map[string]keyPlace, path string, n ast.Node) {
	at := func(n ast.Node) place {
		if n == nil || n.GetToken() == nil {
			return place{}
		}
		p := n.GetToken().Position
		return place{p.Line, p.Column}
	}
	pair := func(v *ast.MappingValueNode) {
		full := strings.TrimPrefix(path+"."+v.Key.String(), ".")
		out[full] = keyPlace{at(v.Key), at(v.Value)}
		findKeys(out, full, v.Value)
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			pair(v)
		}
	case *ast.MappingValueNode:
		pair(n)
	case *ast.SequenceNode:
		for i, v := range n.Values {
			full := fmt.Sprintf("%s[%d]", path, i)
			begin := at(v)
			if m, ok := v.(*ast.MappingNode); ok && len(m.Values) > 0 {
				begin = at(m.Values[0].Key)
			} else if m, ok := v.(*ast.MappingValueNode); ok {
				begin = at(m.Key)
			}
			out[full] = keyPlace{begin, at(v)}
			findKeys(out, full, v)
		}
	}
}

// locate puts file, line and column before an error that begins with a key. A key that is not in the file, such as a default, has the
// place of the part that it belongs to, or none.
func locate(file string, keys map[string]keyPlace, err error) error {
	key, _, _ := strings.Cut(err.Error(), ": ")
	for key != "" {
		if at, ok := keys[key]; ok {
			return fmt.Errorf("%s:%d:%d: %w", file, at.key.line, at.key.column, err)
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return fmt.Errorf("%s: %w", file, err)
}

func unknownKeys(file, path string, n ast.Node, t reflect.Type) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			return misplaced(file, path, n, "a section of keys", t)
		}
		var errs []error
		for _, v := range n.Values {
			errs = append(errs, unknownKey(file, path, v, t)...)
		}
		return errs
	case *ast.MappingValueNode:
		if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
			return misplaced(file, path, n.Key, "a section of keys", t)
		}
		return unknownKey(file, path, n, t)
	case *ast.SequenceNode:
		if t.Kind() != reflect.Slice {
			return misplaced(file, path, n, "a list", t)
		}
		var errs []error
		for i, v := range n.Values {
			errs = append(errs, unknownKeys(file, fmt.Sprintf("%s[%d]", path, i), v, t.Elem())...)
		}
		return errs
	}
	return wrongScalar(file, path, n, t)
}

func misplaced(file, path string, n ast.Node, found string, t reflect.Type) []error {
	p := n.GetToken().Position
	return []error{fmt.Errorf("%s:%d:%d: %s: %s, where %s is meant", file, p.Line, p.Column, path, found, meant(t))}
}

// wrongScalar tells a value that is not of the type of its key. Only what is surely wrong: the decoder has the last word.
func wrongScalar(file, path string, n ast.Node, t reflect.Type) []error {
	ok := true
	text := ""
	switch n := n.(type) {
	case *ast.StringNode:
		text = n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.String()
	default:
		return nil
	}
	switch kind := t.Kind(); {
	case t == reflect.TypeFor[time.Duration]():
		_, err := time.ParseDuration(text)
		ok = err == nil
	case kind == reflect.Bool:
		_, ok = n.(*ast.BoolNode)
	case kind >= reflect.Int && kind <= reflect.Uint64:
		_, err := strconv.ParseFloat(text, 64)
		_, whole := n.(*ast.IntegerNode)
		ok = err == nil || whole
	case kind == reflect.Struct || kind == reflect.Map || kind == reflect.Slice:
		ok = false
	}
	if ok {
		return nil
	}
	p := n.GetToken().Position
	return []error{fmt.Errorf("%s:%d:%d: %s: %q is not %s", file, p.Line, p.Column, path, text, meant(t))}
}

func unknownKey(file, path string, v *ast.MappingValueNode, t reflect.Type) []error {
	if t.Kind() != reflect.Struct {
		return nil // a map takes any key
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
