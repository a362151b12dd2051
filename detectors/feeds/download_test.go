package feeds

import (
	"bytes"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/config"
)

// A feedServer serves a feed as its handler says.
type feedServer struct {
	*testing.T
	handler  http.HandlerFunc
	cfg      Config
	log      bytes.Buffer
	requests []*http.Request
}

func newFeedServer(t *testing.T) *feedServer {
	s := &feedServer{T: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests = append(s.requests, r)
		s.handler(w, r)
	}))
	t.Cleanup(server.Close)
	s.cfg = Config{Name: "f", URL: server.URL + "/list?key=secret", Path: filepath.Join(t.TempDir(), "state", "f.feed")}
	return s
}

// update downloads once, as a process that has just started, and checks the error and the indicators of the file.
func (s *feedServer) update(wantErr string, indicators int) {
	s.Helper()
	log := slog.New(slog.NewTextHandler(&s.log, nil))
	err := (&download{cfg: s.cfg, log: log, metrics: NewMetrics(prometheus.NewRegistry())}).update(s.Context())
	if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
		s.Errorf("error %v, want %q", err, wantErr)
	}
	if err != nil && strings.Contains(err.Error(), "secret") {
		s.Errorf("the error has the key of the URL: %v", err)
	}
	set, _, err := Load([]Config{s.cfg})
	if err != nil || set.Len() != indicators {
		s.Errorf("%v; %d indicators, want %d", err, set.Len(), indicators)
	}
	if _, err := os.Stat(s.cfg.Path + ".part"); err == nil {
		s.Error("a part of a download is left over")
	}
}

func serve(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

// TestDownloadAsksForChangesOnly: by ETag and time, also after a restart; not if the file is gone or the URL is another.
func TestDownloadAsksForChangesOnly(t *testing.T) {
	s := newFeedServer(t)
	const modified = "Fri, 20 Nov 2026 10:00:00 GMT"
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"v1"` && r.Header.Get("If-Modified-Since") == modified {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", modified)
		_, _ = w.Write([]byte(names("a", 20)))
	}
	s.update("", 20)
	s.update("", 20)
	if got := s.requests[1].Header.Get("If-None-Match"); got != `"v1"` {
		t.Errorf("If-None-Match is %q", got)
	}
	if err := os.Remove(s.cfg.Path); err != nil {
		t.Fatal(err)
	}
	s.update("", 20)
	s.cfg.URL += "2"
	s.update("", 20)
	if got := s.requests[3].Header.Get("If-None-Match"); got != "" {
		t.Errorf("another URL is asked with %q", got)
	}
}

// TestFailedDownloadKeepsTheFile: whatever the server answers, what was downloaded before stays, also over a restart.
func TestFailedDownloadKeepsTheFile(t *testing.T) {
	s := newFeedServer(t)
	s.handler = serve(names("a", 20))
	s.update("", 20)
	check := func(wantErr string, handler http.HandlerFunc) {
		t.Helper()
		s.handler = handler
		s.update(wantErr, 20)
	}
	check("404 Not Found", http.NotFound)
	check("304", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	check("206", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) })
	check("web page", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(errorPage))
	})
	check("unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write([]byte(names("b", 100)))
	})
	check("unexpected EOF", serve(`{"objects": [{"type": "indicator", `))
	check("5 redirects", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/list?key=secret", http.StatusFound)
	})
	check("unsupported protocol scheme", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	s.cfg.MaxSize = 1000
	check("more than 1000 bytes", serve(names("b", 1000)))
	s.cfg.MaxSize = 0
	s.cfg.Timeout = 200 * time.Millisecond
	check("deadline exceeded", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(names("b", 10)))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	s.cfg.Timeout = 0
	check("", serve(names("b", 10)[:40])) // held back
	s.handler = serve(names("c", 30))
	s.update("", 30)
	s.cfg.URL = "http://127.0.0.1:1/?key=secret"
	s.update("connection refused", 30)
}

// TestShortDownloadIsHeldBackForItsGrace: also over restarts, and no longer.
func TestShortDownloadIsHeldBackForItsGrace(t *testing.T) {
	s := newFeedServer(t)
	s.handler = serve(names("a", 20))
	s.update("", 20)
	s.handler = serve(names("a", 5))
	s.update("", 20)
	if strings.Count(s.log.String(), "feed held back") != 1 || strings.Contains(s.log.String(), "secret") {
		t.Errorf("log %s", s.log.String())
	}
	s.update("", 20)
	d := download{cfg: s.cfg}
	state := d.readState()
	state.HeldSince = state.HeldSince.Add(-s.cfg.lossGrace())
	if err := d.writeState(state); err != nil {
		t.Fatal(err)
	}
	s.update("", 5)
	s.handler = serve(errorPage)
	s.update("web page", 5)
	s.handler = serve(names("a", 6))
	s.update("", 6)
}

// TestDownloadFollowsRedirectsAndChecksCertificates: a server of an unknown authority is refused.
func TestDownloadFollowsRedirectsAndChecksCertificates(t *testing.T) {
	s := newFeedServer(t)
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/moved" {
			http.Redirect(w, r, "/moved", http.StatusMovedPermanently)
			return
		}
		_, _ = w.Write([]byte(names("a", 3)))
	}
	s.update("", 3)
	plain := s.cfg.URL

	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/down" {
			http.Redirect(w, r, plain, http.StatusFound)
			return
		}
		_, _ = w.Write([]byte(names("b", 4)))
	}))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.cfg.URL = server.URL
	s.update("certificate", 3)
	ca := write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	s.cfg.TLS = config.TLS{CAFile: ca}
	s.update("", 4)
	s.cfg.URL += "/down"
	s.update("redirect from https to http", 4)
}

// TestCheckOfADownload: each value outside of its range has a problem.
func TestCheckOfADownload(t *testing.T) {
	check := func(change func(*Config), want string) {
		t.Helper()
		cfg := Config{Name: "f", URL: "https://feeds.example/x", Path: "/nonexistent/f"}
		change(&cfg)
		var keys []string
		for _, problem := range cfg.Check() {
			keys = append(keys, problem.Key)
		}
		if got := strings.Join(keys, " "); got != want {
			t.Errorf("problems of %q, want %q", got, want)
		}
	}
	check(func(*Config) {}, "")
	check(func(c *Config) { c.Interval, c.Timeout, c.MaxSize = time.Minute, time.Hour, config.MiB }, "")
	for _, address := range []string{"ftp://feeds.example/x", "feeds.example", "http://", "http://a b/", "file:///x"} {
		check(func(c *Config) { c.URL = address }, "url")
	}
	check(func(c *Config) { c.Interval = time.Second }, "interval")
	check(func(c *Config) { c.Timeout = 2 * time.Hour }, "timeout")
	check(func(c *Config) { c.MaxSize = -1 }, "max_size")
	check(func(c *Config) { c.URL, c.Path, c.Interval = "", os.TempDir(), time.Hour }, "url")
}

// TestWatcherLoadsADownload: a feed without a file is empty at the start, and loaded when it has been downloaded.
func TestWatcherLoadsADownload(t *testing.T) {
	s := newFeedServer(t)
	log, metrics := slog.New(slog.DiscardHandler), NewMetrics(prometheus.NewRegistry())
	first, err := LoadAndLog([]Config{s.cfg}, log, metrics)
	if err != nil || first.Len() != 0 {
		t.Fatal(first, err)
	}
	s.handler = serve(names("a", 20))
	s.update("", 20)
	w := Watcher{Feeds: []Config{s.cfg}, Current: first, OnChange: func(*Set) {}, Log: log, Metrics: metrics, errors: map[string]string{}}
	set, err := w.reload()
	if err != nil || set.Len() != 20 {
		t.Errorf("%d indicators: %v", set.Len(), err)
	}
}
