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

func broker(dir string) embedded.BrokerConfig {
	c := embedded.DefaultBroker()
	c.Dir, c.Addr, c.Partitions, c.MaxBytes, c.RetentionCheckInterval = dir, "127.0.0.1:0", 2, 16<<20, 50*time.Millisecond
	return c
}

func startBroker(t *testing.T, c embedded.BrokerConfig) *embedded.Broker {
	t.Helper()
	b, err := embedded.StartBroker(t.Context(), c, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func produce(ctx context.Context, addr string, from, n, size int) error {
	c := &kafka.Client{Addr: kafka.TCP(addr)}
	_, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "events", NumPartitions: 2, ReplicationFactor: 1}}})
	if err != nil {
		return err
	}
	for i := from; i < from+n; i++ {
		res, err := c.Produce(ctx, &kafka.ProduceRequest{
			Topic: "events", Partition: 1, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(append(fmt.Appendf(nil, "%d,", i), make([]byte, size)...))}),
		})
		if err != nil {
			return err
		}
		if res.Error != nil {
			return res.Error
		}
		if os.Getenv("TIDEGATE_TEST_HOLD_BROKER") != "" {
			fmt.Println(res.BaseOffset)
		}
	}
	return nil
}

func ends(t *testing.T, addr string) (first, last int64) {
	t.Helper()
	c := &kafka.Client{Addr: kafka.TCP(addr)}
	res, err := c.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{"events": {kafka.FirstOffsetOf(1), kafka.LastOffsetOf(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	p := res.Topics["events"][0]
	return p.FirstOffset, p.LastOffset
}

// TestRestartKeepsDataAndCommittedOffsets commits as with static assignment: generation -1, no member.
func TestRestartKeepsDataAndCommittedOffsets(t *testing.T) {
	c := broker(t.TempDir())
	b := startBroker(t, c)
	if err := produce(t.Context(), b.Addr(), 0, 10, 10); err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(b.Addr())}
	res, err := client.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: "g", GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{"events": {{Partition: 1, Offset: 4, Metadata: "v1 8"}}}})
	if err != nil || res.Topics["events"][0].Error != nil {
		t.Fatal(err, res)
	}
	if _, err := embedded.StartBroker(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "is in use by process") {
		t.Errorf("a second broker in the folder: %v", err)
	}
	b.Close()
	b = startBroker(t, c)
	if first, last := ends(t, b.Addr()); first != 0 || last != 10 {
		t.Errorf("offsets %d to %d", first, last)
	}
	client.Addr = kafka.TCP(b.Addr())
	got, err := client.OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{GroupID: "g", Topics: map[string][]int{"events": {1}}})
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Topics["events"][0]; p.CommittedOffset != 4 || p.Metadata != "v1 8" {
		t.Errorf("committed %+v", p)
	}
}

// TestCapOnDiskHolds also checks that offsets continue where they were after every message was deleted.
func TestCapOnDiskHolds(t *testing.T) {
	c := broker(t.TempDir())
	b := startBroker(t, c)
	if err := produce(t.Context(), b.Addr(), 0, 60, 512<<10); err != nil { // 30 MB into a share of 8
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for size(c.Dir) > int64(c.MaxBytes)/2 {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes are on disk", size(c.Dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if first, last := ends(t, b.Addr()); first == 0 || last != 60 {
		t.Errorf("offsets %d to %d", first, last)
	}
	b.Close()
	b = startBroker(t, c)
	if first, last := ends(t, b.Addr()); first == 0 || last != 60 {
		t.Errorf("after a restart offsets %d to %d", first, last)
	}
}

func size(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				n += i.Size()
			}
		}
		return nil
	})
	return n
}

// holdBroker runs in the subprocess that TestKilledBrokerKeepsWhatItAcknowledged kills.
func holdBroker(dir string) {
	b, err := embedded.StartBroker(context.Background(), broker(dir), quiet, nil)
	if err == nil {
		err = produce(context.Background(), b.Addr(), 0, 1<<30, 3000)
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// TestKilledBrokerKeepsWhatItAcknowledged kills the broker during writes, and then tears the end of a
// segment.
func TestKilledBrokerKeepsWhatItAcknowledged(t *testing.T) {
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
	b := startBroker(t, broker(dir))
	_, last := ends(t, b.Addr())
	if last <= acked {
		t.Fatalf("the log ends at %d, %d was acknowledged", last, acked)
	}
	b.Close()

	segments, _ := filepath.Glob(filepath.Join(dir, "data", "partitions", "events-1", "*.dat"))
	if len(segments) == 0 {
		segments, _ = filepath.Glob(filepath.Join(dir, "data", "partitions", "events-1", "*"))
		t.Fatalf("no segments among %v", segments)
	}
	tail := segments[len(segments)-1]
	st, err := os.Stat(tail)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(tail, st.Size()-100); err != nil {
		t.Fatal(err)
	}
	b = startBroker(t, broker(dir))
	if _, torn := ends(t, b.Addr()); torn != last-1 {
		t.Errorf("the log ends at %d behind a torn message, it ended at %d", torn, last)
	}
	if err := produce(t.Context(), b.Addr(), 0, 1, 10); err != nil {
		t.Errorf("it does not take messages any more: %v", err)
	}
}

func TestBrokerAddressThatCannotBe(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:1", "127.0.0.1", "127.0.0.1:x", ""} {
		c := broker(t.TempDir())
		c.Addr = addr
		if _, err := embedded.StartBroker(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "embedded.broker.addr") {
			t.Errorf("%s: %v", addr, err)
		}
	}
	b := startBroker(t, broker(t.TempDir()))
	c := broker(t.TempDir())
	c.Addr = b.Addr()
	if _, err := embedded.StartBroker(t.Context(), c, quiet, nil); err == nil || !strings.Contains(err.Error(), "is taken by another program") {
		t.Errorf("busy port: %v", err)
	}
}
