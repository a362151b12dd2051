package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// oneArgument requires one argument, which what describes. cobra.ExactArgs does the same, but its error has
// only the number of arguments.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one argument, %s; got %d", shortPath(cmd), what, len(args))
		}
		return nil
	}
}

// oneOrMore requires at least one argument; what describes them.
func oneOrMore(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s takes %s; got none", shortPath(cmd), what)
		}
		return nil
	}
}

// shortPath returns the path of a command without the name of the program: "rules test".
func shortPath(cmd *cobra.Command) string {
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path
}

// checkOutput returns an error if output, the value of -o, is not one of known.
func checkOutput(output string, known ...string) error {
	if !slices.Contains(known, output) {
		return fmt.Errorf("-o %s: not one of %s", output, strings.Join(known, ", "))
	}
	return nil
}
