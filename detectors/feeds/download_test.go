package feeds

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
	set, _, err := Load(s.Context(), []Config{s.cfg})
	if err != nil || set.Len() != indicators {
		s.Errorf("%v; %d indicators, want %d", err, set.Len(), indicators)
	}
	files, _ := os.ReadDir(filepath.Dir(s.cfg.Path))
	for _, file := range files {
		if name := file.Name(); name != "f.feed" && name != "f.feed.state" {
			s.Errorf("%s is left over", name)
		}
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
	check("another scheme than http", func(w http.ResponseWriter, r *http.Request) {
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

// zip compresses a text with gzip.
func zip(text string) []byte {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	_, _ = writer.Write([]byte(text))
	_ = writer.Close()
	return out.Bytes()
}

// TestUnpackedSizeOfADownloadIsBounded: a few kilobytes that decompress to more than max_unpacked_size do not replace the file.
func TestUnpackedSizeOfADownloadIsBounded(t *testing.T) {
	s := newFeedServer(t)
	s.cfg.MaxUnpackedSize = config.MiB
	s.handler = serve(string(zip(names("a", 20))))
	s.update("", 20)
	bomb := zip(strings.Repeat("\n", 1<<20) + names("b", 30))
	if len(bomb) > 10_000 {
		t.Fatalf("%d bytes", len(bomb))
	}
	s.handler = serve(string(bomb))
	s.update("more than 1048576 bytes, decompressed", 20)
	s.cfg.MaxUnpackedSize = 0
	s.update("", 30)
}

// TestReadingEndsWithItsContext: of a file and of a folder, compressed or not.
func TestReadingEndsWithItsContext(t *testing.T) {
	text := names("a", 20)
	for _, path := range []string{write(t, "f.txt", text), write(t, "f.gz", string(zip(text))), filepath.Dir(write(t, "g.json", `[{"ip":"203.0.113.9"}]`))} {
		ctx, cancel := context.WithCancel(t.Context())
		if set, _, err := Load(ctx, []Config{{Name: "f", Path: path}}); err != nil || set.Len() == 0 {
			t.Fatal(path, err)
		}
		cancel()
		if _, _, err := Load(ctx, []Config{{Name: "f", Path: path}}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestFileThatIsNotThatOfTheStateIsDownloadedAgain: as after two engines wrote file and state in turns, or after a kill between
// the two.
func TestFileThatIsNotThatOfTheStateIsDownloadedAgain(t *testing.T) {
	s := newFeedServer(t)
	s.handler = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == `"v1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"v1"`)
		_, _ = w.Write([]byte(names("a", 20)))
	}
	s.update("", 20)
	for _, other := range []string{names("b", 20), names("a", 21), "", names("a", 20)[:100]} {
		if err := os.WriteFile(s.cfg.Path, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		s.update("", 20)
		if text, err := os.ReadFile(s.cfg.Path); err != nil || string(text) != names("a", 20) {
			t.Errorf("after %.20q: the file has %.20q, %v", other, text, err)
		}
	}
	requests := len(s.requests)
	s.update("", 20)
	if got := s.requests[requests].Header.Get("If-None-Match"); got != `"v1"` {
		t.Errorf("the file that is right is asked for with %q", got)
	}
}

// TestTwoEnginesDownloadToOneFolder: whoever is last, the file is one that the server has sent, whole, and the next download
// brings file and state together.
func TestTwoEnginesDownloadToOneFolder(t *testing.T) {
	var version atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tag := r.URL.Path
		if r.URL.Path == "/changing" {
			tag = fmt.Sprint(version.Add(1) % 3)
		}
		w.Header().Set("ETag", `"`+tag+`"`)
		if r.Header.Get("If-None-Match") == `"`+tag+`"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write([]byte(names("v"+tag+"x", 1000)))
	}))
	defer server.Close()
	cfg := Config{Name: "f", URL: server.URL + "/changing", Path: filepath.Join(t.TempDir(), "f.feed")}
	var engines sync.WaitGroup
	for range 2 {
		engines.Go(func() {
			one := &download{cfg: cfg, log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry())}
			for range 30 {
				if err := one.update(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	engines.Wait()
	text, err := os.ReadFile(cfg.Path)
	if got := string(text); err != nil || got != names("v0x", 1000) && got != names("v1x", 1000) && got != names("v2x", 1000) {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
	last := &download{cfg: cfg, log: slog.New(slog.DiscardHandler), metrics: NewMetrics(prometheus.NewRegistry())}
	state := last.readState()
	_, hash, err := hashFile(cfg.Path)
	if err != nil || state.ETag != "" && state.SHA256 != hash {
		t.Errorf("the state %+v is used for a file with the hash %s, %v", state, hash, err)
	}
	if state.ETag != "" && names("v"+strings.Trim(state.ETag, `"`)+"x", 1000) != string(text) {
		t.Errorf("the file is not that of %s", state.ETag)
	}
}

// TestPartsOfKilledProcessesAreRemoved: those that nobody can be writing any more.
func TestPartsOfKilledProcessesAreRemoved(t *testing.T) {
	d := download{cfg: Config{Name: "f", Path: filepath.Join(t.TempDir(), "f.feed")}}
	dir := filepath.Dir(d.cfg.Path)
	for _, name := range []string{".f.feed.part-old", ".f.feed.part-new", ".g.feed.part-old"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "old") {
			at := time.Now().Add(-time.Hour)
			if err := os.Chtimes(filepath.Join(dir, name), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.removeParts()
	files, _ := os.ReadDir(dir)
	if len(files) != 2 || files[0].Name() != ".f.feed.part-new" || files[1].Name() != ".g.feed.part-old" {
		t.Errorf("%v are left", files)
	}
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
	check(func(c *Config) { c.MaxUnpackedSize = maxFeedBytes + 1 }, "max_unpacked_size")
	check(func(c *Config) { c.URL, c.Path, c.Interval = "", os.TempDir(), time.Hour }, "url")
	check(func(c *Config) { c.URL, c.Path, c.MaxUnpackedSize = "", os.TempDir(), config.MiB }, "url")
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
	set, err := w.reload(t.Context())
	if err != nil || set.Len() != 20 {
		t.Errorf("%d indicators: %v", set.Len(), err)
	}
}
