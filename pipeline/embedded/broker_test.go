package embedded_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tidegate/pipeline/embedded"
)

// brokerConfig returns the configuration of a broker in a folder, with two partitions and a cap of 16 MiB.
func brokerConfig(dir string) embedded.BrokerConfig {
	cfg := embedded.DefaultBroker()
	cfg.Dir, cfg.Addr, cfg.Partitions = dir, "127.0.0.1:0", 2
	cfg.MaxBytes, cfg.RetentionCheckInterval = 16<<20, 50*time.Millisecond
	return cfg
}

// startBroker starts a broker that is closed at the end of the test.
func startBroker(t *testing.T, cfg embedded.BrokerConfig) *embedded.Broker {
	t.Helper()
	broker, err := embedded.StartBroker(t.Context(), cfg, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	return broker
}

// produce sends numbered messages to partition 1 of the topic events, one after the other. In the subprocess
// it prints the offset of each acknowledged one.
func produce(ctx context.Context, addr string, from, count, size int) error {
	client := &kafka.Client{Addr: kafka.TCP(addr)}
	topic := kafka.TopicConfig{Topic: "events", NumPartitions: 2, ReplicationFactor: 1}
	_, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err != nil {
		return err
	}
	for i := from; i < from+count; i++ {
		value := append(fmt.Appendf(nil, "%d,", i), make([]byte, size)...)
		response, err := client.Produce(ctx, &kafka.ProduceRequest{
			Topic: "events", Partition: 1, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(value)}),
		})
		if err != nil {
			return err
		}
		if response.Error != nil {
			return response.Error
		}
		if os.Getenv("TIDEGATE_TEST_HOLD_BROKER") != "" {
			fmt.Println(response.BaseOffset)
		}
	}
	return nil
}

// ends returns the first offset of the partition, and the one behind the last message.
func ends(t *testing.T, addr string) (first, last int64) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(addr)}
	requests := map[string][]kafka.OffsetRequest{"events": {kafka.FirstOffsetOf(1), kafka.LastOffsetOf(1)}}
	response, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: requests})
	if err != nil {
		t.Fatal(err)
	}
	offsets := response.Topics["events"][0]
	return offsets.FirstOffset, offsets.LastOffset
}

// TestRestartKeepsDataAndCommittedOffsets: the offset is committed as with static assignment, with generation
// -1 and without a member.
func TestRestartKeepsDataAndCommittedOffsets(t *testing.T) {
	cfg := brokerConfig(t.TempDir())
	broker := startBroker(t, cfg)
	if err := produce(t.Context(), broker.Addr(), 0, 10, 10); err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(broker.Addr())}
	response, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
		GroupID: "g", GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{"events": {{Partition: 1, Offset: 4, Metadata: "v1 8"}}},
	})
	if err != nil || response.Topics["events"][0].Error != nil {
		t.Fatal(err, response)
	}
	_, err = embedded.StartBroker(t.Context(), cfg, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("a second broker in the folder: %v", err)
	}
	broker.Close()

	broker = startBroker(t, cfg)
	if first, last := ends(t, broker.Addr()); first != 0 || last != 10 {
		t.Errorf("offsets %d to %d", first, last)
	}
	client.Addr = kafka.TCP(broker.Addr())
	request := &kafka.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"events": {1}}}
	got, err := client.OffsetFetch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if committed := got.Topics["events"][0]; committed.CommittedOffset != 4 || committed.Metadata != "v1 8" {
		t.Errorf("committed %+v", committed)
	}
}

// TestCapOnDiskHolds: the oldest messages are deleted when the log exceeds its cap, and the offsets continue
// after a restart.
func TestCapOnDiskHolds(t *testing.T) {
	cfg := brokerConfig(t.TempDir())
	broker := startBroker(t, cfg)
	if err := produce(t.Context(), broker.Addr(), 0, 60, 512<<10); err != nil { // 30 MB; the partition may hold 8
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for size(cfg.Dir) > int64(cfg.MaxBytes)/2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are on disk", size(cfg.Dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if first, last := ends(t, broker.Addr()); first == 0 || last != 60 {
		t.Errorf("offsets %d to %d", first, last)
	}

	broker.Close()
	broker = startBroker(t, cfg)
	if first, last := ends(t, broker.Addr()); first == 0 || last != 60 {
		t.Errorf("after a restart offsets %d to %d", first, last)
	}
}

// size returns the number of bytes in the files of a folder.
func size(dir string) (total int64) {
	filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}

// holdBroker runs a broker, and sends messages to it, in the subprocess that
// TestKilledBrokerKeepsAcknowledgedMessages kills.
func holdBroker(dir string) {
	broker, err := embedded.StartBroker(context.Background(), brokerConfig(dir), quiet, nil)
	if err == nil {
		err = produce(context.Background(), broker.Addr(), 0, 1<<30, 3000)
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// TestKilledBrokerKeepsAcknowledgedMessages: a broker is killed during writes and keeps what it acknowledged.
// Then the end of its last segment is cut off, and it loses the torn message alone.
func TestKilledBrokerKeepsAcknowledgedMessages(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TIDEGATE_TEST_HOLD_BROKER="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked int64
	for acked < 500 {
		if _, err := fmt.Fscan(out, &acked); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()

	broker := startBroker(t, brokerConfig(dir))
	_, last := ends(t, broker.Addr())
	if last <= acked {
		t.Fatalf("the log ends at %d, %d was acknowledged", last, acked)
	}
	broker.Close()

	segments, _ := filepath.Glob(filepath.Join(dir, "data", "partitions", "events-1", "*.dat"))
	if len(segments) == 0 {
		segments, _ = filepath.Glob(filepath.Join(dir, "data", "partitions", "events-1", "*"))
		t.Fatalf("no segments among %v", segments)
	}
	tail := segments[len(segments)-1]
	info, err := os.Stat(tail)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(tail, info.Size()-100); err != nil {
		t.Fatal(err)
	}
	broker = startBroker(t, brokerConfig(dir))
	if _, torn := ends(t, broker.Addr()); torn != last-1 {
		t.Errorf("the log ends at %d after a message was torn, it ended at %d", torn, last)
	}
	if err := produce(t.Context(), broker.Addr(), 0, 1, 10); err != nil {
		t.Errorf("the broker takes no more messages: %v", err)
	}
}

func TestErrorNamesTheAddressOfTheBroker(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:1", "127.0.0.1", "127.0.0.1:x", ""} {
		cfg := brokerConfig(t.TempDir())
		cfg.Addr = addr
		_, err := embedded.StartBroker(t.Context(), cfg, quiet, nil)
		if err == nil || !strings.Contains(err.Error(), "embedded.broker.addr") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	broker := startBroker(t, brokerConfig(t.TempDir()))
	cfg := brokerConfig(t.TempDir())
	cfg.Addr = broker.Addr()
	_, err := embedded.StartBroker(t.Context(), cfg, quiet, nil)
	if err == nil || !strings.Contains(err.Error(), "is taken by another program") {
		t.Errorf("busy port: %v", err)
	}
}
