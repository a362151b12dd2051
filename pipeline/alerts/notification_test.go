package alerts

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestAlertmanagerGetsLabelsOfTheFirstRevision, and annotations of the newest one.
func TestAlertmanagerGetsLabelsOfTheFirstRevision(t *testing.T) {
	at := time.Date(2026, 11, 28, 1, 2, 3, 4, time.UTC)
	first := &pipeline.Alert{
		ID: "id1", Fingerprint: "f", Rule: "rule", Severity: "high", Group: "g", Detector: "rules", Host: "h", Cluster: "c", ContainerName: "web",
		ContainerID: "0123456789abcdef", Image: "nginx", WindowStart: at,
	}
	newest := &pipeline.Alert{
		ID: "id2", Fingerprint: "other", Rule: "other", Title: "Title", Evidence: "evidence", Version: "v2", Count: 3, First: at, Last: at.Add(time.Second),
		EventID: "e", Dataset: "http", Source: "10.0.0.1:5", Destination: "10.0.0.2:80", Host: "h", Severity: "low", Demo: true,
	}
	manager := &alertmanager{labels: map[string]string{"team": "blue", "empty": "", "severity": "overridden"}}
	got := manager.encodeAlert(notification{newest: newest, first: first, endsAt: at.Add(time.Hour)})
	want := postableAlert{
		Labels: map[string]string{
			"alertname": "rule", "severity": "high", "fingerprint": "f", "group": "g", "detector": "rules", "host": "h", "cluster": "c",
			"container": "web", "container_id": "0123456789ab", "image": "nginx", "team": "blue", "demo": "true",
		},
		Annotations: map[string]string{
			"summary": "Title on h: 10.0.0.1:5 → 10.0.0.2:80 (3 times)", "title": "Title", "description": "evidence", "version": "v2", "count": "3",
			"first": "2026-11-28T01:02:03.000000004Z", "last": "2026-11-28T01:02:04.000000004Z", "alert_id": "id2", "event_id": "e", "dataset": "http",
			"source": "10.0.0.1:5", "destination": "10.0.0.2:80",
		},
		StartsAt: at, EndsAt: at.Add(time.Hour),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	newest.Demo = false
	if got := manager.encodeAlert(notification{newest: newest, first: &pipeline.Alert{Rule: "r", ContainerID: "short"}}); len(got.Labels) != 4 ||
		got.Labels["container_id"] != "short" || got.Labels["severity"] != "overridden" || got.Labels["team"] != "blue" {
		t.Errorf("labels %v", got.Labels)
	}
}

// TestRequestedPauseIsBounded: seconds or a date, up to five minutes.
func TestRequestedPauseIsBounded(t *testing.T) {
	now := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "x": 0, "5": 5 * time.Second, " 7 ": 7 * time.Second, "-5": 0, "0": 0, "300": 5 * time.Minute, "301": 5 * time.Minute,
		"99999999999": 5 * time.Minute, "1.5": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
		now.Add(time.Hour).Format(http.TimeFormat): 5 * time.Minute,
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
