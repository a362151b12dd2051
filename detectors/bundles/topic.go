package bundles

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

// fetchBytes bounds one fetch. A record batch of any size that the topic accepts fits.
const fetchBytes = 2 * MaxMessage

// A damaged record batch is fetched again this often, after a pause each time: the damage may have happened on the way.
const (
	retriesOfDamaged = 6
	damagePause      = 500 * time.Millisecond
)

// A topicReader reads the one partition of a topic.
type topicReader struct {
	client *kafka.Client
	topic  string // full name
	next   int64  // offset of the next record; below 0: the first one

	retries int // fetches in a row whose first batch was damaged
}

// poll calls use for each record that a fetch returns. It waits for up to wait if there are none, and reports whether it
// has read up to the end. unreadable is called for a record batch that cannot be read and is skipped. A log that no longer
// has the next offset is read from its first one on, by the next call.
func (r *topicReader) poll(
	ctx context.Context, wait time.Duration, use func(kafka.Record), unreadable func(offset int64, err error),
) (atEnd bool, err error) {
	if r.next < 0 {
		if r.next, err = r.firstOffset(ctx); err != nil {
			r.next = -1
			return false, err
		}
	}
	response, err := r.client.Fetch(ctx, kafka.FetchRequest{Topic: r.topic, Offset: r.next, MaxBytes: fetchBytes, MaxWait: wait})
	if errors.Is(err, kafkago.OffsetOutOfRange) || err == nil && response.HighWatermark < r.next {
		r.next = -1 // the topic was made anew
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for {
		batch, ok := response.NextBatch()
		if !ok {
			break
		}
		records, err := readBatch(batch, r.next)
		if errors.Is(err, kafka.ErrDamaged) && r.retries < retriesOfDamaged {
			r.retries++
			return false, retry.Sleep(ctx, damagePause)
		}
		r.retries = 0
		if err != nil {
			unreadable(batch.First, err)
		}
		for _, record := range records {
			use(record)
		}
		r.next = max(r.next, batch.Last+1)
	}
	return r.next >= response.HighWatermark, nil
}

// readBatch returns the records of a batch from an offset on. A panic of a decompressor is an error of the batch, which
// anyone may have written who may write to the topic.
func readBatch(batch kafka.RecordBatch, from int64) (records []kafka.Record, err error) {
	defer func() {
		if r := recover(); r != nil {
			records, err = nil, fmt.Errorf("%w: the decompressor panicked: %v", kafka.ErrUnreadable, r)
		}
	}()
	return batch.Records(from)
}

// firstOffset returns the offset of the first record of the topic.
func (r *topicReader) firstOffset(ctx context.Context) (int64, error) {
	response, err := r.client.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{
		Topics: map[string][]kafkago.OffsetRequest{r.topic: {kafkago.FirstOffsetOf(0)}},
	})
	if err != nil {
		return 0, fmt.Errorf("list the first offset of %s: %w", r.topic, err)
	}
	partitions := response.Topics[r.topic]
	if len(partitions) != 1 {
		return 0, fmt.Errorf("list the first offset of %s: %w", r.topic, kafkago.UnknownTopicOrPartition)
	}
	if err := partitions[0].Error; err != nil {
		return 0, fmt.Errorf("list the first offset of %s: %w", r.topic, err)
	}
	return partitions[0].FirstOffset, nil
}

// readPatience is the time for which commands read a topic: somebody may write there without end.
const readPatience = time.Minute

// readToEnd calls use for each record up to the end, and unreadable for a record batch that is skipped. isComplete is false if
// patience ended before.
func (r *topicReader) readToEnd(
	ctx context.Context, patience time.Duration, use func(kafka.Record), unreadable func(offset int64, err error),
) (isComplete bool, err error) {
	for deadline := time.Now().Add(patience); ; {
		atEnd, err := r.poll(ctx, 100*time.Millisecond, use, unreadable)
		switch {
		case err != nil || atEnd:
			return atEnd, err
		case ctx.Err() != nil:
			return false, ctx.Err()
		case time.Now().After(deadline):
			return false, nil
		}
	}
}

// EnsureTopics creates the topics of bundles and of engines if they do not exist.
func EnsureTopics(ctx context.Context, client *kafka.Client) error {
	_, err := client.EnsureTopics(ctx, pipeline.TopicBundles, pipeline.TopicEngines)
	return err
}

// History is the number of bundles that stay on the topic, for rollbacks.
const History = 10

// A Topic is what the topic of bundles holds.
type Topic struct {
	Bundles []*Bundle // that one of the keys has signed, at most History, the newest first; without contents, which Open reads
	Refused int       // messages that are no bundle, are for another topic, or that none of the keys has signed
	Damaged int       // record batches that cannot be read
	Removed []int64   // sequences of bundles that somebody without a key has removed, in ascending order
	// IsIncomplete is true if the topic could not be read up to its end in time: there may be more.
	IsIncomplete bool

	older []int64 // sequences of further bundles
}

// Read reads the topic of bundles, of which it verifies each message.
func Read(ctx context.Context, client *kafka.Client, keys []ed25519.PublicKey) (*Topic, error) {
	return readTopic(ctx, client, keys, readPatience)
}

// ReadWhole is Read, and fails if the topic could not be read up to its end.
func ReadWhole(ctx context.Context, client *kafka.Client, keys []ed25519.PublicKey) (*Topic, error) {
	topic, err := Read(ctx, client, keys)
	if err == nil && topic.IsIncomplete {
		err = fmt.Errorf("%s has more messages than could be read in %s: somebody writes there without a key, see who may", topicName(client), readPatience)
	}
	return topic, err
}

func readTopic(ctx context.Context, client *kafka.Client, keys []ed25519.PublicKey, patience time.Duration) (*Topic, error) {
	out, removals := &Topic{}, removalDetector{}
	reader := topicReader{client: client, topic: topicName(client), next: -1}
	isComplete, err := reader.readToEnd(ctx, patience, func(record kafka.Record) {
		removals.add(record, out.add(record, keys, reader.topic))
	}, func(int64, error) { out.Damaged++ })
	if err != nil {
		return nil, err
	}
	if out.IsIncomplete = !isComplete; isComplete {
		out.Removed = removals.atEnd()
	}
	return out, nil
}

// add adds a record. It returns the bundle if it is one.
func (t *Topic) add(record kafka.Record, keys []ed25519.PublicKey, topic string) *Bundle {
	if len(record.Value) == 0 {
		isDeleted := func(sequence int64) bool { return string(recordKey(sequence)) == string(record.Key) }
		t.Bundles = slices.DeleteFunc(t.Bundles, func(b *Bundle) bool { return isDeleted(b.Sequence) })
		t.older = slices.DeleteFunc(t.older, isDeleted)
		return nil
	}
	bundle, _, err := openManifest(record.Value, keys, topic)
	if err != nil {
		t.Refused++
		return nil
	}
	bySequence := func(b *Bundle, sequence int64) int { return cmp.Compare(sequence, b.Sequence) } // the newest first
	at, found := slices.BinarySearchFunc(t.Bundles, bundle.Sequence, bySequence)
	if found {
		return bundle // the same message, written again
	}
	t.Bundles = slices.Insert(t.Bundles, at, bundle)
	if len(t.Bundles) > History {
		if t.older = append(t.older, t.Bundles[History].Sequence); len(t.older) > maxTombstones {
			t.older = t.older[1:]
		}
		t.Bundles = t.Bundles[:History]
	}
	return bundle
}

// maxTombstones bounds the bundles that a push removes.
const maxTombstones = 1000

// maxSequence bounds sequences. It is that of a push in the year 287396, and exact in each JSON reader.
const maxSequence = 1 << 53

// A BehindError is the error of a push that an engine would ignore, since it has reported a higher sequence.
type BehindError struct {
	Sequence int64  // of the push
	Engine   Report // that has the highest sequence
}

func (e *BehindError) Error() string {
	return fmt.Sprintf("the engine %s reports that it runs the bundle %s with the sequence %d (%s): it would ignore this push, whose sequence is %d, "+
		"and the topic has no such bundle that one of your keys has signed",
		e.Engine.Engine, e.Engine.Bundle, e.Engine.Sequence, time.UnixMilli(e.Engine.Sequence).UTC().Format(time.RFC3339), e.Sequence)
}

// A PushRequest is what Push signs and sends.
type PushRequest struct {
	Key      ed25519.PrivateKey
	Keys     []ed25519.PublicKey // whose bundles count as earlier ones, besides those of Key
	Manifest Manifest            // without topic and sequence, which Push fills in
	Contents *Contents
	// After is a sequence that the bundle exceeds, besides those of the bundles on the topic.
	After int64
	// Engines are the reports of engines. One that runs and has reported a higher sequence makes the push a BehindError.
	Engines []Report
}

// Push signs contents and writes them to the topic. The bundles before the last History are removed.
func Push(ctx context.Context, client *kafka.Client, request PushRequest) (bundle *Bundle, offset int64, err error) {
	if err := EnsureTopics(ctx, client); err != nil {
		return nil, 0, err
	}
	keys := append([]ed25519.PublicKey{PublicKey(request.Key)}, request.Keys...)
	topic, err := Read(ctx, client, keys)
	if err != nil {
		return nil, 0, err
	}
	manifest := request.Manifest
	manifest.Topic, manifest.Pushed = topicName(client), time.Now().UTC().Truncate(time.Millisecond)
	if manifest.Sequence, err = request.sequence(topic, manifest.Pushed); err != nil {
		return nil, 0, err
	}
	message, err := Seal(request.Key, manifest, request.Contents)
	if err != nil {
		return nil, 0, err
	}
	if bundle, err = Open(message, keys[:1], manifest.Topic); err != nil {
		return nil, 0, fmt.Errorf("read the bundle back: %w", err)
	}
	now := time.Now()
	offset, err = client.Produce(ctx, manifest.Topic, 0,
		kafkago.Record{Time: now, Key: kafkago.NewBytes(recordKey(manifest.Sequence)), Value: kafkago.NewBytes(message)})
	if err != nil {
		if kafka.Classify(err) == kafka.Rejected {
			err = fmt.Errorf("%w: the bundle has %d bytes; set max.message.bytes of the topic to %d", err, len(message), MaxMessage+64<<10)
		}
		return nil, 0, err
	}

	// A record without a value removes the one with the same key at the next compaction.
	var tombstones []kafkago.Record
	older := topic.older
	if len(topic.Bundles) == History {
		older = append(older, topic.Bundles[History-1].Sequence)
	}
	for _, sequence := range older {
		tombstones = append(tombstones, kafkago.Record{Time: now, Key: kafkago.NewBytes(recordKey(sequence))})
	}
	if len(tombstones) > 0 {
		if _, err := client.Produce(ctx, manifest.Topic, 0, tombstones...); err != nil {
			return bundle, offset, fmt.Errorf("the bundle is sent; remove older ones: %w", err)
		}
	}
	return bundle, offset, nil
}

// sequence returns the sequence of a push: higher than that of each bundle that somebody has signed. What engines report
// is not signed, so that it raises no sequence by itself.
func (r *PushRequest) sequence(topic *Topic, now time.Time) (int64, error) {
	sequence := max(now.UnixMilli(), r.After+1)
	if len(topic.Bundles) > 0 {
		sequence = max(sequence, topic.Bundles[0].Sequence+1)
	}
	if sequence > maxSequence {
		return 0, fmt.Errorf("the sequence %d is higher than %d, the highest one: no engine can have verified such a bundle", sequence, maxSequence)
	}
	behind := &BehindError{Sequence: sequence}
	for _, report := range r.Engines {
		if report.IsLive(now) && report.Sequence >= max(sequence, behind.Engine.Sequence) {
			behind.Engine = report
		}
	}
	if behind.Engine.Engine != "" {
		return 0, behind
	}
	return sequence, nil
}
