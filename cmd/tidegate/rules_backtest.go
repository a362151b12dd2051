package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/backtest"
	"tidegate/detectors/rules"
)

// An age is a flag with a length of time, such as 90m, 24h or 7d.
type age time.Duration

func (a *age) String() string { return time.Duration(*a).String() }

func (a *age) Type() string { return "duration" }

func (a *age) Set(text string) error {
	if days, isDays := strings.CutSuffix(text, "d"); isDays {
		number, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return errors.New("want a length of time such as 90m, 24h or 7d")
		}
		*a = age(number) * age(24*time.Hour)
		return nil
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want a length of time such as 90m, 24h or 7d")
	}
	*a = age(length)
	return nil
}

// backtestCommand returns the command `tidegate rules backtest`.
func backtestCommand() *cobra.Command {
	var flags configFlags
	var output, dir string
	var withShipped bool
	since := age(24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "backtest ID",
		Short: "evaluate a rule on the stored events of the last hours or days",
		Long: `backtest says what a rule would have matched. ClickHouse finds the events that may match, and each is evaluated as the
engine does it; the matches are grouped into alerts as the engine groups them. A correlation rule also reads the events
before, as far back as its window. Without --rules the rules are those that the configuration runs or disables.

Needs:    a running store: the one of this data folder, or the one at clickhouse.http_addr.
Ends:     with 0 whatever the rule has matched; with 2 if it cannot be evaluated.`,
		Example: `  tidegate rules backtest http-path-traversal
  tidegate rules backtest --rules my-rules --since 7d my-rule
  tidegate rules backtest -o json my-rule | jq '.groups[0]'`,
		Args: oneArgument("the id of a rule"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			if since < age(time.Minute) || since > age(366*24*time.Hour) {
				return fmt.Errorf("--since %v: must be between 1m and 366d", time.Duration(since))
			}
			cfg, err := flags.loadConfig(roleSet{all: roleEngine | roleStore})
			if err != nil {
				return err
			}
			if dir != "" {
				cfg.Rules.Dir, cfg.Rules.Shipped = dir, withShipped
			}
			return backtestRule(cmd.Context(), &cfg, args[0], time.Duration(since), output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().Var(&since, "since", "read the events of this time, such as 90m, 24h or 7d")
	cmd.Flags().StringVar(&dir, "rules", "", "read the rules of this folder instead of those of the configuration")
	cmd.Flags().BoolVar(&withShipped, "with-shipped", false, "with --rules: load the shipped rules too")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// backtestRule evaluates the rule with an id on the stored events, and prints what it has matched.
func backtestRule(ctx context.Context, cfg *Config, id string, since time.Duration, output string) error {
	loaded := cfg.Rules
	loaded.Disable = nil
	set, err := rules.Load(loaded, discardLog(), nil)
	if err != nil {
		return err
	}
	rule, err := findRule(set, id)
	if err != nil {
		return err
	}
	store, err := cfg.storeClient()
	if err != nil {
		return err
	}

	progress := newTerminal(os.Stderr)
	now := time.Now()
	options := backtest.Options{
		Store: store, Set: set, Rule: rule, From: now.Add(-since), To: now, Grouping: cfg.Engine.Grouping,
	}
	if progress.interactive {
		options.Progress = func(until time.Time, found backtest.Result) {
			share := 1 - float64(now.Sub(until))/float64(since)
			progress.showStatus(stripControl(fmt.Sprintf("%-20s %3.0f %% · %s · %s read · %s", bar(max(share, 0), 20), 100*max(share, 0),
				until.UTC().Format("2006-01-02 15:04"), countOf(int(found.Read), "event"), matchCount(found.Matches))))
		}
	}
	result, err := backtest.Run(ctx, options)
	progress.removeStatus()
	if errors.Is(err, syscall.ECONNREFUSED) && cfg.embeddedStore() {
		return fmt.Errorf("%w: the store of %s is not running; `tidegate run` starts it", err, cfg.DataDir)
	}
	if err != nil {
		return err
	}
	out := &stripControlWriter{out: os.Stdout}
	if output == "json" {
		return printBacktestJSON(out, &options, &result)
	}
	printBacktest(out, &options, &result)
	warnOfBounds(os.Stderr, result.Counts)
	return nil
}

// bar returns a bar of a share of width characters, in eighths.
func bar(share float64, width int) string {
	eighths := int(math.Round(share * float64(8*width)))
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text
}

const (
	maxBacktestGroups = 10
	histogramWidth    = 50 // characters of the longest bar
)

// printBacktest prints the matches over time, the largest groups and the first matches.
func printBacktest(out io.Writer, options *backtest.Options, result *backtest.Result) {
	const minute = "2006-01-02 15:04"
	_, _ = fmt.Fprintf(out, "%s: %s, %s in the events of %s to %s UTC; %s read\n", options.Rule.ID,
		matchCount(result.Matches), countOf(int(result.Alerts), "alert"), options.From.UTC().Format(minute),
		options.To.UTC().Format(minute), countOf(int(result.Read), "event"))
	if result.Matches == 0 {
		return
	}
	largest := int64(1)
	for _, matches := range result.Histogram {
		largest = max(largest, matches)
	}
	part := options.To.Sub(options.From) / time.Duration(len(result.Histogram))
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "\nFROM\tMATCHES\t\n")
	for i, matches := range result.Histogram {
		length := float64(matches) / float64(largest)
		if matches > 0 {
			length = max(length, 1.0/(8*histogramWidth))
		}
		_, _ = fmt.Fprintf(writer, "%s\t%7s\t%s\n", options.From.Add(time.Duration(i)*part).UTC().Format(minute), formatCount(matches),
			bar(length, histogramWidth))
	}
	_, _ = fmt.Fprintf(writer, "\nGROUP\tMATCHES\n")
	for _, group := range result.Groups[:min(len(result.Groups), maxBacktestGroups)] {
		_, _ = fmt.Fprintf(writer, "%s\t%7s\n", oneLineText(group.Name, 120), formatCount(group.Matches))
	}
	_ = writer.Flush()
	if more := len(result.Groups) - maxBacktestGroups; more > 0 {
		_, _ = fmt.Fprintf(out, "and %s more\n", countOf(more, "group"))
	}
	_, _ = fmt.Fprintf(writer, "\nFIRST MATCHES\tEVENT\tTEXT\n")
	for _, sample := range result.Samples {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\n", sample.At.Format(time.DateTime), sample.Event, oneLineText(sample.Text, 200))
	}
	_ = writer.Flush()
}

func matchCount(matches int64) string {
	if matches == 1 {
		return "1 match"
	}
	return formatCount(matches) + " matches"
}

// A printedBacktest is what `tidegate rules backtest -o json` prints.
type printedBacktest struct {
	Rule      string          `json:"rule"`
	Version   string          `json:"version"`
	From      time.Time       `json:"from"`
	To        time.Time       `json:"to"`
	Read      int64           `json:"events_read"`
	Matches   int64           `json:"matches"`
	Alerts    int64           `json:"alerts"`
	Histogram []int64         `json:"histogram"`
	Groups    []printedGroup  `json:"groups"`
	Samples   []printedSample `json:"samples"`
}

type printedGroup struct {
	Group   string `json:"group"`
	Matches int64  `json:"matches"`
}

type printedSample struct {
	At    time.Time `json:"@timestamp"`
	Event string    `json:"event.id"`
	Group string    `json:"group"`
	Text  string    `json:"text"`
}

func printBacktestJSON(out io.Writer, options *backtest.Options, result *backtest.Result) error {
	printed := printedBacktest{
		Rule: options.Rule.ID, Version: options.Rule.Version, From: options.From.UTC(), To: options.To.UTC(), Read: result.Read,
		Matches: result.Matches, Alerts: result.Alerts, Histogram: result.Histogram[:], Groups: []printedGroup{}, Samples: printedSamples(result.Samples),
	}
	for _, group := range result.Groups {
		printed.Groups = append(printed.Groups, printedGroup{group.Name, group.Matches})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(printed)
}

func printedSamples(samples []backtest.Sample) []printedSample {
	printed := []printedSample{}
	for _, sample := range samples {
		printed = append(printed, printedSample{sample.At, sample.Event, sample.Group, sample.Text})
	}
	return printed
}
