package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
	"tidegate/pipeline/retry"
)

// Times and sizes of `tidegate alerts tail`.
const (
	tailPause    = time.Second
	tailOverlap  = 10 * time.Second // rows are stored some time before they can be read
	tailInterval = 30 * time.Second // between two lines of one alert
	tailMemory   = 10 * time.Minute
	tailRows     = 1000 // at a time
)

// tailAlertsCommand returns the command `tidegate alerts tail`.
func tailAlertsCommand() *cobra.Command {
	var flags configFlags
	var selection alertSelection
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "print the latest alerts, and new ones as they come",
		Long: `tail prints a line for each alert, and another one when it has more matches, at most every 30 s.

Ends:     on SIGINT or SIGTERM.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, where, err := selection.loadConfig(&flags)
			if err != nil {
				return err
			}
			tail := alertTail{
				cfg: &cfg, where: where, out: &stripControlWriter{out: cmd.OutOrStdout()},
				messages: &stripControlWriter{out: cmd.ErrOrStderr()}, alerts: map[string]*tailedAlert{},
			}
			return tail.follow(cmd.Context(), selection.limit)
		},
	}
	selection.addTo(cmd, 10)
	flags.addTo(cmd)
	return cmd
}

// An alertTail prints alerts as they are stored.
type alertTail struct {
	cfg      *Config
	where    string
	out      io.Writer
	messages io.Writer               // errors that pass
	alerts   map[string]*tailedAlert // by id
}

// A tailedAlert holds the newest known state of an alert, and which one was printed when.
type tailedAlert struct {
	newest  storedAlert
	printed uint64    // a revision; 0: none
	at      time.Time // of the last line
}

// storedAlert is a row of the view alerts.
type storedAlert struct {
	pipeline.Alert
	Stored time.Time `json:"stored"`
}

// follow prints the latest alerts, at most limit, and then new ones until ctx ends.
func (t *alertTail) follow(ctx context.Context, limit int) error {
	latest, err := t.readStates(ctx, fmt.Sprintf("ORDER BY stored DESC, id LIMIT %d", limit))
	if err != nil {
		return err
	}
	failed := false
	for {
		if err := t.printLines(time.Now()); err != nil {
			return err
		}
		if retry.Sleep(ctx, tailPause) != nil {
			return nil
		}
		since := latest.Add(-tailOverlap).UnixMilli()
		newest, err := t.readStates(ctx, fmt.Sprintf(
			"AND stored > fromUnixTimestamp64Milli(%d, 'UTC') ORDER BY stored DESC, id LIMIT %d", since, tailRows))
		// The store may be away for a while, as at its upgrade.
		if err != nil && !failed && ctx.Err() == nil {
			_, _ = fmt.Fprintf(t.messages, "%v; retrying\n", err)
		}
		failed = err != nil
		if newest.After(latest) {
			latest = newest
		}
	}
}

// readStates reads the newest states of the alerts that a query selects. It returns when the last of them was
// stored.
func (t *alertTail) readStates(ctx context.Context, rest string) (latest time.Time, err error) {
	decoder, err := queryJSON(ctx, t.cfg, "SELECT * FROM alerts WHERE "+t.where+" "+rest, "JSONEachRow")
	if err != nil {
		return latest, err
	}
	rows := 0
	for ; decoder.More(); rows++ {
		var row storedAlert
		if err := decoder.Decode(&row); err != nil {
			return latest, fmt.Errorf("read an alert: %w", err)
		}
		if row.Stored.After(latest) {
			latest = row.Stored
		}
		switch alert := t.alerts[row.ID]; {
		case alert == nil:
			t.alerts[row.ID] = &tailedAlert{newest: row}
		case row.Revision > alert.newest.Revision:
			alert.newest = row
		}
	}
	if rows == tailRows {
		_, _ = fmt.Fprintf(t.messages, "more than %d alerts within %v; `tidegate alerts list` shows all\n",
			tailRows, tailOverlap)
	}
	return latest, nil
}

// printLines prints the alerts that have a new state, in the order of their last matches, and removes from memory
// those that had none for long. The order in which states are stored differs: each partition stores its own.
func (t *alertTail) printLines(now time.Time) error {
	var due []*tailedAlert
	for id, alert := range t.alerts {
		age := now.Sub(alert.at)
		switch {
		case alert.newest.Revision > alert.printed && age >= tailInterval:
			due = append(due, alert)
		case age > tailMemory:
			delete(t.alerts, id)
		}
	}
	slices.SortFunc(due, func(a, b *tailedAlert) int {
		return cmp.Or(a.newest.Last.Compare(b.newest.Last), strings.Compare(a.newest.ID, b.newest.ID))
	})
	for _, alert := range due {
		line := fmt.Sprintf("%s %s\n", alert.newest.Last.UTC().Format(time.DateTime), alertLine(&alert.newest.Alert))
		if _, err := io.WriteString(t.out, line); err != nil {
			return err
		}
		alert.printed, alert.at = alert.newest.Revision, now
	}
	return nil
}
