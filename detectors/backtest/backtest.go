// Package backtest evaluates a rule on stored events: what would it have matched since yesterday?
//
// The condition of the rule becomes SQL (rules.StoreQuery), which finds the events that may match. Each of them is then
// evaluated as the engine does it, and matches are grouped as the engine groups them into alerts, so that the answer is the
// one that the rule would have given. The events are read hour by hour, so that the memory does not grow with the time.
package backtest

import (
	"bufio"
	"bytes"
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
	stepTime   = time.Hour // of event time that one query reads
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
	From, To time.Time   // of the begin of the events, or of the time at which a correlation rule is fulfilled
	Grouping alerts.GrouperConfig
	// Progress is called after each query, with the time up to which events were read. Nil: nobody is told.
	Progress func(until time.Time, found Result)
	// Match is called for each match. Nil: nobody is told.
	Match func(match Sample)
}

// A Result says what a rule has matched.
type Result struct {
	Read        int64 // events that SQL has found, those before From included that a correlation rule needs
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
	Name    string
	Matches int64
}

// A Sample is a match.
type Sample struct {
	At    time.Time
	Event string // the id of the event, of the last one of a correlation rule
	Group string
	Text  string // as the alert has it
}

// Run evaluates a rule.
func Run(ctx context.Context, options Options) (Result, error) {
	b := &backtest{
		Options: options, groups: map[string]int64{}, grouper: alerts.NewGrouper(options.Grouping, 0),
		query: options.Set.StoreQuery(options.Rule),
	}
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

// readEvents evaluates the events that began from at on and before until.
func (b *backtest) readEvents(ctx context.Context, at, until time.Time) error {
	values := maps.Clone(b.query.Parameters)
	values["at"], values["until"] = storeTime(at), storeTime(until)
	sql := "SELECT " + strings.Join(b.Set.StoreColumns(b.Rule), ", ") + " FROM events" +
		" WHERE `@timestamp` >= {at:DateTime64(9, 'UTC')} AND `@timestamp` < {until:DateTime64(9, 'UTC')} AND " + b.query.Where +
		" ORDER BY `@timestamp`, `event.id`"

	reader, writer := io.Pipe()
	go func() {
		_ = writer.CloseWithError(clickhouse.QueryWith(ctx, b.Store, sql, values, "JSONEachRow", writer))
	}()
	defer reader.Close()
	lines := bufio.NewScanner(reader)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		event, err := pipeline.FromEventLine(bytes.Clone(lines.Bytes()))
		if err != nil {
			return fmt.Errorf("read a stored event: %w", err)
		}
		b.result.Read++
		if b.block = append(b.block, event); len(b.block) == blockSize {
			b.evaluateBlock()
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the events from %s on: %w", at.UTC().Format(time.DateTime), err)
	}
	b.evaluateBlock()
	if b.fold != nil { // later events end behind until
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
		signal.Offset = b.result.Read + int64(i) // in the order of the events
		b.fold.Add(signal)
	}
	for _, event := range b.block {
		for _, verdict := range event.Verdicts {
			at := time.Unix(0, event.Timestamp).UTC()
			b.addMatch(Sample{at, event.IDText(), verdict.Group, verdict.Evidence})
		}
		event.Ingested = 0 // the grouper goes by the time of the events
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
			Event: match.Source, Verdict: b.Set.MatchVerdict(&match), At: match.At, First: match.First, Last: match.Last,
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
