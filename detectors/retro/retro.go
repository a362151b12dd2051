// Package retro looks up in the stored events what feeds list now.
//
// An indicator is often listed after the first contact with it. Run reads the events of the past from ClickHouse an hour at a
// time: first the different values that feeds are asked for, of which nearly all are ruled out by the look-up of the engine
// itself; then the events that have one of the others, which are evaluated as the engine does it. So an event is found if and only
// if it would have a verdict now, but for texts that are not UTF-8, which JSON does not keep.
package retro

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
)

const (
	stepTime     = time.Hour   // of event time that is read at once
	shortestStep = time.Second // of a step that is divided because it reaches a limit of the server
	maxLine      = 64 << 20    // bytes of an event as JSON
	maxMatches   = 1_000_000
	maxBatch     = 48 << 10 // bytes of the values of a query; escaped they are three times as much at most (http_max_field_value_size)

)

// limits end a query that takes too much time or memory of the server. The step is divided then. Tests lower them.
var limits = " SETTINGS max_execution_time = 60, max_memory_usage = 268435456, max_result_rows = 1000000, max_result_bytes = 500000000"

// Options are the settings of Run.
type Options struct {
	Store    clickhouse.Config // the read-only user where there is one
	Set      *feeds.Set
	From, To time.Time // range of @timestamp, without To
	// Match is called for each match, in the order of the hours. An error ends Run.
	Match func(Match) error
	// Progress is called after each step with the time up to which events were read. Nil: it is not called.
	Progress func(until time.Time, found Result)
}

// A Match is a verdict that a stored event would have now.
type Match struct {
	At       time.Time `json:"@timestamp"`
	Event    string    `json:"event.id"`
	Dataset  string    `json:"event.dataset"`
	Rule     string    `json:"rule"` // feed- and the name of the feed
	Severity string    `json:"severity"`
	Score    uint32    `json:"confidence"`
	Evidence string    `json:"evidence"`
	Group    string    `json:"group"`
	Known    bool      `json:"known"` // the event had this verdict when it was stored
}

// A Result counts what was found.
type Result struct {
	Values  int64 // different values that were looked up, by hour and field
	Events  int64 // events with a value that is listed
	Matches int64 // verdicts of these events
	Known   int64 // of Matches, those that the event had when it was stored
}

// A search is one Run.
type search struct {
	Options
	seen   map[string]bool // the events of this step that were evaluated, by id
	result Result
}

// Run calls Match for each verdict that a stored event would have now.
func Run(ctx context.Context, options Options) (Result, error) {
	s := &search{Options: options}
	for at := s.From; at.Before(s.To); at = at.Add(stepTime) {
		until := at.Add(stepTime)
		if until.After(s.To) {
			until = s.To
		}
		s.seen = map[string]bool{}
		if err := s.searchStep(ctx, at, until); err != nil {
			return s.result, fmt.Errorf("search the events from %s on: %w", at.UTC().Format(time.DateTime), err)
		}
		if s.Progress != nil {
			s.Progress(until, s.result)
		}
	}
	return s.result, nil
}

// searchStep searches the events of a time. If that reaches a limit of the server, it searches each half. Events that were
// evaluated already are not again.
func (s *search) searchStep(ctx context.Context, from, until time.Time) error {
	err := s.searchOnce(ctx, from, until)
	length := until.Sub(from)
	if err == nil || length <= shortestStep || !reachedLimit(err) {
		return err
	}
	middle := from.Add(length / 2)
	if err := s.searchStep(ctx, from, middle); err != nil {
		return err
	}
	return s.searchStep(ctx, middle, until)
}

// reachedLimit reports whether a query took too much of the server.
func reachedLimit(err error) bool {
	return slices.ContainsFunc([]string{"TOO_MANY_ROWS", "TOO_MANY_BYTES", "MEMORY_LIMIT_EXCEEDED", "TIMEOUT_EXCEEDED", "NOT_ENOUGH_SPACE"},
		func(code string) bool { return strings.Contains(err.Error(), "("+code) })
}

// inTime is the condition on the time of the events of a step.
const inTime = "`@timestamp` >= {from:DateTime64(9, 'UTC')} AND `@timestamp` < {until:DateTime64(9, 'UTC')}"

// searchOnce searches the events of a time.
func (s *search) searchOnce(ctx context.Context, from, until time.Time) error {
	values := map[string]string{"from": storeTime(from), "until": storeTime(until)}

	// 1. The different values, and of these the listed ones.
	listed := make([][][]string, len(feeds.StoredValues)) // by kind
	found := int64(0)
	var row struct {
		Kind  int      `json:"kind"`
		Value []string `json:"value"`
	}
	err := s.query(ctx, valuesQuery(), values, func(line []byte) error {
		row.Value = row.Value[:0]
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		found++
		if kind := &feeds.StoredValues[row.Kind]; s.Set.MayList(kind, row.Value) {
			listed[row.Kind] = append(listed[row.Kind], slices.Clone(row.Value))
		}
		return nil
	})
	if err != nil {
		return err
	}

	// 2. The events with these values.
	for kind := range listed {
		for batch := range batches(listed[kind]) {
			where := eventsCondition(&feeds.StoredValues[kind], batch, values)
			sql := "SELECT * FROM events WHERE " + inTime + " AND " + where + " ORDER BY `@timestamp`, `event.id`" + limits
			if err := s.query(ctx, sql, values, s.evaluate); err != nil {
				return err
			}
		}
	}
	s.result.Values += found
	return nil
}

// valuesQuery returns the query for the different values of each kind.
func valuesQuery() string {
	var parts []string
	for number, kind := range feeds.StoredValues {
		elements := make([]string, len(kind.Columns))
		present := make([]string, len(kind.Columns))
		for i, column := range kind.Columns {
			elements[i], present[i] = "toString(`"+column+"`)", "notEmpty(`"+column+"`)"
		}
		value, where := "["+strings.Join(elements, ", ")+"]", present[0]
		switch {
		case kind.Lists && len(kind.Columns) == 2:
			// Lists of different lengths are an error of arrayMap.
			value = fmt.Sprintf("arrayJoin(arrayMap((a, b) -> [toString(a), b], arrayResize(`%s`, length(`%s`)), `%s`))",
				kind.Columns[0], kind.Columns[1], kind.Columns[1])
		case kind.Lists:
			value = "[arrayJoin(`" + kind.Columns[0] + "`)]"
		}
		parts = append(parts, fmt.Sprintf("SELECT DISTINCT %d AS kind, %s AS value FROM events WHERE %s AND %s", number, value, inTime, where))
	}
	return "SELECT kind, value FROM (" + strings.Join(parts, " UNION ALL ") + ")" + limits
}

// batches returns the values in parts of which each fits into a query.
func batches(values [][]string) func(func([][]string) bool) {
	return func(yield func([][]string) bool) {
		for first := 0; first < len(values); {
			size, end := 0, first
			for end < len(values) && (end == first || size < maxBatch) {
				for _, text := range values[end] {
					size += len(clickhouse.ArrayParameter([]string{text}))
				}
				end++
			}
			if !yield(values[first:end]) {
				return
			}
			first = end
		}
	}
}

// eventsCondition returns the condition of the events that have one of the values of a kind, and sets its parameters.
func eventsCondition(kind *feeds.StoredValue, batch [][]string, parameters map[string]string) string {
	key := kind.Key
	if len(key) == 0 {
		key = []int{0}
	}
	var conditions []string
	for _, at := range key {
		var texts []string
		for _, value := range batch {
			texts = append(texts, value[at])
		}
		slices.Sort(texts)
		name := fmt.Sprint("p", at)
		parameters[name] = clickhouse.ArrayParameter(slices.Compact(texts))
		form := "`%s` IN {%s:Array(String)}"
		if kind.Lists {
			form = "hasAny(`%s`, {%s:Array(String)})"
		}
		conditions = append(conditions, fmt.Sprintf(form, kind.Columns[at], name))
	}
	return strings.Join(conditions, " AND ")
}

// evaluate calls Match for the verdicts of a stored event, unless that was done already.
func (s *search) evaluate(line []byte) error {
	event, err := pipeline.FromEventLine(line)
	if err != nil {
		return err
	}
	id := event.IDText()
	if s.seen[id] {
		return nil
	}
	s.seen[id] = true
	var stored struct {
		Rules  []string `json:"verdict.rule"`
		Groups []string `json:"verdict.group"`
	}
	if err := json.Unmarshal(line, &stored); err != nil {
		return err
	}
	s.Set.Evaluate([]*pipeline.Event{event})
	s.result.Events++
	for _, verdict := range event.Verdicts {
		match := Match{
			At: time.Unix(0, event.Timestamp).UTC(), Event: id, Dataset: event.Dataset.Name(), Rule: verdict.Rule, Severity: verdict.Severity.Name(),
			Score: verdict.Score, Evidence: verdict.Evidence, Group: verdict.Group,
		}
		for i := range min(len(stored.Rules), len(stored.Groups)) {
			match.Known = match.Known || stored.Rules[i] == verdict.Rule && stored.Groups[i] == verdict.Group
		}
		s.result.Matches++
		if match.Known {
			s.result.Known++
		}
		if s.result.Matches > maxMatches {
			return errTooMany
		}
		if err := s.Match(match); err != nil {
			return err
		}
	}
	return nil
}

var errTooMany = fmt.Errorf("more than %d matches: choose a shorter time, or fewer feeds", maxMatches)

// query calls use for each line of the result.
func (s *search) query(ctx context.Context, sql string, values map[string]string, use func(line []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader, writer := io.Pipe()
	defer reader.Close()
	go func() {
		_ = writer.CloseWithError(clickhouse.QueryWith(ctx, s.Store, sql, values, "JSONEachRow", writer))
	}()
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := use(lines.Bytes()); err != nil {
			return err
		}
	}
	return lines.Err()
}

// storeTime returns a time in the form of a parameter of ClickHouse.
func storeTime(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05.000000000") }
