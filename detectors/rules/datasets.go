package rules

import (
	"slices"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
)

// comparisonDatasets is where a leaf can be want. If it is not want while all its fields are absent, one of them must be there, and that one's
// dataset is the event's.
func (b *builder) comparisonDatasets(n ast.Node, want bool) datasetMask {
	if m, ok := b.datasetsByName(n, want); ok {
		return m
	}
	v, ok := b.valueWhenAbsent(n)
	if !ok || v == want {
		return allDatasets
	}
	var m datasetMask
	for _, i := range b.appendSlots(n, nil) {
		m |= b.slotDatasets(i)
	}
	return m
}

// datasetsByName reads event.dataset == "x" and event.dataset in [...]; false where n is neither.
func (b *builder) datasetsByName(n ast.Node, want bool) (datasetMask, bool) {
	var m datasetMask
	var of ast.Node
	var texts []string
	if t := b.tests[n]; t != nil && t.op == isIn {
		of, texts = t.subject, t.texts
	} else if c, ok := n.(*ast.BinaryNode); ok && (c.Operator == "==" || c.Operator == "!=") {
		v, isText := c.Right.(*ast.StringNode)
		if !isText {
			return 0, false
		}
		of, texts = c.Left, []string{v.Value}
		want = want == (c.Operator == "==")
	}
	if of == nil {
		return 0, false
	}
	if i := b.slotOf(of); i < 0 || b.slots.list[i].label != "event.dataset" {
		return 0, false
	}
	for _, name := range texts {
		if d := pipeline.DatasetByName(name); d != pipeline.Dataset_DATASET_NONE || name == "" {
			m |= maskOf(d)
		}
	}
	if !want {
		m = allDatasets &^ m
	}
	return m, true
}

func (b *builder) slotDatasets(i int) datasetMask {
	if i < 0 {
		return allDatasets
	}
	if d := b.slots.list[i].body; d != pipeline.Dataset_DATASET_NONE {
		return maskOf(d)
	}
	return allDatasets
}

// appendSlots lists the slots under n.
func (b *builder) appendSlots(n ast.Node, into []int) []int {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		if i := b.slotOf(n); i >= 0 {
			into = append(into, i)
		}
	case *ast.UnaryNode:
		into = b.appendSlots(n.Node, into)
	case *ast.BinaryNode:
		into = b.appendSlots(n.Right, b.appendSlots(n.Left, into))
	case *ast.CallNode:
		for _, a := range n.Arguments {
			into = b.appendSlots(a, into)
		}
	case *ast.BuiltinNode:
		for _, a := range n.Arguments {
			into = b.appendSlots(a, into)
		}
	case *ast.PredicateNode:
		into = b.appendSlots(n.Node, into)
	}
	return into
}

// valueWhenAbsent tells what n is while every field of it is absent, if that is plain.
func (b *builder) valueWhenAbsent(n ast.Node) (value, ok bool) {
	if t := b.tests[n]; t != nil {
		if b.slotOf(t.subject) < 0 {
			return false, false
		}
		return t.whenAbsent(), true
	}
	if i := b.slotOf(n); i >= 0 && b.slots.list[i].kind == flag {
		return false, true
	}
	c, isBinary := n.(*ast.BinaryNode)
	if !isBinary {
		return false, false
	}
	if b.slotOf(c.Left) < 0 {
		return false, false
	}
	switch v := c.Right.(type) {
	case *ast.StringNode:
		return textWhenAbsent(c.Operator, v.Value)
	case *ast.IntegerNode:
		return numberWhenAbsent(c.Operator, v.Value)
	}
	return false, false
}

func (t *test) whenAbsent() bool {
	switch t.op {
	case isIn:
		return slices.Contains(t.texts, "") || slices.Contains(t.numbers, 0)
	case inNetwork:
		return false
	case matches:
		return t.code.MatchString("")
	}
	return slices.Contains(t.texts, "")
}

func textWhenAbsent(operator, v string) (value, ok bool) {
	switch operator {
	case "==", "contains", "startsWith", "endsWith":
		return v == "", true
	case "!=":
		return v != "", true
	}
	return false, false
}

func numberWhenAbsent(operator string, v int) (value, ok bool) {
	switch operator {
	case "==":
		return v == 0, true
	case "!=":
		return v != 0, true
	case "<":
		return 0 < v, true
	case "<=":
		return 0 <= v, true
	case ">":
		return 0 > v, true
	case ">=":
		return 0 >= v, true
	}
	return false, false
}
