package engine

import (
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
)

// A matchCounter counts the matches of rules over one event in a block, for their alerts. What it counts follows from the verdicts
// and their order, so that it is the same for the events of a block and for its stored rows.
type matchCounter struct {
	index map[matchKey]int // in list
	list  []*pipeline.Matches
}

// A matchKey names what is counted together: the matches of a rule in a group that have about the same time, since an alert has a window.
type matchKey struct {
	rule, group string
	second      int64
}

// add counts the verdicts of an event. shipped is when its batch was shipped, ns since 1970; 0: not before the event.
func (c *matchCounter) add(event *pipeline.Event, shipped int64) {
	at := event.Timestamp
	if shipped > 0 {
		at = min(at, shipped)
	}
	if event.Ingested > 0 {
		at = min(at, event.Ingested)
	}
	for _, verdict := range event.Verdicts {
		key := matchKey{verdict.Rule, alerts.GroupOf(event, verdict), at / int64(time.Second)}
		i, ok := c.index[key]
		if !ok {
			if c.index == nil {
				c.index = map[matchKey]int{}
			}
			i = len(c.list)
			c.index[key] = i
			c.list = append(c.list, &pipeline.Matches{
				Event: alertedEvent(event), At: at, First: event.Timestamp, Last: event.Timestamp, Verdict: &pipeline.Verdict{},
			})
		}
		matches := c.list[i]
		matches.At = min(matches.At, at)
		matches.First, matches.Last = min(matches.First, event.Timestamp), max(matches.Last, event.Timestamp)
		matches.Count++
		// The alert shows the newest verdict, and the highest severity and score.
		newest := matches.Verdict
		*newest = pipeline.Verdict{
			Detector: verdict.Detector, Rule: verdict.Rule, Version: verdict.Version, Severity: max(newest.Severity, verdict.Severity),
			Score: max(newest.Score, verdict.Score), Evidence: verdict.Evidence, Title: verdict.Title, Group: key.group, Tags: verdict.Tags,
		}
	}
}

// countMatches counts the matches of the events of a block that are stored.
func countMatches(block *block) (counter matchCounter) {
	for i := range block.messages {
		message := &block.messages[i]
		if message.rejection != nil {
			continue // its events are not stored
		}
		shipped := message.shippedTime()
		for _, event := range message.batch.Events {
			counter.add(event, shipped)
		}
	}
	return counter
}

// verdicts returns the number of matches.
func (c *matchCounter) verdicts() (count uint64) {
	for _, matches := range c.list {
		count += matches.Count
	}
	return count
}
