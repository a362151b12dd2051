package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
)

// lintCommand returns the command `tidegate rules lint`.
func lintCommand() *cobra.Command {
	var withShipped, showAccepted bool
	var against, output string
	cmd := &cobra.Command{
		Use:   "lint DIR|FILE",
		Short: "name what is likely a mistake in rules that compile",
		Long: `lint prints the hints about the rules of a folder or file that test prints too: conditions, or parts of them, that can never be true or
are always true, rules that add nothing to another one, comparisons with values that a field does not have, conditions that the
index cannot look up, groups by a field that differs for each event, and missing cases. With --against it also names each rule
that has another effect than the rule with the same id in another folder, and the same version: one that is written in the
file, since a version that is not written changes with the rule. A hint ends with its name, by which a rule accepts it: accept:
{no-index-key: REASON}. One that is accepted without need is a hint itself. No configuration, broker or store is needed.

Ends:     with 1 if it has a hint that is not accepted, or a file does not compile; with 2 if a folder cannot be read.`,
		Example: `  tidegate rules lint my-rules
  git worktree add /tmp/main main; tidegate rules lint --against /tmp/main/my-rules my-rules`,
		Args: oneArgument("the folder or file of rules"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			return lintRules(&stripControlWriter{out: cmd.OutOrStdout()}, args[0], against, withShipped, showAccepted, output)
		},
	}
	cmd.Flags().BoolVar(&withShipped, "with-shipped", false, "load the shipped rules too, and compare with them")
	cmd.Flags().BoolVar(&showAccepted, "accepted", false, "print the hints that rules accept too, with the reasons")
	cmd.Flags().StringVar(&against, "against", "", "folder or file of the rules as they were: name those that have changed and kept their version")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one hint a line)")
	return cmd
}

// lintRules prints the lints of the rules of a folder. It returns errFindings if there are some or a rule does not compile.
func lintRules(out io.Writer, dir, against string, withShipped, showAccepted bool, output string) error {
	set, err := loadRules(dir, "", withShipped)
	if err != nil {
		return asFindings(err)
	}
	lints, accepted := set.AllLints()
	if against != "" {
		before, err := loadRules(against, "", withShipped)
		if err != nil {
			return fmt.Errorf("--against: %w", err)
		}
		lints = append(lints, set.LintVersions(before)...)
	}
	for _, text := range set.Warnings() {
		fmt.Fprintln(&stripControlWriter{out: os.Stderr}, "warning:", text)
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	printed := lints
	if showAccepted {
		printed = append(slices.Clone(lints), accepted...)
	}
	for _, lint := range printed {
		if output == "json" {
			err = encoder.Encode(lint)
		} else {
			_, err = fmt.Fprintln(out, lint)
		}
		if err != nil {
			return err
		}
	}
	if output == "table" {
		summary := countOf(len(set.Rules()), "rule") + ", " + countOf(len(lints), "hint")
		if len(accepted) > 0 {
			summary += fmt.Sprintf(", %d accepted", len(accepted))
		}
		_, _ = fmt.Fprintln(out, summary)
	}
	if len(lints) > 0 {
		return errFindings
	}
	return nil
}
