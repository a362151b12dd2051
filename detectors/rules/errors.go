package rules

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// Errors lists all errors of the files of a set, sorted by file.
type Errors []*config.Error

// Error returns one line for each error.
func (l Errors) Error() string {
	lines := make([]string, len(l))
	for i, err := range l {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the single errors, for errors.As.
func (l Errors) Unwrap() []error {
	out := make([]error, len(l))
	for i, err := range l {
		out[i] = err
	}
	return out
}

// maxShownErrors is the number of errors that are reported for all files together.
const maxShownErrors = 1000

// errorsOf returns the errors of files and others, which belong to no file. It returns nil if there are none.
func errorsOf(files []*ruleFile, others []*config.Error) Errors {
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
