// Package consumer is how a stage reads a Kafka topic when it commits by itself: which partitions are its own, where each was
// left, what is in it, and the commit that is refused once somebody else owns it.
//
// The engine and the alert publisher call Run with a function; Run gives that function every partition that this process owns
// (all of them, or its share in a consumer group) and the function reads with Fetch and says how far it is with Commit. It differs
// from kafka-go's Reader in what exactly-once needs: the metadata of an offset is read and written, fencing is an error of its own
// (kafka-go returns nil for it), nothing of an old generation is handed out after a rebalance, and bytes are fetched ahead within
// a budget.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/kafka"
)

// ErrFenced says that the partition belongs to another generation by now: what is not yet acknowledged is the next owner's.
var ErrFenced = errors.New("partition is owned by another member of the group")

// Config says what is read and under which name. Whether partitions are shared out by a group or are all ours is the client's
// setting (assign).
type Config struct {
	Client *kafka.Client
	Topic  string // full name
	Group  string

	SessionTimeout time.Duration // group: how long a silent member keeps its partitions; 0 is 10 s
}

// A Func reads one partition until ctx ends. Its ctx goes into every request and insert, for a rebalance waits until the Func
// has returned. It returns nil when ctx ended, ErrFenced when the partition was lost, and any other error only for what stops
// the process: errors that pass are its own to retry.
type Func func(ctx context.Context, p *Partition) error

// Run calls work for every partition that this process owns, each in a goroutine of its own, until ctx ends or one of them
// returns an error that does not pass.
func Run(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	if cfg.Client.Config().Assign == kafka.AssignStatic {
		return runStatic(ctx, cfg, log, work)
	}
	return runGroup(ctx, cfg, log, work)
}

// runStatic owns every partition. Its commits carry generation -1, which a broker takes while the group has no members; the lock
// on the data folder is what keeps a second process out.
func runStatic(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	n := 0
	if err := Retry(ctx, log, "find topic "+cfg.Topic, func() (err error) {
		n, err = cfg.Client.Partitions(ctx, cfg.Topic)
		return err
	}); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for id := range n {
		p := &Partition{ID: id, cfg: cfg, log: log, generation: -1}
		wg.Go(func() {
			if err := work(ctx, p); err != nil {
				cancel(fmt.Errorf("%s/%d: %w", cfg.Topic, p.ID, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// runGroup shares the partitions with the other members. kafka-go ends a generation as soon as one of its functions returns and
// waits for all of them, so no work returns on an error that passes; on any error of Next (a fresh broker first answers 15) the
// group is asked again.
func runGroup(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	session := cfg.SessionTimeout
	if session == 0 {
		session = 10 * time.Second
	}
	g, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: cfg.Group, Brokers: cfg.Client.Brokers(), Dialer: cfg.Client.Dialer(), Topics: []string{cfg.Topic},
		StartOffset: kafkago.FirstOffset, JoinGroupBackoff: 300 * time.Millisecond, WatchPartitionChanges: true,
		SessionTimeout: session, HeartbeatInterval: session / 5, RebalanceTimeout: 30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", cfg.Group, err)
	}
	defer g.Close() // leaves the group; waits for the work of the last generation

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for {
		gen, err := g.Next(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			log.Warn("waiting for the Kafka consumer group coordinator", "group", cfg.Group, "topic", cfg.Topic, "err", err)
			continue // kafka-go itself waits JoinGroupBackoff
		}
		startGeneration(ctx, cancel, cfg, log, gen, work)
	}
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// startGeneration hands the partitions of one generation to work.
func startGeneration(ctx context.Context, cancel context.CancelCauseFunc, cfg Config, log *slog.Logger, gen *kafkago.Generation, work Func) {
	log.Info("partitions assigned", "topic", cfg.Topic, "generation", gen.ID, "partitions", len(gen.Assignments[cfg.Topic]))
	for _, as := range gen.Assignments[cfg.Topic] {
		p := &Partition{ID: as.ID, cfg: cfg, log: log, generation: int(gen.ID), member: gen.MemberID}
		gen.Start(func(genCtx context.Context) {
			both, stop := context.WithCancel(genCtx)
			defer stop()
			defer context.AfterFunc(ctx, stop)()
			err := work(both, p)
			switch {
			case err == nil:
			case errors.Is(err, ErrFenced):
				log.Warn("partition lost", "topic", cfg.Topic, "partition", p.ID, "generation", p.generation)
			default:
				cancel(fmt.Errorf("%s/%d: %w", cfg.Topic, p.ID, err))
			}
		})
	}
}

// Retry calls f until it succeeds, waiting longer each time; it logs the first failure and then one a minute. It returns only
// ctx's error, or an error of f that is ErrFenced.
func Retry(ctx context.Context, log *slog.Logger, what string, f func() error) error {
	var said time.Time
	for n := 0; ; n++ {
		err := f()
		if err == nil || errors.Is(err, ErrFenced) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(said) > time.Minute {
			log.Warn("retrying", "what", what, "attempt", n+1, "err", err)
			said = time.Now()
		}
		if err := Pause(ctx, n); err != nil {
			return err
		}
	}
}

// Pause waits before attempt n+1: 50 ms, doubling up to 5 s.
func Pause(ctx context.Context, n int) error {
	t := time.NewTimer(min(50*time.Millisecond<<min(n, 10), 5*time.Second))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
