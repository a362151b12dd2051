package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline"
)

// InsertAlerts stores revisions of alerts. Like Insert it may be repeated under the same token. If the server
// has dropped the token, a repeat inserts the same (id, revision) again, and the table merges equal keys.
func (s *Store) InsertAlerts(ctx context.Context, alerts []*pipeline.Alert, token string) error {
	if len(alerts) == 0 {
		return nil
	}
	return s.insertColumns(ctx, "alerts", newAlertBlock(alerts), token)
}

// AlertsBefore returns the newest revision of each alert of a partition among those whose Offset is before
// the given offset and whose window begins at latest or earlier. Alerts whose window began more than lookback
// before the newest one of these are left out.
func (s *Store) AlertsBefore(
	ctx context.Context, partition int32, before int64, latest time.Time, lookback time.Duration,
) ([]*pipeline.Alert, error) {
	from := "FROM " + s.cfg.table("alerts") +
		" WHERE partition = ? AND offset < ? AND window_start <= fromUnixTimestamp64Nano(?)"
	list, err := s.selectAlerts(ctx,
		"WITH (SELECT max(window_start) "+from+") AS newest",
		from+" AND window_start > newest - toIntervalNanosecond(?) ORDER BY id, revision DESC LIMIT 1 BY id",
		partition, before, latest.UnixNano(), partition, before, latest.UnixNano(), lookback.Nanoseconds())
	if err != nil {
		return nil, fmt.Errorf("read the alerts of partition %d: %w", partition, err)
	}
	return list, nil
}

// selectAlerts reads whole alerts. with stands before SELECT and its columns, from behind them.
func (s *Store) selectAlerts(ctx context.Context, with, from string, args ...any) ([]*pipeline.Alert, error) {
	names := make([]string, len(alertFields))
	for i, field := range alertFields {
		names[i] = quoteName(field.column.name)
	}
	rows, err := s.driver.Query(ctx, with+" SELECT "+strings.Join(names, ", ")+" "+from, args...)
	if err != nil {
		return nil, describeError(err, s.cfg)
	}
	defer rows.Close()

	var list []*pipeline.Alert
	targets := make([]any, len(alertFields))
	for rows.Next() {
		alert := &pipeline.Alert{}
		for i, field := range alertFields {
			targets[i] = field.pointer(alert)
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, describeError(err, s.cfg)
		}
		list = append(list, alert)
	}
	return list, describeError(rows.Err(), s.cfg)
}
