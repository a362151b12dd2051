package alerts

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// recreateAlertsTopic deletes the alerts topic and creates it again.
func recreateAlertsTopic(t *testing.T, client *kafka.Client) {
	t.Helper()
	direct, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	topic := client.Topic(pipeline.TopicAlerts)
	deletion := kmsg.NewDeleteTopicsRequest()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = &topic
	deletion.TopicNames, deletion.Topics = []string{topic}, append(deletion.Topics, named)
	if _, err := deletion.RequestWith(context.Background(), direct); err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnsureTopics(context.Background(), pipeline.TopicAlerts); err != nil {
		t.Fatal(err)
	}
}

// TestEveryAlertOfATopicThatIsCreatedAnewIsDelivered: the alerts topic is created anew while the publisher
// runs. The new one is shorter than the earlier one, then longer.
func TestEveryAlertOfATopicThatIsCreatedAnewIsDelivered(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	run(t, webhookConfig(hook.URL), client, nil)
	var want []string
	send := func(n int) {
		t.Helper()
		for range n {
			group := fmt.Sprintf("g%02d", len(want))
			publish(t, client, alertOf("r", group, 1))
			want = append(want, "r/"+group+"×1")
		}
		waitUntil(t, "the alerts "+strings.Join(want, " "), func() bool { return hook.list() == strings.Join(want, " ") })
	}
	send(6)
	recreateAlertsTopic(t, client)
	send(2)
	send(6)
	recreateAlertsTopic(t, client)
	for range 12 { // they outgrow the offset before they are read
		group := fmt.Sprintf("g%02d", len(want))
		publish(t, client, alertOf("r", group, 1))
		want = append(want, "r/"+group+"×1")
	}
	send(0)
	waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") == 12 })
}

// TestTopicThatWasCreatedAnewWhileThePublisherWasOffIsDelivered: the new topic is shorter than the earlier
// one, as long or longer, so that its end does not show that it is another one. Kafka drops the committed offsets of a topic that is
// deleted; those of a log that was lost or restored stay.
func TestTopicThatWasCreatedAnewWhileThePublisherWasOffIsDelivered(t *testing.T) {
	for _, test := range []struct {
		length    int
		hasOffset bool
	}{{2, true}, {6, true}, {12, true}, {6, false}} {
		length := test.length
		client, hook := newClient(t), newReceiver(t, "s3cret")
		stop := run(t, webhookConfig(hook.URL), client, nil)
		var want []string
		send := func(n int) {
			for range n {
				group := fmt.Sprintf("g%02d", len(want))
				publish(t, client, alertOf("r", group, 1))
				want = append(want, "r/"+group+"×1")
			}
		}
		delivered := func() bool { return hook.list() == strings.Join(want, " ") }
		send(6)
		waitUntil(t, "the alerts", delivered)
		waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") == 6 })
		stop()

		topic, group := client.Topic(pipeline.TopicAlerts), GroupName(client.Config(), "hook")
		offsets, err := client.Kafka().OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
		if err != nil {
			t.Fatal(err)
		}
		recreateAlertsTopic(t, client)
		if before := offsets.Topics[topic][0]; test.hasOffset {
			if _, err := client.Kafka().OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{
				topic: {{Partition: 0, Offset: before.CommittedOffset, Metadata: before.Metadata}},
			}}); err != nil {
				t.Fatal(err)
			}
		}
		send(length)
		var logged bytes.Buffer
		_, stop = start(t, webhookConfig(hook.URL), client, &logged)
		waitUntil(t, fmt.Sprintf("%d alerts of the new topic", length), delivered)
		waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") == int64(length) })
		stop()
		line := fmt.Sprintf("level=ERROR msg=\"alerts topic is not the one that was read before, delivering it from its beginning\" "+
			"destination=hook partition=0 committed=6 first=0 end=%d\n", length)
		if !test.hasOffset {
			line = ""
		}
		if !strings.HasSuffix(logged.String(), line) || strings.Count(logged.String(), "\n") != strings.Count(line, "\n") {
			t.Errorf("logged %s, want %s", &logged, line)
		}

		// A publisher that starts again delivers nothing twice.
		logged.Reset()
		_, stop = start(t, webhookConfig(hook.URL), client, &logged)
		send(1)
		waitUntil(t, "one more alert", func() bool { return strings.Contains(hook.list(), want[len(want)-1]) })
		if !delivered() {
			t.Errorf("delivered %s, want %s", hook.list(), want)
		}
		if stop(); logged.Len() > 0 {
			t.Errorf("logged %s", &logged)
		}
	}
}

// TestPendingAlertOfADeletedTopicIsDelivered: the destination has not accepted it yet when the topic is created anew.
func TestPendingAlertOfADeletedTopicIsDelivered(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	var accepts atomic.Bool
	hook.answer = func(w http.ResponseWriter, _ int) bool {
		if !accepts.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return accepts.Load()
	}
	var logged bytes.Buffer
	registry, stop := start(t, webhookConfig(hook.URL), client, &logged)
	publish(t, client, alertOf("r", "a", 1), alertOf("r", "b", 1))
	waitUntil(t, "two pending alerts", func() bool { return values(t, registry)["pending"] == 2 })
	recreateAlertsTopic(t, client)
	publish(t, client, alertOf("r", "c", 1))
	waitUntil(t, "three pending alerts", func() bool { return values(t, registry)["pending"] == 3 })
	accepts.Store(true)
	waitUntil(t, "the alerts", func() bool {
		return strings.Contains(hook.list(), "r/a×1") && strings.Contains(hook.list(), "r/b×1") && strings.Contains(hook.list(), "r/c×1")
	})
	waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") == 1 })
	stop()
}
