package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// A migration is a change of the schema that does not follow from the field table. Migrations are numbered
// and only ever added; one that was released is never changed. Its statements may be run twice, because two
// engines may start at the same time.
type migration struct {
	version    uint32
	what       string
	statements func(cfg Config) []string
}

// migrations is the list of them. Missing tables, columns and indexes need no migration: Migrate creates them
// at every start.
var migrations = []migration{
	{1, "first tables", func(Config) []string { return nil }},
	{2, "projection of messages", addEventProjections},
	{3, "newest revisions of alerts", copyNewestAlerts},
	{4, "all revisions of alerts in a table of their own name", copyNewestAlerts},
}

// addEventProjections returns the statements that add the projections to an existing table events. Parts that exist
// are not rewritten; a query reads their rows instead, until they expire.
func addEventProjections(cfg Config) (statements []string) {
	for _, p := range eventProjections {
		statements = append(statements, fmt.Sprintf("ALTER TABLE %s%s ADD PROJECTION IF NOT EXISTS %s (%s)",
			cfg.table("events"), cfg.onCluster(), p.name, p.query))
	}
	return statements
}

// Migrate brings the database to the schema of this version: it creates what is missing, keeps what exists,
// and creates the read-only user. It only adds, so that an older engine can go on inserting after a newer one
// has migrated; the order of an upgrade is store, engine, collectors. The exceptions are the tables of
// alerts, one of which is renamed and one created anew: an engine of an earlier version waits with its next
// alerts until it is replaced.
func (s *Store) Migrate(ctx context.Context) error {
	execute := func(statements ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, statement := range statements {
				if err := s.execWithTextIndex(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		}
	}
	eachTable := func(step func(context.Context, table) error) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, t := range tables(s.cfg) {
				if err := step(ctx, t); err != nil {
					return err
				}
			}
			return nil
		}
	}
	// The views name all columns. The feed comes before the migration that copies the older revisions, and the TTL
	// that lets them expire after it.
	for _, step := range []func(context.Context) error{
		s.checkTables, s.renameRevisions, s.renameNewest,
		execute(createDatabase(s.cfg)), execute(tableStatements(s.cfg)...), eachTable(s.reconcileTable),
		s.replaceFeed, execute(createAlertFeed(s.cfg)...), s.moveRevisions, s.moveNewest,
		execute(createAlertsView(s.cfg)), s.runMigrations, eachTable(s.setTTL),
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.createFunction(ctx)
	return s.createReader(ctx)
}

// createFunction creates the function in_net. Functions belong to the server and need a privilege of their own,
// CREATE FUNCTION ON *.*. Only people need the function, so an error is no reason to stop.
func (s *Store) createFunction(ctx context.Context) {
	if err := s.execStatement(ctx, createInNet(s.cfg)); err != nil {
		s.log.Warn("sql function in_net is not there: it could not be created", "err", err)
	}
}

// reconcileTable adds the columns and indexes of the wanted table that the existing one lacks.
func (s *Store) reconcileTable(ctx context.Context, wanted table) error {
	if err := s.setSettings(ctx, wanted); err != nil {
		return err
	}
	columns, err := s.selectNames(ctx, "SELECT name FROM system.columns WHERE database = ? AND table = ?",
		s.cfg.Database, wanted.name)
	if err != nil {
		return err
	}
	indexes, err := s.selectNames(ctx,
		"SELECT name FROM system.data_skipping_indices WHERE database = ? AND table = ?", s.cfg.Database, wanted.name)
	if err != nil {
		return err
	}
	// One ALTER for everything that is missing: columns and aliases first, because an index may name them.
	var changes []string
	for _, col := range append(slices.Clip(wanted.columns), wanted.aliases...) {
		if !columns[col.name] {
			changes = append(changes, "ADD COLUMN IF NOT EXISTS "+col.String())
		}
	}
	for _, index := range wanted.indexes {
		if !indexes[index.name] {
			changes = append(changes,
				fmt.Sprintf("ADD INDEX IF NOT EXISTS %s %s TYPE %s", index.name, index.on, index.kind))
		}
	}
	if len(changes) > 0 {
		s.log.Info("clickhouse table extended", "table", wanted.name, "changes", len(changes))
		alter := "ALTER TABLE " + s.cfg.table(wanted.name) + s.cfg.onCluster() + " " + strings.Join(changes, ", ")
		if err := s.execWithTextIndex(ctx, alter); err != nil {
			return err
		}
	}
	return nil
}

// setTTL sets the TTL of an existing table to the configured one. Parts that are expired by it are dropped at
// the next merge; no part is rewritten.
func (s *Store) setTTL(ctx context.Context, wanted table) error {
	if wanted.ttlColumn == "" {
		return nil
	}
	var engine string
	err := s.driver.QueryRow(ctx, "SELECT engine_full FROM system.tables WHERE database = ? AND name = ?",
		s.cfg.Database, wanted.name).Scan(&engine)
	if err != nil {
		return describeError(err, s.cfg)
	}
	hasTTL := strings.Contains(engine, " TTL ")
	alter := "ALTER TABLE " + s.cfg.table(wanted.name) + s.cfg.onCluster()
	switch {
	case wanted.ttlDays == 0 && hasTTL:
		return s.execStatement(ctx, alter+" REMOVE TTL")
	case wanted.ttlDays > 0 && !strings.Contains(engine, fmt.Sprintf("toIntervalDay(%d)", wanted.ttlDays)):
		return s.execStatement(ctx, alter+" MODIFY TTL "+wanted.ttlExpr()+" SETTINGS materialize_ttl_after_modify = 0")
	}
	return nil
}

// runMigrations runs the migrations that the table schema_versions does not list.
func (s *Store) runMigrations(ctx context.Context) error {
	var applied uint32
	err := s.driver.QueryRow(ctx, "SELECT max(version) FROM "+s.cfg.table("schema_versions")).Scan(&applied)
	if err != nil {
		return describeError(err, s.cfg)
	}
	if newest := migrations[len(migrations)-1].version; applied > newest {
		s.log.Warn("clickhouse schema is newer than this version of tidegate", "schema", applied, "binary", newest)
	}
	for _, migration := range migrations {
		if migration.version <= applied {
			continue
		}
		// The version is recorded after its statements: a migration that was interrupted is run again.
		for _, statement := range migration.statements(s.cfg) {
			if err := s.execStatement(ctx, statement); err != nil {
				return fmt.Errorf("migration %d (%s): %w", migration.version, migration.what, err)
			}
		}
		record := fmt.Sprintf("INSERT INTO %s (version, what)"+
			" SETTINGS async_insert = 0, insert_deduplication_token = 'v%d' VALUES (%d, %s)",
			s.cfg.table("schema_versions"), migration.version, migration.version, quoteString(migration.what))
		if err := s.execStatement(ctx, record); err != nil {
			return err
		}
		s.log.Info("clickhouse schema migrated", "version", migration.version, "what", migration.what)
	}
	return nil
}

// MaxAnalystQueries is how many queries the read-only user may run at once.
const MaxAnalystQueries = 8

// AnalystLimits are the limits of one query of the read-only user. The user may lower them and change other
// settings (readonly = 2, because clients set some in each query), but neither raise them nor remove them
// with 0.
var AnalystLimits = []struct {
	Setting string
	Value   int64
}{
	{"max_memory_usage", 1000000000},
	{"max_memory_usage_for_user", 2000000000},                // of all its queries
	{"max_untracked_memory", 4194304},                        // of a thread, outside of the two limits
	{"memory_overcommit_ratio_denominator", 1073741824},      // 0: other queries are ended for its memory
	{"max_temporary_data_on_disk_size_for_query", 125000000}, // of groups that do not fit into the memory
	{"max_execution_time", 60},
	{"max_rows_to_read", 2000000000},
	{"max_result_rows", 1000000},
	{"max_result_bytes", 500000000},
	{"max_threads", 4},
	{"max_concurrent_queries_for_user", MaxAnalystQueries},
}

// AnalystGrants returns the privileges of the read-only user in the database db. It needs none for the system
// tables that describe these tables: everybody may read those.
func AnalystGrants(db string) []string {
	return []string{"SELECT ON " + quoteName(db) + ".*", "SHOW ON " + quoteName(db) + ".*"}
}

// createReader creates the read-only user if one is configured. It sets the password at every start, so that
// a changed password file takes effect.
func (s *Store) createReader(ctx context.Context) error {
	if s.cfg.ReadUser == "" {
		return nil
	}
	password, err := config.Secret(s.cfg.ReadPassword, s.cfg.ReadPasswordFile)
	if err != nil {
		return fmt.Errorf("clickhouse.read_password_file: %w", err)
	}
	for _, statement := range readerSQL(s.cfg, password) {
		if err := s.execStatement(ctx, statement); err != nil {
			return fmt.Errorf("create user %s: %w", s.cfg.ReadUser, err)
		}
	}
	return nil
}

// readerSQL returns the statements that create the read-only user.
func readerSQL(cfg Config, password string) []string {
	var limits []string
	for _, limit := range AnalystLimits {
		limits = append(limits, fmt.Sprintf("%s = %d MIN 1 MAX %d", limit.Setting, limit.Value, limit.Value))
	}
	user, cluster := quoteName(cfg.ReadUser), cfg.onCluster()
	out := []string{
		"CREATE USER IF NOT EXISTS " + user + cluster,
		"ALTER USER " + user + cluster + " IDENTIFIED WITH sha256_password BY " + quoteString(password) +
			" SETTINGS readonly = 2, " + strings.Join(limits, ", "),
	}
	for _, grant := range AnalystGrants(cfg.Database) {
		out = append(out, "GRANT"+cluster+" "+grant+" TO "+user)
	}
	return out
}

// execWithTextIndex executes a statement, and executes it again with oldTextIndex if the server rejects
// textIndex.
func (s *Store) execWithTextIndex(ctx context.Context, query string) error {
	err := s.execStatement(ctx, query)
	if err == nil || errorCode(err) == 0 || !strings.Contains(query, textIndex) {
		return err
	}
	if s.execStatement(ctx, strings.ReplaceAll(query, textIndex, oldTextIndex)) == nil {
		return nil
	}
	return err
}

// execStatement executes a statement without a result.
func (s *Store) execStatement(ctx context.Context, query string) error {
	return describeError(s.driver.Exec(ctx, query), s.cfg)
}

// selectNames returns the strings of a query with one column.
func (s *Store) selectNames(ctx context.Context, query string, args ...any) (map[string]bool, error) {
	names := map[string]bool{}
	var name string
	err := s.selectRows(ctx, query, args, []any{&name}, func() { names[name] = true })
	return names, err
}
