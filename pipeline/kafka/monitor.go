package kafka

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

// Times of the monitor.
const (
	pingInterval  = 5 * time.Second // between two pings
	downInterval  = time.Second     // between two pings while Kafka is unavailable
	pingTimeout   = 2 * time.Second
	outageLogging = 10 * time.Minute // between two lines about one outage
)

// availability is the state of a monitored cluster.
type availability struct {
	pinging sync.Mutex // held by the one caller of ReportFailure that pings

	mu        sync.Mutex // guards the fields below
	monitored bool
	err       error // of the last request; nil: the cluster answers
	since     time.Time
	logged    time.Time
	log       *slog.Logger
	up        prometheus.Gauge
}

// Monitor pings the cluster until ctx ends, exports whether it answers, and logs the begin and the end of each
// outage. All users of the client report their failures to it, so that an outage is one line and not one for
// each of them.
func (c *Client) Monitor(ctx context.Context, log *slog.Logger, reg prometheus.Registerer) error {
	state := &c.availability
	state.mu.Lock()
	state.monitored, state.log = true, log
	state.up = metrics.With(reg).Gauge("tidegate_kafka_up", "1 while Kafka answers, else 0.")
	state.mu.Unlock()
	for {
		err := c.ping(ctx)
		if ctx.Err() != nil {
			return nil
		}
		state.record(err)
		pause := pingInterval
		if err != nil {
			pause = downInterval
		}
		if retry.Sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// ping sends a request that needs no permission.
func (c *Client) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	response, err := c.kafka.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		return c.wrapError("reach a broker", err)
	}
	return nil
}

// Unavailable returns why the cluster does not answer, or nil. Without a Monitor it returns nil.
func (c *Client) Unavailable() error {
	c.availability.mu.Lock()
	defer c.availability.mu.Unlock()
	return c.availability.err
}

// ReportFailure takes the error of a request. It reports whether the cluster as a whole does not answer, which
// the monitor logs; the caller logs every other error itself. Unless a broker has answered with err, it pings.
func (c *Client) ReportFailure(err error) bool {
	state := &c.availability
	state.pinging.Lock()
	defer state.pinging.Unlock()
	if state.isMonitored() && c.Unavailable() == nil && !isAnswer(err) {
		state.record(c.ping(context.Background()))
	}
	return c.Unavailable() != nil
}

// isAnswer reports whether err is the answer of a broker, or not about Kafka at all.
func isAnswer(err error) bool {
	var code kafka.Error
	return errors.As(err, &code) || errors.Is(err, ErrUnreadable) || errors.Is(err, context.Canceled)
}

func (a *availability) isMonitored() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.monitored
}

// record sets the state, and logs where it changes.
func (a *availability) record(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil && a.err == nil:
		a.since, a.logged = now, now
		a.log.Warn("kafka unavailable, retrying", "err", err)
	case err != nil && now.Sub(a.logged) >= outageLogging:
		a.logged = now
		a.log.Warn("kafka still unavailable", "after", now.Sub(a.since).Round(time.Second), "err", err)
	case err == nil && a.err != nil:
		a.log.Warn("kafka available again", "after", now.Sub(a.since).Round(time.Millisecond))
	}
	a.err = err
	a.up.Set(1)
	if err != nil {
		a.up.Set(0)
	}
}
