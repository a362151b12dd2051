// Package backtest evaluates a rule on stored events: what would it have matched since yesterday?
//
// The condition of the rule becomes SQL (rules.StoreQuery), which selects the events that may match. Each of them is
// evaluated as in the engine, and the matches are grouped into alerts as in the engine. The result can differ where a text
// was not valid UTF-8, because the store returns U+FFFD for such bytes, or where the engine would have suspended the rule.
package backtest

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/correlate"
)

const (
	stepTime   = time.Hour // of event time that one query reads; the server holds its result
	blockSize  = 512       // events that are evaluated at once
	maxLine    = 64 << 20  // bytes of an event as JSON
	maxGroups  = 100_000   // groups that are counted one by one
	maxSamples = 10
	numBuckets = 24
)

// Options say what is evaluated.
type Options struct {
	Store    clickhouse.Config // the read-only user where there is one
	Set      *rules.Set
	Rule     *rules.Rule // of Set
	From, To time.Time   // range of @timestamp, or of the time at which a correlation rule is fulfilled, without To
	Grouping alerts.GrouperConfig
	// Progress is called after each query, with the time up to which events were read. Nil: it is not called.
	Progress func(until time.Time, found Result)
	// Match is called for each match. Nil: it is not called.
	Match func(match Sample)
}

// Step returns the length of a part of Result.Histogram.
func (o *Options) Step() time.Duration { return o.To.Sub(o.From) / numBuckets }

// A Result says what a rule has matched.
type Result struct {
	Evaluated   int64 // events that the queries have found; for a correlation rule also those before From that it needs
	Matches     int64 // events, or times that a correlation rule was fulfilled
	Alerts      int64
	Histogram   [numBuckets]int64 // matches, in parts of equal length of the time from From to To
	Groups      []Group           // the largest first
	OtherGroups int64             // matches of the groups beyond maxGroups
	Samples     []Sample          // of the first matches
	Counts      correlate.Counts  // bounds that a correlation rule has reached
}

// A Group is a group of alerts.
type Group struct {
	Name    string // as in an alert: container.id=4f2a source.ip=10.0.0.1
	Matches int64
}

// A Sample is a match.
type Sample struct {
	At    time.Time
	Event string // the id of the event, of the last one of a correlation rule
	Group string
	Text  string // as the alert has it
}

// Run evaluates options.Rule on the stored events. With an error it returns what was found so far.
func Run(ctx context.Context, options Options) (Result, error) {
	b := &backtest{
		Options: options, groups: map[string]int64{}, grouper: alerts.NewGrouper(options.Grouping, 0),
		query: options.Set.StoreQuery(options.Rule),
	}
	b.grouper.SetPolicies(options.Set.Policies())
	begin := b.From
	if correlation := b.Rule.Correlation; correlation != nil {
		b.fold = correlate.New([]*correlate.Rule{correlation}, correlate.DefaultLimits)
		begin = begin.Add(-correlation.Memory())
	}
	for at := begin; at.Before(b.To); at = at.Add(stepTime) {
		until := at.Add(stepTime)
		if until.After(b.To) {
			until = b.To
		}
		if err := b.readEvents(ctx, at, until); err != nil {
			return b.finish(), err
		}
		if b.Progress != nil {
			b.Progress(until, b.result)
		}
	}
	return b.finish(), nil
}

type backtest struct {
	Options
	query   rules.StoreQuery
	fold    *correlate.Fold // of a correlation rule
	grouper *alerts.Grouper
	groups  map[string]int64
	block   []*pipeline.Event
	result  Result
}

// readEvents evaluates the events that began at from or later, and before until.
func (b *backtest) readEvents(ctx context.Context, from, until time.Time) error {
	values := maps.Clone(b.query.Parameters)
	values["from"], values["until"] = storeTime(from), storeTime(until)
	sql := "SELECT " + strings.Join(b.Set.StoreColumns(b.Rule), ", ") + " FROM events" +
		" WHERE `@timestamp` >= {from:DateTime64(9, 'UTC')} AND `@timestamp` < {until:DateTime64(9, 'UTC')} AND " + b.query.Where +
		" ORDER BY `@timestamp`, `event.id`"

	reader, writer := io.Pipe()
	go func() {
		_ = writer.CloseWithError(clickhouse.QueryWith(ctx, b.Store, sql, values, "JSONEachRow", writer))
	}()
	defer reader.Close()
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		event, err := pipeline.FromEventLine(lines.Bytes())
		if err != nil {
			return fmt.Errorf("read a stored event: %w", err)
		}
		b.result.Evaluated++
		if b.block = append(b.block, event); len(b.block) == blockSize {
			b.evaluateBlock()
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the events from %s on: %w", from.UTC().Format(time.DateTime), err)
	}
	b.evaluateBlock()
	if b.fold != nil { // events that are still to be read begin at until or later, and do not end before
		b.addMatches(b.fold.Advance(until.UnixNano()))
	}
	_, opened := b.grouper.Flush()
	b.result.Alerts += int64(len(opened))
	return nil
}

func storeTime(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05.000000000") }

// evaluateBlock evaluates the events of the block and empties it.
func (b *backtest) evaluateBlock() {
	for i, signal := range b.Set.EvaluateRule(b.Rule, b.block) {
		signal.Offset = b.result.Evaluated + int64(i) // in the order of the events
		b.fold.Add(signal)
	}
	for _, event := range b.block {
		for _, verdict := range event.Verdicts {
			at := time.Unix(0, event.Timestamp).UTC()
			b.addMatch(Sample{at, event.IDText(), verdict.Group, verdict.Evidence})
		}
		event.Ingested = 0 // so that the grouper uses the event's own time
		b.grouper.AddVerdicts(event, 0, 0)
	}
	b.block = b.block[:0]
}

// addMatches counts the matches of a correlation rule from From on.
func (b *backtest) addMatches(matches []correlate.Match) {
	for _, match := range matches {
		if match.At < b.From.UnixNano() {
			continue
		}
		sample := Sample{At: time.Unix(0, match.At).UTC(), Group: match.Group, Text: match.Text}
		if len(match.Events) > 0 {
			sample.Event = uuid.UUID(match.Events[len(match.Events)-1].ID).String()
		}
		b.addMatch(sample)
		b.grouper.AddMatch(alerts.Match{
			Event: match.AlertEvent, Verdict: b.Set.MatchVerdict(&match), At: match.At, First: match.First, Last: match.Last,
			Count: match.Count, Ingested: match.At,
		})
	}
}

// addMatch counts a match.
func (b *backtest) addMatch(match Sample) {
	b.result.Matches++
	if b.Match != nil {
		b.Match(match)
	}
	part := float64(match.At.Sub(b.From)) / float64(b.To.Sub(b.From))
	b.result.Histogram[min(max(int(part*numBuckets), 0), numBuckets-1)]++
	if _, isKnown := b.groups[match.Group]; isKnown || len(b.groups) < maxGroups {
		b.groups[match.Group]++
	} else {
		b.result.OtherGroups++
	}
	if len(b.result.Samples) < maxSamples {
		b.result.Samples = append(b.result.Samples, match)
	}
}

// finish returns the result so far.
func (b *backtest) finish() Result {
	for name, matches := range b.groups {
		b.result.Groups = append(b.result.Groups, Group{name, matches})
	}
	slices.SortFunc(b.result.Groups, func(x, y Group) int {
		return cmp.Or(cmp.Compare(y.Matches, x.Matches), strings.Compare(x.Name, y.Name))
	})
	if b.fold != nil {
		b.result.Counts = b.fold.Counts()
	}
	return b.result
}
