package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
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
		Args: noArguments,
		RunE: list.RunE,
	}
	// `tidegate alerts` without a subcommand runs list and takes its flags.
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
	cmd.Flags().StringVar(&s.severity, "severity", "",
		"only alerts of this severity or a higher one: info, low, medium, high, critical")
	cmd.Flags().DurationVar(&s.since, "since", 0, "only alerts with a match within this time, such as 24h")
	cmd.Flags().IntVarP(&s.limit, "limit", "n", limit, "number of alerts, the latest ones")
}

// loadConfig returns the configuration for the store and the selection as the condition of a query.
func (s *alertSelection) loadConfig(flags *configFlags) (cfg Config, where string, err error) {
	if where, err = s.where(); err != nil {
		return cfg, "", err
	}
	cfg, err = flags.loadConfig(roleSet{all: roleStore})
	return cfg, where, err
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
	if s.since < 0 {
		return "", fmt.Errorf("--since %v: must not be negative", s.since)
	}
	if s.since > 0 {
		condition += fmt.Sprintf(" AND last >= now64(9) - toIntervalMillisecond(%d)", s.since.Milliseconds())
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
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, where, err := selection.loadConfig(&flags)
			if err != nil {
				return err
			}
			columns := "toDateTime(last) AS latest, severity, rule, title, count, container_name AS container," +
				" source, destination, left(id, 12) AS alert"
			if format != "table" {
				columns = "*"
			}
			sql := fmt.Sprintf("SELECT %s FROM alerts WHERE %s ORDER BY last DESC, id LIMIT %d",
				columns, where, selection.limit)
			return runQuery(cmd.Context(), &cfg, sql, format)
		},
	}
	selection.addTo(cmd, 20)
	cmd.Flags().StringVarP(&format, "output", "o", "table",
		"table, json or jsonl (one object a line), csv, tsv or vertical; all but table have every column")
	flags.addTo(cmd)
	return cmd
}

// alertID matches the beginning of the id of an alert, and the fingerprint, which Alertmanager has as a
// label.
var alertID = regexp.MustCompile(`^[0-9a-f]{1,32}$`)

// showAlertCommand returns the command `tidegate alerts show`.
func showAlertCommand() *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "print what is known of an alert",
		Long: `show prints the columns of an alert that are set. ID is the id, as much of its beginning as is unique, or the
fingerprint.`,
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
			rows, err := queryRows(cmd.Context(), &cfg, fmt.Sprintf(
				"SELECT * FROM alerts WHERE startsWith(id, '%s') OR fingerprint = '%s' ORDER BY last DESC LIMIT 10", id, id))
			if err != nil {
				return err
			}
			return printAlert(&stripControlWriter{out: cmd.OutOrStdout()}, args[0], rows)
		},
	}
	flags.addTo(cmd)
	return cmd
}

// printAlert prints the one alert of rows. Several alerts with the same fingerprint are the windows of one,
// of which the latest is printed; otherwise the id is ambiguous.
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
