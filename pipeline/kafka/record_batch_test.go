package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline/lineartest"
)

// newTopic returns a client and a topic of one partition on an in-memory broker.
func newTopic(t testing.TB) (*Client, string) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := Default()
	cfg.Brokers = cluster.ListenAddrs()
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client, "t"
}

// produce writes records with a codec as one batch.
func produce(t testing.TB, c *Client, topic string, codec kafka.Compression, records ...kafka.Record) {
	t.Helper()
	response, err := c.Kafka().Produce(t.Context(), &kafka.ProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...), Compression: codec,
	})
	if err != nil || response.Error != nil {
		t.Fatal(err, response)
	}
}

// TestRecordsOfEveryCodecAreRead: keys, values, null and empty ones, times and headers, from the middle of a batch
// on, and several batches in one response.
func TestRecordsOfEveryCodecAreRead(t *testing.T) {
	client, topic := newTopic(t)
	at := time.UnixMilli(1_700_000_000_123)
	codecs := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
	for i, codec := range codecs {
		produce(t, client, topic, codec,
			kafka.Record{Time: at, Key: kafka.NewBytes([]byte("k")), Value: kafka.NewBytes([]byte(fmt.Sprint("first ", i)))},
			kafka.Record{Time: at.Add(time.Second), Value: kafka.NewBytes(bytes.Repeat([]byte("x"), 100_000))},
			kafka.Record{Time: at.Add(-time.Second), Key: kafka.NewBytes([]byte{}), Headers: []kafka.Header{{Key: "h", Value: []byte("v")}}})
	}
	response, err := client.Fetch(t.Context(), FetchRequest{Topic: topic, Offset: 1, MaxBytes: 1 << 20, MaxWait: time.Second})
	if err != nil || response.HighWatermark != 15 {
		t.Fatal(err, response)
	}
	var records []Record
	for next := int64(1); ; {
		batch, ok := response.NextBatch()
		if !ok {
			break
		}
		read, err := batch.Records(next)
		if err != nil {
			t.Fatal(err)
		}
		records, next = append(records, read...), batch.Last+1
	}
	if len(records) != 14 {
		t.Fatalf("%d records", len(records))
	}
	for i, record := range records {
		offset := i + 1
		wantTime := at.Add([]time.Duration{0, time.Second, -time.Second}[offset%3]).UnixNano()
		if record.Offset != int64(offset) || record.Time != wantTime {
			t.Errorf("record %d: offset %d, time %d", offset, record.Offset, record.Time)
		}
		switch offset % 3 {
		case 0:
			if string(record.Key) != "k" || string(record.Value) != fmt.Sprint("first ", offset/3) {
				t.Errorf("record %d: %q %q", offset, record.Key, record.Value)
			}
		case 1:
			if record.Key != nil || len(record.Value) != 100_000 {
				t.Errorf("record %d: %q, %d bytes", offset, record.Key, len(record.Value))
			}
		case 2:
			if record.Key == nil || len(record.Key) > 0 || record.Value != nil {
				t.Errorf("record %d: %v %v", offset, record.Key, record.Value)
			}
		}
	}
}

// storedBatch returns a batch of n records with a codec, as the broker stores it.
func storedBatch(t testing.TB, codec kafka.Compression, n, size int) []byte {
	t.Helper()
	client, topic := newTopic(t)
	var records []kafka.Record
	for range n {
		records = append(records, kafka.Record{Value: kafka.NewBytes(make([]byte, size))})
	}
	produce(t, client, topic, codec, records...)
	response, err := client.Fetch(t.Context(), FetchRequest{Topic: topic, MaxBytes: 1 << 20, MaxWait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	batch, ok := response.NextBatch()
	if !ok {
		t.Fatal("no batch")
	}
	return bytes.Clone(batch.Data)
}

// TestDamagedBatchIsAnError: a changed byte, a number of records that the batch cannot hold, an older version, a
// batch that is cut, one that marks the end of a transaction, and one that is too large.
func TestDamagedBatchIsAnError(t *testing.T) {
	read := func(change func(data []byte)) ([]Record, error) {
		data := storedBatch(t, kafka.Zstd, 3, 100)
		change(data)
		response := &FetchResponse{rest: data}
		batch, ok := response.NextBatch()
		if !ok {
			return nil, nil
		}
		return batch.Records(0)
	}
	sign := func(data []byte) {
		binary.BigEndian.PutUint32(data[batchCRCAt:], crc32.Checksum(data[batchAttributes:], castagnoli))
	}
	if records, err := read(func([]byte) {}); len(records) != 3 || err != nil {
		t.Errorf("unchanged: %d records, %v", len(records), err)
	}
	if _, err := read(func(data []byte) { data[len(data)-3] ^= 1 }); !errors.Is(err, ErrDamaged) || !errors.Is(err, ErrUnreadable) {
		t.Errorf("changed: %v", err)
	}
	if _, err := read(func(data []byte) {
		binary.BigEndian.PutUint32(data[batchCountAt:], 1<<30)
		sign(data)
	}); !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrDamaged) {
		t.Errorf("2^30 records: %v", err)
	}
	if _, err := read(func(data []byte) { data[batchMagicAt] = 1 }); !errors.Is(err, ErrUnreadable) {
		t.Errorf("version 1: %v", err)
	}
	if records, err := read(func(data []byte) { binary.BigEndian.PutUint32(data[batchLengthAt:], 1<<20) }); records != nil || err != nil {
		t.Errorf("cut: %v %v", records, err)
	}
	if records, err := read(func(data []byte) { data[batchAttributes+1] |= attributeControl; sign(data) }); len(records) > 0 || err != nil {
		t.Errorf("end of a transaction: %v %v", records, err)
	}
	for _, codec := range []kafka.Compression{kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		batch := RecordBatch{Data: storedBatch(t, codec, 3, 6<<20)}
		if _, err := batch.Records(0); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%v of 18 MiB: %v", codec, err)
		}
	}
}

// TestSnappyStatesNoMoreThanItHas: lengths in a few bytes of Snappy, framed or not, cost no memory.
func TestSnappyStatesNoMoreThanItHas(t *testing.T) {
	boundCodecs()
	block := snappy.Encode(nil, bytes.Repeat([]byte("line "), 1000))
	frame := func(length uint32, block []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"), length), block...)
	}
	for _, data := range [][]byte{
		{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, // 4 GiB in one block
		{0xff, 0xff, 0xff, 0x07, 0},       // 16 MiB
		frame(0xffffffff, nil), frame(0x7fffffff, block),
		frame(6, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}),
		frame(3, nil)[:18],
	} {
		lineartest.Limit{Time: time.Second, Bytes: 1 << 20}.Check(t, len(data), func() {
			if out, err := inflate(compress.Snappy, data); err == nil || len(out) > 0 {
				t.Errorf("%q became %d bytes, %v", data, len(out), err)
			}
		})
	}
	for _, data := range [][]byte{block, frame(uint32(len(block)), block), append(frame(uint32(len(block)), block), frame(uint32(len(block)), block)[16:]...)} {
		if out, err := inflate(compress.Snappy, data); err != nil || len(out)%5000 != 0 || len(out) == 0 || !bytes.HasPrefix(out, []byte("line line ")) {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	}
}

// TestZstdStatesNoMoreThanItHas: a window or a size of 16 MiB in a few bytes of zstd costs no memory, and however many
// CPUs there are, what is decompressed at a time is bounded in sum.
func TestZstdStatesNoMoreThanItHas(t *testing.T) {
	boundCodecs()
	frame := func(header ...byte) []byte { return append([]byte{0x28, 0xb5, 0x2f, 0xfd}, header...) }
	empty := []byte{1, 0, 0}                   // the last block, raw, of no bytes
	run := []byte{0x03, 0x00, 0x10, 'a'}       // the last block, 128 KiB of one byte
	window := frame(0x00, 0x70)                // of 16 MiB
	size := frame(0xa0, 0, 0, 0, 1)            // 16 MiB in a single segment
	both := frame(0x80, 0x70, 0xff, 0xff, 255) // 16 MiB, and a size that is cut
	for _, data := range [][]byte{
		slices.Concat(window, empty), slices.Concat(window, run), slices.Concat(size, empty), slices.Concat(size, run),
		slices.Concat(size, run, size, run), slices.Concat(both, empty), size, window,
	} {
		lineartest.Limit{Time: time.Second, Bytes: 2 << 20}.Check(t, len(data), func() {
			out, _ := inflate(compress.Zstd, data)
			if len(out) > 128<<10 {
				t.Errorf("%x became %d bytes", data, len(out))
			}
		})
	}
	if out, err := inflate(compress.Zstd, slices.Concat(window, run)); len(out) != 128<<10 || err != nil {
		t.Errorf("a run of 128 KiB became %d bytes, %v", len(out), err)
	}
	if few, many := numDecoders(1), numDecoders(256); few != 2 || many*maxInflated > 128<<20 {
		t.Errorf("%d decoders with one CPU, %d with 256", few, many)
	}
}

// FuzzRecords: no batch panics or takes much memory; offsets and values lie within the batch.
func FuzzRecords(f *testing.F) {
	f.Add(storedBatch(f, 0, 3, 10))
	f.Add(storedBatch(f, kafka.Zstd, 3, 10))
	f.Add(storedBatch(f, kafka.Snappy, 3, 10))
	boundCodecs()
	// Four bytes of zstd may become 128 KiB, which are allocated, decompressed and cloned.
	limit := lineartest.Limit{
		Time: 20 * time.Millisecond, TimePerByte: 200 * time.Microsecond, Bytes: 4 << 20, BytesPerByte: 128 << 10,
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, limit, data, func(data []byte) {
			if len(data) > batchHeaderSize {
				binary.BigEndian.PutUint32(data[batchCRCAt:], crc32.Checksum(data[batchAttributes:], castagnoli))
			}
			response := &FetchResponse{rest: data}
			for {
				batch, ok := response.NextBatch()
				if !ok {
					return
				}
				records, err := batch.Records(batch.First)
				if err != nil && !errors.Is(err, ErrUnreadable) {
					t.Fatal(err)
				}
				for _, record := range records {
					if record.Offset < batch.First || record.Offset > batch.Last {
						t.Fatalf("offset %d is not between %d and %d", record.Offset, batch.First, batch.Last)
					}
				}
			}
		})
	})
}
