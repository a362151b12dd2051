package alerts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A destination accepts notifications of alerts. One goroutine per partition calls it.
type destination interface {
	// alertKey returns the identity of an alert at the destination: revisions and windows with the same key
	// update each other.
	alertKey(a *pipeline.Alert) string
	// deliver sends up to maxBatch notifications. A *rejectedError means that at least one of them will never
	// be accepted.
	deliver(ctx context.Context, list []notification) error
	// maxBatch returns how many notifications deliver takes.
	maxBatch() int
	// needsResend reports whether the destination expires an open alert that is not sent again, and so needs
	// a notification of its end too.
	needsResend() bool
}

// A notification is one alert as it is sent to a destination.
type notification struct {
	newest *pipeline.Alert // newest revision
	first  *pipeline.Alert // revision that opened the alert at the destination: its labels stay while the alert is open
	endsAt time.Time       // when the alert ends if no further notification comes; in the past: it has ended
}

// alertmanager sends to API v2 of an Alertmanager. An alert there is a set of labels, so all windows of a
// fingerprint are one alert.
type alertmanager struct {
	*httpSender
	labels map[string]string
}

// postableAlert is an element of the body of POST /api/v2/alerts.
type postableAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func newAlertmanager(cfg Alertmanager, timeout time.Duration) (*alertmanager, error) {
	sender, err := newHTTPSender(cfg.HTTP, "/api/v2/alerts", timeout)
	return &alertmanager{sender, cfg.Labels}, err
}

func (d *alertmanager) alertKey(a *pipeline.Alert) string { return a.Fingerprint }
func (d *alertmanager) needsResend() bool                 { return true }
func (d *alertmanager) maxBatch() int                     { return 64 }

func (d *alertmanager) deliver(ctx context.Context, list []notification) error {
	alerts := make([]postableAlert, len(list))
	for i, n := range list {
		alerts[i] = d.encodeAlert(n)
	}
	body, err := json.Marshal(alerts)
	if err != nil {
		return &rejectedError{err.Error()}
	}
	return d.postBody(ctx, body, nil)
}

// encodeAlert returns the alert for Alertmanager. The labels are its identity there, so they come from the
// first revision only; what may change is in annotations.
func (d *alertmanager) encodeAlert(notification notification) postableAlert {
	newest, first := notification.newest, notification.first
	out := postableAlert{
		Labels: map[string]string{}, Annotations: map[string]string{},
		StartsAt: first.WindowStart, EndsAt: notification.endsAt,
	}
	copyNonEmpty(out.Labels, d.labels)
	copyNonEmpty(out.Labels, map[string]string{
		"alertname": first.Rule, "severity": first.Severity, "fingerprint": first.Fingerprint, "group": first.Group,
		"detector": first.Detector, "host": first.Host, "cluster": first.Cluster, "container": first.ContainerName,
		"container_id": shortID(first.ContainerID), "image": first.Image,
	})
	copyNonEmpty(out.Annotations, map[string]string{
		"summary": alertSummary(newest), "title": newest.Title, "description": newest.Evidence,
		"version": newest.Version, "count": strconv.FormatUint(newest.Count, 10),
		"first": newest.First.Format(time.RFC3339Nano), "last": newest.Last.Format(time.RFC3339Nano),
		"alert_id": newest.ID, "event_id": newest.EventID, "dataset": newest.Dataset,
		"source": newest.Source, "destination": newest.Destination,
	})
	if newest.Demo {
		out.Labels["demo"] = "true"
	}
	return out
}

// ownLabels are the names of the labels that encodeAlert sets.
var ownLabels = []string{
	"alertname", "severity", "fingerprint", "group", "detector", "host", "cluster", "container", "container_id",
	"image", "demo",
}

func copyNonEmpty(to, from map[string]string) {
	for k, v := range from {
		if v != "" {
			to[k] = v
		}
	}
}

// alertSummary returns one line about an alert for a person.
func alertSummary(alert *pipeline.Alert) string {
	title, location := alert.Title, alert.ContainerName
	if title == "" {
		title = alert.Rule
	}
	if location == "" {
		location = alert.Host
	}
	summary := title + " on " + location
	if alert.Source != "" && alert.Destination != "" {
		summary += ": " + alert.Source + " → " + alert.Destination
	}
	if alert.Count > 1 {
		summary += fmt.Sprintf(" (%d times)", alert.Count)
	}
	return summary
}

// shortID returns the first 12 characters of a container id, as Docker's own commands show it.
func shortID(id string) string { return id[:min(len(id), 12)] }

// webhook posts each revision as one JSON object, in the form of the alerts topic.
type webhook struct {
	*httpSender
	secret []byte // key of the signature; empty: no signature
}

func newWebhook(cfg Webhook, timeout time.Duration) (*webhook, error) {
	sender, err := newHTTPSender(cfg.HTTP, "", timeout)
	if err != nil {
		return nil, err
	}
	secret, err := config.Secret(cfg.Secret, cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	return &webhook{sender, []byte(secret)}, nil
}

func (d *webhook) alertKey(a *pipeline.Alert) string { return a.ID }
func (d *webhook) needsResend() bool                 { return false }
func (d *webhook) maxBatch() int                     { return 1 }

func (d *webhook) deliver(ctx context.Context, list []notification) error {
	alert := list[0].newest
	body, err := json.Marshal(alert)
	if err != nil {
		return &rejectedError{err.Error()}
	}
	header := http.Header{}
	header.Set("Idempotency-Key", alert.ID+"/"+strconv.FormatUint(alert.Revision, 10))
	if len(d.secret) > 0 {
		mac := hmac.New(sha256.New, d.secret)
		mac.Write(body)
		header.Set("X-Tidegate-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return d.postBody(ctx, body, header)
}

// callbackDestination hands each alert to a function of this process, once per start of the process.
type callbackDestination struct {
	call func(*pipeline.Alert)
	mu   sync.Mutex
	seen map[string]pipeline.Severity // of the alerts that were handed over, by id; guarded by mu
}

// maxSeenAlerts bounds callbackDestination.seen, which is emptied when it is full.
const maxSeenAlerts = 10_000

// callbackName is the name of the callbackDestination among the destinations.
const callbackName = "local"

func (d *callbackDestination) alertKey(a *pipeline.Alert) string { return a.ID }
func (d *callbackDestination) needsResend() bool                 { return false }
func (d *callbackDestination) maxBatch() int                     { return 1 }

func (d *callbackDestination) deliver(_ context.Context, list []notification) error {
	alert := list[0].newest
	if d.markSeen(alert.ID, pipeline.SeverityByName(alert.Severity)) {
		d.call(alert)
	}
	return nil
}

// markSeen marks the alert as handed over, and reports whether it is the first time, or the first time with so high a severity.
func (d *callbackDestination) markSeen(id string, severity pipeline.Severity) (isNew bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, isSeen := d.seen[id]
	if isSeen && severity <= before {
		return false
	}
	if d.seen == nil || len(d.seen) >= maxSeenAlerts {
		d.seen = map[string]pipeline.Severity{}
	}
	d.seen[id] = severity
	return true
}
