package ship

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// BenchmarkPacketToBatch measures what a capture worker pays for an event: partition, containers, encoding
// and release.
func BenchmarkPacketToBatch(b *testing.B) {
	s := benchShipper(b)
	l := s.Packets("packets")
	c := &pipeline.Container{Id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Name: "web", Image: "nginx:1"}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := pipeline.EventFromVTPool()
		e.Id = append(e.Id[:0], "0123456789abcdef"...)
		e.CommunityId = append(e.CommunityId[:0], "0123456789abcdef0123"...)
		e.Dataset, e.Timestamp, e.Duration, e.Transport = pipeline.Dataset_HTTP, int64(i), 1e6, pipeline.Transport_TCP
		e.Container = c
		e.Source, e.Destination = pipeline.EndpointFromVTPool(), pipeline.EndpointFromVTPool()
		e.Source.Ip = append(e.Source.Ip[:0], 10, 0, 0, 1)
		e.Destination.Ip = append(e.Destination.Ip[:0], 10, 0, 0, 2)
		e.Source.Port, e.Destination.Port, e.Destination.Container = 40000, 80, c
		e.Http = pipeline.HTTPExchangeFromVTPool()
		e.Http.Method, e.Http.UrlOriginal, e.Http.UrlPath, e.Http.UrlDomain = "GET", "/cart?item=42", "/cart", "shop.example"
		e.Http.UserAgent, e.Http.StatusCode, e.Http.ResponseMimeType = "Mozilla/5.0 (X11; Linux x86_64)", 200, "text/html"
		if !l.TryShip(e) {
			b.Fatal("shed")
		}
		if i%2000 == 0 {
			deliverAll(&(*s.partitions.Load())[0].packets)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLineToBatch measures what a log reader pays for a line.
func BenchmarkLineToBatch(b *testing.B) {
	s := benchShipper(b)
	l := s.File("file").(*fileProducer)
	f := testFiles(1, 1)[0]
	const text = `10.0.0.1 - - [24/Nov/2026:23:18:00 +0000] "GET /cart?item=42 HTTP/1.1" 200 5120 "-" "Mozilla/5.0"`
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e := pipeline.EventFromVTPool()
		e.Id = append(e.Id[:0], "0123456789abcdef"...)
		e.Dataset, e.Timestamp, e.Container = pipeline.Dataset_LOG, int64(i), f.container
		e.Log = pipeline.LogLineFromVTPool()
		e.Log.Message, e.Log.Stream, e.Log.Offset = text, "stdout", uint64(i)
		l.partition.files.addFileEvent(l, e, collector.Checkpoint{End: int64(i) + 1, ReadFrom: int64(i) + 1})
		if i%2000 == 0 {
			deliverAll(&l.partition.files)
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
	s, err := New(cfg, kcfg, id, testLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	s.stopWorkers()
	l := s.File("file").(*fileProducer)
	l.partition = (*s.partitions.Load())[0]
	return s
}

// deliverAll finishes all batches, as if Kafka had acknowledged them.
func deliverAll(c *batcher) {
	for _, b := range c.queue {
		c.sender.addFileBatch(b, c.sender.nextSequence(b))
	}
	c.queue = c.queue[:0]
	for _, it := range c.sender.pending {
		for _, p := range it.batch.ranges {
			p.file.finishRange(p)
		}
		c.sender.recycleBatch(it.batch)
	}
	c.sender.pending = c.sender.pending[:0]
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
	s, err := New(cfg, kcfg, id, testLog(), nil)
	if err != nil {
		b.Fatal(err)
	}
	all := testFiles(8, b.N/8+1)
	b.ReportAllocs()
	b.ResetTimer()
	if err := shipAll(b.Context(), s, all); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
