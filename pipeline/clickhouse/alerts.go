package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// NewestAlerts returns the newest revision of each alert that the filter selects.
//
// Revisions that were stored before the table had the column ingested are of a block if their offset is.
func (s *Store) NewestAlerts(ctx context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	table, where, args := s.cfg.table("alerts"), "partition = ?", []any{filter.Partition}
	if block := filter.Except; block.Time != 0 {
		where += " AND ingested != fromUnixTimestamp64Nano(?)" +
			" AND NOT (ingested = fromUnixTimestamp64Nano(0) AND offset >= ? AND offset < ?)"
		args = append(args, block.Time, block.Start, block.End)
	}
	if !filter.Latest.IsZero() {
		where += " AND window_start <= fromUnixTimestamp64Nano(?)"
		args = append(args, filter.Latest.UnixNano())
	}
	list, err := s.selectAlerts(ctx, "WITH (SELECT max(window_start) FROM "+table+" WHERE "+where+") AS newest",
		"FROM "+table+" WHERE "+where+" AND window_start > newest - toIntervalNanosecond(?)"+
			" ORDER BY id, revision DESC LIMIT 1 BY id",
		slices.Concat(args, args, []any{filter.Lookback.Nanoseconds()})...)
	if err != nil {
		return nil, fmt.Errorf("read the alerts of partition %d: %w", filter.Partition, err)
	}
	return list, nil
}

// AlertsOfBlock returns the revisions of a block.
func (s *Store) AlertsOfBlock(ctx context.Context, block pipeline.BlockID) ([]*pipeline.Alert, error) {
	list, err := s.selectAlerts(ctx, "", "FROM "+s.cfg.table("alerts")+" WHERE partition = ?"+
		" AND ingested IN (fromUnixTimestamp64Nano(?), fromUnixTimestamp64Nano(0)) AND offset >= ? AND offset < ?"+
		" ORDER BY id, revision LIMIT 1 BY id, revision",
		block.Partition, block.Time, block.Start, block.End)
	if err != nil {
		return nil, fmt.Errorf("read the alerts of a block of partition %d: %w", block.Partition, err)
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
