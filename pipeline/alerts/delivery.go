package alerts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/logging"
)

// A deliverer delivers one partition of the alerts topic to one destination. One goroutine runs it.
type deliverer struct {
	*Publisher
	destination    namedDestination
	partition      *consumer.Partition
	partitionLabel string // the partition, as metrics name it
	log            *slog.Logger
	failureLog     *logging.Throttle

	open       map[string]*openAlert // by the destination's key
	closed     closedAlerts
	pending    int // number of open alerts that are pending
	health     destinationHealth
	nextOffset int64 // offset behind the last message that was read for delivery
	resumed    progress
	mark       recordMark // of the newest message that was read
	isReplaced bool       // the topic was created anew, and delivery has not begun at its beginning yet
	committed  commit
	// committedAt is the time of the last attempt to commit.
	committedAt time.Time
}

// An openAlert is the state of one alert at the destination. The package documentation lists the states.
type openAlert struct {
	newest   *pipeline.Alert // newest revision
	first    *pipeline.Alert // revision that opened it here
	updated  time.Time       // when the newest revision was written to the topic
	lastSent time.Time       // when the destination last accepted or rejected a notification of it; zero: never
	// undelivered is the offset of the oldest message whose revision was neither delivered nor replaced by
	// one that was delivered; noOffset if there is none.
	undelivered int64
	accepted    bool // the destination has accepted its last notification, or an earlier run has sent it
	alone       bool // it was in a batch that failed, and is sent without others
	failing     failureState
}

const noOffset = -1

// pending reports whether a revision waits for delivery.
func (a *openAlert) pending() bool { return a.undelivered >= 0 }

const (
	commitInterval = time.Second
	failureLogRate = time.Minute
	closeTimeout   = 3 * time.Second
)

func newDeliverer(p *Publisher, to namedDestination, partition *consumer.Partition, log *slog.Logger) *deliverer {
	return &deliverer{
		Publisher: p, destination: to, partition: partition, partitionLabel: strconv.Itoa(partition.ID),
		log: log, failureLog: logging.NewThrottle(failureLogRate), open: map[string]*openAlert{},
		closed: closedAlerts{limit: p.cfg.MaxOpen},
	}
}

// deliverPartition delivers until ctx ends, and then commits what was delivered.
func (d *deliverer) deliverPartition(ctx context.Context) error {
	defer d.metrics.removePartition(d.destination.name, d.partitionLabel)
	err := d.deliverUntilDone(ctx)
	for errors.Is(err, consumer.ErrLogReplaced) {
		d.isReplaced = true
		err = d.deliverUntilDone(ctx)
	}
	if ctx.Err() == nil || errors.Is(err, consumer.ErrFenced) {
		return err
	}

	commitCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	err = d.commitDelivered(commitCtx)
	if commitCtx.Err() != nil {
		return nil // what was not committed is delivered again
	}
	return err
}

// deliverUntilDone restores the open alerts. Then it reads the topic, sends what is due and commits what was
// delivered until ctx ends, or until the topic is created anew: then it returns consumer.ErrLogReplaced.
func (d *deliverer) deliverUntilDone(ctx context.Context) error {
	from, err := d.findOffsets(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	fetcher := d.partition.Fetch(ctx, from,
		consumer.FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 8 << 20, MaxWait: 250 * time.Millisecond})
	var unread consumer.Chunk // its records are those that were fetched and not read yet
	for ctx.Err() == nil {
		// Wait for messages, but only until the next notification is due. While too many alerts are pending,
		// the messages stay in Kafka.
		chunks, wait := fetcher.C, d.untilNextDue(time.Now())
		if len(unread.Records) > 0 {
			chunks = nil
			if d.pending < d.cfg.MaxOpen {
				wait = 0
			}
		}
		wake := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-wake.C:
		case chunk, ok := <-chunks:
			if !ok {
				if err := fetcher.Err(); err != nil {
					return err
				}
			}
			unread = chunk
			d.metrics.lost.WithLabelValues(d.destination.name).Add(float64(chunk.Lost))
		}
		wake.Stop()
		if err := d.readChunk(ctx, &unread); err != nil {
			return err
		}
		if len(unread.Records) == 0 {
			fetcher.Consumed(unread.Bytes)
			unread = consumer.Chunk{}
		}

		// Send before the commit, so that the commit includes what was delivered.
		if err := d.sendDue(ctx); err != nil {
			return err
		}
		if time.Since(d.committedAt) > commitInterval {
			if err := d.commitDelivered(ctx); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// readChunk decodes the messages of a fetch and removes them from chunk. It stops while MaxOpen alerts are
// pending. Messages that were delivered by an earlier run only restore the open alerts.
func (d *deliverer) readChunk(ctx context.Context, chunk *consumer.Chunk) error {
	for len(chunk.Records) > 0 && d.pending < d.cfg.MaxOpen {
		record := chunk.Records[0]
		if alert, err := decodeAlert(record); err == nil {
			d.observe(alert, record)
		} else if d.isUndelivered(record.Offset) {
			if err := d.writeDeadLetter(ctx, record, "decode", err); err != nil {
				return err
			}
			d.metrics.undecodable.WithLabelValues(d.destination.name).Inc()
		}
		if record.Err == nil && record.Offset >= d.mark.offset {
			d.mark = markOf(record)
		}
		d.nextOffset = max(d.nextOffset, record.Offset+1)
		chunk.Records = chunk.Records[1:]
	}
	return nil
}

// decodeAlert decodes a message of the alerts topic.
func decodeAlert(record consumer.Record) (*pipeline.Alert, error) {
	if record.Err != nil {
		return nil, record.Err
	}
	alert := &pipeline.Alert{}
	if err := json.Unmarshal(record.Value, alert); err != nil {
		return nil, fmt.Errorf("message is not an alert: %w", err)
	}
	if alert.ID == "" || alert.Fingerprint == "" {
		return nil, errors.New("message is not an alert: it has no id or no fingerprint")
	}
	return alert, nil
}

// observe makes a revision the newest one of its alert, unless it is older than the newest one. A revision
// from before nextOffset restores state and is not delivered again.
func (d *deliverer) observe(revision *pipeline.Alert, record consumer.Record) {
	isNew := d.isUndelivered(record.Offset)
	if isNew {
		d.metrics.read.WithLabelValues(d.destination.name).Inc()
	}

	// Update the open alert of the revision's key, or open one.
	key, written := d.destination.alertKey(revision), time.Unix(0, record.Time)
	open := d.open[key]
	switch {
	case open == nil && d.closed.covers(key, revision):
		d.metrics.outdated.WithLabelValues(d.destination.name).Inc()
		return
	case open == nil:
		d.evictDelivered()
		open = &openAlert{newest: revision, first: revision, undelivered: noOffset}
		d.open[key] = open
		if !isNew { // an earlier run has delivered it
			open.lastSent, open.accepted = written, true
		}
	case open.newest.ID == revision.ID && revision.Revision <= open.newest.Revision:
		return // an engine that replayed its block wrote it again
	case revision.WindowStart.Before(open.newest.WindowStart):
		open.updated = written
		return // a late match in an older window of the same fingerprint
	default:
		if open.pending() {
			d.metrics.superseded.WithLabelValues(d.destination.name).Inc()
		}
		open.newest = revision
		// The severity is a label: an alert that rises is another one at Alertmanager, where the one before ends by itself.
		if pipeline.SeverityByName(revision.Severity) > pipeline.SeverityByName(open.first.Severity) {
			raised := *open.first
			raised.Severity = revision.Severity
			open.first = &raised
		}
	}

	// undelivered stays at the oldest revision: the commit must not pass it.
	open.updated = written
	if isNew && !open.pending() {
		open.undelivered = record.Offset
		d.pending++
	}
}

// evictDelivered drops the eighth of the alerts that was updated least recently when MaxOpen alerts are open.
// Pending alerts are never dropped: a deliverer reads no further while MaxOpen alerts are pending.
func (d *deliverer) evictDelivered() {
	if len(d.open) < d.cfg.MaxOpen {
		return
	}
	keys := make([]string, 0, len(d.open))
	for key, open := range d.open {
		if !open.pending() {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(d.open[a].updated.Compare(d.open[b].updated), cmp.Compare(a, b))
	})
	for _, key := range keys[:min(len(keys), max(1, d.cfg.MaxOpen/8))] {
		d.closed.add(key, d.open[key].newest)
		delete(d.open, key)
		d.metrics.evicted.WithLabelValues(d.destination.name).Inc()
	}
}

// writeDeadLetter writes a message that cannot be delivered to the dead-letter topic.
func (d *deliverer) writeDeadLetter(ctx context.Context, record consumer.Record, reason string, err error) error {
	err = consumer.WriteDeadLetter(ctx, d.client, d.log, consumer.DeadLetter{
		Topic: d.partition.Topic(), Partition: d.partition.ID, Offset: record.Offset, Stage: "alerts/" + d.destination.name,
		Reason: reason, Err: err, Key: record.Key, Value: record.Value,
	})
	if errors.Is(err, consumer.ErrUnwritable) {
		d.log.Error("alert message is lost: it cannot be delivered, and its dead letter cannot be written",
			"partition", d.partition.ID, "offset", record.Offset, "reason", reason, "err", err)
		return nil
	}
	return err
}
