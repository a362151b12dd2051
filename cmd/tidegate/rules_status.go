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
	stateAhead      = "ahead"         // it runs a bundle that is newer than those on the topic
	stateGone       = "gone"          // it has not reported lately
)

// statusOf returns the status of an engine, when newest is the newest bundle; nil: there is none. isVerified is false if no
// key is configured, so that no bundle is known.
func statusOf(report bundles.Report, newest *bundles.Bundle, isVerified bool, now time.Time) engineStatus {
	status := engineStatus{Report: report, Seen: report.Seen.UTC(), State: stateCurrent}
	switch {
	case !report.IsLive(now):
		status.State = stateGone
	case report.Refused != nil && report.Refused.Sequence > report.Sequence:
		status.State = stateRefused
	case report.Pending != nil && report.Pending.Sequence > report.Sequence:
		status.State = statePending
	case report.Bundle == "":
		status.State = stateConfigured
	case isVerified && (newest == nil || report.Sequence > newest.Sequence):
		status.State = stateAhead
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
	case s.State == statePending:
		return fmt.Sprintf("%s: not loaded after %s: %s", s.Pending.Bundle, countOf(s.Pending.Attempts, "attempt"), s.Pending.Error)
	case s.Problem != "":
		return s.Problem
	case s.State == stateAhead:
		return "its bundle is not on the topic: somebody has removed it, or another key has signed it"
	case s.LastRemoved != nil:
		return fmt.Sprintf("%s removed from the topic without a push, the last at %s", countOf(int(s.Removed), "bundle"),
			s.LastRemoved.At.UTC().Format(time.DateTime))
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
	reports, err := bundles.NewReports(client).Read(ctx) // before the bundles, so that no engine is ahead of these
	if err == nil {
		var topic *bundles.Topic
		if topic, err = bundles.Read(ctx, client, keys); err == nil {
			return printEngines(&stripControlWriter{out: os.Stdout}, topic, reports, len(keys) > 0, output)
		}
	}
	if errors.Is(err, kafkago.UnknownTopicOrPartition) {
		return errors.New("no bundle was ever pushed here: the topic does not exist; see `tidegate rules push`")
	}
	return err
}

func printEngines(out io.Writer, topic *bundles.Topic, reports []bundles.Report, hasKeys bool, output string) error {
	var newest *bundles.Bundle
	if len(topic.Bundles) > 0 {
		newest = topic.Bundles[0]
	}
	now := time.Now()
	if output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		for _, report := range reports {
			if err := encoder.Encode(statusOf(report, newest, hasKeys, now)); err != nil {
				return err
			}
		}
		return nil
	}

	writer := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	if hasKeys {
		_, _ = fmt.Fprintln(writer, "BUNDLE\tPUSHED\tBY\tKEY\tCOMMENT")
		for _, bundle := range topic.Bundles {
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
	if hasKeys {
		printTopicProblems(writer, topic)
	}
	_, _ = fmt.Fprintln(writer, "\nENGINE\tBUNDLE\tSINCE\tSTATE\tSEEN\tERROR")
	for _, report := range reports {
		status := statusOf(report, newest, hasKeys, now)
		bundle := status.Bundle
		if bundle == "" {
			bundle = "-"
		}
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLineText(status.Engine, 80), oneLineText(bundle, nameWidth),
			status.Since.UTC().Format(time.DateTime), status.State, status.Seen.Format(time.DateTime), oneLineText(status.describe(), 200))
	}
	return writer.Flush()
}

// printTopicProblems prints what on the topic is not a bundle of a push.
func printTopicProblems(out io.Writer, topic *bundles.Topic) {
	if topic.Refused > 0 {
		_, _ = fmt.Fprintf(out, "%s that no key has signed\n", countOf(topic.Refused, "message"))
	}
	if count := len(topic.Removed); count > 0 {
		_, _ = fmt.Fprintf(out, "%s removed from the topic without a push, the last with the sequence %d: see who may write to it, and push again; "+
			"engines keep what they run\n", countOf(count, "bundle"), topic.Removed[count-1])
	}
	if topic.Damaged > 0 {
		_, _ = fmt.Fprintf(out, "%s of messages cannot be read\n", countOf(topic.Damaged, "batch"))
	}
	if topic.IsIncomplete {
		_, _ = fmt.Fprintln(out, "the topic has more messages than could be read in a minute: somebody writes there without a key; there may be newer bundles")
	}
}

// nameWidth bounds the name of a bundle in the table.
const nameWidth = 12
