package clickhouse_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// traffic returns events like those of a web shop in containers: 40 % HTTP, 20 % DNS, 15 % sessions, 10 %
// MySQL, 10 % Redis, 5 % log lines.
func traffic(count int) []*pipeline.Event {
	rng := rand.New(rand.NewPCG(1, 2))
	host := &pipeline.Host{Name: "host-1", Id: "00112233445566778899aabbccddeeff"}
	var containers []*pipeline.Container
	for i := range 20 {
		containers = append(containers, &pipeline.Container{
			Id: fmt.Sprintf("%064x", rng.Uint64()), Name: fmt.Sprintf("web-%d", i), Image: "nginx:1.25", ImageId: "sha256:abc",
			Labels: []*pipeline.Label{{Key: "app", Value: "shop"}, {Key: "tier", Value: fmt.Sprint(i % 3)}},
		})
	}
	out := make([]*pipeline.Event, count)
	at := ingested - int64(time.Minute)
	for i := range out {
		at += int64(rng.IntN(60_000))
		event := &pipeline.Event{
			Id: fmt.Appendf(nil, "%016x", rng.Uint64()), Timestamp: at, Ingested: ingested,
			Duration: rng.Uint64N(5e7), Outcome: pipeline.Outcome_SUCCESS, Transport: pipeline.Transport_TCP,
			CommunityId: fmt.Appendf(nil, "%020x", rng.Uint64()), Host: host, Interfaces: []string{"docker0"},
			Source: &pipeline.Endpoint{
				Ip: []byte{172, 17, 0, byte(rng.IntN(50))}, Port: 32768 + rng.Uint32N(28000),
				Bytes: rng.Uint64N(2000), Container: containers[rng.IntN(20)],
			},
			Destination: &pipeline.Endpoint{
				Ip: []byte{172, 17, 0, byte(rng.IntN(50))}, Port: 80,
				Bytes: rng.Uint64N(60000), Container: containers[rng.IntN(20)],
			},
		}
		event.Container = event.Destination.Container
		body(event, rng)
		out[i] = event
	}
	return out
}

// body sets the dataset of an event and the body that belongs to it.
func body(event *pipeline.Event, rng *rand.Rand) {
	path := fmt.Sprintf("/shop/item/%d", rng.IntN(5000))
	switch kind := rng.IntN(20); {
	case kind < 8:
		event.Dataset = pipeline.Dataset_HTTP
		event.Http = &pipeline.HTTPExchange{
			Version: "1.1", Method: "GET",
			UrlOriginal: path + "?q=1", UrlPath: path, UrlQuery: "q=1", UrlDomain: "shop.local",
			UserAgent:  "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
			StatusCode: 200, StatusPhrase: "OK", ResponseMimeType: "text/html", ResponseBodyBytes: rng.Uint64N(60000),
			Server: "nginx", RequestHeaderBytes: 400, ResponseHeaderBytes: 200,
		}
	case kind < 12:
		event.Dataset = pipeline.Dataset_DNS
		name := fmt.Sprintf("svc-%d.shop.local", rng.IntN(300))
		event.Dns = &pipeline.DNSMessage{
			Type: "answer", Id: rng.Uint32N(65536), OpCode: "QUERY", ResponseCode: "NOERROR",
			QuestionName: name, QuestionType: "A", QuestionClass: "IN", HeaderFlags: []string{"RD", "RA"},
			AnswersCount: 1, AnswersName: []string{name}, AnswersType: []string{"A"},
			AnswersData: []string{"10.0.0.1"}, AnswersTtl: []uint32{60}, ResolvedIp: []string{"10.0.0.1"},
		}
	case kind < 15:
		event.Dataset = pipeline.Dataset_SESSION
		event.Session = &pipeline.Session{
			History: "SHADadFf", State: "fin", RttClient: rng.Uint64N(1e6), RttServer: rng.Uint64N(1e6),
			ResponseTime: rng.Uint64N(1e7), DirectionConfidence: 100, Protocol: "http",
		}
	case kind < 17:
		event.Dataset = pipeline.Dataset_MYSQL
		event.Mysql = &pipeline.MySQLCommand{
			Command: "COM_QUERY", Query: fmt.Sprintf("SELECT * FROM items WHERE id = %d", rng.IntN(5000)),
			Method: "SELECT", Database: "shop", Rows: rng.Uint64N(20), Columns: 7,
		}
	case kind < 19:
		event.Dataset = pipeline.Dataset_REDIS
		key := fmt.Sprintf("cart:%d", rng.IntN(5000))
		event.Redis = &pipeline.RedisCommand{
			Command: "GET", Key: key, Args: []string{key}, ArgsCount: 1, ArgsBytes: 9,
			ReplyType: "bulk_string", ReplyBytes: rng.Uint64N(500),
		}
	default:
		event.Dataset = pipeline.Dataset_LOG
		const format = `172.17.0.3 - - [24/Nov/2026:10:00:00 +0000] "GET %s HTTP/1.1" 200 %d`
		event.Log = &pipeline.LogLine{
			Message: fmt.Sprintf(format, path, rng.IntN(90000)), Stream: "stdout",
			Path: "/var/lib/docker/containers/x/x-json.log", Offset: rng.Uint64N(1e9), Bytes: 90,
		}
	}
}

// BenchmarkAppend measures the time to append a row.
func BenchmarkAppend(b *testing.B) {
	events := traffic(10000)
	block := clickhouse.NewColumnBlock()
	b.ReportAllocs()
	row := 0
	for b.Loop() {
		at := pipeline.Position{Offset: int64(row / 100), Index: uint32(row % 100)}
		block.Append(events[row%len(events)], at, "tidegate.events")
		if row++; block.Rows() == 50000 {
			block.Reset()
		}
	}
}

// BenchmarkInsert measures a block of 50,000 rows from the events to the acknowledgement: over both protocols, without
// the projection, and without what else the table computes for an insert. plain is the typed columns of clickhouse-go
// over the native protocol, from values that are ready.
func BenchmarkInsert(b *testing.B) {
	events := traffic(50000)
	for _, kind := range []struct{ name, protocol, change string }{
		{"http", "http", ""},
		{"native", "native", ""},
		{"no_projection", "http", "DROP PROJECTION IF EXISTS messages"},
		{"no_index", "http", "DROP PROJECTION IF EXISTS messages, " + dropIndexes()},
		{"plain", "native", ""},
	} {
		b.Run(kind.name, func(b *testing.B) {
			store := embeddedtest.Store(b, "bench_"+kind.name, kind.protocol)
			execute(b, store, "SYSTEM STOP MERGES "+store.Config().Database+".events")
			if kind.change != "" {
				execute(b, store, "ALTER TABLE "+store.Config().Database+".events "+kind.change)
			}
			insert := blockInserter(b, store, events)
			if kind.name == "plain" {
				insert = driverInserter(b, store, events)
			}
			insert(-1) // the first insert opens a connection
			server := embeddedtest.Server(b).PID()
			ours, theirs := processTime(b, os.Getpid()), processTime(b, server)
			round := 0
			for b.Loop() {
				insert(round)
				round++
			}
			rows := float64(len(events) * round)
			b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64((processTime(b, os.Getpid())-ours).Nanoseconds())/rows, "client-ns/row")
			b.ReportMetric(float64((processTime(b, server)-theirs).Nanoseconds())/rows, "server-ns/row")
			var disk, stored uint64
			_ = store.Conn().QueryRow(context.Background(), "SELECT sum(bytes_on_disk), sum(rows) FROM system.parts"+
				" WHERE active AND table = 'events' AND database = ?", store.Config().Database).Scan(&disk, &stored)
			b.ReportMetric(float64(disk)/float64(stored), "disk-B/row")
		})
	}
}

// blockInserter returns a function that inserts the events as a block, in messages of 100.
func blockInserter(b *testing.B, store *clickhouse.Store, events []*pipeline.Event) func(round int) {
	block := clickhouse.NewColumnBlock()
	return func(round int) {
		block.Reset()
		for i, event := range events {
			at := pipeline.Position{Offset: int64(round*len(events)/100 + i/100), Index: uint32(i % 100)}
			block.Append(event, at, "tidegate.events")
		}
		if err := store.Insert(context.Background(), block, fmt.Sprint(b.N, "-", round)); err != nil {
			b.Fatal(err)
		}
	}
}

// driverInserter returns a function that inserts the fields of the events, without their positions, by the driver's
// own columns.
func driverInserter(b *testing.B, store *clickhouse.Store, events []*pipeline.Event) func(round int) {
	names := make([]string, len(pipeline.Fields))
	for i := range pipeline.Fields {
		names[i] = "`" + pipeline.Fields[i].Column.Name + "`"
	}
	sql := "INSERT INTO " + store.Config().Database + ".events (" + strings.Join(names, ", ") + ")"
	batch, err := store.Conn().PrepareBatch(context.Background(), sql)
	if err != nil {
		b.Fatal(err)
	}
	// An event in twenty is converted: values of all would take gigabytes.
	rows := make([][]any, len(events)/20)
	for i := range rows {
		for f := range pipeline.Fields {
			value := reflect.ValueOf(driverValue(&pipeline.Fields[f], events[i]))
			rows[i] = append(rows[i], convertValue(value, batch.Columns()[f].ScanType()).Interface())
		}
	}
	_ = batch.Abort()
	return func(int) {
		batch, err := store.Conn().PrepareBatch(context.Background(), sql)
		if err != nil {
			b.Fatal(err)
		}
		for i := range events {
			if err := batch.Append(rows[i%len(rows)]...); err != nil {
				b.Fatal(err)
			}
		}
		if err := batch.Send(); err != nil {
			b.Fatal(err)
		}
	}
}

// convertValue converts a number, or each of a list of numbers, to the type of the driver.
func convertValue(value reflect.Value, to reflect.Type) reflect.Value {
	if value.Kind() != reflect.Slice {
		return value.Convert(to)
	}
	list := reflect.MakeSlice(to, 0, value.Len())
	for i := range value.Len() {
		list = reflect.Append(list, value.Index(i).Convert(to.Elem()))
	}
	return list
}

// driverValue returns the value of a field in a form that the driver takes.
func driverValue(field *pipeline.Field, event *pipeline.Event) any {
	switch {
	case field.Time != nil:
		return time.Unix(0, field.Time(event))
	case field.Raw != nil && field.Column.Type == "UUID":
		var id uuid.UUID
		copy(id[:], field.Raw(event))
		return id
	case field.Raw != nil:
		return string(field.Raw(event))
	}
	return fieldValue(field, event)
}

func dropIndexes() string {
	var drops []string
	for _, name := range clickhouse.EventIndexNames() {
		drops = append(drops, "DROP INDEX IF EXISTS "+name)
	}
	return strings.Join(drops, ", ")
}

func execute(tb testing.TB, store *clickhouse.Store, sql string) {
	tb.Helper()
	if err := store.Conn().Exec(context.Background(), sql); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkRunningInserts measures the query with which the start of a partition looks for inserts of earlier owners.
func BenchmarkRunningInserts(b *testing.B) {
	store := embeddedtest.Store(b, "bench_running", "http")
	from := pipeline.TopicPartition{Topic: "tidegate.events"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.RunningInserts(b.Context(), from); err != nil {
			b.Fatal(err)
		}
	}
}
