package main

import (
	"encoding/json"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
)

func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "check and test detection rules"}
	var verbose bool
	var output string
	test := &cobra.Command{
		Use:   "test DIR",
		Short: "compile every rule of a folder and run its cases",
		Long: `test compiles every rule of a folder and runs the cases that stand beside it. It ends with 1 when a case fails,
a rule has no case that fires or none that must not, or a file does not compile: every problem is told with file, line and key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil {
				return err
			} else if !info.IsDir() {
				return errors.New(args[0] + " is not a folder")
			}
			set, err := rules.LoadFS(os.DirFS(args[0]), args[0], quietLog(), nil)
			if err != nil {
				return errors.Join(err, errFindings{1})
			}
			failed := 0
			if output == "json" {
				enc := json.NewEncoder(os.Stdout)
				for _, r := range set.Test() {
					if err := enc.Encode(r); err != nil {
						return err
					}
					if !r.Passed {
						failed++
					}
				}
			} else {
				failed = rules.RunTests(os.Stdout, set, verbose)
			}
			if failed > 0 {
				return errFindings{failed}
			}
			return nil
		},
	}
	test.Flags().BoolVarP(&verbose, "verbose", "v", false, "a line for every rule")
	test.Flags().StringVarP(&output, "output", "o", "table", "table or json (one case a line)")
	cmd.AddCommand(test)
	return cmd
}
