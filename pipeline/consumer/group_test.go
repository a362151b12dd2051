package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline/kafka"
)

// TestGroupAssignsEveryPartition: OnAssign knows the partitions before their work starts, and may be nil. The
// session timeout that the group is joined with is the configured one, else 10 s.
func TestGroupAssignsEveryPartition(t *testing.T) {
	check := func(what string, timeout, want time.Duration, hasOnAssign bool) {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		var mu sync.Mutex
		var joined []int32 // session timeouts in ms
		cluster.ControlKey(int16(kmsg.JoinGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
			mu.Lock()
			defer mu.Unlock()
			join := request.(*kmsg.JoinGroupRequest)
			if joined = append(joined, join.SessionTimeoutMillis); join.RebalanceTimeoutMillis != 30_000 { // work finishes its block before
				t.Errorf("%s: joined with a rebalance timeout of %d ms", what, join.RebalanceTimeoutMillis)
			}
			cluster.KeepControl()
			return nil, nil, false
		})
		cfg := kafka.Default()
		cfg.Brokers, cfg.Assign, cfg.Partitions = cluster.ListenAddrs(), kafka.AssignGroup, 3
		client, err := kafka.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if _, err := client.EnsureTopics(t.Context()); err != nil {
			t.Fatal(err)
		}

		var assigned, worked []int
		config := Config{Client: client, Topic: client.Topic("events"), Group: "g", SessionTimeout: timeout}
		if hasOnAssign {
			config.OnAssign = func(partitions []int) {
				mu.Lock()
				defer mu.Unlock()
				if len(worked) > 0 {
					t.Errorf("%s: work runs before OnAssign", what)
				}
				assigned = partitions
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = Run(ctx, config, quiet, func(ctx context.Context, p *Partition) error {
			mu.Lock()
			worked = append(worked, p.ID)
			if p.generation < 0 || p.member == "" || p.Topic() != config.Topic {
				t.Errorf("%s: %s has generation %d and member %q", what, p, p.generation, p.member)
			}
			if len(worked) == 3 {
				cancel()
			}
			mu.Unlock()
			<-ctx.Done()
			return nil
		})
		if err != nil || ctx.Err() == context.DeadlineExceeded {
			t.Errorf("%s: %v, %v", what, err, ctx.Err())
		}
		slices.Sort(worked)
		slices.Sort(assigned)
		if all := []int{0, 1, 2}; !slices.Equal(worked, all) || hasOnAssign && !slices.Equal(assigned, all) {
			t.Errorf("%s: work on %v, assigned %v", what, worked, assigned)
		}
		if len(joined) == 0 || joined[0] != int32(want.Milliseconds()) {
			t.Errorf("%s: joined with a session timeout of %v ms, want %v", what, joined, want)
		}
	}
	check("default", 0, 10*time.Second, true)
	check("own timeout", 17*time.Second, 17*time.Second, false)
}

// TestErrorOfWorkEndsRun: an error of one partition's work ends the work of the others and is returned with the name of the
// partition, when all work has ended and the group was left.
func TestErrorOfWorkEndsRun(t *testing.T) {
	for _, assign := range []string{kafka.AssignGroup, kafka.AssignStatic} {
		_, cfg := newThreePartitions(t, assign)
		var started sync.WaitGroup
		started.Add(3)
		var ended atomic.Int32
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := Run(ctx, cfg, quiet, func(ctx context.Context, p *Partition) error {
			started.Done()
			started.Wait()
			if p.ID == 1 {
				ended.Add(1)
				return kafkago.TopicAuthorizationFailed
			}
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // it ends what it has begun
			ended.Add(1)
			return nil
		})
		if ended.Load() != 3 || !errors.Is(err, kafkago.TopicAuthorizationFailed) || !strings.HasPrefix(err.Error(), cfg.Topic+"/1: ") || ctx.Err() != nil {
			t.Errorf("%s: %v, %d of 3 have ended", assign, err, ended.Load())
		}
		response, err := cfg.Client.Kafka().DescribeGroups(t.Context(), &kafkago.DescribeGroupsRequest{GroupIDs: []string{cfg.Group}})
		if err != nil || len(response.Groups) != 1 || len(response.Groups[0].Members) != 0 {
			t.Errorf("%s: the group has members: %+v, %v", assign, response, err)
		}
	}
}

// TestLostPartitionIsAssignedAgain: work that ends because the partition was lost ends its generation and nothing else.
func TestLostPartitionIsAssignedAgain(t *testing.T) {
	_, cfg := newThreePartitions(t, kafka.AssignGroup)
	lines := &lineLog{}
	log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	var calls atomic.Int32
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := Run(ctx, cfg, log, func(ctx context.Context, p *Partition) error {
		switch calls.Add(1) {
		case 3:
			return fmt.Errorf("commit: %w", ErrFenced)
		case 6:
			cancel()
		}
		<-ctx.Done()
		return nil
	})
	if err != nil || !errors.Is(ctx.Err(), context.Canceled) || calls.Load() != 6 {
		t.Errorf("%v, %v, %d calls", err, ctx.Err(), calls.Load())
	}
	var generations []string
	for line := range strings.Lines(lines.text.String()) {
		of, ok := strings.CutPrefix(line, "level=INFO msg=\"partitions assigned\" topic="+cfg.Topic+" generation=")
		if ok && strings.HasSuffix(of, " partitions=3\n") {
			generations = append(generations, strings.Fields(of)[0])
		}
	}
	if len(generations) != 2 || generations[0] == generations[1] {
		t.Fatalf("generations %q", generations)
	}
	lost := regexp.MustCompile(`(?m)^level=WARN msg="partition lost" topic=` + cfg.Topic + ` partition=[012] generation=` + generations[0] + "$")
	if got := len(lost.FindAllString(lines.text.String(), -1)); got != 1 || lines.count("\n") != 3 {
		t.Errorf("logged %s", lines.text.String())
	}
}

// TestGroupWithoutACoordinatorIsWaitedFor: the first failure is logged, and the end of the wait.
func TestGroupWithoutACoordinatorIsWaitedFor(t *testing.T) {
	cluster, cfg := newThreePartitions(t, kafka.AssignGroup)
	for range 2 {
		cluster.ControlKey(int16(kmsg.JoinGroup), func(request kmsg.Request) (kmsg.Response, error, bool) {
			response := request.ResponseKind().(*kmsg.JoinGroupResponse)
			response.ErrorCode = kerr.CoordinatorNotAvailable.Code
			return response, nil, true
		})
	}
	lines := &lineLog{}
	log := slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := Run(ctx, cfg, log, func(context.Context, *Partition) error { cancel(); return nil }); err != nil || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	of := " group=g topic=" + cfg.Topic
	want := regexp.MustCompile(`^level=WARN msg="waiting for the coordinator of the kafka consumer group"` + of + ` err=.*Coordinator.*
level=WARN msg="kafka consumer group joined again"` + of + ` after=[1-9].*s
level=INFO msg="partitions assigned"`)
	if got := lines.text.String(); !want.MatchString(got) {
		t.Errorf("logged %s", got)
	}
}

// TestRecordIsReadByItsOffset: a record within a batch, and offsets at which the log has none.
func TestRecordIsReadByItsOffset(t *testing.T) {
	partition, client := newPartition(t)
	var records []kafkago.Record
	for i := range 5 {
		records = append(records, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes([]byte{byte(i)})})
	}
	for range 2 {
		for i := range records {
			records[i].Value = kafkago.NewBytes([]byte{byte(i)})
		}
		if _, err := client.Produce(t.Context(), partition.Topic(), 0, records...); err != nil {
			t.Fatal(err)
		}
	}
	for offset := range int64(10) {
		record, found, err := partition.ReadRecord(t.Context(), offset)
		if err != nil || !found || record.Offset != offset || string(record.Value) != string([]byte{byte(offset % 5)}) {
			t.Errorf("offset %d: record %d with %q, %t, %v", offset, record.Offset, record.Value, found, err)
		}
	}
	for _, offset := range []int64{10, 99} {
		if record, found, err := partition.ReadRecord(t.Context(), offset); found || err != nil {
			t.Errorf("offset %d: record %d, %v", offset, record.Offset, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, found, err := partition.ReadRecord(ctx, 1); found || err == nil {
		t.Errorf("a request that was not sent: %t, %v", found, err)
	}
}

// TestFailedRequestPutsTheLogInDoubt: while requests fail the topic may be deleted and created.
func TestFailedRequestPutsTheLogInDoubt(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 1)
	loop := &fetchLoop{partition: partition, cfg: FetchConfig{MaxBytes: 1000, MaxWait: 50 * time.Millisecond}}
	if err := loop.identity.begin(t.Context(), partition, 0); err != nil {
		t.Fatal(err)
	}
	loop.outOfRange = 2
	response, err := loop.fetch(t.Context())
	if err != nil || response == nil || loop.identity.isInDoubt || loop.outOfRange != 0 || loop.pending.End != 1 {
		t.Errorf("%v, in doubt: %t, end %d", err, loop.identity.isInDoubt, loop.pending.End)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := loop.fetch(ctx); err == nil || !loop.identity.isInDoubt {
		t.Errorf("%v, in doubt: %t", err, loop.identity.isInDoubt)
	}
	// A later answer does not remove the doubt: only the comparison does.
	if _, err := loop.fetch(t.Context()); err != nil || !loop.identity.isInDoubt {
		t.Errorf("%v, in doubt: %t", err, loop.identity.isInDoubt)
	}
	if err := loop.identity.compare(t.Context(), partition); err != nil || loop.identity.isInDoubt {
		t.Errorf("%v, in doubt: %t", err, loop.identity.isInDoubt)
	}
}
