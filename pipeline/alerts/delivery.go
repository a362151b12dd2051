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
	"tidegate/pipeline/retry"
)

// A deliverer delivers one partition of the alerts topic to one destination. One goroutine runs it.
type deliverer struct {
	*Publisher
	destination    namedDestination
	partition      *consumer.Partition
	partitionLabel string // the partition, as metrics name it
	log            *slog.Logger
	failureLog     *logging.Throttle

	open        map[string]*openAlert // by the destination's key
	nextOffset  int64                 // offset behind the last message that was read for delivery
	committed   int64
	committedAt time.Time // of the last attempt
}

// An openAlert is the state of one alert at the destination. The package documentation lists the states.
type openAlert struct {
	newest   *pipeline.Alert // newest revision
	first    *pipeline.Alert // revision that opened it here
	updated  time.Time       // when the newest revision was written to the topic
	lastSent time.Time       // when the destination last took a notification of it; zero: never
	// undelivered is the offset of the oldest message whose revision was neither delivered nor replaced by
	// one that was delivered; noOffset if there is none.
	undelivered int64
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
	}
}

// deliverPartition delivers until ctx ends, and then commits what was delivered.
func (d *deliverer) deliverPartition(ctx context.Context) error {
	defer d.metrics.removePartition(d.destination.name, d.partitionLabel)
	err := d.deliverUntilDone(ctx)
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
// delivered until ctx ends.
func (d *deliverer) deliverUntilDone(ctx context.Context) error {
	from, err := d.findOffsets(ctx)
	if err != nil {
		return err
	}
	fetcher := d.partition.Fetch(ctx, from,
		consumer.FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 8 << 20, MaxWait: 250 * time.Millisecond})
	for ctx.Err() == nil {
		// Wait for messages, but only until the next notification is due.
		wake := time.NewTimer(d.untilNextDue(time.Now()))
		select {
		case <-ctx.Done():
		case <-wake.C:
		case chunk, ok := <-fetcher.C:
			if ok {
				fetcher.Consumed(chunk.Bytes)
				if err := d.readChunk(ctx, chunk); err != nil {
					return err
				}
			}
		}
		wake.Stop()

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

// findOffsets sets nextOffset, from which on messages are delivered, and returns the offset to read from.
// Messages between the two are younger than ResolveAfter and restore the open alerts. A destination without a
// committed offset is new: it gets no older alerts.
func (d *deliverer) findOffsets(ctx context.Context) (from int64, err error) {
	if d.committed, _, err = d.partition.Committed(ctx); err != nil {
		return 0, err
	}
	first, end, err := d.partition.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	recent, err := d.partition.OffsetAt(ctx, time.Now().Add(-d.cfg.ResolveAfter))
	if err != nil {
		return 0, err
	}
	recent = min(max(recent, first), end) // what was written since Bounds is new

	// Without a committed offset, or with one of an earlier topic, delivery begins with the recent messages.
	d.nextOffset = d.committed
	if d.nextOffset < 0 || d.nextOffset > end {
		d.nextOffset = recent
	}
	d.nextOffset = max(d.nextOffset, first)
	return min(recent, d.nextOffset), nil
}

// readChunk decodes the messages of a fetch. Messages before nextOffset were delivered by an earlier run:
// they only restore the open alerts.
func (d *deliverer) readChunk(ctx context.Context, chunk consumer.Chunk) error {
	for _, record := range chunk.Records {
		if alert, err := decodeAlert(record.Value); err == nil {
			d.observe(alert, record)
		} else if record.Offset >= d.nextOffset {
			if err := d.writeDeadLetter(ctx, record, "decode", err); err != nil {
				return err
			}
			d.metrics.undecodable.WithLabelValues(d.destination.name).Inc()
		}
		d.nextOffset = max(d.nextOffset, record.Offset+1)
	}
	return nil
}

// decodeAlert decodes a message of the alerts topic.
func decodeAlert(value []byte) (*pipeline.Alert, error) {
	alert := &pipeline.Alert{}
	if err := json.Unmarshal(value, alert); err != nil {
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
	isNew := record.Offset >= d.nextOffset
	if isNew {
		d.metrics.read.WithLabelValues(d.destination.name).Inc()
	}

	// Update the open alert of the revision's key, or open one.
	key, written := d.destination.alertKey(revision), time.Unix(0, record.Time)
	open := d.open[key]
	switch {
	case open == nil:
		d.evictDelivered()
		open = &openAlert{newest: revision, first: revision, undelivered: noOffset}
		d.open[key] = open
		if !isNew {
			open.lastSent = written // an earlier run has delivered it
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
	}

	// undelivered stays at the oldest revision: the commit must not pass it.
	open.updated = written
	if isNew && !open.pending() {
		open.undelivered = record.Offset
	}
}

// evictDelivered drops the eighth of the alerts that was updated least recently when MaxOpen alerts are open.
// Pending alerts are never dropped, so their number may exceed MaxOpen.
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
		delete(d.open, key)
		d.metrics.evicted.WithLabelValues(d.destination.name).Inc()
	}
}

// dueAt returns when the next notification of an alert is due: its pending revision, a resend, or its end.
func (d *deliverer) dueAt(open *openAlert) time.Time {
	end := open.updated.Add(d.cfg.ResolveAfter)
	switch {
	case open.pending() && open.lastSent.IsZero():
		return time.Time{} // a new alert: at once
	case open.pending():
		return open.lastSent.Add(d.cfg.Throttle)
	case d.destination.needsResend():
		if resend := open.lastSent.Add(d.cfg.ResendInterval); resend.Before(end) {
			return resend
		}
	}
	return end
}

// untilNextDue returns the time until the next notification is due, at least 1 ms and at most 1 s.
func (d *deliverer) untilNextDue(now time.Time) time.Duration {
	wait := time.Second
	for _, open := range d.open {
		wait = min(wait, max(0, d.dueAt(open).Sub(now)))
	}
	return max(wait, time.Millisecond)
}

// sendDue notifies the destination of every alert that is due, the longest pending first.
func (d *deliverer) sendDue(ctx context.Context) error {
	// Collect the due alerts and update the gauges.
	now := time.Now()
	var due []string
	pending := 0
	for key, open := range d.open {
		if open.pending() {
			pending++
		}
		if !d.dueAt(open).After(now) {
			due = append(due, key)
		}
	}
	d.metrics.open.WithLabelValues(d.destination.name, d.partitionLabel).Set(float64(len(d.open)))
	d.metrics.pending.WithLabelValues(d.destination.name, d.partitionLabel).Set(float64(pending))

	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(d.open[a].undelivered, d.open[b].undelivered), cmp.Compare(a, b))
	})
	for batch := range slices.Chunk(due, d.destination.maxBatch()) {
		if err := d.notify(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// notify sends one notification for each of the alerts and repeats it until the destination accepts or
// rejects it. Alerts that were not updated for ResolveAfter have ended: notify removes them from d.open, and
// only a destination that needs resends is notified of their end.
func (d *deliverer) notify(ctx context.Context, keys []string) error {
	// Close the alerts that have ended.
	alerts := make([]*openAlert, 0, len(keys))
	resolved := map[*openAlert]bool{}
	for _, key := range keys {
		open := d.open[key]
		if !open.pending() && !time.Now().Before(open.updated.Add(d.cfg.ResolveAfter)) {
			delete(d.open, key)
			d.metrics.resolved.WithLabelValues(d.destination.name).Inc()
			if !d.destination.needsResend() {
				continue
			}
			resolved[open] = true
		}
		alerts = append(alerts, open)
	}
	if len(alerts) == 0 {
		return nil
	}

	send := func(alerts []*openAlert) error {
		return d.sendWithRetry(ctx, func() error {
			return d.destination.deliver(ctx, d.notifications(alerts, resolved))
		})
	}
	err := send(alerts)
	var rejected *rejectedError
	if !errors.As(err, &rejected) || len(alerts) == 1 {
		return d.recordOutcome(ctx, alerts, err)
	}

	// The destination rejects the batch because of at least one of its alerts: each is sent alone.
	for i := range alerts {
		one := alerts[i : i+1]
		if err := d.recordOutcome(ctx, one, send(one)); err != nil {
			return err
		}
	}
	return nil
}

// notifications returns the notifications for alerts. One that is not resolved ends after several missed
// resends.
func (d *deliverer) notifications(alerts []*openAlert, resolved map[*openAlert]bool) []notification {
	now := time.Now()
	list := make([]notification, len(alerts))
	for i, open := range alerts {
		list[i] = notification{newest: open.newest, first: open.first, endsAt: now}
		if !resolved[open] {
			list[i].endsAt = now.Add(max(4*d.cfg.ResendInterval, 5*time.Minute))
		}
	}
	return list
}

// recordOutcome marks alerts as delivered, given the error of the delivery. Alerts that the destination
// rejected become dead letters and count as delivered; after any other error they stay pending.
func (d *deliverer) recordOutcome(ctx context.Context, alerts []*openAlert, err error) error {
	var rejected *rejectedError
	switch {
	case errors.As(err, &rejected):
		for _, open := range alerts {
			if err := d.recordRejection(ctx, open, err); err != nil {
				return err
			}
		}
	case err != nil:
		return err
	default:
		d.metrics.sent.WithLabelValues(d.destination.name).Add(float64(len(alerts)))
	}
	for _, open := range alerts {
		open.lastSent, open.undelivered = time.Now(), noOffset
	}
	return nil
}

// recordRejection counts an alert that the destination rejected and writes its newest revision to the
// dead-letter topic.
func (d *deliverer) recordRejection(ctx context.Context, open *openAlert, cause error) error {
	d.metrics.rejected.WithLabelValues(d.destination.name).Inc()
	d.log.Error("destination rejected an alert", "alert", open.newest.ID, "rule", open.newest.Rule, "err", cause)
	value, err := json.Marshal(open.newest)
	if err != nil {
		return fmt.Errorf("encode alert %s: %w", open.newest.ID, err)
	}
	record := consumer.Record{Offset: max(open.undelivered, 0), Key: []byte(open.newest.Fingerprint), Value: value}
	return d.writeDeadLetter(ctx, record, "rejected", cause)
}

// sendWithRetry calls send until it succeeds, the destination rejects the request, or ctx ends. The pauses
// grow, unless the destination requests a pause.
func (d *deliverer) sendWithRetry(ctx context.Context, send func() error) error {
	var backoff retry.Backoff
	defer d.failureLog.Reset()
	for attempt := 1; ; attempt++ {
		err := send()
		var rejected *rejectedError
		if err == nil || errors.As(err, &rejected) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d.metrics.failures.WithLabelValues(d.destination.name).Inc()
		if _, ok := d.failureLog.Allow(); ok {
			d.log.Warn("delivering alerts failed, retrying", "attempt", attempt, "err", err)
		}

		pause := backoff.Next()
		var later *retryAfterError
		if errors.As(err, &later) && later.after > 0 {
			pause = later.after
		}
		if err := retry.Sleep(ctx, pause); err != nil {
			return err
		}
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

// commitDelivered commits the offset of the oldest message that waits for delivery, or nextOffset if none
// does.
func (d *deliverer) commitDelivered(ctx context.Context) error {
	d.committedAt = time.Now()
	delivered := d.nextOffset
	for _, open := range d.open {
		if open.pending() {
			delivered = min(delivered, open.undelivered)
		}
	}
	if delivered == d.committed {
		return nil
	}
	if err := d.partition.Commit(ctx, delivered, ""); err != nil {
		return err
	}
	d.committed = delivered
	return nil
}
