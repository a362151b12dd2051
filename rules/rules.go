// Package rules holds the detection rules that tidegate ships: one YAML file for each topic, and test cases in
// each rule. The files are data; tidegate/detectors/rules reads, tests and evaluates them. docs/RULES.md
// explains how to write a rule.
package rules

import "embed"

// Files holds the rule files.
//
//go:embed *.yaml
var Files embed.FS
