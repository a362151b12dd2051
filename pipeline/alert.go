package pipeline

import "time"

// An Alert groups the verdicts of one rule for one group of events within one window of time. Each revision
// of an alert is a JSON message on the alerts topic, keyed by the fingerprint, and a row of the table alerts
// in ClickHouse.
type Alert struct {
	ID          string    `json:"id"`          // 32 hex digits: the fingerprint and the window's start
	Revision    uint64    `json:"revision"`    // the same as Count but for a rule over several events: a later revision has more matches
	Fingerprint string    `json:"fingerprint"` // 16 hex digits: hash of rule and group; names the alert at destinations
	Detector    string    `json:"detector"`
	Rule        string    `json:"rule"`
	Version     string    `json:"version"`
	Title       string    `json:"title"`
	Severity    string    `json:"severity"`
	Tags        []string  `json:"tags,omitempty"`
	Group       string    `json:"group"`
	Score       uint32    `json:"score"`
	Evidence    string    `json:"evidence"` // of the newest match
	WindowStart time.Time `json:"window_start"`
	First       time.Time `json:"first"` // earliest @timestamp of the matching events
	Last        time.Time `json:"last"`  // latest one
	Count       uint64    `json:"count"`

	// The event that opened the alert, which need not be the earliest one.
	EventID       string `json:"event_id"`
	Dataset       string `json:"dataset"`
	Host          string `json:"host"`
	Cluster       string `json:"cluster,omitempty"`
	ContainerID   string `json:"container_id,omitempty"`
	ContainerName string `json:"container_name,omitempty"`
	Image         string `json:"image,omitempty"`
	Source        string `json:"source,omitempty"`      // address:port
	Destination   string `json:"destination,omitempty"` // address:port
	Demo          bool   `json:"demo,omitempty"`

	// Of a rule over several events, the first 20 of them: the step that each matches, if the rule names it, and its event.id.
	Events []string `json:"events,omitempty"`

	// Position of the newest match that Count includes: topic (of the signals), partition, offset of the message, and
	// the block time of the event (event.ingested). After a restart, grouping resumes from the newest revisions
	// that are not of the block that is replayed.
	Topic     string    `json:"topic,omitempty"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Ingested  time.Time `json:"ingested,omitzero"`
}

// An AlertPolicy says how the matches of a rule become alerts.
type AlertPolicy struct {
	// Suppress is the length of the window of an alert: matches of one group within it are one alert. 0: that of all rules.
	Suppress time.Duration
	// Escalate has the counts from which on an alert has a higher severity, the lowest first.
	Escalate []Escalation
}

// An Escalation is a severity that an alert has from a number of matches on.
type Escalation struct {
	Count    uint64
	Severity Severity
}

// SeverityOf returns the severity of an alert with a number of matches: before, or a higher one.
func (p AlertPolicy) SeverityOf(before Severity, count uint64) Severity {
	for _, step := range p.Escalate {
		if count >= step.Count {
			before = max(before, step.Severity)
		}
	}
	return before
}
