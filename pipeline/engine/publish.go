package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/zeebo/xxh3"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// raiseAlerts folds the block's verdicts, stores a revision of each alert that they touch, and publishes it.
func (w *worker) raiseAlerts(ctx context.Context, b *block) error {
	began := time.Now()
	verdicts := 0
	for i := range b.messages {
		m := &b.messages[i]
		if m.deadLettered {
			continue
		}
		shipped := m.batch.Shipped
		if shipped <= 0 {
			shipped = m.record.Time
		}
		for _, e := range m.batch.Events {
			if n := len(e.Verdicts); n > 0 {
				verdicts += n
				w.grouper.AddVerdicts(e, shipped, m.record.Offset)
			}
		}
	}
	list, opened := w.grouper.Flush()
	if len(list) > 0 {
		if err := w.insertAlerts(ctx, b, list, w.token(b)); err != nil {
			return err
		}
		w.deps.Failpoint(AfterAlertsInsert)
		if err := w.publishAlerts(ctx, list); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterAlertsPublish)
	w.metrics.verdicts.Add(uint64(verdicts))
	w.metrics.alerts.Add(uint64(len(opened)))
	w.metrics.revisions.Add(uint64(len(list)))
	w.metrics.stageSeconds.WithLabelValues("alerts").Observe(time.Since(began).Seconds())
	return nil
}

// insertAlerts inserts the revisions. A store that refuses them for good does not keep them from being published.
func (w *worker) insertAlerts(ctx context.Context, b *block, list []*pipeline.Alert, token string) error {
	tries := 0
	err := w.retry(ctx, "insert alerts", func() error {
		tries++
		err := w.deps.Store.InsertAlerts(ctx, list, token)
		if err != nil && w.deps.Store.IsPermanent(err) {
			w.metrics.alertsRejected.Add(uint64(len(list)))
			w.log.Error("store refused alerts for good", "alerts", len(list), "err", err)
			return nil
		}
		return err
	})
	if err != nil || tries == 1 && !b.replayed || !w.deps.Store.AckedRowsMayBeLost() || strings.HasSuffix(token, "~") {
		return err
	}
	lacking, err := w.missingAlerts(ctx, b, list)
	if err != nil || len(lacking) == 0 {
		return err
	}
	w.log.Error("store took alerts and does not have them; inserting them again", "token", token, "alerts", len(lacking))
	return w.insertAlerts(ctx, b, lacking, token+"~")
}

// missingAlerts asks which revisions are not there, after an insert that was repeated: as in verify, a killed server may remember the
// token alone.
func (w *worker) missingAlerts(ctx context.Context, b *block, list []*pipeline.Alert) (lacking []*pipeline.Alert, err error) {
	err = w.retry(ctx, "ask for the alerts of a block", func() error {
		there, err := w.deps.Store.AlertsBefore(ctx, w.partition, b.end, w.cfg.Alerts.Lookback())
		if err != nil {
			return err
		}
		last := make(map[string]uint64, len(there))
		for _, a := range there {
			last[a.ID] = a.Revision
		}
		lacking = lacking[:0]
		for _, a := range list {
			if last[a.ID] < a.Revision {
				lacking = append(lacking, a)
			}
		}
		return nil
	})
	return lacking, err
}

// maxProduceBytes is how much goes to the alerts topic in one request: it takes 1 MB.
const maxProduceBytes = 256 << 10

// publishAlerts writes the revisions to the alerts topic, keyed by fingerprint, those of one fingerprint into one partition.
func (w *worker) publishAlerts(ctx context.Context, list []*pipeline.Alert) error {
	type letter struct{ key, value []byte }
	byPartition := make([][]letter, w.alertPartitions)
	for _, a := range list {
		value, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encode alert %s: %w", a.ID, err)
		}
		p := int(xxh3.HashString(a.Fingerprint) % uint64(w.alertPartitions))
		byPartition[p] = append(byPartition[p], letter{[]byte(a.Fingerprint), value})
	}
	topic := w.deps.Kafka.Topic(pipeline.TopicAlerts)
	for p, letters := range byPartition {
		for len(letters) > 0 {
			n, size := 0, 0
			for n < len(letters) && (n == 0 || size+len(letters[n].value) <= maxProduceBytes) {
				size += len(letters[n].value)
				n++
			}
			part := letters[:n]
			letters = letters[n:]
			if err := w.retry(ctx, "publish alerts", func() error {
				records := make([]kafkago.Record, len(part))
				for i, l := range part {
					records[i] = kafkago.Record{Time: time.Now(), Key: kafkago.NewBytes(l.key), Value: kafkago.NewBytes(l.value)}
				}
				_, err := w.deps.Kafka.Produce(ctx, topic, p, records...)
				if err != nil && kafka.Classify(err) == kafka.Rejected {
					w.log.Error("alerts topic refused alerts for good", "alerts", len(part), "err", err)
					return nil
				}
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
