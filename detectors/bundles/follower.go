package bundles

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/logging"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

// Metrics counts what became of the messages on the topic of bundles.
type Metrics struct {
	loaded   prometheus.Counter
	refused  *prometheus.CounterVec
	sequence prometheus.Gauge
	newest   prometheus.Gauge
	readable prometheus.Gauge
}

// NewMetrics registers the metrics of bundles; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := metrics.With(reg)
	return &Metrics{
		loaded: factory.Counter("tidegate_detectors_bundles_loaded_total", "Signed bundles of rules that were loaded from Kafka."),
		refused: factory.LabelledCounters("tidegate_detectors_bundles_refused_total",
			"Messages on the topic of bundles that were refused, by reason; the rules that were loaded before stay.", "reason", reasons...),
		sequence: factory.Gauge("tidegate_detectors_bundle_sequence",
			"Sequence of the signed bundle that is loaded, about the time of its push in ms since 1970; 0: none, the configured rules are loaded."),
		newest: factory.Gauge("tidegate_detectors_bundle_newest_sequence",
			"Sequence of the newest signed bundle on the topic; while the bundle that is loaded is older, the newest was refused."),
		readable: factory.Gauge("tidegate_detectors_bundles_topic_up", "1 while the topic of bundles can be read, else 0."),
	}
}

// FollowerConfig configures a Follower.
type FollowerConfig struct {
	Kafka   *kafka.Client
	Store   *Store
	Current *Bundle   // the one that the detectors run; nil: none
	Since   time.Time // when they began to
	Floor   int64     // bundles with a lower sequence are not loaded: that of a stored one that does not load any more
	Problem string    // what went wrong at the start

	Load      func(*Bundle) error // loads a bundle into the detectors, or returns an error and changes nothing
	Detectors func() string       // returns the version of the detectors

	Engine, Host, Program string
	Failpoint             func(string) // for tests; may be nil
}

// Failpoints of a Follower.
const (
	AfterLoad  = "bundle-loaded" // the detectors run the bundle, and it is not stored yet
	AfterStore = "bundle-stored" // it is stored, and not reported yet
)

// A Follower reads the topic of bundles and loads the newest one. It is used by one goroutine.
//
// The sequences of the bundles in a log ascend. A bundle is loaded if its sequence is higher than that of the loaded one
// and of each one before it in the log; a lower one than one before it in the log is an old message that was written again.
type Follower struct {
	cfg      FollowerConfig
	log      *slog.Logger
	metrics  *Metrics
	throttle *logging.Throttle // of refused messages, which anyone may write who may write to the topic

	reader  topicReader
	newest  int64 // the highest sequence of a signed bundle in the log so far
	current *Bundle

	report   Report
	reported time.Time // when report was sent last
	changed  bool      // report has changed since
}

// NewFollower returns a follower. Run starts it.
func NewFollower(cfg FollowerConfig, log *slog.Logger, metrics *Metrics) *Follower {
	follower := &Follower{
		cfg: cfg, log: log, metrics: metrics, throttle: logging.NewThrottle(time.Second),
		reader: topicReader{client: cfg.Kafka, topic: topicName(cfg.Kafka), next: -1}, current: cfg.Current, changed: true,
	}
	follower.report = Report{
		Engine: cfg.Engine, Host: cfg.Host, Program: cfg.Program, Since: cfg.Since.UTC().Truncate(time.Millisecond), Problem: shorten(cfg.Problem),
	}
	if cfg.Current != nil {
		follower.report.Bundle, follower.report.Sequence = cfg.Current.Name(), cfg.Current.Sequence
		metrics.sequence.Set(float64(cfg.Current.Sequence))
	}
	return follower
}

const pollWait = 500 * time.Millisecond

// Run follows the topic until ctx ends. While the topic cannot be read, the detectors stay as they are.
func (f *Follower) Run(ctx context.Context) error {
	backoff := retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	logged := ""
	if err := EnsureTopics(ctx, f.cfg.Kafka); err != nil && ctx.Err() == nil {
		f.log.Error("topics of bundles not created", "err", err)
	}
	for ctx.Err() == nil {
		err := f.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = f.sendReport(ctx)
		}
		if err == nil {
			if logged != "" {
				f.log.Warn("topics of bundles usable again")
			}
			backoff, logged = retry.Backoff{Min: backoff.Min, Max: backoff.Max}, ""
			continue
		}
		if !f.cfg.Kafka.ReportFailure(err) && err.Error() != logged {
			f.log.Error("topics of bundles unusable, keeping what is loaded", "err", err, "loaded", f.loaded())
		}
		logged = err.Error()
		if errors.Is(err, kafkago.UnknownTopicOrPartition) {
			f.reader.next = -1 // it was deleted
			_ = EnsureTopics(ctx, f.cfg.Kafka)
		}
		_ = backoff.Wait(ctx)
	}
	return nil
}

// loaded returns what the detectors run, for logs.
func (f *Follower) loaded() string {
	if f.current == nil {
		return "the rules of the configuration"
	}
	return "bundle " + f.current.Name()
}

// poll reads new messages and loads the newest bundle among them that can be loaded.
func (f *Follower) poll(ctx context.Context) error {
	var candidates []*Bundle
	if f.reader.next < 0 {
		f.newest = 0 // the log is read from its beginning
	}
	_, err := f.reader.poll(ctx, pollWait, func(record kafka.Record) {
		if candidate := f.examine(record); candidate != nil {
			candidates = append(candidates, candidate)
		}
	}, func(offset int64, err error) { f.reject(offset, refuse(ReasonFormat, "%w", err)) })
	if err != nil {
		f.metrics.readable.Set(0)
		return err
	}
	f.metrics.readable.Set(1)
	f.metrics.newest.Set(float64(f.newest))
	f.report.Next = f.reader.next

	// Sequences ascend. A bundle that does not load is no reason against the one before it.
	for _, candidate := range slices.Backward(candidates) {
		f.changed = true
		if f.load(ctx, candidate) {
			break
		}
	}
	return nil
}

// examine verifies the message of a record. It returns the bundle, without its contents, if it is newer than the loaded one.
func (f *Follower) examine(record kafka.Record) *Bundle {
	if len(record.Value) == 0 {
		return nil // a bundle was removed
	}
	bundle, _, err := openManifest(record.Value, f.cfg.Store.keys, f.reader.topic)
	switch {
	case err != nil:
		f.reject(record.Offset, err)
		return nil
	case bundle.Sequence < f.newest:
		f.reject(record.Offset, refuse(ReasonReplayed, "the bundle %s of %s was written again: its sequence %d is lower than %d before it",
			bundle.Name(), bundle.Pushed.Format(time.RFC3339), bundle.Sequence, f.newest))
		return nil
	case bundle.Sequence == f.newest: // Kafka may have written one message twice
		return nil
	}
	f.newest = bundle.Sequence
	if bundle.Sequence < f.cfg.Floor || f.current != nil && bundle.Sequence <= f.current.Sequence {
		return nil
	}
	return bundle
}

// reject counts, logs and reports a message that is no bundle for this engine.
func (f *Follower) reject(offset int64, err error) {
	reason := reasonOf(err)
	f.metrics.refused.WithLabelValues(string(reason)).Inc()
	f.changed = true
	f.report.Rejected++
	f.report.LastRejected = &RejectedMessage{
		Offset: offset, At: time.Now().UTC().Truncate(time.Millisecond), Reason: reason, Error: shorten(err.Error()),
	}
	if suppressed, ok := f.throttle.Allow(); ok {
		f.log.Error("message on the topic of bundles refused", "offset", offset, "reason", reason, "err", err,
			"loaded", f.loaded(), "suppressed", suppressed)
	}
}

// load loads a bundle and stores it. It reports whether the detectors run the bundle.
func (f *Follower) load(ctx context.Context, candidate *Bundle) bool {
	bundle, err := Open(candidate.Message, f.cfg.Store.keys, f.reader.topic)
	if err == nil {
		err = f.cfg.Load(bundle)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	if err != nil {
		f.metrics.refused.WithLabelValues(string(reasonOf(err))).Inc()
		if refused := f.report.Refused; refused == nil || refused.Sequence < candidate.Sequence {
			f.report.Refused = &RefusedBundle{
				Bundle: candidate.Name(), Sequence: candidate.Sequence, At: now, Reason: reasonOf(err), Error: shorten(err.Error()),
			}
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			f.log.Error("bundle refused, keeping what is loaded", "bundle", candidate.Name(), "reason", reasonOf(err), "err", line)
		}
		return false
	}

	f.current = bundle
	f.metrics.loaded.Inc()
	f.metrics.sequence.Set(float64(bundle.Sequence))
	f.log.Info("bundle loaded", "bundle", bundle.Name(), "sequence", bundle.Sequence, "pushed", bundle.Pushed, "by", bundle.By,
		"key", Fingerprint(bundle.Key))
	f.reach(AfterLoad)

	f.report.Bundle, f.report.Sequence, f.report.Since, f.report.Problem = bundle.Name(), bundle.Sequence, now, ""
	if refused := f.report.Refused; refused != nil && refused.Sequence < bundle.Sequence {
		f.report.Refused = nil
	}
	err = f.cfg.Store.Save(ctx, bundle)
	if err == nil {
		err = f.cfg.Store.RemoveFeeds(bundle.Name())
	}
	if err != nil {
		f.log.Error("bundle not stored: after a restart the engine may run an earlier one until it has read the topic", "err", err)
		f.report.Problem = shorten(err.Error())
	}
	f.reach(AfterStore)
	return true
}

// reach calls the failpoint of the tests.
func (f *Follower) reach(name string) {
	if f.cfg.Failpoint != nil {
		f.cfg.Failpoint(name)
	}
}

// sendReport writes the report if it has changed or is old.
func (f *Follower) sendReport(ctx context.Context) error {
	if detectors := f.cfg.Detectors(); detectors != f.report.Detectors {
		f.report.Detectors, f.changed = detectors, true
	}
	age := time.Since(f.reported)
	if age < minReportInterval || !f.changed && age < reportInterval {
		return nil
	}
	value, err := json.Marshal(f.report)
	if err != nil {
		return err
	}
	topic := f.cfg.Kafka.Topic(pipeline.TopicEngines)
	_, err = f.cfg.Kafka.Produce(ctx, topic, 0, kafkago.Record{
		Time: time.Now(), Key: kafkago.NewBytes([]byte(f.cfg.Engine)), Value: kafkago.NewBytes(value),
	})
	if err != nil {
		return err
	}
	f.reported, f.changed = time.Now(), false
	return nil
}
