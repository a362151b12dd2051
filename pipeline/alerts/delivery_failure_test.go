package alerts

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/lineartest"
)

// A strictReceiver is a destination that fails on alerts of the rule "poison", in the way of fail.
type strictReceiver struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	fail     func(http.ResponseWriter, *http.Request)
	failAll  bool
	accepted []string // bodies
	attempts int      // requests that failed
}

func newStrictReceiver(t *testing.T, fail func(http.ResponseWriter, *http.Request)) *strictReceiver {
	receiver := &strictReceiver{fail: fail}
	receiver.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		receiver.mu.Lock()
		failing := receiver.failAll || bytes.Contains(body, []byte("poison"))
		if failing {
			receiver.attempts++
		} else {
			receiver.accepted = append(receiver.accepted, string(body))
		}
		receiver.mu.Unlock()
		if failing {
			receiver.fail(w, request)
		}
	}))
	t.Cleanup(func() { receiver.CloseClientConnections(); receiver.Close() })
	return receiver
}

// has reports whether an alert of each of the rules was accepted.
func (r *strictReceiver) has(rules ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := strings.Join(r.accepted, "\n")
	return !slices.ContainsFunc(rules, func(rule string) bool { return !strings.Contains(all, `"`+rule+`"`) })
}

func (r *strictReceiver) setFailAll(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failAll = on
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
	}
}

// failures are the ways in which a destination can fail on one alert without rejecting it.
var failures = map[string]func(http.ResponseWriter, *http.Request){
	"500": status(500), "302": status(302), "308": status(308), "401": status(401), "403": status(403),
	"404": status(404), "502": status(502), "204 cut short": func(w http.ResponseWriter, _ *http.Request) {
		connection, _, _ := w.(http.Hijacker).Hijack()
		_, _ = io.WriteString(connection, "HTTP/1.1 2")
		connection.Close()
	},
	"503 for ten minutes": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "600")
		status(503)(w, r)
	},
	"no answer": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"reset": func(w http.ResponseWriter, _ *http.Request) {
		connection, _, _ := w.(http.Hijacker).Hijack()
		_ = connection.(*net.TCPConn).SetLinger(0)
		connection.Close()
	},
}

// sum returns the sum of a metric over its labels.
func sum(t *testing.T, registry *prometheus.Registry, name string) (total float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.Metric {
			found = true
			total += value(metric)
		}
	}
	if !found {
		t.Errorf("no metric %s", name)
	}
	return total
}

func value(metric *dto.Metric) float64 {
	return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
}

// start runs a publisher with metrics and a log until stop is called.
func start(t *testing.T, cfg Config, client *kafka.Client, log io.Writer) (registry *prometheus.Registry, stop func()) {
	t.Helper()
	registry = prometheus.NewRegistry()
	publisher, err := NewPublisher(cfg, client, nil, slog.New(slog.NewTextHandler(log, nil)), registry)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- publisher.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("publisher ended: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return registry, stop
}

// fastConfig returns the configuration of one webhook, or of one Alertmanager, which is named hook.
func fastConfig(url string, alertmanager bool) Config {
	cfg := Default()
	cfg.Throttle, cfg.Timeout, cfg.MaxAttempts = 20*time.Millisecond, 300*time.Millisecond, 2
	if alertmanager {
		cfg.Alertmanager = []Alertmanager{{HTTP: HTTP{Name: "hook", URL: url}}}
	} else {
		cfg.Webhooks = []Webhook{{HTTP: HTTP{Name: "hook", URL: url}}}
	}
	return cfg
}

// TestRefusedAlertDelaysNoOther: a destination fails on one alert, for ever. The alerts before and behind it
// are delivered, and it becomes a dead letter after max_attempts.
func TestRefusedAlertDelaysNoOther(t *testing.T) {
	for name, fail := range failures {
		for _, alertmanager := range []bool{false, true} {
			if testing.Short() && !slices.Contains([]string{"500", "302", "no answer"}, name) {
				continue
			}
			t.Run(fmt.Sprint(name, " alertmanager=", alertmanager), func(t *testing.T) {
				t.Parallel()
				client, receiver := newClient(t), newStrictReceiver(t, fail)
				publish(t, client, alertOf("one", "a", 1), alertOf("poison", "a", 1), alertOf("two", "a", 1))
				registry, stop := start(t, fastConfig(receiver.URL, alertmanager), client, io.Discard)
				waitUntil(t, "the others", func() bool { return receiver.has("one", "two") })
				publish(t, client, alertOf("three", "a", 1))
				waitUntil(t, "one that comes later", func() bool { return receiver.has("three") })
				if strings.HasPrefix(name, "503") {
					return // its next attempt is in minutes
				}

				// Each attempt counts whose predecessor is older than the last acceptance.
				next := 0
				waitUntil(t, "the dead letter", func() bool {
					next++
					publish(t, client, alertOf(fmt.Sprint("r", next), "a", 1))
					time.Sleep(50 * time.Millisecond)
					return sum(t, registry, "tidegate_alerts_rejected_total") == 1
				})
				waitUntil(t, "the commit", func() bool { return committed(t, client, "hook") >= int64(4+next) })
				if letter := deadLetter(t, client); letter["reason"] != "rejected" ||
					!strings.Contains(letter["error"], "given up after 2 attempts") {
					t.Errorf("dead letter %v", letter)
				}
				stop()
				if receiver.has("poison") {
					t.Error("poison was accepted")
				}
			})
		}
	}
}

// deadLetter returns the headers of the first dead letter.
func deadLetter(t *testing.T, client *kafka.Client) map[string]string {
	t.Helper()
	reader := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: client.Brokers(), Topic: client.Topic(pipeline.TopicDeadLetter), MaxWait: 50 * time.Millisecond,
	})
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	message, err := reader.ReadMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]string{}
	for _, header := range message.Headers {
		headers[header.Key] = string(header.Value)
	}
	return headers
}

// TestManyRefusedAlertsDelayNoOther: 100 alerts that the destination fails on are in front of one that it
// accepts.
func TestManyRefusedAlertsDelayNoOther(t *testing.T) {
	client, receiver := newClient(t), newStrictReceiver(t, status(500))
	for i := range 100 {
		publish(t, client, alertOf("poison", fmt.Sprint("g", i), 1))
	}
	publish(t, client, alertOf("good", "a", 1))
	cfg := fastConfig(receiver.URL, false)
	cfg.MaxAttempts = 1000
	registry, _ := start(t, cfg, client, io.Discard)
	waitUntil(t, "the good one", func() bool { return receiver.has("good") })
	for i := range 5 {
		rule := fmt.Sprint("later", i)
		began := time.Now()
		publish(t, client, alertOf(rule, "a", 1))
		waitUntil(t, rule, func() bool { return receiver.has(rule) })
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s took %v", rule, took)
		}
	}
	if failing := sum(t, registry, "tidegate_alerts_failing"); failing != 100 {
		t.Errorf("%v failing alerts, want 100", failing)
	}
}

// TestDestinationThatAcceptsNothingLosesNothing: all attempts fail, many more than max_attempts. When the
// destination recovers, it gets every alert, and soon.
func TestDestinationThatAcceptsNothingLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for _, name := range []string{"500", "302", "401", "no answer", "reset"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, receiver := newClient(t), newStrictReceiver(t, failures[name])
			receiver.setFailAll(true)
			cfg := fastConfig(receiver.URL, false)
			cfg.MaxAttempts = 1
			publish(t, client, alertOf("one", "a", 1), alertOf("two", "a", 1), alertOf("three", "a", 1))
			registry, _ := start(t, cfg, client, io.Discard)
			time.Sleep(4 * time.Second)
			if offset := committed(t, client, "hook"); offset > 0 {
				t.Errorf("offset %d is committed, and nothing is delivered", offset)
			}
			receiver.setFailAll(false)
			waitUntil(t, "all", func() bool { return receiver.has("one", "two", "three") })
			if lost := sum(t, registry, "tidegate_alerts_rejected_total"); lost != 0 {
				t.Errorf("%v alerts were given up", lost)
			}
		})
	}
}

// TestRevisionsOfAFailingAlertKeepTheirOrder: the destination fails at random. The revisions of each alert that
// it accepts grow, and the last is the newest.
func TestRevisionsOfAFailingAlertKeepTheirOrder(t *testing.T) {
	client, hook := newClient(t), newReceiver(t, "s3cret")
	rnd := rand.New(rand.NewPCG(1, 2))
	hook.answer = func(w http.ResponseWriter, _ int) bool {
		if rnd.IntN(3) == 0 {
			w.WriteHeader(500)
			return false
		}
		return true
	}
	cfg := webhookConfig(hook.URL)
	cfg.Throttle = 10 * time.Millisecond
	stop := run(t, cfg, client, nil)
	for revision := range uint64(10) {
		publish(t, client, alertOf("r", "a", revision+1), alertOf("r", "b", revision+1))
		time.Sleep(50 * time.Millisecond)
	}
	waitUntil(t, "the newest", func() bool {
		return strings.Contains(hook.list(), "r/a×10") && strings.Contains(hook.list(), "r/b×10")
	})
	stop()
	last := map[string]int{}
	for _, alert := range hook.got {
		var group string
		var count int
		if _, err := fmt.Sscanf(alert, "r/%1s×%d", &group, &count); err != nil {
			t.Fatal(err)
		}
		if count <= last[group] {
			t.Errorf("revision %d of %s after %d: %v", count, group, last[group], hook.got)
		}
		last[group] = count
	}
}

// TestRestartDeliversOnlyWhatIsPending: a failing alert holds back the committed offset. The next run tries it
// again, and does not repeat the alerts behind it.
func TestRestartDeliversOnlyWhatIsPending(t *testing.T) {
	client, receiver := newClient(t), newStrictReceiver(t, status(500))
	cfg := fastConfig(receiver.URL, false)
	cfg.MaxAttempts = 1000
	publish(t, client, alertOf("one", "a", 1), alertOf("poison", "a", 1), alertOf("two", "a", 1), alertOf("three", "a", 1))
	registry, stop := start(t, cfg, client, io.Discard)
	// A response that the publisher has not read when it stops is repeated: delivery is at least once.
	waitUntil(t, "the others", func() bool {
		return receiver.has("one", "two", "three") && sum(t, registry, "tidegate_alerts_sent_total") == 3
	})
	stop()
	if offset := committed(t, client, "hook"); offset != 1 {
		t.Errorf("offset %d is committed, want 1: that of the pending alert", offset)
	}

	before := receiver.attempts
	_, stop = start(t, cfg, client, io.Discard)
	publish(t, client, alertOf("four", "a", 1))
	waitUntil(t, "the new one and another attempt", func() bool {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return len(receiver.accepted) > 3 && receiver.attempts > before
	})
	stop()
	if len(receiver.accepted) != 4 {
		t.Errorf("%d alerts were delivered, want 4", len(receiver.accepted))
	}
}

// TestPendingAlertsAreBounded: a destination is down while 3 MB of alerts are published. The publisher reads
// max_open of them.
func TestPendingAlertsAreBounded(t *testing.T) {
	client, receiver := newClient(t), newStrictReceiver(t, status(500))
	receiver.setFailAll(true)
	cfg := fastConfig(receiver.URL, false)
	cfg.MaxOpen = 50
	const published = 1500
	alert := alertOf("r", "a", 1)
	alert.Evidence = strings.Repeat("e", 2000)
	list := make([]any, published)
	for i := range list {
		one := *alert
		one.ID, one.Group = fmt.Sprintf("%032d", i), fmt.Sprint("g", i)
		list[i] = &one
	}
	publish(t, client, list...)
	registry, _ := start(t, cfg, client, io.Discard)
	waitUntil(t, "a fetch", func() bool { return sum(t, registry, "tidegate_alerts_read_total") >= 50 })
	time.Sleep(time.Second)
	if read := sum(t, registry, "tidegate_alerts_read_total"); read != 50 {
		t.Errorf("%v alerts were read, want 50", read)
	}
	receiver.setFailAll(false)
	waitUntil(t, "all", func() bool {
		receiver.mu.Lock()
		defer receiver.mu.Unlock()
		return len(receiver.accepted) == published
	})
}

// TestRejectedAlertIsNotSentAgain: Alertmanager gets open alerts again and again, but not those that it
// rejects.
func TestRejectedAlertIsNotSentAgain(t *testing.T) {
	client, receiver := newClient(t), newStrictReceiver(t, status(400))
	cfg := fastConfig(receiver.URL, true)
	cfg.ResendInterval = 50 * time.Millisecond
	publish(t, client, alertOf("poison", "a", 1), alertOf("one", "a", 1))
	registry, stop := start(t, cfg, client, io.Discard)
	waitUntil(t, "resends", func() bool { return sum(t, registry, "tidegate_alerts_sent_total") > 20 })
	publish(t, client, alertOf("poison", "a", 2))
	waitUntil(t, "its next revision", func() bool { return sum(t, registry, "tidegate_alerts_rejected_total") == 2 })
	stop()
	if receiver.attempts > 3 {
		t.Errorf("the rejected alert was sent %d times", receiver.attempts)
	}
}

// TestErrorsShowNoSecretOfADestination: neither the log nor a dead letter holds the path or the query of a
// webhook's URL, or its credentials, also if the server quotes them.
func TestErrorsShowNoSecretOfADestination(t *testing.T) {
	t.Setenv("NO_PROXY", "*")
	secrets := []string{"T0000SECRET", "hunter2secret", "tok3nsecret", "keysecret", "path%2Fsecret", "path/secret"}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	quote := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			http.Error(w, fmt.Sprint("no ", r.URL, " ", r.URL.Path, " ", r.URL.Query()["key"], user, password, r.Header), code)
		}
	}
	targets := map[string]string{"refused": closed.Addr().String()}
	for name, fail := range map[string]func(http.ResponseWriter, *http.Request){
		"500": quote(500), "400": quote(400), "503": quote(503), "302": quote(302),
		"reset": failures["reset"], "no answer": failures["no answer"], "cut": failures["204 cut short"],
	} {
		targets[name] = strings.TrimPrefix(newStrictReceiver(t, fail).URL, "http://")
	}
	for name, addr := range targets {
		for _, http := range []HTTP{
			{URL: "http://" + addr + "/services/T0000SECRET/path%2Fsecret?key=keysecret", Token: "tok3nsecret"},
			{URL: "http://" + addr + "/T0000SECRET?keysecret", Username: "u", Password: "hunter2secret"},
			{URL: "http://u:hunter2secret@" + addr + "/T0000SECRET", Headers: map[string]string{"X-Key": "tok3nsecret"}},
		} {
			client := newClient(t)
			http.Name = "hook"
			cfg := fastConfig("", false)
			cfg.Webhooks = []Webhook{{HTTP: http}}
			publish(t, client, alertOf("poison", "a", 1))
			var log bytes.Buffer
			registry, stop := start(t, cfg, client, &log)
			waitUntil(t, "the failure", func() bool {
				return sum(t, registry, "tidegate_alerts_failures_total")+sum(t, registry, "tidegate_alerts_rejected_total") > 0
			})
			stop()
			texts := log.String()
			if name == "400" {
				texts += fmt.Sprint(deadLetter(t, client))
			}
			if !strings.Contains(texts, "err=") {
				t.Errorf("%s: no error in the log: %s", name, texts)
			}
			for _, secret := range secrets {
				if strings.Contains(texts, secret) {
					t.Errorf("%s shows %q: %s", name, secret, texts)
				}
			}
		}
	}
}

func TestProgressIsReadAsItWasWritten(t *testing.T) {
	mark := recordMark{isSet: true, offset: 1<<62 + maxListed, sum: math.MaxUint64}
	check := func(oldest, next int64, pending ...int64) {
		t.Helper()
		for _, mark := range []recordMark{{}, mark, {isSet: true}} {
			got := parseProgress(formatProgress(oldest, next, pending, mark))
			want := progress{next: next, pending: map[int64]bool{}, mark: mark}
			for _, offset := range pending {
				want.pending[offset] = true
			}
			isCommitted := oldest == next && !mark.isSet // by the offset
			switch {
			case len(pending) > maxListed && mark.isSet:
				want = progress{pending: map[int64]bool{}, mark: mark}
			case len(pending) > maxListed || isCommitted:
				want = progress{}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%d %d %v %v: got %v", oldest, next, pending, mark, got)
			}
		}
	}
	check(5, 5)
	check(5, 9)
	check(5, 9, 5)
	check(5, 9, 8, 5, 7)
	many := make([]int64, maxListed)
	for i := range many {
		many[i] = 1<<62 + int64(i)
	}
	check(many[0], 1<<62+maxListed, many...)
	if text := formatProgress(many[0], 1<<62+maxListed, many, mark); len(text) > 4096 {
		t.Errorf("%d bytes of metadata, and Kafka takes 4096", len(text))
	}
	check(0, 1<<62+maxListed, append(many, 0)...)
}

func FuzzProgress(f *testing.F) {
	f.Add("v1 20 3 17")
	f.Add("v1 20 @19:00000000000000ff 3 17")
	f.Fuzz(func(t *testing.T, text string) {
		lineartest.CheckRepeated(t, lineartest.Default, text, func(text string) {
			parsed := parseProgress(text)
			for offset := range parsed.pending {
				if offset < 0 || offset >= parsed.next {
					t.Errorf("%q: pending %d of %d", text, offset, parsed.next)
				}
			}
		})
	})
}

// TestMain runs the publisher of TestKilledPublisherLosesNothing in a process of its own.
func TestMain(m *testing.M) {
	broker, url := os.Getenv("TIDEGATE_TEST_BROKER"), os.Getenv("TIDEGATE_TEST_URL")
	if broker == "" {
		os.Exit(m.Run())
	}
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = []string{broker}, kafka.AssignStatic
	client, err := kafka.New(cfg)
	if err != nil {
		panic(err)
	}
	alerts := fastConfig(url, false)
	alerts.MaxAttempts = 1000
	publisher, err := NewPublisher(alerts, client, nil, slog.New(slog.NewTextHandler(os.Stderr, nil)), nil)
	if err != nil {
		panic(err)
	}
	panic(publisher.Run(context.Background()))
}

// TestKilledPublisherLosesNothing kills a publisher at random moments. The destination fails on some alerts, and
// at times on all. In the end it has the newest revision of every alert that it accepts.
func TestKilledPublisherLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	client, receiver := newClient(t), newStrictReceiver(t, status(500))
	rnd := rand.New(rand.NewPCG(7, 8))
	child := func() *exec.Cmd {
		command := exec.Command(os.Args[0], "-test.run=^$")
		command.Env = append(os.Environ(), "TIDEGATE_TEST_BROKER="+client.Brokers()[0], "TIDEGATE_TEST_URL="+receiver.URL)
		command.Stderr = os.Stderr
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = command.Process.Kill() })
		return command
	}
	var rules []string
	for round := range 12 {
		publisher := child()
		receiver.setFailAll(round%4 == 2)
		for i := range 10 {
			rule := fmt.Sprintf("r%d-%d", round, i)
			rules = append(rules, rule)
			publish(t, client, alertOf(rule, "a", 1), alertOf("poison", rule, 1))
			time.Sleep(time.Duration(rnd.Int64N(int64(80 * time.Millisecond))))
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(1500 * time.Millisecond))))
		_ = publisher.Process.Kill()
		_ = publisher.Wait()
	}
	receiver.setFailAll(false)
	child()
	waitUntil(t, "all", func() bool { return receiver.has(rules...) })
	receiver.mu.Lock()
	defer receiver.mu.Unlock()
	t.Logf("%d alerts, %d deliveries, %d failed attempts", len(rules), len(receiver.accepted), receiver.attempts)
	if len(receiver.accepted) > 2*len(rules) {
		t.Errorf("%d deliveries of %d alerts", len(receiver.accepted), len(rules))
	}
}
