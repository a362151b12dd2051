package clickhouse_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// verdictEvents returns events with verdicts: of a container, of a host only, and with bare verdicts.
func verdictEvents(ingested int64) []*pipeline.Event {
	full := &pipeline.Event{
		Id: []byte("0123456789abcdef"), Timestamp: ingested - int64(time.Minute) + 7, Dataset: pipeline.Dataset_DNS,
		Source:      &pipeline.Endpoint{Ip: netip.MustParseAddr("10.0.0.1").AsSlice(), Port: 4711},
		Destination: &pipeline.Endpoint{Ip: netip.MustParseAddr("2001:db8::1").AsSlice(), Port: 53},
		Host:        &pipeline.Host{Name: "h", Id: "hid", Cluster: "c"},
		Container:   &pipeline.Container{Id: "cid", Name: "web", Image: "nginx:1", Demo: true},
		Verdicts: []*pipeline.Verdict{
			{
				Detector: "rules", Rule: "r1", Version: "v2", Severity: pipeline.Severity_CRITICAL, Score: 77,
				Evidence: "line 1\nline 2 'x'", Title: "A title, with a comma", Group: "g",
				Tags: []string{"attack.t1", "b"},
			},
			{Detector: "feeds", Rule: "f1", Severity: pipeline.Severity_LOW},
		},
	}
	host := &pipeline.Event{
		Id: []byte("0123456789abcde0"), Timestamp: ingested + int64(time.Hour), Dataset: pipeline.Dataset_LOG,
		Host: &pipeline.Host{Name: "h", Id: "hid"}, Log: &pipeline.LogLine{Message: "m"},
		Verdicts: []*pipeline.Verdict{{Detector: "rules", Rule: "r1", Severity: pipeline.Severity_INFO}},
	}
	return []*pipeline.Event{full, host}
}

// TestStoredVerdictsYieldTheSameAlerts: over both protocols, the stored events of a block yield the alerts that the
// events themselves yield.
func TestStoredVerdictsYieldTheSameAlerts(t *testing.T) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			store := embeddedtest.Store(t, "verdicts_"+protocol, protocol)
			id := pipeline.BlockID{
				TopicPartition: pipeline.TopicPartition{Topic: "tidegate.events", Partition: 3}, Start: 5, End: 7,
				Time: time.Now().UnixNano(),
			}
			newGrouper := func() *alerts.Grouper {
				return alerts.NewGrouper(alerts.DefaultGrouper(), 3).ForTopic(id.Topic)
			}
			want, got := newGrouper(), newGrouper()
			block := clickhouse.NewColumnBlock()
			for i, event := range verdictEvents(id.Time) {
				event.Ingested = id.Time
				at := pipeline.Position{Partition: 3, Offset: int64(5 + i)}
				if event.Timestamp > id.Time {
					at.Shipped = id.Time - int64(time.Second)
				}
				block.Append(event, at, id.Topic)
				want.AddVerdicts(event, at.Shipped, at.Offset)

				event.Verdicts = nil // a row without verdicts
				block.Append(event, pipeline.Position{Partition: 3, Offset: int64(5 + i), Index: 1}, id.Topic)
			}
			for _, other := range verdictEvents(id.Time + 1) { // another block
				other.Ingested = id.Time + 1
				block.Append(other, pipeline.Position{Partition: 3, Offset: 6}, id.Topic)
			}
			insert(t, store, block, "a")

			if err := store.StoredVerdicts(t.Context(), id, func(event *pipeline.Event, at pipeline.Position) {
				got.AddVerdicts(event, at.Shipped, at.Offset)
			}); err != nil {
				t.Fatal(err)
			}
			wantAlerts, _ := want.Flush()
			gotAlerts, _ := got.Flush()
			if diff := cmp.Diff(wantAlerts, gotAlerts); diff != "" || len(wantAlerts) != 3 {
				t.Errorf("%d alerts, from the rows (-want +got):\n%s", len(wantAlerts), diff)
			}
		})
	}
}
