package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// Errors is everything that is wrong with the files of a set, in the order of the files.
type Errors []*config.Error

// Error returns one line for each error.
func (l Errors) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find a single one.
func (l Errors) Unwrap() []error {
	out := make([]error, len(l))
	for i, e := range l {
		out[i] = e
	}
	return out
}

// maxShownErrors bounds the errors of all files together.
const maxShownErrors = 1000

// errorsOf returns the errors of files and others that belong to no file, or nil where there are none.
func errorsOf(files []*ruleFile, others []*config.Error) error {
	list := Errors(others)
	for _, file := range files {
		list = append(list, file.doc.Errors()...)
	}
	if len(list) == 0 {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *config.Error) int { return cmp.Compare(a.File, b.File) })
	if more := len(list) - maxShownErrors; more > 0 {
		notShown := fmt.Errorf("%d more errors are not shown", more)
		list = append(list[:maxShownErrors], &config.Error{File: "rules", Err: notShown})
	}
	return list
}
