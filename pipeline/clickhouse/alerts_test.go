package clickhouse_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
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

// migrateByTwoEngines migrates the store by two engines that start at once. Each may need several attempts.
func migrateByTwoEngines(t *testing.T, name string, store *clickhouse.Store) {
	t.Helper()
	var starts sync.WaitGroup
	for range 2 { // engines
		starts.Go(func() {
			for range 3 { // attempts, as at a start
				if err := store.Migrate(context.WithoutCancel(t.Context())); err == nil {
					return
				}
			}
			t.Errorf("%s: no attempt to migrate succeeded", name)
		})
	}
	starts.Wait()
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
}

// TestMigrationKeepsTheNewestRevisions: a database of the first schema has one table of all revisions for a year, with
// fewer columns. After the migration alerts shows the newest ones, and inserts go on.
func TestMigrationKeepsTheNewestRevisions(t *testing.T) {
	store := embeddedtest.Store(t, "oldalerts", "http")
	for _, statement := range []string{
		"DROP VIEW oldalerts.alerts_newest_feed", "DROP TABLE oldalerts.alerts_newest", "DROP VIEW oldalerts.alerts",
		"DROP TABLE oldalerts.alert_revisions",
		"CREATE TABLE oldalerts.alerts (id String, revision UInt64, title String, window_start DateTime64(9, 'UTC')," +
			" partition Int32, offset Int64, stored DateTime64(3, 'UTC') DEFAULT now64(3))" +
			" ENGINE = ReplacingMergeTree ORDER BY (id, revision) TTL toDateTime(stored) + toIntervalDay(365)",
		"INSERT INTO oldalerts.alerts (id, revision, title, window_start)" +
			" SELECT toString(number % 10), number, 'x', '2026-03-01 12:00:00' FROM numbers(100)",
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
	if n := count(t, store, "SELECT sum(revision) * 100 + count() FROM oldalerts.alerts"); n != 94510 {
		t.Errorf("%d, want 10 alerts with the revisions 90 to 99", n)
	}
	if err := store.InsertAlerts(t.Context(), []*pipeline.Alert{revision("7", 200, "t", time.Now())}, "n"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, store, "SELECT sum(revision) FROM oldalerts.alerts WHERE id = '7'"); n != 200 {
		t.Errorf("revision %d", n)
	}
	if n := count(t, store, "SELECT countIf(engine_full LIKE '%toIntervalDay(7)%') FROM system.tables"+
		" WHERE database = 'oldalerts' AND name = 'alert_revisions'"); n != 1 {
		t.Error("all revisions are kept for longer than 7 days")
	}
}

// The statements of the third schema: the table of all revisions has the name alerts, the view alerts_now.
const (
	thirdSchemaFeed = "CREATE MATERIALIZED VIEW alerts_newest_feed TO alerts_newest AS SELECT * FROM alerts"
	thirdSchemaView = "CREATE VIEW alerts_now AS SELECT * FROM alerts_newest FINAL"
)

// TestRevisionsGetATableOfTheirOwnName: in the third schema the table of all revisions is called alerts. Wherever an
// engine that renames it is killed, and whatever an engine of that version does at the same time, all alerts are there
// after the next start, and inserts go on. The old view is kept.
func TestRevisionsGetATableOfTheirOwnName(t *testing.T) {
	for name, interrupt := range map[string][]string{
		"whole":         {},
		"without_feed":  {"DROP VIEW alerts_newest_feed", "INSERT INTO alerts (id, revision, severity) VALUES ('late', 1, 'low')"},
		"renamed":       {"DROP VIEW alerts_newest_feed", "RENAME TABLE alerts TO alert_revisions"},
		"feed_of_other": {"RENAME TABLE alerts TO alert_revisions"},
		"both": {
			"DROP VIEW alerts_newest_feed", "RENAME TABLE alerts TO alert_revisions",
			"CREATE TABLE alerts AS alert_revisions", thirdSchemaFeed,
			"INSERT INTO alerts (id, revision, severity) VALUES ('late', 1, 'low')",
		},
	} {
		store := embeddedtest.Store(t, "third_"+name, "http")
		for _, statement := range append([]string{
			"DROP VIEW alerts_newest_feed", "DROP VIEW alerts", "RENAME TABLE alert_revisions TO alerts", thirdSchemaFeed, thirdSchemaView,
			"INSERT INTO alerts (id, revision, severity, window_start)" +
				" SELECT toString(number % 10), number, 'high', '2026-03-01 12:00:00' FROM numbers(100)",
			"DELETE FROM schema_versions WHERE version > 3",
		}, interrupt...) {
			query(t, store, statement)
		}
		migrateByTwoEngines(t, name, store)
		if err := store.InsertAlerts(t.Context(), []*pipeline.Alert{revision("7", 200, "t", time.Now())}, "n"); err != nil {
			t.Fatal(err)
		}
		want := "11\t100\t0"
		if query(t, store, "SELECT count() FROM alert_revisions WHERE id = 'late'") != "0" {
			want = "12\t100\t1"
		} else if name == "both" || name == "without_feed" {
			t.Errorf("%s: a revision is lost", name)
		}
		got := query(t, store, "SELECT count() + (SELECT revision = 200 FROM alerts WHERE id = '7'),"+
			" (SELECT uniqExact(revision) FROM alert_revisions WHERE revision < 100 AND id != 'late'), countIf(id = 'late') FROM alerts")
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if now := query(t, store, "SELECT count() = (SELECT count() FROM alerts) FROM alerts_now"); now != "1" {
			t.Errorf("%s: alerts_now has other alerts", name)
		}
	}
}

// TestNewestRevisionsAreMovedIntoTheOrderOfTime: before, the table of newest revisions had the order of the ids.
// Wherever an engine that moves its rows is killed, all alerts are there after the next start, and inserts go on.
func TestNewestRevisionsAreMovedIntoTheOrderOfTime(t *testing.T) {
	for name, interrupt := range map[string][]string{
		"whole":   {},
		"renamed": {"RENAME TABLE alerts_newest TO alerts_newest_by_id"},
		"created": {
			"RENAME TABLE alerts_newest TO alerts_newest_by_id",
			"CREATE TABLE alerts_newest AS alerts_newest_by_id ENGINE = ReplacingMergeTree(revision) ORDER BY (window_start, id)",
			"INSERT INTO alert_revisions (id, revision, severity) VALUES ('7', 150, 'high')",
		},
	} {
		store := embeddedtest.Store(t, "by_id_"+name, "http")
		for _, statement := range append([]string{
			"CREATE TABLE t AS alerts_newest ENGINE = ReplacingMergeTree(revision) ORDER BY id",
			"EXCHANGE TABLES t AND alerts_newest", "DROP TABLE t",
			"INSERT INTO alert_revisions (id, revision, severity) SELECT toString(number % 10), number, 'high' FROM numbers(100)",
			"TRUNCATE TABLE alert_revisions", // the newest ones are kept for longer
		}, interrupt...) {
			query(t, store, statement)
		}
		migrateByTwoEngines(t, name, store)
		query(t, store, "INSERT INTO alert_revisions (id, revision, severity) VALUES ('8', 200, 'high'), ('new', 1, 'low')")
		if got := query(t, store, "SELECT count(), countIf(revision >= 90), max(revision) FROM alerts"); got != "11\t10\t200" {
			t.Errorf("%s: alerts, those with their newest revision and the highest one: %s", name, got)
		}
		got := query(t, store, "SELECT groupArray((name, sorting_key)) FROM system.tables"+
			" WHERE database = currentDatabase() AND name LIKE 'alerts_newest%' AND engine LIKE '%MergeTree'")
		if got != "[('alerts_newest','window_start, id')]" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestViewsOnTheRenamedTableAreNamed: a view of others on the table does not follow it.
func TestViewsOnTheRenamedTableAreNamed(t *testing.T) {
	store := embeddedtest.Store(t, "others", "http")
	for _, statement := range []string{
		"DROP VIEW alerts_newest_feed", "DROP VIEW alerts", "RENAME TABLE alert_revisions TO alerts", thirdSchemaFeed,
		"CREATE MATERIALIZED VIEW pager ENGINE = MergeTree ORDER BY id AS SELECT id FROM alerts",
	} {
		query(t, store, statement)
	}
	var log strings.Builder
	again, err := clickhouse.Open(t.Context(), store.Config(), slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "views=[pager]") {
		t.Error(log.String())
	}
}

// TestSeveritySorts: the order of severities is theirs, not that of the alphabet, and they are words all the same.
func TestSeveritySorts(t *testing.T) {
	store := embeddedtest.Store(t, "severity", "native")
	var list []*pipeline.Alert
	for i, severity := range []string{"low", "critical", "", "info", "high", "medium", "unknown word"} {
		alert := revision(strconv.Itoa(i), 1, "t", time.Unix(1_700_000_000, 0))
		alert.Severity = severity
		list = append(list, alert)
	}
	if err := store.InsertAlerts(t.Context(), list, "a"); err != nil {
		t.Fatal(err)
	}
	check := func(sql, want string) {
		t.Helper()
		if got := query(t, store, sql); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	check("SELECT arrayStringConcat(groupArray(toString(severity)), ' ') FROM (SELECT severity FROM alerts ORDER BY severity DESC, id)",
		"critical high medium low info")
	check("SELECT id FROM alerts WHERE severity = 'high' FORMAT JSONEachRow", `{"id":"4"}`)
	check("SELECT count() FROM alerts WHERE severity >= 'medium'", "3")
	check("SELECT max(severity), any(severity) = 'low' FROM alerts WHERE id IN ('0', '4') FORMAT JSONCompactEachRow", `["high", 1]`)
	check("SELECT severity FROM alerts WHERE id = '1' FORMAT JSONEachRow", `{"severity":"critical"}`)
	check("SELECT countIf(severity LIKE 'c%') FROM alerts", "1")
}

// TestInNet: the function takes every text, also for a user who may only read.
func TestInNet(t *testing.T) {
	store := embeddedtest.Store(t, "in_net", "http")
	for arguments, want := range map[string]string{
		"'172.17.0.3', '172.16.0.0/12'": "1", "'172.32.0.1', '172.16.0.0/12'": "0", "'', '0.0.0.0/0'": "0", "'', '::/0'": "0",
		"'fe80::1', 'fe80::/10'": "1", "'fe80::1', '10.0.0.0/8'": "0", "'10.0.0.1:80', '10.0.0.0/8'": "0", "'10.0.0.1', '10.0.0.1/32'": "1",
	} {
		if got := query(t, store, "SELECT toUInt8(in_net("+arguments+"))"); got != want {
			t.Errorf("in_net(%s) is %s", arguments, got)
		}
	}
	insert(t, store, rows("t", 0, 0, 3), "a")
	query(t, store, "SELECT source.ip FROM events WHERE in_net(source.ip, '10.0.0.0/8') OR arrayExists(ip -> in_net(ip, '10.0.0.0/8'), dns.resolved_ip)")
}

// fillRevisions inserts revisions of alerts in the order of time, a tenth of them at a time: ten of each alert. The
// server generates them.
func fillRevisions(t *testing.T, store *clickhouse.Store, revisions int) {
	t.Helper()
	for tenth := range 10 {
		if err := store.Conn().Exec(t.Context(), fmt.Sprintf("INSERT INTO %[1]s.alert_revisions (id, revision, title, severity,"+
			" `group`, window_start, last, partition, topic, offset, ingested)"+
			" WITH intDiv(%[2]d + number, 10) AS a, now() - toIntervalSecond(60 * (intDiv(%[3]d, 10) - a)) AS start"+
			" SELECT hex(MD5(toString(a))), 1 + number %% 10, 'a title', 'high', concat('group ', toString(a)),"+
			" start, start + toIntervalSecond(number %% 10), a %% 12, 'tidegate.events', %[2]d + number,"+
			" now() - toIntervalHour(9 - %[4]d) FROM numbers(%[5]d)",
			store.Config().Database, tenth*revisions/10, revisions, tenth, revisions/10)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAlertsAreFast: the view alerts and the start of a partition do not sort all revisions.
// TIDEGATE_REVISIONS=10000000 is the size of the figures in bench/RESULTS.md.
func TestAlertsAreFast(t *testing.T) {
	if testing.Short() {
		t.Skip("it inserts hundreds of thousands of revisions")
	}
	store := embeddedtest.Store(t, "fast", "http")
	revisions := 400_000
	if text := os.Getenv("TIDEGATE_REVISIONS"); text != "" {
		revisions, _ = strconv.Atoi(text)
	}
	fillRevisions(t, store, revisions)
	best := func(run func()) (took time.Duration) {
		took = time.Hour
		for range 10 {
			began := time.Now()
			run()
			took = min(took, time.Since(began))
		}
		return took
	}
	latest := best(func() { query(t, store, "SELECT severity, title, count FROM fast.alerts ORDER BY last DESC LIMIT 20") })
	day := best(func() { query(t, store, "SELECT * FROM fast.alerts WHERE window_start > now() - 86400 FORMAT Null") })
	all := best(func() { query(t, store, "SELECT * FROM fast.alerts FORMAT Null") })
	filter := pipeline.AlertFilter{
		TopicPartition: pipeline.TopicPartition{Topic: "tidegate.events", Partition: 3}, Lookback: 6 * time.Hour,
		Except: pipeline.BlockID{Start: int64(revisions) - 100, End: int64(revisions), Time: 1},
	}
	start := best(func() {
		if _, err := store.NewestAlerts(t.Context(), filter); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%d revisions: the latest alerts %v, those of a day %v, all %v; start of a partition %v", revisions, latest, day, all, start)
	if n := count(t, store, "SELECT count() FROM fast.alerts"); n != uint64(revisions/10) {
		t.Errorf("%d alerts", n)
	}

	// Times say little on a busy machine: the control sorts all revisions. It takes minutes for the larger sizes.
	if revisions > 1_000_000 {
		return
	}
	const sorted = "SELECT severity, title, count FROM (SELECT * FROM fast.alert_revisions ORDER BY id, revision DESC LIMIT 1 BY id)" +
		" ORDER BY last DESC LIMIT 20"
	if control := best(func() { query(t, store, sorted) }); latest > 100*time.Millisecond+control/5 {
		t.Errorf("the latest alerts took %v, sorting all revisions %v", latest, control)
	}
}

// TestLatestOfAMillionAlertsTakeLittle: the latest alerts of a million, the newest revisions of which are in parts of
// their own, take the server less than 100 ms of CPU time. On a busy machine the time of a query says little.
func TestLatestOfAMillionAlertsTakeLittle(t *testing.T) {
	if testing.Short() {
		t.Skip("it inserts a million alerts")
	}
	const alerts, parts, queries = 1_000_000, 5, 20
	store := embeddedtest.Store(t, "million", "http")
	now := time.Now().Unix()
	query(t, store, "SYSTEM STOP MERGES million.alerts_newest")
	fill := func(revision, from, count int) {
		t.Helper()
		query(t, store, fmt.Sprintf("INSERT INTO alerts_newest (id, revision, title, severity, `group`, window_start, last)"+
			" SELECT hex(MD5(toString(number))), %d, 'a title', 'high', concat('group ', toString(number)),"+
			" fromUnixTimestamp(toUInt32(%d - 30 * (%d - number))) AS start, start + toIntervalSecond(number %% 10)"+
			" FROM numbers(%d, %d)", revision, now, alerts, from, count))
	}
	for part := range parts {
		fill(1, part*alerts/parts, alerts/parts)
	}
	fill(2, alerts-2*24*120, 2*24*120) // of two days

	ask := func(sql string) (cpu, best time.Duration) {
		query(t, store, sql) // into the caches
		before, best := processTime(t, embeddedtest.Server(t).PID()), time.Hour
		for range queries {
			began := time.Now()
			query(t, store, sql)
			best = min(best, time.Since(began))
		}
		return (processTime(t, embeddedtest.Server(t).PID()) - before) / queries, best
	}
	for _, sql := range []string{
		"SELECT severity, title, count FROM alerts ORDER BY last DESC LIMIT 20",
		"SELECT severity, title, count FROM alerts WHERE window_start > now() - 86400 ORDER BY last DESC LIMIT 20",
		"SELECT count() FROM alerts",
	} {
		cpu, best := ask(sql)
		t.Logf("%s: %v of CPU time, %v at best", sql, cpu, best)
		if cpu > 100*time.Millisecond {
			t.Errorf("%s takes %v of CPU time", sql, cpu)
		}
	}
	if n := count(t, store, "SELECT count() FROM million.alerts"); n != alerts {
		t.Errorf("%d alerts", n)
	}
}

// processTime returns the CPU time that a process has used.
func processTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc_pid_stat(5): the fields behind the name of the program are separated by blanks.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}
