package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline"
)

// A migration is a step that cannot be generated from the field table. Steps are numbered, only ever added, and never changed once they were
// released; each may be run twice, since two engines may start at the same time.
type migration struct {
	version uint32
	what    string
	steps   func(cfg Config) []string
}

// migrations is the list. Missing tables, columns and indexes need no step: Migrate makes those on every start.
var migrations = []migration{
	{1, "the first tables", func(Config) []string { return nil }},
}

// Migrate makes the database what this binary expects: what is missing is made, what is there stays. It only ever adds, so an older
// engine can go on writing while a newer one has migrated; the order of an upgrade is store, engine, collectors.
func (s *Store) Migrate(ctx context.Context) error {
	for _, q := range schemaStatements(s.cfg) {
		if err := s.withTextIndex(ctx, q); err != nil {
			return err
		}
	}
	for _, t := range tables(s.cfg) {
		if err := s.reconcileTable(ctx, t); err != nil {
			return err
		}
	}
	if err := s.runMigrations(ctx); err != nil {
		return err
	}
	return s.createReader(ctx)
}

// reconcileTable adds the columns and indexes that t got since the table was made, and sets its TTL and settings.
func (s *Store) reconcileTable(ctx context.Context, t table) error {
	have, err := s.selectNames(ctx, "SELECT name FROM system.columns WHERE database = ? AND table = ?", s.cfg.Database, t.name)
	if err != nil {
		return err
	}
	indexes, err := s.selectNames(ctx, "SELECT name FROM system.data_skipping_indices WHERE database = ? AND table = ?", s.cfg.Database, t.name)
	if err != nil {
		return err
	}
	var changes []string
	for _, c := range append(slices.Clip(t.columns), t.aliases...) {
		if !have[c.name] {
			changes = append(changes, "ADD COLUMN IF NOT EXISTS "+c.String())
		}
	}
	for _, x := range t.indexes {
		if !indexes[x.name] {
			changes = append(changes, fmt.Sprintf("ADD INDEX IF NOT EXISTS %s %s TYPE %s", x.name, x.on, x.kind))
		}
	}
	if len(changes) > 0 {
		s.log.Info("clickhouse table extended", "table", t.name, "changes", len(changes))
		if err := s.withTextIndex(ctx, "ALTER TABLE "+s.cfg.table(t.name)+s.cfg.onCluster()+" "+strings.Join(changes, ", ")); err != nil {
			return err
		}
	}
	return s.setTTL(ctx, t)
}

// setTTL follows the configuration: parts that are due now go at the next merge, no part is rewritten for it.
func (s *Store) setTTL(ctx context.Context, t table) error {
	if t.ttlColumn == "" {
		return nil
	}
	var engine string
	err := s.driver.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", s.cfg.Database, t.name).Scan(&engine)
	if err != nil {
		return describeError(err, s.cfg)
	}
	has := strings.Contains(engine, " TTL ")
	alter := "ALTER TABLE " + s.cfg.table(t.name) + s.cfg.onCluster()
	switch {
	case t.ttlDays == 0 && has:
		return s.execStatement(ctx, alter+" REMOVE TTL")
	case t.ttlDays > 0 && !strings.Contains(engine, fmt.Sprintf("toIntervalDay(%d)", t.ttlDays)):
		return s.execStatement(ctx, alter+" MODIFY TTL "+t.ttlExpr()+" SETTINGS materialize_ttl_after_modify = 0")
	}
	return nil
}

// runMigrations runs the numbered steps that the database has not seen.
func (s *Store) runMigrations(ctx context.Context) error {
	var at uint32
	if err := s.driver.QueryRow(ctx, "SELECT max(version) FROM "+s.cfg.table("schema_versions")).Scan(&at); err != nil {
		return describeError(err, s.cfg)
	}
	if newest := migrations[len(migrations)-1].version; at > newest {
		s.log.Warn("clickhouse schema is newer than this binary", "schema", at, "binary", newest)
	}
	for _, m := range migrations {
		if m.version <= at {
			continue
		}
		for _, q := range m.steps(s.cfg) {
			if err := s.execStatement(ctx, q); err != nil {
				return fmt.Errorf("migration %d (%s): %w", m.version, m.what, err)
			}
		}
		q := fmt.Sprintf("INSERT INTO %s (version, what) SETTINGS async_insert = 0, insert_deduplication_token = 'v%d' VALUES (%d, %s)",
			s.cfg.table("schema_versions"), m.version, m.version, quoteString(m.what))
		if err := s.execStatement(ctx, q); err != nil {
			return err
		}
		s.log.Info("clickhouse schema migrated", "version", m.version, "what", m.what)
	}
	return nil
}

// AnalystLimits bound what one query of the read-only user may take. The user may lower them and change other settings (that is what
// clients do in their queries: readonly 2), not raise them, nor lift them with 0.
var AnalystLimits = []struct{ Setting, Value string }{
	{"max_memory_usage", "1000000000"},
	{"max_execution_time", "60"},
	{"max_rows_to_read", "2000000000"},
	{"max_result_rows", "1000000"},
	{"max_result_bytes", "500000000"},
	{"max_threads", "4"},
	{"max_concurrent_queries_for_user", "8"},
}

// AnalystGrants are all that the read-only user may do in the database db. Tables of the system that tell about our own tables
// are readable by everybody.
func AnalystGrants(db string) []string {
	return []string{"SELECT ON " + quoteName(db) + ".*", "SHOW ON " + quoteName(db) + ".*"}
}

// createReader makes the read-only user where one is configured. Its password is set again each time, so that the file is what counts.
func (s *Store) createReader(ctx context.Context) error {
	if s.cfg.ReadUser == "" {
		return nil
	}
	password, err := pipeline.Secret(s.cfg.ReadPassword, s.cfg.ReadPasswordFile)
	if err != nil {
		return fmt.Errorf("clickhouse.read_password_file: %w", err)
	}
	for _, q := range readerSQL(s.cfg, password) {
		if err := s.execStatement(ctx, q); err != nil {
			return fmt.Errorf("make user %s: %w", s.cfg.ReadUser, err)
		}
	}
	return nil
}

func readerSQL(cfg Config, password string) []string {
	var limits []string
	for _, l := range AnalystLimits {
		limits = append(limits, fmt.Sprintf("%s = %s MIN 1 MAX %s", l.Setting, l.Value, l.Value))
	}
	user, cluster := quoteName(cfg.ReadUser), cfg.onCluster()
	out := []string{
		"CREATE USER IF NOT EXISTS " + user + cluster,
		"ALTER USER " + user + cluster + " IDENTIFIED WITH sha256_password BY " + quoteString(password) + " SETTINGS readonly = 2, " + strings.Join(limits, ", "),
	}
	for _, g := range AnalystGrants(cfg.Database) {
		out = append(out, "GRANT"+cluster+" "+g+" TO "+user)
	}
	return out
}

// withTextIndex runs a statement, and runs it once more with the older index of words where the server knows no other.
func (s *Store) withTextIndex(ctx context.Context, query string) error {
	err := s.execStatement(ctx, query)
	if err == nil || errorCode(err) == 0 || !strings.Contains(query, textIndex) {
		return err
	}
	if s.execStatement(ctx, strings.ReplaceAll(query, textIndex, oldTextIndex)) == nil {
		return nil
	}
	return err
}

func (s *Store) execStatement(ctx context.Context, query string) error {
	return describeError(s.driver.Exec(ctx, query), s.cfg)
}

func (s *Store) selectNames(ctx context.Context, query string, args ...any) (map[string]bool, error) {
	rows, err := s.driver.Query(ctx, query, args...)
	if err != nil {
		return nil, describeError(err, s.cfg)
	}
	defer rows.Close()
	out := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, describeError(err, s.cfg)
		}
		out[name] = true
	}
	return out, describeError(rows.Err(), s.cfg)
}
