package bundles

import (
	"cmp"
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
	pending  prometheus.Gauge
	failed   prometheus.Counter
}

// NewMetrics registers the metrics of bundles; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := metrics.With(reg)
	return &Metrics{
		loaded: factory.Counter("tidegate_detectors_bundles_loaded_total", "Signed bundles of rules that were loaded from Kafka."),
		refused: factory.LabelledCounters("tidegate_detectors_bundles_refused_total",
			"Messages on the topic of bundles that were refused, by reason, and bundles that somebody without a key removed; what is loaded stays.",
			"reason", reasons...),
		sequence: factory.Gauge("tidegate_detectors_bundle_sequence",
			"Sequence of the signed bundle that is loaded, about the time of its push in ms since 1970; 0: none, the configured rules are loaded."),
		newest: factory.Gauge("tidegate_detectors_bundle_newest_sequence",
			"Sequence of the newest signed bundle on the topic; while that of the loaded one is lower, the newest was refused or is pending."),
		readable: factory.Gauge("tidegate_detectors_bundles_topic_up", "1 while the topic of bundles can be read, else 0."),
		pending: factory.Gauge("tidegate_detectors_bundle_pending",
			"1 while a signed bundle could not be loaded for a cause that may pass, such as a full disk, and is tried again; else 0."),
		failed: factory.Counter("tidegate_detectors_bundles_failed_loads_total",
			"Attempts to load a signed bundle that failed for a cause that may pass; each is followed by another one."),
	}
}

// FollowerConfig configures a Follower.
type FollowerConfig struct {
	Kafka   *kafka.Client
	Store   *Store
	Current *Bundle   // the one that the detectors run; nil: none
	Since   time.Time // when they began to
	Problem string    // what went wrong at the start

	// Unloaded is the stored bundle if it did not load at the start, and UnloadedErr why. It is tried again if the cause may
	// pass. Bundles with a lower sequence are not loaded.
	Unloaded    *Bundle
	UnloadedErr error

	Load      func(*Bundle) error // loads a bundle into the detectors, or returns an error and changes nothing
	Detectors func() string       // returns the version of the detectors

	Engine, Host, Program string
	Failpoint             func(string) // for tests; may be nil

	retryPause time.Duration // the shortest before a load is repeated; 0: minRetryPause
}

// Failpoints of a Follower.
const (
	AfterLoad  = "bundle-loaded" // the detectors run the bundle, and it is not stored yet
	AfterStore = "bundle-stored" // it is stored, and not reported yet
)

// A bundle that does not load for a cause that may pass is tried again after pauses that grow between these bounds.
const (
	minRetryPause = 30 * time.Second
	maxRetryPause = 10 * time.Minute
)

// maxCandidates bounds the bundles that are held until they can be loaded, the newest ones.
const maxCandidates = 3

// A Follower reads the topic of bundles and loads the newest one. It is used by one goroutine.
//
// The sequences of the bundles in a log ascend. A bundle is loaded if its sequence is higher than that of the loaded one
// and of each one before it in the log; a lower one than one before it in the log is an old message that was written again.
// Until then it is a candidate. The newest candidate is tried first. One that is refused is none any more, one that is
// loaded ends those that are older, and the others wait until retryAt, or for a newer bundle.
type Follower struct {
	cfg      FollowerConfig
	log      *slog.Logger
	metrics  *Metrics
	throttle *logging.Throttle // of refused messages, which anyone may write who may write to the topic

	reader  topicReader
	newest  int64 // the highest sequence of a signed bundle in the log so far
	floor   int64 // bundles with a lower sequence are not loaded
	current *Bundle
	unsaved bool // current is not stored

	candidates []*Bundle // by sequence, in ascending order
	backoff    retry.Backoff
	retryAt    time.Time // when candidates, and an unsaved bundle, are tried again
	lastError  string    // of a candidate, as it was logged

	removals removalDetector

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
	follower.resetBackoff()
	if cfg.Unloaded != nil {
		follower.floor = cfg.Unloaded.Sequence
		if reason, isRefused := refusalOf(cfg.UnloadedErr); isRefused {
			follower.reportRefusal(cfg.Unloaded, reason, cfg.UnloadedErr)
		} else {
			follower.candidates = []*Bundle{cfg.Unloaded}
			follower.reportPending(cfg.UnloadedErr)
			follower.retryAt = time.Now().Add(follower.backoff.Next())
		}
	}
	if cfg.Current != nil {
		follower.removals.current = cfg.Current.Sequence
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
		f.retry(ctx)
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
	candidates := len(f.candidates)
	if f.reader.next < 0 {
		f.newest, f.removals = 0, removalDetector{current: f.removals.current} // the log is read from its beginning
	}
	atEnd, err := f.reader.poll(ctx, pollWait, func(record kafka.Record) {
		if candidate := f.examine(record); candidate != nil {
			f.candidates = append(f.candidates, candidate)
		}
	}, func(offset int64, err error) {
		f.reject(offset, refuse(ReasonDamaged, "the record batch is skipped: %w", err))
	})
	if err != nil {
		f.metrics.readable.Set(0)
		return err
	}
	f.metrics.readable.Set(1)
	f.metrics.newest.Set(float64(f.newest))
	f.report.Next = f.reader.next
	if atEnd {
		f.reportRemovals(f.removals.atEnd())
	}
	if len(f.candidates) > candidates {
		f.candidates = f.candidates[max(0, len(f.candidates)-maxCandidates):]
		f.resetBackoff()
		f.loadCandidates(ctx)
	}
	return nil
}

// retry repeats what failed for a cause that may have passed.
func (f *Follower) retry(ctx context.Context) {
	if len(f.candidates) == 0 && !f.unsaved || time.Now().Before(f.retryAt) {
		return
	}
	f.retryAt = time.Now().Add(f.backoff.Next())
	if f.unsaved {
		f.save(ctx)
	}
	if len(f.candidates) > 0 {
		f.loadCandidates(ctx)
	}
}

func (f *Follower) resetBackoff() {
	shortest := cmp.Or(f.cfg.retryPause, minRetryPause)
	f.backoff = retry.Backoff{Min: shortest, Max: max(shortest, maxRetryPause)}
}

// examine verifies the message of a record. It returns the bundle, without its contents, if it is newer than the loaded one.
func (f *Follower) examine(record kafka.Record) *Bundle {
	if len(record.Value) == 0 {
		f.removals.add(record, nil)
		return nil
	}
	bundle, _, err := openManifest(record.Value, f.cfg.Store.keys, f.reader.topic)
	f.removals.add(record, bundle)
	isCandidate := func(other *Bundle) bool { return other.Sequence == bundle.Sequence }
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
	if bundle.Sequence < f.floor || f.current != nil && bundle.Sequence <= f.current.Sequence || slices.ContainsFunc(f.candidates, isCandidate) {
		return nil
	}
	return bundle
}

// reject counts, logs and reports a message that is no bundle for this engine.
func (f *Follower) reject(offset int64, err error) {
	reason, _ := refusalOf(err)
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

// reportRemovals counts, logs and reports bundles that somebody without a key has removed from the topic.
func (f *Follower) reportRemovals(sequences []int64) {
	for _, sequence := range sequences {
		f.metrics.refused.WithLabelValues(string(ReasonRemoved)).Inc()
		f.changed = true
		f.report.Removed++
		f.report.LastRemoved = &RemovedBundle{Sequence: sequence, At: time.Now().UTC().Truncate(time.Millisecond)}
		if suppressed, ok := f.throttle.Allow(); ok {
			f.log.Error("somebody has removed a signed bundle from the topic without a push: see who may write to it; this engine keeps what it runs, "+
				"and an engine that starts without its data folder lacks the bundle until the next push", "sequence", sequence, "loaded", f.loaded(),
				"suppressed", suppressed)
		}
	}
}

// loadCandidates loads the newest candidate that can be loaded. A bundle that does not load is no reason against the one
// before it. Those that may be loaded later stay.
func (f *Follower) loadCandidates(ctx context.Context) {
	f.changed = true
	var waiting []*Bundle
	var problem error // of the newest one
	for _, candidate := range slices.Backward(f.candidates) {
		err := f.load(ctx, candidate)
		if err == nil {
			break
		}
		if reason, isRefused := refusalOf(err); isRefused {
			f.refuse(candidate, reason, err)
			continue
		}
		waiting = append(waiting, candidate)
		problem = cmp.Or(problem, err)
	}
	slices.Reverse(waiting)
	f.candidates = waiting
	if len(waiting) == 0 {
		f.report.Pending, f.lastError = nil, ""
		f.metrics.pending.Set(0)
		return
	}
	f.metrics.failed.Inc()
	f.retryAt = time.Now().Add(f.backoff.Next())
	f.reportPending(problem)
	newest := waiting[len(waiting)-1]
	if text := newest.Name() + " " + problem.Error(); text != f.lastError {
		f.lastError = text
		for line := range strings.SplitSeq(problem.Error(), "\n") {
			f.log.Error("bundle not loaded yet, trying again", "bundle", newest.Name(), "sequence", newest.Sequence, "err", line, "loaded", f.loaded())
		}
	}
}

// reportPending reports the newest candidate, which did not load.
func (f *Follower) reportPending(err error) {
	f.metrics.pending.Set(1)
	newest := f.candidates[len(f.candidates)-1]
	if pending := f.report.Pending; pending == nil || pending.Sequence != newest.Sequence {
		f.report.Pending = &PendingBundle{Bundle: newest.Name(), Sequence: newest.Sequence, Since: time.Now().UTC().Truncate(time.Millisecond)}
	}
	f.report.Pending.Attempts++
	f.report.Pending.Error = shorten(err.Error())
}

// refuse counts, logs and reports a signed bundle that does not load.
func (f *Follower) refuse(candidate *Bundle, reason Reason, err error) {
	f.metrics.refused.WithLabelValues(string(reason)).Inc()
	f.reportRefusal(candidate, reason, err)
	for line := range strings.SplitSeq(err.Error(), "\n") {
		f.log.Error("bundle refused, keeping what is loaded", "bundle", candidate.Name(), "reason", reason, "err", line)
	}
}

func (f *Follower) reportRefusal(candidate *Bundle, reason Reason, err error) {
	if refused := f.report.Refused; refused == nil || refused.Sequence < candidate.Sequence {
		f.report.Refused = &RefusedBundle{
			Bundle: candidate.Name(), Sequence: candidate.Sequence, At: time.Now().UTC().Truncate(time.Millisecond), Reason: reason, Error: shorten(err.Error()),
		}
	}
}

// load loads a bundle into the detectors and stores it. An error is one of loading it.
func (f *Follower) load(ctx context.Context, candidate *Bundle) error {
	bundle, err := Open(candidate.Message, f.cfg.Store.keys, f.reader.topic)
	if err == nil {
		err = f.cfg.Load(bundle)
	}
	if err != nil {
		return err
	}
	f.current, f.removals.current = bundle, bundle.Sequence
	f.metrics.loaded.Inc()
	f.metrics.sequence.Set(float64(bundle.Sequence))
	f.log.Info("bundle loaded", "bundle", bundle.Name(), "sequence", bundle.Sequence, "pushed", bundle.Pushed, "by", bundle.By,
		"key", Fingerprint(bundle.Key))
	f.reach(AfterLoad)

	f.report.Bundle, f.report.Sequence, f.report.Since = bundle.Name(), bundle.Sequence, time.Now().UTC().Truncate(time.Millisecond)
	if refused := f.report.Refused; refused != nil && refused.Sequence < bundle.Sequence {
		f.report.Refused = nil
	}
	f.save(ctx)
	f.reach(AfterStore)
	return nil
}

// save stores the bundle that the detectors run. An error is logged once and reported, and saving is repeated.
func (f *Follower) save(ctx context.Context) {
	err := f.cfg.Store.Save(ctx, f.current)
	if err == nil {
		err = f.cfg.Store.RemoveFeeds(f.current.Name())
	}
	f.unsaved, f.changed = err != nil, true
	if err == nil {
		f.report.Problem = ""
		return
	}
	if problem := shorten(err.Error()); problem != f.report.Problem {
		f.log.Error("bundle not stored, trying again: until then the engine may run an earlier one after a restart", "err", err)
		f.report.Problem = problem
	}
	f.retryAt = time.Now().Add(f.backoff.Next())
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
