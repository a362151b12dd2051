package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// oneArgument requires one argument. Its error says what is expected, where that of cobra only counts.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one argument, %s; got %d", shortPath(cmd), what, len(args))
		}
		return nil
	}
}

// oneOrMore requires at least one argument.
func oneOrMore(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s takes %s; got none", shortPath(cmd), what)
		}
		return nil
	}
}

// shortPath returns the names of a command without the program: "rules test".
func shortPath(cmd *cobra.Command) string {
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path
}

// checkOutput requires that the value of -o is one of the known ones.
func checkOutput(output string, known ...string) error {
	if !slices.Contains(known, output) {
		return fmt.Errorf("-o %s: not one of %s", output, strings.Join(known, ", "))
	}
	return nil
}
