package clickhouse_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"testing"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// Sizes of fillEvents.
const (
	startPartitions   = 12
	startBlocks       = 8 // of six hours each
	eventsPerMessage  = 1000
	startRowsVariable = "TIDEGATE_START_ROWS"
)

// fillEvents inserts about rows events of the last two days. A part holds all partitions, as after a merge. It returns
// the number of messages of a partition.
func fillEvents(t testing.TB, store *clickhouse.Store, rows int) (messages int) {
	t.Helper()
	perBlock := max(1, rows/startPartitions/startBlocks/eventsPerMessage) // messages of a partition
	began := time.Now().Add(-48 * time.Hour)
	for block := range startBlocks {
		query := fmt.Sprintf("INSERT INTO %s.events (`event.id`, `event.dataset`, `@timestamp`, `event.ingested`,"+
			" `host.name`, message, _topic, _partition, _offset, _index, _collector, _epoch, _sequence)"+
			" WITH intDiv(number, %[2]d) AS m, intDiv(m, %[3]d) + %[4]d AS o, %[5]d + intDiv(m, %[3]d) * 1000000 AS t"+
			" SELECT generateUUIDv4(), 'log', fromUnixTimestamp64Nano(toInt64(t + number)), fromUnixTimestamp64Nano(toInt64(t)),"+
			" toString(number %% 5), concat('line ', toString(number)), 'tidegate.events', m %% %[3]d, o, number %% %[2]d,"+
			" toUUID('00000000-0000-0000-0000-000000000001'), 7, o + 1 FROM numbers(%[6]d)"+
			" SETTINGS max_threads = 1, max_block_size = 65536, min_insert_block_size_rows = 65536", // the default takes gigabytes
			store.Config().Database, eventsPerMessage, startPartitions, block*perBlock,
			began.Add(time.Duration(block)*6*time.Hour+time.Minute).UnixNano(), perBlock*startPartitions*eventsPerMessage)
		if err := store.Conn().Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	return perBlock * startBlocks
}

// TestStartOfAPartitionReadsItsMessagesOnly: the queries with which an engine takes over a partition read a row for
// each message of the partition, not all rows of the last days. TIDEGATE_START_ROWS=20000000 is the size of the
// figures in bench/RESULTS.md.
func TestStartOfAPartitionReadsItsMessagesOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("it inserts half a million rows")
	}
	store := embeddedtest.Store(t, "start", "native")
	rows := 600_000
	if text := os.Getenv(startRowsVariable); text != "" {
		rows, _ = strconv.Atoi(text)
	}
	began := time.Now()
	messages := fillEvents(t, store, rows)
	t.Logf("%d messages a partition, filled in %v", messages, time.Since(began).Round(time.Millisecond))

	from := pipeline.TopicPartition{Topic: "tidegate.events", Partition: 4}
	since := time.Now().Add(-48 * time.Hour)
	filter := pipeline.BatchFilter{TopicPartition: from, Before: math.MaxInt64, Except: 1, Since: since}
	producer := pipeline.Producer{Collector: [16]byte{15: 1}, Epoch: 7}
	queries := []struct {
		name string
		run  func(ctx context.Context) (result any, err error)
	}{
		{"NewestRows", func(ctx context.Context) (any, error) {
			newest, ok, err := store.NewestRows(ctx, from, math.MaxInt64)
			return fmt.Sprint(newest.Highest, newest.InLog.Offset, newest.InLog.BatchID.Sequence, ok), err
		}},
		{"StoredBatches", func(ctx context.Context) (any, error) {
			stored, err := store.StoredBatches(ctx, filter)
			return fmt.Sprint(stored), err
		}},
		{"StoredBatches of a producer", func(ctx context.Context) (any, error) {
			stored, err := store.StoredBatches(ctx, pipeline.BatchFilter{TopicPartition: from, Before: math.MaxInt64, Producer: &producer})
			return fmt.Sprint(stored), err
		}},
		{"SequenceRanges", func(ctx context.Context) (any, error) {
			ranges, err := store.SequenceRanges(ctx, filter)
			return fmt.Sprint(ranges), err
		}},
	}
	for _, query := range queries {
		run := func(setting int) (read uint64, took time.Duration, result any) {
			ctx := driver.Context(t.Context(), driver.WithProgress(func(p *driver.Progress) { read += p.Rows }),
				driver.WithSettings(driver.Settings{"optimize_use_projections": setting}))
			began := time.Now()
			result, err := query.run(ctx)
			if err != nil {
				t.Fatalf("%s: %v", query.name, err)
			}
			return read, time.Since(began), result
		}
		allRead, allTook, want := run(0)
		read, took, got := run(1)
		t.Logf("%s: %d rows in %v, without the projection %d in %v", query.name, read, took.Round(time.Millisecond),
			allRead, allTook.Round(time.Millisecond))
		if got != want {
			t.Errorf("%s returns %v, without the projection %v", query.name, got, want)
		}
		// A query reads whole granules, of each part.
		if limit := uint64(messages + 100*8192); read > limit || read >= allRead/10 {
			t.Errorf("%s reads %d rows, without the projection %d", query.name, read, allRead)
		}
	}
}
