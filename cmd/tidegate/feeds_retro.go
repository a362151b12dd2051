package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/feeds"
	"tidegate/detectors/retro"
)

// A feedRetro is the command `tidegate feeds retro`.
type feedRetro struct {
	flags  configFlags
	since  sinceFlag
	feeds  []string
	known  bool
	output string
}

// retroFeedsCommand returns the command `tidegate feeds retro`.
func retroFeedsCommand() *cobra.Command {
	r := feedRetro{since: sinceFlag(7 * 24 * time.Hour)}
	cmd := &cobra.Command{
		Use:   "retro",
		Short: "look what feeds list now up in the stored events of the last days",
		Long: `retro finds the stored events that feeds would have a verdict on now and had none when they were stored: contacts with an
indicator before it was listed. It reads the feeds of the configuration, asks ClickHouse for the values that the events of each
hour have, looks these up as the engine does, and evaluates the events with those that are listed. Allow-lists and expiry count
as for the engine. It raises no alerts.

Needs:    a running store: the one of this data folder, or the one at clickhouse.http_addr.
Ends:     with 0 whatever it has found; with 1 if a feed cannot be read.`,
		Example: `  tidegate feeds retro
  tidegate feeds retro --since 24h --feed blocklist
  tidegate feeds retro -o json | jq -r '."event.id"'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(r.output, "table", "json"); err != nil {
				return err
			}
			return r.run(cmd.Context())
		},
	}
	r.flags.addTo(cmd)
	cmd.Flags().Var(&r.since, "since", "how far back to read, 1m to 366d: 90m, 24h, 7d")
	cmd.Flags().StringArrayVar(&r.feeds, "feed", nil, "name of a feed that is looked up; several times for several; none: all")
	cmd.Flags().BoolVar(&r.known, "known", false, "also what the events had a verdict for when they were stored")
	cmd.Flags().StringVarP(&r.output, "output", "o", "table", "table (by indicator and group) or json (one match a line)")
	return cmd
}

// run searches the stored events and prints what was found.
func (r *feedRetro) run(ctx context.Context) error {
	cfg, set, failed, err := loadFeeds(ctx, &r.flags, roleEngine|roleStore, r.feeds)
	if err != nil {
		return err
	}
	now := time.Now()
	options := retro.Options{Set: set, From: now.Add(-time.Duration(r.since)), To: now}
	if options.Store, err = cfg.storeClient(); err != nil {
		return err
	}
	progress := newTerminal(os.Stderr)
	if progress.interactive {
		options.Progress = func(until time.Time, found retro.Result) {
			share := max(1-float64(now.Sub(until))/float64(time.Duration(r.since)), 0)
			progress.showStatus(fmt.Sprintf("%-20s %3.0f %% · %s · %s looked up · %s", drawBar(share, 20), 100*share,
				until.UTC().Format(minuteFormat), countOf(int(found.Values), "value"), countOf(int(found.Matches), "match")))
		}
	}
	out := &stripControlWriter{out: os.Stdout}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	groups := retroGroups{}
	options.Match = func(match retro.Match) error {
		switch {
		case match.Known && !r.known:
			return nil
		case r.output == "json":
			return encoder.Encode(match)
		}
		return groups.add(match)
	}
	result, err := retro.Run(ctx, options)
	progress.removeStatus()
	if err != nil {
		return cfg.describeStoreError(err)
	}
	if r.output == "table" {
		if err := r.print(out, groups, options, result); err != nil {
			return err
		}
	}
	return failed
}

// retroGroups holds the matches of each rule and group, which names the indicator.
type retroGroups map[string]*retroGroup

type retroGroup struct {
	first   retro.Match
	last    time.Time
	matches int64
}

// maxRetroGroups bounds the groups that are kept to be printed.
const maxRetroGroups = 100_000

func (g retroGroups) add(match retro.Match) error {
	key := match.Rule + "\x00" + match.Group
	group := g[key]
	if group == nil {
		if len(g) == maxRetroGroups {
			return errors.New("too many groups for a table: choose -o json, or a shorter --since")
		}
		group = &retroGroup{first: match}
		g[key] = group
	}
	if match.At.Before(group.first.At) {
		group.first = match
	}
	if match.At.After(group.last) {
		group.last = match.At
	}
	group.matches++
	return nil
}

// print prints the groups, the latest first.
func (r *feedRetro) print(out io.Writer, groups retroGroups, options retro.Options, result retro.Result) error {
	found, what := result.Matches, ""
	if !r.known {
		found, what = result.Matches-result.Known, " that was not known when the event was stored"
	}
	if found != 1 {
		what = strings.Replace(what, "was", "were", 1)
	}
	_, _ = fmt.Fprintf(out, "%s%s, in the events of %s to %s UTC; %s looked up\n", countOf(int(found), "match"), what,
		options.From.UTC().Format(minuteFormat), options.To.UTC().Format(minuteFormat), countOf(int(result.Values), "value"))
	if len(groups) == 0 {
		return nil
	}
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "\nFIRST (UTC)\tLAST\tMATCHES\tSEVERITY\tFEED\tGROUP\tEVENT\tTEXT\n")
	sorted := slices.SortedFunc(maps.Values(groups), func(a, b *retroGroup) int {
		return cmp.Or(b.last.Compare(a.last), strings.Compare(a.first.Rule, b.first.Rule), strings.Compare(a.first.Group, b.first.Group))
	})
	for _, group := range sorted {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%7s\t%s\t%s\t%s\t%s\t%s\n", group.first.At.Format(time.DateTime), group.last.Format(time.DateTime),
			formatCount(group.matches), group.first.Severity, strings.TrimPrefix(group.first.Rule, "feed-"), oneLineText(group.first.Group, 120),
			group.first.Event, oneLineText(group.first.Evidence, 200))
	}
	return writer.Flush()
}

// chooseFeeds returns the feeds with these names, and the allow-lists. Without names it returns all.
func chooseFeeds(all []feeds.Config, names []string) ([]feeds.Config, error) {
	for _, name := range names {
		if !slices.ContainsFunc(all, func(feed feeds.Config) bool { return feed.Name == name }) {
			return nil, fmt.Errorf("no feed of the configuration has the name %q", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(feed feeds.Config) bool {
		return len(names) > 0 && !feed.Allow && !slices.Contains(names, feed.Name)
	}), nil
}
