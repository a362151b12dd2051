package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// explainCommand returns the command `tidegate rules explain`.
func explainCommand() *cobra.Command {
	var flags ruleFlags
	var output string
	cmd := &cobra.Command{
		Use:   "explain ID EVENT-ID|FILE",
		Short: "say why a rule matches an event or does not",
		Long: `explain prints each part of the condition of a rule with its value for an event and what it has read, the exceptions, and
whether the prefilter lets the engine evaluate the rule for it. The event is a stored one, by its event.id, or those of a file,
one a line, as replay -o jsonl or query -o jsonl 'SELECT * …' print them; other lines of JSON are lines of a log. For a correlation rule it prints each step. If the
events come from a file, the table also has, for each group, how many events each step has in the file, and how often the rule
was fulfilled.

Needs:    for an EVENT-ID a running store, as query does.
Ends:     with 0 whether the rule matches or not; with 2 if there is no such rule or event.`,
		Example: `  tidegate rules explain http-path-traversal 741d3a3a-5324-66cf-e214-21504d9223b0
  tidegate replay -o jsonl shop.pcap > shop.jsonl; tidegate rules explain --rules my-rules my-rule shop.jsonl`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s takes two arguments, the id of a rule, and the id of an event or a file; got %d", shortPath(cmd), len(args))
			}
			return nil
		},
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
			if id := strings.ToLower(args[1]); eventID.MatchString(id) {
				event, err := storedEvent(cmd.Context(), &flags.configFlags, id)
				if err != nil {
					return err
				}
				return explainRule(set, rule, []*pipeline.Event{event}, output)
			}
			events, err := eventsOfFile(args[1])
			if err != nil {
				return err
			}
			if err := explainRule(set, rule, events, output); err != nil {
				return err
			}
			if rule.Correlation != nil && output == "table" {
				explainGroups(&stripControlWriter{out: os.Stdout}, set, rule, events)
			}
			return nil
		},
	}
	flags.addTo(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json (one event a line)")
	return cmd
}

// explainRule prints why a rule matches each of the events or does not.
func explainRule(set *rules.Set, rule *rules.Rule, events []*pipeline.Event, output string) error {
	out := &stripControlWriter{out: os.Stdout}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for _, event := range events {
		explained := set.Explain(rule, event)
		if output == "json" {
			if err := encoder.Encode(printedExplanation{event.IDText(), explained}); err != nil {
				return err
			}
			continue
		}
		for _, explanation := range explained {
			printExplanation(out, rule, event, &explanation)
		}
	}
	return nil
}

// A printedExplanation is a line of `tidegate rules explain -o json`.
type printedExplanation struct {
	Event       string              `json:"event.id"`
	Explanation []rules.Explanation `json:"explanation"`
}

// storedEvent returns the stored event with an id.
func storedEvent(ctx context.Context, flags *configFlags, id string) (*pipeline.Event, error) {
	cfg, err := flags.loadConfig(roleSet{all: roleStore})
	if err != nil {
		return nil, err
	}
	var row bytes.Buffer
	if err := queryStore(ctx, &cfg, "SELECT * FROM events WHERE `event.id` = '"+id+"' LIMIT 1", "JSONEachRow", &row); err != nil {
		return nil, err
	}
	if row.Len() == 0 {
		return nil, fmt.Errorf("no event has the id %s; events are kept for clickhouse.ttl_days", id)
	}
	return pipeline.FromEventLine(row.Bytes())
}

// Bounds of the events of a file.
const (
	maxExplained   = 10_000
	maxEventLength = 64 << 20
)

// eventsOfFile returns the events of a file, one a line.
func eventsOfFile(path string) ([]*pipeline.Event, error) {
	events, err := readEvents(path, maxExplained+1)
	if len(events) > maxExplained {
		return nil, fmt.Errorf("%s: more than %d events", path, maxExplained)
	}
	return events, err
}

// isLogObject reports whether a line is JSON that a program has logged, and no event.
func isLogObject(line []byte) bool {
	var object map[string]json.RawMessage
	if json.Unmarshal(line, &object) != nil || len(object) == 0 {
		return false
	}
	for _, key := range []string{"event", "event.dataset", "event.id"} { // what replay and query print has them
		if _, ok := object[key]; ok {
			return false
		}
	}
	return true
}

// readEvents returns the first events of a file, one a line. A line of JSON that is no event is a line of a log.
func readEvents(path string, most int) (events []*pipeline.Event, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w; an event is named by its event.id, such as 741d3a3a-5324-66cf-e214-21504d9223b0", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxEventLength)
	for number := 1; len(events) < most && lines.Scan(); number++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		event, err := pipeline.FromEventLine(line)
		if err != nil && isLogObject(line) {
			event, err = &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: string(line)}}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		events = append(events, event)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("%s has no events", path)
	}
	return events, nil
}

// printExplanation prints a rule, or a step of it, as a tree. A rule over several events selects events: whether it matches depends on others.
func printExplanation(out io.Writer, rule *rules.Rule, event *pipeline.Event, explained *rules.Explanation) {
	verbs := map[bool]string{true: "matches", false: "does not match"}
	if rule.Correlation != nil {
		verbs = map[bool]string{true: "selects", false: "does not select"}
	}
	verb := verbs[explained.Matches]
	name := fmt.Sprintf("%s, %s of %s", event.IDText(), event.Dataset.Name(), time.Unix(0, event.Timestamp).UTC().Format(time.DateTime))
	if len(event.Id) == 0 {
		name = "a line of a log"
	}
	_, _ = fmt.Fprintf(out, "%s %s %s\n", explained.Rule, verb, name)
	_, _ = fmt.Fprintf(out, "  prefilter  %s\n", oneLineText(explained.Prefilter, 400))
	for _, let := range explained.Let {
		_, _ = fmt.Fprintf(out, "  let        %s = %s\n", let.Name, oneLineText(strconv.Quote(let.Value), 300))
	}
	if explained.DividesByZero {
		_, _ = fmt.Fprintln(out, "  the condition or an exception divides by zero, which makes it false as a whole")
	}
	printPart(out, &explained.When, "  ")
	for _, exception := range explained.Exceptions {
		_, _ = fmt.Fprintf(out, "  an exception, which must be false:\n")
		printPart(out, &exception, "    ")
	}
	_, _ = fmt.Fprintln(out)
}

func printPart(out io.Writer, part *rules.Part, indent string) {
	line := fmt.Sprintf("%s%-5t  %s", indent, part.Holds, oneLineText(part.Text, 300))
	if part.Values != "" {
		line += "   where " + oneLineText(part.Values, 300)
	}
	_, _ = fmt.Fprintln(out, line)
	for i := range part.Parts {
		printPart(out, &part.Parts[i], indent+"  ")
	}
}

// explainGroups prints, for each group of a correlation rule, the number of events of each step in the whole file, and how
// often the rule was fulfilled by the end of the last event, or what it waits for; times are those since the begin of the first event.
func explainGroups(out io.Writer, set *rules.Set, rule *rules.Rule, events []*pipeline.Event) {
	fold := correlate.New([]*correlate.Rule{rule.Correlation}, correlate.DefaultLimits)
	counts, signals := map[string][]int{}, map[string][]correlate.Signal{}
	var order []string
	for _, signal := range set.EvaluateRule(rule, events) {
		fold.Add(signal)
		if counts[signal.Group] == nil {
			counts[signal.Group] = make([]int, len(rule.Correlation.Steps))
			order = append(order, signal.Group)
		}
		counts[signal.Group][signal.Step]++
		signals[signal.Group] = append(signals[signal.Group], signal)
	}
	first, last := events[0].Timestamp, int64(0)
	for _, event := range events {
		first, last = min(first, event.Timestamp), max(last, event.End())
	}
	fulfilled := map[string]int{}
	for _, match := range fold.Advance(last + 1) {
		fulfilled[match.Group]++
	}
	if len(order) == 0 {
		hint := ""
		if len(rule.Group) > 0 {
			hint = ", or all that are lack a field of its group: " + strings.Join(rule.Group, ", ")
		}
		_, _ = fmt.Fprintln(out, "no event is one of its steps"+hint)
	}
	for _, group := range order {
		var parts []string
		for i, step := range rule.Correlation.Steps {
			if step.Name == "" {
				parts = append(parts, countOf(counts[group][i], "event"))
			} else {
				parts = append(parts, fmt.Sprintf("%d of %s", counts[group][i], step.Name))
			}
		}
		state := "fulfilled " + countOf(fulfilled[group], "time")
		if fulfilled[group] == 0 {
			state = "not fulfilled: " + rules.DescribeGroup(rule.Correlation, signals[group], first)
		}
		_, _ = fmt.Fprintf(out, "%s: %s; %s\n", oneLineText(group, 200), strings.Join(parts, ", "), state)
	}
}
