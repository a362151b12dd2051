package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/feeds"
)

// feedsCommand returns the command `tidegate feeds`.
func feedsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "feeds", Short: "list the feeds of indicators, count what they have, and look values or stored events up", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s needs a command: list, stats, check or retro", shortPath(cmd))
		},
	}
	cmd.AddCommand(listFeedsCommand(), feedStatsCommand(), checkFeedsCommand(), retroFeedsCommand())
	return cmd
}

// loadFeeds returns the configured feeds that can be read, those with the given names and allow-lists if there are names, and prints the errors of the others. failed is errFindings if
// there are any.
func loadFeeds(ctx context.Context, flags *configFlags, roles role, names []string) (cfg Config, set *feeds.Set, failed error, err error) {
	cfg, err = flags.loadConfig(roleSet{all: roles})
	if err != nil {
		return cfg, nil, nil, err
	}
	if len(cfg.Feeds) == 0 {
		return cfg, nil, nil, fmt.Errorf("the configuration has no feeds")
	}
	chosen, err := chooseFeeds(cfg.Feeds, names)
	if err != nil {
		return cfg, nil, nil, err
	}
	set, errs := feeds.LoadEach(ctx, chosen)
	for _, err := range errs {
		_, _ = fmt.Fprintf(os.Stderr, "tidegate: %s\n", oneLineText(err.Error(), 1000))
		failed = errFindings
	}
	return cfg, set, failed, nil
}

// listFeedsCommand returns the command `tidegate feeds list`.
func listFeedsCommand() *cobra.Command {
	var flags configFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list the configured feeds with the number of their indicators",
		Long: `list reads the feeds of the configuration, as the engine does, and prints a line for each. No broker or store is needed.

Ends:     with 1 if a feed cannot be read.`,
		Example: `  tidegate feeds list
  tidegate feeds list -o json | jq -r .path`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printFeeds(cmd.Context(), &flags, output, printFeedList)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one feed a line)")
	return cmd
}

// printFeeds loads the configured feeds and prints what they have, as a table or as a line of JSON each.
func printFeeds(ctx context.Context, flags *configFlags, output string, printTable func(io.Writer, []feeds.Stats) error) error {
	if err := checkOutput(output, "table", "json"); err != nil {
		return err
	}
	cfg, set, failed, err := loadFeeds(ctx, flags, roleEngine, nil)
	if err != nil {
		return err
	}
	stats := set.Stats()
	if text, err := readMetrics(ctx, cfg.Metrics.Listen); err == nil {
		_ = feeds.AddLoadTimes(stats, bytes.NewReader(text)) // what another program answers has no times
	}
	out := &stripControlWriter{out: os.Stdout}
	if output == "json" {
		err = printLines(out, stats)
	} else {
		err = printTable(out, stats)
	}
	if err != nil {
		return err
	}
	return failed
}

// printLines prints each value as a line of JSON.
func printLines[T any](out io.Writer, values []T) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, value := range values {
		if err := encoder.Encode(value); err != nil {
			return err
		}
	}
	return nil
}

func printFeedList(out io.Writer, all []feeds.Stats) error {
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(writer, "FEED\tUSE\tSEVERITY\tINDICATORS\tSKIPPED\tCHANGED\tPATH")
	for _, feed := range all {
		use := "alert"
		if feed.Allow {
			use = "allow"
		}
		changed := "-"
		if info, err := os.Stat(feed.Path); err == nil {
			changed = info.ModTime().UTC().Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%10d\t%7d\t%s\t%s\n", oneLineText(feed.Feed, 80), use, feed.Severity, feed.Indicators,
			feed.Skipped, changed, oneLineText(feed.Path, 200))
	}
	return writer.Flush()
}

// feedStatsCommand returns the command `tidegate feeds stats`.
func feedStatsCommand() *cobra.Command {
	var flags configFlags
	var output string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "count the indicators of each feed by type, and what was skipped by reason",
		Long: `stats reads the feeds of the configuration, as the engine does, and prints for each the number of its indicators by type, those
that are listed twice too, the memory that they take, and the lines, or objects of JSON, that were skipped, by reason, with the
first ones. No broker or store is needed. If an engine answers at metrics.listen, it also prints when that last loaded the feed
(downloaded it, or read a file that has changed), and when it last did so with success.

Ends:     with 1 if a feed cannot be read.`,
		Example: `  tidegate feeds stats
  tidegate feeds stats -o json | jq .reasons`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printFeeds(cmd.Context(), &flags, output, printFeedStats)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one feed a line)")
	return cmd
}

func printFeedStats(out io.Writer, all []feeds.Stats) error {
	for i, feed := range all {
		if i > 0 {
			_, _ = fmt.Fprintln(out)
		}
		writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		_, _ = fmt.Fprintf(writer, "%s\t%10d\t%s\n", oneLineText(feed.Feed, 80), feed.Indicators,
			fmt.Sprintf("indicators, %.1f MB, version %s", float64(feed.Bytes)/1e6, feed.Version))
		for _, load := range []struct {
			name string
			at   *time.Time
		}{{"last load", feed.LastLoad}, {"last good load", feed.LastGoodLoad}} {
			if load.at != nil {
				_, _ = fmt.Fprintf(writer, "  %s\t%10s\tago, at %s\n", load.name, time.Since(*load.at).Round(time.Second), load.at.Format(time.RFC3339))
			}
		}
		for _, typ := range slices.Sorted(maps.Keys(feed.Types)) {
			_, _ = fmt.Fprintf(writer, "  %s\t%10d\n", typ, feed.Types[typ])
		}
		for _, reason := range slices.Sorted(maps.Keys(feed.Reasons)) {
			_, _ = fmt.Fprintf(writer, "  skipped: %s\t%10d\n", reason, feed.Reasons[reason])
		}
		if feed.TextsLeft > 0 {
			_, _ = fmt.Fprintf(writer, "  without texts\t%10d\tsource, tags and note are beyond the limit\n", feed.TextsLeft)
		}
		if err := writer.Flush(); err != nil {
			return err
		}
		for _, example := range feed.Examples {
			_, _ = fmt.Fprintf(out, "  %s\n", oneLineText(example, 200))
		}
	}
	return nil
}

// A checkedValue is a line of `tidegate feeds check -o json`.
type checkedValue struct {
	Value   string        `json:"value"`
	Listed  bool          `json:"listed"`  // by a feed that is no allow-list, and not expired
	Matches []feeds.Match `json:"matches"` // expired ones too
	Refused string        `json:"refused,omitempty"`
}

// checkFeedsCommand returns the command `tidegate feeds check`.
func checkFeedsCommand() *cobra.Command {
	var flags configFlags
	var output string
	cmd := &cobra.Command{
		Use:   "check VALUE...",
		Short: "look values up in the feeds: names, addresses, URLs, hashes, JA3, JA4, User-Agents",
		Long: `check reads the feeds of the configuration and looks each value up as the engine does: a name by its parent domains too, an
address by the networks that contain it, a URL also by its host. For a value that no feed can list it prints why. What has
expired is printed, and does not count. No broker or store is needed.

Ends:     with 0 if a feed lists one of the values; with 1 if none does, or a feed cannot be read.`,
		Example: `  tidegate feeds check evil.example 203.0.113.9
  tidegate feeds check -o json http://evil.example/x`,
		Args: oneOrMore("the values"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			cfg, set, failed, err := loadFeeds(cmd.Context(), &flags, roleEngine, nil)
			if err != nil {
				return err
			}
			allowLocal := slices.ContainsFunc(cfg.Feeds, func(feed feeds.Config) bool { return feed.AllowLocal })
			var checked []checkedValue
			listed := false
			for _, value := range args {
				checked = append(checked, checkValue(set, value, allowLocal))
				listed = listed || checked[len(checked)-1].Listed
			}
			out := &stripControlWriter{out: os.Stdout}
			if output == "json" {
				err = printLines(out, checked)
			} else {
				err = printChecked(out, checked)
			}
			switch {
			case err != nil:
				return err
			case !listed:
				return errFindings
			}
			return failed
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one value a line)")
	return cmd
}

func checkValue(set *feeds.Set, value string, allowLocal bool) checkedValue {
	out := checkedValue{Value: value, Matches: set.Find(value, time.Now())}
	if out.Matches == nil {
		out.Matches = []feeds.Match{}
	}
	out.Listed = slices.ContainsFunc(out.Matches, func(m feeds.Match) bool { return !m.Allow && !m.Expired })
	if len(out.Matches) == 0 {
		if err := feeds.CheckIndicator(value, allowLocal); err != nil {
			out.Refused = err.Error()
		}
	}
	return out
}

func dashIfEmpty(text string) string { return cmp.Or(text, "-") }

func printChecked(out io.Writer, checked []checkedValue) error {
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(writer, "VALUE\tFEED\tINDICATOR\tTYPE\tCONFIDENCE\tVALID UNTIL\tSOURCE\tTAGS\tNOTE")
	for _, value := range checked {
		name := oneLineText(value.Value, 80)
		if len(value.Matches) == 0 {
			feed := "not listed"
			if value.Refused != "" {
				feed = "not listed, and no feed can list it: " + oneLineText(value.Refused, 200)
			}
			_, _ = fmt.Fprintf(writer, "%s\t%s\n", name, feed)
		}
		for _, match := range value.Matches {
			until, feed := "-", match.Feed
			if match.ValidUntil != nil {
				until = match.ValidUntil.Format(time.RFC3339)
			}
			if match.Expired {
				until += " (expired)"
			}
			if match.Allow {
				feed += " (allow)"
			}
			row := []string{
				name, feed, match.Indicator, match.Type, strconv.Itoa(int(match.Confidence)), until, dashIfEmpty(match.Source),
				dashIfEmpty(strings.Join(match.Tags, ",")), dashIfEmpty(match.Note),
			}
			for i := range row {
				row[i] = oneLineText(row[i], 80)
			}
			_, _ = fmt.Fprintln(writer, strings.Join(row, "\t"))
		}
	}
	return writer.Flush()
}
