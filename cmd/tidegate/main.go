// Command tidegate is a log and traffic stream analytics engine for container hosts.
//
// One binary is every role: `run` is all of it in one process tree, `collect`, `analyze` and `alerts` are the same code as three
// processes, `replay` and `query` are for looking, `rules` for authors, `doctor` for operators. This package wires the parts; what
// they do is told in docs/ARCHITECTURE.md.
package main

func main() {}
