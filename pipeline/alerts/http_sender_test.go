package alerts

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// TestRequestsCarryTheConfiguredCredentials: a token, a password and headers of the configuration are in each
// request, from the configuration and from files. Headers replace those of tidegate, but not the token.
func TestRequestsCarryTheConfiguredCredentials(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("from-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { got = request }))
	defer server.Close()
	check := func(cfg HTTP, want map[string]string) {
		t.Helper()
		cfg.URL = server.URL + "/hook"
		sender, err := newHTTPSender(cfg, "", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := sender.postBody(t.Context(), []byte("{}"), http.Header{"X-Own": {"of the request"}}); err != nil {
			t.Fatal(err)
		}
		want["X-Own"] = "of the request"
		for name, value := range want {
			if got.Header.Get(name) != value {
				t.Errorf("header %s is %q, want %q", name, got.Header.Get(name), value)
			}
		}
		if got.URL.Path != "/hook" || got.Method != http.MethodPost {
			t.Errorf("%s %s", got.Method, got.URL)
		}
	}
	check(HTTP{}, map[string]string{"Content-Type": "application/json", "User-Agent": "tidegate", "Authorization": ""})
	check(HTTP{Token: "t0ken"}, map[string]string{"Authorization": "Bearer t0ken"})
	check(HTTP{TokenFile: secret}, map[string]string{"Authorization": "Bearer from-the-file"})
	check(HTTP{Headers: map[string]string{"X-Team": "a", "user-agent": "b", "X-Own": "c"}},
		map[string]string{"X-Team": "a", "User-Agent": "b", "Content-Type": "application/json"})
	check(HTTP{Headers: map[string]string{"Authorization": "Token x"}}, map[string]string{"Authorization": "Token x"})
	check(HTTP{Headers: map[string]string{"Authorization": "x"}, Token: "y"}, map[string]string{"Authorization": "Bearer y"})
	check(HTTP{Username: "u", Password: "p"}, map[string]string{"Authorization": "Basic dTpw"})
	check(HTTP{Username: "u", PasswordFile: secret}, map[string]string{"Authorization": "Basic dTpmcm9tLXRoZS1maWxl"})

	// A secret that cannot be read is an error: without it each request would be refused.
	for key, cfg := range map[string]HTTP{
		"password_file": {Username: "u", PasswordFile: secret + ".missing"}, "token_file": {TokenFile: secret + ".missing"},
	} {
		cfg.URL = server.URL
		if sender, err := newHTTPSender(cfg, "", time.Minute); err == nil || sender != nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is missing: %v, %v", key, sender, err)
		}
	}
}

// deafDestination accepts nothing.
type deafDestination struct{ destination }

func (deafDestination) alertKey(alert *pipeline.Alert) string { return alert.ID }

func (deafDestination) deliver(context.Context, []notification) error {
	return &responseError{text: "deaf"}
}

// TestDeliveredAlertsAreEvicted: when max_open alerts are open, an eighth of them is dropped: those that were
// delivered and updated least recently. What waits for delivery is never dropped.
func TestDeliveredAlertsAreEvicted(t *testing.T) {
	const maxOpen = 16
	d := &deliverer{
		Publisher:   &Publisher{cfg: Config{MaxOpen: maxOpen}, metrics: newPublisherMetrics(prometheus.NewRegistry())},
		destination: namedDestination{"hook", deafDestination{}}, open: map[string]*openAlert{},
		closed: closedAlerts{limit: maxOpen},
	}
	begin := time.Unix(1e9, 0)
	observe := func(i int) {
		id := strconv.Itoa(i)
		d.observe(&pipeline.Alert{ID: id, Revision: 1, WindowStart: begin},
			consumer.Record{Offset: int64(i), Time: begin.Add(time.Duration(i) * time.Second).UnixNano()})
	}
	evicted := func() float64 { return testutil.ToFloat64(d.metrics.evicted.WithLabelValues("hook")) }
	for i := range maxOpen {
		observe(i)
	}
	if len(d.open) != maxOpen || evicted() != 0 || d.pending != maxOpen {
		t.Fatalf("%d alerts are open, %d pending, %v evicted", len(d.open), d.pending, evicted())
	}

	// All wait: none is dropped.
	observe(100)
	if len(d.open) != maxOpen+1 || evicted() != 0 {
		t.Errorf("%d alerts are open, %v evicted", len(d.open), evicted())
	}

	// The alerts 5 to 12 are delivered: 5 and 6 are dropped, 7 and 8 with the next alert.
	for i := 5; i <= 12; i++ {
		d.markDelivered(d.open[strconv.Itoa(i)], begin, true)
	}
	observe(101)
	for i := range maxOpen {
		if _, ok := d.open[strconv.Itoa(i)]; ok != (i != 5 && i != 6) {
			t.Errorf("alert %d is open: %t", i, ok)
		}
	}
	if evicted() != 2 || len(d.open) != maxOpen {
		t.Errorf("%v evicted, %d open", evicted(), len(d.open))
	}
	if !d.closed.covers("5", &pipeline.Alert{ID: "5", Revision: 1}) {
		t.Error("an old revision would open the dropped alert anew")
	}
	observe(102)
	if evicted() != 4 || len(d.open) != maxOpen-1 || d.open["7"] != nil || d.open["9"] == nil {
		t.Errorf("%v evicted, %d open", evicted(), len(d.open))
	}
	observe(103) // below the maximum
	if evicted() != 4 || len(d.open) != maxOpen {
		t.Errorf("%v evicted, %d open", evicted(), len(d.open))
	}
}

// TestAlertIsHandedOverOnce: a later revision of it is not, unless its severity is higher; the memory of those that were is bounded.
func TestAlertIsHandedOverOnce(t *testing.T) {
	d := &callbackDestination{}
	if !d.markSeen("rises", pipeline.Severity_LOW) || !d.markSeen("rises", pipeline.Severity_HIGH) || d.markSeen("rises", pipeline.Severity_LOW) ||
		d.markSeen("rises", pipeline.Severity_HIGH) {
		t.Error("a severity that rises is not handed over once")
	}
	for i := range maxSeenAlerts {
		if id := strconv.Itoa(i); !d.markSeen(id, pipeline.Severity_LOW) || d.markSeen(id, pipeline.Severity_LOW) {
			t.Fatalf("alert %d is not new once", i)
		}
	}
	if !d.markSeen("one more", pipeline.Severity_LOW) || d.markSeen("one more", pipeline.Severity_LOW) || len(d.seen) > maxSeenAlerts {
		t.Errorf("one more is not new once, or %d are held", len(d.seen))
	}
}

// TestErrorOfAConnectionIsItsCause, without the address of the destination, which may be a secret.
func TestErrorOfAConnectionIsItsCause(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	sender, err := newHTTPSender(HTTP{URL: "http://" + address + "/a/b"}, "", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := sender.postBody(t.Context(), []byte("{}"), nil); err == nil || err.Error() != "dial tcp "+address+": connect: connection refused" {
		t.Error(err)
	}
	if err := sender.withoutURL(errors.New("another error")); err.Error() != "another error" {
		t.Error(err)
	}
}

// TestDestinationsWithUnreadableSecretsAreRefused, each by its place in the configuration.
func TestDestinationsWithUnreadableSecretsAreRefused(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := HTTP{Name: "good", URL: "http://127.0.0.1:1"}
	with := func(change func(h *HTTP)) HTTP {
		bad := HTTP{Name: "bad", URL: "http://127.0.0.1:1"}
		change(&bad)
		return bad
	}
	for key, change := range map[string]func(h *HTTP){
		"password_file": func(h *HTTP) { h.Username, h.PasswordFile = "u", empty },
		"token_file":    func(h *HTTP) { h.TokenFile = empty },
		"tls.ca_file":   func(h *HTTP) { h.TLS.CAFile = empty },
	} {
		for kind, cfg := range map[string]Config{
			"alertmanager": {Alertmanager: []Alertmanager{{HTTP: good}, {HTTP: with(change)}}},
			"webhooks":     {Webhooks: []Webhook{{HTTP: good}, {HTTP: with(change)}}},
		} {
			whole := Default()
			whole.Alertmanager, whole.Webhooks = cfg.Alertmanager, cfg.Webhooks
			_, err := NewPublisher(whole, nil, nil, discardLog, nil)
			if want := "alerts." + kind + "[1]." + key + ": "; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
	whole := Default()
	whole.Webhooks = []Webhook{{HTTP: good, SecretFile: empty}}
	if _, err := NewPublisher(whole, nil, nil, discardLog, nil); err == nil || !strings.HasPrefix(err.Error(), "alerts.webhooks[0].secret_file: ") {
		t.Error(err)
	}
}
