package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline"
)

// Alerts are kept in two tables. alertRevisions keeps all revisions, one for each block that an alert has matches in,
// and only for some days: the engine needs those of the last block. A view copies each into newestAlerts, which keeps
// the newest revision of each alert. People read the view alertsView.
const (
	alertRevisions = "alert_revisions"
	newestAlerts   = "alerts_newest"
	alertsFeed     = "alerts_newest_feed"
	alertsView     = "alerts"

	newestAlertsByID = "alerts_newest_by_id" // the table newestAlerts of an earlier version, until its rows are copied
)

// newestAlertsKey is the order of newestAlerts.
const newestAlertsKey = "(window_start, id)"

// maxRevisionDays is how long all revisions of alerts are kept.
const maxRevisionDays = 7

func (c Config) revisionDays() int {
	if c.AlertTTLDays == 0 {
		return maxRevisionDays
	}
	return min(c.AlertTTLDays, maxRevisionDays)
}

// alertColumnNames returns the columns of the tables of alerts for SQL.
func alertColumnNames() string {
	var names []string
	for _, col := range alertTableColumns() {
		names = append(names, quoteName(col.name))
	}
	return strings.Join(names, ", ")
}

// createAlertFeed returns the statements of the view that copies each revision into newestAlerts. The second statement
// changes a view that was created with fewer columns.
func createAlertFeed(cfg Config) []string {
	name, cluster := cfg.table(alertsFeed), cfg.onCluster()
	query := "SELECT " + alertColumnNames() + " FROM " + cfg.table(alertRevisions)
	return []string{
		"CREATE MATERIALIZED VIEW IF NOT EXISTS " + name + cluster + " TO " + cfg.table(newestAlerts) + " AS " + query,
		"ALTER TABLE " + name + cluster + " MODIFY QUERY " + query,
	}
}

// createAlertsView returns the statement of the view that shows the newest revision of each alert.
func createAlertsView(cfg Config) string {
	var columns []string
	for _, col := range alertTableColumns() {
		name := quoteName(col.name)
		if col.name == "severity" {
			name = severityExpr(name) + " AS " + name
		}
		columns = append(columns, name)
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s%s AS\nSELECT %s\nFROM %s FINAL",
		cfg.table(alertsView), cfg.onCluster(), strings.Join(columns, ", "), cfg.table(newestAlerts))
}

// severityExpr returns the expression that turns a column of severities, which are words, into an Enum8: it is
// written as the same words, and its order is that of the severities. Any other word becomes the empty one.
func severityExpr(column string) string {
	var words, values []string
	for severity := pipeline.Severity_SEVERITY_NONE; severity <= pipeline.Severity_CRITICAL; severity++ {
		word := quoteString(severity.Name())
		words, values = append(words, word), append(values, fmt.Sprintf("%s = %d", word, severity))
	}
	return fmt.Sprintf("CAST(toInt8(indexOf([%s], %s)), %s)",
		strings.Join(words[1:], ", "), column, quoteString("Enum8("+strings.Join(values, ", ")+")"))
}

// copyNewestAlerts returns the statement that copies the newest revisions of alerts that were stored before
// the feed was there. It may run twice, since the table keeps one revision of each alert.
func copyNewestAlerts(cfg Config) []string {
	columns := alertColumnNames()
	return []string{fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s ORDER BY id, revision DESC LIMIT 1 BY id"+
		" SETTINGS max_bytes_before_external_sort = 500000000",
		cfg.table(newestAlerts), columns, columns, cfg.table(alertRevisions))}
}

// renameRevisions renames the table of all revisions, which had the name of the view in earlier versions. It may be
// interrupted anywhere and run again.
func (s *Store) renameRevisions(ctx context.Context) error {
	engines, err := s.alertObjects(ctx)
	if err != nil || !isTable(engines[alertsView]) || engines[alertRevisions] != "" {
		return err
	}
	views, err := s.viewsOf(ctx, alertsView)
	if err != nil {
		return err
	}
	// The feed names its table, so it is created again.
	if err := s.execStatement(ctx, "DROP VIEW IF EXISTS "+s.cfg.table(alertsFeed)+s.cfg.onCluster()); err != nil {
		return err
	}
	err = s.execStatement(ctx, fmt.Sprintf("RENAME TABLE %s TO %s%s",
		s.cfg.table(alertsView), s.cfg.table(alertRevisions), s.cfg.onCluster()))
	if err != nil {
		// Another engine that starts may have renamed it.
		if engines, _ := s.alertObjects(ctx); engines[alertRevisions] == "" {
			return err
		}
	}
	s.log.Info("clickhouse table of all revisions of alerts renamed", "from", alertsView, "to", alertRevisions)
	if len(views) > 0 {
		s.log.Warn("materialized views on the renamed table get no more rows; create them again",
			"table", alertRevisions, "views", views)
	}
	return nil
}

// viewsOf returns the names of the materialized views that read a table, without the feed.
func (s *Store) viewsOf(ctx context.Context, table string) ([]string, error) {
	names, err := s.selectNames(ctx, "SELECT arrayJoin(dependencies_table) FROM system.tables WHERE database = ? AND name = ?",
		s.cfg.Database, table)
	delete(names, alertsFeed)
	var views []string
	for name := range names {
		views = append(views, name)
	}
	slices.Sort(views)
	return views, err
}

// moveRevisions moves the rows of a table with the name of the view into the table of all revisions. There is such a
// table if an engine of an earlier version started while this one renamed the table.
func (s *Store) moveRevisions(ctx context.Context) error {
	engines, err := s.alertObjects(ctx)
	if err != nil || !isTable(engines[alertsView]) {
		return err
	}
	return s.moveAlerts(ctx, alertsView, alertRevisions)
}

// renameNewest renames the table of newest revisions if it has the order of earlier versions, which ClickHouse cannot
// change. Inserts of alerts fail, and are repeated, until Migrate has created the table again.
func (s *Store) renameNewest(ctx context.Context) error {
	keys, err := s.newestKeys(ctx)
	if err != nil || keys[newestAlerts] != "id" || keys[newestAlertsByID] != "" {
		return err
	}
	err = s.execStatement(ctx, fmt.Sprintf("RENAME TABLE %s TO %s%s",
		s.cfg.table(newestAlerts), s.cfg.table(newestAlertsByID), s.cfg.onCluster()))
	if err != nil {
		// Another engine that starts may have renamed it.
		if keys, _ := s.newestKeys(ctx); keys[newestAlertsByID] == "" {
			return err
		}
	}
	return nil
}

// moveNewest moves the rows of the table that renameNewest has renamed.
func (s *Store) moveNewest(ctx context.Context) error {
	keys, err := s.newestKeys(ctx)
	if err != nil || keys[newestAlertsByID] == "" {
		return err
	}
	return s.moveAlerts(ctx, newestAlertsByID, newestAlerts)
}

// newestKeys returns the orders of the table of newest revisions and of the renamed one, by name.
func (s *Store) newestKeys(ctx context.Context) (map[string]string, error) {
	return s.selectPairs(ctx, "SELECT name, sorting_key FROM system.tables WHERE database = ? AND name IN ('"+
		newestAlerts+"', '"+newestAlertsByID+"')", s.cfg.Database)
}

// moveAlerts copies the rows of a table of an earlier version, which may lack columns, and drops it. It may be
// interrupted anywhere and run again, because the tables of alerts replace equal rows.
func (s *Store) moveAlerts(ctx context.Context, from, to string) error {
	existing, err := s.selectNames(ctx, "SELECT name FROM system.columns WHERE database = ? AND table = ?",
		s.cfg.Database, from)
	if err != nil {
		return err
	}
	var columns []string
	for _, col := range alertTableColumns() {
		if existing[col.name] {
			columns = append(columns, quoteName(col.name))
		}
	}
	list := strings.Join(columns, ", ")
	for _, statement := range []string{
		fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s", s.cfg.table(to), list, list, s.cfg.table(from)),
		"DROP TABLE IF EXISTS " + s.cfg.table(from) + s.cfg.onCluster(),
	} {
		if err := s.execStatement(ctx, statement); err != nil {
			return err
		}
	}
	s.log.Warn("clickhouse table of an earlier version moved", "from", from, "to", to)
	return nil
}

// replaceFeed drops a feed that reads another table than the one of all revisions.
func (s *Store) replaceFeed(ctx context.Context) error {
	queries, err := s.selectPairs(ctx, "SELECT name, as_select FROM system.tables WHERE database = ? AND name = ?",
		s.cfg.Database, alertsFeed)
	if err != nil || queries[alertsFeed] == "" || strings.Contains(queries[alertsFeed], alertRevisions) {
		return err
	}
	return s.execStatement(ctx, "DROP VIEW IF EXISTS "+s.cfg.table(alertsFeed)+s.cfg.onCluster())
}

// alertObjects returns the engines of the table of all revisions and of the view, by name.
func (s *Store) alertObjects(ctx context.Context) (map[string]string, error) {
	return s.selectPairs(ctx, "SELECT name, engine FROM system.tables WHERE database = ? AND name IN ('"+
		alertRevisions+"', '"+alertsView+"')", s.cfg.Database)
}

// isTable reports whether an engine, "" for none, is one of a table with rows.
func isTable(engine string) bool { return strings.HasSuffix(engine, "MergeTree") }
