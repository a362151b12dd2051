package consumer

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"

	"tidegate/pipeline/kafka"
)

// TestUnreadableBatchIsOneRecordWithItsError: two batches exceed the limit of decompression, one of them has
// several records. Each is one record with an error and with the batch as its value. The records before, between
// and after them are read.
func TestUnreadableBatchIsOneRecordWithItsError(t *testing.T) {
	partition, client := newPartition(t)
	good := func(text string) {
		t.Helper()
		record := kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes([]byte(text))}
		if _, err := client.Produce(t.Context(), partition.Topic(), 0, record); err != nil {
			t.Fatal(err)
		}
	}
	// bomb produces a batch of records that are 40 MiB together when decompressed.
	bomb := func(codec kafkago.Compression, records int) {
		t.Helper()
		zeros := make([]byte, 40<<20/records)
		var list []kafkago.Record
		for range records {
			list = append(list, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(zeros)})
		}
		response, err := client.Kafka().Produce(t.Context(), &kafkago.ProduceRequest{
			Topic: partition.Topic(), Partition: 0, RequiredAcks: kafkago.RequireAll,
			Records: kafkago.NewRecordReader(list...), Compression: codec,
		})
		if err != nil || response.Error != nil {
			t.Fatal(err, response)
		}
	}
	good("before")
	bomb(kafkago.Zstd, 1)
	good("between")
	bomb(kafkago.Gzip, 5)
	good("after")

	fetchConfig := FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 1 << 20, MaxWait: 50 * time.Millisecond}
	fetcher := partition.Fetch(t.Context(), 0, fetchConfig)
	var read [][]byte
	var offsets []int64
	next := int64(0)
	for end := time.After(60 * time.Second); next < 9; {
		select {
		case chunk := <-fetcher.C:
			for _, record := range chunk.Records {
				if record.Err != nil {
					if !errors.Is(record.Err, kafka.ErrUnreadable) || len(record.Value) < 1000 {
						t.Errorf("%v, %d bytes", record.Err, len(record.Value))
					}
					record.Value = []byte("unreadable")
				}
				read = append(read, record.Value)
				offsets = append(offsets, record.Offset)
			}
			next = chunk.Next
			fetcher.Consumed(chunk.Bytes)
		case <-end:
			t.Fatalf("stuck at %d", next)
		}
	}
	if got := string(bytes.Join(read, []byte(" "))); got != "before unreadable between unreadable after" ||
		!slices.Equal(offsets, []int64{0, 1, 2, 7, 8}) {
		t.Errorf("read %q at %v", got, offsets)
	}
}

// A panickingCodec has a bug.
type panickingCodec struct{ compress.Codec }

func (panickingCodec) NewReader(io.Reader) io.ReadCloser { panic("a bug") }

// TestPanicOfADecompressorIsAnErrorOfItsBatch.
func TestPanicOfADecompressorIsAnErrorOfItsBatch(t *testing.T) {
	before := compress.Codecs[compress.Gzip]
	compress.Codecs[compress.Gzip] = panickingCodec{before}
	t.Cleanup(func() { compress.Codecs[compress.Gzip] = before })
	batch := kafka.RecordBatch{First: 0, Last: 2, Data: rawBatch(0, 2, int16(compress.Gzip), 0, 1, 2)}
	records, err := new(Partition).readBatch(batch, 0)
	if !errors.Is(err, kafka.ErrUnreadable) || !strings.HasSuffix(err.Error(), "the decompressor panicked: a bug") || len(records) != 0 {
		t.Errorf("%d records, %v", len(records), err)
	}
}
