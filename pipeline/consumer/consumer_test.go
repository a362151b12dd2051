package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline/kafka"
)

var quiet = slog.New(slog.DiscardHandler)

func TestRetryWaitsLongerEachTimeAndEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, attempts := time.Now(), 0
		if err := Retry(t.Context(), quiet, "x", func() error {
			if attempts++; attempts < 12 {
				return errors.New("temporary")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < 13*time.Second || took > 30*time.Second {
			t.Errorf("12 attempts took %v", took)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		temporary := func() error { return errors.New("temporary") }
		if err := Retry(ctx, quiet, "x", temporary); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		fenced := func() error { return fmt.Errorf("no: %w", ErrFenced) }
		if err := Retry(t.Context(), quiet, "x", fenced); !errors.Is(err, ErrFenced) {
			t.Errorf("fencing ended with %v", err)
		}
	})
}

// newPartition returns the only partition of the events topic on an in-memory broker.
func newPartition(t *testing.T) (*Partition, *kafka.Client) {
	t.Helper()
	_, partition, client := newBroker(t)
	return partition, client
}

// newBroker returns an in-memory broker and the only partition of its events topic.
func newBroker(t *testing.T) (*kfake.Cluster, *Partition, *kafka.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign, cfg.Partitions = cluster.ListenAddrs(), kafka.AssignStatic, 1
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	consumerConfig := Config{Client: client, Topic: client.Topic("events"), Group: "g"}
	return cluster, &Partition{cfg: consumerConfig, log: quiet, generation: -1}, client
}

func TestMetadataOfAnOffsetIsKept(t *testing.T) {
	partition, _ := newPartition(t)
	check := func(offset int64, metadata string) {
		t.Helper()
		committed, got, err := partition.Committed(t.Context())
		if committed != offset || got != metadata || err != nil {
			t.Errorf("committed %d %q %v, want %d %q", committed, got, err, offset, metadata)
		}
	}
	check(-1, "")
	if err := partition.Commit(t.Context(), 12, "v1 x"); err != nil {
		t.Fatal(err)
	}
	check(12, "v1 x")

	partition.generation, partition.member = 7, "nobody"
	if err := partition.Commit(t.Context(), 13, ""); !errors.Is(err, ErrFenced) {
		t.Errorf("the commit of an unknown member: %v", err)
	}
	check(12, "v1 x")
}

// TestFetcherKeepsToItsBudgetAndItsOrder: every record from the requested offset on is delivered once, in
// order, and the bytes of undelivered chunks never exceed the budget.
func TestFetcherKeepsToItsBudgetAndItsOrder(t *testing.T) {
	partition, client := newPartition(t)
	at, rnd := time.Now(), rand.NewChaCha8([32]byte{1})
	for i := range 50 {
		var records []kafkago.Record
		for j := range 20 {
			records = append(records, kafkago.Record{
				Time: at.Add(time.Duration(i) * time.Second), Key: kafkago.NewBytes([]byte("k")),
				Value: kafkago.NewBytes(noise(rnd, byte(i*20+j))),
			})
		}
		if _, err := client.Produce(t.Context(), partition.Topic(), 0, records...); err != nil {
			t.Fatal(err)
		}
	}

	if first, end, err := partition.Bounds(t.Context()); first != 0 || end != 1000 || err != nil {
		t.Errorf("bounds %d %d %v", first, end, err)
	}
	if offset, err := partition.OffsetAt(t.Context(), at.Add(10*time.Second)); offset != 200 || err != nil {
		t.Errorf("offset by time %d %v", offset, err)
	}
	if offset, err := partition.OffsetAt(t.Context(), at.Add(time.Hour)); offset != 1000 || err != nil {
		t.Errorf("offset of a future time %d %v", offset, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const budget = 60_000
	fetcher := partition.Fetch(ctx, 7, FetchConfig{MaxBytes: 2000, PrefetchBytes: budget, MaxWait: 50 * time.Millisecond})
	next := int64(7)
	for next < 1000 {
		chunk := <-fetcher.C
		fetcher.mu.Lock()
		if fetcher.pendingBytes > budget {
			t.Errorf("%d bytes wait", fetcher.pendingBytes)
		}
		fetcher.mu.Unlock()
		for _, record := range chunk.Records {
			if record.Offset != next || len(record.Value) != 1000 || record.Value[0] != byte(next) || string(record.Key) != "k" {
				t.Fatalf("record %d: %d bytes of %d, want offset %d", record.Offset, len(record.Value), record.Value[0], next)
			}
			next++
		}
		if chunk.End != 1000 {
			t.Errorf("end %d", chunk.End)
		}
		fetcher.Consumed(chunk.Bytes)
	}
	cancel()
	for range fetcher.C {
	}
}

// noise returns a value that zstd cannot compress, so that a fetch has the size that was requested.
func noise(rnd *rand.ChaCha8, first byte) []byte {
	value := make([]byte, 1000)
	_, _ = rnd.Read(value)
	value[0] = first
	return value
}

// TestCommitThatWasNotSentIsAnError: without it an engine would take offsets for durable that no broker has.
func TestCommitThatWasNotSentIsAnError(t *testing.T) {
	partition, _ := newPartition(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := partition.commitOnce(ctx, 5, ""); err == nil {
		t.Error("a commit that could not be sent succeeded")
	}
}
