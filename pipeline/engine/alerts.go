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

// raiseAlerts groups the block's verdicts into alerts, stores a revision of each alert that has new verdicts,
// and publishes the revisions.
//
// The revisions depend only on the verdicts and on the alerts before the block, so a replay of the block
// stores and publishes the same ones. They are stored before they are published, because a later worker
// restores the grouper from the store: a published revision that is not stored would be issued again with
// other content.
func (w *worker) raiseAlerts(ctx context.Context, block *block) error {
	began := time.Now()
	if err := w.correctGrouper(ctx, block); err != nil {
		return err
	}
	w.grouper.SetPolicies(block.bundle.Policies)
	verdicts := w.groupVerdicts(block)
	if err := w.storeAlerts(ctx, block, verdicts); err != nil {
		return err
	}
	w.metrics.observeStage("alerts", began)
	return nil
}

// storeAlerts stores and publishes a revision of each alert of the grouper that the block has touched.
func (w *worker) storeAlerts(ctx context.Context, block *block, verdicts int) error {
	revisions, opened := w.grouper.Flush()
	if len(revisions) > 0 {
		if err := w.confirmOwnership(ctx, block); err != nil {
			return err
		}
		if err := w.insertAlerts(ctx, block, revisions, insertToken{block: w.blockID(block)}); err != nil {
			return err
		}
		w.deps.Failpoint(AfterAlertsInsert)
		if err := w.confirmOwnership(ctx, block); err != nil {
			return err
		}
		if err := w.publishAlerts(ctx, revisions); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterAlertsPublish)

	// The alerts of the block are complete only here.
	w.metrics.verdicts.Add(uint64(verdicts))
	w.metrics.alerts.Add(uint64(len(opened)))
	w.metrics.revisions.Add(uint64(len(revisions)))
	return nil
}

// correctGrouper restores the grouper if its windows lie ahead of the block. A worker that restarts here does
// the same, so a replay of the block yields the same alerts.
func (w *worker) correctGrouper(ctx context.Context, block *block) error {
	if !w.grouper.IsAheadOf(block.time) {
		return nil
	}
	w.metrics.clockCorrections.Add(1)
	w.log.Warn("alert windows lie ahead of the clock, which was ahead for some time; they are restored without these",
		"allowed_lateness", w.cfg.Grouping.AllowedLateness)
	return w.withRetry(ctx, "restore the alert windows", func() error {
		return w.restoreGrouper(ctx, w.blockID(block), block.time)
	})
}

// alertFilter selects the alerts that a match in a block of the given time may touch, without the revisions
// of the block except.
func (w *worker) alertFilter(except pipeline.BlockID, blockTime int64) pipeline.AlertFilter {
	return pipeline.AlertFilter{
		TopicPartition: w.source, Except: except,
		Latest: time.Unix(0, w.grouper.LatestStart(blockTime)), Lookback: w.grouper.Lookback(),
	}
}

// restoreGrouper restores the grouper from the alerts of all blocks but one, for a block of the given time.
func (w *worker) restoreGrouper(ctx context.Context, except pipeline.BlockID, blockTime int64) error {
	w.grouper.SetPolicies(w.currentBundle().Policies)
	grouper := alerts.NewGrouper(w.cfg.Grouping, w.source.Partition).ForTopic(w.source.Topic)
	grouper.SetPolicies(w.currentBundle().Policies)
	openAlerts, err := w.deps.Store.NewestAlerts(ctx, w.alertFilter(except, blockTime))
	if err != nil {
		return err
	}
	grouper.Restore(openAlerts)
	w.grouper = grouper
	return nil
}

// groupVerdicts adds the verdicts of the stored events to the grouper and returns their number.
func (w *worker) groupVerdicts(block *block) (verdicts int) {
	for i := range block.messages {
		msg := &block.messages[i]
		if msg.rejection != nil {
			continue // its events are not stored
		}
		shipped := msg.shippedTime()
		for _, event := range msg.batch.Events {
			if n := len(event.Verdicts); n > 0 {
				verdicts += n
				w.grouper.AddVerdicts(event, shipped, msg.record.Offset)
			}
		}
	}
	return verdicts
}

// insertAlerts stores revisions of alerts. It counts and logs revisions that the store rejects, and returns
// nil for them, so that they are still published. As with events, revisions may be stored although their
// insert failed, for example because a materialized view on the table fails.
func (w *worker) insertAlerts(ctx context.Context, block *block, revisions []*pipeline.Alert, token insertToken) error {
	attempts := 0
	err := w.withRetry(ctx, "insert alerts", func() error {
		attempts++
		err := w.deps.Store.InsertAlerts(ctx, revisions, token.String())
		rejected := errors.Is(err, pipeline.ErrRowsRejected)
		if rejected || err != nil && attempts > 1 {
			missing, lookupErr := w.missingAlerts(ctx, block, revisions)
			if lookupErr != nil {
				return lookupErr
			}
			if len(missing) == 0 {
				w.metrics.storedDespiteError.Add(1)
				w.logWarning(w.throttles.view, "alerts are stored, although their insert failed",
					"token", token.String(), "alerts", len(revisions), "err", err)
				return nil
			}
		}
		if rejected {
			w.metrics.alertsRejected.Add(uint64(len(revisions)))
			w.log.Error("store rejected alerts", "alerts", len(revisions), "err", err)
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
	if !repeated || token.retry || !w.deps.Store.AckedRowsMayBeLost() {
		return nil
	}
	missing, err := w.missingAlerts(ctx, block, revisions)
	if err != nil || len(missing) == 0 {
		return err
	}
	w.log.Error("store acknowledged alerts that it does not hold, inserting them again",
		"token", token.String(), "alerts", len(missing))
	return w.insertAlerts(ctx, block, missing, token.forRetry())
}

// missingAlerts returns the revisions that are not stored and have no later revision in the store.
func (w *worker) missingAlerts(
	ctx context.Context, block *block, revisions []*pipeline.Alert,
) (missing []*pipeline.Alert, err error) {
	err = w.withRetry(ctx, "query the alerts of a block", func() error {
		stored, err := w.deps.Store.NewestAlerts(ctx, w.alertFilter(pipeline.BlockID{}, block.time))
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
func (w *worker) publishAlerts(ctx context.Context, revisions []*pipeline.Alert) error {
	// Distribute the messages over the partitions of the topic.
	byPartition := make([][]kafkaMessage, w.alertPartitions.Load())
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
			if err := w.produceAlerts(ctx, partition, messages[:count]); err != nil {
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
func (w *worker) produceAlerts(ctx context.Context, partition int, messages []kafkaMessage) error {
	topic := w.deps.Kafka.Topic(pipeline.TopicAlerts)
	return w.withRetry(ctx, "publish alerts", func() error {
		// Each attempt needs new records, because sending consumes the readers in them.
		records := make([]kafkago.Record, len(messages))
		for i, m := range messages {
			key, value := kafkago.NewBytes(m.key), kafkago.NewBytes(m.value)
			records[i] = kafkago.Record{Time: time.Now(), Key: key, Value: value}
		}
		_, err := w.deps.Kafka.Produce(ctx, topic, partition, records...)
		if err != nil && kafka.Classify(err) == kafka.Rejected {
			w.log.Error("alerts topic rejected alerts", "alerts", len(messages), "err", err)
			return nil
		}
		return err
	})
}
