package consumer

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// lookOften shortens the pause between two looks at the partitions.
func lookOften(t *testing.T) {
	t.Helper()
	before := watchInterval
	watchInterval = 200 * time.Millisecond
	t.Cleanup(func() { watchInterval = before })
}

// assignments runs work on a topic and records the partitions.
type assignments struct {
	mu  sync.Mutex
	ids map[int]int // number of calls by partition

	generation int // with which the last partition commits

	lines lineLog // of Run
}

// start runs the consumer until the test ends.
func (a *assignments) start(t *testing.T, cfg Config) {
	t.Helper()
	a.ids = map[int]int{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, cfg, slog.New(slog.NewTextHandler(&a.lines, nil)), func(ctx context.Context, p *Partition) error {
			a.mu.Lock()
			a.ids[p.ID]++
			a.generation = p.generation
			a.mu.Unlock()
			<-ctx.Done()
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// wait waits until work runs on n partitions.
func (a *assignments) wait(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		a.mu.Lock()
		got := len(a.ids)
		a.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d partitions are read", got, n)
		}
	}
}

func TestStaticAssignmentReadsPartitionsThatAreAdded(t *testing.T) {
	lookOften(t)
	partition, client := newPartition(t)
	read := &assignments{}
	read.start(t, partition.cfg)
	read.wait(t, 1)

	// A group without members is generation -1: a broker rejects every other one.
	read.mu.Lock()
	if read.generation != -1 {
		t.Errorf("it commits with generation %d", read.generation)
	}
	read.mu.Unlock()

	direct, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	request := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = partition.Topic(), 3
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 5000
	if _, err := request.RequestWith(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	read.wait(t, 3)
	line := `level=INFO msg="topic has more partitions" topic=` + partition.Topic() + " before=1 now=3\n"
	if read.lines.count(line) != 1 || read.lines.count("\n") != 1 {
		t.Errorf("logged %s, want %s", read.lines.text.String(), line)
	}
}

// TestGroupJoinsAgainWhenItHasNoPartitions: the topic is created after the members have joined.
func TestGroupJoinsAgainWhenItHasNoPartitions(t *testing.T) {
	lookOften(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign, cfg.Partitions = cluster.ListenAddrs(), kafka.AssignGroup, 3
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	consumerConfig := Config{Client: client, Topic: client.Topic(pipeline.TopicEvents), Group: "g"}
	read := &assignments{}
	read.start(t, consumerConfig)
	time.Sleep(3 * time.Second) // the group has joined, or waits
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	read.wait(t, 3)

	// A group whose partitions all have an owner stays as it is.
	partitions, assigned, err := consumerConfig.countAssigned(t.Context())
	if partitions != 3 || assigned != 3 || err != nil {
		t.Errorf("%d of %d partitions have an owner, %v", assigned, partitions, err)
	}
	time.Sleep(5 * watchInterval)
	read.mu.Lock()
	defer read.mu.Unlock()
	for id, calls := range read.ids {
		if calls != 1 {
			t.Errorf("partition %d was given %d times", id, calls)
		}
	}
}
