package alerts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// values returns the metrics of a publisher by name, without those that are 0, and requires one of each name.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]float64{}
	for _, family := range families {
		if len(family.Metric) != 1 {
			t.Errorf("%d values of %s", len(family.Metric), family.GetName())
		}
		for _, metric := range family.Metric {
			if n := value(metric); n != 0 {
				list[strings.TrimPrefix(family.GetName(), "tidegate_alerts_")] = n
			}
		}
	}
	return list
}

// TestPublisherCountsAndLogsWhatItDoes: revisions that are new, repeated, replaced, rejected and none at all, the alerts that are open, and
// one line for each that is not delivered.
func TestPublisherCountsAndLogsWhatItDoes(t *testing.T) {
	client, receiver := newClient(t), newStrictReceiver(t, status(400))
	cfg := fastConfig(receiver.URL, false)
	cfg.Throttle = time.Hour
	var logged bytes.Buffer
	registry, stop := start(t, cfg, client, &logged)
	settled := func(want map[string]float64) {
		t.Helper()
		waitUntil(t, fmt.Sprint("the metrics ", want), func() bool { return maps.Equal(values(t, registry), want) })
	}
	first := alertOf("r", "a", 1)
	publish(t, client, first)
	settled(map[string]float64{"read_total": 1, "sent_total": 1, "open": 1})
	publish(t, client, first, alertOf("r", "a", 2), alertOf("r", "a", 3), []byte("garbage"), alertOf("poison", "b", 1), alertOf("r", "c", 1))
	settled(map[string]float64{
		"read_total": 6, "sent_total": 2, "superseded_total": 1, "undecodable_messages_total": 1, "rejected_total": 1,
		"open": 3, "pending": 1, "failing": 1,
	})
	stop()
	want := fmt.Sprintf(`^time=\S+ level=ERROR msg="destination rejected an alert" destination=hook alert=%s rule=poison err="response 400 Bad Request: "\n$`,
		alertOf("poison", "b", 1).ID)
	// An id depends on the window, whose start is that of the match.
	if !regexp.MustCompile(want).MatchString(logged.String()) {
		t.Errorf("logged %s, want %s", &logged, want)
	}
}

// newBroker returns an in-memory broker with the topics of tidegate, and a client of it.
func newBroker(t *testing.T) (*kfake.Cluster, *kafka.Client) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = cluster.ListenAddrs(), kafka.AssignStatic
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cluster, client
}

// TestPublisherWhosePartitionsAreTakenEnds: another process delivers them.
func TestPublisherWhosePartitionsAreTakenEnds(t *testing.T) {
	cluster, client := newBroker(t)
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		commit := request.(*kmsg.OffsetCommitRequest)
		response := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
		part := kmsg.NewOffsetCommitResponseTopicPartition()
		part.Partition, part.ErrorCode = commit.Topics[0].Partitions[0].Partition, kerr.IllegalGeneration.Code
		topic := kmsg.NewOffsetCommitResponseTopic()
		topic.Topic = commit.Topics[0].Topic
		topic.Partitions = append(topic.Partitions, part)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
	hook := newReceiver(t, "s3cret")
	publisher, err := NewPublisher(webhookConfig(hook.URL), client, nil, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, client, alertOf("r", "a", 1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = publisher.Run(ctx)
	if want := "publish alerts to hook: " + client.Topic(pipeline.TopicAlerts) + "/"; !errors.Is(err, consumer.ErrFenced) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestAlertThatNoTopicTakesIsLogged: a message that is no alert, while the dead-letter topic rejects every record. The next alert is
// delivered.
func TestAlertThatNoTopicTakesIsLogged(t *testing.T) {
	cluster, client := newBroker(t)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		part := kmsg.NewProduceResponseTopicPartition()
		part.ErrorCode = kerr.MessageTooLarge.Code
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = produce.Topics[0].Topic, produce.Topics[0].TopicID
		topic.Partitions = append(topic.Partitions, part)
		response.Topics = append(response.Topics, topic)
		return response, nil, topic.Topic == client.Topic(pipeline.TopicDeadLetter)
	})
	hook := newReceiver(t, "s3cret")
	var logged bytes.Buffer
	_, stop := start(t, webhookConfig(hook.URL), client, &logged)
	publish(t, client, []byte("garbage"), alertOf("r", "a", 1))
	waitUntil(t, "the alert", func() bool { return hook.list() == "r/a×1" })
	stop()
	want := `level=ERROR msg="alert message is lost: it cannot be delivered, and its dead letter cannot be written" destination=hook partition=0 offset=0 ` +
		`reason=decode err="the dead-letter topic rejects the record in every length"` + "\n"
	if got := logged.String(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %s, want %s", got, want)
	}
}

// TestFailureOfADestinationIsLogged once a minute, with the number of failures in succession.
func TestFailureOfADestinationIsLogged(t *testing.T) {
	failed := errors.New("failed")
	d := scripted(t, &scriptedDestination{answers: []error{failed, failed}}, "a", "b")
	var logged bytes.Buffer
	d.log = slog.New(slog.NewTextHandler(&logged, nil))
	d.health.failures = 4
	for _, key := range []string{"a", "b"} {
		if answered, err := d.notify(t.Context(), []string{key}); answered || err != nil {
			t.Errorf("answered %t, %v", answered, err)
		}
	}
	want := "level=WARN msg=\"delivering alerts failed, retrying\" failures=5 err=failed\n"
	if got := logged.String(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %s, want %s", got, want)
	}
}

// TestCommitListsWhatIsPending: the oldest message that waits, those behind it that wait too, also such that this run has not read yet.
func TestCommitListsWhatIsPending(t *testing.T) {
	client := newClient(t)
	publisher, err := NewPublisher(webhookConfig("http://127.0.0.1:1"), client, nil, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg := consumer.Config{Client: client, Topic: client.Topic(pipeline.TopicAlerts), Group: GroupName(client.Config(), "hook")}
	if err := consumer.Run(ctx, cfg, discardLog, func(ctx context.Context, partition *consumer.Partition) error {
		if partition.ID != 0 {
			return nil
		}
		defer cancel()
		d := newDeliverer(publisher, publisher.destinations[0], partition, discardLog)
		check := func(what string, wantOffset int64, want string) {
			t.Helper()
			if err := d.commitDelivered(ctx); err != nil {
				t.Error(err)
			}
			if offset, metadata, err := partition.Committed(ctx); offset != wantOffset || metadata != want || err != nil {
				t.Errorf("%s: %d %q, %v, want %d %q", what, offset, metadata, err, wantOffset, want)
			}
		}
		d.nextOffset = 5
		check("nothing is pending", 5, "")
		d.resumed = progress{next: 9, pending: map[int64]bool{3: true, 6: true, 7: true}}
		check("messages of an earlier run", 5, "v1 9 6 7")
		d.open["a"], d.open["b"], d.open["c"] = &openAlert{undelivered: 4}, &openAlert{undelivered: noOffset}, &openAlert{undelivered: 2}
		check("alerts of this run", 2, "v1 9 2 4 6 7")
		d.nextOffset, d.mark = 12, recordMark{isSet: true, offset: 11, sum: 0xab}
		check("all are read", 2, "v1 12 @11:00000000000000ab 2 4")
		d.open = nil
		check("all are delivered", 12, "v1 12 @11:00000000000000ab")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
