package bundles

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline/kafka"
)

// TestRemovalOfBundlesIsReported: by a record without a value and by another one under the key of a bundle. The engine keeps
// what it runs, also over a restart.
func TestRemovalOfBundlesIsReported(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	engine := startEngine(t, client, t.TempDir(), keys)
	one, two := push(t, client, key, ruleText("one")), push(t, client, key, ruleText("two"))
	engine.expect("two")
	write(t, client, string(recordKey(one.Sequence)), []byte("garbage"))
	expectReport(t, client, 0, "one is overwritten", func(r Report) bool {
		return r.Removed == 1 && r.LastRemoved.Sequence == one.Sequence && r.Sequence == two.Sequence
	})
	write(t, client, string(recordKey(two.Sequence)), nil)
	expectReport(t, client, 0, "two is removed", func(r Report) bool { return r.Removed == 2 && r.LastRemoved.Sequence == two.Sequence })
	if got := testutil.ToFloat64(engine.metrics.refused.WithLabelValues(string(ReasonRemoved))); got != 2 {
		t.Errorf("%v removals are counted", got)
	}
	topic, err := Read(t.Context(), client, keys)
	if err != nil || !slices.Equal(topic.Removed, []int64{one.Sequence, two.Sequence}) {
		t.Errorf("removed %d, %v", topic.Removed, err)
	}
	engine.restart()
	engine.expect("two")
	push(t, client, key, ruleText("three"))
	engine.expect("three")
}

// TestRemovals of what the log still has, or not.
func TestRemovals(t *testing.T) {
	var detector removalDetector
	add := func(key int64, signed int64) {
		record := kafka.Record{Key: recordKey(key), Value: []byte("x")}
		switch {
		case signed > 0:
			detector.add(record, &Bundle{Manifest: Manifest{Sequence: signed}})
		case signed == 0:
			record.Value = nil
			detector.add(record, nil)
		default:
			detector.add(record, nil)
		}
	}
	check := func(what string, want ...int64) {
		t.Helper()
		if got := detector.atEnd(); !slices.Equal(got, want) {
			t.Errorf("%s: removed %d, want %d", what, got, want)
		}
	}
	const tombstone, garbage = 0, -1
	for sequence := range int64(History + 2) {
		add(100+sequence, 100+sequence)
	}
	add(100, tombstone)
	add(101, tombstone)
	check("those before the last ten")
	add(102, tombstone)
	check("one of the last ten", 102)
	check("no more")
	add(111, garbage)
	check("one that is overwritten", 111)
	add(110, 105)
	check("one that is overwritten by another bundle", 110)
	add(50, garbage)
	add(50, tombstone)
	check("garbage that is removed again")
	add(104, tombstone)
	add(104, 104)
	check("one that is written again")
	add(200, tombstone)
	check("one that compaction has removed, and all others are older", 200)

	// A push of a compacted log, which lacks the bundle before the one that the next push has removed, is none.
	detector = removalDetector{current: 7}
	for sequence := range int64(History) {
		add(9+sequence, 9+sequence)
		if sequence == History-2 {
			add(7, tombstone)
		}
	}
	check("the one that runs, behind ten others")
	detector = removalDetector{current: 7}
	add(7, tombstone)
	check("the only one", 7)
}

// TestPushThatEnginesWouldIgnoreIsNotSent: an engine runs a bundle of a higher sequence, which is not on the topic.
func TestPushThatEnginesWouldIgnoreIsNotSent(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	ahead := time.Now().Add(time.Hour).UnixMilli()
	write(t, client, string(recordKey(ahead)), sealFiles(t, key, ahead, map[string]string{"r.yaml": ruleText("one")}))
	engine := startEngine(t, client, t.TempDir(), keys)
	engine.expect("one")
	expectReport(t, client, 0, "ahead", func(r Report) bool { return r.Sequence == ahead })
	write(t, client, string(recordKey(ahead)), nil)
	request := PushRequest{Key: key, Contents: packFiles(t, map[string]string{"r.yaml": ruleText("two")})}
	var err error
	if request.Engines, err = NewReports(client).Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err = Push(t.Context(), client, request)
	behind, ok := errors.AsType[*BehindError](err)
	if !ok || behind.Engine.Sequence != ahead || behind.Sequence >= ahead || !strings.Contains(err.Error(), "it would ignore this push") {
		t.Fatal(err)
	}
	request.After = ahead
	bundle, _, err := Push(t.Context(), client, request)
	if err != nil || bundle.Sequence != ahead+1 {
		t.Fatal(bundle, err)
	}
	engine.expect("two")

	// An engine that is gone does not count, and no report leads to a sequence that is the last one.
	request.After, request.Engines = 0, []Report{{Engine: "gone", Sequence: ahead + 100, Seen: time.Now().Add(-2 * LiveFor)}}
	if _, _, err = Push(t.Context(), client, request); err != nil {
		t.Error(err)
	}
	request.After = maxSequence
	if _, _, err = Push(t.Context(), client, request); err == nil || !strings.Contains(err.Error(), "no engine can have verified such a bundle") {
		t.Error(err)
	}
}

// TestGarbageHidesNoBundle: thousands of messages that look like bundles, before and behind one. They are counted.
func TestGarbageHidesNoBundle(t *testing.T) {
	client := startBroker(t)
	key, keys := newKey(t)
	const messages = 3000
	garbage := func() {
		t.Helper()
		var records []kafkago.Record
		for i := range messages {
			value := append([]byte(magic), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 200)...)
			records = append(records, kafkago.Record{
				Time: time.Now(), Key: kafkago.NewBytes(fmt.Appendf(nil, "bundle/%d", i)), Value: kafkago.NewBytes(value),
			})
		}
		if _, err := client.Produce(t.Context(), testTopic, 0, records...); err != nil {
			t.Fatal(err)
		}
	}
	garbage()
	one := push(t, client, key, ruleText("one"))
	garbage()
	engine := startEngine(t, client, t.TempDir(), keys)
	engine.expect("one")
	expectReport(t, client, 0, "all are counted", func(r Report) bool { return r.Sequence == one.Sequence && r.Rejected == 2*messages })
	if got := testutil.ToFloat64(engine.metrics.refused.WithLabelValues(string(ReasonSignature))); got != 2*messages {
		t.Errorf("%v messages are counted", got)
	}
	topic, err := Read(t.Context(), client, keys)
	if err != nil || topic.Refused != 2*messages || topic.IsIncomplete || len(topic.Bundles) != 1 {
		t.Errorf("%d messages, %v, %v", topic.Refused, topic.IsIncomplete, err)
	}

	// A command does not read without end.
	half, err := readTopic(t.Context(), client, keys, 0)
	if err != nil || !half.IsIncomplete && half.Refused != 2*messages {
		t.Errorf("%+v, %v", half, err)
	}
}

// recordBatch returns a record batch with one message, whose checksum is wrong if isDamaged.
func recordBatch(offset int64, key, value []byte, isDamaged bool) []byte {
	record := kmsg.Record{Key: key, Value: value}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{
		FirstOffset: offset, Magic: 2, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	if isDamaged {
		raw[len(raw)-1] ^= 1
	}
	return raw
}

// TestDamagedBatchIsReadAgain, and skipped if it stays damaged, which is reported.
func TestDamagedBatchIsReadAgain(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	client := newClient(t, cluster.ListenAddrs()[0])
	reader := topicReader{client: client, topic: testTopic}
	var used []string
	var skipped []int64
	poll := func(batches ...[]byte) {
		t.Helper()
		cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			fetch := request.(*kmsg.FetchRequest)
			response := fetch.ResponseKind().(*kmsg.FetchResponse)
			part := kmsg.NewFetchResponseTopicPartition()
			part.HighWatermark, part.RecordBatches = 3, bytes.Join(batches, nil)
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.Partitions = fetch.Topics[0].Topic, append(topic.Partitions, part)
			response.Topics = append(response.Topics, topic)
			return response, nil, true
		})
		use := func(record kafka.Record) { used = append(used, string(record.Value)) }
		if _, err := reader.poll(t.Context(), 0, use, func(offset int64, _ error) { skipped = append(skipped, offset) }); err != nil {
			t.Fatal(err)
		}
	}
	good, bad, last := recordBatch(0, nil, []byte("a"), false), recordBatch(1, nil, []byte("b"), true), recordBatch(2, nil, []byte("c"), false)
	poll(good, bad, last)
	if len(used) != 1 || reader.next != 1 || reader.retries != 1 || skipped != nil {
		t.Fatalf("used %q, next %d, skipped %d", used, reader.next, skipped)
	}
	poll(recordBatch(1, nil, []byte("b"), false))
	if len(used) != 2 || reader.next != 2 || reader.retries != 0 || skipped != nil {
		t.Fatalf("used %q, next %d, skipped %d", used, reader.next, skipped)
	}
	reader.next, reader.retries = 1, retriesOfDamaged
	poll(bad, last)
	if strings.Join(used, "") != "abc" || reader.next != 3 || !slices.Equal(skipped, []int64{1}) {
		t.Fatalf("used %q, next %d, skipped %d", used, reader.next, skipped)
	}
}
