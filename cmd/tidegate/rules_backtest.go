package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/backtest"
)

// A sinceFlag is a flag that says how far back to read: 90m, 24h or 7d.
type sinceFlag time.Duration

// maxSince is the longest time that can be read.
const maxSince = 366 * 24 * time.Hour

func (f *sinceFlag) String() string {
	if days := time.Duration(*f) / (24 * time.Hour); days > 1 && days*24*time.Hour == time.Duration(*f) {
		return fmt.Sprintf("%dd", days)
	}
	return strings.TrimSuffix(strings.TrimSuffix(time.Duration(*f).String(), "0s"), "0m")
}

func (f *sinceFlag) Type() string { return "duration" }

func (f *sinceFlag) Set(text string) error {
	unit := time.Duration(1)
	number, isDays := strings.CutSuffix(text, "d")
	if isDays {
		number, unit = number+"h", 24
	}
	length, err := time.ParseDuration(number)
	if err != nil || length < 0 || length > maxSince/unit {
		return errors.New("want a length of time from 1m to 366d, such as 90m, 24h or 7d")
	}
	if length *= unit; length < time.Minute {
		return errors.New("want a length of time from 1m to 366d, such as 90m, 24h or 7d")
	}
	*f = sinceFlag(length)
	return nil
}

// backtestCommand returns the command `tidegate rules backtest`.
func backtestCommand() *cobra.Command {
	var flags ruleFlags
	var output string
	since := sinceFlag(24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "backtest ID",
		Short: "evaluate a rule on the stored events of the last hours or days",
		Long: `backtest says what a rule would have matched. ClickHouse finds the events that may match, and each is evaluated as the
engine does it; the matches are grouped into alerts as the engine groups them. For a correlation rule it also reads
earlier events, as many as the rule can need: twice its window, or the baseline of first_seen.

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
			set, _, err := flags.load()
			if err != nil {
				return err
			}
			rule, err := findRule(set, args[0])
			if err != nil {
				return err
			}
			cfg, options, err := loadBacktest(&flags.configFlags, time.Duration(since))
			if err != nil {
				return err
			}
			options.Set, options.Rule = set, rule
			return backtestRule(cmd.Context(), &cfg, options, output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().Var(&since, "since", "how far back to read, 1m to 366d: 90m, 24h, 7d")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// loadBacktest returns the configuration, and the options of a backtest of the events since a time ago; Set and Rule are
// left to the caller.
func loadBacktest(flags *configFlags, since time.Duration) (cfg Config, options backtest.Options, err error) {
	if cfg, err = flags.loadConfig(roleSet{all: roleEngine | roleStore}); err != nil {
		return cfg, options, err
	}
	now := time.Now()
	options = backtest.Options{From: now.Add(-since), To: now, Grouping: cfg.Engine.Grouping}
	options.Store, err = cfg.storeClient()
	return cfg, options, err
}

// backtestRule evaluates a rule on the stored events, and prints what it has matched.
func backtestRule(ctx context.Context, cfg *Config, options backtest.Options, output string) error {
	progress := newTerminal(os.Stderr)
	if progress.interactive {
		options.Progress = func(until time.Time, found backtest.Result) {
			share := 1 - float64(options.To.Sub(until))/float64(options.To.Sub(options.From))
			progress.showStatus(stripControl(fmt.Sprintf("%-20s %3.0f %% · %s · %s evaluated · %s", drawBar(max(share, 0), 20), 100*max(share, 0),
				until.UTC().Format(minuteFormat), countOf(int(found.Evaluated), "event"), countOf(int(found.Matches), "match"))))
		}
	}
	result, err := backtest.Run(ctx, options)
	progress.removeStatus()
	if err != nil {
		return cfg.describeStoreError(err)
	}
	warnOfBounds(os.Stderr, result.Counts, "choose a shorter --since")
	out := &stripControlWriter{out: os.Stdout}
	if output == "json" {
		return printBacktestJSON(out, &options, &result)
	}
	printBacktest(out, &options, &result)
	return nil
}

// minuteFormat is the form of a time in tables, in UTC.
const minuteFormat = "2006-01-02 15:04"

// drawBar returns a bar of a share of width characters, in eighths.
func drawBar(share float64, width int) string {
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
	_, _ = fmt.Fprintf(out, "%s: %s, %s in the events of %s to %s UTC; %s evaluated\n", options.Rule.ID,
		countOf(int(result.Matches), "match"), countOf(int(result.Alerts), "alert"), options.From.UTC().Format(minuteFormat),
		options.To.UTC().Format(minuteFormat), countOf(int(result.Evaluated), "event"))
	if result.Matches == 0 {
		return
	}
	largest := slices.Max(result.Histogram[:])
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "\nFROM (UTC)\tMATCHES\n")
	for i, matches := range result.Histogram {
		line := fmt.Sprintf("%s\t%7s", options.From.Add(time.Duration(i)*options.Step()).UTC().Format(minuteFormat), formatCount(matches))
		if matches > 0 {
			line += "\t" + drawBar(max(float64(matches)/float64(largest), 1.0/(8*histogramWidth)), histogramWidth)
		}
		_, _ = fmt.Fprintln(writer, line)
	}
	_, _ = fmt.Fprintf(writer, "\nGROUP\tMATCHES\n")
	for _, group := range result.Groups[:min(len(result.Groups), maxBacktestGroups)] {
		_, _ = fmt.Fprintf(writer, "%s\t%7s\n", oneLineText(group.Name, 120), formatCount(group.Matches))
	}
	_ = writer.Flush()
	if more := len(result.Groups) - maxBacktestGroups; more > 0 {
		_, _ = fmt.Fprintf(out, "and %s more\n", countOf(more, "group"))
	}
	if result.OtherGroups > 0 {
		_, _ = fmt.Fprintf(out, "and %s of further groups, which are too many to count one by one\n", countOf(int(result.OtherGroups), "match"))
	}
	_, _ = fmt.Fprintf(writer, "\nFIRST MATCHES\tEVENT\tTEXT\n")
	for _, sample := range result.Samples {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\n", sample.At.Format(time.DateTime), sample.Event, oneLineText(sample.Text, 200))
	}
	_ = writer.Flush()
}

// A printedBacktest is what `tidegate rules backtest -o json` prints.
type printedBacktest struct {
	Rule      string          `json:"rule"`
	Version   string          `json:"version"`
	From      time.Time       `json:"from"`
	To        time.Time       `json:"to"`
	Evaluated int64           `json:"events_evaluated"`
	Matches   int64           `json:"matches"`
	Alerts    int64           `json:"alerts"`
	Step      float64         `json:"histogram_step_seconds"`
	Histogram []int64         `json:"histogram"`
	Others    int64           `json:"matches_of_other_groups"` // which were too many to count one by one
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
		Rule: options.Rule.ID, Version: options.Rule.Version, From: options.From.UTC(), To: options.To.UTC(), Evaluated: result.Evaluated,
		Matches: result.Matches, Alerts: result.Alerts, Step: options.Step().Seconds(),
		Histogram: result.Histogram[:], Others: result.OtherGroups, Groups: []printedGroup{}, Samples: printedSamples(result.Samples),
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
