package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
)

// convertCommand returns the command `tidegate rules convert`.
func convertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "convert", Short: "print rules of other systems as rules of tidegate", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs the language that is converted: sigma", shortPath(cmd))
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "sigma FILE|DIR…",
		Short: "print Sigma rules as a rule file, each with a case that fires and one that does not",
		Long: `sigma reads Sigma rules, of files or of all files (*.yml, *.yaml) below folders, and prints one rule file. The cases are
made from the detection of each rule. A rule that cannot be converted is reported on standard error with file, line, key
and reason, and the others are printed all the same. docs/SIGMA.md has the log sources and fields.

No conversion is needed to run Sigma rules: rules.sigma names a folder of them.

Ends:     with 1 if a rule was refused; with 2 if a file cannot be read, or holds no Sigma rule.`,
		Example: `  tidegate rules convert sigma sigma/rules/web > my-rules/sigma.yaml
  tidegate rules test my-rules`,
		Args: oneOrMore("the names of Sigma files or folders"),
		RunE: func(_ *cobra.Command, args []string) error { return convertSigma(args) },
	})
	return cmd
}

// warnOfRefused prints how many Sigma rules are not evaluated.
func warnOfRefused(out io.Writer, set *rules.Set) {
	if refused := set.Refused(); len(refused) > 0 {
		text := fmt.Sprintf("1 Sigma rule is refused: %v", refused[0].Err)
		if len(refused) > 1 {
			text = fmt.Sprintf("%d Sigma rules are refused, such as %v; tidegate rules convert sigma shows each", len(refused), refused[0].Err)
		}
		fmt.Fprintln(&stripControlWriter{out: out}, "warning:", text)
	}
}

// convertSigma prints the rules of Sigma files. It returns errFindings if one was refused.
func convertSigma(names []string) error {
	var sources []sigma.Source
	for _, name := range names {
		found, err := rules.ReadSigma(name)
		if err != nil {
			return err
		}
		sources = append(sources, found...)
	}
	if len(sources) == 0 {
		return fmt.Errorf("read Sigma rules: %v holds no file that ends in .yml or .yaml", names)
	}
	loaded, refused := rules.ConvertSigma(sources)
	for _, c := range refused {
		fmt.Fprintln(&stripControlWriter{out: os.Stderr}, "refused:", c.Err)
	}
	if len(loaded) > 0 {
		if _, err := os.Stdout.Write(sigma.Join(loaded)); err != nil {
			return fmt.Errorf("write rules: %w", err)
		}
	}
	fmt.Fprintf(os.Stderr, "%d rules converted, %d refused\n", len(loaded), len(refused))
	if len(refused) > 0 {
		return errFindings
	}
	return nil
}
