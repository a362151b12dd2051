package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestPausedWorkerPublishesNoAlerts: an engine is paused before it publishes the alerts of a block, and another
// member takes its partitions meanwhile. The engine publishes nothing when it goes on.
func TestPausedWorkerPublishesNoAlerts(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 1, 10)
	cfg := Default()
	cfg.Linger = 20 * time.Millisecond
	pause := func(name string) {
		if name != AfterAlertsInsert {
			return
		}
		group, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
			ID: "tidegate-engine" + SignalsGroupSuffix, Brokers: harness.client.Brokers(), JoinGroupBackoff: 100 * time.Millisecond,
			Topics: []string{harness.client.Topic(pipeline.TopicSignals)},
		})
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = group.Close() })
		for {
			if _, err := group.Next(context.Background()); err == nil {
				break
			}
		}
		time.Sleep(maxUnconfirmed)
	}
	deps := Deps{
		Kafka: harness.client, Store: store, Bundle: func() *pipeline.Bundle { return testBundle }, Failpoint: pause,
	}
	engine, err := New(cfg, deps, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	events := make(chan error, 1)
	go func() { events <- engine.Run(ctx) }()
	defer func() { cancel(); <-events }()
	if err := engine.Correlate(ctx); err == nil || !strings.Contains(err.Error(), "another member") {
		t.Errorf("fenced engine ended with %v", err)
	}
	if len(store.alerts) == 0 {
		t.Error("no alert was stored: the engine did not come to the pause")
	}
	if messages := harness.read(pipeline.TopicAlerts, 0); len(messages) != 0 {
		t.Errorf("%d alerts were published", len(messages))
	}
}
