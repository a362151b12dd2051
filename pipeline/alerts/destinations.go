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
)

// A destination is told of alerts. It is called by one goroutine per partition.
type destination interface {
	// key is what one entry is there: revisions and windows with the same key are the same to it.
	alertKey(a *pipeline.Alert) string
	// send delivers notices; a *refusal says that (one of) them will never be taken.
	deliver(ctx context.Context, list []notification) error
	// batch is how many notices send takes.
	maxBatch() int
	// repeats tells whether it must hear of an open alert again and again, and of its end.
	needsResend() bool
}

// A notification is what is said of one alert.
type notification struct {
	newest *pipeline.Alert // the newest revision
	first  *pipeline.Alert // by which it became known here: its labels stay while it is open
	endsAt time.Time
}

// alertmanager speaks API v2. One alert there is one set of labels, so all windows of a fingerprint are one.
type alertmanager struct {
	*httpSender
	labels map[string]string
}

type amAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func newAlertmanager(cfg Alertmanager, timeout time.Duration) (*alertmanager, error) {
	p, err := newHTTPSender(cfg.HTTP, "/api/v2/alerts", timeout)
	return &alertmanager{p, cfg.Labels}, err
}

func (d *alertmanager) alertKey(a *pipeline.Alert) string { return a.Fingerprint }
func (d *alertmanager) needsResend() bool                 { return true }

func (d *alertmanager) maxBatch() int { return 64 }

func (d *alertmanager) deliver(ctx context.Context, list []notification) error {
	out := make([]amAlert, len(list))
	for i, n := range list {
		out[i] = d.encodeAlert(n)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return &rejectedError{err.Error()}
	}
	return d.postBody(ctx, body, nil)
}

func (d *alertmanager) encodeAlert(n notification) amAlert {
	a, f := n.newest, n.first
	out := amAlert{Labels: map[string]string{}, Annotations: map[string]string{}, StartsAt: f.WindowStart, EndsAt: n.endsAt}
	put := func(m map[string]string, key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	for k, v := range d.labels {
		put(out.Labels, k, v)
	}
	for k, v := range map[string]string{
		"alertname": f.Rule, "severity": f.Severity, "fingerprint": f.Fingerprint, "group": f.Group, "detector": f.Detector,
		"host": f.Host, "cluster": f.Cluster, "container": f.ContainerName, "container_id": shortID(f.ContainerID), "image": f.Image,
	} {
		put(out.Labels, k, v)
	}
	for k, v := range map[string]string{
		"summary": alertSummary(a), "title": a.Title, "description": a.Evidence, "version": a.Version, "count": strconv.FormatUint(a.Count, 10),
		"first": a.First.Format(time.RFC3339Nano), "last": a.Last.Format(time.RFC3339Nano), "alert_id": a.ID, "event_id": a.EventID,
		"dataset": a.Dataset, "source": a.Source, "destination": a.Destination,
	} {
		put(out.Annotations, k, v)
	}
	if a.Demo {
		out.Labels["demo"] = "true"
	}
	return out
}

// alertSummary is one line for a person.
func alertSummary(a *pipeline.Alert) string {
	title := a.Title
	if title == "" {
		title = a.Rule
	}
	where := a.ContainerName
	if where == "" {
		where = a.Host
	}
	s := title + " on " + where
	if a.Source != "" && a.Destination != "" {
		s += ": " + a.Source + " → " + a.Destination
	}
	if a.Count > 1 {
		s += fmt.Sprintf(" (%d times)", a.Count)
	}
	return s
}

func shortID(id string) string { return id[:min(len(id), 12)] }

// webhook posts the alert as it stands on the topic.
type webhook struct {
	*httpSender
	secret []byte
}

func newWebhook(cfg Webhook, timeout time.Duration) (*webhook, error) {
	p, err := newHTTPSender(cfg.HTTP, "", timeout)
	if err != nil {
		return nil, err
	}
	s, err := pipeline.Secret(cfg.Secret, cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	return &webhook{p, []byte(s)}, nil
}

func (d *webhook) alertKey(a *pipeline.Alert) string { return a.ID }
func (d *webhook) needsResend() bool                 { return false }

func (d *webhook) maxBatch() int { return 1 }

func (d *webhook) deliver(ctx context.Context, list []notification) error {
	n := list[0]
	body, err := json.Marshal(n.newest)
	if err != nil {
		return &rejectedError{err.Error()}
	}
	h := http.Header{}
	h.Set("Idempotency-Key", n.newest.ID+"/"+strconv.FormatUint(n.newest.Revision, 10))
	if len(d.secret) > 0 {
		mac := hmac.New(sha256.New, d.secret)
		mac.Write(body)
		h.Set("X-Tidegate-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return d.postBody(ctx, body, h)
}

// callbackDestination hands each alert to a function of this process: when it is new, and when this life hears of it for the first time.
type callbackDestination struct {
	call func(*pipeline.Alert)
	mu   sync.Mutex
	seen map[string]bool
}

// maxSeenAlerts bounds what local remembers; then it begins anew.
const maxSeenAlerts = 10_000

// callbackName is its name among the destinations.
const callbackName = "local"

func (d *callbackDestination) alertKey(a *pipeline.Alert) string { return a.ID }
func (d *callbackDestination) needsResend() bool                 { return false }

func (d *callbackDestination) maxBatch() int { return 1 }

func (d *callbackDestination) deliver(_ context.Context, list []notification) error {
	a := list[0].newest
	d.mu.Lock()
	known := d.seen[a.ID]
	if d.seen == nil || len(d.seen) >= maxSeenAlerts {
		d.seen = map[string]bool{}
	}
	d.seen[a.ID] = true
	d.mu.Unlock()
	if !known {
		d.call(a)
	}
	return nil
}
