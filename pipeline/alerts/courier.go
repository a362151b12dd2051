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

// A courier delivers one partition of the alerts topic to one destination. One goroutine runs it.
type courier struct {
	*Publisher
	to   named
	p    *consumer.Partition
	log  *slog.Logger
	part string // of metrics

	open      map[string]*entry
	next      int64 // offset behind the last message that was read
	committed int64
	commitAt  time.Time
}

// An entry is one alert as the destination knows it.
type entry struct {
	alert *pipeline.Alert // newest revision
	first *pipeline.Alert
	heard time.Time // when the newest revision was written to the topic
	sent  time.Time // when something was said of it last; zero: never
	// waiting is the offset of the oldest message whose revision was not delivered, nor replaced by a delivered one; -1: none.
	waiting int64
}

func newCourier(p *Publisher, to named, part *consumer.Partition, log *slog.Logger) *courier {
	return &courier{Publisher: p, to: to, p: part, log: log, part: strconv.Itoa(part.ID), open: map[string]*entry{}}
}

func (c *courier) run(ctx context.Context) error {
	err := c.deliver(ctx)
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	defer c.met.open.DeleteLabelValues(c.to.name, c.part)
	defer c.met.pending.DeleteLabelValues(c.to.name, c.part)
	if ctx.Err() != nil && !errors.Is(err, consumer.ErrFenced) {
		err = c.commit(late)
		if late.Err() != nil {
			return nil
		}
	}
	return err
}

// deliver restores what is open, and then reads, sends what is due and commits what is done, until ctx ends.
func (c *courier) deliver(ctx context.Context) error {
	from, err := c.begin(ctx)
	if err != nil {
		return err
	}
	f := c.p.Fetch(ctx, from, consumer.FetchConfig{Bytes: 1 << 20, Ahead: 8 << 20, Wait: 250 * time.Millisecond})
	for ctx.Err() == nil {
		wake := time.NewTimer(c.wait(time.Now()))
		select {
		case <-ctx.Done():
		case <-wake.C:
		case chunk, ok := <-f.C:
			if ok {
				f.Took(chunk.Bytes)
				if err := c.take(ctx, chunk); err != nil {
					return err
				}
			}
		}
		wake.Stop()
		if err := c.send(ctx); err != nil {
			return err
		}
		if time.Since(c.commitAt) > time.Second {
			if err := c.commit(ctx); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// begin finds the offset to deliver from, and the one to read from: what is younger than the quiet that ends an alert. A
// destination that is new does not hear of older alerts.
func (c *courier) begin(ctx context.Context) (from int64, err error) {
	if c.committed, _, err = c.p.Committed(ctx); err != nil {
		return 0, err
	}
	first, end, err := c.p.Bounds(ctx)
	if err != nil {
		return 0, err
	}
	young, err := c.p.At(ctx, time.Now().Add(-c.cfg.ResolveAfter))
	if err != nil {
		return 0, err
	}
	young = max(young, first)
	c.next = c.committed
	if c.next < 0 || c.next > end {
		c.next = young
	}
	c.next = max(c.next, first)
	return min(young, c.next), nil
}

// take reads what a fetch brought. Messages before next were delivered in a former life: they only say what is open.
func (c *courier) take(ctx context.Context, chunk consumer.Chunk) error {
	for _, r := range chunk.Records {
		a := &pipeline.Alert{}
		if err := json.Unmarshal(r.Value, a); err != nil || a.ID == "" || a.Fingerprint == "" {
			if r.Offset >= c.next {
				if err := c.bury(ctx, r, "decode", fmt.Errorf("no alert: %w", err)); err != nil {
					return err
				}
				c.met.bad.WithLabelValues(c.to.name).Inc()
			}
		} else {
			c.hear(a, r)
		}
		c.next = max(c.next, r.Offset+1)
	}
	return nil
}

// hear keeps a revision as the newest of its alert.
func (c *courier) hear(a *pipeline.Alert, r consumer.Record) {
	fresh := r.Offset >= c.next
	if fresh {
		c.met.read.WithLabelValues(c.to.name).Inc()
	}
	k, heard := c.to.key(a), time.Unix(0, r.Time)
	e := c.open[k]
	switch {
	case e == nil:
		c.room()
		e = &entry{alert: a, first: a, waiting: -1}
		c.open[k] = e
		if !fresh {
			e.sent = heard
		}
	case e.alert.ID == a.ID && a.Revision <= e.alert.Revision:
		return // an engine that was killed says it again
	case a.WindowStart.Before(e.alert.WindowStart):
		e.heard = heard
		return // a late match in an older window of the same fingerprint
	default:
		if e.waiting >= 0 {
			c.met.superseded.WithLabelValues(c.to.name).Inc()
		}
		e.alert = a
	}
	e.heard = heard
	if fresh && e.waiting < 0 {
		e.waiting = r.Offset
	}
}

// room forgets an eighth of the alerts, those of which nothing was heard for longest and which do not wait, when there are too
// many; where all wait it forgets none, since they are to be delivered.
func (c *courier) room() {
	if len(c.open) < c.cfg.MaxOpen {
		return
	}
	keys := make([]string, 0, len(c.open))
	for k, e := range c.open {
		if e.waiting < 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(c.open[a].heard.Compare(c.open[b].heard), cmp.Compare(a, b)) })
	for _, k := range keys[:min(len(keys), max(1, c.cfg.MaxOpen/8))] {
		delete(c.open, k)
		c.met.evicted.WithLabelValues(c.to.name).Inc()
	}
}

// due is when something is to be said of e.
func (c *courier) due(e *entry) time.Time {
	over := e.heard.Add(c.cfg.ResolveAfter)
	switch {
	case e.waiting >= 0 && e.sent.IsZero():
		return time.Time{}
	case e.waiting >= 0:
		return e.sent.Add(c.cfg.Throttle)
	case c.to.repeats():
		if again := e.sent.Add(c.cfg.Resend); again.Before(over) {
			return again
		}
	}
	return over
}

// wait is how long nothing needs to be said, a second at most.
func (c *courier) wait(now time.Time) time.Duration {
	d := time.Second
	for _, e := range c.open {
		d = min(d, max(0, c.due(e).Sub(now)))
	}
	return max(d, time.Millisecond)
}

// send says what is due, the longest waiting first.
func (c *courier) send(ctx context.Context) error {
	now := time.Now()
	var due []string
	pending := 0
	for k, e := range c.open {
		if e.waiting >= 0 {
			pending++
		}
		if !c.due(e).After(now) {
			due = append(due, k)
		}
	}
	c.met.open.WithLabelValues(c.to.name, c.part).Set(float64(len(c.open)))
	c.met.pending.WithLabelValues(c.to.name, c.part).Set(float64(pending))
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(cmp.Compare(c.open[a].waiting, c.open[b].waiting), cmp.Compare(a, b))
	})
	for len(due) > 0 {
		n := min(len(due), c.to.batch())
		if err := c.say(ctx, due[:n]); err != nil {
			return err
		}
		due = due[n:]
	}
	return nil
}

// say delivers a notice of each of the alerts, for as long as it takes. An alert of which nothing was heard for the time is over.
func (c *courier) say(ctx context.Context, keys []string) error {
	entries := make([]*entry, 0, len(keys))
	ended := map[*entry]bool{}
	for _, k := range keys {
		e := c.open[k]
		if e.waiting < 0 && !time.Now().Before(e.heard.Add(c.cfg.ResolveAfter)) {
			delete(c.open, k)
			c.met.resolved.WithLabelValues(c.to.name).Inc()
			if !c.to.repeats() {
				continue
			}
			ended[e] = true
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 {
		return nil
	}
	err := c.attempt(ctx, func() error { return c.to.send(ctx, c.notices(entries, ended)) })
	var no *refusal
	if errors.As(err, &no) && len(entries) > 1 { // one of them is the culprit
		for i := range entries {
			if err := c.settle(ctx, entries[i:i+1], c.attempt(ctx, func() error { return c.to.send(ctx, c.notices(entries[i:i+1], ended)) })); err != nil {
				return err
			}
		}
		return nil
	}
	return c.settle(ctx, entries, err)
}

func (c *courier) notices(entries []*entry, ended map[*entry]bool) []notice {
	now := time.Now()
	out := make([]notice, len(entries))
	for i, e := range entries {
		out[i] = notice{alert: e.alert, first: e.first, ends: now}
		if !ended[e] {
			out[i].ends = now.Add(max(4*c.cfg.Resend, 5*time.Minute))
		}
	}
	return out
}

// settle notes what became of an attempt. What was refused for good is a dead letter, and counts as said.
func (c *courier) settle(ctx context.Context, entries []*entry, err error) error {
	var no *refusal
	switch {
	case errors.As(err, &no):
		for _, e := range entries {
			c.met.refused.WithLabelValues(c.to.name).Inc()
			c.log.Error("destination refused an alert for good", "alert", e.alert.ID, "rule", e.alert.Rule, "err", err)
			value, _ := json.Marshal(e.alert)
			if err := c.bury(ctx, consumer.Record{Offset: max(e.waiting, 0), Key: []byte(e.alert.Fingerprint), Value: value}, "refused", err); err != nil {
				return err
			}
		}
	case err != nil:
		return err
	default:
		c.met.sent.WithLabelValues(c.to.name).Add(float64(len(entries)))
	}
	for _, e := range entries {
		e.sent, e.waiting = time.Now(), -1
	}
	return nil
}

// attempt calls f until it succeeds or is refused, with growing pauses, or those that the destination asks for.
func (c *courier) attempt(ctx context.Context, f func() error) error {
	var said time.Time
	for n := 0; ; n++ {
		err := f()
		var no *refusal
		if err == nil || errors.As(err, &no) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.met.failed.WithLabelValues(c.to.name).Inc()
		if time.Since(said) > time.Minute {
			said = time.Now()
			c.log.Warn("destination does not take alerts, trying again", "attempt", n+1, "err", err)
		}
		var later *delayed
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

func (c *courier) bury(ctx context.Context, r consumer.Record, reason string, err error) error {
	return consumer.Bury(ctx, c.client, c.log, consumer.Letter{
		Topic: c.p.Topic(), Partition: c.p.ID, Offset: r.Offset, Stage: "alerts/" + c.to.name, Reason: reason, Err: err, Key: r.Key, Value: r.Value,
	})
}

// commit acknowledges everything before the oldest message that waits.
func (c *courier) commit(ctx context.Context) error {
	c.commitAt = time.Now()
	done := c.next
	for _, e := range c.open {
		if e.waiting >= 0 {
			done = min(done, e.waiting)
		}
	}
	if done == c.committed {
		return nil
	}
	if err := c.p.Commit(ctx, done, ""); err != nil {
		return err
	}
	c.committed = done
	return nil
}
