package rules

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"tidegate/pipeline"
)

// expr's lexer has no durations (5s), sizes (8MiB) and no @timestamp. parseExpression hides them as identifiers of the
// same number of runes, so that positions stay right, and the resolver shows them again.

// hiddenBase is added to each ASCII character of what is hidden. The result is a letter of a script that no expression
// uses otherwise (Egyptian hieroglyphs).
const hiddenBase = 0x13000

// units are the units of literals: nanoseconds and bytes.
var units = map[string]int64{
	"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9, "d": 24 * 3600e9,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// parseExpression parses the text of an expression.
func parseExpression(source string) (*parser.Tree, error) {
	return parser.Parse(hideLiterals(source))
}

// hideLiterals replaces the characters of literals with units, and of @timestamp, outside of texts and comments.
func hideLiterals(source string) string {
	runes := []rune(source)
	for i := 0; i < len(runes); {
		switch c := runes[i]; {
		case c == '"' || c == '\'' || c == '`':
			i = endOfText(runes, i)
		case c == '/' && i+1 < len(runes) && (runes[i+1] == '/' || runes[i+1] == '*'):
			i = endOfComment(runes, i)
		case c == '@' && i+1 < len(runes) && unicode.IsLetter(runes[i+1]):
			runes[i] += hiddenBase
			i = endOfName(runes, i+1)
		case unicode.IsDigit(c):
			end := endOfName(runes, i)
			if literal := string(runes[i:end]); hasUnit(literal) {
				for ; i < end; i++ {
					runes[i] += hiddenBase
				}
			}
			i = end
		case c == '_' || c == '$' || unicode.IsLetter(c):
			i = endOfName(runes, i)
		default:
			i++
		}
	}
	return string(runes)
}

// endOfText returns the index behind the text that begins with a quote at i.
func endOfText(runes []rune, i int) int {
	quote := runes[i]
	for i++; i < len(runes) && runes[i] != quote; i++ {
		if runes[i] == '\\' && quote != '`' {
			i++
		}
	}
	return min(i+1, len(runes))
}

// endOfComment returns the index behind the comment at i.
func endOfComment(runes []rune, i int) int {
	line := runes[i+1] == '/'
	for i += 2; i < len(runes); i++ {
		if line && runes[i] == '\n' || !line && runes[i] == '*' && i+1 < len(runes) && runes[i+1] == '/' {
			break
		}
	}
	return min(i+1, len(runes))
}

// endOfName returns the index behind the letters, digits and dots from i on, which are a name or a number.
func endOfName(runes []rune, i int) int {
	for i < len(runes) && (runes[i] == '_' || runes[i] == '$' || runes[i] == '.' || unicode.IsLetter(runes[i]) || unicode.IsDigit(runes[i])) {
		i++
	}
	return i
}

// compound matches a length of time of several parts, such as 1h30m.
var compound = regexp.MustCompile(`^([0-9]{1,9}(ns|us|ms|s|m|h|d)){2,6}$`)

// hasUnit reports whether a literal is a number with a unit, or a length of time of several parts.
func hasUnit(literal string) bool {
	_, _, ok := cutUnit(literal)
	return ok || compound.MatchString(literal)
}

// cutUnit divides a literal into its number and the value of its unit.
func cutUnit(literal string) (number string, unit int64, ok bool) {
	number = strings.TrimRightFunc(literal, func(r rune) bool { return unicode.IsLetter(r) })
	if strings.Trim(number, "0123456789_.") != "" || strings.Contains(literal, "µ") {
		return "", 0, false
	}
	unit, ok = units[literal[len(number):]]
	return number, unit, ok
}

// shown returns text with its hidden characters as they were written.
func shown(text string) string {
	if !strings.ContainsFunc(text, isHidden) {
		return text
	}
	return strings.Map(func(r rune) rune {
		if isHidden(r) {
			return r - hiddenBase
		}
		return r
	}, text)
}

func isHidden(r rune) bool { return r >= hiddenBase && r < hiddenBase+unicode.MaxASCII }

// isLiteral reports whether a name is a hidden literal with a unit.
func isLiteral(name string) bool {
	return name != "" && isHidden([]rune(name)[0]) && !strings.HasPrefix(shown(name), "@")
}

// literal resolves a number with a unit, whose text is hidden in a name.
func (r *resolver) literal(expr ast.Node, name string) *node {
	text := shown(name)
	value, err := literalValue(text)
	if err != nil {
		return r.addError(expr, "%v", err)
	}
	return &node{op: opConstant, kind: number, at: r.at(expr), number: value, text: text}
}

// listLiteral resolves an element of a list that is a name: a number with a unit is a constant, any other name is an
// error.
func (r *resolver) listLiteral(id *ast.IdentifierNode) *node {
	if isLiteral(id.Value) {
		return r.literal(id, id.Value)
	}
	return r.addError(id, "a list holds constants only")
}

// literalValue returns a duration in nanoseconds, or a size in bytes.
func literalValue(literal string) (int64, error) {
	if compound.MatchString(literal) {
		length, err := parseDuration(literal)
		if err != nil {
			return 0, fmt.Errorf("%s is not a length of time, or too long: write 1d12h or 1h30m", literal)
		}
		return int64(length), nil
	}
	number, unit, _ := cutUnit(literal)
	number = strings.ReplaceAll(number, "_", "")
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		if whole > math.MaxInt64/unit {
			return 0, fmt.Errorf("%s is too large", literal)
		}
		return whole * unit, nil
	}
	value, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is not a number with a unit", literal)
	case value*float64(unit) >= math.MaxInt64:
		return 0, fmt.Errorf("%s is too large", literal)
	}
	return int64(math.Round(value * float64(unit))), nil
}

// lookupField returns the field of a name as an author may write it; nil if there is none. The time of an event has two
// names.
func lookupField(name string) *pipeline.Field {
	if name == "timestamp" {
		name = "@timestamp"
	}
	return pipeline.Lookup(name)
}

// timeForms are the forms of a time that is compared with a field. Without a zone it is UTC.
var timeForms = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly,
}

// parseTime returns a time in nanoseconds since 1970.
func parseTime(text string) (int64, error) {
	for _, form := range timeForms {
		if parsed, err := time.Parse(form, text); err == nil {
			if year := parsed.Year(); year < 1678 || year > 2261 {
				return 0, fmt.Errorf("%q is out of range: years from 1678 to 2261", text)
			}
			return parsed.UnixNano(), nil
		}
	}
	return 0, fmt.Errorf("%q is not a time: write it as 2026-11-27T16:20:00Z, 2026-11-27 16:20 or 2026-11-27", text)
}

// isTime reports whether a node is the time of a field.
func (t *slotTable) isTime(n *node) bool {
	return n.op == opSlot && t.list[n.slot].how == raw && t.list[n.slot].field != nil && t.list[n.slot].field.Time != nil
}

// compareTime turns the text on one side of a comparison into a time if a time is on the other side. ok is false after
// an error, which was added.
func (r *resolver) compareTime(expr ast.Node, op operation, left, right *node) (newLeft, newRight *node, ok bool) {
	switch op {
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
	default:
		return left, right, true
	}
	convert := func(constant, other *node) (*node, bool) {
		if constant.op != opConstant || constant.kind != text || !r.slots.isTime(other) {
			return constant, true
		}
		value, err := parseTime(constant.text)
		if err != nil {
			r.addError(expr, "%v", err)
			return constant, false
		}
		return &node{op: opConstant, kind: number, at: constant.at, number: value, text: strconv.Quote(constant.text)}, true
	}
	newLeft, leftOK := convert(left, right)
	newRight, rightOK := convert(right, left)
	return newLeft, newRight, leftOK && rightOK
}
