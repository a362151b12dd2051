package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline/kafka"
)

// TestRequestsOfAnEndedPartitionAreErrors: what Kafka has not answered is not known.
func TestRequestsOfAnEndedPartitionAreErrors(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	loop := func() *fetchLoop {
		l := &fetchLoop{Fetcher: &Fetcher{budget: 1, freed: make(chan struct{}, 1)}, partition: partition, chunks: make(chan Chunk), next: 1}
		l.pendingBytes = 1
		return l
	}
	for name, call := range map[string]func() error{
		"committed": func() error { _, _, err := partition.Committed(ended); return err },
		"commit":    func() error { return partition.Commit(ended, 1, "") },
		"bounds":    func() error { _, _, err := partition.Bounds(ended); return err },
		"offset at": func() error { _, err := partition.OffsetAt(ended, time.Now()); return err },
		"record":    func() error { _, _, err := partition.ReadRecord(ended, 0); return err },
		"offsets":   func() error { _, err := partition.listOffsets(ended, kafkago.FirstOffsetOf(0)); return err },
		"begin":     func() error { return new(logIdentity).begin(ended, partition, 1) },
		"mark":      func() error { _, err := (logMark{checksum: 1}).compare(ended, partition); return err },
		"identity": func() error {
			return (&logIdentity{isInDoubt: true, newest: logMark{checksum: 1}}).compare(ended, partition)
		},
		"damage":      func() error { return partition.pauseAfterDamage(ended) },
		"run":         func() error { return loop().run(ended) },
		"fetch":       func() error { _, err := loop().fetch(ended); return err },
		"send":        func() error { return loop().send(ended) },
		"reserve":     func() error { return loop().reserve(ended, 1) },
		"expired":     func() error { return loop().skipExpired(ended, errors.New("out of range")) },
		"end":         func() error { return loop().endLog(ended, ErrLogReplaced) },
		"batch":       func() error { return loop().addBatch(ended, kafka.RecordBatch{}, []Record{{Value: []byte("x")}}) },
		"assignments": func() error { _, _, err := partition.cfg.countAssigned(ended); return err },
	} {
		if err := call(); err == nil || errors.Is(err, ErrLogReplaced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if partition.String() != partition.Topic()+"/0" {
		t.Error(partition.String())
	}
}

// TestExpiredRecordsAreReportedAsLost, and reading goes on behind them.
func TestExpiredRecordsAreReportedAsLost(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 10)
	direct, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	deletion, topic, part := kmsg.NewDeleteRecordsRequest(), kmsg.NewDeleteRecordsRequestTopic(), kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Offset, topic.Topic = 6, partition.Topic()
	topic.Partitions = append(topic.Partitions, part)
	deletion.Topics = append(deletion.Topics, topic)
	if _, err := deletion.RequestWith(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fetcher := partition.Fetch(ctx, 2, FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 1 << 20, MaxWait: 50 * time.Millisecond})
	first, ok := <-fetcher.C
	if !ok || first.Lost != 4 || first.End != 10 || first.Next != 6 || len(first.Records) != 0 {
		t.Errorf("%+v, %t, want 4 lost records", first, ok)
	}
	offset := int64(6)
	for offset < 10 {
		chunk, ok := <-fetcher.C
		if !ok || chunk.Lost != 0 {
			t.Fatalf("%+v, %t", chunk, ok)
		}
		for _, record := range chunk.Records {
			if record.Offset != offset {
				t.Errorf("offset %d, want %d", record.Offset, offset)
			}
			offset++
		}
		fetcher.Consumed(chunk.Bytes)
	}
}

// A countedMemory refuses what it is asked for first, and grants it when it is waited for.
type countedMemory struct {
	mu           sync.Mutex
	tried, taken []int64
}

func (m *countedMemory) TryTake(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried = append(m.tried, n)
	return false
}

func (m *countedMemory) Take(_ context.Context, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken = append(m.taken, n)
	return nil
}

// TestMemoryIsTakenForEachBatch: while it is waited for, the records before are handed out, and a large batch is not kept.
func TestMemoryIsTakenForEachBatch(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 2)
	large := kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(make([]byte, keptWhileWaiting+1))}
	if response, err := client.Kafka().Produce(t.Context(), &kafkago.ProduceRequest{
		Topic: partition.Topic(), RequiredAcks: kafkago.RequireAll, Records: kafkago.NewRecordReader(large), Compression: kafkago.Zstd,
	}); err != nil || response.Error != nil {
		t.Fatal(err, response)
	}
	memory := &countedMemory{}
	measured := 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fetcher := partition.Fetch(ctx, 0, FetchConfig{
		MaxBytes: 4 << 20, PrefetchBytes: 8 << 20, MaxWait: 50 * time.Millisecond, Memory: memory,
		Measure: func(record *Record) int64 {
			measured++
			record.Note = measured
			return int64(len(record.Value)) + 7
		},
	})
	offset := int64(0)
	for offset < 3 {
		chunk, ok := <-fetcher.C
		if !ok {
			t.Fatal("the fetcher has ended")
		}
		for _, record := range chunk.Records {
			size := 1000
			if record.Offset == 2 {
				size = keptWhileWaiting + 1
			}
			if record.Offset != offset || len(record.Value) != size || record.Note == nil {
				t.Errorf("offset %d, want %d, %d bytes, note %v", record.Offset, offset, len(record.Value), record.Note)
			}
			offset++
		}
		fetcher.Consumed(chunk.Bytes)
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	if want := fmt.Sprint([]int64{1007, 1007, keptWhileWaiting + 8}); fmt.Sprint(memory.tried) != want || fmt.Sprint(memory.taken) != want {
		t.Errorf("tried %v, taken %v, want %s", memory.tried, memory.taken, want)
	}
	if measured != 4 {
		t.Errorf("measured %d times: the large record is measured again", measured)
	}
}

// TestRecordsThatWaitAreNotHeld: while a large batch waits for the worker to take the chunk before, its records are not in
// memory, and another fetcher may decompress.
func TestRecordsThatWaitAreNotHeld(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 1)
	value := make([]byte, keptWhileWaiting+1)
	for range 2 {
		large := kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(value)}
		if response, err := client.Kafka().Produce(t.Context(), &kafkago.ProduceRequest{
			Topic: partition.Topic(), RequiredAcks: kafkago.RequireAll, Records: kafkago.NewRecordReader(large), Compression: kafkago.Zstd,
		}); err != nil || response.Error != nil {
			t.Fatal(err, response)
		}
	}
	decoding := make(chan struct{}, 1)
	measured := make(chan *Record, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fetcher := partition.Fetch(ctx, 1, FetchConfig{
		MaxBytes: 4 << 20, PrefetchBytes: keptWhileWaiting + 2, MaxWait: 50 * time.Millisecond, Decoding: decoding,
		Measure: func(record *Record) int64 {
			measured <- record
			return int64(len(record.Value))
		},
	})
	first := <-fetcher.C
	<-measured
	<-measured
	decoding <- struct{}{} // fails only by the time limit: the batch that waits has ended its decoding
	if len(first.Records) != 1 || len(measured) > 0 {
		t.Errorf("%d records in the first chunk", len(first.Records))
	}
	<-decoding
	fetcher.Consumed(first.Bytes)
	for second := range fetcher.C {
		fetcher.Consumed(second.Bytes)
		if len(second.Records) == 0 {
			continue
		}
		if len(second.Records[0].Value) != len(value) || len(measured) != 1 {
			t.Errorf("%d bytes, measured %d times again", len(second.Records[0].Value), len(measured))
		}
		return
	}
	t.Error("the fetcher ended")
}

// TestBudgetOfAFetcherHoldsAtLeastOneChunk.
func TestBudgetOfAFetcherHoldsAtLeastOneChunk(t *testing.T) {
	f := &Fetcher{budget: 100, freed: make(chan struct{}, 1)}
	for _, step := range []struct {
		bytes int64
		want  bool
	}{{500, true}, {1, false}} {
		if f.tryReserve(step.bytes) != step.want {
			t.Errorf("%d bytes: %t", step.bytes, !step.want)
		}
	}
	f.Consumed(460)
	if !f.tryReserve(60) || f.tryReserve(1) || f.pendingBytes != 100 || len(f.freed) != 1 {
		t.Errorf("%d bytes wait", f.pendingBytes)
	}
}

// TestLogIsComparedWhenItIsInDoubt: after a pause, and every ten seconds.
func TestLogIsComparedWhenItIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(what string, sinceAnswer, sinceCompared time.Duration, want bool) {
			t.Helper()
			now := time.Now()
			identity := logIdentity{answered: now.Add(-sinceAnswer), compared: now.Add(-sinceCompared)}
			if identity.beginRequest(); identity.isInDoubt != want {
				t.Errorf("%s: in doubt %t", what, identity.isInDoubt)
			}
		}
		check("no pause", longPause, time.Hour, false)
		check("a pause", longPause+1, minCheckInterval+1, true)
		check("just compared", longPause+1, minCheckInterval, false)

		for since, want := range map[time.Duration]bool{maxCheckInterval - 1: false, maxCheckInterval: true} {
			identity := logIdentity{compared: time.Now().Add(-since)} // without a mark nothing is asked
			before := identity.compared
			if err := identity.compare(t.Context(), nil); err != nil || identity.compared.After(before) != want || !identity.answered.Equal(time.Now()) {
				t.Errorf("%s ago: compared at %s, %v", since, identity.compared, err)
			}
		}
		doubtful := logIdentity{compared: time.Now(), isInDoubt: true}
		if err := doubtful.compare(t.Context(), nil); err != nil || doubtful.isInDoubt {
			t.Errorf("in doubt %t, %v", doubtful.isInDoubt, err)
		}
	})
}

// TestFailuresAreLoggedOnceAMinute, but not those that the monitor of Kafka logs.
func TestFailuresAreLoggedOnceAMinute(t *testing.T) {
	for _, isLogged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var logged bytes.Buffer
			log := slog.New(slog.NewTextHandler(&logged, nil))
			attempts := 0
			err := retryUnless(t.Context(), log, "insert", func(error) bool { return isLogged }, func() error {
				if attempts++; attempts < 10 {
					return errors.New("failed")
				}
				return nil
			})
			want := 1
			if isLogged {
				want = 0
			}
			if got := strings.Count(logged.String(), "retrying"); err != nil || got != want || want > 0 && !strings.Contains(logged.String(), "what=insert attempt=1 err=failed") {
				t.Errorf("logged by the monitor %t: %v, %s", isLogged, err, &logged)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		isRetry := false
		err := Retry(t.Context(), slog.New(slog.NewTextHandler(&logged, nil)), "query", func() error {
			if isRetry = !isRetry; isRetry {
				return errors.New("failed")
			}
			return nil
		})
		if err != nil || strings.Count(logged.String(), "what=query attempt=1 err=failed") != 1 {
			t.Errorf("a request that is not one to Kafka: %v, %s", err, &logged)
		}
	})
	for cause, want := range map[error]error{context.Canceled: nil, context.DeadlineExceeded: nil, ErrFenced: ErrFenced} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if got := causeOfEnd(ctx); !errors.Is(got, want) || (got == nil) != (want == nil) {
			t.Errorf("ended because of %v: %v", cause, got)
		}
	}
}

// TestDeadLetterNamesItsRecord, and what of it is cut.
func TestDeadLetterNamesItsRecord(t *testing.T) {
	letter := DeadLetter{
		Topic: "t", Partition: 3, Offset: 1 << 40, Stage: "engine", Reason: "decode", Key: []byte("key"), Value: []byte("value"),
		Err: errors.New(strings.Repeat("x", maxDeadLetterError+1)),
	}
	headers := func(record kafkago.Record) string {
		var list []string
		for _, header := range record.Headers {
			list = append(list, header.Key+"="+string(header.Value))
		}
		return strings.Join(list, " ")
	}
	const want = "topic=t partition=3 offset=1099511627776 stage=engine reason=decode error="
	record := letter.kafkaRecord(letter.Key, letter.Value)
	if got := headers(record); got != want+strings.Repeat("x", maxDeadLetterError) || time.Since(record.Time) > time.Minute {
		t.Errorf("headers %.200s", got)
	}
	letter.Err = nil
	if got := headers(letter.kafkaRecord(letter.Key[:2], letter.Value[:4])); got != want+" bytes=5 key_bytes=3" {
		t.Errorf("headers of a cut one: %s", got)
	}
}
