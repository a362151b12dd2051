// Package rules evaluates rules that people write: YAML files in which each rule is an expression over the
// fields of one event, or several of them over the events of a group.
//
// Load compiles rule files (those shipped in tidegate/rules and those of a folder) into a Set. A Set is a
// pipeline.Detector: the engine passes it blocks of events, and it appends a Verdict for each rule that
// matches. A Set is immutable and safe for concurrent use; a Watcher loads a new one when the folder changes.
// `tidegate rules test` runs the test cases of a Set through RunTests. docs/RULES.md is the reference of the
// language.
//
// The path of a rule, at load time:
//
//	source.go                     finds the files
//	sigma.go                      has Sigma rules converted by package sigma, and leaves out those that cannot be
//	rule_file.go, parsed_rule.go, list_file.go
//	                              parse them strictly, with pipeline/config
//	expression.go                 parses an expression with expr's parser
//	resolve.go, calls.go, constants.go
//	                              turn the syntax tree into typed nodes (node.go); hints.go words the errors
//	closures.go                   compiles the nodes to Go functions
//	prefilter.go, datasets.go     derive conditions without which the rule cannot match
//	let.go                        compiles the values that a rule names
//	compiler.go                   does all this for each rule of a set
//	parsed_correlation.go, correlation.go
//	                              do it for correlation rules
//
// The path of an event, at run time:
//
//	index.go, automaton.go        find the few rules whose prefilter the event passes
//	slots.go, structured.go, functions.go, geo.go, lookups.go
//	                              compute the values that these rules read, each once
//	evaluate.go, cost.go          run the closures, exceptions included, and measure their time
//	template.go                   writes the evidence of a match
//	explain.go, explanation.go    say why a rule matches or does not
//
// The way into the past: store_query.go writes a rule as a condition of ClickHouse over the stored events.
//
// An absent text is "", an absent number 0, an absent list empty. has(field) is true if the event has the
// field. lower() folds ASCII letters only, len() of a text counts bytes, unescape() decodes percent-encoding.
package rules

import (
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	shipped "tidegate/rules"

	"tidegate/detectors/feeds"
	"tidegate/detectors/sigma"
	"tidegate/detectors/watch"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

// A Rule is a compiled rule.
type Rule struct {
	ID          string
	Kind        string // event, or of a correlation rule the key that makes it one: count, sequence, …
	Title       string
	Description string
	Author      string
	References  []string
	Severity    pipeline.Severity
	Score       uint32
	Tags        []string
	Version     string   // the version in the file, or else Hash
	Hash        string   // covers everything that determines matches and the content of verdicts
	Datasets    []string // the datasets whose events can match
	When        string   // the condition, as written
	Exceptions  []string // conditions under which an event does not match, as written
	Group       []string // fields, and names of let, that its alerts are grouped by; none: container.id, else host.id
	Alert       string   // the template of the evidence
	Policy      pipeline.AlertPolicy
	Tests       []Case
	Accept      map[string]string // the hints that are right and accepted, by name, with the reason
	File        string
	Line        int

	// Indexed is true if the index can rule the rule out. Otherwise the rule is evaluated for every event of
	// its datasets.
	Indexed bool

	// Correlation is what the rule looks for in the events of a group, of a correlation rule; else nil. Such
	// a rule has no condition of its own.
	Correlation *correlate.Rule

	// The compiled forms of Group, Alert, When, Exceptions and Datasets.
	groupValues []ruleValue
	lets        []*letValue // what it names, for explanations
	template    template
	when        *expression
	exceptions  []*expression
	datasets    datasetMask

	shipped        bool
	converted      *sigma.Conversion // of a Sigma rule; else nil
	conditions     []*Rule           // of a correlation rule: those of its steps
	referredRules  []string          // of a correlation rule: ids of the rules that its steps refer to
	signalSteps    []*step           // the steps that an event is a signal of if it matches
	isStep         bool              // the condition of a step: its matches are signals only
	exceptionSlots []int             // slots that exceptions read and when does not

	stats *ruleStats // shared with the same rule of earlier sets
}

// A Case is a test case of a rule: events that the rule must match, or must not match.
type Case struct {
	Name   string
	Line   int
	Fires  bool              // the rule must match
	events []*pipeline.Event // one for a rule over one event
	feeds  *feeds.Set        // that the rules ask, in place of those of the set; nil: those
	end    time.Duration     // how long the clock of a correlation rule runs on behind the last event
}

// A Lint is a hint about a rule that compiles and could be better.
type Lint struct {
	Rule     string `json:"rule"` // of a step: the id of the rule, a slash and the name of the step
	Hint     string `json:"hint"` // the name by which a rule accepts it
	File     string `json:"file"`
	Line     int    `json:"line"`
	Message  string `json:"message"`
	Accepted string `json:"accepted,omitempty"` // the reason why the rule accepts it
}

// Load reads and compiles the rules that cfg selects. If any file has an error, Load returns no Set, and an
// error of type Errors that lists the errors of all files. metrics may be nil.
func Load(cfg Config, log *slog.Logger, metrics *Metrics) (*Set, error) {
	return load(cfg, readSigma, log, metrics)
}

// Reload is Load beside the rules of before: the Sigma rules are those of before if their folder cannot be read, or if guard
// holds it back because it has lost most of its rules.
func Reload(cfg Config, before *Set, guard *watch.Guard, log *slog.Logger, metrics *Metrics) (*Set, error) {
	if cfg.Sigma == "" || before.sigma.dir != cfg.Sigma {
		return Load(cfg, log, metrics)
	}
	watcher := Watcher{Config: cfg, Log: log, Metrics: metrics, Guard: guard}
	return load(cfg, func(files fs.FS, dir string) (sigmaFolder, error) {
		folder, err := readSigma(files, dir)
		switch {
		case err != nil:
			log.Error("rules.sigma not loaded, keeping the rules that were loaded before", "err", err)
			return before.sigma, nil
		case watcher.holdsBack(sigmaGuardName, dir, len(folder.loaded), len(before.sigma.loaded)):
			return before.sigma, nil
		}
		return folder, nil
	}, log, metrics)
}

// load is Load with a function that reads the folder of Sigma rules.
func load(cfg Config, readSigma func(files fs.FS, name string) (sigmaFolder, error), log *slog.Logger, metrics *Metrics) (*Set, error) {
	var sources, own []Source
	var warnings []string
	if cfg.Shipped {
		found, _, err := Read(shipped.Files, shippedPrefix)
		if err != nil {
			return nil, err
		}
		sources = found
	}
	if files, name := cfg.files(); files != nil {
		var err error
		if own, warnings, err = Read(files, name); err != nil {
			return nil, err
		}
		if len(own) == 0 {
			warnings = append(warnings, fmt.Sprintf("rules.dir %s has no rule file: rule files end in .yaml or .yml", name))
		}
	}
	sources = append(sources, own...)
	var converted sigmaRules
	if files, name := cfg.sigmaFiles(); files != nil {
		folder, err := readSigma(files, name)
		if err != nil {
			return nil, err
		}
		converted = folder.beside(sources)
	}
	set, err := Compile(cfg, slices.Concat(sources, converted.sources), log, metrics)
	if err != nil {
		return nil, err
	}
	set.warnings = append(set.warnings, warnings...)
	converted.addTo(set)
	fromDir := map[string]bool{}
	for _, source := range own {
		set.own += set.rulesOfFile[source.Name]
		fromDir[source.Name] = true
	}
	for _, rule := range set.rules {
		rule.shipped = cfg.Shipped && !fromDir[rule.File] && rule.converted == nil
	}
	return set, nil
}

// files returns the files of your own rules and the name of their folder, or nil.
func (c Config) files() (files fs.FS, name string) {
	switch {
	case c.Files != nil:
		return c.Files, c.FilesName
	case c.Dir != "":
		return config.RegularFS(c.Dir), c.Dir
	}
	return nil, ""
}

// sigmaFiles returns the files of Sigma rules and the name of their folder, or nil.
func (c Config) sigmaFiles() (files fs.FS, name string) {
	switch {
	case c.SigmaFiles != nil:
		return c.SigmaFiles, c.FilesName + "/sigma"
	case c.Sigma != "":
		return config.RegularFS(c.Sigma), c.Sigma
	}
	return nil, ""
}

// LoadFS reads and compiles the rule files of fsys, with the default Config. Errors show file names with
// prefix in front.
func LoadFS(fsys fs.FS, prefix string, log *slog.Logger, metrics *Metrics) (*Set, error) {
	sources, warnings, err := Read(fsys, prefix)
	if err != nil {
		return nil, err
	}
	set, err := Compile(Default(), sources, log, metrics)
	if err == nil {
		set.warnings = append(set.warnings, warnings...)
	}
	return set, err
}

// Own returns the number of rules of Config.Dir.
func (s *Set) Own() int { return s.own }
