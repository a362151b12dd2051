package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

// datasetMask is a set of datasets: bit d stands for pipeline.Dataset(d). The bit of DATASET_NONE stands for
// events without a dataset.
type datasetMask uint32

const allDatasets = datasetMask(1<<pipeline.NumDatasets - 1)

// maskOf returns the set of one dataset. It returns the empty set for a dataset that this binary does not
// have.
func maskOf(dataset pipeline.Dataset) datasetMask {
	if dataset < 0 || int(dataset) >= pipeline.NumDatasets {
		return 0
	}
	return 1 << dataset
}

// names lists the datasets of m.
func (m datasetMask) names() []string {
	var out []string
	for d := 1; d < pipeline.NumDatasets; d++ {
		if m&(1<<d) != 0 {
			out = append(out, pipeline.Datasets[d].Name)
		}
	}
	return out
}

// describe returns m in words.
func (m datasetMask) describe() string {
	if names := m.names(); len(names) <= 3 {
		return strings.Join(names, " or ")
	}
	return "another dataset than " + strings.Join((allDatasets&^m).names(), " or ")
}

// String returns m for the hash of a rule. It returns "all" for all datasets, so that a new dataset does not
// change the hashes of rules that list no datasets.
func (m datasetMask) String() string {
	if m == allDatasets {
		return "all"
	}
	return strconv.FormatUint(uint64(m), 10)
}

// slotDatasets returns the datasets whose events can have a value for a slot.
func (t *slotTable) slotDatasets(slot int) datasetMask {
	if slot < 0 || t.list[slot].body == pipeline.Dataset_DATASET_NONE {
		return allDatasets
	}
	return maskOf(t.list[slot].body)
}

// comparisonDatasets returns the datasets for whose events the comparison n can have the value want. If n
// does not have that value while all its fields are absent, an event needs one of the fields, and only events
// of the field's dataset have it.
func (t *slotTable) comparisonDatasets(n *node, want bool) datasetMask {
	if datasets, ok := t.namedDatasets(n, want); ok {
		return datasets
	}
	if n.op == opListContains && want {
		return t.slotDatasets(n.slot) // the list has an element
	}
	value, known := t.valueWhenAbsent(n)
	if !known || value == want {
		return allDatasets
	}

	// The comparison is want only if a field is present, so the dataset is one that has such a field.
	var datasets datasetMask
	for _, i := range appendSlots(n, nil) {
		datasets |= t.slotDatasets(i)
	}
	return datasets
}

// namedDatasets returns the datasets for which a comparison of event.dataset (==, != or in) has the value
// want. ok is false if n is not such a comparison.
func (t *slotTable) namedDatasets(n *node, want bool) (mask datasetMask, ok bool) {
	var texts []string
	switch n.op {
	case opIn:
		texts = n.texts
	case opEqual, opNotEqual:
		if n.args[1].op != opConstant || n.args[1].kind != text {
			return 0, false
		}
		texts = []string{n.args[1].text}
		want = want == (n.op == opEqual)
	default:
		return 0, false
	}

	// A name that is not a dataset matches no event.
	if of := n.args[0]; of.op != opSlot || t.list[of.slot].label != "event.dataset" {
		return 0, false
	}
	for _, name := range texts {
		if d := pipeline.DatasetByName(name); d != pipeline.Dataset_DATASET_NONE || name == "" {
			mask |= maskOf(d)
		}
	}
	if !want {
		mask = allDatasets &^ mask
	}
	return mask, true
}

// appendSlots appends the slots that n reads.
func appendSlots(n *node, to []int) []int {
	switch n.op {
	case opSlot, opAny, opAll, opNone, opOne, opCount, opListContains:
		to = append(to, n.slot)
	}
	for _, a := range n.args {
		to = appendSlots(a, to)
	}
	return to
}

// valueWhenAbsent returns the value of n when all its fields are absent. known is false where the value is
// not determined here; the prefilter then rules out nothing.
func (t *slotTable) valueWhenAbsent(n *node) (value, known bool) {
	if n.op == opSlot {
		return false, n.kind == flag
	}
	if len(n.args) == 0 {
		return false, false
	}
	absent, known := numberOfAbsent(n.args[0])
	if !known {
		return false, false
	}

	if n.op == opFeed { // no feed lists an empty text
		return false, true
	}

	// Comparisons with constants: is the value of an absent field among them?
	switch n.op {
	case opIn:
		return slices.Contains(n.texts, "") || slices.ContainsFunc(n.numbers, func(number int64) bool { return float64(number) == absent }), true
	case opInNetwork:
		return false, true
	case opMatches:
		return n.regex.MatchString(""), true
	case opContainsAny, opStartsWithAny, opEndsWithAny:
		return slices.Contains(n.texts, ""), true
	}

	// Comparisons of two sides, of which the right one is a constant.
	if len(n.args) != 2 || n.args[1].op != opConstant {
		return false, false
	}
	switch constant := n.args[1]; constant.kind {
	case text:
		return textWhenAbsent(n.op, constant.text)
	case number:
		return compareWithAbsent(n.op, absent, float64(constant.number)) // absent is a small number, so that rounding changes nothing
	case decimal:
		return compareWithAbsent(n.op, absent, constant.decimal)
	}
	return false, false
}

// numberOfAbsent returns the value of n, a number or a text, if its field is absent: 0, which also stands for "", NaN, or the distance
// of "" from a constant. known is false if n is no single field, or a function of one.
func numberOfAbsent(n *node) (value float64, known bool) {
	switch {
	case n.op == opSlot:
		return 0, true
	case n.op == opFunction && n.function.name == "number":
		return math.NaN(), n.args[0].op == opSlot
	case n.op == opFunction:
		return 0, n.args[0].op == opSlot
	case n.op == opLevenshtein && n.args[0].op == opSlot && n.args[1].op == opConstant:
		return float64(len(n.args[1].text)), true
	}
	return 0, false
}

func textWhenAbsent(op operation, constant string) (value, known bool) {
	switch op {
	case opEqual:
		return constant == "", true
	case opNotEqual:
		return constant != "", true
	}
	return false, false
}

func compareWithAbsent[T int64 | float64](op operation, absent, constant T) (value, known bool) {
	switch op {
	case opEqual:
		return constant == absent, true
	case opNotEqual:
		return constant != absent, true
	case opLess:
		return absent < constant, true
	case opLessEqual:
		return absent <= constant, true
	case opGreater:
		return absent > constant, true
	case opGreaterEqual:
		return absent >= constant, true
	}
	return false, false
}

// contradiction returns the reason why no dataset satisfies both n and the datasets that the rule lists.
func (t *slotTable) contradiction(n *node, listed datasetMask) string {
	// Every part of a chain of and must hold; the first two that share no dataset are the reason.
	masks := []datasetMask{listed}
	var collect func(n *node)
	collect = func(n *node) {
		if n.op == opAnd {
			collect(n.args[0])
			collect(n.args[1])
			return
		}
		masks = append(masks, t.prefilterOf(n, true, -1).datasets)
	}
	collect(n)
	for i, first := range masks {
		for _, second := range masks[i+1:] {
			if first != 0 && second != 0 && first&second == 0 {
				return fmt.Sprintf("it needs an event of %s and of %s at once", first.describe(), second.describe())
			}
		}
	}
	return "no event is of all the datasets that it needs"
}
