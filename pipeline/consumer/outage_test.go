package consumer

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline/kafka"
)

// A lineLog collects the lines of a logger.
type lineLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lineLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// count returns the number of lines with a text.
func (l *lineLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// wait waits until n lines have a text.
func (l *lineLog) wait(t *testing.T, text string, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); l.count(text) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d lines with %q\n%s", l.count(text), text, l.text.String())
		}
	}
}

// TestOutageIsOneLineAtItsBeginAndOneAtItsEnd stops a broker for some seconds while the four partitions of a
// topic are read, by a group and by a static assignment.
func TestOutageIsOneLineAtItsBeginAndOneAtItsEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for _, assign := range []string{kafka.AssignGroup, kafka.AssignStatic} {
		t.Run(assign, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir))
			if err != nil {
				t.Fatal(err)
			}
			_, text, _ := net.SplitHostPort(first.ListenAddrs()[0])
			port, _ := strconv.Atoi(text)
			cfg := kafka.Default()
			cfg.Brokers, cfg.Assign, cfg.Timeout = first.ListenAddrs(), assign, time.Second
			client, err := kafka.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.EnsureTopics(t.Context()); err != nil {
				t.Fatal(err)
			}

			lines := &lineLog{}
			log := slog.New(slog.NewTextHandler(lines, nil))
			reg := prometheus.NewRegistry()
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = client.Monitor(ctx, log, reg) })
			running.Go(func() {
				_ = Run(ctx, Config{Client: client, Topic: client.Topic("events"), Group: "g"}, log, readPartition(log))
			})
			defer running.Wait()
			defer cancel()
			lines.wait(t, `msg="partition is read"`, 4)

			first.Close()
			lines.wait(t, `msg="kafka unavailable, retrying"`, 1)
			checkUp(t, reg, 0)
			time.Sleep(8 * time.Second)
			if got := lines.count("level=WARN"); got != 1 || client.Unavailable() == nil {
				t.Errorf("%d lines during the outage, %v\n%s", got, client.Unavailable(), lines.text.String())
			}

			second, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(dir), kfake.Ports(port))
			if err != nil {
				t.Fatal(err)
			}
			defer second.Close()
			lines.wait(t, `msg="kafka available again"`, 1)
			checkUp(t, reg, 1)
			if client.Unavailable() != nil {
				t.Error(client.Unavailable())
			}
		})
	}
}

// readPartition returns a Func that reads a partition until the end.
func readPartition(log *slog.Logger) Func {
	return func(ctx context.Context, partition *Partition) error {
		offset, _, err := partition.Committed(ctx)
		if err != nil {
			return nil //nolint:nilerr // ctx ended
		}
		log.Info("partition is read", "partition", partition.ID)
		fetcher := partition.Fetch(ctx, max(offset, 0), FetchConfig{
			MaxBytes: 1 << 20, PrefetchBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
		})
		for chunk := range fetcher.C {
			fetcher.Consumed(chunk.Bytes)
		}
		return nil
	}
}

// checkUp requires a value of tidegate_kafka_up.
func checkUp(t *testing.T, reg *prometheus.Registry, want int) {
	t.Helper()
	expected := "# HELP tidegate_kafka_up 1 while Kafka answers, else 0.\n# TYPE tidegate_kafka_up gauge\n" +
		"tidegate_kafka_up " + strconv.Itoa(want) + "\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(expected), "tidegate_kafka_up"); err != nil {
		t.Error(err)
	}
}
