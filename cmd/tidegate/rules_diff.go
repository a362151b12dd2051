package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/backtest"
	"tidegate/detectors/rules"
)

// diffCommand returns the command `tidegate rules diff`.
func diffCommand() *cobra.Command {
	var flags configFlags
	var output string
	since := sinceFlag(24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "diff DIR",
		Short: "say which matches a change of the rules adds and removes in the stored events",
		Long: `diff compares the rules that the configuration runs with those that it would run if DIR were its rules.dir. Each rule that is
added, removed or changed is evaluated on the stored events in both versions, as backtest does it. A match is the same in both
if its event, time and group are equal: a change of group removes and adds every match. A rule of which only the title,
severity, tags or text have changed is listed too, with no match added or removed.

Needs:    a running store: the one of this data folder, or the one at clickhouse.http_addr.
Ends:     with 0 whatever differs; with 2 if the rules cannot be compared.`,
		Example: `  tidegate rules diff my-rules
  tidegate rules diff --since 7d -o json my-rules | jq 'select(.added > 100)'`,
		Args: oneArgument("the folder of the changed rules"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			if err := checkRuleFolder(args[0]); err != nil {
				return err
			}
			cfg, options, err := loadBacktest(&flags, time.Duration(since))
			if err != nil {
				return err
			}
			return diffRules(cmd.Context(), &cfg, args[0], options, output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().Var(&since, "since", "how far back to read, 1m to 366d: 90m, 24h, 7d")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one rule a line)")
	return cmd
}

// A printedChange is a line of `tidegate rules diff -o json`.
type printedChange struct {
	Rule         string          `json:"rule"`
	Change       string          `json:"change"` // added, removed or changed
	Before       int64           `json:"before"` // matches
	After        int64           `json:"after"`
	Added        int64           `json:"added"`
	Removed      int64           `json:"removed"`
	FirstAdded   []printedSample `json:"first_added"`
	FirstRemoved []printedSample `json:"first_removed"`
}

// diffRules compares the rules of the configuration with those that it has with the folder dir.
func diffRules(ctx context.Context, cfg *Config, dir string, options backtest.Options, output string) error {
	load := func(changed rules.Config) (*rules.Set, error) {
		changed.FeedNames = feedNames(cfg)
		set, err := rules.Load(changed, discardLog(), nil)
		if err != nil {
			return nil, err
		}
		return withFeeds(cfg, set)
	}
	before, err := load(cfg.Rules)
	if err != nil {
		return err
	}
	changed := cfg.Rules
	changed.Dir = dir
	after, err := load(changed)
	if err != nil {
		return err
	}

	progress := newTerminal(os.Stderr)
	changes := backtest.Changes(before, after)
	for i := range changes {
		change := &changes[i]
		if progress.interactive {
			options.Progress = func(until time.Time, _ backtest.Result) {
				progress.showStatus(stripControl(fmt.Sprintf("%-20s %d of %s · %s · %s", drawBar(float64(i)/float64(len(changes)), 20), i+1,
					countOf(len(changes), "changed rule"), change.Rule, until.UTC().Format(minuteFormat))))
			}
		}
		if err := change.Compare(ctx, options, before, after); err != nil {
			progress.removeStatus()
			return cfg.describeStoreError(err)
		}
		for _, counts := range change.Counts {
			warnOfBounds(progress, counts, "choose a shorter --since")
		}
	}
	progress.removeStatus()
	return printChanges(&stripControlWriter{out: os.Stdout}, changes, options, output)
}

func printChanges(out io.Writer, changes []backtest.Change, options backtest.Options, output string) error {
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		for _, change := range changes {
			printed := printedChange{
				change.Rule, change.Kind, change.Before, change.After, change.Added, change.Removed,
				printedSamples(change.AddedSamples), printedSamples(change.RemovedSamples),
			}
			if err := encoder.Encode(printed); err != nil {
				return err
			}
		}
		return nil
	}
	_, _ = fmt.Fprintf(out, "%s in the events of %s to %s UTC\n", countOf(len(changes), "changed rule"),
		options.From.UTC().Format(minuteFormat), options.To.UTC().Format(minuteFormat))
	if len(changes) == 0 {
		return nil
	}
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(writer, "\nRULE\tCHANGE\tBEFORE\tAFTER\tADDED\tREMOVED")
	for _, change := range changes {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%6s\t%5s\t%5s\t%7s\n", oneLineText(change.Rule, 80), change.Kind, formatCount(change.Before),
			formatCount(change.After), formatCount(change.Added), formatCount(change.Removed))
	}
	if err := writer.Flush(); err != nil {
		return err
	}
	for _, change := range changes {
		for i, samples := range [][]backtest.Sample{change.AddedSamples, change.RemovedSamples} {
			for _, sample := range samples {
				_, _ = fmt.Fprintf(writer, "%c %s\t%s\t%s\t%s\n", "+-"[i], oneLineText(change.Rule, 80), sample.At.Format(time.DateTime), sample.Event,
					oneLineText(sample.Text, 200))
			}
		}
	}
	_, _ = fmt.Fprintln(out)
	return writer.Flush()
}
