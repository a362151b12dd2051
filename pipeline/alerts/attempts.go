package alerts

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidegate/pipeline/consumer"
	"tidegate/pipeline/retry"
)

// A failureState counts the failed attempts to notify a destination of one alert.
type failureState struct {
	backoff   retry.Backoff // its attempts are those since the last notification that was accepted
	since     time.Time     // time of the first of these attempts
	lastTried time.Time
	retryAt   time.Time
	// refusals counts the attempts that failed although the destination accepted other alerts meanwhile.
	refusals int
	rejected bool // a revision was rejected: the pause is not shortened
}

// is reports whether the last attempt failed.
func (f *failureState) is() bool { return f.backoff.Attempts() > 0 }

// The pause of one alert after a failed attempt grows between these bounds.
const (
	minAlertPause = 500 * time.Millisecond
	maxAlertPause = time.Minute
)

// record counts a failed attempt and sets the time of the next one.
func (f *failureState) record(now time.Time, err error) {
	if !f.is() {
		f.since = now
		f.backoff = retry.Backoff{Min: minAlertPause, Max: maxAlertPause}
	}
	f.lastTried = now
	f.retryAt = now.Add(max(f.backoff.Next(), requestedPause(err)))
}

// requestedPause returns the pause that the destination requests, or 0.
func requestedPause(err error) time.Duration {
	if answer, ok := errors.AsType[*responseError](err); ok {
		return answer.retryAfter
	}
	return 0
}

// isAnswer reports whether err is a response of the destination. Other errors are those of the connection.
func isAnswer(err error) bool {
	var answer *responseError
	return errors.As(err, &answer)
}

// destinationHealth distinguishes a destination that fails from one that fails on one alert: after the second
// failure in succession all its notifications pause.
type destinationHealth struct {
	failures     int // since the last notification that it accepted or rejected
	backoff      retry.Backoff
	pausedUntil  time.Time
	lastAccepted time.Time
}

// answeredPause is the pause between two attempts while the destination answers each with an error. It is
// short, because the next alert may be one that the destination accepts.
const answeredPause = 50 * time.Millisecond

func (h *destinationHealth) recordFailure(now time.Time, err error) {
	h.failures++
	if h.failures < 2 {
		return
	}
	pause := answeredPause
	if !isAnswer(err) {
		pause = h.backoff.Next()
	}
	h.pausedUntil = now.Add(max(pause, requestedPause(err)))
}

// recordAnswer records that the destination accepted or rejected a notification.
func (h *destinationHealth) recordAnswer() {
	h.failures, h.pausedUntil = 0, time.Time{}
	h.backoff.Reset()
}

// dueAt returns when the next notification of an alert is due: its pending revision, a resend, its end, or
// the repetition of one of these that failed.
func (d *deliverer) dueAt(open *openAlert) time.Time {
	at := open.updated.Add(d.cfg.ResolveAfter)
	switch {
	case open.pending() && open.lastSent.IsZero():
		at = time.Time{} // a new alert: at once
	case open.pending():
		at = open.lastSent.Add(d.cfg.Throttle)
	case d.destination.needsResend() && open.accepted:
		if resend := open.lastSent.Add(d.cfg.ResendInterval); resend.Before(at) {
			at = resend
		}
	}
	if open.failing.is() && at.Before(open.failing.retryAt) {
		return open.failing.retryAt
	}
	return at
}

// hasEnded reports whether an alert was not updated for ResolveAfter and has no revision to deliver.
func (d *deliverer) hasEnded(open *openAlert, now time.Time) bool {
	return !open.pending() && !now.Before(open.updated.Add(d.cfg.ResolveAfter))
}

// untilNextDue returns the time until the next notification is due, at least 1 ms and at most 1 s.
func (d *deliverer) untilNextDue(now time.Time) time.Duration {
	wait := time.Second
	for _, open := range d.open {
		wait = min(wait, d.dueAt(open).Sub(now))
	}
	return max(min(max(wait, d.health.pausedUntil.Sub(now)), time.Second), time.Millisecond)
}

// markDelivered records that the destination accepted or rejected the newest revision.
func (d *deliverer) markDelivered(open *openAlert, at time.Time, accepted bool) {
	if open.pending() {
		d.pending--
	}
	open.lastSent, open.undelivered, open.accepted = at, noOffset, accepted
}

// sendDue notifies the destination of the alerts that are due. Those whose last attempt failed come last, each
// alone, and only until one fails again: what the destination does not accept delays the others by one
// request.
func (d *deliverer) sendDue(ctx context.Context) error {
	fresh, failing := d.collectDue(time.Now())
	for _, batch := range d.formBatches(fresh) {
		if d.isPaused() {
			return nil
		}
		if _, err := d.notify(ctx, batch); err != nil {
			return err
		}
	}
	for i := range failing {
		if d.isPaused() {
			return nil
		}
		if answered, err := d.notify(ctx, failing[i:i+1]); err != nil || !answered {
			return err
		}
	}
	return nil
}

// isPaused reports whether the destination failed repeatedly and is left alone for now.
func (d *deliverer) isPaused() bool { return time.Now().Before(d.health.pausedUntil) }

// collectDue returns the keys of the alerts that are due: those whose last attempt failed, the longest waiting
// first, and the others, the longest pending first. It updates the gauges.
func (d *deliverer) collectDue(now time.Time) (fresh, failing []string) {
	allFailing := 0
	for key, open := range d.open {
		if open.failing.is() {
			allFailing++
		}
		switch {
		case d.dueAt(open).After(now):
		case open.failing.is():
			failing = append(failing, key)
		default:
			fresh = append(fresh, key)
		}
	}
	d.metrics.open.WithLabelValues(d.destination.name, d.partitionLabel).Set(float64(len(d.open)))
	d.metrics.pending.WithLabelValues(d.destination.name, d.partitionLabel).Set(float64(d.pending))
	d.metrics.failing.WithLabelValues(d.destination.name, d.partitionLabel).Set(float64(allFailing))

	// As an unsigned number, noOffset is the highest: resends come behind new revisions.
	slices.SortFunc(fresh, func(a, b string) int {
		return cmp.Or(cmp.Compare(uint64(d.open[a].undelivered), uint64(d.open[b].undelivered)), cmp.Compare(a, b))
	})
	slices.SortFunc(failing, func(a, b string) int {
		return cmp.Or(d.open[a].failing.retryAt.Compare(d.open[b].failing.retryAt), cmp.Compare(a, b))
	})
	return fresh, failing
}

// formBatches divides keys into what is sent together. An alert that was in a batch that failed is alone.
func (d *deliverer) formBatches(keys []string) (batches [][]string) {
	var together []string
	for i, key := range keys {
		if d.open[key].alone {
			batches = append(batches, keys[i:i+1])
		} else {
			together = append(together, key)
		}
	}
	for batch := range slices.Chunk(together, d.destination.maxBatch()) {
		batches = append(batches, batch)
	}
	return batches
}

// notify sends one notification for each of the alerts and records the outcome. Alerts that were not updated
// for ResolveAfter have ended: only a destination that needs resends is notified of their end. answered
// reports whether the destination accepted or rejected the notifications.
func (d *deliverer) notify(ctx context.Context, keys []string) (answered bool, err error) {
	// Close the alerts whose end nobody needs to know.
	now := time.Now()
	alerts := make([]*openAlert, 0, len(keys))
	sent := keys[:0:0]
	for _, key := range keys {
		open := d.open[key]
		if d.hasEnded(open, now) && (!d.destination.needsResend() || !open.accepted) {
			d.closeAlert(key)
			continue
		}
		alerts, sent = append(alerts, open), append(sent, key)
	}
	if len(alerts) == 0 {
		return true, nil
	}

	err = d.destination.deliver(ctx, d.notifications(alerts, now))
	if err != nil && ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	var rejected *rejectedError
	isRejection := errors.As(err, &rejected)
	switch {
	case err == nil:
		d.recordAccepted(sent, now)
	case isRejection:
		d.health.recordAnswer()
	default:
		d.countFailure(err)
	}
	switch {
	case err == nil:
		return true, nil
	case len(alerts) > 1: // at least one of them is the cause: each is sent alone
		for _, open := range alerts {
			open.alone = true
		}
		return isRejection, nil
	case isRejection:
		return true, d.recordRejection(ctx, sent[0], err)
	default:
		return false, d.recordFailure(ctx, sent[0], err)
	}
}

// notifications returns the notifications for alerts. One that has not ended ends after several missed
// resends.
func (d *deliverer) notifications(alerts []*openAlert, now time.Time) []notification {
	list := make([]notification, len(alerts))
	for i, open := range alerts {
		list[i] = notification{newest: open.newest, first: open.first, endsAt: now}
		if !d.hasEnded(open, now) {
			list[i].endsAt = now.Add(d.expiry())
		}
	}
	return list
}

// expiry returns how long an alert stays open at the destination without a further notification.
func (d *deliverer) expiry() time.Duration { return max(4*d.cfg.ResendInterval, 5*time.Minute) }

func (d *deliverer) closeAlert(key string) {
	d.closed.add(key, d.open[key].newest)
	delete(d.open, key)
	d.metrics.resolved.WithLabelValues(d.destination.name).Inc()
}

// recordAccepted marks alerts as delivered at the time of the attempt. If the destination had failed before,
// alerts whose attempts failed together with those of others are due at once.
func (d *deliverer) recordAccepted(keys []string, tried time.Time) {
	d.metrics.sent.WithLabelValues(d.destination.name).Add(float64(len(keys)))
	now := time.Now()
	for _, key := range keys {
		open := d.open[key]
		if d.hasEnded(open, tried) {
			d.closeAlert(key)
			continue
		}
		d.markDelivered(open, now, true)
		open.alone, open.failing = false, failureState{}
	}
	if d.health.failures > 0 {
		for _, open := range d.open {
			if open.failing.refusals == 0 && !open.failing.rejected {
				open.failing.retryAt = now
			}
		}
	}
	d.health.recordAnswer()
	d.health.lastAccepted = now
}

// countFailure counts and logs a failed attempt.
func (d *deliverer) countFailure(err error) {
	d.health.recordFailure(time.Now(), err)
	d.metrics.failures.WithLabelValues(d.destination.name).Inc()
	if _, ok := d.failureLog.Allow(); ok {
		d.log.Warn("delivering alerts failed, retrying", "failures", d.health.failures, "err", err)
	}
}

// recordFailure postpones an alert whose attempt failed. After alerts.max_attempts attempts while the
// destination accepted other alerts it counts as rejected. A destination that accepts nothing rejects nothing:
// its alerts wait.
func (d *deliverer) recordFailure(ctx context.Context, key string, cause error) error {
	open, now := d.open[key], time.Now()
	accepted := d.health.lastAccepted
	others := open.failing.is() && (accepted.After(open.failing.lastTried) ||
		isAnswer(cause) && accepted.After(open.failing.since))
	open.failing.record(now, cause)
	if others {
		open.failing.refusals++
	}
	if open.failing.refusals >= d.cfg.MaxAttempts {
		return d.recordRejection(ctx, key, fmt.Errorf("given up after %d attempts: %w", open.failing.refusals, cause))
	}
	if d.hasEnded(open, now) && now.After(open.lastSent.Add(d.expiry())) {
		d.closeAlert(key) // the destination has closed it itself
	}
	return nil
}

// recordRejection counts an alert that the destination rejected and writes its newest revision to the
// dead-letter topic. The alert counts as delivered. It is not sent again, and a later revision of it waits for
// a pause that grows.
func (d *deliverer) recordRejection(ctx context.Context, key string, cause error) error {
	open := d.open[key]
	value, err := json.Marshal(open.newest)
	if err != nil {
		return fmt.Errorf("encode alert %s: %w", open.newest.ID, err)
	}
	record := consumer.Record{Offset: max(open.undelivered, 0), Key: []byte(open.newest.Fingerprint), Value: value}
	if err := d.writeDeadLetter(ctx, record, "rejected", cause); err != nil {
		return err
	}
	d.metrics.rejected.WithLabelValues(d.destination.name).Inc()
	d.log.Error("destination rejected an alert", "alert", open.newest.ID, "rule", open.newest.Rule, "err", cause)

	now := time.Now()
	if d.hasEnded(open, now) {
		d.closeAlert(key)
		return nil
	}
	open.failing.record(now, nil)
	open.failing.refusals, open.failing.rejected = 0, true
	d.markDelivered(open, now, false)
	return nil
}
