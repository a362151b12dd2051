package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// oneArgument says what is to be given, where cobra would count.
func oneArgument(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one argument, %s; %d were given", shortPath(cmd), what, len(args))
		}
		return nil
	}
}

// oneOrMore is the same for a list.
func oneOrMore(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s takes %s; none was given", shortPath(cmd), what)
		}
		return nil
	}
}

// shortPath is what is typed behind tidegate.
func shortPath(cmd *cobra.Command) string {
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	return path
}

// checkOutput refuses a value of -o that is not known.
func checkOutput(output string, known ...string) error {
	if !slices.Contains(known, output) {
		return fmt.Errorf("-o %s: not one of %s", output, strings.Join(known, ", "))
	}
	return nil
}
