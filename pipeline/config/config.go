// Package config is the one place for everything that a configuration needs: strict YAML with positions,
// checks with one phrasing, sizes and durations as people write them, TLS settings and secrets in files.
//
// Every component has a Config struct of its own, beside its code, with three parts that this package
// connects:
//
//   - yaml tags name the keys,
//   - Default returns a Config that passes Check and runs; a file is decoded over it, so a key that a file
//     does not name keeps its default, and so does a key with an empty value,
//   - Check returns a Problem for every value that cannot work, not only for the first. A zero value has no
//     special meaning unless the comment of its key names one.
//
// The input is the text of a file. Parse reads its syntax, Document.Decode fills structs with its values,
// Document.Locate finds the line of a Problem, and Document.Err returns all errors in the order of the file,
// each as file:line:column: key: message. cmd/tidegate reads its configuration this way, and detectors/rules
// its rule files. Node and Text hold values of a rule file with their positions.
package config

import (
	"errors"
	"fmt"
	"strings"
)

// A Problem is one value that cannot work. Key is relative to whoever returns the Problem: a component
// returns "block_rows", and whoever holds the component's Config puts "engine" in front with Under.
type Problem struct {
	Key string // "tls.cert_file", "webhooks[1].url"; "" is the component as a whole
	Err error
}

// Error returns "key: message".
func (p Problem) Error() string {
	if p.Key == "" {
		return p.Err.Error()
	}
	return p.Key + ": " + p.Err.Error()
}

// Unwrap returns the cause.
func (p Problem) Unwrap() error { return p.Err }

// Under returns problems with prefix in front of every key.
func Under(prefix string, problems []Problem) []Problem {
	under := make([]Problem, len(problems))
	for i, p := range problems {
		under[i] = Problem{Key: joinKey(prefix, p.Key), Err: p.Err}
	}
	return under
}

// Join returns problems as one error with prefix in front of every key, or nil where there are none.
// Constructors use it to reject a Config that does not pass its Check.
func Join(prefix string, problems []Problem) error {
	var errs []error
	for _, p := range Under(prefix, problems) {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// WithPrefix puts prefix in front of the key of a Problem that err wraps. Other errors get prefix in front of
// their text.
func WithPrefix(prefix string, err error) error {
	var problem Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &problem):
		return Problem{Key: joinKey(prefix, problem.Key), Err: problem.Err}
	}
	return fmt.Errorf("%s: %w", prefix, err)
}

// joinKey appends a key to the path of the mapping that holds it. A path that ends with ": " names an item,
// not a mapping.
func joinKey(path, key string) string {
	switch {
	case path == "" || key == "":
		return path + key
	case strings.HasPrefix(key, "[") || strings.HasSuffix(path, ": "):
		return path + key
	}
	return path + "." + key
}
