package consumer

import (
	"bytes"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

// TestUnreadableBatchesAreSkipped produces two batches that exceed the bound on decompression, one of them
// with several records. The records before, between and behind them are read, and the skipped offsets are
// counted.
func TestUnreadableBatchesAreSkipped(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	p, client := newPartition(t)
	good := func(text string) {
		t.Helper()
		if _, err := client.Produce(t.Context(), p.Topic(), 0, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes([]byte(text))}); err != nil {
			t.Fatal(err)
		}
	}
	bomb := func(codec kafkago.Compression, records int) {
		t.Helper()
		zeros := make([]byte, 40<<20/records)
		var list []kafkago.Record
		for range records {
			list = append(list, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(zeros)})
		}
		r, err := client.Kafka().Produce(t.Context(), &kafkago.ProduceRequest{Topic: p.Topic(), Partition: 0, RequiredAcks: kafkago.RequireAll, Records: kafkago.NewRecordReader(list...), Compression: codec})
		if err != nil || r.Error != nil {
			t.Fatal(err, r)
		}
	}
	good("before")
	bomb(kafkago.Zstd, 1)
	good("between")
	bomb(kafkago.Gzip, 5)
	good("behind")

	f := p.Fetch(t.Context(), 0, FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 1 << 20, MaxWait: 50 * time.Millisecond})
	var read [][]byte
	var offsets []int64
	skipped, next := int64(0), int64(0)
	for end := time.After(60 * time.Second); next < 9; {
		select {
		case c := <-f.C:
			for _, r := range c.Records {
				read = append(read, r.Value)
				offsets = append(offsets, r.Offset)
			}
			skipped += c.Skipped
			next = c.Next
			f.Consumed(c.Bytes)
		case <-end:
			t.Fatalf("stuck at %d", next)
		}
	}
	if got := string(bytes.Join(read, []byte(" "))); got != "before between behind" || skipped != 6 || next != 9 {
		t.Errorf("read %q at %v, skipped %d, next %d", got, offsets, skipped, next)
	}
}
