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
)

// fetchBytes bounds one fetch. A record batch of any size that the topic accepts fits.
const fetchBytes = 2 * MaxMessage

// A topicReader reads the one partition of a topic.
type topicReader struct {
	client *kafka.Client
	topic  string // full name
	next   int64  // offset of the next record; below 0: the first one
}

// poll calls use for each record that a fetch returns. It waits for up to wait if there are none, and reports whether it
// has read up to the end. unreadable is called for a record batch that cannot be read. A log that no longer has the next
// offset is read from its first one on, by the next call.
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
		records, err := batch.Records(r.next)
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

// readToEnd calls use for each record up to the end. A record batch that cannot be read is skipped.
func (r *topicReader) readToEnd(ctx context.Context, use func(kafka.Record)) error {
	for {
		atEnd, err := r.poll(ctx, 100*time.Millisecond, use, func(int64, error) {})
		if err != nil || atEnd {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
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

// Read returns the bundles on the topic that one of the keys has signed, at most History, the newest first. They have no
// contents: Open reads those. refused is the number of messages that are no bundle, are for another
// topic, or that none of the keys has signed.
func Read(ctx context.Context, client *kafka.Client, keys []ed25519.PublicKey) (list []*Bundle, refused int, err error) {
	list, _, refused, err = readBundles(ctx, client, keys)
	return list, refused, err
}

// readBundles is Read. older holds the sequences of further bundles.
func readBundles(
	ctx context.Context, client *kafka.Client, keys []ed25519.PublicKey,
) (list []*Bundle, older []int64, refused int, err error) {
	topic := topicName(client)
	reader := topicReader{client: client, topic: topic, next: -1}
	err = reader.readToEnd(ctx, func(record kafka.Record) {
		bySequence := func(b *Bundle, sequence int64) int { return cmp.Compare(sequence, b.Sequence) } // the newest first
		if len(record.Value) == 0 {
			isDeleted := func(sequence int64) bool { return string(recordKey(sequence)) == string(record.Key) }
			list = slices.DeleteFunc(list, func(b *Bundle) bool { return isDeleted(b.Sequence) })
			older = slices.DeleteFunc(older, isDeleted)
			return
		}
		bundle, _, err := openManifest(record.Value, keys, topic)
		if err != nil {
			refused++
			return
		}
		at, found := slices.BinarySearchFunc(list, bundle.Sequence, bySequence)
		if found {
			return // the same message, written again
		}
		list = slices.Insert(list, at, bundle)
		if len(list) > History {
			if older = append(older, list[History].Sequence); len(older) > maxTombstones {
				older = older[1:]
			}
			list = list[:History]
		}
	})
	return list, older, refused, err
}

// maxTombstones bounds the bundles that a push removes.
const maxTombstones = 1000

// Push signs contents and writes them to the topic. It fills in the topic and the sequence of the manifest. keys are those
// whose bundles count as earlier ones, besides that of key. The bundles before the last History are removed.
func Push(
	ctx context.Context, client *kafka.Client, key ed25519.PrivateKey, keys []ed25519.PublicKey, manifest Manifest, contents *Contents,
) (bundle *Bundle, offset int64, err error) {
	if err := EnsureTopics(ctx, client); err != nil {
		return nil, 0, err
	}
	keys = append([]ed25519.PublicKey{PublicKey(key)}, keys...)
	before, older, _, err := readBundles(ctx, client, keys)
	if err != nil {
		return nil, 0, err
	}
	manifest.Topic, manifest.Pushed = topicName(client), time.Now().UTC().Truncate(time.Millisecond)
	manifest.Sequence = manifest.Pushed.UnixMilli()
	if len(before) > 0 {
		manifest.Sequence = max(manifest.Sequence, before[0].Sequence+1)
	}
	message, err := Seal(key, manifest, contents)
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
	if len(before) == History {
		older = append(older, before[History-1].Sequence)
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
