package clickhouse_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/embedded/embeddedtest"
)

// revision returns a revision of an alert, of the block that was formed at its time.
func revision(id string, number uint64, topic string, block time.Time) *pipeline.Alert {
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &pipeline.Alert{
		ID: id, Revision: number, Count: number, Topic: topic, Partition: 1, Offset: int64(number), WindowStart: start,
		First: start, Last: start, Ingested: block, Severity: "high", Rule: "r",
	}
}

// TestNewestAlertsLeaveOutABlockAndOtherTopics: an alert that the excepted block has touched comes back as it was
// before the block, one that the block has opened does not, and alerts of another topic never do.
func TestNewestAlertsLeaveOutABlockAndOtherTopics(t *testing.T) {
	store := embeddedtest.Store(t, "newest", "http")
	first, second := time.Unix(1_700_000_000, 5), time.Unix(1_700_000_001, 7)
	for token, list := range [][]*pipeline.Alert{
		{revision("a", 1, "t.events", first), revision("b", 4, "t.events", first), revision("old", 1, "", first)},
		{revision("a", 3, "t.events", second), revision("c", 1, "t.events", second)},
		{revision("d", 9, "other.events", first)},
	} {
		for range 2 { // repeated inserts change nothing
			if err := store.InsertAlerts(t.Context(), list, strconv.Itoa(token)); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(topic string, except time.Time, want string) {
		t.Helper()
		filter := pipeline.AlertFilter{
			TopicPartition: pipeline.TopicPartition{Topic: topic, Partition: 1}, Lookback: time.Hour, Latest: time.Now(),
		}
		if !except.IsZero() {
			filter.Except = pipeline.BlockID{TopicPartition: filter.TopicPartition, Start: 100, End: 200, Time: except.UnixNano()}
		}
		list, err := store.NewestAlerts(t.Context(), filter)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]uint64{}
		for _, alert := range list {
			got[alert.ID] = alert.Revision
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s except %v: %v, want %s", topic, except, got, want)
		}
	}
	check("t.events", time.Time{}, "map[a:3 b:4 c:1 old:1]")
	check("t.events", second, "map[a:1 b:4 old:1]")
	check("t.events", first, "map[a:3 c:1]")
	check("other.events", time.Time{}, "map[d:9 old:1]")

	block := pipeline.BlockID{
		TopicPartition: pipeline.TopicPartition{Topic: "t.events", Partition: 1}, Start: 0, End: 10, Time: second.UnixNano(),
	}
	list, err := store.AlertsOfBlock(t.Context(), block)
	if err != nil || len(list) != 2 {
		t.Errorf("%d alerts of the block, %v", len(list), err)
	}
}

// TestMigrationKeepsTheNewestRevisions: a database of the first schema has one table of all revisions for a year, with
// fewer columns. After the migration alerts_now shows the newest ones, and inserts go on.
func TestMigrationKeepsTheNewestRevisions(t *testing.T) {
	store := embeddedtest.Store(t, "oldalerts", "http")
	for _, statement := range []string{
		"DROP VIEW oldalerts.alerts_newest_feed", "DROP TABLE oldalerts.alerts_newest", "DROP TABLE oldalerts.alerts",
		"CREATE TABLE oldalerts.alerts (id String, revision UInt64, title String, window_start DateTime64(9, 'UTC')," +
			" partition Int32, offset Int64, stored DateTime64(3, 'UTC') DEFAULT now64(3))" +
			" ENGINE = ReplacingMergeTree ORDER BY (id, revision) TTL toDateTime(stored) + toIntervalDay(365)",
		"INSERT INTO oldalerts.alerts (id, revision, title) SELECT toString(number % 10), number, 'x' FROM numbers(100)",
		"DELETE FROM oldalerts.schema_versions WHERE version > 1",
	} {
		if err := store.Conn().Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for range 2 {
		if err := store.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, store, "SELECT sum(revision) * 100 + count() FROM oldalerts.alerts_now"); n != 94510 {
		t.Errorf("%d, want 10 alerts with the revisions 90 to 99", n)
	}
	if err := store.InsertAlerts(t.Context(), []*pipeline.Alert{revision("7", 200, "t", time.Now())}, "n"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, store, "SELECT revision FROM oldalerts.alerts_now WHERE id = '7' AND topic = 't'"); n != 200 {
		t.Errorf("revision %d", n)
	}
	if n := count(t, store, "SELECT countIf(engine_full LIKE '%toIntervalDay(7)%') FROM system.tables"+
		" WHERE database = 'oldalerts' AND name = 'alerts'"); n != 1 {
		t.Error("all revisions are kept for longer than 7 days")
	}
}

// TestAlertsNowIsFast: alerts_now and the start of a partition do not sort all revisions. TIDEGATE_REVISIONS=10000000 is
// the size of the figures in bench/RESULTS.md.
func TestAlertsNowIsFast(t *testing.T) {
	if testing.Short() {
		t.Skip("it inserts hundreds of thousands of revisions")
	}
	store := embeddedtest.Store(t, "fast", "http")
	revisions := 400_000
	if text := os.Getenv("TIDEGATE_REVISIONS"); text != "" {
		revisions, _ = strconv.Atoi(text)
	}
	// Two thousand alerts, an hour of them each, with revisions of many blocks.
	const perInsert = 100_000
	for at := 0; at < revisions; at += perInsert {
		if err := store.Conn().Exec(t.Context(), fmt.Sprintf("INSERT INTO fast.alerts (id, revision, title, severity, `group`,"+
			" window_start, last, partition, topic, offset, ingested)"+
			" SELECT hex(MD5(toString(number %% 2000))), %[1]d + number, 'a title', 'high', concat('group ', toString(number %% 2000)),"+
			" now() - toIntervalHour(number %% 24), now(), number %% 12, 'tidegate.events', %[1]d + number,"+
			" now() - toIntervalSecond(%[1]d / 1000) FROM numbers(%[2]d)", at, perInsert)); err != nil {
			t.Fatal(err)
		}
	}
	best := func(run func()) (took time.Duration) {
		took = time.Hour
		for range 5 {
			began := time.Now()
			run()
			took = min(took, time.Since(began))
		}
		return took
	}
	old := "SELECT severity, title, count FROM (SELECT * FROM fast.alerts ORDER BY id, revision DESC LIMIT 1 BY id) ORDER BY last DESC LIMIT 20"
	oldTook := best(func() { query(t, store, old) })
	took := best(func() {
		query(t, store, "SELECT severity, title, count FROM fast.alerts_now ORDER BY last DESC LIMIT 20")
	})
	all := best(func() { query(t, store, "SELECT * FROM fast.alerts_now FORMAT Null") })
	filter := pipeline.AlertFilter{
		TopicPartition: pipeline.TopicPartition{Topic: "tidegate.events", Partition: 3}, Lookback: 6 * time.Hour,
		Except: pipeline.BlockID{Start: int64(revisions) - 100, End: int64(revisions), Time: 1},
	}
	start := best(func() {
		if _, err := store.NewestAlerts(t.Context(), filter); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%d revisions: alerts_now %v (all columns %v), before %v; start of a partition %v", revisions, took, all, oldTook, start)
	if n := count(t, store, "SELECT count() FROM fast.alerts_now"); n != 2000 {
		t.Errorf("%d alerts", n)
	}
	if limit := 100*time.Millisecond + oldTook/5; took > limit {
		t.Errorf("alerts_now took %v, sorting all revisions %v", took, oldTook)
	}
}
