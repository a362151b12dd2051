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
)

// A deliverer delivers one partition of the alerts topic to one destination. One goroutine runs it.
type deliverer struct {
	*Publisher
	destination    namedDestination
	partition      *consumer.Partition
	log            *slog.Logger
	partitionLabel string // of metrics

	open       map[string]*openAlert
	nextOffset int64 // offset behind the last message that was read
	committed  int64
	commitAt   time.Time
}

// An openAlert is one alert as the destination knows it.
type openAlert struct {
	newest   *pipeline.Alert // newest revision
	first    *pipeline.Alert
	updated  time.Time // when the newest revision was written to the topic
	lastSent time.Time // when something was said of it last; zero: never
	// waiting is the offset of the oldest message whose revision was not delivered, nor replaced by a delivered one; -1: none.
	undelivered int64
}

func newDeliverer(p *Publisher, to namedDestination, part *consumer.Partition, log *slog.Logger) *deliverer {
	return &deliverer{Publisher: p, destination: to, partition: part, log: log, partitionLabel: strconv.Itoa(part.ID), open: map[string]*openAlert{}}
}

func (c *deliverer) run(ctx context.Context) error {
	err := c.deliverUntilDone(ctx)
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	defer c.metrics.open.DeleteLabelValues(c.destination.name, c.partitionLabel)
	defer c.metrics.pending.DeleteLabelValues(c.destination.name, c.partitionLabel)
	if ctx.Err() != nil && !errors.Is(err, consumer.ErrFenced) {
		err = c.commitDelivered(late)
		if late.Err() != nil {
			return nil
		}
	}
	return err
}

// deliverUntilDone restores what is open, and then reads, sends what is due and commits what is done, until ctx ends.
func (c *deliverer) deliverUntilDone(ctx context.Context) error {
	from, err := c.findOffsets(ctx)
	if err != nil {
		return err
	}
	f := c.partition.Fetch(ctx, from, consumer.FetchConfig{MaxBytes: 1 << 20, PrefetchBytes: 8 << 20, MaxWait: 250 * time.Millisecond})
	for ctx.Err() == nil {
		wake := time.NewTimer(c.untilNextDue(time.Now()))
		select {
		case <-ctx.Done():
		case <-wake.C:
		case chunk, ok := <-f.C:
			if ok {
				f.Consumed(chunk.Bytes)
				if err := c.readChunk(ctx, chunk); err != nil {
					return err
				}
			}
		}
		wake.Stop()
		if err := c.sendDue(ctx); err != nil {
			return err
		}
		if time.Since(c.commitAt) > time.Second {
			if err := c.commitDelivered(ctx); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// findOffsets finds the offset to deliver from, and the one to read from: what is younger than the quiet that ends an alert. A
// destination that is new does not hear of older alerts.
func (c *deliverer) findOffsets(ctx context.Context) (from int64, err error) {
	if c.committed, _, err = c.partition.Committed(ctx); err != nil {
		return 0, err
	}
	first, end, err := c.partition.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	young, err := c.partition.OffsetAt(ctx, time.Now().Add(-c.cfg.ResolveAfter))
	if err != nil {
		return 0, err
	}
	young = max(young, first)
	c.nextOffset = c.committed
	if c.nextOffset < 0 || c.nextOffset > end {
		c.nextOffset = young
	}
	c.nextOffset = max(c.nextOffset, first)
	return min(young, c.nextOffset), nil
}

// readChunk reads what a fetch brought. Messages before next were delivered in a former life: they only say what is open.
func (c *deliverer) readChunk(ctx context.Context, chunk consumer.Chunk) error {
	for _, r := range chunk.Records {
		a := &pipeline.Alert{}
		if err := json.Unmarshal(r.Value, a); err != nil || a.ID == "" || a.Fingerprint == "" {
			if r.Offset >= c.nextOffset {
				if err := c.writeDeadLetter(ctx, r, "decode", fmt.Errorf("no alert: %w", err)); err != nil {
					return err
				}
				c.metrics.undecodable.WithLabelValues(c.destination.name).Inc()
			}
		} else {
			c.observe(a, r)
		}
		c.nextOffset = max(c.nextOffset, r.Offset+1)
	}
	return nil
}

// observe keeps a revision as the newest of its alert.
func (c *deliverer) observe(a *pipeline.Alert, r consumer.Record) {
	fresh := r.Offset >= c.nextOffset
	if fresh {
		c.metrics.read.WithLabelValues(c.destination.name).Inc()
	}
	k, heard := c.destination.alertKey(a), time.Unix(0, r.Time)
	e := c.open[k]
	switch {
	case e == nil:
		c.evict()
		e = &openAlert{newest: a, first: a, undelivered: -1}
		c.open[k] = e
		if !fresh {
			e.lastSent = heard
		}
	case e.newest.ID == a.ID && a.Revision <= e.newest.Revision:
		return // an engine that was killed says it again
	case a.WindowStart.Before(e.newest.WindowStart):
		e.updated = heard
		return // a late match in an older window of the same fingerprint
	default:
		if e.undelivered >= 0 {
			c.metrics.superseded.WithLabelValues(c.destination.name).Inc()
		}
		e.newest = a
	}
	e.updated = heard
	if fresh && e.undelivered < 0 {
		e.undelivered = r.Offset
	}
}

// evict forgets an eighth of the alerts, those of which nothing was heard for longest and which do not wait, when there are too
// many; where all wait it forgets none, since they are to be delivered.
func (c *deliverer) evict() {
	if len(c.open) < c.cfg.MaxOpen {
		return
	}
	keys := make([]string, 0, len(c.open))
	for k, e := range c.open {
		if e.undelivered < 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(c.open[a].updated.Compare(c.open[b].updated), cmp.Compare(a, b)) })
	for _, k := range keys[:min(len(keys), max(1, c.cfg.MaxOpen/8))] {
		delete(c.open, k)
		c.metrics.evicted.WithLabelValues(c.destination.name).Inc()
	}
}

// dueAt is when something is to be said of e.
func (c *deliverer) dueAt(e *openAlert) time.Time {
	over := e.updated.Add(c.cfg.ResolveAfter)
	switch {
	case e.undelivered >= 0 && e.lastSent.IsZero():
		return time.Time{}
	case e.undelivered >= 0:
		return e.lastSent.Add(c.cfg.Throttle)
	case c.destination.needsResend():
		if again := e.lastSent.Add(c.cfg.Resend); again.Before(over) {
			return again
		}
	}
	return over
}

// untilNextDue is how long nothing needs to be said, a second at most.
func (c *deliverer) untilNextDue(now time.Time) time.Duration {
	d := time.Second
	for _, e := range c.open {
		d = min(d, max(0, c.dueAt(e).Sub(now)))
	}
	return max(d, time.Millisecond)
}

// sendDue says what is due, the longest waiting first.
func (c *deliverer) sendDue(ctx context.Context) error {
	now := time.Now()
	var due []string
	pending := 0
	for k, e := range c.open {
		if e.undelivered >= 0 {
			pending++
		}
		if !c.dueAt(e).After(now) {
			due = append(due, k)
		}
	}
	c.metrics.open.WithLabelValues(c.destination.name, c.partitionLabel).Set(float64(len(c.open)))
	c.metrics.pending.WithLabelValues(c.destination.name, c.partitionLabel).Set(float64(pending))
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.open[a].undelivered, c.open[b].undelivered), cmp.Compare(a, b))
	})
	for len(due) > 0 {
		n := min(len(due), c.destination.maxBatch())
		if err := c.notify(ctx, due[:n]); err != nil {
			return err
		}
		due = due[n:]
	}
	return nil
}

// notify delivers a notice of each of the alerts, for as long as it takes. An alert of which nothing was heard for the time is over.
func (c *deliverer) notify(ctx context.Context, keys []string) error {
	entries := make([]*openAlert, 0, len(keys))
	ended := map[*openAlert]bool{}
	for _, k := range keys {
		e := c.open[k]
		if e.undelivered < 0 && !time.Now().Before(e.updated.Add(c.cfg.ResolveAfter)) {
			delete(c.open, k)
			c.metrics.resolved.WithLabelValues(c.destination.name).Inc()
			if !c.destination.needsResend() {
				continue
			}
			ended[e] = true
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil
	}
	err := c.sendWithRetry(ctx, func() error { return c.destination.deliver(ctx, c.notifications(entries, ended)) })
	var no *rejectedError
	if errors.As(err, &no) && len(entries) > 1 { // one of them is the culprit
		for i := range entries {
			if err := c.recordOutcome(ctx, entries[i:i+1], c.sendWithRetry(ctx, func() error { return c.destination.deliver(ctx, c.notifications(entries[i:i+1], ended)) })); err != nil {
				return err
			}
		}
		return nil
	}
	return c.recordOutcome(ctx, entries, err)
}

func (c *deliverer) notifications(entries []*openAlert, ended map[*openAlert]bool) []notification {
	now := time.Now()
	out := make([]notification, len(entries))
	for i, e := range entries {
		out[i] = notification{newest: e.newest, first: e.first, endsAt: now}
		if !ended[e] {
			out[i].endsAt = now.Add(max(4*c.cfg.Resend, 5*time.Minute))
		}
	}
	return out
}

// recordOutcome notes what became of an attempt. What was refused for good is a dead letter, and counts as said.
func (c *deliverer) recordOutcome(ctx context.Context, entries []*openAlert, err error) error {
	var no *rejectedError
	switch {
	case errors.As(err, &no):
		for _, e := range entries {
			c.metrics.rejected.WithLabelValues(c.destination.name).Inc()
			c.log.Error("destination refused an alert for good", "alert", e.newest.ID, "rule", e.newest.Rule, "err", err)
			value, _ := json.Marshal(e.newest)
			if err := c.writeDeadLetter(ctx, consumer.Record{Offset: max(e.undelivered, 0), Key: []byte(e.newest.Fingerprint), Value: value}, "refused", err); err != nil {
				return err
			}
		}
	case err != nil:
		return err
	default:
		c.metrics.sent.WithLabelValues(c.destination.name).Add(float64(len(entries)))
	}
	for _, e := range entries {
		e.lastSent, e.undelivered = time.Now(), -1
	}
	return nil
}

// sendWithRetry calls f until it succeeds or is refused, with growing pauses, or those that the destination asks for.
func (c *deliverer) sendWithRetry(ctx context.Context, f func() error) error {
	var said time.Time
	for n := 0; ; n++ {
		err := f()
		var no *rejectedError
		if err == nil || errors.As(err, &no) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.metrics.failures.WithLabelValues(c.destination.name).Inc()
		if time.Since(said) > time.Minute {
			said = time.Now()
			c.log.Warn("destination does not take alerts, trying again", "attempt", n+1, "err", err)
		}
		var later *retryAfterError
		if errors.As(err, &later) && later.after > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(later.after):
			}
			continue
		}
		if err := consumer.Pause(ctx, n); err != nil {
			return err
		}
	}
}

func (c *deliverer) writeDeadLetter(ctx context.Context, r consumer.Record, reason string, err error) error {
	return consumer.WriteDeadLetter(ctx, c.client, c.log, consumer.DeadLetter{
		Topic: c.partition.Topic(), Partition: c.partition.ID, Offset: r.Offset, Stage: "alerts/" + c.destination.name, Reason: reason, Err: err, Key: r.Key, Value: r.Value,
	})
}

// commitDelivered acknowledges everything before the oldest message that waits.
func (c *deliverer) commitDelivered(ctx context.Context) error {
	c.commitAt = time.Now()
	done := c.nextOffset
	for _, e := range c.open {
		if e.undelivered >= 0 {
			done = min(done, e.undelivered)
		}
	}
	if done == c.committed {
		return nil
	}
	if err := c.partition.Commit(ctx, done, ""); err != nil {
		return err
	}
	c.committed = done
	return nil
}
