package ship

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// BenchmarkPacketToBatch measures the cost of an event for a capture worker: partition, containers, encoding
// and release.
func BenchmarkPacketToBatch(b *testing.B) {
	shipper := benchShipper(b)
	packets := shipper.Packets("packets")
	container := &pipeline.Container{
		Id:    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Name:  "web",
		Image: "nginx:1",
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		event := pipeline.EventFromVTPool()
		event.Id = append(event.Id[:0], "0123456789abcdef"...)
		event.CommunityId = append(event.CommunityId[:0], "0123456789abcdef0123"...)
		event.Dataset, event.Transport = pipeline.Dataset_HTTP, pipeline.Transport_TCP
		event.Timestamp, event.Duration = int64(i), 1e6
		event.Container = container
		event.Source, event.Destination = pipeline.EndpointFromVTPool(), pipeline.EndpointFromVTPool()
		event.Source.Ip = append(event.Source.Ip[:0], 10, 0, 0, 1)
		event.Destination.Ip = append(event.Destination.Ip[:0], 10, 0, 0, 2)
		event.Source.Port, event.Destination.Port, event.Destination.Container = 40000, 80, container
		event.Http = pipeline.HTTPExchangeFromVTPool()
		event.Http.Method, event.Http.UrlOriginal = "GET", "/cart?item=42"
		event.Http.UrlPath, event.Http.UrlDomain = "/cart", "shop.example"
		event.Http.UserAgent = "Mozilla/5.0 (X11; Linux x86_64)"
		event.Http.StatusCode, event.Http.ResponseMimeType = 200, "text/html"
		if !packets.TryShip(event) {
			b.Fatal("shed")
		}
		if i%2000 == 0 {
			deliverAll(&(*shipper.partitions.Load())[0].packets)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLineToBatch measures the cost of a line for a log reader.
func BenchmarkLineToBatch(b *testing.B) {
	shipper := benchShipper(b)
	producer := shipper.File("file").(*fileProducer)
	file := testFiles(1, 1)[0]
	const text = `10.0.0.1 - - [24/Nov/2026:23:18:00 +0000] "GET /cart?item=42 HTTP/1.1" 200 5120 "-" "Mozilla/5.0"`
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		event := pipeline.EventFromVTPool()
		event.Id = append(event.Id[:0], "0123456789abcdef"...)
		event.Dataset, event.Timestamp, event.Container = pipeline.Dataset_LOG, int64(i), file.container
		event.Log = pipeline.LogLineFromVTPool()
		event.Log.Message, event.Log.Stream, event.Log.Offset = text, "stdout", uint64(i)
		end := collector.Checkpoint{End: int64(i) + 1, ReadFrom: int64(i) + 1}
		producer.partition.files.addFileEvent(producer, event, end)
		if i%2000 == 0 {
			deliverAll(&producer.partition.files)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// benchShipper returns a Shipper that sends nothing; deliverAll finishes its batches.
func benchShipper(b *testing.B) *Shipper {
	b.Helper()
	cfg := Default()
	cfg.StateDir = b.TempDir()
	id, err := collector.LoadID(cfg.StateDir)
	if err != nil {
		b.Fatal(err)
	}
	kcfg := kafka.Default()
	kcfg.Brokers = []string{"127.0.0.1:1"}
	shipper, err := New(cfg, kcfg, id, testLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	shipper.stopWorkers()
	producer := shipper.File("file").(*fileProducer)
	producer.partition = (*shipper.partitions.Load())[0]
	return shipper
}

// deliverAll finishes all batches, as if Kafka had acknowledged them.
func deliverAll(from *batcher) {
	for _, batch := range from.queue {
		from.sender.addFileBatch(batch, from.sender.nextSequence(batch))
	}
	from.queue = from.queue[:0]
	for _, pending := range from.sender.pending {
		for _, lines := range pending.batch.ranges {
			lines.file.finishRange(lines)
		}
		from.sender.recycleBatch(pending.batch)
	}
	from.sender.pending = from.sender.pending[:0]
}

// BenchmarkLineToKafka measures the whole way to a broker with its data on disk, with journal, zstd and
// acknowledgement.
func BenchmarkLineToKafka(b *testing.B) {
	port := freePort(b)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(b.TempDir()))
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	cfg, kcfg := Default(), kafka.Default()
	cfg.StateDir, kcfg.Brokers = b.TempDir(), broker.ListenAddrs()
	id, err := collector.LoadID(cfg.StateDir)
	if err != nil {
		b.Fatal(err)
	}
	shipper, err := New(cfg, kcfg, id, testLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	all := testFiles(8, b.N/8+1)
	b.ReportAllocs()
	b.ResetTimer()
	if err := shipAll(b.Context(), shipper, all); err != nil {
		b.Fatal(err)
	}
	if err := shipper.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
