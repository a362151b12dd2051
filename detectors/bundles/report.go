package bundles

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A Report is what an engine runs, a record of the topic engines. Reports are not signed: they inform people.
type Report struct {
	Engine  string `json:"engine"`
	Host    string `json:"host"`
	Program string `json:"program"` // version of tidegate

	// Bundle and Sequence are those of the bundle that the engine runs, since Since. Without a bundle it runs the rules and
	// feeds of its configuration.
	Bundle   string    `json:"bundle,omitempty"`
	Sequence int64     `json:"sequence,omitempty"`
	Since    time.Time `json:"since"`
	// Detectors is the version of everything that determines verdicts.
	Detectors string `json:"detectors"`
	// Problem is why the engine could not do everything: the stored bundle cannot be read, the new one is not stored.
	Problem string `json:"problem,omitempty"`

	// Refused is the newest signed bundle, if the engine refused it.
	Refused *RefusedBundle `json:"refused,omitempty"`
	// Pending is the newest signed bundle, if it could not be loaded yet for a cause that may pass. The engine tries again.
	Pending *PendingBundle `json:"pending,omitempty"`
	// Rejected counts the messages that are no bundles for this engine since its start.
	Rejected     int64            `json:"rejected,omitempty"`
	LastRejected *RejectedMessage `json:"last_rejected,omitempty"`
	// Removed counts the bundles that somebody without a key has removed from the topic, since the start of the engine.
	Removed     int64          `json:"removed,omitempty"`
	LastRemoved *RemovedBundle `json:"last_removed,omitempty"`
	// Next is the offset of the topic bundles up to which the engine has read.
	Next int64 `json:"next"`

	Seen time.Time `json:"-"` // when Kafka received the report
}

// A RefusedBundle is a signed bundle that an engine does not run.
type RefusedBundle struct {
	Bundle   string    `json:"bundle"`
	Sequence int64     `json:"sequence"`
	At       time.Time `json:"at"`
	Reason   Reason    `json:"reason"`
	Error    string    `json:"error"`
}

// A PendingBundle is a signed bundle that an engine tries to load again.
type PendingBundle struct {
	Bundle   string    `json:"bundle"`
	Sequence int64     `json:"sequence"`
	Since    time.Time `json:"since"`    // of the first attempt
	Attempts int       `json:"attempts"` // so far
	Error    string    `json:"error"`    // of the last one
}

// A RemovedBundle is a signed bundle that somebody without a key has removed from the topic.
type RemovedBundle struct {
	Sequence int64     `json:"sequence"`
	At       time.Time `json:"at"` // when the engine has noticed it
}

// A RejectedMessage is a message of the topic bundles that is no bundle for an engine.
type RejectedMessage struct {
	Offset int64     `json:"offset"`
	At     time.Time `json:"at"`
	Reason Reason    `json:"reason"`
	Error  string    `json:"error"`
}

const (
	maxReport    = 16 << 10 // bytes of a record
	maxReports   = 10_000
	maxErrorText = 2000 // bytes of an error in a report

	reportInterval    = time.Minute
	minReportInterval = 500 * time.Millisecond // however often messages are refused

	// LiveFor is the time after its last report for which an engine counts as running.
	LiveFor = 3 * reportInterval
)

// shorten bounds the text of an error.
func shorten(text string) string {
	if len(text) <= maxErrorText {
		return text
	}
	end := maxErrorText
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// IsLive reports whether the engine has reported lately.
func (r *Report) IsLive(now time.Time) bool { return now.Sub(r.Seen) < LiveFor }

// Reports holds the newest report of each engine. It is used by one goroutine.
type Reports struct {
	reader  topicReader
	reports map[string]Report
}

// NewReports returns a reader of the reports, which has read none yet.
func NewReports(client *kafka.Client) *Reports {
	return &Reports{
		reader:  topicReader{client: client, topic: client.Topic(pipeline.TopicEngines), next: -1},
		reports: map[string]Report{},
	}
}

// Read reads up to the end of the topic and returns the newest report of each engine, ordered by engine. Records that are no
// reports are skipped.
func (r *Reports) Read(ctx context.Context) ([]Report, error) {
	if _, err := r.reader.readToEnd(ctx, readPatience, r.add, func(int64, error) {}); err != nil {
		return nil, err
	}
	byEngine := func(a, b Report) int { return cmp.Compare(a.Engine, b.Engine) }
	return slices.SortedFunc(maps.Values(r.reports), byEngine), nil
}

func (r *Reports) add(record kafka.Record) {
	engine := string(record.Key)
	if len(record.Value) == 0 {
		delete(r.reports, engine)
		return
	}
	report, ok := parseReport(record.Value)
	if _, known := r.reports[engine]; !ok || report.Engine != engine || !known && len(r.reports) >= maxReports {
		return
	}
	report.Seen = time.Unix(0, record.Time)
	r.reports[engine] = report
}

// parseReport parses the value of a record.
func parseReport(data []byte) (report Report, ok bool) {
	if len(data) > maxReport || json.Unmarshal(data, &report) != nil {
		return report, false
	}
	return report, report.Engine != "" && len(report.Engine) <= maxName && !strings.ContainsRune(report.Engine, '\n')
}
