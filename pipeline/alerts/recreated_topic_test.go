package alerts

import (
	"context"
	"fmt"
	"strings"
	"testing"

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
// one, as long or longer, so that its end does not show that it is another one.
func TestTopicThatWasCreatedAnewWhileThePublisherWasOffIsDelivered(t *testing.T) {
	for _, length := range []int{2, 6, 12} {
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

		recreateAlertsTopic(t, client)
		send(length)
		stop = run(t, webhookConfig(hook.URL), client, nil)
		waitUntil(t, fmt.Sprintf("%d alerts of the new topic", length), delivered)
		waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") == int64(length) })
		stop()

		// A publisher that starts again delivers nothing twice.
		stop = run(t, webhookConfig(hook.URL), client, nil)
		send(1)
		waitUntil(t, "one more alert", func() bool { return strings.Contains(hook.list(), want[len(want)-1]) })
		if !delivered() {
			t.Errorf("delivered %s, want %s", hook.list(), want)
		}
		stop()
	}
}
