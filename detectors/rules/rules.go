// Package rules evaluates events against rules that people write: YAML files in which each rule is an
// expression over the fields of an event.
//
// In go rule files (those shipped in tidegate/rules and those of a folder), out comes a Set, which is a
// pipeline.Detector: the engine hands it blocks of events, and it appends a Verdict for each rule that
// matches. A Set is immutable and safe for concurrent use; a Watcher makes a new one when the folder changes.
// `tidegate rules test` prints what RunTests finds. docs/RULES.md is the reference of the language.
//
// The path of a rule, at load time:
//
//	source.go                     finds the files
//	rulefile.go, parsedrule.go    read them strictly, through pipeline/config
//	resolve.go, calls.go, constants.go
//	                              turn the tree of expr's parser into typed nodes (node.go); hints.go words the errors
//	closures.go                   makes Go functions of the nodes
//	prefilter.go, datasets.go     find what the rule cannot match without
//	compiler.go                   does this for all rules of a set
//
// The path of an event, at run time:
//
//	index.go, automaton.go        find the few rules that can match it
//	slots.go                      computes the values that these read, each once
//	evaluate.go                   runs their closures, exceptions included, and watches what they cost
//	template.go                   writes the evidence of a match
//
// An absent text is "", an absent number 0, an absent list empty; has(field) is true where the event has the
// field. lower() folds ASCII letters only, len() of a text counts bytes, unescape() undoes percent-encoding.
package rules

import (
	"io/fs"
	"log/slog"
	"os"

	shipped "tidegate/rules"

	"tidegate/pipeline"
)

// A Rule is a compiled rule.
type Rule struct {
	ID          string
	Title       string
	Description string
	Author      string
	References  []string
	Severity    pipeline.Severity
	Score       uint32
	Tags        []string
	Version     string   // the author's, else Hash
	Hash        string   // of everything that decides what the rule matches and what its verdicts say
	Datasets    []string // those whose events can match
	When        string
	Exceptions  []string
	Group       []string // fields that its alerts are grouped by; none: container.id, else host.id
	Alert       string
	Tests       []Case
	File        string
	Line        int
	Indexed     bool // the index can rule it out for an event; else it is evaluated for every event of its datasets

	groupFields []*pipeline.Field // of Group
	template    template          // of Alert
	when        *expression
	exceptions  []*expression
	datasets    datasetMask // of Datasets
	stats       *ruleStats
}

// A Case is an event that a rule must match, or must not match.
type Case struct {
	Name  string
	Line  int
	Fires bool // it must match
	event *pipeline.Event
}

// A Lint is something about a rule that works and could be better.
type Lint struct {
	Rule    string `json:"rule"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Message string `json:"message"`

	ofCases bool // a case is missing, which Set.Test reports too
}

// Load reads and compiles the rules that cfg names. The error is of type Errors and holds everything that is
// wrong in any file; then there is no Set. metrics may be nil.
func Load(cfg Config, log *slog.Logger, metrics *Metrics) (*Set, error) {
	var sources []Source
	if cfg.Shipped {
		found, err := Read(shipped.Files, "shipped")
		if err != nil {
			return nil, err
		}
		sources = append(sources, found...)
	}
	if cfg.Dir != "" {
		found, err := Read(os.DirFS(cfg.Dir), cfg.Dir)
		if err != nil {
			return nil, err
		}
		sources = append(sources, found...)
	}
	return Compile(cfg, sources, log, metrics)
}

// LoadFS compiles the rules of one tree of files, with the defaults of Config. prefix goes before file names
// in errors.
func LoadFS(fsys fs.FS, prefix string, log *slog.Logger, metrics *Metrics) (*Set, error) {
	sources, err := Read(fsys, prefix)
	if err != nil {
		return nil, err
	}
	return Compile(Default(), sources, log, metrics)
}
