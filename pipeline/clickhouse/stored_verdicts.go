package clickhouse

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"tidegate/pipeline"
)

// A storedVerdict holds a row of the table events, as far as alerts need it.
type storedVerdict struct {
	offset                       int64
	shipped, at, ingested        time.Time
	id                           uuid.UUID
	dataset                      string
	demo                         bool
	sourceIP, destinationIP      string
	sourcePort, destinationPort  uint16
	host                         pipeline.Host
	container                    pipeline.Container
	detectors, rules, versions   []string
	severities, evidence, groups []string
	titles, tags                 []string
	scores                       []uint8
}

// verdictColumns are the columns of a storedVerdict, each with the place of its value.
var verdictColumns = []struct {
	name   string
	target func(*storedVerdict) any
}{
	{"_offset", func(r *storedVerdict) any { return &r.offset }},
	{"_shipped", func(r *storedVerdict) any { return &r.shipped }},
	{"@timestamp", func(r *storedVerdict) any { return &r.at }},
	{"event.ingested", func(r *storedVerdict) any { return &r.ingested }},
	{"event.id", func(r *storedVerdict) any { return &r.id }},
	{"event.dataset", func(r *storedVerdict) any { return &r.dataset }},
	{"event.demo", func(r *storedVerdict) any { return &r.demo }},
	{"source.ip", func(r *storedVerdict) any { return &r.sourceIP }},
	{"source.port", func(r *storedVerdict) any { return &r.sourcePort }},
	{"destination.ip", func(r *storedVerdict) any { return &r.destinationIP }},
	{"destination.port", func(r *storedVerdict) any { return &r.destinationPort }},
	{"host.name", func(r *storedVerdict) any { return &r.host.Name }},
	{"host.id", func(r *storedVerdict) any { return &r.host.Id }},
	{"orchestrator.cluster.name", func(r *storedVerdict) any { return &r.host.Cluster }},
	{"container.id", func(r *storedVerdict) any { return &r.container.Id }},
	{"container.name", func(r *storedVerdict) any { return &r.container.Name }},
	{"container.image.name", func(r *storedVerdict) any { return &r.container.Image }},
	{"verdict.detector", func(r *storedVerdict) any { return &r.detectors }},
	{"verdict.rule", func(r *storedVerdict) any { return &r.rules }},
	{"verdict.version", func(r *storedVerdict) any { return &r.versions }},
	{"verdict.severity", func(r *storedVerdict) any { return &r.severities }},
	{"verdict.score", func(r *storedVerdict) any { return &r.scores }},
	{"verdict.evidence", func(r *storedVerdict) any { return &r.evidence }},
	{"verdict.group", func(r *storedVerdict) any { return &r.groups }},
	{"verdict.title", func(r *storedVerdict) any { return &r.titles }},
	{"verdict.tags", func(r *storedVerdict) any { return &r.tags }},
}

// StoredVerdicts calls addEvent with each event of a block that has verdicts, in the order of the log, and
// with its position, of which Offset and Shipped are set. The events have the values of verdictColumns only.
// The rows of the block are read whatever became of its messages: retention or the end of a topic may have
// removed them, and other rules may be loaded.
func (s *Store) StoredVerdicts(
	ctx context.Context, block pipeline.BlockID, addEvent func(event *pipeline.Event, at pipeline.Position),
) error {
	names := make([]string, len(verdictColumns))
	for i := range verdictColumns {
		names[i] = quoteName(verdictColumns[i].name)
	}
	rows, err := s.driver.Query(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+s.cfg.table("events")+
		" WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?"+
		" AND `event.ingested` = fromUnixTimestamp64Nano(?) AND notEmpty(`verdict.rule`) ORDER BY _offset, _index",
		block.Topic, block.Partition, block.Start, block.End, block.Time)
	if err != nil {
		return describeError(err, s.cfg)
	}
	defer rows.Close()

	targets := make([]any, len(verdictColumns))
	for rows.Next() {
		var row storedVerdict
		for i := range verdictColumns {
			targets[i] = verdictColumns[i].target(&row)
		}
		if err := rows.Scan(targets...); err != nil {
			return describeError(err, s.cfg)
		}
		addEvent(row.toEvent(), pipeline.Position{Offset: row.offset, Shipped: row.shipped.UnixNano()})
	}
	return describeError(rows.Err(), s.cfg)
}

// toEvent returns the event of the row. A column that was added to the table after the row was stored is
// empty.
func (r *storedVerdict) toEvent() *pipeline.Event {
	event := &pipeline.Event{
		Id: r.id[:], Timestamp: r.at.UnixNano(), Ingested: r.ingested.UnixNano(),
		Dataset:     pipeline.DatasetByName(r.dataset),
		Source:      storedEndpoint(r.sourceIP, r.sourcePort),
		Destination: storedEndpoint(r.destinationIP, r.destinationPort),
		Host:        &r.host,
	}
	if r.container.Id != "" || r.container.Name != "" {
		r.container.Demo = r.demo
		event.Container = &r.container
	}
	for i, rule := range r.rules {
		verdict := &pipeline.Verdict{
			Detector: elementAt(r.detectors, i), Rule: rule, Version: elementAt(r.versions, i),
			Severity: pipeline.SeverityByName(elementAt(r.severities, i)), Score: uint32(elementAt(r.scores, i)),
			Evidence: elementAt(r.evidence, i), Group: elementAt(r.groups, i), Title: elementAt(r.titles, i),
		}
		if tags := elementAt(r.tags, i); tags != "" {
			verdict.Tags = strings.Split(tags, ",")
		}
		event.Verdicts = append(event.Verdicts, verdict)
	}
	return event
}

// elementAt returns the element of a list at an index, or the zero value if the list is shorter.
func elementAt[E any](list []E, i int) (element E) {
	if i < len(list) {
		element = list[i]
	}
	return element
}

// storedEndpoint returns an endpoint, or nil if it has no address.
func storedEndpoint(ip string, port uint16) *pipeline.Endpoint {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil
	}
	return &pipeline.Endpoint{Ip: addr.AsSlice(), Port: uint32(port)}
}
