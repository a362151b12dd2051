package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
)

// schemaCommand returns the command `tidegate rules schema`.
func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "print the JSON Schema of rule files, with which editors complete keys and fields",
		Example: `  tidegate rules schema > tidegate-rules.json
  # the first line of a rule file, for editors with the YAML language server:
  # yaml-language-server: $schema=tidegate-rules.json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := rules.JSONSchema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
			return err
		},
	}
}
