package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/spf13/cobra"

	"tidegate/detectors/bundles"
)

// statusRulesCommand returns the command `tidegate rules status`.
func statusRulesCommand() *cobra.Command {
	var flags configFlags
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "list the signed bundles, and which one each engine runs",
		Long: `status lists the bundles on the topic that a key of rules.bundle_keys has signed, and what each engine has reported: the
bundle that it runs, since when, and why it refused a newer one. Engines report once a minute; one that has not done so
for three minutes is gone, and is no longer listed after a week.

Needs:    Kafka.`,
		Example: `  tidegate rules status
  tidegate rules status -o json | jq 'select(.state != "current")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "table", "json"); err != nil {
				return err
			}
			cfg, err := flags.loadConfig(roleSet{all: roleEngine})
			if err != nil {
				return err
			}
			return printRulesStatus(cmd.Context(), &cfg, output)
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one engine a line)")
	return cmd
}

// An engineStatus is a line of `tidegate rules status -o json`.
type engineStatus struct {
	bundles.Report
	State string    `json:"state"`
	Seen  time.Time `json:"seen"`
}

// The states of an engine besides stateRefused.
const (
	stateCurrent    = "current"       // it runs the newest bundle
	stateOlder      = "older"         // it has not loaded the newest bundle yet
	stateConfigured = "configuration" // it runs the rules of its configuration
	stateGone       = "gone"          // it has not reported lately
)

// statusOf returns the status of an engine, when newest is the newest bundle; nil: none is known.
func statusOf(report bundles.Report, newest *bundles.Bundle, now time.Time) engineStatus {
	status := engineStatus{Report: report, Seen: report.Seen.UTC(), State: stateCurrent}
	switch {
	case !report.IsLive(now):
		status.State = stateGone
	case report.Refused != nil && report.Refused.Sequence > report.Sequence:
		status.State = stateRefused
	case report.Bundle == "":
		status.State = stateConfigured
	case newest != nil && report.Sequence < newest.Sequence:
		status.State = stateOlder
	}
	return status
}

// describe returns what is wrong with an engine.
func (s *engineStatus) describe() string {
	switch {
	case s.State == stateRefused:
		return fmt.Sprintf("%s: %s", s.Refused.Bundle, s.Refused.Error)
	case s.Problem != "":
		return s.Problem
	case s.LastRejected != nil:
		return fmt.Sprintf("%s rejected, the last: %s", countOf(int(s.Rejected), "message"), s.LastRejected.Error)
	}
	return ""
}

// printRulesStatus reads both topics and prints them.
func printRulesStatus(ctx context.Context, cfg *Config, output string) error {
	keys, err := cfg.bundleKeys()
	if err != nil {
		return err
	}
	client, err := cfg.openKafka()
	if err != nil {
		return err
	}
	defer client.Close()
	list, refused, err := bundles.Read(ctx, client, keys)
	if err == nil {
		var reports []bundles.Report
		if reports, err = bundles.NewReports(client).Read(ctx); err == nil {
			return printEngines(&stripControlWriter{out: os.Stdout}, list, refused, reports, len(keys) > 0, output)
		}
	}
	if errors.Is(err, kafkago.UnknownTopicOrPartition) {
		return errors.New("no bundle was ever pushed here: the topic does not exist; see `tidegate rules push`")
	}
	return err
}

func printEngines(out io.Writer, list []*bundles.Bundle, refused int, reports []bundles.Report, hasKeys bool, output string) error {
	var newest *bundles.Bundle
	if len(list) > 0 {
		newest = list[0]
	}
	now := time.Now()
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		for _, report := range reports {
			if err := encoder.Encode(statusOf(report, newest, now)); err != nil {
				return err
			}
		}
		return nil
	}

	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if hasKeys {
		_, _ = fmt.Fprintln(writer, "BUNDLE\tPUSHED\tBY\tKEY\tCOMMENT")
		for _, bundle := range list {
			comment := bundle.Comment
			if bundle.RollbackOf > 0 {
				comment = "rollback; " + comment
			}
			_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\n", bundle.Name(), bundle.Pushed.UTC().Format(time.DateTime),
				oneLineText(bundle.By, 60), bundles.Fingerprint(bundle.Key), oneLineText(comment, 100))
		}
	} else {
		_, _ = fmt.Fprintln(writer, "rules.bundle_keys is empty: the bundles on the topic cannot be verified and are not listed")
	}
	if hasKeys && refused > 0 {
		_, _ = fmt.Fprintf(writer, "%s that no key has signed\n", countOf(refused, "message"))
	}
	_, _ = fmt.Fprintln(writer, "\nENGINE\tBUNDLE\tSINCE\tSTATE\tSEEN\tERROR")
	for _, report := range reports {
		status := statusOf(report, newest, now)
		bundle := status.Bundle
		if bundle == "" {
			bundle = "-"
		}
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLineText(status.Engine, 80), oneLineText(bundle, nameWidth),
			status.Since.UTC().Format(time.DateTime), status.State, status.Seen.Format(time.DateTime), oneLineText(status.describe(), 200))
	}
	return writer.Flush()
}

// nameWidth bounds the name of a bundle in the table.
const nameWidth = 12
