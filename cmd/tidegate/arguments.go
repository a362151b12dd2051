package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tidegate/pipeline/config"
)

// noArguments refuses every argument. An argument of a command with subcommands is taken for the name of a subcommand that
// does not exist, and the error suggests a similar one.
func noArguments(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case !cmd.HasAvailableSubCommands():
		return fmt.Errorf("%s takes no argument; got %q", shortPath(cmd), args[0])
	}
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), config.DidYouMean(args[0], names))
}

// checkFlags refuses a flag whose value is empty: it comes from a variable that is not set, and the default in its
// place would be another folder, or more than what was asked for.
func checkFlags(cmd *cobra.Command, _ []string) error {
	var err error
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if value := flag.Value.String(); err == nil && (value == "" || value == "[]") {
			err = fmt.Errorf("--%s: is empty", flag.Name)
		}
	})
	return err
}

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
