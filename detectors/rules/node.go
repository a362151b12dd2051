package rules

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
)

// operation is the operator or function of a node.
type operation uint8

const (
	opConstant operation = iota // a literal
	opSlot                      // the value of a slot
	opElement                   // #, the element of the list that the loop around walks

	opNot
	opAnd
	opOr

	opNegate
	opAdd // also joins texts
	opSubtract
	opMultiply
	opDivide
	opModulo

	opEqual
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opContains // of two computed texts, as the next two
	opStartsWith
	opEndsWith

	opLower
	opUnescape
	opLookups
	opSQL
	opTrim
	opLength
	opFunction // of function
	opLevenshtein
	opFeed // a feed lists the value

	opAny
	opAll
	opNone
	opOne
	opCount
	opListContains // a constant is an element of a list field

	// Comparisons of one argument with constants.
	opIn
	opContainsAny
	opStartsWithAny
	opEndsWithAny
	opMatches
	opInNetwork
)

// operators holds the operations as authors write them, for errors and explanations.
var operators = [...]string{
	opNot: "not", opAnd: "and", opOr: "or", opNegate: "-", opAdd: "+", opSubtract: "-", opMultiply: "*", opDivide: "/", opModulo: "%",
	opEqual: "==", opNotEqual: "!=", opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">=",
	opContains: "contains", opStartsWith: "startsWith", opEndsWith: "endsWith", opLower: "lower", opUnescape: "unescape", opLookups: "lookups", opSQL: "sql",
	opTrim: "trim", opLength: "len", opLevenshtein: "levenshtein", opFeed: "feed", opAny: "any", opAll: "all", opNone: "none", opOne: "one", opCount: "count", opListContains: "in",
	opIn: "in", opContainsAny: "contains", opStartsWithAny: "startsWith", opEndsWithAny: "endsWith", opMatches: "matches", opInNetwork: "cidr",
}

// A node is a part of a resolved expression: names are slots, macros are expanded, and every value has a
// kind. The prefilter is derived from nodes, and closures are compiled from them.
type node struct {
	op   operation
	kind kind
	at   int     // rune of the expression; in a macro, of the macro's name
	args []*node // of a loop: its condition; of opListContains: the constant
	slot int     // opSlot, opListContains and loops: index in the slot table

	function *function // opFunction

	// The value of opConstant, by kind; text is also the name of the feed of opFeed.
	text    string
	number  int64
	decimal float64
	flag    bool

	// The constants of a comparison with constants.
	texts    []string
	numbers  []int64
	networks []netip.Prefix
	pattern  string // opMatches: as written, or of a glob
	syntax   *syntax.Regexp
	regex    *regexp.Regexp
}

// render returns n as an author would write it, with long constants shortened.
func (t *slotTable) render(n *node) string {
	arg := func(i int) string { return t.render(n.args[i]) }
	switch n.op {
	case opConstant:
		return n.constantText()
	case opSlot:
		return t.list[n.slot].label
	case opElement:
		return "#"
	case opNot:
		return "not (" + arg(0) + ")"
	case opNegate:
		return "-" + arg(0)
	case opLower, opUnescape, opLookups, opSQL, opTrim, opLength:
		return operators[n.op] + "(" + arg(0) + ")"
	case opFunction:
		return n.function.label(arg(0))
	case opFeed:
		return "feed(" + strconv.Quote(n.text) + ", " + arg(0) + ")"
	case opLevenshtein:
		return operators[n.op] + "(" + arg(0) + ", " + arg(1) + ")"
	case opAny, opAll, opNone, opOne, opCount:
		return operators[n.op] + "(" + t.list[n.slot].label + ", " + arg(0) + ")"
	case opListContains:
		return arg(0) + " in " + t.list[n.slot].label
	case opMatches:
		return arg(0) + " matches " + quoteShort(n.pattern)
	case opInNetwork:
		parts := []string{arg(0)}
		for _, p := range n.networks {
			parts = append(parts, strconv.Quote(p.String()))
		}
		return "cidr(" + strings.Join(firstParts(parts), ", ") + ")"
	case opIn, opContainsAny, opStartsWithAny, opEndsWithAny:
		return arg(0) + " " + operators[n.op] + " " + n.constantList()
	}
	return "(" + arg(0) + " " + operators[n.op] + " " + arg(1) + ")"
}

func (n *node) constantText() string {
	switch n.kind {
	case number:
		if n.text != "" { // a literal with a unit, or a time
			return n.text
		}
		return strconv.FormatInt(n.number, 10)
	case decimal:
		return strconv.FormatFloat(n.decimal, 'g', -1, 64)
	case text:
		return quoteShort(n.text)
	}
	return strconv.FormatBool(n.flag)
}

func (n *node) constantList() string {
	var parts []string
	for _, t := range n.texts {
		parts = append(parts, quoteShort(t))
	}
	for _, v := range n.numbers {
		parts = append(parts, strconv.FormatInt(v, 10))
	}
	if len(parts) == 1 && n.op != opIn {
		return parts[0]
	}
	return "[" + strings.Join(firstParts(parts), ", ") + "]"
}

// firstParts shortens a list for an error message.
func firstParts(parts []string) []string {
	const most = 5
	if len(parts) > most {
		return append(parts[:most:most], fmt.Sprintf("… %d more", len(parts)-most))
	}
	return parts
}

func quoteShort(text string) string {
	const most = 60
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strconv.Quote(text)
}
