package clickhouse_test

import (
	"errors"
	"strings"
	"testing"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

func TestForeignTableIsOneError(t *testing.T) {
	for name, create := range map[string]string{
		"foreign_events":  "CREATE TABLE events (id UInt64, message String) ENGINE = MergeTree ORDER BY id",
		"foreign_offset":  "CREATE TABLE events (`event.id` UUID, `@timestamp` DateTime64(9, 'UTC'), _topic LowCardinality(String), _partition Int32, _offset String, _index UInt32) ENGINE = MergeTree ORDER BY _offset",
		"foreign_alerts":  "CREATE TABLE alerts (text String) ENGINE = MergeTree ORDER BY text",
		"foreign_view":    "CREATE VIEW alerts AS SELECT 1 AS text",
		"foreign_revs":    "CREATE TABLE alert_revisions (text String) ENGINE = MergeTree ORDER BY text",
		"foreign_seen":    "CREATE TABLE seen_values (topic String) ENGINE = MergeTree ORDER BY topic",
		"foreign_version": "CREATE TABLE schema_versions (version String) ENGINE = MergeTree ORDER BY version",
	} {
		store := embeddedtest.Store(t, name, "http")
		table := strings.Fields(create)[2]
		query(t, store, "DROP TABLE "+table)
		query(t, store, create)
		for range 2 {
			err := store.Migrate(t.Context())
			if !errors.Is(err, clickhouse.ErrForeignTable) || !strings.Contains(err.Error(), table) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestSettingsOfAnExistingTableAreSet(t *testing.T) {
	store := embeddedtest.Store(t, "settings", "http")
	query(t, store, "ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 0")
	query(t, store, "ALTER TABLE alert_revisions MODIFY SETTING non_replicated_deduplication_window = 20000")
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for table, window := range map[string]string{"events": "10000", "alert_revisions": "20000"} {
		engine := query(t, store, "SELECT engine_full FROM system.tables WHERE database = 'settings' AND name = '"+table+"'")
		if !strings.Contains(engine, "non_replicated_deduplication_window = "+window) {
			t.Errorf("%s: %s", table, engine)
		}
	}
}
