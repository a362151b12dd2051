package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// A correlator is a detector with rules over several events.
type correlator interface {
	pipeline.Detector
	// Signals does what Evaluate does, and returns the signals of the correlation rules. The index of a signal is that of
	// its event in events.
	Signals(events []*pipeline.Event) []correlate.Signal
	// Correlations returns the correlation rules.
	Correlations() []*correlate.Rule
	// MatchVerdict returns the verdict of a rule that is fulfilled.
	MatchVerdict(match *correlate.Match) *pipeline.Verdict
}

// A correlation is the correlator of a bundle with the rules that the engine evaluates.
type correlation struct {
	correlator
	rules []*correlate.Rule
}

// correlationOf returns the correlation of a bundle; nil: it has no rules over several events.
func correlationOf(bundle *pipeline.Bundle) *correlation {
	for _, detector := range bundle.Detectors {
		found, ok := detector.(correlator)
		if !ok {
			continue
		}
		if rules := found.Correlations(); len(rules) > 0 {
			return &correlation{found, rules}
		}
	}
	return nil
}

const (
	// signalSchema is SignalBlock.schema that this engine writes and reads.
	signalSchema = 1
	// lateness is how much later than others an event may come and is still in its place among them. An alert of a
	// correlation rule comes as much later.
	lateness = 3 * time.Second
	// watermarkInterval is the time after which a worker without events tells how far it has come.
	watermarkInterval = time.Second
	// maxSignalBytes is the size of signals from which on a message of the signals topic is complete.
	maxSignalBytes = 256 << 10
)

// A signalWriter holds what a worker has told the signals topic, and what it is about to tell.
type signalWriter struct {
	partitions int          // of the topic; 0: not known yet
	parts      []signalPart // by partition of the topic
	watermark  int64        // told last, ns since 1970
	told       time.Time    // when
	caughtUp   int64        // when the fetcher last had all records of the partition, ns since 1970
}

// A signalPart is a message for one partition of the signals topic, while it is filled.
type signalPart struct {
	block pipeline.SignalBlock
	size  int // of its signals, encoded
}

// writeSignals writes the matches and the signals of a block that is stored, and to every partition of the topic how far the worker has
// come. A replay of the block writes the same again; a reader recognises it by the time of the block.
func (w *worker) writeSignals(ctx context.Context, block *block) error {
	began := time.Now()
	counter := countMatches(block)
	if block.correlation == nil && len(counter.list) == 0 {
		return nil
	}
	if err := w.beginParts(ctx, block.time); err != nil {
		return err
	}
	if err := w.addMatches(ctx, &counter); err != nil {
		return err
	}
	if block.correlation == nil {
		if err := w.writeParts(ctx); err != nil {
			return err
		}
		w.metrics.verdicts.Add(counter.verdicts())
		return nil
	}
	written := 0
	for i := range block.messages {
		message := &block.messages[i]
		if message.rejection != nil {
			continue // its events are not stored
		}
		for j := range message.signals {
			signal := &message.signals[j]
			part, err := w.partFor(ctx, signal.Rule, signal.Group)
			if err != nil {
				return err
			}
			written++
			encoded := encodeSignal(signal, message)
			part.block.Signals = append(part.block.Signals, encoded)
			part.size += encoded.SizeVT()
		}
	}
	if err := w.tellWatermark(ctx, min(block.newestTime, block.time)); err != nil {
		return err
	}
	w.metrics.verdicts.Add(counter.verdicts())
	w.metrics.signals.Add(uint64(written))
	w.metrics.observeStage("signals", began)
	return nil
}

// addMatches adds matches to the parts. They come in front of all signals, so that those of stored rows are in the same parts.
func (w *worker) addMatches(ctx context.Context, counter *matchCounter) error {
	for _, matches := range counter.list {
		part, err := w.partFor(ctx, matches.Verdict.Rule, matches.Verdict.Group)
		if err != nil {
			return err
		}
		part.block.Matches = append(part.block.Matches, matches)
		part.size += matches.SizeVT()
	}
	return nil
}

// partFor returns the message for the partition of a group, and writes one that is complete before.
func (w *worker) partFor(ctx context.Context, rule, group string) (*signalPart, error) {
	target := int(correlate.GroupHash(rule, group) % uint64(len(w.signals.parts)))
	part := &w.signals.parts[target]
	if part.size >= maxSignalBytes {
		if err := w.writePart(ctx, target); err != nil {
			return nil, err
		}
	}
	return part, nil
}

// writeParts writes the parts that are not empty.
func (w *worker) writeParts(ctx context.Context) error {
	// The last one first: where the topic has fewer partitions than before, nothing is written by the old number.
	for target := range slices.Backward(w.signals.parts) {
		if w.signals.parts[target].size > 0 {
			if err := w.writePart(ctx, target); err != nil {
				return err
			}
		}
	}
	w.signals.parts = nil
	return nil
}

// tellIdle tells the signals topic how far a worker has come that has no events.
func (w *worker) tellIdle(ctx context.Context) error {
	now := w.deps.Now()
	if w.signals.caughtUp == 0 || now.Sub(w.signals.told) < watermarkInterval || correlationOf(w.currentBundle()) == nil {
		return nil
	}
	if err := w.beginParts(ctx, 0); err != nil {
		return err
	}
	return w.tellWatermark(ctx, w.signals.caughtUp)
}

// beginParts begins a message for each partition of the topic.
func (w *worker) beginParts(ctx context.Context, blockTime int64) error {
	if w.signals.partitions == 0 {
		if err := w.withRetry(ctx, "find the signals topic", func() (err error) {
			w.signals.partitions, err = w.deps.Kafka.Partitions(ctx, w.deps.Kafka.Topic(pipeline.TopicSignals))
			return err
		}); err != nil {
			return err
		}
	}
	w.signals.parts = make([]signalPart, w.signals.partitions)
	for i := range w.signals.parts {
		w.signals.parts[i].block = pipeline.SignalBlock{Schema: signalSchema, Partition: w.source.Partition, Time: blockTime}
	}
	return nil
}

// tellWatermark writes what is left of the signals to each partition of the topic, with the watermark of a worker that has
// processed all that came before the time reached.
func (w *worker) tellWatermark(ctx context.Context, reached int64) error {
	w.signals.watermark = max(w.signals.watermark, reached-int64(lateness))
	// The last one first: where the topic has fewer partitions than before, nothing is written by the old number.
	for target := range slices.Backward(w.signals.parts) {
		w.signals.parts[target].block.Watermark = w.signals.watermark
		if err := w.writePart(ctx, target); err != nil {
			return err
		}
	}
	w.signals.parts, w.signals.told = nil, w.deps.Now()
	return nil
}

// writePart writes the message for one partition of the topic, and begins the next one. It returns errRestart if the topic has
// no such partition any more: it was created anew with fewer, and the groups of the block are distributed again.
func (w *worker) writePart(ctx context.Context, target int) error {
	part := &w.signals.parts[target]
	value, err := part.block.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode the signals of a block: %w", err)
	}
	topic, isGone := w.deps.Kafka.Topic(pipeline.TopicSignals), false
	err = w.withRetry(ctx, "write signals", func() error {
		record := kafkago.Record{Time: w.deps.Now(), Value: kafkago.NewBytes(value)}
		_, err := w.deps.Kafka.Produce(ctx, topic, target, record)
		if err != nil && kafka.Classify(err) == kafka.Rejected {
			w.metrics.signalsRejected.Add(uint64(len(part.block.Signals) + len(part.block.Matches)))
			w.log.Error("signals topic rejected signals", "signals", len(part.block.Signals), "matches", len(part.block.Matches), "bytes", len(value), "err", err)
			return nil
		}
		if err != nil {
			partitions, findErr := w.deps.Kafka.Partitions(ctx, topic)
			if isGone = findErr == nil && partitions <= target; isGone {
				return nil
			}
		}
		return err
	})
	if isGone {
		w.signals.partitions = 0
		return errRestart
	}
	part.block.Signals, part.block.Matches, part.size = nil, nil, 0
	part.block.Part++
	return err
}

// encodeSignal returns the form of a signal of an event of message in which it is written. It shares the strings of both.
func encodeSignal(signal *correlate.Signal, message *message) *pipeline.Signal {
	return &pipeline.Signal{
		Rule: signal.Rule, Version: signal.Version, Step: uint32(signal.Step), Group: signal.Group,
		Start: signal.Start, End: signal.End, Value: signal.Value, Offset: message.record.Offset, Index: signal.Index,
		Text: signal.Text, Event: alertedEvent(message.batch.Events[signal.Index]),
	}
}

// maxAlertedName bounds a name in what is written of an event: one long name must not make the message of a
// block too large for the topic. An alert cuts it again.
const maxAlertedName = 1024

// alertedEvent returns what an alert shows of an event. It shares the strings of the event.
func alertedEvent(event *pipeline.Event) *pipeline.Event {
	out := &pipeline.Event{
		Id: event.Id, Dataset: event.Dataset, Timestamp: event.Timestamp,
		Source: addressOf(event.Source), Destination: addressOf(event.Destination),
	}
	if host := event.Host; host != nil {
		out.Host = &pipeline.Host{Name: cutName(host.Name), Cluster: cutName(host.Cluster)}
	}
	if container := event.Container; container != nil {
		out.Container = &pipeline.Container{
			Id: cutName(container.Id), Name: cutName(container.Name), Image: cutName(container.Image), Demo: container.Demo,
		}
	}
	return out
}

func cutName(name string) string {
	if len(name) > maxAlertedName {
		return strings.ToValidUTF8(name[:maxAlertedName], "")
	}
	return name
}

func addressOf(endpoint *pipeline.Endpoint) *pipeline.Endpoint {
	if endpoint == nil {
		return nil
	}
	return &pipeline.Endpoint{Ip: endpoint.Ip, Port: endpoint.Port}
}
