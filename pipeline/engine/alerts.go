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
	"tidegate/pipeline/kafka"
)

// raiseAlerts groups the block's verdicts into alerts, stores a revision of each alert that they touch, and
// publishes the revisions.
//
// The revisions depend only on the verdicts and on the alerts before the block, so that a repeat of the block
// stores and publishes the same ones. They are stored first: a worker that replays the block restores the
// grouper from the store, and a revision that was published and not stored would come out differently.
func (w *worker) raiseAlerts(ctx context.Context, b *block) error {
	began := time.Now()
	verdicts := w.groupVerdicts(b)
	revisions, opened := w.grouper.Flush()
	if len(revisions) > 0 {
		if err := w.insertAlerts(ctx, b, revisions, insertToken{block: w.blockID(b)}); err != nil {
			return err
		}
		w.deps.Failpoint(AfterAlertsInsert)
		if err := w.publishAlerts(ctx, revisions); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterAlertsPublish)

	w.metrics.verdicts.Add(uint64(verdicts))
	w.metrics.alerts.Add(uint64(len(opened)))
	w.metrics.revisions.Add(uint64(len(revisions)))
	w.metrics.observeStage("alerts", began)
	return nil
}

// groupVerdicts hands the verdicts of the stored events to the grouper and returns their number.
func (w *worker) groupVerdicts(b *block) (verdicts int) {
	for i := range b.messages {
		msg := &b.messages[i]
		if msg.rejected {
			continue
		}
		shipped := msg.batch.Shipped
		if shipped <= 0 {
			shipped = msg.record.Time
		}
		for _, e := range msg.batch.Events {
			if n := len(e.Verdicts); n > 0 {
				verdicts += n
				w.grouper.AddVerdicts(e, shipped, msg.record.Offset)
			}
		}
	}
	return verdicts
}

// insertAlerts stores revisions of alerts. Revisions that the store rejects are published all the same.
func (w *worker) insertAlerts(ctx context.Context, b *block, revisions []*pipeline.Alert, token insertToken) error {
	attempts := 0
	err := w.withRetry(ctx, "insert alerts", func() error {
		attempts++
		err := w.deps.Store.InsertAlerts(ctx, revisions, token.String())
		if errors.Is(err, pipeline.ErrRowsRejected) {
			w.metrics.alertsRejected.Add(uint64(len(revisions)))
			w.log.Error("store rejected alerts", "alerts", len(revisions), "err", err)
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}

	// The acknowledgement of the first attempt under an unused token can be trusted. A later one may be
	// acknowledged for the token alone, as in insertPart.
	repeated := attempts > 1 || b.replayed
	if !repeated || token.retry || !w.deps.Store.AckedRowsMayBeLost() {
		return nil
	}
	missing, err := w.missingAlerts(ctx, b, revisions)
	if err != nil || len(missing) == 0 {
		return err
	}
	w.log.Error("store acknowledged alerts that it does not hold, inserting them again",
		"token", token.String(), "alerts", len(missing))
	return w.insertAlerts(ctx, b, missing, token.forRetry())
}

// missingAlerts returns the revisions of which the store holds neither the revision nor a later one.
func (w *worker) missingAlerts(
	ctx context.Context, b *block, revisions []*pipeline.Alert,
) (missing []*pipeline.Alert, err error) {
	err = w.withRetry(ctx, "query the alerts of a block", func() error {
		stored, err := w.deps.Store.AlertsBefore(ctx, w.source.Partition, b.end, w.cfg.Grouping.Lookback())
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

// maxProduceBytes bounds one produce request to the alerts topic, which takes 1 MB.
const maxProduceBytes = 256 << 10

// publishAlerts writes the revisions to the alerts topic. The fingerprint is the key and selects the
// partition, so that the revisions of one fingerprint stay in order.
func (w *worker) publishAlerts(ctx context.Context, revisions []*pipeline.Alert) error {
	// Distribute the messages over the partitions of the topic.
	byPartition := make([][]kafkaMessage, w.alertPartitions)
	for _, alert := range revisions {
		value, err := json.Marshal(alert)
		if err != nil {
			return fmt.Errorf("encode alert %s: %w", alert.ID, err)
		}
		target := int(xxh3.HashString(alert.Fingerprint) % uint64(w.alertPartitions))
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
		// The records are made for each attempt, because sending consumes the readers in them.
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
