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
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/lineartest"
)

var discardLog = slog.New(slog.DiscardHandler)

// newClient returns a client of an in-memory broker with the topics of tidegate.
func newClient(t *testing.T) *kafka.Client {
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
	if _, err := client.EnsureTopics(context.Background()); err != nil {
		t.Fatal(err)
	}
	return client
}

// alertOf returns the given revision of the alert of a group: revision n has counted n matches.
func alertOf(rule, group string, revision uint64) *pipeline.Alert {
	grouper := NewGrouper(DefaultGrouper(), 0)
	for i := range int64(revision) {
		grouper.AddVerdicts(match(i, rule, group), late, i)
	}
	all, _ := grouper.Flush()
	all[0].WindowStart = time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	return all[0]
}

// publish writes alerts, or raw messages, to the alerts topic.
func publish(t *testing.T, client *kafka.Client, values ...any) {
	t.Helper()
	for _, value := range values {
		data, ok := value.([]byte)
		key := []byte("k")
		if !ok {
			data, _ = json.Marshal(value)
			key = []byte(value.(*pipeline.Alert).Fingerprint)
		}
		record := kafkago.Record{Time: time.Now(), Key: kafkago.NewBytes(key), Value: kafkago.NewBytes(data)}
		if _, err := client.Produce(context.Background(), client.Topic(pipeline.TopicAlerts), 0, record); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs a publisher until the returned function is called.
func run(t *testing.T, cfg Config, client *kafka.Client, onAlert func(*pipeline.Alert)) func() {
	t.Helper()
	return runMeasured(t, cfg, client, onAlert, nil)
}

// runMeasured is run with the metrics of the publisher in reg.
func runMeasured(
	t *testing.T, cfg Config, client *kafka.Client, onAlert func(*pipeline.Alert), reg prometheus.Registerer,
) func() {
	t.Helper()
	publisher, err := NewPublisher(cfg, client, onAlert, discardLog, reg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- publisher.Run(ctx) }()
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

// waitUntil waits until condition reports true, for 30 seconds at most.
func waitUntil(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// committed returns the offset that a destination has committed, or -1.
func committed(t *testing.T, client *kafka.Client, destination string) int64 {
	t.Helper()
	topic, group := client.Topic(pipeline.TopicAlerts), client.Config().TopicPrefix+"-alerts-"+destination
	request := &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}}
	response, err := client.Kafka().OffsetFetch(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if len(response.Topics[topic]) == 0 {
		return -1
	}
	return response.Topics[topic][0].CommittedOffset
}

// TestLateRevisionDoesNotOpenAnAlertAnew: an engine that was paused writes an old revision of an alert that is
// over. A newer revision is delivered.
func TestLateRevisionDoesNotOpenAnAlertAnew(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	cfg := webhookConfig(hook.URL)
	cfg.ResolveAfter = 200 * time.Millisecond
	stop := run(t, cfg, client, nil)
	two := alertOf("r", "a", 2)
	one, three := *two, *two
	one.Revision, one.Count, three.Revision, three.Count = 1, 1, 3, 3
	publish(t, client, two)
	waitUntil(t, "the alert", func() bool { return hook.list() == "r/a×2" })
	time.Sleep(2 * time.Second) // it is over
	publish(t, client, &one, two, alertOf("r", "b", 1))
	waitUntil(t, "another alert", func() bool { return hook.list() == "r/a×2 r/b×1" })
	publish(t, client, &three)
	waitUntil(t, "the newer revision", func() bool { return hook.list() == "r/a×2 r/b×1 r/a×3" })
	stop()
}

func TestClosedAlertsAreBounded(t *testing.T) {
	closed := closedAlerts{limit: 10}
	for i := range 1000 {
		closed.add(fmt.Sprint(i), alertOf("r", "a", 1))
	}
	if n := len(closed.recent) + len(closed.before); n > 20 || !closed.covers("999", alertOf("r", "a", 1)) {
		t.Errorf("%d alerts", n)
	}
}

// A receiver is the server of a webhook.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	got      []string   // the accepted alerts: rule/group×count
	keys     []string   // their idempotency keys
	requests int        // so far

	// answer reports whether a request is accepted; requests are numbered from 1. It writes the response to
	// one that is not. A nil answer accepts all.
	answer func(w http.ResponseWriter, request int) bool
}

// newReceiver starts a receiver that checks the signature of each alert if secret is not empty.
func newReceiver(t *testing.T, secret string) *receiver {
	hook := &receiver{}
	hook.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		hook.mu.Lock()
		defer hook.mu.Unlock()
		hook.requests++
		if hook.answer != nil && !hook.answer(w, hook.requests) {
			return
		}
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		signature := request.Header.Get("X-Tidegate-Signature")
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); secret != "" && signature != want {
			t.Errorf("signature %q", signature)
		}
		var alert pipeline.Alert
		if err := json.Unmarshal(body, &alert); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		hook.got = append(hook.got, fmt.Sprintf("%s/%s×%d", alert.Rule, alert.Group, alert.Count))
		hook.keys = append(hook.keys, request.Header.Get("Idempotency-Key"))
	}))
	t.Cleanup(hook.Close)
	return hook
}

// list returns the accepted alerts in one line.
func (r *receiver) list() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, " ")
}

// webhookConfig returns a configuration with one webhook.
func webhookConfig(url string) Config {
	cfg := Default()
	cfg.Throttle = 20 * time.Millisecond
	cfg.Webhooks = []Webhook{{HTTP: HTTP{Name: "hook", URL: url}, Secret: "s3cret"}}
	return cfg
}

// TestPartitionThatIsNotAssignedHasNoGauges: the numbers of a partition that this process delivered are those of
// another process afterwards.
func TestPartitionThatIsNotAssignedHasNoGauges(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	reg := prometheus.NewRegistry()
	stop := runMeasured(t, webhookConfig(hook.URL), client, nil, reg)
	publish(t, client, alertOf("r", "a", 1))
	gauges := func() (names []string) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			switch name := strings.TrimPrefix(family.GetName(), "tidegate_alerts_"); name {
			case "open", "pending", "failing":
				names = append(names, fmt.Sprint(name, len(family.GetMetric())))
			}
		}
		return names
	}
	waitUntil(t, "the gauges of a partition", func() bool {
		return slices.Equal(gauges(), []string{"failing1", "open1", "pending1"})
	})
	stop()
	if left := gauges(); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

func TestWebhookGetsEachRevisionOnceAlsoOverARestart(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	var mu sync.Mutex
	var called []string // the groups of the alerts that onAlert was called with; mu guards it
	onAlert := func(alert *pipeline.Alert) {
		mu.Lock()
		defer mu.Unlock()
		called = append(called, alert.Group)
	}
	callbacks := func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(called, " ")
	}

	alert := alertOf("r", "a", 1)
	publish(t, client, alert, alertOf("r", "b", 12), alert)
	stop := run(t, webhookConfig(hook.URL), client, onAlert)
	waitUntil(t, "two alerts", func() bool { return hook.list() == "r/a×1 r/b×12" && callbacks() == "a b" })
	waitUntil(t, "the commit", func() bool {
		return committed(t, client, "hook") == 3 && committed(t, client, callbackName) == 3
	})
	stop()

	stop = run(t, webhookConfig(hook.URL), client, onAlert)
	publish(t, client, alertOf("r", "c", 1))
	waitUntil(t, "the third", func() bool { return hook.list() == "r/a×1 r/b×12 r/c×1" && callbacks() == "a b c" })
	stop()
	if hook.keys[1] != alertOf("r", "b", 12).ID+"/12" {
		t.Errorf("idempotency keys %v", hook.keys)
	}
	if got := callbacks(); got != "a b c" {
		t.Errorf("called back for %v", got)
	}
}

func TestOnlyTheNewestRevisionIsSentAfterTheInterval(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	client, hook := newClient(t), newReceiver(t, "s3cret")
	cfg := webhookConfig(hook.URL)
	cfg.Throttle = 2 * time.Second
	stop := run(t, cfg, client, nil)
	publish(t, client, alertOf("r", "a", 1))
	waitUntil(t, "the first at once", func() bool { return hook.list() == "r/a×1" })
	publish(t, client, alertOf("r", "a", 2), alertOf("r", "a", 5), alertOf("r", "a", 9))
	waitUntil(t, "the newest", func() bool { return hook.list() == "r/a×1 r/a×9" })
	stop()
}

// TestUndeliveredRevisionIsNotCommitted: a publisher stops while a revision waits for its interval. The next
// publisher delivers the revision.
func TestUndeliveredRevisionIsNotCommitted(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	cfg := webhookConfig(hook.URL)
	cfg.Throttle = time.Hour
	stop := run(t, cfg, client, nil)
	publish(t, client, alertOf("r", "a", 1))
	waitUntil(t, "the first", func() bool { return hook.list() == "r/a×1" })
	publish(t, client, alertOf("r", "a", 2), alertOf("r", "b", 1))
	waitUntil(t, "the other", func() bool { return hook.list() == "r/a×1 r/b×1" })
	stop()

	stop = run(t, webhookConfig(hook.URL), client, nil)
	waitUntil(t, "the second revision", func() bool { return strings.Contains(hook.list(), "r/a×2") })
	stop()
}

func TestFailedDeliveryIsRepeatedUntilItSucceeds(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	hook.answer = func(w http.ResponseWriter, request int) bool {
		switch request {
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
	publish(t, client, alertOf("r", "a", 1))
	stop := run(t, webhookConfig(hook.URL), client, nil)
	waitUntil(t, "the alert", func() bool { return hook.list() == "r/a×1" })
	stop()
}

func TestRejectedAlertAndGarbageBecomeDeadLetters(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	hook.answer = func(w http.ResponseWriter, request int) bool {
		if request == 1 {
			http.Error(w, "no such field", http.StatusBadRequest)
		}
		return request > 1
	}
	publish(t, client, alertOf("r", "a", 1))
	stop := run(t, webhookConfig(hook.URL), client, nil)
	waitUntil(t, "the rejection", func() bool {
		hook.mu.Lock()
		defer hook.mu.Unlock()
		return hook.requests == 1
	})
	publish(t, client, []byte("garbage"), alertOf("r", "b", 1))
	waitUntil(t, "the next alert", func() bool { return hook.list() == "r/b×1" })
	stop()

	reader := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: client.Brokers(), Topic: client.Topic(pipeline.TopicDeadLetter), MaxWait: 50 * time.Millisecond,
	})
	defer reader.Close()
	for _, want := range []string{"rejected", "decode"} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		message, err := reader.ReadMessage(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		headers := map[string]string{}
		for _, header := range message.Headers {
			headers[header.Key] = string(header.Value)
		}
		if headers["reason"] != want || headers["stage"] != "alerts/hook" {
			t.Errorf("letter %v, want %s", headers, want)
		}
	}
}

// alertmanagerAt starts a real Alertmanager and returns its URL.
func alertmanagerAt(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "am.yml")
	if err := os.WriteFile(file, []byte("route:\n  receiver: none\nreceivers:\n- name: none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus-alertmanager", "--config.file="+file,
		"--storage.path="+dir, "--web.listen-address="+addr, "--cluster.listen-address=")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start prometheus-alertmanager (Debian's package of that name): %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitUntil(t, "alertmanager", func() bool {
		response, err := http.Get("http://" + addr + "/-/ready")
		if err == nil {
			response.Body.Close()
		}
		return err == nil && response.StatusCode == 200
	})
	return "http://" + addr
}

// A listed is an alert as Alertmanager's API returns it.
type listed struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
}

// listOf returns the active alerts of an Alertmanager.
func listOf(t *testing.T, url string) []listed {
	t.Helper()
	response, err := http.Get(url + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var out []listed
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAlertmanagerListsAnAlertUntilItIsResolved(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	url, client := alertmanagerAt(t), newClient(t)
	cfg := Default()
	cfg.Throttle, cfg.ResendInterval, cfg.ResolveAfter = 50*time.Millisecond, 200*time.Millisecond, 4*time.Second
	cfg.Alertmanager = []Alertmanager{{HTTP: HTTP{Name: "am", URL: url + "/"}, Labels: map[string]string{"team": "blue"}}}
	stop := run(t, cfg, client, nil)
	publish(t, client, alertOf("r", "a", 1), alertOf("r", "b", 1))
	waitUntil(t, "two alerts", func() bool { return len(listOf(t, url)) == 2 })
	publish(t, client, alertOf("r", "a", 4))
	waitUntil(t, "the newest count", func() bool {
		for _, alert := range listOf(t, url) {
			if alert.Labels["group"] == "a" && alert.Annotations["count"] == "4" {
				return true
			}
		}
		return false
	})
	for _, alert := range listOf(t, url) {
		labels := alert.Labels
		if labels["alertname"] != "r" || labels["severity"] != "high" || labels["host"] != "h" ||
			labels["container"] != "web" || labels["team"] != "blue" || len(labels["fingerprint"]) != 16 {
			t.Errorf("labels %+v", labels)
		}
		if alert.Annotations["summary"] == "" || alert.Annotations["version"] != "3" || time.Until(alert.EndsAt) < 4*time.Minute {
			t.Errorf("%+v", alert)
		}
	}
	waitUntil(t, "the end of both", func() bool { return len(listOf(t, url)) == 0 })
	stop()
}

// TestLabelsThatPassTheCheckAreAccepted posts alerts with configured labels to a real Alertmanager. It accepts
// those that pass the check.
func TestLabelsThatPassTheCheckAreAccepted(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	url := alertmanagerAt(t)
	alert := alertOf("r", "a", 1)
	alert.Demo, alert.Host, alert.Cluster, alert.ContainerID, alert.Image = true, "h", "c", "0123456789abcdef", "i"
	accepted := 0
	for _, name := range []string{"team", "_", "A1", "__x", "my-team", "", "1a", "a b", "é", "a.b", "team\n"} {
		labels := map[string]string{name: "v\t\u202e"}
		destination, err := newAlertmanager(Alertmanager{HTTP: HTTP{Name: "am", URL: url}, Labels: labels}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		passes := len(checkLabels("labels", labels)) == 0
		sent := notification{newest: alert, first: alert, endsAt: time.Now().Add(time.Minute)}
		for label := range destination.encodeAlert(sent).Labels {
			if label != name && !slices.Contains(ownLabels, label) {
				t.Errorf("the label %q is not in ownLabels", label)
			}
		}
		err = destination.deliver(t.Context(), []notification{sent})
		if passes && err != nil {
			t.Errorf("the label %q passes the check, and Alertmanager answers %v", name, err)
		}
		if err == nil {
			accepted++
		}
	}
	if accepted == 0 || accepted == 11 {
		t.Errorf("Alertmanager accepts %d of 11 labels: it is no judge", accepted)
	}
}

// TestLabelsWithoutEffectAreTold: labels that Alertmanager drops, and those that tidegate replaces.
func TestLabelsWithoutEffectAreTold(t *testing.T) {
	check := func(name, value string, wantProblems int) {
		t.Helper()
		if got := checkLabels("labels", map[string]string{name: value}); len(got) != wantProblems {
			t.Errorf("%q: %q: %v", name, value, got)
		}
	}
	check("team", "security", 0)
	check("team", " ", 0)
	check("team", "", 1)
	check("team", "\xff", 1)
	check("a:b", "x", 1) // a name of a metric may have a colon
	for _, name := range ownLabels {
		check(name, "x", 1)
	}
}

// TestOpenAlertIsResolvedAfterARestart: a publisher resolves the alert that an earlier publisher sent to
// Alertmanager.
func TestOpenAlertIsResolvedAfterARestart(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	url, client := alertmanagerAt(t), newClient(t)
	cfg := Default()
	cfg.ResendInterval, cfg.ResolveAfter = 200*time.Millisecond, 5*time.Second
	cfg.Alertmanager = []Alertmanager{{HTTP: HTTP{Name: "am", URL: url}}}
	stop := run(t, cfg, client, nil)
	publish(t, client, alertOf("r", "a", 1))
	waitUntil(t, "the alert", func() bool { return len(listOf(t, url)) == 1 })
	stop()
	stop = run(t, cfg, client, nil)
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
	endpoint := HTTP{Name: "a", URL: "https://x/y"}
	// with returns a change that adds a webhook with a changed endpoint.
	with := func(change func(*HTTP)) func(*Config) {
		return func(c *Config) {
			changed := endpoint
			change(&changed)
			c.Webhooks = []Webhook{{HTTP: changed}}
		}
	}
	check("", func(*Config) {})
	check("", with(func(*HTTP) {}))
	check("throttle", func(c *Config) { c.Throttle = 0 })
	check("webhooks[0].name", with(func(h *HTTP) { h.Name = "a b" }))
	check("webhooks[0].name", with(func(h *HTTP) { h.Name = "local" }))
	check("webhooks[0].url", with(func(h *HTTP) { h.URL = "ftp://x" }))
	check("webhooks[0].token", with(func(h *HTTP) { h.Username, h.Token = "u", "t" }))
	check("alertmanager[1].name", func(c *Config) { c.Alertmanager = []Alertmanager{{HTTP: endpoint}, {HTTP: endpoint}} })
	check("webhooks[0].headers.X Key", with(func(h *HTTP) { h.Headers = map[string]string{"X Key": "v"} }))
	check("webhooks[0].headers.X-Key", with(func(h *HTTP) { h.Headers = map[string]string{"X-Key": "a\r\nb"} }))
	labelled := func(name string) func(*Config) {
		return func(c *Config) {
			c.Alertmanager = []Alertmanager{{HTTP: endpoint, Labels: map[string]string{name: "v", "team": "sec"}}}
		}
	}
	check("", labelled("_Team2"))
	for _, name := range []string{"my-team", "", "2team", "tëam", "severity", "fingerprint", "demo"} {
		check("alertmanager[0].labels."+name, labelled(name))
	}
	if _, err := NewPublisher(Config{}, nil, nil, discardLog, nil); err == nil {
		t.Error("an empty configuration was taken")
	}

	// The first and the last value of each range are allowed.
	for key, set := range map[string]func(c *Config, n time.Duration){
		"resolve_after":   func(c *Config, n time.Duration) { c.ResolveAfter = n },
		"resend_interval": func(c *Config, n time.Duration) { c.ResendInterval = n },
		"throttle":        func(c *Config, n time.Duration) { c.Throttle = n },
		"timeout":         func(c *Config, n time.Duration) { c.Timeout = n },
	} {
		for n, want := range map[time.Duration]string{10e6: "", 10e6 - 1: key, 24 * time.Hour: "", 24*time.Hour + 1: key} {
			check(want, func(c *Config) { set(c, n) })
		}
	}
	for n, want := range map[int]string{1: "", 0: "max_attempts", 1000: "", 1001: "max_attempts"} {
		check(want, func(c *Config) { c.MaxAttempts = n })
	}
	for n, want := range map[int]string{1: "", 0: "max_open"} {
		check(want, func(c *Config) { c.MaxOpen = n })
	}
}

// TestDefaultsOfThePublisherAreThoseOfTheReference: docs/CONFIG.md has them.
func TestDefaultsOfThePublisherAreThoseOfTheReference(t *testing.T) {
	want := Config{
		ResolveAfter: 15 * time.Minute, ResendInterval: time.Minute, Throttle: 30 * time.Second, Timeout: 10 * time.Second, MaxAttempts: 30, MaxOpen: 50000,
	}
	if got := Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Wed, 21 Oct 2026 07:28:00 GMT")
	f.Fuzz(func(t *testing.T, text string) {
		lineartest.CheckRepeated(t, lineartest.Default, text, func(text string) {
			if wait := parseRetryAfter(text, time.Unix(0, t0)); wait < 0 || wait > 5*time.Minute {
				t.Errorf("%q: %v", text, wait)
			}
		})
	})
}
