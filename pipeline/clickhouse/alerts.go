package clickhouse

import (
	"context"
	"time"

	"tidegate/pipeline"
)

// InsertAlerts stores revisions of alerts. Like Insert it may be repeated under the same token; a repeat after the token is forgotten
// is the same (id, revision), of which the table keeps one.
func (s *Store) InsertAlerts(ctx context.Context, alerts []*pipeline.Alert, token string) error {
	if len(alerts) == 0 {
		return nil
	}
	b := alertBlock(alerts)
	return s.insertColumns(ctx, "alerts", b.columns, b, token)
}

func alertBlock(alerts []*pipeline.Alert) *ColumnBlock {
	b := &ColumnBlock{rows: len(alerts)}
	at := 0
	add := func(c column) {
		b.columns = append(b.columns, blockColumn{alertColumns[at], c})
		at++
	}
	text := func(get func(*pipeline.Alert) string) {
		if alertColumns[at].kind == "String" {
			c := &stringColumn{}
			for i, a := range alerts {
				c.putString(i, get(a))
			}
			add(c)
			return
		}
		c := newLowCardinalityColumn()
		for i, a := range alerts {
			c.putString(i, get(a))
		}
		add(c)
	}
	number := func(get func(*pipeline.Alert) uint64) {
		width, _ := numberType(alertColumns[at].kind)
		c := &fixedColumn{width: width}
		for i, a := range alerts {
			c.putUint(i, get(a))
		}
		add(c)
	}
	instant := func(get func(*pipeline.Alert) time.Time) {
		number(func(a *pipeline.Alert) uint64 {
			if t := get(a); !t.IsZero() {
				return uint64(t.UnixNano())
			}
			return 0
		})
	}
	text(func(a *pipeline.Alert) string { return a.ID })
	number(func(a *pipeline.Alert) uint64 { return a.Revision })
	text(func(a *pipeline.Alert) string { return a.Fingerprint })
	text(func(a *pipeline.Alert) string { return a.Detector })
	text(func(a *pipeline.Alert) string { return a.Rule })
	text(func(a *pipeline.Alert) string { return a.Version })
	text(func(a *pipeline.Alert) string { return a.Title })
	text(func(a *pipeline.Alert) string { return a.Severity })
	tags := &arrayColumn{ends: fixedColumn{width: 8}, strings: newLowCardinalityColumn()}
	for i, a := range alerts {
		tags.putStrings(i, a.Tags)
	}
	add(tags)
	text(func(a *pipeline.Alert) string { return a.Group })
	number(func(a *pipeline.Alert) uint64 { return uint64(a.Score) })
	text(func(a *pipeline.Alert) string { return a.Evidence })
	instant(func(a *pipeline.Alert) time.Time { return a.WindowStart })
	instant(func(a *pipeline.Alert) time.Time { return a.First })
	instant(func(a *pipeline.Alert) time.Time { return a.Last })
	number(func(a *pipeline.Alert) uint64 { return a.Count })
	text(func(a *pipeline.Alert) string { return a.EventID })
	text(func(a *pipeline.Alert) string { return a.Dataset })
	text(func(a *pipeline.Alert) string { return a.Host })
	text(func(a *pipeline.Alert) string { return a.Cluster })
	text(func(a *pipeline.Alert) string { return a.ContainerID })
	text(func(a *pipeline.Alert) string { return a.ContainerName })
	text(func(a *pipeline.Alert) string { return a.Image })
	text(func(a *pipeline.Alert) string { return a.Source })
	text(func(a *pipeline.Alert) string { return a.Destination })
	number(func(a *pipeline.Alert) uint64 {
		if a.Demo {
			return 1
		}
		return 0
	})
	number(func(a *pipeline.Alert) uint64 { return uint64(uint32(a.Partition)) })
	number(func(a *pipeline.Alert) uint64 { return uint64(a.Offset) })
	return b
}

// AlertsNow are the alerts that were touched since then, each as it stands now, the oldest first.
func (s *Store) AlertsNow(ctx context.Context, since time.Time) ([]*pipeline.Alert, error) {
	rows, err := s.driver.Query(ctx, "SELECT id, revision, fingerprint, detector, rule, version, title, severity, tags, `group`, score, evidence,"+
		" window_start, first, last, count, event_id, dataset, host, cluster, container_id, container_name, image, source, destination, demo, partition, offset"+
		" FROM "+s.cfg.table("alerts_now")+" WHERE stored >= fromUnixTimestamp64Milli(?) ORDER BY stored, id", since.UnixMilli())
	if err != nil {
		return nil, describeError(err, s.cfg)
	}
	defer rows.Close()
	var out []*pipeline.Alert
	for rows.Next() {
		a := &pipeline.Alert{}
		if err := rows.Scan(&a.ID, &a.Revision, &a.Fingerprint, &a.Detector, &a.Rule, &a.Version, &a.Title, &a.Severity, &a.Tags, &a.Group, &a.Score, &a.Evidence,
			&a.WindowStart, &a.First, &a.Last, &a.Count, &a.EventID, &a.Dataset, &a.Host, &a.Cluster, &a.ContainerID, &a.ContainerName, &a.Image, &a.Source, &a.Destination, &a.Demo, &a.Partition, &a.Offset); err != nil {
			return nil, describeError(err, s.cfg)
		}
		out = append(out, a)
	}
	return out, describeError(rows.Err(), s.cfg)
}

// Note stores what a person says of an alert.
func (s *Store) Note(ctx context.Context, id, who, status, comment string) error {
	return describeError(s.driver.Exec(ctx, "INSERT INTO "+s.cfg.table("alert_notes")+" (id, who, status, comment) SETTINGS async_insert = 0 VALUES (?, ?, ?, ?)",
		id, who, status, comment), s.cfg)
}
