package clickhouse_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/config"
	"tidegate/pipeline/embedded/embeddedtest"
)

var (
	quiet    = slog.New(slog.DiscardHandler)
	protocol = []string{"http", "native"}
)

// rows returns a block of the messages [from, to) of a partition, with two events each.
func rows(s *clickhouse.Store, topic string, partition int32, from, to int64) *clickhouse.ColumnBlock {
	b := clickhouse.NewColumnBlock()
	for o := from; o < to; o++ {
		for i := range uint32(2) {
			b.Append(&pipeline.Event{Id: fmt.Appendf(nil, "%08d%08d", o, i), Dataset: pipeline.Dataset_LOG, Ingested: ingested, Log: &pipeline.LogLine{Message: "m"}},
				pipeline.Position{Partition: partition, Offset: o, Index: i, BatchID: pipeline.BatchID{Collector: [16]byte{1, 2, 15: 9}, Epoch: 5, Sequence: uint64(o)}}, topic)
		}
	}
	return b
}

func insert(t *testing.T, s *clickhouse.Store, b *clickhouse.ColumnBlock, token string) {
	t.Helper()
	if err := s.Insert(t.Context(), b, token); err != nil {
		t.Fatal(err)
	}
}

// TestSameTokenTwiceIsOnce: an insert under a known token stores nothing, also over another connection. An
// equal block under another token is stored.
func TestSameTokenTwiceIsOnce(t *testing.T) {
	for _, p := range protocol {
		s := embeddedtest.Store(t, "token_"+p, p)
		b := rows(s, "t", 0, 0, 10)
		insert(t, s, b, "t/0/0-10")
		insert(t, s, b, "t/0/0-10")
		again := embeddedtest.Store(t, "token_"+p, p)
		insert(t, again, rows(s, "t", 0, 0, 10), "t/0/0-10")
		if n := count(t, s, "count()) FROM token_"+p+".events"); n != 20 {
			t.Errorf("%s: %d rows, want 20", p, n)
		}
		insert(t, s, b, "t/0/0-10#2")
		if n := count(t, s, "count()) FROM token_"+p+".events"); n != 40 {
			t.Errorf("%s: %d rows, want 40", p, n)
		}
	}
}

// TestBlockIsOnePart: a block of any size is stored in one part, so that it is stored as a whole or not at
// all.
func TestBlockIsOnePart(t *testing.T) {
	s := embeddedtest.Store(t, "onepart", "http")
	b := clickhouse.NewColumnBlock()
	for i := range 100_000 {
		b.Append(&pipeline.Event{Timestamp: int64(i) * 1e15, Ingested: ingested, Dataset: pipeline.Dataset(i % 9), Log: &pipeline.LogLine{Message: strings.Repeat("x", 300), Path: fmt.Sprint(i)}},
			pipeline.Position{Offset: int64(i)}, "t")
	}
	insert(t, s, b, "a")
	if n := count(t, s, "countIf(level = 0)) FROM system.parts WHERE database = 'onepart' AND table = 'events'"); n != 1 {
		t.Errorf("%d parts", n)
	}
	if n := count(t, s, "uniqExact(log.file.path)) FROM onepart.events"); n != 100_000 {
		t.Errorf("%d paths: the keys of a dictionary that grew past 65,536 are wrong", n)
	}
	if b.Rows() != 100_000 || b.Bytes() < 30e6 {
		t.Errorf("%d rows, %d bytes", b.Rows(), b.Bytes())
	}
	b.Reset()
	if b.Rows() != 0 || b.Bytes() > 1000 {
		t.Errorf("after Reset %d rows, %d bytes", b.Rows(), b.Bytes())
	}
	insert(t, s, b, "empty") // nothing, and no error
}

// TestBlockKeepsNoStringOfItsEvents: the buffer of a record may be overwritten after Append.
func TestBlockKeepsNoStringOfItsEvents(t *testing.T) {
	s := embeddedtest.Store(t, "unsafe", "http")
	b := clickhouse.NewColumnBlock()
	buffer := []byte("GETPUT")
	for i := range 3 {
		word := bytesAsString(buffer[i%2*3 : i%2*3+3])
		b.Append(&pipeline.Event{Ingested: ingested, Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{Method: word, UrlPath: word, XForwardedFor: []string{word}, Authorization: []string{word}}}, pipeline.Position{Offset: int64(i)}, word)
	}
	copy(buffer, "xxxxxx")
	b.Append(&pipeline.Event{Ingested: ingested, Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{Method: "GET"}}, pipeline.Position{Offset: 3}, "GET")
	insert(t, s, b, "a")
	want := "0\tGET\tGET\tGET\t['GET']\t['GET']\n1\tPUT\tPUT\tPUT\t['PUT']\t['PUT']\n2\tGET\tGET\tGET\t['GET']\t['GET']\n3\tGET\tGET\t\t[]\t[]"
	if got := query(t, s, "SELECT _offset, _topic, http.request.method, url.path, http.request.x_forwarded_for, http.request.authorization FROM unsafe.events ORDER BY _offset"); got != want {
		t.Errorf("%s", got)
	}
}

// TestNumbersOutOfRangeAreClamped to the range of their column, and no time makes the server reject the
// block.
func TestNumbersOutOfRangeAreClamped(t *testing.T) {
	s := embeddedtest.Store(t, "hostile", "http")
	b := clickhouse.NewColumnBlock()
	for i, at := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
		b.Append(&pipeline.Event{
			Id: []byte{1}, CommunityId: []byte("far too long for twenty bytes"), Timestamp: at, Ingested: ingested, Vlan: math.MaxUint32, Duration: math.MaxUint64, Dataset: 99,
			Verdicts: []*pipeline.Verdict{{Score: math.MaxUint32, Severity: 77}}, Source: &pipeline.Endpoint{Ip: []byte("odd"), Port: 70000},
		}, pipeline.Position{Partition: math.MaxInt32, Offset: math.MaxInt64, Index: uint32(i)}, "t")
	}
	insert(t, s, b, "a")
	got := query(t, s, "SELECT DISTINCT network.vlan.id, event.duration, verdict.score, source.port, source.ip, event.dataset, _partition, _offset FROM hostile.events")
	if want := "65535\t18446744073709551615\t[255]\t65535\t\t\t2147483647\t9223372036854775807"; got != want {
		t.Errorf("%s", got)
	}
}

// TestExistingRowsAreFoundByBlock: ExistingRows returns the rows of the asked offsets only, HighestOffset
// that of the asked partition.
func TestExistingRowsAreFoundByBlock(t *testing.T) {
	for _, p := range protocol {
		s := embeddedtest.Store(t, "held_"+p, p)
		insert(t, s, rows(s, "t", 0, 5, 8), "a")
		insert(t, s, rows(s, "t", 1, 0, 100), "b")
		insert(t, s, rows(s, "other", 0, 0, 100), "c")
		got, err := s.ExistingRows(t.Context(), pipeline.BlockID{TopicPartition: pipeline.TopicPartition{Topic: "t"}, Start: 4, End: 7, Time: ingested})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(map[pipeline.RowID]struct{}{{Offset: 5}: {}, {Offset: 5, Index: 1}: {}, {Offset: 6}: {}, {Offset: 6, Index: 1}: {}}, got); d != "" {
			t.Error(d)
		}
		for _, c := range []struct {
			topic     string
			partition int32
			offset    int64
			ok        bool
		}{{"t", 0, 7, true}, {"t", 1, 99, true}, {"t", 2, 0, false}, {"none", 0, 0, false}} {
			if offset, ok, err := s.HighestOffset(t.Context(), pipeline.TopicPartition{Topic: c.topic, Partition: c.partition}); offset != c.offset || ok != c.ok || err != nil {
				t.Errorf("%s/%d: %d %v %v", c.topic, c.partition, offset, ok, err)
			}
		}
	}
}

// TestStoredBatchesAreFoundByProducer: the highest sequence, and which of the 64 up to it are stored.
func TestStoredBatchesAreFoundByProducer(t *testing.T) {
	s := embeddedtest.Store(t, "batches", "http")
	b := clickhouse.NewColumnBlock()
	add := func(collector byte, epoch uint64, offset int64, sequences ...uint64) {
		for i, q := range sequences {
			b.Append(&pipeline.Event{Ingested: ingested}, pipeline.Position{Offset: offset + int64(i), BatchID: pipeline.BatchID{Collector: [16]byte{0: collector, 15: 7}, Epoch: epoch, Sequence: q}}, "t")
		}
	}
	add(1, 10, 0, 1, 2, 3, 3, 5)
	add(1, 11, 10, 500, 499, 437, 436, 1)
	add(2, math.MaxUint64, 20, math.MaxUint64, 7)
	add(3, 1, 1000, 1) // not before the offset of the filter
	insert(t, s, b, "a")
	filter := pipeline.BatchFilter{TopicPartition: pipeline.TopicPartition{Topic: "t"}, Before: 1000, Since: time.Unix(0, ingested).Add(-time.Hour)}
	got, err := s.StoredBatches(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, st := range got {
		found[fmt.Sprintf("%d-%d/%d", st.Collector[0], st.Collector[15], st.Epoch)] = fmt.Sprintf("%d %b", st.Highest, st.Seen)
	}
	want := map[string]string{
		"1-7/10":                   "5 11101",
		"1-7/11":                   fmt.Sprintf("500 %b", uint64(1|1<<1|1<<63)),
		"2-7/18446744073709551615": "18446744073709551615 1",
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
	for _, st := range got {
		one, err := s.StoredBatches(t.Context(), pipeline.BatchFilter{TopicPartition: filter.TopicPartition, Before: 1000, Producer: &st.Producer})
		if len(one) != 1 || one[0] != st || err != nil {
			t.Errorf("of one producer: %+v %v, want %+v", one, err, st)
		}
	}
	later := pipeline.Producer{Collector: [16]byte{0: 3, 15: 7}, Epoch: 1}
	if none, err := s.StoredBatches(t.Context(), pipeline.BatchFilter{TopicPartition: filter.TopicPartition, Before: 1000, Producer: &later}); len(none) != 0 || err != nil {
		t.Errorf("of a producer whose batches come later: %+v %v", none, err)
	}
	filter.Since = time.Unix(0, ingested).Add(time.Hour)
	if got, err := s.StoredBatches(t.Context(), filter); err != nil || len(got) != 0 {
		t.Errorf("since later: %v, %v", got, err)
	}
}

// filledAlert returns an alert in which each field has another value.
func filledAlert(t *testing.T) *pipeline.Alert {
	t.Helper()
	full := &pipeline.Alert{Tags: []string{"a", "b"}}
	v := reflect.ValueOf(full).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Interface().(type) {
		case string:
			f.SetString(fmt.Sprintf("%s'\\\n%d", v.Type().Field(i).Name, i))
		case uint64, uint32:
			f.SetUint(uint64(i + 1))
		case int32, int64:
			f.SetInt(int64(-i))
		case bool:
			f.SetBool(true)
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(i), 123_456_789).UTC()))
		case []string:
		default:
			t.Fatalf("pipeline.Alert has a field of type %s: give it a column", f.Type())
		}
	}
	return full
}

// TestAlertFieldsAndColumnsAreOneToOne: each field of pipeline.Alert has exactly one column, which is named
// as in its JSON.
func TestAlertFieldsAndColumnsAreOneToOne(t *testing.T) {
	alert := &pipeline.Alert{}
	names, pointers := clickhouse.AlertFields(alert)
	column := map[any]string{}
	for i, p := range pointers {
		if column[p] != "" {
			t.Errorf("columns %s and %s hold the same field", column[p], names[i])
		}
		column[p] = names[i]
	}
	v := reflect.ValueOf(alert).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if got := column[v.Field(i).Addr().Interface()]; got != name {
			t.Errorf("field %s (%q in JSON) is kept in column %q", v.Type().Field(i).Name, name, got)
		}
	}
	if len(names) != v.NumField() {
		t.Errorf("%d columns for %d fields", len(names), v.NumField())
	}
}

// TestEveryAlertFieldComesBack through the insert and the query, also after a repeat; the view alerts_now
// shows the newest revisions.
func TestEveryAlertFieldComesBack(t *testing.T) {
	for _, p := range protocol {
		s := embeddedtest.Store(t, "alerts_"+p, p)
		full := filledAlert(t)
		older, other := *full, pipeline.Alert{ID: "other", Revision: 1}
		older.Revision, older.Title = full.Revision-1, "older"
		for token, list := range map[string][]*pipeline.Alert{"1": {&older}, "2": {full, &other}} {
			for range 2 {
				if err := s.InsertAlerts(t.Context(), list, token); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := count(t, s, "count()) FROM alerts_"+p+".alerts"); n != 3 {
			t.Errorf("%d revisions, want 3", n)
		}
		now, err := s.AlertsNow(t.Context())
		if err != nil || len(now) != 2 {
			t.Fatal(now, err)
		}
		before, err := s.AlertsBefore(t.Context(), full.Partition, full.Offset+1, time.Hour)
		if err != nil || len(before) != 1 {
			t.Fatal(before, err)
		}
		for _, a := range append(now, before...) {
			if a.ID == full.ID {
				if d := cmp.Diff(full, a); d != "" {
					t.Error(d)
				}
			}
		}
		if none, err := s.AlertsBefore(t.Context(), full.Partition, full.Offset, time.Hour); err != nil || len(none) != 0 {
			t.Errorf("before its offset: %v, %v", none, err)
		}
		if got := query(t, s, "SELECT id, event_id, source, destination FROM alerts_now WHERE id != 'other' FORMAT JSONCompactEachRow"); strings.ReplaceAll(got, ", ", ",") != mustJSON(t, full.ID, full.EventID, full.Source, full.Destination) {
			t.Errorf("%s", got)
		}
	}
}

func mustJSON(t *testing.T, values ...any) string {
	t.Helper()
	b, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestMigrateTwiceAndForward: a second Migrate loses nothing, adds what is missing and sets the configured
// TTL.
func TestMigrateTwiceAndForward(t *testing.T) {
	s := embeddedtest.Store(t, "migrate", "http")
	insert(t, s, rows(s, "t", 0, 0, 3), "a")
	for _, q := range []string{"DROP INDEX domain", "DROP COLUMN `http.response.location`", "DROP COLUMN `network.community_id`", "DROP INDEX message"} {
		if err := s.Conn().Exec(t.Context(), "ALTER TABLE migrate.events "+q); err != nil {
			t.Fatal(err)
		}
	}
	cfg := s.Config()
	cfg.TTLDays = 7
	reg := prometheus.NewRegistry()
	for range 2 { // with one registry, as a start that is tried again does
		var err error
		if s, err = clickhouse.Open(t.Context(), cfg, quiet, reg); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	for range 2 {
		if err := s.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b := clickhouse.NewColumnBlock()
	b.Append(filled(), pipeline.Position{Offset: 77}, "t")
	insert(t, s, b, "b")
	if got := query(t, s, "SELECT count(), countIf(http.response.location != ''), countIf(network.community_id LIKE '1:%') FROM events"); got != "7\t1\t1" {
		t.Errorf("%s", got)
	}
	engine := query(t, s, "SELECT engine_full FROM system.tables WHERE database = 'migrate' AND name = 'events'")
	if !strings.Contains(engine, "toIntervalDay(7)") || !strings.Contains(engine, "non_replicated_deduplication_window = 10000") {
		t.Errorf("%s", engine)
	}
	if got := query(t, s, "SELECT groupArray(version) FROM schema_versions"); got != "[1]" {
		t.Errorf("%s", got)
	}
	if got := query(t, s, "SELECT count() FROM system.data_skipping_indices WHERE database = 'migrate' AND table = 'events' AND name IN ('domain', 'message')"); got != "2" {
		t.Errorf("%s indexes", got)
	}
	cfg.TTLDays = 0
	forever, err := clickhouse.Open(t.Context(), cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer forever.Close()
	if err := forever.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if engine := query(t, s, "SELECT engine_full FROM system.tables WHERE database = 'migrate' AND name = 'events'"); strings.Contains(engine, "TTL") {
		t.Errorf("%s", engine)
	}
}

// TestIndexesAreUsed by the queries for which they exist.
func TestIndexesAreUsed(t *testing.T) {
	s := embeddedtest.Store(t, "indexes", "http")
	insert(t, s, rows(s, "t", 0, 0, 3), "a")
	for where, index := range map[string]string{
		"_topic = 't' AND _partition = 0 AND _offset >= 5 AND _offset < 9": "position",
		"notEmpty(`verdict.rule`)":                                  "has_verdict",
		"event.id = toUUID('00000000-0000-0000-0000-000000000001')": "id",
		"source.ip = '1.2.3.4'":                                     "source_ip",
		"dns.question.name = 'x'":                                   "question",
		"hasToken(message, 'word')":                                 "message",
		"`@timestamp` > now() - INTERVAL 1 HOUR":                    "at",
	} {
		if got := query(t, s, "EXPLAIN indexes = 1 SELECT count() FROM events WHERE "+where); !strings.Contains(got, "Name: "+index+"\n") {
			t.Errorf("%s does not use %s:\n%s", where, index, got)
		}
	}
}

// TestStatementsForAClusterParse: the embedded server has no cluster and keeps no users of its own, so it
// only parses the statements. Its own analyst, with the same limits, is configured and tested in
// pipeline/embedded.
func TestStatementsForAClusterParse(t *testing.T) {
	s := embeddedtest.Store(t, "parse", "http")
	cfg := clickhouse.Default()
	for _, cluster := range []string{"", "main"} {
		cfg.Cluster.Name, cfg.ReadUser = cluster, "analyst"
		for _, q := range append(clickhouse.SchemaStatements(cfg), clickhouse.ReaderSQL(cfg, `pass'\word`)...) {
			if err := s.Conn().Exec(t.Context(), "EXPLAIN AST "+q); err != nil {
				t.Errorf("%s: %v", q, err)
			}
			if cluster != "" && !strings.Contains(q, "ON CLUSTER `main`") {
				t.Errorf("not on the cluster: %s", q)
			}
		}
	}
}

func TestErrorsNameTheAddress(t *testing.T) {
	pid := embeddedtest.Server(t).PID()
	for _, p := range protocol {
		cfg := embeddedtest.Server(t).Config()
		cfg.Protocol, cfg.PasswordFile, cfg.Password = p, "", "wrong"
		_, err := clickhouse.Open(t.Context(), cfg, quiet, nil)
		at := map[string]string{"http": cfg.HTTPAddr, "native": cfg.Addr[0]}[p]
		if want := "ClickHouse at " + at + ` refuses user "tidegate": the password is wrong or there is no such user`; err == nil || err.Error() != want {
			t.Errorf("%s, wrong password: %v", p, err)
		}
		cfg.Addr, cfg.HTTPAddr = []string{"127.0.0.1:1"}, "127.0.0.1:1"
		_, err = clickhouse.Open(t.Context(), cfg, quiet, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "ClickHouse at 127.0.0.1:1 does not answer: ") || strings.Contains(err.Error(), "\n") || errors.Is(err, pipeline.ErrRowsRejected) {
			t.Errorf("%s, away: %v", p, err)
		}
	}
	// The embedded server aborts at a wrong password over the native protocol and is restarted.
	for server := embeddedtest.Server(t); server.PID() == pid || server.PID() == 0; {
		time.Sleep(20 * time.Millisecond)
	}
	cfg := embeddedtest.Server(t).Config()
	cfg.Database = "system"
	for clickhouse.Query(t.Context(), cfg, "SELECT 1", "TSV", io.Discard) != nil {
		time.Sleep(20 * time.Millisecond)
	}
	err := clickhouse.Query(t.Context(), embeddedtest.Store(t, "errs", "http").Config(), "SELECT nonsense FROM events", "TSV", nil)
	if err == nil || !strings.Contains(err.Error(), "nonsense") || strings.Contains(err.Error(), "version 2") {
		t.Errorf("bad query: %v", err)
	}
}

// TestOnlyErrorsOfTheRowsAreRejections: a block must not be bisected into dead letters because the table is
// missing.
func TestOnlyErrorsOfTheRowsAreRejections(t *testing.T) {
	s := embeddedtest.Store(t, "permanent", "http")
	b := rows(s, "t", 0, 0, 1)
	if err := s.Conn().Exec(t.Context(), "ALTER TABLE permanent.events ADD CONSTRAINT c CHECK message != 'm'"); err != nil {
		t.Fatal(err)
	}
	if err := s.Insert(t.Context(), b, "a"); !errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("a violated constraint: %v", err)
	}
	if err := s.Conn().Exec(t.Context(), "DROP TABLE permanent.events"); err != nil {
		t.Fatal(err)
	}
	if err := s.Insert(t.Context(), b, "a"); err == nil || errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("no table: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Insert(ctx, b, "a"); err == nil || errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAddressIsStoredAsItsText: putIP writes the length of the text as one byte, which holds for every
// address without a zone.
func TestAddressIsStoredAsItsText(t *testing.T) {
	for _, text := range []string{
		"0.0.0.0", "255.255.255.255", "::", "2001:db8::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:255.255.255.255",
	} {
		addr := netip.MustParseAddr(text)
		if got, want := clickhouse.PutIP(addr), clickhouse.PutString(addr.Unmap().String()); !bytes.Equal(got, want) {
			t.Errorf("%s is stored as %q, want %q", text, got, want)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	if errs := clickhouse.Default().Check(); len(errs) > 0 {
		t.Error(errs)
	}
	bad := clickhouse.Config{Protocol: "grpc", Addr: []string{"x"}, Database: "a b", TTLDays: -1, Password: "a", PasswordFile: "b"}
	got := config.Join("clickhouse", bad.Check()).Error()
	for _, key := range []string{"clickhouse.protocol", "clickhouse.addr[0]", "clickhouse.database", "clickhouse.username", "clickhouse.ttl_days", "clickhouse.password_file"} {
		if !strings.Contains(got, key+":") {
			t.Errorf("%s is not among: %s", key, got)
		}
	}
}
