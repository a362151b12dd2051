package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// nullStore is a fakeStore that stores no events; with columns it forms the real columns of them.
type nullStore struct {
	*fakeStore
	columns bool
}

func (s nullStore) NewInserter() pipeline.EventInserter {
	if s.columns {
		return columnsOnly{clickhouse.NewColumnBlock()}
	}
	return DiscardStore{}.NewInserter()
}

// columnsOnly is an inserter that forms columns and drops them.
type columnsOnly struct{ *clickhouse.ColumnBlock }

func (columnsOnly) Insert(context.Context, string) error { return nil }

// mixedEvent returns the n-th of a sequence of HTTP exchanges, DNS messages and log lines.
func mixedEvent(n int) *pipeline.Event {
	e := event(n)
	e.Timestamp = time.Now().UnixNano()
	e.Destination = &pipeline.Endpoint{Ip: []byte{10, 0, byte(n >> 8), byte(n)}, Port: 80, Bytes: 5120, ContainerIndex: 1}
	e.Source.Bytes, e.Duration, e.Transport = 400, 1200000, pipeline.Transport_TCP
	e.CommunityId = make([]byte, 20)
	binary.BigEndian.PutUint64(e.CommunityId, uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(e.Id, uint64(n)*0x9e3779b97f4a7c15)
	switch n % 3 {
	case 0:
		e.Dataset, e.Log = pipeline.Dataset_HTTP, nil
		e.Http = &pipeline.HTTPExchange{Version: "1.1", Method: "GET", UrlPath: fmt.Sprintf("/api/v1/items/%d", n%977), UrlDomain: "shop.example", UserAgent: "curl/8.5.0", StatusCode: 200, ResponseMimeType: "application/json", ResponseBodyBytes: 5000}
	case 1:
		e.Dataset, e.Log, e.Transport = pipeline.Dataset_DNS, nil, pipeline.Transport_UDP
		e.Dns = &pipeline.DNSMessage{Id: uint32(n & 0xffff), OpCode: "QUERY", QuestionName: fmt.Sprintf("host%d.example.org", n%499), QuestionType: "A", QuestionClass: "IN", ResponseCode: "NOERROR", HeaderFlags: []string{"RD", "RA"}, AnswersCount: 1, AnswersName: []string{"x"}, AnswersType: []string{"A"}, AnswersData: []string{"10.1.2.3"}, AnswersTtl: []uint32{60}, Type: "answer"}
	default:
		e.Log.Message = fmt.Sprintf("10.0.0.%d - - \"GET /index%d.html HTTP/1.1\" 200 512 \"-\" \"Mozilla/5.0\"", n%250, n)
	}
	return e
}

// BenchmarkEngine carries 400,000 events through two partitions: fetch, decode, drop duplicates, evaluate by
// no detector, form columns, commit the intent, insert. It reports events/s and the CPU time of this process
// (engine and broker) for an event, which depends less on how busy the machine is.
func BenchmarkEngine(b *testing.B) {
	const perBatch, batches, parts = 1000, 200, 2
	r := newHarness(b, parts, kafka.AssignStatic)
	for p := range parts {
		for range batches {
			m := r.batch(p, 0)
			for range perBatch {
				m.Events = append(m.Events, mixedEvent(r.events))
				r.events++
			}
			r.produce(p, encode(b, m))
		}
	}
	run := func(name string, store func(b *testing.B) Store) {
		b.Run(name, func(b *testing.B) {
			s := store(b)
			rounds, cpu := 0, cpuTime()
			b.ReportAllocs()
			for b.Loop() {
				rounds++
				e, stop := r.start(s, nil, func(c *Config, _ *Deps) { c.Group = fmt.Sprintf("%s-%d-%d", name, b.N, time.Now().UnixNano()) })
				for e.Ledger().Rows < perBatch*batches*parts {
					time.Sleep(time.Millisecond)
				}
				stop()
			}
			b.ReportMetric(float64(rounds*perBatch*batches*parts)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(cpuTime()-cpu)/float64(rounds*perBatch*batches*parts), "cpu-ns/event")
		})
	}
	run("null", func(*testing.B) Store { return nullStore{newFakeStore(), false} })
	run("columns", func(*testing.B) Store { return nullStore{newFakeStore(), true} })
	run("libchdb", func(b *testing.B) Store { return freshStore{embeddedtest.Store(b, "bench", "http")} })
}

// freshStore lets every round store the same events again: it appends the time to the tokens and finds
// nothing stored.
type freshStore struct{ Store }

func (s freshStore) NewInserter() pipeline.EventInserter { return freshInserter{s.Store.NewInserter()} }

func (freshStore) HighestOffset(context.Context, pipeline.TopicPartition) (int64, bool, error) {
	return 0, false, nil
}

func (freshStore) StoredBatches(context.Context, pipeline.BatchFilter) ([]pipeline.StoredBatches, error) {
	return nil, nil
}

type freshInserter struct{ pipeline.EventInserter }

func (i freshInserter) Insert(ctx context.Context, token string) error {
	return i.EventInserter.Insert(ctx, fmt.Sprintf("%s@%d", token, time.Now().UnixNano()))
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
