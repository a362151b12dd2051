package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/zeebo/xxh3"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/kafka"
)

// storeAlerts stores a revision of each alert of the grouper that the block has touched, and publishes the revisions.
//
// They depend only on the matches and on the alerts before the block, so a replay of the block stores and publishes the same ones.
// They are stored before they are published, because a later worker restores the grouper from the store: a published revision that is not
// stored would be issued again with other content.
func (f *foldWorker) storeAlerts(ctx context.Context, block *block) error {
	began := time.Now()
	revisions, opened := f.grouper.Flush()
	if len(revisions) > 0 {
		if err := f.confirmOwnership(ctx, block); err != nil {
			return err
		}
		if err := f.insertAlerts(ctx, block, revisions, insertToken{block: f.blockID(block)}); err != nil {
			return err
		}
		f.deps.Failpoint(AfterAlertsInsert)
		if err := f.confirmOwnership(ctx, block); err != nil {
			return err
		}
		if err := f.publishAlerts(ctx, revisions); err != nil {
			return err
		}
	}
	f.deps.Failpoint(AfterAlertsPublish)

	// The alerts of the block are complete only here.
	f.metrics.verdicts.Add(uint64(len(f.matches))) // those of rules over one event are counted where they are written
	f.metrics.alerts.Add(uint64(len(opened)))
	f.metrics.revisions.Add(uint64(len(revisions)))
	f.metrics.observeStage("alerts", began)
	return nil
}

// correctGrouper restores the grouper if its windows lie ahead of the block. A worker that restarts here does
// the same, so a replay of the block yields the same alerts.
func (f *foldWorker) correctGrouper(ctx context.Context, block *block) error {
	if !f.grouper.IsAheadOf(block.time) {
		return nil
	}
	f.metrics.clockCorrections.Add(1)
	f.log.Warn("alert windows lie ahead of the clock, which was ahead for some time; they are restored without these",
		"allowed_lateness", f.cfg.Grouping.AllowedLateness)
	return f.withRetry(ctx, "restore the alert windows", func() error {
		return f.restoreGrouper(ctx, f.blockID(block), block.time)
	})
}

// alertFilter selects the alerts that a match in a block of the given time may touch, without the revisions
// of the block except.
func (f *foldWorker) alertFilter(except pipeline.BlockID, blockTime int64) pipeline.AlertFilter {
	return pipeline.AlertFilter{
		TopicPartition: f.source, Except: except,
		Latest: time.Unix(0, f.grouper.LatestStart(blockTime)), Lookback: f.grouper.Lookback(),
	}
}

// restoreGrouper restores the grouper from the alerts of all blocks but one, for a block of the given time.
func (f *foldWorker) restoreGrouper(ctx context.Context, except pipeline.BlockID, blockTime int64) error {
	f.grouper.SetPolicies(f.currentBundle().Policies)
	grouper := alerts.NewGrouper(f.cfg.Grouping, f.source.Partition).ForTopic(f.source.Topic)
	grouper.SetPolicies(f.currentBundle().Policies)
	openAlerts, err := f.deps.Store.NewestAlerts(ctx, f.alertFilter(except, blockTime))
	if err != nil {
		return err
	}
	grouper.Restore(openAlerts)
	f.grouper = grouper
	return nil
}

// insertAlerts stores revisions of alerts. It counts and logs revisions that the store rejects, and returns
// nil for them, so that they are still published. As with events, revisions may be stored although their
// insert failed, for example because a materialized view on the table fails.
func (f *foldWorker) insertAlerts(ctx context.Context, block *block, revisions []*pipeline.Alert, token insertToken) error {
	attempts := 0
	err := f.withRetry(ctx, "insert alerts", func() error {
		attempts++
		err := f.deps.Store.InsertAlerts(ctx, revisions, token.String())
		rejected := errors.Is(err, pipeline.ErrRowsRejected)
		if rejected || err != nil && attempts > 1 {
			missing, lookupErr := f.missingAlerts(ctx, block, revisions)
			if lookupErr != nil {
				return lookupErr
			}
			if len(missing) == 0 {
				f.metrics.storedDespiteError.Add(1)
				f.logWarning(f.throttles.view, "alerts are stored, although their insert failed",
					"token", token.String(), "alerts", len(revisions), "err", err)
				return nil
			}
		}
		if rejected {
			f.metrics.alertsRejected.Add(uint64(len(revisions)))
			f.log.Error("store rejected alerts", "alerts", len(revisions), "err", err)
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}

	// The first attempt under an unused token has stored the revisions. A later attempt may be acknowledged
	// only because the store holds the token, as in insertPart.
	repeated := attempts > 1 || block.replayed
	if !repeated || token.retry || !f.deps.Store.AckedRowsMayBeLost() {
		return nil
	}
	missing, err := f.missingAlerts(ctx, block, revisions)
	if err != nil || len(missing) == 0 {
		return err
	}
	f.log.Error("store acknowledged alerts that it does not hold, inserting them again",
		"token", token.String(), "alerts", len(missing))
	return f.insertAlerts(ctx, block, missing, token.forRetry())
}

// missingAlerts returns the revisions that are not stored and have no later revision in the store.
func (f *foldWorker) missingAlerts(
	ctx context.Context, block *block, revisions []*pipeline.Alert,
) (missing []*pipeline.Alert, err error) {
	err = f.withRetry(ctx, "query the alerts of a block", func() error {
		stored, err := f.deps.Store.NewestAlerts(ctx, f.alertFilter(pipeline.BlockID{}, block.time))
		if err != nil {
			return err
		}
		newest := make(map[string]uint64, len(stored)) // revision by id
		for _, alert := range stored {
			newest[alert.ID] = alert.Revision
		}
		missing = missing[:0]
		for _, alert := range revisions {
			if newest[alert.ID] < alert.Revision {
				missing = append(missing, alert)
			}
		}
		return nil
	})
	return missing, err
}

// maxProduceBytes bounds one produce request to the alerts topic, whose limit is 1 MB.
const maxProduceBytes = 256 << 10

// publishAlerts writes the revisions to the alerts topic. The fingerprint is the key and determines the
// partition, so that the revisions of one fingerprint stay in order.
func (f *foldWorker) publishAlerts(ctx context.Context, revisions []*pipeline.Alert) error {
	// Distribute the messages over the partitions of the topic.
	byPartition := make([][]kafkaMessage, f.alertPartitions.Load())
	for _, alert := range revisions {
		value, err := json.Marshal(alert)
		if err != nil {
			return fmt.Errorf("encode alert %s: %w", alert.ID, err)
		}
		target := int(xxh3.HashString(alert.Fingerprint) % uint64(len(byPartition)))
		byPartition[target] = append(byPartition[target], kafkaMessage{[]byte(alert.Fingerprint), value})
	}

	// Send each partition's messages in requests of at most maxProduceBytes; a larger message goes alone.
	for partition, messages := range byPartition {
		for len(messages) > 0 {
			count, size := 0, 0
			for count < len(messages) && (count == 0 || size+len(messages[count].value) <= maxProduceBytes) {
				size += len(messages[count].value)
				count++
			}
			if err := f.produceAlerts(ctx, partition, messages[:count]); err != nil {
				return err
			}
			messages = messages[count:]
		}
	}
	return nil
}

type kafkaMessage struct{ key, value []byte }

// produceAlerts writes messages to one partition of the alerts topic. Messages that Kafka rejects are logged
// and left out.
func (f *foldWorker) produceAlerts(ctx context.Context, partition int, messages []kafkaMessage) error {
	topic := f.deps.Kafka.Topic(pipeline.TopicAlerts)
	return f.withRetry(ctx, "publish alerts", func() error {
		// Each attempt needs new records, because sending consumes the readers in them.
		records := make([]kafkago.Record, len(messages))
		for i, m := range messages {
			key, value := kafkago.NewBytes(m.key), kafkago.NewBytes(m.value)
			records[i] = kafkago.Record{Time: time.Now(), Key: key, Value: value}
		}
		_, err := f.deps.Kafka.Produce(ctx, topic, partition, records...)
		if err != nil && kafka.Classify(err) == kafka.Rejected {
			f.log.Error("alerts topic rejected alerts", "alerts", len(messages), "err", err)
			return nil
		}
		return err
	})
}
