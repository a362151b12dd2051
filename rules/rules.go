// Package rules holds the detection rules that come with tidegate: a YAML file per topic, each rule with its
// own test cases. The files are data; tidegate/detectors/rules reads, tests and runs them, and docs/RULES.md
// says how to write one.
package rules

import "embed"

// Files holds the rule files.
//
//go:embed *.yaml
var Files embed.FS
