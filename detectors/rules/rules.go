// Package rules judges events by rules that people write: YAML files, each rule an expression over the fields of an event.
//
// In go rule files (the ones shipped in tidegate/rules and those of a folder), out comes a Set, which is a pipeline.Detector: the
// engine hands it blocks of events, it appends a Verdict for each rule that is true. A Set is immutable and safe for concurrent use;
// Watch makes a new one when the folder changes. `tidegate rules test` prints what RunTests finds.
//
// The way of a rule: yaml.go and load.go read it strictly and report every error with its place; compile.go resolves names to slots
// (slots.go), turns comparisons with constants into typed functions and has expr check and compile the rest; needs.go reads from the
// tree what the rule cannot be true without, index.go puts that into hash tables and automata (literals.go). The way of an event:
// the index names the few rules that it can fire (set.go), expr decides on these, template.go writes the evidence.
//
// An absent text is "", an absent number 0, an absent list empty; has(field) tells. lower() folds ASCII letters only, len() of a
// text counts bytes, unescape() undoes percent-encoding. docs/RULES.md is for authors.
package rules

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	shipped "tidegate/rules"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A Rule is what its author wrote, and its version.
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
	Hash        string   // of all that decides what it finds and says
	Datasets    []string // where it can fire
	When        string
	Exceptions  []string
	Group       []string // fields that its alerts are folded by; none: container.id, else host.id
	Alert       string
	Tests       []Case
	File        string
	Line        int
	Indexed     bool // something that it needs can be looked up; else it runs for every event of its datasets

	fields     []*pipeline.Field
	template   template
	when       *expression
	exceptions []*expression
	mask       datasetMask
	stats      *ruleStats
}

// A Case is an event that a rule must, or must not, fire for.
type Case struct {
	Name  string
	Line  int
	Fires bool
	event *pipeline.Event
}

// A Lint is something about a rule that works and could be better.
type Lint struct {
	Rule    string `json:"rule"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// Load reads and compiles the rules that cfg names. The error is Errors, with everything that is wrong in any file; then there is
// no set. metrics may be nil.
func Load(cfg Config, log *slog.Logger, metrics *Metrics) (*Set, error) {
	var sources []Source
	if cfg.Shipped {
		s, err := Read(shipped.Files, "shipped")
		if err != nil {
			return nil, err
		}
		sources = append(sources, s...)
	}
	if cfg.Dir != "" {
		s, err := Read(os.DirFS(cfg.Dir), cfg.Dir)
		if err != nil {
			return nil, err
		}
		sources = append(sources, s...)
	}
	return Compile(cfg, sources, log, metrics)
}

// LoadFS compiles the rules of one tree of files, with the defaults of Config. prefix goes before file names in errors.
func LoadFS(fsys fs.FS, prefix string, log *slog.Logger, metrics *Metrics) (*Set, error) {
	sources, err := Read(fsys, prefix)
	if err != nil {
		return nil, err
	}
	return Compile(Default(), sources, log, metrics)
}

// Compile makes a set of rule files. The order of the sources does not matter.
func Compile(cfg Config, sources []Source, log *slog.Logger, metrics *Metrics) (*Set, error) {
	began := time.Now()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var files []*ruleFile
	for _, s := range sources {
		files = append(files, parseFile(s))
	}
	importShared(files)
	c := &compiler{slots: newSlotTable(), ids: map[string]*parsedRule{}}
	for _, f := range files {
		c.compileMacros(f)
	}
	for _, f := range files {
		for _, r := range f.rules {
			c.compileRule(r)
		}
	}
	var others []*config.Error
	for _, id := range cfg.Disable {
		if c.ids[id] == nil {
			others = append(others, &config.Error{
				File: "config", Key: "rules.disable", Err: fmt.Errorf("no rule has the id %q%s", id, config.DidYouMean(id, c.ruleIDs())),
			})
		}
	}
	if err := errorsOf(files, others); err != nil {
		return nil, err
	}
	c.list = slices.DeleteFunc(c.list, func(r *compiledRule) bool { return slices.Contains(cfg.Disable, r.rule.ID) })
	s := c.newSet(cfg, log, metrics)
	s.took = time.Since(began)
	return s, nil
}
