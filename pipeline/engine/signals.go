package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"google.golang.org/protobuf/encoding/protowire"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// A signalDetector is a detector with rules over several events.
type signalDetector interface {
	pipeline.Detector
	// Signals does what Evaluate does, and returns the signals of the correlation rules. The index of a signal is that of
	// its event in events.
	Signals(events []*pipeline.Event) []correlate.Signal
	// Correlations returns the correlation rules.
	Correlations() []*correlate.Rule
	// MatchVerdict returns the verdict of a rule that is fulfilled, and counts the match.
	MatchVerdict(match *correlate.Match) *pipeline.Verdict
}

// A correlation is the signalDetector of a bundle with the rules that the engine evaluates.
type correlation struct {
	signalDetector
	rules []*correlate.Rule
}

// newCorrelation returns the correlation of a bundle; nil: it has no rules over several events.
func newCorrelation(bundle *pipeline.Bundle) *correlation {
	for _, detector := range bundle.Detectors {
		found, ok := detector.(signalDetector)
		if !ok {
			continue
		}
		if rules := found.Correlations(); len(rules) > 0 {
			return &correlation{found, rules}
		}
	}
	return nil
}

// correlationOf returns newCorrelation of a bundle, which is found once for each bundle.
func (w *worker) correlationOf(bundle *pipeline.Bundle) *correlation {
	if w.correlated.bundle != bundle {
		w.correlated.bundle, w.correlated.correlation = bundle, newCorrelation(bundle)
	}
	return w.correlated.correlation
}

// isOf reports whether the detector is that of the correlation, which may be nil.
func (c *correlation) isOf(d pipeline.Detector) bool {
	return c != nil && d == pipeline.Detector(c.signalDetector)
}

// find evaluates events and returns their signals. ok is false after a panic of the detector.
func (c *correlation) find(events []*pipeline.Event) (signals []correlate.Signal, ok bool) {
	defer func() { ok = recover() == nil }()
	return c.Signals(events), true
}

// findAgain returns the signals of events that were evaluated before, whose verdicts stay. An event on which the detector
// panics has none.
func (c *correlation) findAgain(events []*pipeline.Event) (signals []correlate.Signal) {
	verdicts := make([][]*pipeline.Verdict, len(events))
	for i, event := range events {
		verdicts[i], event.Verdicts = event.Verdicts, nil
	}
	signals, ok := c.find(events)
	if !ok {
		signals = nil
		for i := range events {
			found, ok := c.find(events[i : i+1])
			for j := range found {
				found[j].Index = uint32(i)
			}
			if ok {
				signals = append(signals, found...)
			}
		}
	}
	for i, event := range events {
		event.Verdicts = verdicts[i]
	}
	return signals
}

const (
	// signalSchema is SignalBlock.schema that this engine writes and reads.
	signalSchema = 1
	// lateness is how much later than others an event may come and is still in its place among them. An alert of a
	// correlation rule comes as much later.
	lateness = 3 * time.Second
	// watermarkInterval is the time after which a worker without events writes how far it has come.
	watermarkInterval = time.Second
	// maxSignalBytes is the size from which on a message of the signals topic is complete.
	maxSignalBytes = 256 << 10
	// maxPartsBytes is the size from which on all messages are complete, whatever the number of partitions.
	maxPartsBytes = 1 << 20
	// maxJoinedBytes is the size of the signals that are joined before they are encoded.
	maxJoinedBytes = 512 << 10
)

// A signalWriter holds what a worker has written to the signals topic, and what it is about to write. The bounds of its
// messages follow from the signals alone, since a replay must write the same messages.
type signalWriter struct {
	parts     []signalPart // by partition of the topic
	size      int          // of all parts, encoded
	joined    *correlate.Aggregator
	watermark int64     // written last, ns since 1970
	written   time.Time // when
	caughtUp  int64     // when the fetcher last had all records of the partition, ns since 1970
}

// A signalPart is a message for one partition of the signals topic, while it is filled.
type signalPart struct {
	block   pipeline.SignalBlock // without signals
	signals []byte               // encoded as the field of SignalBlock
	count   int                  // of signals
	size    int                  // of matches and signals, encoded
}

// writeSignals writes the matches and the signals of a block that is stored, and to every partition of the topic how far the
// worker has come. A replay of the block writes the same again; a reader recognises it by the time of the block.
func (w *worker) writeSignals(ctx context.Context, block *block) error {
	began := time.Now()
	counter := countMatches(block)
	if block.correlation == nil && len(counter.list) == 0 {
		return nil
	}
	if err := w.confirmOwnership(ctx, block); err != nil {
		return err
	}
	if err := w.beginParts(ctx, block.time, block.signalPartitions); err != nil {
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

	// Join the signals of all messages.
	w.signals.joined = correlate.NewAggregator(block.correlation.rules)
	written := uint64(0)
	for i := range block.messages {
		message := &block.messages[i]
		if message.rejection != nil {
			continue // its events are not stored
		}
		if err := w.eachChunk(block, message, func(signals []correlate.Signal) error {
			for i := range signals {
				w.signals.joined.Add(&signals[i])
				written += uint64(max(1, signals[i].Count))
			}
			if w.signals.joined.Bytes() < maxJoinedBytes {
				return nil
			}
			return w.encodeJoined(ctx)
		}); err != nil {
			return err
		}
	}
	if err := w.encodeJoined(ctx); err != nil {
		return err
	}
	if err := w.writeWatermark(ctx, min(block.newestTime, block.time)); err != nil {
		return err
	}
	w.metrics.verdicts.Add(counter.verdicts())
	w.metrics.signals.Add(written)
	w.metrics.observeStage("signals", began)
	return nil
}

// hasSignals reports whether the block has something to write to the signals topic.
func (b *block) hasSignals() bool {
	if b.correlation != nil {
		return true
	}
	for i := range b.messages {
		if slices.ContainsFunc(b.messages[i].batch.Events, func(e *pipeline.Event) bool { return len(e.Verdicts) > 0 }) {
			return true
		}
	}
	return false
}

// encodeJoined adds the joined signals to the parts.
func (w *worker) encodeJoined(ctx context.Context) error {
	signals := w.signals.joined.Take()
	for i := range signals {
		part, err := w.partFor(ctx, signals[i].Rule, signals[i].Group)
		if err != nil {
			return err
		}
		encoded := encodeSignal(&signals[i])
		before := len(part.signals)
		size := encoded.SizeVT()
		part.signals = protowire.AppendTag(part.signals, signalsField, protowire.BytesType)
		part.signals = protowire.AppendVarint(part.signals, uint64(size))
		part.signals = append(part.signals, make([]byte, size)...)
		if _, err := encoded.MarshalToSizedBufferVT(part.signals[len(part.signals)-size:]); err != nil {
			return fmt.Errorf("encode a signal: %w", err)
		}
		part.count++
		part.size += len(part.signals) - before
		w.signals.size += len(part.signals) - before
	}
	return nil
}

// signalsField is the number of the field SignalBlock.signals.
const signalsField = 6

// addMatches adds matches to the parts. They come in front of all signals, so that those of stored rows are in the same parts.
func (w *worker) addMatches(ctx context.Context, counter *matchCounter) error {
	for _, matches := range counter.list {
		part, err := w.partFor(ctx, matches.Verdict.Rule, matches.Verdict.Group)
		if err != nil {
			return err
		}
		size := matches.SizeVT()
		part.block.Matches = append(part.block.Matches, matches)
		part.size += size
		w.signals.size += size
	}
	return nil
}

// partFor returns the message for the partition of a group, and writes those that are complete before.
func (w *worker) partFor(ctx context.Context, rule, group string) (*signalPart, error) {
	if w.signals.size >= maxPartsBytes {
		if err := w.writeFilled(ctx); err != nil {
			return nil, err
		}
	}
	target := int(correlate.GroupHash(rule, group) % uint64(len(w.signals.parts)))
	part := &w.signals.parts[target]
	if part.size >= maxSignalBytes {
		if err := w.writePart(ctx, target); err != nil {
			return nil, err
		}
	}
	return part, nil
}

// writeFilled writes the parts that are not empty.
func (w *worker) writeFilled(ctx context.Context) error {
	// The last one first: where the topic has fewer partitions than before, nothing is written by the old number.
	for target := range slices.Backward(w.signals.parts) {
		if w.signals.parts[target].size > 0 {
			if err := w.writePart(ctx, target); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeParts writes what is left of the parts.
func (w *worker) writeParts(ctx context.Context) error {
	err := w.writeFilled(ctx)
	w.signals.parts = nil
	return err
}

// writeIdleWatermark writes to the signals topic how far a worker has come that has no events.
func (w *worker) writeIdleWatermark(ctx context.Context) error {
	now := w.deps.Now()
	if w.signals.caughtUp == 0 || now.Sub(w.signals.written) < watermarkInterval || w.correlationOf(w.currentBundle()) == nil {
		return nil
	}
	if err := w.beginParts(ctx, 0, 0); err != nil {
		return err
	}
	return w.writeWatermark(ctx, w.signals.caughtUp)
}

// beginParts begins a message for each of a number of partitions of the topic; 0: for each that there is. Where the topic has
// fewer, since it was created anew, it is for each that there is.
func (w *worker) beginParts(ctx context.Context, blockTime int64, partitions int) error {
	found, err := w.findSignalPartitions(ctx)
	if err != nil {
		return err
	}
	if partitions == 0 || partitions > found {
		partitions = found
	}
	w.signals.parts, w.signals.size = make([]signalPart, partitions), 0
	for i := range w.signals.parts {
		w.signals.parts[i].block = pipeline.SignalBlock{Schema: signalSchema, Partition: w.source.Partition, Time: blockTime}
	}
	return nil
}

// partitionsInterval is the time for which the number of partitions of the signals topic is not asked again. So long after
// the topic was grown a group may be on two partitions.
const partitionsInterval = 10 * time.Second

// signalPartitions is the number of partitions of the signals topic, for all workers of the process.
type signalPartitions struct {
	mu      sync.Mutex
	count   int       // guarded by mu, as is askedAt; 0: it is not known
	askedAt time.Time // when a worker asked last
}

// get returns the number, and whether the caller is to ask for it.
func (p *signalPartitions) get() (count int, isOld bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isOld = p.count == 0 || time.Since(p.askedAt) >= partitionsInterval; isOld {
		p.askedAt = time.Now() // the other workers need not ask
	}
	return p.count, isOld
}

// set sets the number; 0: the next worker asks for it.
func (p *signalPartitions) set(count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count = count
}

// findSignalPartitions returns the number of partitions of the signals topic, as of partitionsInterval ago. It waits for the
// topic to be found once, and fails only if ctx has ended.
func (w *worker) findSignalPartitions(ctx context.Context) (count int, err error) {
	count, isOld := w.signalPartitions.get()
	if !isOld {
		return count, nil
	}
	ask := func() error {
		found, err := w.deps.Kafka.Partitions(ctx, w.deps.Kafka.Topic(pipeline.TopicSignals))
		if err == nil {
			count = found
			w.signalPartitions.set(found)
		}
		return err
	}
	if count == 0 {
		return count, w.withRetry(ctx, "find the signals topic", ask)
	}
	_ = ask() // if it fails, the number stays as it was
	return count, nil
}

// writeWatermark writes what is left of the signals to each partition of the topic, with the watermark of a worker that has
// processed all that came before the time reached.
func (w *worker) writeWatermark(ctx context.Context, reached int64) error {
	w.signals.watermark = max(w.signals.watermark, reached-int64(lateness))
	// The last one first: where the topic has fewer partitions than before, nothing is written by the old number.
	for target := range slices.Backward(w.signals.parts) {
		w.signals.parts[target].block.Watermark = w.signals.watermark
		if err := w.writePart(ctx, target); err != nil {
			return err
		}
	}
	w.signals.parts, w.signals.written = nil, w.deps.Now()
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
	value = append(value, part.signals...)
	topic, isGone := w.deps.Kafka.Topic(pipeline.TopicSignals), false
	err = w.withRetry(ctx, "write signals", func() error {
		record := kafkago.Record{Time: w.deps.Now(), Value: kafkago.NewBytes(value)}
		_, err := w.deps.Kafka.Produce(ctx, topic, target, record)
		if err != nil && kafka.Classify(err) == kafka.Rejected {
			w.metrics.signalsRejected.Add(uint64(part.count + len(part.block.Matches)))
			w.log.Error("signals topic rejected signals", "signals", part.count, "matches", len(part.block.Matches), "bytes", len(value), "err", err)
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
		w.signalPartitions.set(0)
		return errRestart
	}
	w.signals.size -= part.size
	part.block.Matches, part.signals, part.count, part.size = nil, nil, 0, 0
	part.block.Part++
	return err
}

// encodeSignal returns the form of a signal in which it is written. It shares the strings of the signal and of its event.
func encodeSignal(signal *correlate.Signal) *pipeline.Signal {
	out := &pipeline.Signal{
		Rule: signal.Rule, Version: signal.Version, Step: uint32(signal.Step), Group: signal.Group,
		Start: signal.Start, End: signal.End, Value: signal.Value, ValueHigh: signal.ValueHigh, Offset: signal.Offset, Index: signal.Index,
		Text: signal.Text, Event: alertedEvent(signal.AlertEvent),
	}
	if signal.Count > 1 {
		out.Count, out.First, out.Last = uint64(signal.Count), signal.First, signal.Last
	}
	return out
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
