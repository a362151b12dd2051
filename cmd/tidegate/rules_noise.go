package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"tidegate/pipeline"
)

// noiseCommand returns the command `tidegate rules noise`.
func noiseCommand() *cobra.Command {
	var flags configFlags
	var output string
	since := sinceFlag(7 * 24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "noise",
		Short: "list the rules by their share of the alerts, with the exception that would suppress the largest group",
		Long: `noise counts the alerts of each rule, feed and classifier in the store. For a rule it also prints an exception
(rules.exceptions) that would suppress the events of its largest group. A container is named by container.name, so the
exception holds for every container of that name, on all hosts. Look at the alerts first: a frequent one may be a real one.
MATCHES are those of the counted alerts, also the ones before the time of --since.

Needs:    a running store, as query does.`,
		Example: `  tidegate rules noise
  tidegate rules noise --since 24h -o json | jq -r '.exception'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			cfg, err := flags.loadConfig(roleSet{all: roleStore})
			if err != nil {
				return err
			}
			rows, err := queryRows(cmd.Context(), &cfg, fmt.Sprintf(noiseSQL, time.Duration(since).Milliseconds()))
			if err != nil {
				return err
			}
			return printNoise(&stripControlWriter{out: os.Stdout}, rows, output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().Var(&since, "since", "count alerts whose last match is at most this old, 1m to 366d: 24h, 7d")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one rule a line)")
	return cmd
}

// noiseSQL has a row for each rule; %d is the time in ms. A name of a column must not be that of a column of alerts.
const noiseSQL = "SELECT rule AS n_rule, any(g_detector) AS n_detector, max(g_severity) AS n_severity, sum(g_alerts) AS n_alerts," +
	" sum(g_matches) AS n_matches, count() AS n_groups, max(g_alerts) AS n_largest, argMax(g_group, g_alerts) AS n_group," +
	" argMax(g_container, g_alerts) AS n_container FROM" +
	" (SELECT rule, fingerprint, any(detector) AS g_detector, max(severity) AS g_severity, count() AS g_alerts, sum(count) AS g_matches," +
	" any(`group`) AS g_group, any(container_name) AS g_container" +
	" FROM alerts WHERE last >= now64(9) - toIntervalMillisecond(%d) GROUP BY rule, fingerprint)" +
	" GROUP BY rule ORDER BY n_alerts DESC, n_rule"

// A noisyRule is a line of `tidegate rules noise -o json`.
type noisyRule struct {
	Rule      string  `json:"rule"`
	Detector  string  `json:"detector"`
	Severity  string  `json:"severity"`
	Share     float64 `json:"share"` // of all alerts
	Alerts    int64   `json:"alerts"`
	Matches   int64   `json:"matches"`
	Groups    int64   `json:"groups"`
	Largest   int64   `json:"largest_group_alerts"`
	Group     string  `json:"largest_group"`
	Exception string  `json:"exception"` // "": there is none
}

// printNoise prints the rows of noiseSQL.
func printNoise(out io.Writer, rows *rowSet, output string) error {
	var noisy []noisyRule
	total := int64(0)
	for _, row := range rows.values {
		number := func(name string) int64 { n, _ := strconv.ParseInt(rows.text(row, name), 10, 64); return n }
		rule := noisyRule{
			Rule: rows.text(row, "n_rule"), Detector: rows.text(row, "n_detector"), Severity: rows.text(row, "n_severity"),
			Alerts: number("n_alerts"), Matches: number("n_matches"), Groups: number("n_groups"), Largest: number("n_largest"),
			Group: rows.text(row, "n_group"),
		}
		if rule.Detector == "rules" {
			rule.Exception = exceptionOf(rule.Group, rows.text(row, "n_container"))
		}
		total += rule.Alerts
		noisy = append(noisy, rule)
	}
	if output == "table" && len(noisy) == 0 {
		_, err := io.WriteString(os.Stderr, "no alerts\n")
		return err
	}

	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if output == "table" {
		_, _ = fmt.Fprintln(writer, "SHARE\tALERTS\tMATCHES\tGROUPS\tSEVERITY\tDETECTOR\tRULE\tLARGEST GROUP\tEXCEPTION FOR IT")
	}
	for _, rule := range noisy {
		rule.Share = float64(rule.Alerts) / float64(total)
		if output == "json" {
			if err := encoder.Encode(rule); err != nil {
				return err
			}
			continue
		}
		exception := rule.Exception
		if exception == "" {
			exception = "-" // a feed, a classifier, or a group that rules cannot state
		}
		_, _ = fmt.Fprintf(writer, "%4.0f %%\t%6s\t%7s\t%6s\t%s\t%s\t%s\t%13s\t%s\n", 100*rule.Share, formatCount(rule.Alerts), formatCount(rule.Matches),
			formatCount(rule.Groups), rule.Severity, rule.Detector, oneLineText(rule.Rule, 80), formatCount(rule.Largest), oneLineText(exception, 300))
	}
	return writer.Flush()
}

// cutGroup matches the text of a group that was cut, which ends with a hash of the whole.
var cutGroup = regexp.MustCompile(`~[0-9a-f]{16}$`)

// exceptionOf returns the condition of the events of a group of alerts, "" if rules cannot state it. A container is named by its
// name: another one with the same task has another id.
func exceptionOf(group, container string) string {
	fields, ok := pipeline.ParseGroup(group)
	if !ok || cutGroup.MatchString(group) {
		return ""
	}
	var parts []string
	for _, pair := range fields {
		name, value := pair[0], pair[1]
		if name == "container.id" && container != "" {
			name, value = "container.name", container
		}
		field := pipeline.Lookup(name)
		if field == nil {
			return ""
		}
		switch {
		case value == "":
			parts = append(parts, "not has("+name+")")
		case field.Num != nil:
			parts = append(parts, name+" == "+value)
		case field.Str != nil, field.IP != nil:
			parts = append(parts, name+" == "+strconv.Quote(value))
		default:
			return ""
		}
	}
	return strings.Join(parts, " and ")
}
