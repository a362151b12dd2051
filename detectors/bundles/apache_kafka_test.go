package bundles

import (
	"fmt"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// apacheKafka starts Apache Kafka 4.1 and returns a client, with the topics. Its log cleaner runs at once.
func apacheKafka(t *testing.T) *kafka.Client {
	t.Helper()
	addr, _ := embeddedtest.ApacheKafka(t, "log.cleaner.backoff.ms=100\nlog.retention.check.interval.ms=200\n")
	return newClient(t, addr)
}

// TestApacheKafkaKeepsTheBundles: a real broker takes the settings of the topics and a bundle of the largest size. Its log
// cleaner removes the old bundles and no other, and an engine that starts behind it finds the newest.
func TestApacheKafkaKeepsTheBundles(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	client := apacheKafka(t)
	key, keys := newKey(t)

	// The cleaner leaves the newest segment alone: small ones, so that the old ones are cleaned.
	response, err := client.Kafka().IncrementalAlterConfigs(t.Context(), &kafkago.IncrementalAlterConfigsRequest{
		Resources: []kafkago.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: testTopic, Configs: []kafkago.IncrementalAlterConfigsRequestConfig{
				{Name: "segment.bytes", Value: "5242880", ConfigOperation: kafkago.ConfigOperationSet},
				{Name: "min.cleanable.dirty.ratio", Value: "0.01", ConfigOperation: kafkago.ConfigOperationSet},
			},
		}},
	})
	if err != nil || response.Resources[0].Error != nil {
		t.Fatal(err, response)
	}
	engine := startEngine(t, client, t.TempDir(), keys)
	random := make([]byte, MaxMessage-(64<<10))
	for state, i := uint64(1), 0; i < len(random); i++ {
		state = state*6364136223846793005 + 1442695040888963407
		random[i] = byte(state >> 56)
	}
	files := map[string]string{"r.yaml": ruleText("one"), "list.txt": string(random)}
	var first int64
	for i := range History + 4 {
		files["number.txt"] = fmt.Sprint(i)
		bundle, _, err := Push(t.Context(), client, PushRequest{Key: key, Contents: packFiles(t, files)})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = bundle.Sequence
		}
	}
	newest := push(t, client, key, ruleText("two"))
	engine.expect("two")
	waitUntil(t, func() string { // the record of the first bundle is gone
		found := ""
		reader := topicReader{client: client, topic: testTopic, next: -1}
		if _, err := reader.readToEnd(t.Context(), time.Minute, func(record kafka.Record) {
			if string(record.Key) == string(recordKey(first)) && len(record.Value) > 0 {
				found = "the log is not cleaned yet"
			}
		}, nil); err != nil {
			return err.Error()
		}
		return found
	})
	topic, err := Read(t.Context(), client, keys)
	if err != nil || topic.Refused != 0 || len(topic.Bundles) != History || topic.Bundles[0].Sequence != newest.Sequence || len(topic.Removed) != 0 {
		t.Errorf("%d bundles, %d refused, removed %d, %v", len(topic.Bundles), topic.Refused, topic.Removed, err)
	}
	engine.restart()
	engine.expect("two")
	startEngine(t, client, t.TempDir(), keys).expect("two")
	expectReport(t, client, 1, "a report", func(r Report) bool { return r.Sequence == newest.Sequence && r.Rejected+r.Removed == 0 })
}
