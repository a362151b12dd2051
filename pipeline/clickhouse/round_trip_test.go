package clickhouse_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	quiet     = slog.New(slog.DiscardHandler)
	protocols = []string{"http", "native"}
)

// rows returns a block of the messages [from, to) of a partition, with two events each.
func rows(topic string, partition int32, from, to int64) *clickhouse.ColumnBlock {
	block := clickhouse.NewColumnBlock()
	for offset := from; offset < to; offset++ {
		for i := range uint32(2) {
			event := &pipeline.Event{
				Id: fmt.Appendf(nil, "%08d%08d", offset, i), Dataset: pipeline.Dataset_LOG, Ingested: ingested,
				Log: &pipeline.LogLine{Message: "m"},
			}
			batchID := pipeline.BatchID{Collector: [16]byte{1, 2, 15: 9}, Epoch: 5, Sequence: uint64(offset)}
			at := pipeline.Position{Partition: partition, Offset: offset, Index: i, BatchID: batchID}
			block.Append(event, at, topic)
		}
	}
	return block
}

// insert inserts a block and fails the test if the store rejects it.
func insert(t *testing.T, store *clickhouse.Store, block *clickhouse.ColumnBlock, token string) {
	t.Helper()
	if err := store.Insert(t.Context(), block, token); err != nil {
		t.Fatal(err)
	}
}

// TestInsertWithAKnownTokenStoresNothing: it stores nothing over another connection either. An equal block
// with another token is stored.
func TestInsertWithAKnownTokenStoresNothing(t *testing.T) {
	for _, protocol := range protocols {
		store := embeddedtest.Store(t, "token_"+protocol, protocol)
		block := rows("t", 0, 0, 10)
		insert(t, store, block, "t/0/0-10")
		insert(t, store, block, "t/0/0-10")
		again := embeddedtest.Store(t, "token_"+protocol, protocol)
		insert(t, again, rows("t", 0, 0, 10), "t/0/0-10")
		if n := count(t, store, "SELECT count() FROM token_"+protocol+".events"); n != 20 {
			t.Errorf("%s: %d rows, want 20", protocol, n)
		}
		insert(t, store, block, "t/0/0-10#2")
		if n := count(t, store, "SELECT count() FROM token_"+protocol+".events"); n != 40 {
			t.Errorf("%s: %d rows, want 40", protocol, n)
		}
	}
}

// TestBlockIsOnePart: a block of any size becomes one part, so that all of it is stored or nothing.
func TestBlockIsOnePart(t *testing.T) {
	store := embeddedtest.Store(t, "onepart", "http")
	block := clickhouse.NewColumnBlock()
	for i := range 100_000 {
		event := &pipeline.Event{
			Timestamp: int64(i) * 1e15, Ingested: ingested, Dataset: pipeline.Dataset(i % 9),
			Log: &pipeline.LogLine{Message: strings.Repeat("x", 300), Path: fmt.Sprint(i)},
		}
		block.Append(event, pipeline.Position{Offset: int64(i)}, "t")
	}
	insert(t, store, block, "a")
	parts := count(t, store, "SELECT countIf(level = 0) FROM system.parts WHERE database = 'onepart' AND table = 'events'")
	if parts != 1 {
		t.Errorf("%d parts", parts)
	}
	if n := count(t, store, "SELECT uniqExact(log.file.path) FROM onepart.events"); n != 100_000 {
		t.Errorf("%d paths: the keys of a dictionary that grew past 65,536 are wrong", n)
	}

	if block.Rows() != 100_000 || block.Bytes() < 30e6 {
		t.Errorf("%d rows, %d bytes", block.Rows(), block.Bytes())
	}
	block.Reset()
	if block.Rows() != 0 || block.Bytes() > 1000 {
		t.Errorf("after Reset %d rows, %d bytes", block.Rows(), block.Bytes())
	}
	insert(t, store, block, "empty") // an empty block is no error
}

// TestBlockKeepsNoStringOfItsEvents: the bytes behind the strings of an event may be overwritten after
// Append.
func TestBlockKeepsNoStringOfItsEvents(t *testing.T) {
	store := embeddedtest.Store(t, "unsafe", "http")
	block := clickhouse.NewColumnBlock()
	buffer := []byte("GETPUT")
	for i := range 3 {
		word := bytesAsString(buffer[i%2*3 : i%2*3+3])
		exchange := &pipeline.HTTPExchange{
			Method: word, UrlPath: word, XForwardedFor: []string{word}, Authorization: []string{word},
		}
		event := &pipeline.Event{Ingested: ingested, Dataset: pipeline.Dataset_HTTP, Http: exchange}
		block.Append(event, pipeline.Position{Offset: int64(i)}, word)
	}
	copy(buffer, "xxxxxx")
	exchange := &pipeline.HTTPExchange{Method: "GET"}
	event := &pipeline.Event{Ingested: ingested, Dataset: pipeline.Dataset_HTTP, Http: exchange}
	block.Append(event, pipeline.Position{Offset: 3}, "GET")
	insert(t, store, block, "a")

	want := "0\tGET\tGET\tGET\t['GET']\t['GET']\n" +
		"1\tPUT\tPUT\tPUT\t['PUT']\t['PUT']\n" +
		"2\tGET\tGET\tGET\t['GET']\t['GET']\n" +
		"3\tGET\tGET\t\t[]\t[]"
	got := query(t, store, "SELECT _offset, _topic, http.request.method, url.path, http.request.x_forwarded_for,"+
		" http.request.authorization FROM unsafe.events ORDER BY _offset")
	if got != want {
		t.Errorf("%s", got)
	}
}

// TestNumbersOutOfRangeAreClamped: a number is clamped to the range of its column, and the server accepts
// every time.
func TestNumbersOutOfRangeAreClamped(t *testing.T) {
	store := embeddedtest.Store(t, "hostile", "http")
	block := clickhouse.NewColumnBlock()
	for i, at := range []int64{math.MinInt64, -1, 0, math.MaxInt64} {
		block.Append(&pipeline.Event{
			Id: []byte{1}, CommunityId: []byte("far too long for twenty bytes"), Timestamp: at, Ingested: ingested,
			Vlan: math.MaxUint32, Duration: math.MaxUint64, Dataset: 99,
			Verdicts: []*pipeline.Verdict{{Score: math.MaxUint32, Severity: 77}},
			Source:   &pipeline.Endpoint{Ip: []byte("odd"), Port: 70000},
		}, pipeline.Position{Partition: math.MaxInt32, Offset: math.MaxInt64, Index: uint32(i)}, "t")
	}
	insert(t, store, block, "a")
	got := query(t, store, "SELECT DISTINCT network.vlan.id, event.duration, verdict.score, source.port, source.ip,"+
		" event.dataset, _partition, _offset FROM hostile.events")
	if want := "65535\t18446744073709551615\t[255]\t65535\t\t\t2147483647\t9223372036854775807"; got != want {
		t.Errorf("%s", got)
	}
}

// TestExistingRowsAreThoseOfTheBlock: ExistingRows returns the rows at the offsets of the block, and
// NewestRows returns the highest offset of one partition.
func TestExistingRowsAreThoseOfTheBlock(t *testing.T) {
	for _, protocol := range protocols {
		store := embeddedtest.Store(t, "existing_"+protocol, protocol)
		insert(t, store, rows("t", 0, 5, 8), "a")
		insert(t, store, rows("t", 1, 0, 100), "b")
		insert(t, store, rows("other", 0, 0, 100), "c")

		from := pipeline.TopicPartition{Topic: "t"}
		got, err := store.ExistingRows(t.Context(), pipeline.BlockID{TopicPartition: from, Start: 4, End: 7, Time: ingested})
		if err != nil {
			t.Fatal(err)
		}
		existing := map[pipeline.RowID]struct{}{
			{Offset: 5}: {}, {Offset: 5, Index: 1}: {}, {Offset: 6}: {}, {Offset: 6, Index: 1}: {},
		}
		if diff := cmp.Diff(existing, got); diff != "" {
			t.Error(diff)
		}

		for _, want := range []struct {
			topic     string
			partition int32
			offset    int64
			ok        bool
		}{{"t", 0, 7, true}, {"t", 1, 99, true}, {"t", 2, 0, false}, {"none", 0, 0, false}} {
			from := pipeline.TopicPartition{Topic: want.topic, Partition: want.partition}
			newest, ok, err := store.NewestRows(t.Context(), from, 1000)
			if newest.Highest != want.offset || ok != want.ok || err != nil {
				t.Errorf("%s/%d: %+v %v %v", want.topic, want.partition, newest, ok, err)
			}
		}
	}
}

// TestStoredBatchesAreCollectedByProducer: StoredBatches returns for each producer the highest stored
// sequence, and which of the 64 sequences up to it are stored.
func TestStoredBatchesAreCollectedByProducer(t *testing.T) {
	store := embeddedtest.Store(t, "batches", "http")
	block := clickhouse.NewColumnBlock()
	// add appends one row per sequence, at consecutive offsets.
	add := func(collector byte, epoch uint64, offset int64, sequences ...uint64) {
		for i, sequence := range sequences {
			batchID := pipeline.BatchID{Collector: [16]byte{0: collector, 15: 7}, Epoch: epoch, Sequence: sequence}
			at := pipeline.Position{Offset: offset + int64(i), BatchID: batchID}
			block.Append(&pipeline.Event{Ingested: ingested}, at, "t")
		}
	}
	add(1, 10, 0, 1, 2, 3, 3, 5)
	add(1, 11, 10, 500, 499, 437, 436, 1)
	add(2, math.MaxUint64, 20, math.MaxUint64, 7)
	add(3, 1, 1000, 1) // not before the offset of the filter
	insert(t, store, block, "a")

	from := pipeline.TopicPartition{Topic: "t"}
	filter := pipeline.BatchFilter{TopicPartition: from, Before: 1000, Since: time.Unix(0, ingested).Add(-time.Hour)}
	got, err := store.StoredBatches(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, stored := range got {
		producer := fmt.Sprintf("%d-%d/%d", stored.Collector[0], stored.Collector[15], stored.Epoch)
		found[producer] = fmt.Sprintf("%d %b", stored.Highest, stored.Seen)
	}
	want := map[string]string{
		"1-7/10":                   "5 11101",
		"1-7/11":                   fmt.Sprintf("500 %b", uint64(1|1<<1|1<<63)),
		"2-7/18446744073709551615": "18446744073709551615 1",
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}

	ofProducer := func(producer pipeline.Producer) ([]pipeline.StoredBatches, error) {
		filter := pipeline.BatchFilter{TopicPartition: from, Before: 1000, Producer: &producer}
		return store.StoredBatches(t.Context(), filter)
	}
	for _, stored := range got {
		if one, err := ofProducer(stored.Producer); len(one) != 1 || one[0] != stored || err != nil {
			t.Errorf("one producer: %+v %v, want %+v", one, err, stored)
		}
	}
	later := pipeline.Producer{Collector: [16]byte{0: 3, 15: 7}, Epoch: 1}
	if none, err := ofProducer(later); len(none) != 0 || err != nil {
		t.Errorf("a producer whose batches come later: %+v %v", none, err)
	}
	filter.Since = time.Unix(0, ingested).Add(time.Hour)
	if got, err := store.StoredBatches(t.Context(), filter); err != nil || len(got) != 0 {
		t.Errorf("since later: %v, %v", got, err)
	}
}

// filledAlert returns an alert in which each field has another value.
func filledAlert(t *testing.T) *pipeline.Alert {
	t.Helper()
	full := &pipeline.Alert{Tags: []string{"a", "b"}, Events: []string{"scan a", "attack b"}}
	value := reflect.ValueOf(full).Elem()
	for i := range value.NumField() {
		switch field := value.Field(i); field.Interface().(type) {
		case string:
			if value.Type().Field(i).Name == "Severity" {
				field.SetString("high") // the view knows severities only
				continue
			}
			field.SetString(fmt.Sprintf("%s'\\\n%d", value.Type().Field(i).Name, i))
		case uint64, uint32:
			field.SetUint(uint64(i + 1))
		case int32, int64:
			field.SetInt(int64(-i))
		case bool:
			field.SetBool(true)
		case time.Time:
			field.Set(reflect.ValueOf(time.Unix(1_700_000_000+int64(i), 123_456_789).UTC()))
		case []string:
		default:
			t.Fatalf("pipeline.Alert has a field of type %s: give it a column", field.Type())
		}
	}
	return full
}

// TestAlertFieldsAndColumnsAreOneToOne: each field of pipeline.Alert has exactly one column, which is named
// as in its JSON.
func TestAlertFieldsAndColumnsAreOneToOne(t *testing.T) {
	alert := &pipeline.Alert{}
	names, pointers := clickhouse.AlertFields(alert)
	column := map[any]string{} // the name of the column by the pointer to the field
	for i, pointer := range pointers {
		if column[pointer] != "" {
			t.Errorf("columns %s and %s hold the same field", column[pointer], names[i])
		}
		column[pointer] = names[i]
	}
	value := reflect.ValueOf(alert).Elem()
	for i := range value.NumField() {
		name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
		if got := column[value.Field(i).Addr().Interface()]; got != name {
			t.Errorf("field %s (%q in JSON) is kept in column %q", value.Type().Field(i).Name, name, got)
		}
	}
	if len(names) != value.NumField() {
		t.Errorf("%d columns for %d fields", len(names), value.NumField())
	}
}

// TestEveryAlertFieldComesBack: an alert that was inserted twice is read back once, with each field. The view
// alerts shows the newest revisions.
func TestEveryAlertFieldComesBack(t *testing.T) {
	for _, protocol := range protocols {
		store := embeddedtest.Store(t, "alerts_"+protocol, protocol)
		full := filledAlert(t)
		older, other := *full, pipeline.Alert{ID: "other", Revision: 1}
		older.Revision, older.Title = full.Revision-1, "older"
		for token, list := range map[string][]*pipeline.Alert{"1": {&older}, "2": {full, &other}} {
			for range 2 {
				if err := store.InsertAlerts(t.Context(), list, token); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := count(t, store, "SELECT count() FROM alerts_"+protocol+".alert_revisions"); n != 3 {
			t.Errorf("%d revisions, want 3", n)
		}

		now, err := store.AlertsInView(t.Context())
		if err != nil || len(now) != 2 {
			t.Fatal(now, err)
		}
		filter := pipeline.AlertFilter{
			TopicPartition: pipeline.TopicPartition{Topic: full.Topic, Partition: full.Partition}, Lookback: time.Hour,
		}
		before, err := store.NewestAlerts(t.Context(), filter)
		if err != nil || len(before) != 1 {
			t.Fatal(before, err)
		}
		for _, alert := range append(now, before...) {
			if alert.ID == full.ID {
				if diff := cmp.Diff(full, alert); diff != "" {
					t.Error(diff)
				}
			}
		}
		filter.Except = pipeline.BlockID{Time: full.Ingested.UnixNano()}
		if none, err := store.NewestAlerts(t.Context(), filter); err != nil || len(none) != 0 {
			t.Errorf("without its block: %v, %v", none, err)
		}

		got := query(t, store, "SELECT id, event_id, source, destination FROM alerts WHERE id != 'other'"+
			" FORMAT JSONCompactEachRow")
		want := mustJSON(t, full.ID, full.EventID, full.Source, full.Destination)
		if strings.ReplaceAll(got, ", ", ",") != want {
			t.Errorf("%s", got)
		}
	}
}

func mustJSON(t *testing.T, values ...any) string {
	t.Helper()
	data, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestMigrateAddsMissingColumnsAndKeepsRows: a second Migrate keeps the rows, adds the missing columns and
// indexes, and sets the configured TTL.
func TestMigrateAddsMissingColumnsAndKeepsRows(t *testing.T) {
	store := embeddedtest.Store(t, "migrate", "http")
	insert(t, store, rows("t", 0, 0, 3), "a")
	for _, change := range []string{
		"DROP INDEX domain", "DROP COLUMN `http.response.location`", "DROP COLUMN `network.community_id`", "DROP INDEX message",
	} {
		if err := store.Conn().Exec(t.Context(), "ALTER TABLE migrate.events "+change); err != nil {
			t.Fatal(err)
		}
	}

	cfg := store.Config()
	cfg.TTLDays = 7
	reg := prometheus.NewRegistry()
	for range 2 { // with one registry, as in a start that is repeated after an error
		var err error
		if store, err = clickhouse.Open(t.Context(), cfg, quiet, reg); err != nil {
			t.Fatal(err)
		}
		defer store.Close()
	}
	for range 2 {
		if err := store.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	block := clickhouse.NewColumnBlock()
	block.Append(filled(), pipeline.Position{Offset: 77}, "t")
	insert(t, store, block, "b")
	counts := query(t, store, "SELECT count(), countIf(http.response.location != ''),"+
		" countIf(network.community_id LIKE '1:%') FROM events")
	if counts != "7\t1\t1" {
		t.Errorf("%s", counts)
	}

	engine := query(t, store, "SELECT engine_full FROM system.tables WHERE database = 'migrate' AND name = 'events'")
	if !strings.Contains(engine, "toIntervalDay(7)") ||
		!strings.Contains(engine, "non_replicated_deduplication_window = 10000") {
		t.Errorf("%s", engine)
	}
	if got := query(t, store, "SELECT groupArray(version) FROM schema_versions"); got != "[1,2,3,4]" {
		t.Errorf("%s", got)
	}
	indexes := query(t, store, "SELECT count() FROM system.data_skipping_indices WHERE database = 'migrate'"+
		" AND table = 'events' AND name IN ('domain', 'message')")
	if indexes != "2" {
		t.Errorf("%s indexes", indexes)
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
	engine = query(t, store, "SELECT engine_full FROM system.tables WHERE database = 'migrate' AND name = 'events'")
	if strings.Contains(engine, "TTL") {
		t.Errorf("%s", engine)
	}
}

// TestIndexesAreUsed: each condition is answered with the index that exists for it.
func TestIndexesAreUsed(t *testing.T) {
	store := embeddedtest.Store(t, "indexes", "http")
	insert(t, store, rows("t", 0, 0, 3), "a")
	for where, index := range map[string]string{
		"_topic = 't' AND _partition = 0 AND _offset >= 5 AND _offset < 9": "position",
		"notEmpty(`verdict.rule`)":                                  "has_verdict",
		"event.id = toUUID('00000000-0000-0000-0000-000000000001')": "id",
		"source.ip = '1.2.3.4'":                                     "source_ip",
		"dns.question.name = 'x'":                                   "question",
		"hasToken(message, 'word')":                                 "message",
		"`@timestamp` > now() - INTERVAL 1 HOUR":                    "at",
	} {
		got := query(t, store, "EXPLAIN indexes = 1 SELECT count() FROM events WHERE "+where)
		if !strings.Contains(got, "Name: "+index+"\n") {
			t.Errorf("%s does not use %s:\n%s", where, index, got)
		}
	}
}

// TestStatementsForAClusterParse: the embedded server has no cluster and no SQL users, so it parses the
// statements and does not run them. The limits of the analyst are tested in pipeline/embedded.
func TestStatementsForAClusterParse(t *testing.T) {
	store := embeddedtest.Store(t, "parse", "http")
	cfg := clickhouse.Default()
	for _, cluster := range []string{"", "main"} {
		cfg.Cluster.Name, cfg.ReadUser = cluster, "analyst"
		statements := append(clickhouse.SchemaStatements(cfg), clickhouse.ReaderSQL(cfg, `pass'\word`)...)
		for _, statement := range statements {
			if err := store.Conn().Exec(t.Context(), "EXPLAIN AST "+statement); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
			if cluster != "" && !strings.Contains(statement, "ON CLUSTER `main`") {
				t.Errorf("not on the cluster: %s", statement)
			}
		}
	}
}

func TestErrorsNameTheAddress(t *testing.T) {
	pid := embeddedtest.Server(t).PID()
	for _, protocol := range protocols {
		cfg := embeddedtest.Server(t).Config()
		cfg.Protocol, cfg.PasswordFile, cfg.Password = protocol, "", "wrong"
		_, err := clickhouse.Open(t.Context(), cfg, quiet, nil)
		at := map[string]string{"http": cfg.HTTPAddr, "native": cfg.Addr[0]}[protocol]
		want := "ClickHouse at " + at + ` refuses user "tidegate": the password is wrong or there is no such user`
		if err == nil || err.Error() != want {
			t.Errorf("%s, wrong password: %v", protocol, err)
		}

		cfg.Addr, cfg.HTTPAddr = []string{"127.0.0.1:1"}, "127.0.0.1:1"
		_, err = clickhouse.Open(t.Context(), cfg, quiet, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "ClickHouse at 127.0.0.1:1 does not answer: ") ||
			strings.Contains(err.Error(), "\n") || errors.Is(err, pipeline.ErrRowsRejected) {
			t.Errorf("%s, no server: %v", protocol, err)
		}
	}

	if embeddedtest.Server(t).PID() != pid {
		t.Error("a wrong password has ended the server")
	}

	cfg := embeddedtest.Store(t, "errs", "http").Config()
	err := clickhouse.Query(t.Context(), cfg, "SELECT nonsense FROM events", "TSV", nil)
	if err == nil || !strings.Contains(err.Error(), "nonsense") || strings.Contains(err.Error(), "version 2") {
		t.Errorf("bad query: %v", err)
	}
}

// TestOnlyErrorsOfTheRowsAreRejections: a missing table is a temporary error, so that the engine does not
// bisect the block into dead letters.
func TestOnlyErrorsOfTheRowsAreRejections(t *testing.T) {
	store := embeddedtest.Store(t, "permanent", "http")
	block := rows("t", 0, 0, 1)
	constraint := "ALTER TABLE permanent.events ADD CONSTRAINT c CHECK message != 'm'"
	if err := store.Conn().Exec(t.Context(), constraint); err != nil {
		t.Fatal(err)
	}
	if err := store.Insert(t.Context(), block, "a"); !errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("a violated constraint: %v", err)
	}
	if err := store.Conn().Exec(t.Context(), "DROP TABLE permanent.events"); err != nil {
		t.Fatal(err)
	}
	if err := store.Insert(t.Context(), block, "a"); err == nil || errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("no table: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Insert(ctx, block, "a"); err == nil || errors.Is(err, pipeline.ErrRowsRejected) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestAddressIsStoredAsItsText: putIP writes the length of the text as one byte. The text of every address
// without a zone is short enough.
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
	bad := clickhouse.Config{
		Protocol: "grpc", Addr: []string{"x"}, Database: "a b", TTLDays: -1, Password: "a", PasswordFile: "b",
	}
	got := config.Join("clickhouse", bad.Check()).Error()
	for _, key := range []string{
		"clickhouse.protocol", "clickhouse.addr[0]", "clickhouse.database", "clickhouse.username", "clickhouse.ttl_days",
		"clickhouse.password_file",
	} {
		if !strings.Contains(got, key+":") {
			t.Errorf("%s is not among: %s", key, got)
		}
	}
}
