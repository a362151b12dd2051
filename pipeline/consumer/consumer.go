// Package consumer reads a Kafka topic for a stage that commits its offsets itself: the engine, which reads
// events, and the publisher, which reads alerts.
//
// The stage calls Run with a Func. Run calls the Func once for each partition that this process owns: all of
// them, or its share in a consumer group. The Func fetches the committed offset, reads records with Fetch
// and commits with Commit. Nothing here decodes a record; one that a stage cannot use is written to the
// dead-letter topic with WriteDeadLetter.
//
// Exactly-once storage needs four things that kafka-go's Reader does not have: the metadata of a committed
// offset is read and written; a commit that the broker fences is ErrFenced (kafka-go returns nil); after a
// rebalance nothing of the old generation is handed out; records are prefetched within a budget of bytes.
//
// A Partition belongs to the goroutine of its Func. A Fetcher adds one goroutine to it, which ends with the
// context of Fetch.
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
	"tidegate/pipeline/logging"
	"tidegate/pipeline/retry"
)

// ErrFenced is returned when the broker rejects this generation: another member of the group owns the
// partition now, and will read again what is not committed.
var ErrFenced = errors.New("partition is owned by another member of the group")

// Config names the topic and the consumer group. Whether the partitions are shared out by the group or all
// belong to this process is the client's setting (kafka.assign).
type Config struct {
	Client *kafka.Client
	Topic  string // full name
	Group  string

	// OnAssign is called with the partitions of each generation of a group before work starts on them. It may be
	// nil, and is not called for a static assignment.
	OnAssign func(partitions []int)

	SessionTimeout time.Duration // in a group, how long a member may miss heartbeats before it loses its partitions; 0: 10 s
}

// A Func reads one partition until ctx ends. It passes its ctx to every request and insert, because a
// rebalance waits until the Func has returned. It returns nil when ctx ended, ErrFenced when the partition
// was lost, and any other error only to stop the process: it retries temporary errors itself.
type Func func(ctx context.Context, p *Partition) error

// Run calls work for every partition that this process owns, each in its own goroutine, until ctx ends or one
// of them returns an error other than ErrFenced. It returns that error.
func Run(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	if cfg.Client.Config().Assign == kafka.AssignStatic {
		return runStatic(ctx, cfg, log, work)
	}
	return runGroup(ctx, cfg, log, work)
}

// runStatic owns every partition, also those that are added later. It commits with generation -1, which a broker
// accepts while the group has no members. The lock on the state folder keeps a second process out.
func runStatic(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for owned := 0; ; {
		partitions := 0
		if err := cfg.retry(ctx, log, "find topic "+cfg.Topic, func() (err error) {
			partitions, err = cfg.Client.Partitions(ctx, cfg.Topic)
			return err
		}); err != nil {
			break // ctx ended
		}
		if owned > 0 && partitions > owned {
			log.Info("topic has more partitions", "topic", cfg.Topic, "before", owned, "now", partitions)
		}
		for ; owned < partitions; owned++ {
			partition := &Partition{ID: owned, cfg: cfg, log: log, generation: -1}
			wg.Go(func() {
				if err := work(ctx, partition); err != nil {
					cancel(fmt.Errorf("%s/%d: %w", cfg.Topic, partition.ID, err))
				}
			})
		}
		if retry.Sleep(ctx, watchInterval) != nil {
			break
		}
	}
	wg.Wait()
	return causeOfEnd(ctx)
}

// runGroup shares the partitions with the other members of the group. kafka-go ends a generation as soon as
// one of its functions returns and then waits for all of them, so no Func returns on a temporary error. Every
// error of Next is temporary: a broker that has just started first answers "group coordinator not available".
func runGroup(ctx context.Context, cfg Config, log *slog.Logger, work Func) error {
	session := cfg.SessionTimeout
	if session == 0 {
		session = 10 * time.Second
	}
	group, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: cfg.Group, Brokers: cfg.Client.Brokers(), Dialer: cfg.Client.Dialer(), Topics: []string{cfg.Topic},
		StartOffset: kafkago.FirstOffset, JoinGroupBackoff: 300 * time.Millisecond, WatchPartitionChanges: true,
		PartitionWatchInterval: watchInterval,
		SessionTimeout:         session, HeartbeatInterval: session / 5, RebalanceTimeout: 30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", cfg.Group, err)
	}
	defer group.Close() // leaves the group; waits for the work of the last generation

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for {
		generation, err := cfg.nextGeneration(ctx, log, group)
		if err != nil {
			return causeOfEnd(ctx)
		}
		startGeneration(ctx, cancel, cfg, log, generation, work)
	}
}

// nextGeneration returns the next generation of the group, or an error when ctx ends. It logs the first failure
// and then one a minute, and that the group is there again.
func (c Config) nextGeneration(
	ctx context.Context, log *slog.Logger, group *kafkago.ConsumerGroup,
) (*kafkago.Generation, error) {
	log = log.With("group", c.Group, "topic", c.Topic)
	backoff := retry.Backoff{Min: 300 * time.Millisecond}
	throttle := logging.NewThrottle(time.Minute)
	logged, began := false, time.Now()
	for {
		generation, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil && logged:
			log.Warn("kafka consumer group joined again", "after", time.Since(began).Round(time.Millisecond))
			fallthrough
		case err == nil:
			return generation, nil
		}
		if !c.Client.ReportFailure(err) {
			if _, ok := throttle.Allow(); ok {
				logged = true
				log.Warn("waiting for the coordinator of the kafka consumer group", "err", err)
			}
		}
		if err := backoff.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// causeOfEnd returns why ctx ended, and nil where it was cancelled or timed out from outside.
func causeOfEnd(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// startGeneration calls work for each partition that this generation of the group assigned to this process.
func startGeneration(
	ctx context.Context, cancel context.CancelCauseFunc, cfg Config, log *slog.Logger,
	generation *kafkago.Generation, work Func,
) {
	assigned := generation.Assignments[cfg.Topic]
	if cfg.OnAssign != nil {
		ids := make([]int, len(assigned))
		for i, assignment := range assigned {
			ids[i] = assignment.ID
		}
		cfg.OnAssign(ids)
	}
	log.Info("partitions assigned", "topic", cfg.Topic, "generation", generation.ID, "partitions", len(assigned))
	generation.Start(func(generationCtx context.Context) { cfg.watchAssignment(generationCtx, log) })
	for _, assignment := range assigned {
		partition := &Partition{
			ID: assignment.ID, cfg: cfg, log: log, generation: int(generation.ID), member: generation.MemberID,
		}
		generation.Start(func(generationCtx context.Context) {
			// The work ends with the generation and with Run.
			both, stop := context.WithCancel(generationCtx)
			defer stop()
			defer context.AfterFunc(ctx, stop)()

			err := work(both, partition)
			switch {
			case err == nil:
			case errors.Is(err, ErrFenced):
				log.Warn("partition lost",
					"topic", cfg.Topic, "partition", partition.ID, "generation", partition.generation)
			default:
				cancel(fmt.Errorf("%s/%d: %w", cfg.Topic, partition.ID, err))
			}
		})
	}
}

// Retry calls attempt until it succeeds, with growing pauses of up to 5 s. It logs the first failure and then
// one a minute. It returns an error only when ctx ends, or when the error of attempt is ErrFenced or ErrLogReplaced.
func Retry(ctx context.Context, log *slog.Logger, what string, attempt func() error) error {
	return retryUnless(ctx, log, what, func(error) bool { return false }, attempt)
}

// retry is Retry for a request to Kafka. Failures during an outage of Kafka are logged by its monitor.
func (c Config) retry(ctx context.Context, log *slog.Logger, what string, attempt func() error) error {
	return retryUnless(ctx, log, what, c.Client.ReportFailure, attempt)
}

// retryUnless is Retry without lines about errors for which isLogged reports true.
func retryUnless(
	ctx context.Context, log *slog.Logger, what string, isLogged func(error) bool, attempt func() error,
) error {
	var backoff retry.Backoff
	throttle := logging.NewThrottle(time.Minute)
	for {
		err := attempt()
		if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrLogReplaced) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if isLogged(err) {
			// one line of the monitor is for all requests
		} else if _, ok := throttle.Allow(); ok {
			log.Warn("retrying", "what", what, "attempt", backoff.Attempts()+1, "err", err)
		}
		if err := backoff.Wait(ctx); err != nil {
			return err
		}
	}
}
