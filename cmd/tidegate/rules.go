package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
	"tidegate/pipeline/config"
)

// rulesCommand returns the command `tidegate rules`.
func rulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules", Short: "write, test and try detection rules, and bring them to engines", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs a command: list, show, test, lint, new, backtest, diff, explain, noise, coverage, schema, convert, push, status, rollback or keygen", shortPath(cmd))
		},
	}
	cmd.AddCommand(pushRulesCommand(), statusRulesCommand(), rollbackRulesCommand(), keygenCommand())
	var verbose, withShipped bool
	var output, sigmaDir string
	test := &cobra.Command{
		Use:   "test DIR|FILE",
		Short: "compile every rule of a folder, or of a file, and run its cases",
		Long: `test compiles every rule of a folder and runs the cases that stand beside each rule. It prints every problem
with file, line and key. A file is read alone, with the lists that it refers to; if it needs names or rules of others, name
their folder. No configuration, broker or store is needed. With --with-shipped the shipped rules are loaded
too, as the engine loads them: an id that one of them has is an error, and a failure names those that match.

Ends:     with 1 if a file does not compile, a case fails, or a rule has no case that fires or none that must not;
          with 2 if the folder cannot be read.`,
		Example: `  tidegate rules test my-rules
  tidegate rules test my-rules/login.yaml
  tidegate rules test --with-shipped my-rules
  tidegate rules test -o json my-rules | jq 'select(.passed | not)'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if sigmaDir != "" && len(args) == 0 {
				return nil
			}
			return oneArgument("the folder or file of rules")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			return testRules(dirOf(args), sigmaDir, output, verbose, withShipped)
		},
	}
	test.Flags().BoolVarP(&verbose, "verbose", "v", false, "print a line for every rule")
	test.Flags().BoolVar(&withShipped, "with-shipped", false, "load the shipped rules too")
	test.Flags().StringVar(&sigmaDir, "sigma", "", "load the Sigma rules of this folder too, or alone")
	test.Flags().StringVarP(&output, "output", "o", "table", "table or json (one case a line)")
	cmd.AddCommand(listRulesCommand(), showRuleCommand(), test, lintCommand(), newCommand(), backtestCommand(), explainCommand(), noiseCommand(), coverageCommand(), diffCommand(), schemaCommand(), convertCommand())
	return cmd
}

// listRulesCommand returns the command `tidegate rules list`.
func listRulesCommand() *cobra.Command {
	var flags ruleFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the rules that the configuration runs, and those that it disables",
		Long: `list prints a line for each rule that the configuration runs, also if it disables it, or, with --rules, for each rule of a
folder or file. Rules of files with mistakes, which the engine would refuse together with all others, are left out, and the
mistakes are printed.

Ends:     with 1 if a file has mistakes; with 2 if the folder cannot be read.`,
		Example: `  tidegate rules list
  tidegate rules list --rules my-rules
  tidegate rules list -o json | jq -r 'select(.severity == "critical") | .id'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			cfg, all, broken, err := flags.loadWith(loadValid)
			if err != nil {
				return err
			}
			if err := printRules(&stripControlWriter{out: os.Stdout}, cfg, all, output); err != nil {
				return err
			}
			return findingsOf(broken)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one rule a line)")
	return cmd
}

// showRuleCommand returns the command `tidegate rules show`.
func showRuleCommand() *cobra.Command {
	var flags ruleFlags
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "print a rule as it is written, and what the configuration changes about it",
		Example: `  tidegate rules show http-path-traversal
  tidegate rules show --rules my-rules my-rule`,
		Args: oneArgument("the id of a rule"),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, all, broken, err := flags.loadWith(loadValid)
			if err != nil {
				return err
			}
			rule, err := findRule(all, args[0])
			if err != nil {
				return errors.Join(err, findingsOf(broken))
			}
			if err := printRule(&stripControlWriter{out: os.Stdout}, cfg, rule); err != nil {
				return err
			}
			return findingsOf(broken)
		},
	}
	flags.addTo(cmd)
	return cmd
}

// asFindings returns mistakes of rules as an error with which a command ends with 1; nil if there are none.
func asFindings(err error) error {
	if _, ok := errors.AsType[rules.Errors](err); ok {
		return errors.Join(err, errFindings)
	}
	return err
}

// findingsOf is asFindings for the mistakes of files that were left out.
func findingsOf(broken rules.Errors) error {
	if len(broken) == 0 {
		return nil
	}
	return asFindings(fmt.Errorf("files with mistakes are left out:\n%w", broken))
}

// A setLoader compiles rules, as rules.Load or rules.LoadValid does.
type setLoader func(cfg rules.Config) (set *rules.Set, broken rules.Errors, err error)

func loadStrictly(cfg rules.Config) (set *rules.Set, broken rules.Errors, err error) {
	set, err = rules.Load(cfg, discardLog(), nil)
	return set, nil, err
}

func loadValid(cfg rules.Config) (set *rules.Set, broken rules.Errors, err error) {
	return rules.LoadValid(cfg, discardLog(), nil)
}

// loadConfiguredRules loads the rules that the configuration names, disabled ones included. It prints warnings.
func loadConfiguredRules(flags *configFlags, load setLoader) (cfg rules.Config, set *rules.Set, broken rules.Errors, err error) {
	configured, err := flags.loadConfig(roleSet{all: roleEngine})
	if err != nil {
		return cfg, nil, nil, err
	}
	cfg = configured.Rules
	all := cfg
	all.Disable, all.FeedNames = nil, feedNames(&configured)
	if set, broken, err = load(all); err != nil {
		return cfg, nil, nil, err
	}
	if set, err = withFeeds(&configured, set); err != nil {
		return cfg, nil, nil, err
	}
	warnings := set.Warnings()
	for _, id := range cfg.Disable {
		if _, err := findRule(set, id); err != nil {
			warnings = append(warnings, "rules.disable: "+err.Error())
		}
	}
	for _, text := range warnings {
		fmt.Fprintln(&stripControlWriter{out: os.Stderr}, "warning:", text)
	}
	return cfg, set, broken, nil
}

// A ruleFlags holds the flags of a command that reads rules: those of the configuration, or with --rules or --with-shipped
// those that replay would read.
type ruleFlags struct {
	configFlags
	dir         string
	sigma       string
	withShipped bool
}

func (f *ruleFlags) addTo(cmd *cobra.Command) {
	f.configFlags.addTo(cmd)
	cmd.Flags().StringVar(&f.dir, "rules", "", "read the rules of this folder or file instead of those of the configuration")
	cmd.Flags().StringVar(&f.sigma, "sigma", "", "read the Sigma rules of this folder instead, beside those of --rules")
	cmd.Flags().BoolVar(&f.withShipped, "with-shipped", false, "read the shipped rules instead, beside those of --rules")
}

// load returns the rules, disabled ones included, and the ids of those that are disabled. It prints warnings.
func (f *ruleFlags) load() (set *rules.Set, disabled []string, err error) {
	cfg, set, _, err := f.loadWith(loadStrictly)
	if err == nil && (f.dir != "" || f.sigma != "" || f.withShipped) && len(set.FeedNames()) > 0 {
		var configured Config
		if configured, err = f.loadConfig(roleSet{all: roleEngine}); err == nil {
			set, err = withFeeds(&configured, set)
		}
	}
	return set, cfg.Disable, err
}

// loadWith returns the configuration of the rules, and those that load loads.
func (f *ruleFlags) loadWith(load setLoader) (cfg rules.Config, set *rules.Set, broken rules.Errors, err error) {
	if f.dir != "" || f.sigma != "" || f.withShipped {
		set, broken, err = loadRulesWith(load, f.dir, f.sigma, f.withShipped)
		return cfg, set, broken, err
	}
	return loadConfiguredRules(&f.configFlags, load)
}

// findRule returns the rule with an id. The error suggests a similar id.
func findRule(set *rules.Set, id string) (*rules.Rule, error) {
	var ids []string
	for _, rule := range set.Rules() {
		if rule.ID == id {
			return rule, nil
		}
		ids = append(ids, rule.ID)
	}
	return nil, fmt.Errorf("no rule has the id %q%s", id, config.DidYouMean(id, ids))
}

// A listedRule is a line of `tidegate rules list -o json`.
type listedRule struct {
	ID         string   `json:"id"`
	Enabled    bool     `json:"enabled"`
	Version    string   `json:"version"`
	Kind       string   `json:"kind"` // event, or of a correlation rule count, distinct, …
	Severity   string   `json:"severity"`
	Shipped    bool     `json:"shipped"`
	Datasets   []string `json:"datasets"`
	Tags       []string `json:"tags"`
	Exceptions []string `json:"exceptions"`
	Title      string   `json:"title"`
	File       string   `json:"file"`
	Line       int      `json:"line"`
	Author     string   `json:"author,omitempty"`
	Refused    string   `json:"refused,omitempty"` // why a Sigma rule is not loaded
}

// printRules prints a line for each rule.
func printRules(out io.Writer, cfg rules.Config, set *rules.Set, output string) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if output == "table" {
		_, _ = fmt.Fprintln(writer, "RULE\tSEVERITY\tSTATE\tFROM\tTITLE")
	}
	for _, rule := range set.Rules() {
		listed := listedRule{
			rule.ID, !slices.Contains(cfg.Disable, rule.ID), rule.Version, rule.Kind, rule.Severity.Name(), rule.IsShipped(), rule.Datasets,
			append([]string{}, rule.Tags...), append([]string{}, rule.Exceptions...), rule.Title, rule.File, rule.Line,
			rule.Author, "",
		}
		if output == "json" {
			if err := encoder.Encode(listed); err != nil {
				return err
			}
			continue
		}
		state := "on"
		if !listed.Enabled {
			state = "disabled"
		}
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\n", rule.ID, listed.Severity, state, rule.File, rule.Title)
	}
	for _, c := range set.Refused() {
		if output == "json" {
			refused := listedRule{ID: c.ID, Severity: c.Level, Title: c.Title, File: c.File, Line: c.Err.Line, Author: c.Author, Refused: refusalText(c.Err)}
			if err := encoder.Encode(refused); err != nil {
				return err
			}
			continue
		}
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s:%d\t%s\n", c.ID, c.Level, "refused", c.File, c.Err.Line, refusalText(c.Err))
	}
	return writer.Flush()
}

// refusalText returns why a Sigma rule is refused, with the key but without the position.
func refusalText(err *config.Error) string {
	if err.Key == "" {
		return err.Err.Error()
	}
	return err.Key + ": " + err.Err.Error()
}

// printRule prints the text of a rule, after comments that say what the configuration changes about it.
func printRule(out io.Writer, cfg rules.Config, rule *rules.Rule) error {
	text, err := rule.Text()
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "# %s:%d\n", rule.File, rule.Line)
	if slices.Contains(cfg.Disable, rule.ID) {
		_, _ = fmt.Fprintln(out, "# disabled by rules.disable")
	}
	if severity := cfg.Severity[rule.ID]; severity != "" {
		_, _ = fmt.Fprintf(out, "# rules.severity: %s\n", severity)
	}
	for _, exception := range cfg.Exceptions[rule.ID] {
		_, _ = fmt.Fprintf(out, "# rules.exceptions: %s\n", exception)
	}
	_, err = io.WriteString(out, text)
	return err
}

// testRules runs the cases of the rules in a folder and prints their results. It returns errFindings if a rule does not
// compile or a case fails.
func testRules(dir, sigmaDir, output string, verbose, withShipped bool) error {
	set, err := loadRules(dir, sigmaDir, withShipped)
	if err != nil {
		return asFindings(err)
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
		if failed, err = rules.RunTests(&stripControlWriter{out: os.Stdout}, set, verbose); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	if failed > 0 {
		return errFindings
	}
	return nil
}

// dirOf returns the folder that is the argument, "" if there is none.
func dirOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// loadRules compiles the rules of a folder or file and the Sigma rules of another one, together with the shipped ones if withShipped
// is true. A folder without rules is an error. Without a folder, the shipped rules are loaded alone.
func loadRules(dir, sigmaDir string, withShipped bool) (*rules.Set, error) {
	set, _, err := loadRulesWith(loadStrictly, dir, sigmaDir, withShipped)
	return set, err
}

func loadRulesWith(load setLoader, dir, sigmaDir string, withShipped bool) (set *rules.Set, broken rules.Errors, err error) {
	cfg := defaultRules()
	cfg.GeoDatabase, cfg.ASNDatabase = os.Getenv("TIDEGATE_GEO_DATABASE"), os.Getenv("TIDEGATE_ASN_DATABASE")
	if dir == "" && sigmaDir == "" {
		return load(cfg)
	}
	if dir != "" {
		if err := cfg.ReadFrom(dir); err != nil {
			return nil, nil, err
		}
	}
	if sigmaDir != "" {
		if err := checkRuleFolder(sigmaDir); err != nil {
			return nil, nil, err
		}
	}
	cfg.Sigma, cfg.Shipped = sigmaDir, withShipped
	set, broken, err = load(cfg)
	switch {
	case err != nil && cfg.Files != nil && needsOthers.MatchString(err.Error()):
		err = fmt.Errorf("%w\n%s is read alone: if it needs lists, macros or rules of other files, name its folder", err, dir)
	case err != nil || len(broken) > 0:
	case dir != "" && set.Own() == 0:
		err = fmt.Errorf("read rules: %s holds no rule: no file of it that ends in .yaml or .yml has one", dir)
	case sigmaDir != "" && set.FromSigma()+len(set.Refused()) == 0:
		err = fmt.Errorf("read Sigma rules: %s holds none: they are in files that end in .yml or .yaml", sigmaDir)
	}
	return set, broken, err
}

// needsOthers matches mistakes of a file that others may mend.
var needsOthers = regexp.MustCompile(`unknown field|no rule has the id`)

// checkRuleFolder returns an error if dir is not a folder.
func checkRuleFolder(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &os.PathError{Op: "open", Path: dir, Err: errors.New("it is not a folder")}
	}
	if err != nil {
		return fmt.Errorf("read rules: %w", err)
	}
	return nil
}
