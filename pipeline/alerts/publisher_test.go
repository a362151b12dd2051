package alerts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

var discardLog = slog.New(slog.DiscardHandler)

func newClient(t *testing.T) *kafka.Client {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = c.ListenAddrs(), kafka.AssignStatic
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(context.Background()); err != nil {
		t.Fatal(err)
	}
	return client
}

// alertOf returns the alert of one group after as many matches as its revision says.
func alertOf(rule, group string, revision uint64) *pipeline.Alert {
	g := NewGrouper(DefaultGrouper(), 0)
	for i := range revision {
		e := match(int64(i), rule, group)
		g.AddVerdicts(e, late, int64(i))
	}
	all, _ := g.Flush()
	all[0].WindowStart = time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	return all[0]
}

// publish writes alerts, or raw messages, to the alerts topic.
func publish(t *testing.T, c *kafka.Client, values ...any) {
	t.Helper()
	for _, v := range values {
		b, ok := v.([]byte)
		key := []byte("k")
		if !ok {
			b, _ = json.Marshal(v)
			key = []byte(v.(*pipeline.Alert).Fingerprint)
		}
		if _, err := c.Produce(context.Background(), c.Topic(pipeline.TopicAlerts), 0, kafkago.Record{Time: time.Now(), Key: kafkago.NewBytes(key), Value: kafkago.NewBytes(b)}); err != nil {
			t.Fatal(err)
		}
	}
}

// run starts a publisher until the returned function is called.
func run(t *testing.T, cfg Config, c *kafka.Client, onAlert func(*pipeline.Alert)) func() {
	t.Helper()
	p, err := NewPublisher(cfg, c, onAlert, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("publisher ended: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func waitUntil(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// committed returns the offset that a destination has committed; -1: none.
func committed(t *testing.T, c *kafka.Client, destination string) int64 {
	t.Helper()
	topic, group := c.Topic(pipeline.TopicAlerts), c.Config().TopicPrefix+"-alerts-"+destination
	f, err := c.Kafka().OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Topics[topic]) == 0 {
		return -1
	}
	return f.Topics[topic][0].CommittedOffset
}

// A receiver is the server of a webhook.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string // rule/group×count
	keys   []string
	answer func(w http.ResponseWriter, n int) bool // reports whether request n is accepted; nil accepts all
	tries  int
}

func newReceiver(t *testing.T, secret string) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tries++
		if r.answer != nil && !r.answer(w, r.tries) {
			return
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); secret != "" && q.Header.Get("X-Tidegate-Signature") != want {
			t.Errorf("signature %q", q.Header.Get("X-Tidegate-Signature"))
		}
		var a pipeline.Alert
		if err := json.Unmarshal(body, &a); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		r.got = append(r.got, fmt.Sprintf("%s/%s×%d", a.Rule, a.Group, a.Count))
		r.keys = append(r.keys, q.Header.Get("Idempotency-Key"))
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) list() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, " ")
}

// hook returns a configuration with one webhook.
func hook(url string) Config {
	cfg := Default()
	cfg.Throttle = 20 * time.Millisecond
	cfg.Webhooks = []Webhook{{HTTP: HTTP{Name: "hook", URL: url}, Secret: "s3cret"}}
	return cfg
}

func TestWebhookGetsEachRevisionOnceAlsoOverARestart(t *testing.T) {
	c, r := newClient(t), newReceiver(t, "s3cret")
	var mu sync.Mutex
	var called []string
	onAlert := func(a *pipeline.Alert) { mu.Lock(); defer mu.Unlock(); called = append(called, a.Group) }
	callbacks := func() string { mu.Lock(); defer mu.Unlock(); return strings.Join(called, " ") }
	a := alertOf("r", "a", 1)
	publish(t, c, a, alertOf("r", "b", 3), a)
	stop := run(t, hook(r.URL), c, onAlert)
	waitUntil(t, "two alerts", func() bool { return r.list() == "r/a×1 r/b×3" && callbacks() == "a b" })
	waitUntil(t, "the commit", func() bool { return committed(t, c, "hook") == 3 && committed(t, c, callbackName) == 3 })
	stop()
	stop = run(t, hook(r.URL), c, onAlert)
	publish(t, c, alertOf("r", "c", 1))
	waitUntil(t, "the third", func() bool { return r.list() == "r/a×1 r/b×3 r/c×1" && callbacks() == "a b c" })
	stop()
	if r.keys[1] != alertOf("r", "b", 3).ID+"/3" {
		t.Errorf("idempotency keys %v", r.keys)
	}
	if got := callbacks(); got != "a b c" {
		t.Errorf("called back for %v", got)
	}
}

func TestOnlyTheNewestRevisionIsSentAfterTheInterval(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	c, r := newClient(t), newReceiver(t, "s3cret")
	cfg := hook(r.URL)
	cfg.Throttle = 2 * time.Second
	stop := run(t, cfg, c, nil)
	publish(t, c, alertOf("r", "a", 1))
	waitUntil(t, "the first at once", func() bool { return r.list() == "r/a×1" })
	publish(t, c, alertOf("r", "a", 2), alertOf("r", "a", 5), alertOf("r", "a", 9))
	waitUntil(t, "the newest", func() bool { return r.list() == "r/a×1 r/a×9" })
	stop()
}

// TestUndeliveredRevisionIsNotAcknowledged: a revision that waits for its interval is delivered by the next
// publisher.
func TestUndeliveredRevisionIsNotAcknowledged(t *testing.T) {
	c, r := newClient(t), newReceiver(t, "s3cret")
	cfg := hook(r.URL)
	cfg.Throttle = time.Hour
	stop := run(t, cfg, c, nil)
	publish(t, c, alertOf("r", "a", 1))
	waitUntil(t, "the first", func() bool { return r.list() == "r/a×1" })
	publish(t, c, alertOf("r", "a", 2), alertOf("r", "b", 1))
	waitUntil(t, "the other", func() bool { return r.list() == "r/a×1 r/b×1" })
	stop()
	stop = run(t, hook(r.URL), c, nil)
	waitUntil(t, "what waited", func() bool { return strings.Contains(r.list(), "r/a×2") })
	stop()
}

func TestFailedDeliveryIsRepeatedWhenTheDestinationAsks(t *testing.T) {
	c, r := newClient(t), newReceiver(t, "s3cret")
	r.answer = func(w http.ResponseWriter, n int) bool {
		switch n {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 3:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return true
		}
		return false
	}
	publish(t, c, alertOf("r", "a", 1))
	stop := run(t, hook(r.URL), c, nil)
	waitUntil(t, "the alert", func() bool { return r.list() == "r/a×1" })
	stop()
}

func TestRejectedAlertAndGarbageBecomeDeadLetters(t *testing.T) {
	c, r := newClient(t), newReceiver(t, "s3cret")
	r.answer = func(w http.ResponseWriter, n int) bool {
		if n == 1 {
			http.Error(w, "no such field", http.StatusBadRequest)
		}
		return n > 1
	}
	publish(t, c, alertOf("r", "a", 1))
	stop := run(t, hook(r.URL), c, nil)
	waitUntil(t, "the rejection", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.tries == 1 })
	publish(t, c, []byte("garbage"), alertOf("r", "b", 1))
	waitUntil(t, "the alert behind", func() bool { return r.list() == "r/b×1" })
	stop()
	rd := kafkago.NewReader(kafkago.ReaderConfig{Brokers: c.Brokers(), Topic: c.Topic(pipeline.TopicDeadLetter), MaxWait: 50 * time.Millisecond})
	defer rd.Close()
	for _, want := range []string{"rejected", "decode"} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		m, err := rd.ReadMessage(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		h := map[string]string{}
		for _, x := range m.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["reason"] != want || h["stage"] != "alerts/hook" {
			t.Errorf("letter %v, want %s", h, want)
		}
	}
}

// alertmanagerAt starts a real Alertmanager and returns its URL.
func alertmanagerAt(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "am.yml"), []byte("route:\n  receiver: none\nreceivers:\n- name: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus-alertmanager", "--config.file="+filepath.Join(dir, "am.yml"), "--storage.path="+dir, "--web.listen-address="+addr, "--cluster.listen-address=")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start prometheus-alertmanager (Debian's package of that name): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitUntil(t, "alertmanager", func() bool {
		r, err := http.Get("http://" + addr + "/-/ready")
		if err == nil {
			r.Body.Close()
		}
		return err == nil && r.StatusCode == 200
	})
	return "http://" + addr
}

// A listed is an alert as Alertmanager's API returns it.
type listed struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
}

func listOf(t *testing.T, url string) []listed {
	t.Helper()
	r, err := http.Get(url + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var out []listed
	if err := json.NewDecoder(r.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRealAlertmanagerListsTheAlertUntilItIsOver(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	url, c := alertmanagerAt(t), newClient(t)
	cfg := Default()
	cfg.Throttle, cfg.ResendInterval, cfg.ResolveAfter = 50*time.Millisecond, 200*time.Millisecond, 4*time.Second
	cfg.Alertmanager = []Alertmanager{{HTTP: HTTP{Name: "am", URL: url + "/"}, Labels: map[string]string{"team": "blue"}}}
	stop := run(t, cfg, c, nil)
	publish(t, c, alertOf("r", "a", 1), alertOf("r", "b", 1))
	waitUntil(t, "two alerts", func() bool { return len(listOf(t, url)) == 2 })
	publish(t, c, alertOf("r", "a", 4))
	waitUntil(t, "the newest count", func() bool {
		for _, a := range listOf(t, url) {
			if a.Labels["group"] == "a" && a.Annotations["count"] == "4" {
				return true
			}
		}
		return false
	})
	for _, a := range listOf(t, url) {
		l := a.Labels
		if l["alertname"] != "r" || l["severity"] != "high" || l["host"] != "h" || l["container"] != "web" || l["team"] != "blue" || len(l["fingerprint"]) != 16 ||
			a.Annotations["summary"] == "" || a.Annotations["version"] != "3" || time.Until(a.EndsAt) < 4*time.Minute {
			t.Errorf("%+v", a)
		}
	}
	waitUntil(t, "their end", func() bool { return len(listOf(t, url)) == 0 })
	stop()
}

// TestOpenAlertIsResolvedAfterARestart: a publisher sends Alertmanager the end of alerts that an earlier one
// opened.
func TestOpenAlertIsResolvedAfterARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	url, c := alertmanagerAt(t), newClient(t)
	cfg := Default()
	cfg.ResendInterval, cfg.ResolveAfter = 200*time.Millisecond, 5*time.Second
	cfg.Alertmanager = []Alertmanager{{HTTP: HTTP{Name: "am", URL: url}}}
	stop := run(t, cfg, c, nil)
	publish(t, c, alertOf("r", "a", 1))
	waitUntil(t, "the alert", func() bool { return len(listOf(t, url)) == 1 })
	stop()
	stop = run(t, cfg, c, nil)
	waitUntil(t, "its end", func() bool { return len(listOf(t, url)) == 0 })
	stop()
}

func TestConfigNamesEachMistake(t *testing.T) {
	check := func(want string, change func(*Config)) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		errs := cfg.Check()
		if want == "" && errs == nil {
			return
		}
		if len(errs) != 1 || errs[0].Key != want {
			t.Errorf("got %v, want one error with %q", errs, want)
		}
	}
	h := HTTP{Name: "a", URL: "https://x/y"}
	with := func(change func(*HTTP)) func(*Config) {
		return func(c *Config) { g := h; change(&g); c.Webhooks = []Webhook{{HTTP: g}} }
	}
	check("", func(*Config) {})
	check("", with(func(*HTTP) {}))
	check("throttle", func(c *Config) { c.Throttle = 0 })
	check("webhooks[0].name", with(func(h *HTTP) { h.Name = "a b" }))
	check("webhooks[0].name", with(func(h *HTTP) { h.Name = "local" }))
	check("webhooks[0].url", with(func(h *HTTP) { h.URL = "ftp://x" }))
	check("webhooks[0].token", with(func(h *HTTP) { h.Username, h.Token = "u", "t" }))
	check("alertmanager[1].name", func(c *Config) { c.Alertmanager = []Alertmanager{{HTTP: h}, {HTTP: h}} })
	if _, err := NewPublisher(Config{}, nil, nil, discardLog, nil); err == nil {
		t.Error("an empty configuration was taken")
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Wed, 21 Oct 2026 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, time.Unix(0, t0)); d < 0 || d > 5*time.Minute {
			t.Errorf("%q: %v", s, d)
		}
	})
}
