package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ErrForeignTable is the error of Migrate for a table that has the name of one of tidegate's and is another one. It does
// not pass by itself.
var ErrForeignTable = errors.New("the table is not one of tidegate's")

// identityColumns are the columns that a table must have, with their types, to be one of tidegate's. Other columns are
// added where they are missing.
var identityColumns = map[string][]string{
	"events":          {"event.id", "@timestamp", "_topic", "_partition", "_offset", "_index"},
	alertRevisions:    {"id", "revision", "window_start", "partition"},
	alertsView:        {"id", "revision", "window_start", "partition"},
	"schema_versions": {"version"},
	seenValuesTable:   {"topic", "rule", "version", "is_group", "group", "value", "first", "last"},
}

// checkTables returns ErrForeignTable if an existing table has the name of one of tidegate's and is another one. The
// view of alerts is replaced at each start, and in earlier versions its name was that of a table.
func (s *Store) checkTables(ctx context.Context) error {
	view := table{name: alertsView, columns: alertTableColumns()}
	for _, wanted := range append(tables(s.cfg), view) {
		existing, err := s.selectPairs(ctx, "SELECT name, type FROM system.columns WHERE database = ? AND table = ?",
			s.cfg.Database, wanted.name)
		if err != nil {
			return err
		}
		if len(existing) == 0 {
			continue // it is created
		}
		for _, name := range identityColumns[wanted.name] {
			kind, ok := existing[name]
			if !ok {
				return fmt.Errorf("table %s has no column %q: %w; use another clickhouse.database",
					s.cfg.table(wanted.name), name, ErrForeignTable)
			}
			if wantedKind := wanted.columnKind(name); kind != wantedKind {
				return fmt.Errorf("column %q of table %s has the type %s instead of %s: %w; use another clickhouse.database",
					name, s.cfg.table(wanted.name), kind, wantedKind, ErrForeignTable)
			}
		}
	}
	return nil
}

// columnKind returns the type of a column of the table.
func (t table) columnKind(name string) string {
	for _, column := range t.columns {
		if column.name == name {
			return column.kind
		}
	}
	return ""
}

// settingPattern matches a setting of a table in its full engine clause.
var settingPattern = regexp.MustCompile(`(\w+) = (\d+)`)

// setSettings sets the settings of an existing table that are lower than those of a new one. A table that was made by
// hand or restored may lack the window of tokens, without which a token has no effect.
func (s *Store) setSettings(ctx context.Context, wanted table) error {
	existing, err := s.selectPairs(ctx, "SELECT name, engine_full FROM system.tables WHERE database = ? AND name = ?",
		s.cfg.Database, wanted.name)
	if err != nil {
		return err
	}
	values := map[string]int{}
	for _, setting := range settingPattern.FindAllStringSubmatch(existing[wanted.name], -1) {
		values[setting[1]], _ = strconv.Atoi(setting[2])
	}
	var changes []string
	for _, setting := range wanted.settings(s.cfg) {
		name, text, _ := strings.Cut(setting, " = ")
		value, err := strconv.Atoi(text)
		if err != nil || name == "index_granularity" { // which cannot be changed
			continue
		}
		if values[name] < value {
			changes = append(changes, setting)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	s.log.Warn("clickhouse table has other settings, setting them", "table", wanted.name, "settings", changes)
	return s.execStatement(ctx, "ALTER TABLE "+s.cfg.table(wanted.name)+s.cfg.onCluster()+" MODIFY SETTING "+
		strings.Join(changes, ", "))
}

// selectPairs returns the rows of a query with two columns of strings, the second by the first.
func (s *Store) selectPairs(ctx context.Context, query string, args ...any) (map[string]string, error) {
	pairs := map[string]string{}
	var key, value string
	err := s.selectRows(ctx, query, args, []any{&key, &value}, func() { pairs[key] = value })
	return pairs, err
}
