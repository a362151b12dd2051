package clickhouse_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// traffic returns n events as a web shop in containers causes them: 40 % HTTP, 20 % DNS, 15 % sessions, 10 %
// MySQL, 10 % Redis, 5 % log lines.
func traffic(n int) []*pipeline.Event {
	r := rand.New(rand.NewPCG(1, 2))
	host := &pipeline.Host{Name: "host-1", Id: "00112233445566778899aabbccddeeff"}
	var containers []*pipeline.Container
	for i := range 20 {
		containers = append(containers, &pipeline.Container{
			Id: fmt.Sprintf("%064x", r.Uint64()), Name: fmt.Sprintf("web-%d", i), Image: "nginx:1.25", ImageId: "sha256:abc",
			Labels: []*pipeline.Label{{Key: "app", Value: "shop"}, {Key: "tier", Value: fmt.Sprint(i % 3)}},
		})
	}
	out := make([]*pipeline.Event, n)
	at := ingested - int64(time.Minute)
	for i := range out {
		at += int64(r.IntN(60_000))
		e := &pipeline.Event{
			Id: fmt.Appendf(nil, "%016x", r.Uint64()), Timestamp: at, Ingested: ingested, Duration: r.Uint64N(5e7), Outcome: pipeline.Outcome_SUCCESS,
			Transport: pipeline.Transport_TCP, CommunityId: fmt.Appendf(nil, "%020x", r.Uint64()), Host: host, Interfaces: []string{"docker0"},
			Source:      &pipeline.Endpoint{Ip: []byte{172, 17, 0, byte(r.IntN(50))}, Port: 32768 + r.Uint32N(28000), Bytes: r.Uint64N(2000), Container: containers[r.IntN(20)]},
			Destination: &pipeline.Endpoint{Ip: []byte{172, 17, 0, byte(r.IntN(50))}, Port: 80, Bytes: r.Uint64N(60000), Container: containers[r.IntN(20)]},
		}
		e.Container = e.Destination.Container
		body(e, r)
		out[i] = e
	}
	return out
}

func body(e *pipeline.Event, r *rand.Rand) {
	path := fmt.Sprintf("/shop/item/%d", r.IntN(5000))
	switch k := r.IntN(20); {
	case k < 8:
		e.Dataset = pipeline.Dataset_HTTP
		e.Http = &pipeline.HTTPExchange{
			Version: "1.1", Method: "GET", UrlOriginal: path + "?q=1", UrlPath: path, UrlQuery: "q=1", UrlDomain: "shop.local", UserAgent: "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/128.0",
			StatusCode: 200, StatusPhrase: "OK", ResponseMimeType: "text/html", ResponseBodyBytes: r.Uint64N(60000), Server: "nginx", RequestHeaderBytes: 400, ResponseHeaderBytes: 200,
		}
	case k < 12:
		e.Dataset = pipeline.Dataset_DNS
		name := fmt.Sprintf("svc-%d.shop.local", r.IntN(300))
		e.Dns = &pipeline.DNSMessage{
			Type: "answer", Id: r.Uint32N(65536), OpCode: "QUERY", QuestionName: name, QuestionType: "A", QuestionClass: "IN", ResponseCode: "NOERROR", HeaderFlags: []string{"RD", "RA"}, AnswersCount: 1,
			AnswersName: []string{name}, AnswersType: []string{"A"}, AnswersData: []string{"10.0.0.1"}, AnswersTtl: []uint32{60}, ResolvedIp: []string{"10.0.0.1"},
		}
	case k < 15:
		e.Dataset = pipeline.Dataset_SESSION
		e.Session = &pipeline.Session{History: "SHADadFf", State: "fin", RttClient: r.Uint64N(1e6), RttServer: r.Uint64N(1e6), ResponseTime: r.Uint64N(1e7), DirectionConfidence: 100, Protocol: "http"}
	case k < 17:
		e.Dataset = pipeline.Dataset_MYSQL
		e.Mysql = &pipeline.MySQLCommand{Command: "COM_QUERY", Query: fmt.Sprintf("SELECT * FROM items WHERE id = %d", r.IntN(5000)), Method: "SELECT", Database: "shop", Rows: r.Uint64N(20), Columns: 7}
	case k < 19:
		e.Dataset = pipeline.Dataset_REDIS
		key := fmt.Sprintf("cart:%d", r.IntN(5000))
		e.Redis = &pipeline.RedisCommand{Command: "GET", Key: key, Args: []string{key}, ArgsCount: 1, ArgsBytes: 9, ReplyType: "bulk_string", ReplyBytes: r.Uint64N(500)}
	default:
		e.Dataset = pipeline.Dataset_LOG
		e.Log = &pipeline.LogLine{Message: fmt.Sprintf("172.17.0.3 - - [24/Nov/2026:10:00:00 +0000] \"GET %s HTTP/1.1\" 200 %d", path, r.IntN(90000)), Stream: "stdout", Path: "/var/lib/docker/containers/x/x-json.log", Offset: r.Uint64N(1e9), Bytes: 90}
	}
}

// BenchmarkAppend measures what the engine pays to append a row.
func BenchmarkAppend(b *testing.B) {
	events := traffic(10000)
	block := clickhouse.NewColumnBlock()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		block.Append(events[n%len(events)], pipeline.Position{Offset: int64(n / 100), Index: uint32(n % 100)}, "tidegate.events")
		if n++; block.Rows() == 50000 {
			block.Reset()
		}
	}
}

// BenchmarkInsert measures a block of 50,000 rows from the events to the acknowledgement.
func BenchmarkInsert(b *testing.B) {
	events := traffic(50000)
	for _, protocol := range []string{"http", "native"} {
		b.Run(protocol, func(b *testing.B) {
			s := embeddedtest.Store(b, "bench_"+protocol, protocol)
			block := clickhouse.NewColumnBlock()
			i := 0
			for b.Loop() {
				block.Reset()
				for j, e := range events {
					block.Append(e, pipeline.Position{Offset: int64(i*500 + j/100), Index: uint32(j % 100)}, "tidegate.events")
				}
				if err := s.Insert(context.Background(), block, fmt.Sprint(b.N, "-", i)); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.ReportMetric(float64(len(events))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(block.Bytes())/float64(block.Rows()), "B/row")
			var disk, rows uint64
			_ = s.Conn().QueryRow(context.Background(), "SELECT sum(bytes_on_disk), sum(rows) FROM system.parts WHERE active AND table = 'events' AND database = ?", s.Config().Database).Scan(&disk, &rows)
			b.ReportMetric(float64(disk)/float64(rows), "disk-B/row")
		})
	}
}
