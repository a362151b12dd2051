package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// sendAt sends one line of a group to each of the partitions, as often as said, with the given time.
func (h *harness) sendAt(at time.Time, line string, partitions, times int) {
	for i := range times {
		for partition := range partitions {
			batch := h.batch(partition, 1)
			batch.Shipped = at.UnixNano()
			batch.Events[0].Timestamp, batch.Events[0].Log.Message = at.UnixNano()+int64(i), line
			h.produce(partition, encode(h, batch))
		}
	}
}

// alertOf returns the newest revision of the alert of a rule and group in the store.
func alertOf(store *fakeStore, rule, group string) (newest pipeline.Alert) {
	store.mu.Lock()
	defer store.mu.Unlock()
	for _, alert := range store.alerts {
		if alert.Rule == rule && alert.Group == group && alert.Revision > newest.Revision {
			newest = alert
		}
	}
	return newest
}

// TestCorrelationRulesRaiseAlerts: events of several partitions are one alert, with the container and endpoints of the event
// that fulfilled the rule; events that come late are evaluated, and the alert says so; what an engine has raised, the next one
// does not raise again, also where its offset was set back.
func TestCorrelationRulesRaiseAlerts(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	store := newFakeStore()
	_, stop := h.start(store, correlationBundle, nil)
	topic := h.client.Topic(pipeline.TopicSignals)
	waitUntil(t, "both partitions tell how far they are", func() bool { return len(readSignals(t, h, 0)) > 3 })

	now := time.Now()
	h.sendAt(now, "bad g1", 2, 3)
	waitUntil(t, "an alert of six events", func() bool { return alertOf(store, "burst", "g1").Count == 6 })
	alert := alertOf(store, "burst", "g1")
	if alert.Topic != topic || alert.Evidence != "bad g1" || alert.ContainerName == "" || alert.Host != "host1" || alert.Source != "10.0.0.1:4711" ||
		len(alert.Events) != 6 || alert.First.UnixNano() != now.UnixNano() || alert.Last.UnixNano() != now.UnixNano()+2 {
		t.Errorf("%+v", alert)
	}
	h.sendAt(now.Add(-time.Minute), "bad g2", 1, 5)
	waitUntil(t, "an alert of five late events", func() bool { return alertOf(store, "burst", "g2").Count == 5 })
	if alert := alertOf(store, "burst", "g2"); alert.Evidence != "bad g2 (evaluated late)" {
		t.Errorf("%+v", alert)
	}
	for _, rule := range []string{"burst", "few", "alone"} { // each pair of a rule and a group lies on a partition of its own
		for group, count := range map[string]uint64{"g1": 6, "g2": 5} {
			waitUntil(t, rule+" of "+group, func() bool { return alertOf(store, rule, group).Count == count })
		}
	}
	stop()

	// Another engine, once with the offsets that the one before has left, and once with offsets that were set back.
	for _, isSetBack := range []bool{false, true} {
		if isSetBack {
			for partition := range 2 {
				h.commitOf("tidegate-engine"+SignalsGroupSuffix, topic, partition, 0, "")
			}
		}
		before := revisionsOf(store, "g1", "g2")
		_, stop := h.start(store, correlationBundle, nil)
		group := fmt.Sprintf("set back %v", isSetBack)
		h.sendAt(time.Now(), "bad "+group, 2, 3)
		waitUntil(t, "an alert of six other events", func() bool { return alertOf(store, "burst", group).Count == 6 })
		stop()
		if after := revisionsOf(store, "g1", "g2"); after != before {
			t.Errorf("offsets set back: %v: %d revisions, %d before", isSetBack, after, before)
		}
	}
}

// revisionsOf returns the number of stored revisions of alerts of groups.
func revisionsOf(store *fakeStore, groups ...string) (count int) {
	store.mu.Lock()
	defer store.mu.Unlock()
	for _, alert := range store.alerts {
		if slices.Contains(groups, alert.Group) {
			count++
		}
	}
	return count
}

// A lateStore works on an insert of an earlier owner of the signals for some calls.
type lateStore struct {
	*fakeStore
	running atomic.Int32
	early   atomic.Bool // alerts were read while it ran
}

func (s *lateStore) RunningInserts(_ context.Context, from pipeline.TopicPartition) (int, error) {
	if strings.HasSuffix(from.Topic, pipeline.TopicSignals) && s.running.Add(-1) >= 0 {
		return 1, nil
	}
	return 0, nil
}

func (s *lateStore) NewestAlerts(ctx context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	if strings.HasSuffix(filter.Topic, pipeline.TopicSignals) && s.running.Load() >= 0 {
		s.early.Store(true)
	}
	return s.fakeStore.NewestAlerts(ctx, filter)
}

// TestFoldWaitsForAlertsOfAnEarlierOwner: the store finishes an insert of a process that was killed. Alerts that appeared between two queries would be
// restored twice.
func TestFoldWaitsForAlertsOfAnEarlierOwner(t *testing.T) {
	h := newHarness(t, 1, kafka.AssignStatic)
	store := &lateStore{fakeStore: newFakeStore()}
	store.running.Store(3)
	h.start(store, correlationBundle, nil)
	h.sendAt(time.Now(), "bad g1", 1, 6)
	waitUntil(t, "an alert", func() bool { return alertOf(store.fakeStore, "burst", "g1").Count > 0 })
	if store.early.Load() || store.running.Load() >= 0 {
		t.Error("alerts were restored while an insert ran")
	}
}

// TestFoldWithoutWindowsReadsNothingAgain: the place that it would read from is the offset.
func TestFoldWithoutWindowsReadsNothingAgain(t *testing.T) {
	h := newHarness(t, 1, kafka.AssignStatic)
	h.send(0, 4, 20)
	_, stop := h.start(newFakeStore(), testBundle, nil)
	h.waitClosed(1, 4)
	stop()
	offset, metadata := h.committedOf("tidegate-engine"+SignalsGroupSuffix, h.client.Topic(pipeline.TopicSignals), 0)
	place, _, _ := strings.Cut(metadata, " ")
	if state, err := parseFoldState(place); err != nil || offset <= 0 || state.offset != offset {
		t.Errorf("offset %d, place %+v, %v", offset, state, err)
	}
}
