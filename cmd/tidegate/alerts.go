package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
	"tidegate/pipeline/retry"
)

// alertsCommand returns the command `tidegate alerts`.
func alertsCommand() *cobra.Command {
	list := listAlertsCommand()
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "list, show or follow alerts",
		Long: `alerts reads the alerts in the store; without a command it lists the latest ones. ` + "`tidegate publish`" + ` delivers
alerts to Alertmanager and webhooks.

Needs:    a running store, as query does.`,
		Example: `  tidegate alerts
  tidegate alerts list --severity high --since 24h
  tidegate alerts show 3f2a
  tidegate alerts tail`,
		Args: cobra.NoArgs,
		RunE: list.RunE,
	}
	// The flags of list are those of the command without a word, too.
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.AddCommand(list, showAlertCommand(), tailAlertsCommand())
	return cmd
}

// An alertSelection holds the flags that select alerts.
type alertSelection struct {
	severity string
	since    time.Duration
	limit    int
}

// addTo defines the flags on a command. limit is the default of --limit.
func (s *alertSelection) addTo(cmd *cobra.Command, limit int) {
	cmd.Flags().StringVar(&s.severity, "severity", "", "only alerts of this severity or a higher one: info, low, medium, high, critical")
	cmd.Flags().DurationVar(&s.since, "since", 0, "only alerts with a match within this time, such as 24h")
	cmd.Flags().IntVarP(&s.limit, "limit", "n", limit, "number of alerts, the latest ones")
}

// where returns the selection as the condition of a query.
func (s *alertSelection) where() (string, error) {
	condition := "true"
	if s.severity != "" {
		if pipeline.SeverityByName(s.severity) == pipeline.Severity_SEVERITY_NONE {
			return "", fmt.Errorf("--severity %s: not one of info, low, medium, high, critical", s.severity)
		}
		condition += " AND severity >= '" + s.severity + "'"
	}
	if s.since > 0 {
		condition += fmt.Sprintf(" AND last >= now64(9) - toIntervalSecond(%d)", int64(s.since.Seconds()))
	}
	if s.limit < 1 {
		return "", fmt.Errorf("--limit %d: must be at least 1", s.limit)
	}
	return condition, nil
}

// listAlertsCommand returns the command `tidegate alerts list`.
func listAlertsCommand() *cobra.Command {
	var flags configFlags
	var selection alertSelection
	var format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "list alerts, the latest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			where, err := selection.where()
			if err != nil {
				return err
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			columns := "toDateTime(last) AS latest, severity, rule, title, count, container_name AS container," +
				" source, destination, left(id, 12) AS alert"
			if format != "table" {
				columns = "*"
			}
			return runQuery(cmd.Context(), &cfg, fmt.Sprintf("SELECT %s FROM alerts WHERE %s ORDER BY last DESC, id LIMIT %d",
				columns, where, selection.limit), format)
		},
	}
	selection.addTo(cmd, 20)
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table, json (one object a line), csv, tsv or vertical; all but table have every column")
	flags.addTo(cmd)
	return cmd
}

// alertID matches the beginning of the id of an alert, and the fingerprint, which Alertmanager has as a label.
var alertID = regexp.MustCompile(`^[0-9a-f]{1,32}$`)

// showAlertCommand returns the command `tidegate alerts show`.
func showAlertCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "print what is known of an alert",
		Long:    "show prints the columns of an alert that are set. ID is the id, as much of its beginning as is unique, or the fingerprint.",
		Example: `  tidegate alerts show 3f2a`,
		Args:    oneArgument("the id of an alert"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.ToLower(args[0])
			if !alertID.MatchString(id) {
				return fmt.Errorf("%q is not the id of an alert: up to 32 hexadecimal digits", args[0])
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			rows, err := queryRows(cmd.Context(), &cfg,
				fmt.Sprintf("SELECT * FROM alerts WHERE startsWith(id, '%s') OR fingerprint = '%s' ORDER BY last DESC LIMIT 10", id, id))
			if err != nil {
				return err
			}
			return printAlert(&stripControlWriter{out: cmd.OutOrStdout()}, args[0], rows)
		},
	}
	flags.addTo(cmd)
	return cmd
}

// printAlert prints the one alert of rows. Several alerts with the same fingerprint are the windows of one, of which
// the latest is printed; otherwise the id is ambiguous.
func printAlert(out io.Writer, id string, rows *rowSet) error {
	fingerprint, ids := "", []string{}
	for _, row := range rows.values {
		fingerprint = rows.text(row, "fingerprint")
		ids = append(ids, rows.text(row, "id"))
	}
	switch {
	case len(rows.values) == 0:
		return fmt.Errorf("no alert has the id %s; `tidegate alerts list` lists them", id)
	case len(rows.values) > 1 && fingerprint != strings.ToLower(id):
		return fmt.Errorf("several alerts have an id that begins with %s: %s", id, strings.Join(ids, ", "))
	}
	rows.printSet(out, rows.values[0])
	_, err := fmt.Fprintf(out, "\nIts event: tidegate event %s\n", rows.text(rows.values[0], "event_id"))
	return err
}

// eventID matches the id of an event.
var eventID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// eventCommand returns the command `tidegate event`.
func eventCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "event ID",
		Short: "print a stored event",
		Long: `event prints the fields of an event that are set. ID is its event.id, as alerts have it in event_id.

Needs:    a running store, as query does.`,
		Example: `  tidegate event 741d3a3a-5324-66cf-e214-21504d9223b0`,
		Args:    oneArgument("the event.id of an event"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := strings.ToLower(args[0])
			if !eventID.MatchString(id) {
				return fmt.Errorf("%q is not the id of an event, such as 741d3a3a-5324-66cf-e214-21504d9223b0", args[0])
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			var names []string
			for i := range pipeline.Fields {
				names = append(names, "`"+pipeline.Fields[i].Name+"`")
			}
			rows, err := queryRows(cmd.Context(), &cfg,
				"SELECT "+strings.Join(names, ", ")+" FROM events WHERE `event.id` = '"+id+"' LIMIT 1")
			if err != nil {
				return err
			}
			if len(rows.values) == 0 {
				return fmt.Errorf("no event has the id %s; events are kept for clickhouse.ttl_days", id)
			}
			rows.printSet(&stripControlWriter{out: cmd.OutOrStdout()}, rows.values[0])
			return nil
		},
	}
	flags.addTo(cmd)
	return cmd
}

// A rowSet is the result of a query: the names of its columns and, a row each, their values as JSON.
type rowSet struct {
	names  []string
	values [][]json.RawMessage
}

// maxRowBytes bounds the result of queryRows.
const maxRowBytes = 64 << 20

// queryRows runs a query and returns its result. Times are those of RFC 3339.
func queryRows(ctx context.Context, cfg *Config, sql string) (*rowSet, error) {
	var out limitedBuffer
	if err := queryStore(ctx, cfg, sql+" SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0,"+
		" output_format_json_escape_forward_slashes = 0",
		"JSONCompactEachRowWithNames", &out); err != nil {
		return nil, err
	}
	rows := &rowSet{}
	decoder := json.NewDecoder(&out.Buffer)
	if err := decoder.Decode(&rows.names); err != nil {
		return nil, fmt.Errorf("read the result of a query: %w", err)
	}
	for decoder.More() {
		var row []json.RawMessage
		if err := decoder.Decode(&row); err != nil || len(row) != len(rows.names) {
			return nil, fmt.Errorf("read the result of a query: %d columns instead of %d: %w", len(row), len(rows.names), err)
		}
		rows.values = append(rows.values, row)
	}
	return rows, nil
}

// A limitedBuffer is a buffer for at most maxRowBytes.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(data []byte) (int, error) {
	if b.Len()+len(data) > maxRowBytes {
		return 0, fmt.Errorf("the result is larger than %d bytes", maxRowBytes)
	}
	return b.Buffer.Write(data)
}

// text returns a value of a row as text, "" if there is no such column.
func (s *rowSet) text(row []json.RawMessage, name string) string {
	i := slices.Index(s.names, name)
	if i < 0 {
		return ""
	}
	return valueText(row[i])
}

// printSet prints a line for each value of a row that is set.
func (s *rowSet) printSet(out io.Writer, row []json.RawMessage) {
	width := 0
	for i, name := range s.names {
		if isSet(row[i]) {
			width = max(width, len(name))
		}
	}
	for i, name := range s.names {
		if isSet(row[i]) {
			_, _ = fmt.Fprintf(out, "%-*s  %s\n", width, name, strings.ReplaceAll(valueText(row[i]), "\n", `\n`))
		}
	}
}

// isSet reports whether a value is another one than that of an absent field.
func isSet(value json.RawMessage) bool {
	switch text := string(value); text {
	case `""`, "0", "false", "[]", "{}", "null":
		return false
	default:
		return !strings.HasPrefix(text, `"1970-01-01T00:00:00`)
	}
}

// valueText returns a value as a person reads it: texts without quotes.
func valueText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}

// Times of `tidegate alerts tail`.
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
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			where, err := selection.where()
			if err != nil {
				return err
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			tail := alertTail{
				cfg: &cfg, where: where, out: &stripControlWriter{out: cmd.OutOrStdout()},
				messages: &stripControlWriter{out: cmd.ErrOrStderr()},
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
	printed  map[string]printedAlert // by id
}

// A printedAlert is an alert of which a line was printed.
type printedAlert struct {
	revision uint64
	at       time.Time
}

// storedAlert is a row of the view alerts.
type storedAlert struct {
	pipeline.Alert
	Stored time.Time `json:"stored"`
}

// follow prints the latest alerts, at most limit, and then new ones until ctx ends.
func (t *alertTail) follow(ctx context.Context, limit int) error {
	t.printed = map[string]printedAlert{}
	latest, err := t.print(ctx, fmt.Sprintf("ORDER BY stored DESC, id LIMIT %d", limit))
	if err != nil {
		return err
	}
	failed := false
	for retry.Sleep(ctx, tailPause) == nil {
		newest, err := t.print(ctx, fmt.Sprintf("AND stored > fromUnixTimestamp64Milli(%d, 'UTC') ORDER BY stored DESC, id LIMIT %d",
			latest.Add(-tailOverlap).UnixMilli(), tailRows))
		if ctx.Err() != nil {
			break
		}
		// The store may be away for a while, as at its upgrade.
		if err != nil && !failed {
			_, _ = fmt.Fprintf(t.messages, "%v; retrying\n", err)
		}
		failed = err != nil
		if newest.After(latest) {
			latest = newest
		}
		for id, alert := range t.printed {
			if time.Since(alert.at) > tailMemory && latest.Sub(alert.at) > tailMemory {
				delete(t.printed, id)
			}
		}
	}
	return nil
}

// print prints the alerts of a query that were not printed before or long ago, the oldest first. It returns when the
// newest of them was stored.
func (t *alertTail) print(ctx context.Context, rest string) (newest time.Time, err error) {
	var out limitedBuffer
	err = queryStore(ctx, t.cfg, "SELECT * FROM alerts WHERE "+t.where+" "+rest+
		" SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0,"+
		" output_format_json_escape_forward_slashes = 0", "JSONEachRow", &out)
	if err != nil {
		return newest, err
	}
	var alerts []storedAlert
	for decoder := json.NewDecoder(&out.Buffer); decoder.More(); {
		var alert storedAlert
		if err := decoder.Decode(&alert); err != nil {
			return newest, fmt.Errorf("read an alert: %w", err)
		}
		alerts = append(alerts, alert)
	}
	if len(alerts) == tailRows {
		_, _ = fmt.Fprintf(t.messages, "more than %d alerts within %v; `tidegate alerts list` shows all\n", tailRows, tailOverlap)
	}
	for _, alert := range slices.Backward(alerts) {
		if alert.Stored.After(newest) {
			newest = alert.Stored
		}
		before, known := t.printed[alert.ID]
		if known && (alert.Revision <= before.revision || time.Since(before.at) < tailInterval) {
			continue
		}
		t.printed[alert.ID] = printedAlert{alert.Revision, time.Now()}
		if _, err := fmt.Fprintf(t.out, "%s %s\n", alert.Last.UTC().Format(time.DateTime), alertLine(&alert.Alert)); err != nil {
			return newest, err
		}
	}
	return newest, nil
}
