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
	key(a *pipeline.Alert) string
	// send delivers notices; a *refusal says that (one of) them will never be taken.
	send(ctx context.Context, list []notice) error
	// batch is how many notices send takes.
	batch() int
	// repeats tells whether it must hear of an open alert again and again, and of its end.
	repeats() bool
}

// A notice is what is said of one alert.
type notice struct {
	alert *pipeline.Alert // the newest revision
	first *pipeline.Alert // by which it became known here: its labels stay while it is open
	ends  time.Time
}

// alertmanager speaks API v2. One alert there is one set of labels, so all windows of a fingerprint are one.
type alertmanager struct {
	*poster
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
	p, err := newPoster(cfg.HTTP, "/api/v2/alerts", timeout)
	return &alertmanager{p, cfg.Labels}, err
}

func (d *alertmanager) key(a *pipeline.Alert) string { return a.Fingerprint }
func (d *alertmanager) repeats() bool                { return true }

func (d *alertmanager) batch() int { return 64 }

func (d *alertmanager) send(ctx context.Context, list []notice) error {
	out := make([]amAlert, len(list))
	for i, n := range list {
		out[i] = d.alert(n)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return &refusal{err.Error()}
	}
	return d.post(ctx, body, nil)
}

func (d *alertmanager) alert(n notice) amAlert {
	a, f := n.alert, n.first
	out := amAlert{Labels: map[string]string{}, Annotations: map[string]string{}, StartsAt: f.WindowStart, EndsAt: n.ends}
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
		"host": f.Host, "cluster": f.Cluster, "container": f.ContainerName, "container_id": short(f.ContainerID), "image": f.Image,
	} {
		put(out.Labels, k, v)
	}
	for k, v := range map[string]string{
		"summary": summary(a), "title": a.Title, "description": a.Evidence, "version": a.Version, "count": strconv.FormatUint(a.Count, 10),
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

// summary is one line for a person.
func summary(a *pipeline.Alert) string {
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

func short(id string) string { return id[:min(len(id), 12)] }

// webhook posts the alert as it stands on the topic.
type webhook struct {
	*poster
	secret []byte
}

func newWebhook(cfg Webhook, timeout time.Duration) (*webhook, error) {
	p, err := newPoster(cfg.HTTP, "", timeout)
	if err != nil {
		return nil, err
	}
	s, err := pipeline.Secret(cfg.Secret, cfg.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	return &webhook{p, []byte(s)}, nil
}

func (d *webhook) key(a *pipeline.Alert) string { return a.ID }
func (d *webhook) repeats() bool                { return false }

func (d *webhook) batch() int { return 1 }

func (d *webhook) send(ctx context.Context, list []notice) error {
	n := list[0]
	body, err := json.Marshal(n.alert)
	if err != nil {
		return &refusal{err.Error()}
	}
	h := http.Header{}
	h.Set("Idempotency-Key", n.alert.ID+"/"+strconv.FormatUint(n.alert.Revision, 10))
	if len(d.secret) > 0 {
		mac := hmac.New(sha256.New, d.secret)
		mac.Write(body)
		h.Set("X-Tidegate-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	return d.post(ctx, body, h)
}

// local hands each alert to a function of this process: when it is new, and when this life hears of it for the first time.
type local struct {
	call func(*pipeline.Alert)
	mu   sync.Mutex
	seen map[string]bool
}

// maxSeen bounds what local remembers; then it begins anew.
const maxSeen = 10_000

// localName is its name among the destinations.
const localName = "local"

func (d *local) key(a *pipeline.Alert) string { return a.ID }
func (d *local) repeats() bool                { return false }

func (d *local) batch() int { return 1 }

func (d *local) send(_ context.Context, list []notice) error {
	a := list[0].alert
	d.mu.Lock()
	known := d.seen[a.ID]
	if d.seen == nil || len(d.seen) >= maxSeen {
		d.seen = map[string]bool{}
	}
	d.seen[a.ID] = true
	d.mu.Unlock()
	if !known {
		d.call(a)
	}
	return nil
}
