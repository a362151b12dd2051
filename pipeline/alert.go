package pipeline

import "time"

// An Alert is a finding past the fold: what one rule found in one group within one window. It stands on the alerts topic in
// JSON, one message a revision, keyed by fingerprint, and in ClickHouse's table alerts under (id, revision).
type Alert struct {
	ID          string    `json:"id"`          // 32 hex digits: the fingerprint and the window's start
	Revision    uint64    `json:"revision"`    // the count: a later revision says more of the same alert
	Fingerprint string    `json:"fingerprint"` // 16 hex digits: hash of rule and group; its identity at the alert platform
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
	First       time.Time `json:"first"` // event time of the first match
	Last        time.Time `json:"last"`
	Count       uint64    `json:"count"`

	// Of the first match: where to begin.
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
	Partition     int32  `json:"partition"` // of the events topic
	Offset        int64  `json:"offset"`    // of the message of the newest match that Count counts: a fold resumes from the revisions before its block
}
