package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
)

// InsertAlerts stores revisions of alerts. Like Insert it may be repeated under the same token. If the server
// has dropped the token, a repeat inserts the same (id, revision) again, and the table merges equal keys.
//
// A view feeds newestAlerts. If the insert fails, for example because another view on the table fails, that view may
// not have seen rows that are stored, so they are copied.
func (s *Store) InsertAlerts(ctx context.Context, alerts []*pipeline.Alert, token string) error {
	if len(alerts) == 0 {
		return nil
	}
	err := s.insertColumns(ctx, alertRevisions, newAlertBlock(alerts), token)
	if err == nil {
		return nil
	}
	copyErr := s.driver.Exec(ctx, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s"+
		" WHERE partition = ? AND topic = ? AND ingested = fromUnixTimestamp64Nano(?)",
		s.cfg.table(newestAlerts), alertColumnNames(), alertColumnNames(), s.cfg.table(alertRevisions)),
		alerts[0].Partition, alerts[0].Topic, alerts[0].Ingested.UnixNano())
	if copyErr != nil {
		s.log.Debug("copying the newest revisions of alerts failed", "err", describeError(copyErr, s.cfg))
	}
	return err
}

// NewestAlerts returns the newest revision of each alert that the filter selects.
//
// Revisions that were stored before the table had the column ingested are of a block if their offset is.
func (s *Store) NewestAlerts(ctx context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	newest, revisions := s.cfg.table(newestAlerts), s.cfg.table(alertRevisions)
	where, args := "partition = ? AND topic IN (?, '')", []any{filter.Partition, filter.Topic}
	if !filter.Latest.IsZero() {
		where += " AND window_start <= fromUnixTimestamp64Nano(?)"
		args = append(args, filter.Latest.UnixNano())
	}
	inBlock, blockArgs := "false", []any(nil)
	if block := filter.Except; block.Time != 0 {
		inBlock = "(ingested = fromUnixTimestamp64Nano(?)" +
			" OR ingested = fromUnixTimestamp64Nano(0) AND offset >= ? AND offset < ?)"
		blockArgs = []any{block.Time, block.Start, block.End}
	}

	// The newest revisions, except those of the block. The bound of the windows is not higher than the right one.
	others := where + " AND NOT " + inBlock
	args = slices.Concat(args, blockArgs)
	list, err := s.selectAlerts(ctx, "WITH (SELECT max(window_start) FROM "+newest+" WHERE "+others+") AS latest",
		"FROM "+newest+" FINAL WHERE "+others+" AND window_start > latest - toIntervalNanosecond(?)",
		slices.Concat(args, args, []any{filter.Lookback.Nanoseconds()})...)
	// Of the alerts whose newest revision is of the block, the newest revision before it.
	if err == nil && filter.Except.Time != 0 {
		var earlier []*pipeline.Alert
		earlier, err = s.selectAlerts(ctx, "", "FROM "+revisions+" WHERE "+others+
			" AND id IN (SELECT id FROM "+newest+" FINAL WHERE partition = ? AND "+inBlock+")"+
			" ORDER BY id, revision DESC LIMIT 1 BY id",
			slices.Concat(args, []any{filter.Partition}, blockArgs)...)
		// Each alert is there once, although a revision of the block may have been stored between the queries.
		known := make(map[string]bool, len(list))
		for _, alert := range list {
			known[alert.ID] = true
		}
		for _, alert := range earlier {
			if !known[alert.ID] {
				list = append(list, alert)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the alerts of partition %d: %w", filter.Partition, err)
	}
	return withinLookback(list, filter.Lookback), nil
}

// withinLookback returns the alerts whose window began at most lookback before the newest one.
func withinLookback(list []*pipeline.Alert, lookback time.Duration) []*pipeline.Alert {
	var latest time.Time
	for _, alert := range list {
		if alert.WindowStart.After(latest) {
			latest = alert.WindowStart
		}
	}
	return slices.DeleteFunc(list, func(alert *pipeline.Alert) bool {
		return !alert.WindowStart.After(latest.Add(-lookback))
	})
}

// selectAlerts reads whole alerts. with stands before SELECT and its columns, from behind them.
func (s *Store) selectAlerts(ctx context.Context, with, from string, args ...any) ([]*pipeline.Alert, error) {
	names := make([]string, len(alertFields))
	for i, field := range alertFields {
		names[i] = quoteName(field.column.name)
	}
	var list []*pipeline.Alert
	var alert pipeline.Alert
	targets := make([]any, len(alertFields))
	for i, field := range alertFields {
		targets[i] = field.pointer(&alert)
	}
	err := s.selectRows(ctx, with+" SELECT "+strings.Join(names, ", ")+" "+from, args, targets, func() {
		selected := alert
		selected.Tags, selected.Events = slices.Clone(alert.Tags), append([]string(nil), alert.Events...)
		list = append(list, &selected)
	})
	return list, err
}
