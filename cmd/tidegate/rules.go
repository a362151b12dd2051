package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
)

// rulesCommand returns the command `tidegate rules`.
func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules", Short: "check and test detection rules", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs a command: test", shortPath(cmd))
		},
	}
	var verbose bool
	var output string
	test := &cobra.Command{
		Use:   "test DIR",
		Short: "compile every rule of a folder and run its cases",
		Long: `test compiles every rule of a folder and runs the cases that stand beside each rule. It prints every problem
with file, line and key. No configuration, broker or store is needed.

Ends:     with 1 if a file does not compile, a case fails, or a rule has no case that fires or none that must not.`,
		Example: `  tidegate rules test my-rules
  tidegate rules test -o json my-rules | jq 'select(.passed | not)'`,
		Args: oneArgument("the folder of rules"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			return testRules(args[0], output, verbose)
		},
	}
	test.Flags().BoolVarP(&verbose, "verbose", "v", false, "print a line for every rule")
	test.Flags().StringVarP(&output, "output", "o", "table", "table or json (one case a line)")
	cmd.AddCommand(test)
	return cmd
}

// testRules runs the cases of the rules in a folder and prints their results. It returns errFindings if a
// rule does not compile or a case fails.
func testRules(dir, output string, verbose bool) error {
	set, err := loadRules(dir)
	if err != nil {
		return errors.Join(err, errFindings)
	}
	failed := 0
	if output == "json" {
		encoder := json.NewEncoder(os.Stdout)
		for _, result := range set.Test() {
			if err := encoder.Encode(result); err != nil {
				return err
			}
			if !result.Passed {
				failed++
			}
		}
	} else {
		for _, text := range set.Warnings() {
			fmt.Fprintln(&stripControlWriter{out: os.Stdout}, "warning:", text)
		}
		failed = rules.RunTests(&stripControlWriter{out: os.Stdout}, set, verbose)
	}
	if failed > 0 {
		return errFindings
	}
	return nil
}

// loadRules compiles the rules of a folder. A folder without rules is an error.
func loadRules(dir string) (*rules.Set, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "open", Path: dir, Err: errors.New("it is not a folder")}
	}
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	set, err := rules.LoadFS(os.DirFS(dir), dir, discardLog(), nil)
	if err == nil && len(set.Rules()) == 0 {
		err = fmt.Errorf("read rules: %s has no rule file: rule files end in .yaml or .yml", dir)
	}
	return set, err
}
