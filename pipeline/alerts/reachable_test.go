package alerts

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/kafka"
)

// TestDestinationsAreCheckedWithoutAnAlert: Alertmanager has to be ready. A receiver of webhooks may refuse HEAD, but not
// the credentials; an answer of 5xx, or a redirect, which is not followed, would meet each alert as well.
func TestDestinationsAreCheckedWithoutAnAlert(t *testing.T) {
	code := 0
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		got = append(got, fmt.Sprintf("%s %s %s %s:%s", r.Method, r.URL.Path, r.Header.Get("X-Team"), user, password))
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(code)
	}))
	defer server.Close()
	cfg := Default()
	cfg.Timeout = time.Minute
	endpoint := HTTP{Name: "am", URL: server.URL + "/base/", Headers: map[string]string{"X-Team": "blue"}, Username: "u", Password: "secret"}
	cfg.Alertmanager = []Alertmanager{{HTTP: endpoint}}
	endpoint.Name, endpoint.URL, endpoint.Username = "hook", server.URL+"/hook", ""
	cfg.Webhooks = []Webhook{{HTTP: endpoint}}

	for _, c := range []struct {
		code             int
		manager, webhook bool
	}{
		{200, true, true},
		{204, true, true},
		{302, false, false},
		{401, false, false},
		{403, false, false},
		{404, false, true},
		{405, false, true},
		{500, false, false},
		{503, false, false},
	} {
		code, got = c.code, nil
		list := CheckDestinations(t.Context(), cfg)
		if len(list) != 2 || list[0].Name != "am" || list[1].Name != "hook" ||
			(list[0].Err == nil) != c.manager || (list[1].Err == nil) != c.webhook {
			t.Errorf("%d: %+v", c.code, list)
			continue
		}
		answer := fmt.Sprintf("with %d %s", c.code, http.StatusText(c.code))
		if list[0].Detail != "answers GET /-/ready "+answer || list[1].Detail != "answers HEAD "+answer {
			t.Errorf("%d: %q and %q", c.code, list[0].Detail, list[1].Detail)
		}
		if !slices.Equal(got, []string{"GET /base/-/ready blue u:secret", "HEAD /hook blue :"}) {
			t.Errorf("the requests are %q", got)
		}
	}

	// What cannot be read, or not be reached.
	code = 200
	missing := t.TempDir() + "/missing"
	cfg.Alertmanager[0].TokenFile = missing
	cfg.Webhooks[0].SecretFile = missing
	closed := httptest.NewServer(nil)
	cfg.Webhooks = append(cfg.Webhooks, Webhook{HTTP: HTTP{Name: "closed", URL: closed.URL}})
	closed.Close()
	list := CheckDestinations(t.Context(), cfg)
	for i, want := range []string{"token_file", "secret_file", "connect"} {
		if err := list[i].Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want one of %s", list[i].Name, err, want)
		}
	}

	if names := cfg.DestinationNames(); !slices.Equal(names, []string{"am", "hook", "closed"}) {
		t.Errorf("the destinations are %q", names)
	}
	if name := GroupName(kafka.Config{TopicPrefix: "tg"}, "hook"); name != "tg-alerts-hook" {
		t.Errorf("the group is %q", name)
	}
}
