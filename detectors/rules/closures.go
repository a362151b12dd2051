package rules

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"

	"tidegate/pipeline/authority"
)

// An expression is compiled to closures: each node becomes a Go function of the node's kind, which calls the
// functions of the node's arguments. Kinds are known at compile time, so evaluation neither boxes values nor
// checks types. It allocates only where + joins texts, or where a function changes a computed text.
// docs/adr/0009-rules-behind-an-index.md compares the time with that of expr's virtual machine;
// TestVerdictsAreThoseOfTheVirtualMachine compares the verdicts.
type (
	textFunc    func(*eventValues) string
	numberFunc  func(*eventValues) int64
	decimalFunc func(*eventValues) float64
	flagFunc    func(*eventValues) bool
	addressFunc func(*eventValues) netip.Addr
)

// flagClosure returns the function of a node that is true or false.
func (n *node) flagClosure() flagFunc {
	switch n.op {
	case opConstant:
		value := n.flag
		return func(*eventValues) bool { return value }
	case opSlot:
		slot := n.slot
		return func(v *eventValues) bool { return v.slot(slot).flag }
	case opNot:
		of := n.args[0].flagClosure()
		return func(v *eventValues) bool { return !of(v) }
	case opAnd:
		left, right := n.args[0].flagClosure(), n.args[1].flagClosure()
		return func(v *eventValues) bool { return left(v) && right(v) }
	case opOr:
		left, right := n.args[0].flagClosure(), n.args[1].flagClosure()
		return func(v *eventValues) bool { return left(v) || right(v) }
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		return n.comparisonClosure()
	case opContains, opStartsWith, opEndsWith:
		left, right, holds := n.args[0].textClosure(), n.args[1].textClosure(), textRelations[n.op]
		return func(v *eventValues) bool { return holds(left(v), right(v)) }
	case opAny, opAll, opNone, opOne:
		return n.loopClosure()
	case opListContains:
		return n.listContainsClosure()
	case opFeed:
		feed, of := n.text, n.args[0].textClosure()
		return func(v *eventValues) bool { return v.isInFeed(feed, of(v)) }
	}
	return n.constantsClosure()
}

// textRelations are the operators that look for a text in another one.
var textRelations = map[operation]func(s, part string) bool{
	opContains: strings.Contains, opStartsWith: strings.HasPrefix, opEndsWith: strings.HasSuffix,
	opContainsAny: strings.Contains, opStartsWithAny: strings.HasPrefix, opEndsWithAny: strings.HasSuffix,
}

// comparisonClosure compares two values of the same kind, or two numbers of either kind.
func (n *node) comparisonClosure() flagFunc {
	left, right := n.args[0], n.args[1]
	switch {
	case left.kind == number && right.kind == number:
		return compareOrdered(n.op, left.numberClosure(), right.numberClosure(), right.op == opConstant, right.number)
	case left.kind.isNumeric():
		return compareOrdered(n.op, left.decimalClosure(), right.decimalClosure(), false, 0)
	case left.kind == text:
		return compareOrdered(n.op, left.textClosure(), right.textClosure(), right.op == opConstant, right.text)
	case left.kind == flag:
		return equality(n.op, equalValues(left.flagClosure(), right.flagClosure()))
	case left.kind == address:
		return equality(n.op, equalValues(left.addressClosure(), right.addressClosure()))
	}
	leftSlot, rightSlot := left.slot, right.slot // Lists are always slots.
	if left.kind == textList {
		return equality(n.op, func(v *eventValues) bool {
			return slices.Equal(v.slot(leftSlot).texts, v.slot(rightSlot).texts)
		})
	}
	return equality(n.op, func(v *eventValues) bool {
		return slices.Equal(v.slot(leftSlot).numbers, v.slot(rightSlot).numbers)
	})
}

func equalValues[T comparable](left, right func(*eventValues) T) flagFunc {
	return func(v *eventValues) bool { return left(v) == right(v) }
}

// equality returns equal for opEqual, and its opposite for opNotEqual.
func equality(op operation, equal flagFunc) flagFunc {
	if op == opEqual {
		return equal
	}
	return func(v *eventValues) bool { return !equal(v) }
}

// compareOrdered compares left with right, or with want if constant is true. The comparison with a constant
// saves a call, and most comparisons in rules are of that form.
func compareOrdered[T cmp.Ordered](op operation, left, right func(*eventValues) T, constant bool, want T) flagFunc {
	switch {
	case op == opEqual && constant:
		return func(v *eventValues) bool { return left(v) == want }
	case op == opNotEqual && constant:
		return func(v *eventValues) bool { return left(v) != want }
	}
	switch op { // A closure for each operator: a switch inside would run for each event.
	case opEqual:
		return func(v *eventValues) bool { return left(v) == right(v) }
	case opNotEqual:
		return func(v *eventValues) bool { return left(v) != right(v) }
	case opLess:
		return func(v *eventValues) bool { return left(v) < right(v) }
	case opLessEqual:
		return func(v *eventValues) bool { return left(v) <= right(v) }
	case opGreater:
		return func(v *eventValues) bool { return left(v) > right(v) }
	default:
		return func(v *eventValues) bool { return left(v) >= right(v) }
	}
}

// constantsClosure compares one value with constants.
func (n *node) constantsClosure() flagFunc {
	of := n.args[0]
	switch {
	case n.op == opInNetwork && of.kind == address:
		networks, value := n.networks, of.addressClosure()
		return func(v *eventValues) bool { return inNetworks(networks, value(v)) }
	case n.op == opInNetwork: // of a text that may hold an address, such as url.domain
		networks, value := n.networks, of.textClosure()
		return func(v *eventValues) bool {
			addr, ok := authority.Addr(value(v))
			return ok && inNetworks(networks, addr)
		}
	case n.op == opIn && n.numbers != nil && of.kind == decimal:
		set, value := map[float64]struct{}{}, of.decimalClosure()
		for _, number := range n.numbers {
			set[float64(number)] = struct{}{}
		}
		return func(v *eventValues) bool { _, ok := set[value(v)]; return ok }
	case n.op == opIn && n.numbers != nil:
		set, value := setOf(n.numbers), of.numberClosure()
		return func(v *eventValues) bool { _, ok := set[value(v)]; return ok }
	case n.op == opIn:
		set, value := setOf(n.texts), of.textClosure()
		return func(v *eventValues) bool { _, ok := set[value(v)]; return ok }
	case n.op == opMatches:
		matches, value := matcher(n.regex, n.syntax), of.textClosure()
		return func(v *eventValues) bool { return matches(value(v)) }
	case len(n.texts) == 1:
		part, value, holds := n.texts[0], of.textClosure(), textRelations[n.op]
		return func(v *eventValues) bool { return holds(value(v), part) }
	}
	holds, value := anyOf(n.texts, textRelations[n.op]), of.textClosure()
	if n.op == opContainsAny && useAutomaton(n.texts) {
		holds = newAutomaton(n.texts, false).hasAny
	}
	return func(v *eventValues) bool { return holds(value(v)) }
}

func setOf[T comparable](values []T) map[T]struct{} {
	set := make(map[T]struct{}, len(values))
	for _, v := range values {
		set[v] = struct{}{}
	}
	return set
}

func anyOf(texts []string, holds func(s, part string) bool) func(string) bool {
	return func(s string) bool {
		for _, t := range texts {
			if holds(s, t) {
				return true
			}
		}
		return false
	}
}

func inNetworks(networks []netip.Prefix, addr netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// loopClosure returns any, all, none or one over a list field.
func (n *node) loopClosure() flagFunc {
	holds := n.args[0].flagClosure()
	switch n.op {
	case opAny:
		count := countElements(n.slot, holds, 1)
		return func(v *eventValues) bool { return count(v) > 0 }
	case opNone:
		count := countElements(n.slot, holds, 1)
		return func(v *eventValues) bool { return count(v) == 0 }
	case opAll:
		count := countElements(n.slot, func(v *eventValues) bool { return !holds(v) }, 1)
		return func(v *eventValues) bool { return count(v) == 0 }
	default:
		count := countElements(n.slot, holds, noLimit)
		return func(v *eventValues) bool { return count(v) == 1 }
	}
}

const noLimit = math.MaxInt64

// countElements returns a function that counts the elements of a list field for which holds is true, and
// stops at limit.
func countElements(list int, holds flagFunc, limit int64) numberFunc {
	return func(v *eventValues) (found int64) {
		values := v.slot(list)
		// A macro in the condition may hold a loop of its own, so the element of the loop around is put back.
		outerText, outerNumber := v.elementText, v.elementNumber
		for i := 0; i < len(values.texts) && found < limit; i++ {
			if v.elementText = values.texts[i]; holds(v) {
				found++
			}
		}
		for i := 0; i < len(values.numbers) && found < limit; i++ {
			if v.elementNumber = values.numbers[i]; holds(v) {
				found++
			}
		}
		v.elementText, v.elementNumber = outerText, outerNumber
		return found
	}
}

// listContainsClosure looks for a constant in a list field.
func (n *node) listContainsClosure() flagFunc {
	list, want := n.slot, n.args[0]
	if want.kind == text {
		return func(v *eventValues) bool { return slices.Contains(v.slot(list).texts, want.text) }
	}
	return func(v *eventValues) bool { return slices.Contains(v.slot(list).numbers, want.number) }
}

// textClosure returns the function of a node that is a text.
func (n *node) textClosure() textFunc {
	switch n.op {
	case opConstant:
		value := n.text
		return func(*eventValues) string { return value }
	case opSlot:
		slot := n.slot
		return func(v *eventValues) string { return v.slot(slot).text }
	case opElement:
		return func(v *eventValues) string { return v.elementText }
	case opAdd:
		left, right := n.args[0].textClosure(), n.args[1].textClosure()
		return func(v *eventValues) string { return left(v) + right(v) }
	case opFunction:
		of, apply := n.args[0].textClosure(), n.function.text
		if n.function.address != nil {
			return func(v *eventValues) string {
				text, _ := n.function.ofText(of(v))
				return text
			}
		}
		return func(v *eventValues) string {
			var buf []byte
			return apply(&buf, of(v))
		}
	}
	of, change := n.args[0].textClosure(), map[operation]func(string) string{
		opLower: lowerASCII, opUnescape: unescape, opLookups: lookups, opSQL: simplifySQL,
		opTrim: strings.TrimSpace,
	}[n.op]
	return func(v *eventValues) string { return change(of(v)) }
}

// numberClosure returns the function of a node that is a whole number.
func (n *node) numberClosure() numberFunc {
	switch n.op {
	case opConstant:
		value := n.number
		return func(*eventValues) int64 { return value }
	case opSlot:
		slot := n.slot
		return func(v *eventValues) int64 { return v.slot(slot).number }
	case opElement:
		return func(v *eventValues) int64 { return v.elementNumber }
	case opLength:
		of := n.args[0].textClosure()
		return func(v *eventValues) int64 { return int64(len(of(v))) }
	case opFunction:
		of := n.args[0].textClosure()
		return func(v *eventValues) int64 {
			_, number := n.function.ofText(of(v))
			return number
		}
	case opLevenshtein:
		left, right := n.args[0].textClosure(), n.args[1].textClosure()
		return func(v *eventValues) int64 { return levenshtein(left(v), right(v)) }
	case opCount:
		return countElements(n.slot, n.args[0].flagClosure(), noLimit)
	case opNegate:
		of := n.args[0].numberClosure()
		return func(v *eventValues) int64 { return -of(v) }
	case opModulo:
		left, right := n.args[0].numberClosure(), n.args[1].numberClosure()
		return func(v *eventValues) int64 {
			dividend, divisor := left(v), right(v)
			if divisor == 0 { // The expression becomes false; see Set.runExpression.
				v.failed = true
				return 0
			}
			return dividend % divisor
		}
	}
	return arithmetic(n.op, n.args[0].numberClosure(), n.args[1].numberClosure())
}

// decimalClosure returns the function of a node that is a number of either kind, as a decimal one.
func (n *node) decimalClosure() decimalFunc {
	if n.kind == number {
		whole := n.numberClosure()
		return func(v *eventValues) float64 { return float64(whole(v)) }
	}
	switch n.op {
	case opConstant:
		value := n.decimal
		return func(*eventValues) float64 { return value }
	case opSlot:
		slot := n.slot
		return func(v *eventValues) float64 { return v.slot(slot).decimal }
	case opNegate:
		of := n.args[0].decimalClosure()
		return func(v *eventValues) float64 { return -of(v) }
	case opFunction:
		of, apply := n.args[0].textClosure(), n.function.decimal
		return func(v *eventValues) float64 { return apply(of(v)) }
	case opDivide:
		left, right := n.args[0].decimalClosure(), n.args[1].decimalClosure()
		return func(v *eventValues) float64 { return left(v) / right(v) }
	}
	return arithmetic(n.op, n.args[0].decimalClosure(), n.args[1].decimalClosure())
}

func arithmetic[T int64 | float64](op operation, left, right func(*eventValues) T) func(*eventValues) T {
	switch op {
	case opAdd:
		return func(v *eventValues) T { return left(v) + right(v) }
	case opSubtract:
		return func(v *eventValues) T { return left(v) - right(v) }
	default:
		return func(v *eventValues) T { return left(v) * right(v) }
	}
}

// addressClosure returns the function of a node that is an address, which only a slot can be.
func (n *node) addressClosure() addressFunc {
	slot := n.slot
	return func(v *eventValues) netip.Addr { return v.slot(slot).address }
}
