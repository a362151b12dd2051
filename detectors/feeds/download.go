package feeds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tidegate/detectors/watch"
)

const (
	defaultInterval = time.Hour
	defaultTimeout  = 5 * time.Minute
	defaultMaxSize  = 512 << 20
	maxRedirects    = 5
	retryPause      = 5 * time.Minute // after a failure, if the interval is not shorter
)

// Download keeps the files of the feeds that have a URL up to date until ctx ends. A file is replaced by what was downloaded
// whole, can be read, and does not look like a failed update; a Watcher loads it then. Otherwise the file stays, also over a
// restart.
func Download(ctx context.Context, cfgs []Config, log *slog.Logger, metrics *Metrics) {
	var downloads sync.WaitGroup
	for _, cfg := range cfgs {
		if cfg.URL != "" {
			downloads.Go(func() { (&download{cfg: cfg, log: log, metrics: metrics}).run(ctx) })
		}
	}
	downloads.Wait()
	<-ctx.Done()
}

// A download is one feed with a URL.
type download struct {
	cfg       Config
	log       *slog.Logger
	metrics   *Metrics
	lastError string
}

// downloadState is stored beside the file of a feed.
type downloadState struct {
	URL          string    `json:"url"`
	ETag         string    `json:"etag"`
	LastModified string    `json:"last_modified"`
	Entries      int       `json:"entries"` // of the file
	Invalid      int       `json:"invalid"`
	HeldSince    time.Time `json:"held_since"` // when a download first looked like a failed update; zero: it does not
}

func (d *download) statePath() string { return d.cfg.Path + ".state" }

// run downloads the feed at its interval.
func (d *download) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := d.update(ctx)
		pause := d.cfg.interval()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.metrics.loads.WithLabelValues("error").Inc()
			if d.lastError != err.Error() {
				d.log.Error("feed not downloaded, keeping what was downloaded before", "feed", d.cfg.Name, "err", err)
			}
			d.lastError = err.Error()
			pause = min(pause, retryPause)
		default:
			d.lastError = ""
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// update downloads the feed once, if it has changed.
func (d *download) update(ctx context.Context) error {
	state := d.readState()
	part := d.cfg.Path + ".part"
	defer func() { _ = os.Remove(part) }()
	next, changed, err := d.fetch(ctx, state, part)
	switch {
	case err != nil:
		return err
	case !changed:
		d.metrics.held.WithLabelValues(d.cfg.Name).Set(0)
		if state.HeldSince.IsZero() {
			return nil
		}
		state.HeldSince = time.Time{}
		return d.writeState(state)
	}

	// What cannot be read whole, or looks like a failed update, does not replace the file.
	cfg := d.cfg
	cfg.Path, cfg.URL = part, ""
	loaded, err := readList(cfg, wholeRoom)
	if err != nil {
		return err
	}
	next.Entries, next.Invalid = loaded.index.count, loaded.skipped.Count
	content := watch.Content{Entries: next.Entries, Invalid: next.Invalid}
	if loss := content.LossFrom(watch.Content{Entries: state.Entries, Invalid: state.Invalid}); loss != "" {
		if state.HeldSince.IsZero() {
			state.HeldSince = time.Now()
			d.metrics.loads.WithLabelValues("held").Inc()
			d.log.Warn("feed held back, its download looks like a failed update; what was downloaded before stays", "feed", d.cfg.Name,
				"reason", loss, "loaded_anyway_after", d.cfg.lossGrace())
		}
		if time.Since(state.HeldSince) < d.cfg.lossGrace() {
			d.metrics.held.WithLabelValues(d.cfg.Name).Set(1)
			return d.writeState(state)
		}
		d.log.Warn("feed loaded, although its download looks like a failed update", "feed", d.cfg.Name, "reason", loss)
	}
	d.metrics.held.WithLabelValues(d.cfg.Name).Set(0)

	// The state is written last: without it the file is downloaded again.
	if err := os.Rename(part, d.cfg.Path); err != nil {
		return err
	}
	return d.writeState(next)
}

// fetch requests the feed and writes it to the file part. changed is false if the server says that it is as state has it.
func (d *download) fetch(ctx context.Context, state downloadState, part string) (next downloadState, changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.timeout())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.cfg.URL, http.NoBody)
	if err != nil {
		return next, false, errors.New("its url is not valid")
	}
	request.Header.Set("User-Agent", "tidegate")
	if state.ETag != "" {
		request.Header.Set("If-None-Match", state.ETag)
	}
	if state.LastModified != "" {
		request.Header.Set("If-Modified-Since", state.LastModified)
	}
	client, err := d.client()
	if err != nil {
		return next, false, err
	}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return next, false, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode == http.StatusNotModified && state.ETag+state.LastModified != "":
		return state, false, nil
	case response.StatusCode != http.StatusOK:
		return next, false, fmt.Errorf("the server answers %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	case media == "text/html":
		return next, false, errors.New("the server answers a web page")
	}

	if err := os.MkdirAll(filepath.Dir(part), 0o750); err != nil {
		return next, false, err
	}
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return next, false, err
	}
	defer func() { _ = file.Close() }()
	size, err := io.Copy(file, io.LimitReader(response.Body, d.cfg.maxSize()+1))
	switch {
	case err != nil:
		return next, false, fmt.Errorf("after %d bytes: %w", size, withoutURL(err))
	case size > d.cfg.maxSize():
		return next, false, fmt.Errorf("it has more than %d bytes, see max_size", d.cfg.maxSize())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return next, false, err
	}
	return downloadState{
		URL: d.cfg.URL, ETag: response.Header.Get("ETag"), LastModified: response.Header.Get("Last-Modified"),
	}, true, nil
}

// client returns an HTTP client with the settings of the feed.
func (d *download) client() (*http.Client, error) {
	settings, err := d.cfg.TLS.Load()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10}
	return &http.Client{Transport: transport, CheckRedirect: func(request *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return fmt.Errorf("more than %d redirects", maxRedirects)
		case via[0].URL.Scheme == "https" && request.URL.Scheme != "https":
			return errors.New("a redirect from https to http")
		}
		return nil
	}}, nil
}

// withoutURL returns the cause of an error of an HTTP client. A URL may hold a key, which must not be logged.
func withoutURL(err error) error {
	if withURL, ok := errors.AsType[*url.Error](err); ok {
		return withURL.Err
	}
	return err
}

// readState returns the state of the file, or none if there is no such file or it is that of another URL.
func (d *download) readState() (state downloadState) {
	text, err := os.ReadFile(d.statePath())
	if err != nil || json.Unmarshal(text, &state) != nil || state.URL != d.cfg.URL {
		return downloadState{URL: d.cfg.URL}
	}
	if _, err := os.Stat(d.cfg.Path); err != nil {
		return downloadState{URL: d.cfg.URL, HeldSince: state.HeldSince}
	}
	return state
}

// writeState replaces the state of the file.
func (d *download) writeState(state downloadState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	temporary := d.statePath() + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, d.statePath())
}
