package clickhouse

import (
	"context"
	"fmt"

	"tidegate/pipeline"
)

// seenValuesTable keeps what rules of first_seen remember: a row for each group, and one for each value of a group.
const seenValuesTable = "seen_values"

// seenValuesDays is longer than a rule can remember a value.
const seenValuesDays = 400

var seenValueColumns = []tableColumn{
	{name: "topic", kind: "LowCardinality(String)"}, // of the signals
	{name: "rule", kind: "LowCardinality(String)"},
	{name: "version", kind: "LowCardinality(String)"},
	{name: "is_group", kind: "Bool"},
	{name: "group", kind: "UInt64"},
	{name: "value", kind: "Int64"},
	{name: "first", kind: "DateTime64(9, 'UTC')"},
	{name: "last", kind: "DateTime64(9, 'UTC')"},
	{name: "value_high", kind: "UInt64"},
}

// seenValuesOf returns the table.
func seenValuesOf() table {
	return table{
		name: seenValuesTable, columns: seenValueColumns, engine: "ReplacingMergeTree", engineArgument: "last",
		orderBy: "(topic, rule, version, is_group, group, value, value_high)", ttlColumn: "last", ttlDays: seenValuesDays,
	}
}

// InsertSeenValues stores what rules of first_seen remember of a signals topic. It may be repeated.
func (s *Store) InsertSeenValues(ctx context.Context, topic string, values []pipeline.SeenValue) error {
	if len(values) == 0 {
		return nil
	}
	topics, rules, versions := newLowCardinalityColumn(), newLowCardinalityColumn(), newLowCardinalityColumn()
	isGroup, group, value := &fixedColumn{width: 1}, &fixedColumn{width: 8}, &fixedColumn{width: 8}
	first, last, high := &fixedColumn{width: 8}, &fixedColumn{width: 8}, &fixedColumn{width: 8}
	for row, seen := range values {
		topics.putString(row, topic)
		rules.putString(row, seen.Rule)
		versions.putString(row, seen.Version)
		if seen.IsGroup() {
			isGroup.putUint(row, 1)
		}
		group.putUint(row, seen.Group)
		value.putUint(row, uint64(seen.Value))
		first.putUint(row, uint64(seen.First))
		last.putUint(row, uint64(seen.Last))
		high.putUint(row, seen.ValueHigh)
	}
	block := &ColumnBlock{rows: len(values)}
	for i, col := range []column{topics, rules, versions, isGroup, group, value, first, last, high} { // in the order of seenValueColumns
		block.columns = append(block.columns, blockColumn{tableColumn: seenValueColumns[i], column: col})
	}
	return s.insertColumns(ctx, seenValuesTable, block, "")
}

// SeenValues calls add with what the filter selects, groups before values.
func (s *Store) SeenValues(ctx context.Context, filter pipeline.SeenFilter, add func(pipeline.SeenValue)) error {
	seen := pipeline.SeenValue{Rule: filter.Rule, Version: filter.Version}
	for _, isGroup := range []bool{true, false} {
		err := s.selectRows(ctx, "SELECT group, value, value_high, toUnixTimestamp64Nano(argMax(first, t.last)), toUnixTimestamp64Nano(max(t.last)) AS newest"+
			" FROM "+s.cfg.table(seenValuesTable)+" AS t WHERE topic = ? AND rule = ? AND version = ? AND is_group = ? AND group % ? = ?"+
			" GROUP BY group, value, value_high ORDER BY newest DESC, group, value, value_high LIMIT ?",
			[]any{filter.Topic, filter.Rule, filter.Version, isGroup, uint64(filter.Partitions), uint64(filter.Partition), uint64(filter.Limit)},
			[]any{&seen.Group, &seen.Value, &seen.ValueHigh, &seen.First, &seen.Last}, func() { add(seen) })
		if err != nil {
			return fmt.Errorf("read what the rule %s has seen: %w", filter.Rule, err)
		}
	}
	return nil
}
