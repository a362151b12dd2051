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
		began, n := time.Now(), 0
		if err := Retry(t.Context(), quiet, "x", func() error {
			if n++; n < 12 {
				return errors.New("passing")
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
		if err := Retry(ctx, quiet, "x", func() error { return errors.New("passing") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
		if err := Retry(t.Context(), quiet, "x", func() error { return fmt.Errorf("no: %w", ErrFenced) }); !errors.Is(err, ErrFenced) {
			t.Errorf("fencing ended with %v", err)
		}
	})
}

// newPartition returns the only partition of a topic on a broker of the test.
func newPartition(t *testing.T) (*Partition, *kafka.Client) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign, cfg.Partitions = c.ListenAddrs(), kafka.AssignStatic, 1
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &Partition{cfg: Config{Client: client, Topic: client.Topic("events"), Group: "g"}, log: quiet, generation: -1}, client
}

func TestMetadataOfAnOffsetIsKept(t *testing.T) {
	p, _ := newPartition(t)
	check := func(offset int64, metadata string) {
		t.Helper()
		if o, m, err := p.Committed(t.Context()); o != offset || m != metadata || err != nil {
			t.Errorf("committed %d %q %v, want %d %q", o, m, err, offset, metadata)
		}
	}
	check(-1, "")
	if err := p.Commit(t.Context(), 12, "v1 x"); err != nil {
		t.Fatal(err)
	}
	check(12, "v1 x")
	p.generation, p.member = 7, "nobody"
	if err := p.Commit(t.Context(), 13, ""); !errors.Is(err, ErrFenced) {
		t.Errorf("a stranger's commit: %v", err)
	}
	check(12, "v1 x")
}

// TestFetcherKeepsToItsBudgetAndItsOrder checks that every record comes once, in order, from the requested
// offset on, and that no more bytes wait than the budget allows.
func TestFetcherKeepsToItsBudgetAndItsOrder(t *testing.T) {
	p, client := newPartition(t)
	at, rnd := time.Now(), rand.NewChaCha8([32]byte{1})
	for i := range 50 {
		var records []kafkago.Record
		for j := range 20 {
			records = append(records, kafkago.Record{Time: at.Add(time.Duration(i) * time.Second), Key: kafkago.NewBytes([]byte("k")), Value: kafkago.NewBytes(noise(rnd, byte(i*20+j)))})
		}
		if _, err := client.Produce(t.Context(), p.Topic(), 0, records...); err != nil {
			t.Fatal(err)
		}
	}
	if first, end, err := p.Bounds(t.Context()); first != 0 || end != 1000 || err != nil {
		t.Errorf("bounds %d %d %v", first, end, err)
	}
	if o, err := p.OffsetAt(t.Context(), at.Add(10*time.Second)); o != 200 || err != nil {
		t.Errorf("offset by time %d %v", o, err)
	}
	if o, err := p.OffsetAt(t.Context(), at.Add(time.Hour)); o != 1000 || err != nil {
		t.Errorf("offset of a time to come %d %v", o, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const budget = 60_000
	f := p.Fetch(ctx, 7, FetchConfig{MaxBytes: 2000, PrefetchBytes: budget, MaxWait: 50 * time.Millisecond})
	next := int64(7)
	for next < 1000 {
		c := <-f.C
		f.mu.Lock()
		if f.pendingBytes > budget {
			t.Errorf("%d bytes wait", f.pendingBytes)
		}
		f.mu.Unlock()
		for _, r := range c.Records {
			if r.Offset != next || len(r.Value) != 1000 || r.Value[0] != byte(next) || string(r.Key) != "k" {
				t.Fatalf("record %d: %d bytes of %d, want offset %d", r.Offset, len(r.Value), r.Value[0], next)
			}
			next++
		}
		if c.End != 1000 {
			t.Errorf("end %d", c.End)
		}
		f.Consumed(c.Bytes)
	}
	cancel()
	for range f.C {
	}
}

// noise returns a value that zstd cannot compress, so that a fetch has the size that was requested.
func noise(rnd *rand.ChaCha8, first byte) []byte {
	b := make([]byte, 1000)
	_, _ = rnd.Read(b)
	b[0] = first
	return b
}
