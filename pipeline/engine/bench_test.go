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

// nullStore is a fakeStore that stores no events. Its inserters form the columns of ClickHouse if columns is
// set.
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
	mixed := event(n)
	mixed.Timestamp = time.Now().UnixNano()
	mixed.Destination = &pipeline.Endpoint{
		Ip: []byte{10, 0, byte(n >> 8), byte(n)}, Port: 80, Bytes: 5120, ContainerIndex: 1,
	}
	mixed.Source.Bytes, mixed.Duration, mixed.Transport = 400, 1200000, pipeline.Transport_TCP
	mixed.CommunityId = make([]byte, 20)
	binary.BigEndian.PutUint64(mixed.CommunityId, uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(mixed.Id, uint64(n)*0x9e3779b97f4a7c15)
	switch n % 3 {
	case 0:
		mixed.Dataset, mixed.Log = pipeline.Dataset_HTTP, nil
		mixed.Http = &pipeline.HTTPExchange{
			Version: "1.1", Method: "GET", UrlPath: fmt.Sprintf("/api/v1/items/%d", n%977), UrlDomain: "shop.example",
			UserAgent: "curl/8.5.0", StatusCode: 200, ResponseMimeType: "application/json", ResponseBodyBytes: 5000,
		}
	case 1:
		mixed.Dataset, mixed.Log, mixed.Transport = pipeline.Dataset_DNS, nil, pipeline.Transport_UDP
		mixed.Dns = &pipeline.DNSMessage{
			Type: "answer", Id: uint32(n & 0xffff), OpCode: "QUERY", ResponseCode: "NOERROR", HeaderFlags: []string{"RD", "RA"},
			QuestionName: fmt.Sprintf("host%d.example.org", n%499), QuestionType: "A", QuestionClass: "IN",
			AnswersCount: 1, AnswersName: []string{"x"}, AnswersType: []string{"A"}, AnswersData: []string{"10.1.2.3"},
			AnswersTtl: []uint32{60},
		}
	default:
		const format = `10.0.0.%d - - "GET /index%d.html HTTP/1.1" 200 512 "-" "Mozilla/5.0"`
		mixed.Log.Message = fmt.Sprintf(format, n%250, n)
	}
	return mixed
}

// BenchmarkEngine processes 400,000 events of two partitions: fetch, decode, drop duplicates, evaluate
// without detectors, form columns, commit the intent, insert. It reports the events per second and the CPU
// time of this process (engine and broker) per event. The CPU time depends less on the load of the machine.
func BenchmarkEngine(b *testing.B) {
	const perBatch, batches, parts = 1000, 200, 2
	harness := newHarness(b, parts, kafka.AssignStatic)
	for partition := range parts {
		for range batches {
			batch := harness.batch(partition, 0)
			for range perBatch {
				batch.Events = append(batch.Events, mixedEvent(harness.events))
				harness.events++
			}
			harness.produce(partition, encode(b, batch))
		}
	}
	run := func(name string, store func(b *testing.B) Store) {
		b.Run(name, func(b *testing.B) {
			target := store(b)
			rounds, cpu := 0, cpuTime()
			b.ReportAllocs()
			for b.Loop() {
				rounds++
				group := fmt.Sprintf("%s-%d-%d", name, b.N, time.Now().UnixNano())
				engine, stop := harness.start(target, nil, func(c *Config, _ *Deps) { c.Group = group })
				for engine.Ledger().Rows < perBatch*batches*parts {
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

// freshStore stores the same events again in every round: it appends the time to the tokens, and reports no
// stored rows.
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

// cpuTime returns the CPU time that this process has used.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
