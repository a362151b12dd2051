package feeds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tidegate/detectors/watch"
	"tidegate/pipeline/config"
	"tidegate/pipeline/statedir"
)

const (
	defaultInterval = time.Hour
	defaultTimeout  = 5 * time.Minute
	defaultMaxSize  = 512 << 20

	// Twenty million indicators with short notes have this size. A list of text is a third of it compressed; zeros a thousandth.
	defaultMaxUnpacked = 1 << 30

	retryPause = 5 * time.Minute // after a failure, if the interval is not shorter
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

	// networkOf returns what an address is if it is none of the Internet; nil: specialNetwork.
	networkOf func(netip.Addr) string
}

// downloadState is stored beside the file of a feed.
type downloadState struct {
	URL          string    `json:"url"`
	ETag         string    `json:"etag"`
	LastModified string    `json:"last_modified"`
	Size         int64     `json:"size"`    // of the file
	SHA256       string    `json:"sha256"`  // of the file, in hex
	Entries      int       `json:"entries"` // of the file
	Invalid      int       `json:"invalid"`
	HeldSince    time.Time `json:"held_since"` // when a download first looked like a failed update; zero: it does not
	LastGood     time.Time `json:"last_good"`  // when the server was last asked and the file was what it has
}

func (d *download) statePath() string { return d.cfg.Path + ".state" }

// run downloads the feed at its interval.
func (d *download) run(ctx context.Context) {
	d.removeParts()
	if state := d.readState(); !state.LastGood.IsZero() {
		d.metrics.lastGoodLoad.WithLabelValues(d.cfg.Name).Set(float64(state.LastGood.Unix()))
	}
	for ctx.Err() == nil {
		err := d.update(ctx)
		pause := d.cfg.interval()
		d.metrics.setLoadTime(d.cfg.Name, false)
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

// update downloads the feed once, if it has changed. The time of a download bounds reading it too, since few bytes may
// decompress to many.
func (d *download) update(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.timeout())
	defer cancel()
	state := d.readState()
	next, part, err := d.fetch(ctx, state)
	defer func() { _ = os.Remove(part) }()
	switch {
	case err != nil:
		return err
	case part == "":
		return d.writeGoodState(state)
	}

	// What cannot be read whole, or looks like a failed update, does not replace the file.
	cfg := d.cfg
	cfg.Path = part
	loaded, err := readList(ctx, cfg, wholeRoom)
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

	// The state is written last. Whatever happens between the two, or if another engine writes both meanwhile, a state that
	// is not that of the file is seen, and the file downloaded again.
	if err := os.Rename(part, d.cfg.Path); err != nil {
		return err
	}
	return d.writeGoodState(next)
}

// writeGoodState writes the state of a download that succeeded: the file is what the server has now.
func (d *download) writeGoodState(state downloadState) error {
	state.HeldSince, state.LastGood = time.Time{}, time.Now().UTC()
	d.metrics.held.WithLabelValues(d.cfg.Name).Set(0)
	d.metrics.setLoadTime(d.cfg.Name, true)
	return d.writeState(state)
}

// fetch requests the feed and writes it to a temporary file beside that of the feed, which the caller removes. part is its path,
// or "" if there is none: after an error, or if the server says that the feed is as state has it.
func (d *download) fetch(ctx context.Context, state downloadState) (next downloadState, part string, err error) {
	header := http.Header{"User-Agent": {"tidegate"}}
	if state.ETag != "" {
		header.Set("If-None-Match", state.ETag)
	}
	if state.LastModified != "" {
		header.Set("If-Modified-Since", state.LastModified)
	}
	response, err := d.request(ctx, header)
	if err != nil {
		return next, "", err
	}
	defer func() { _ = response.Body.Close() }()
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	switch {
	case response.StatusCode == http.StatusNotModified && state.ETag+state.LastModified != "":
		return state, "", nil
	case response.StatusCode != http.StatusOK:
		return next, "", fmt.Errorf("the server answers %d %s", response.StatusCode, http.StatusText(response.StatusCode))
	case media == "text/html":
		return next, "", errors.New("the server answers a web page")
	}

	next = downloadState{URL: d.cfg.URL, ETag: response.Header.Get("ETag"), LastModified: response.Header.Get("Last-Modified")}
	part, next.Size, next.SHA256, err = d.writePart(response.Body)
	return next, part, err
}

// writePart writes what a server answers to a temporary file, and returns its path, its size and its hash.
func (d *download) writePart(body io.Reader) (part string, size int64, hash string, err error) {
	if err := os.MkdirAll(filepath.Dir(d.cfg.Path), 0o750); err != nil {
		return "", 0, "", err
	}
	file, err := os.CreateTemp(filepath.Dir(d.cfg.Path), d.partPrefix()+"*")
	if err != nil {
		return "", 0, "", err
	}
	sum := sha256.New()
	size, err = io.Copy(io.MultiWriter(file, sum), io.LimitReader(body, d.cfg.maxSize()+1))
	switch {
	case err != nil:
		err = fmt.Errorf("after %d bytes: %w", size, withoutURL(err))
	case size > d.cfg.maxSize():
		err = fmt.Errorf("it has more than %d bytes, see max_size", d.cfg.maxSize())
	default:
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(file.Name())
		return "", 0, "", err
	}
	return file.Name(), size, hex.EncodeToString(sum.Sum(nil)), nil
}

// partPrefix begins the names of temporary files. With its dot they are no files of a feed that is the folder.
func (d *download) partPrefix() string { return "." + filepath.Base(d.cfg.Path) + ".part-" }

// removeParts removes the temporary files of processes that were killed. One that may still be written is younger than
// the time of a download.
func (d *download) removeParts() {
	dir := filepath.Dir(d.cfg.Path)
	files, _ := os.ReadDir(dir)
	for _, file := range files {
		info, err := file.Info()
		if err == nil && strings.HasPrefix(file.Name(), d.partPrefix()) && time.Since(info.ModTime()) > 2*d.cfg.timeout() {
			_ = os.Remove(filepath.Join(dir, file.Name()))
		}
	}
}

// readState returns the state of the file, or none if there is no such file or it is that of another URL. If the file is
// another one than that of the state, the server is asked for all of it.
func (d *download) readState() (state downloadState) {
	text, err := os.ReadFile(d.statePath())
	if err != nil || json.Unmarshal(text, &state) != nil || state.URL != d.cfg.URL {
		return downloadState{URL: d.cfg.URL}
	}
	size, hash, err := hashFile(d.cfg.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return downloadState{URL: d.cfg.URL, HeldSince: state.HeldSince}
	case err != nil, size != state.Size, hash != state.SHA256:
		state.ETag, state.LastModified = "", ""
	}
	return state
}

// hashFile returns the size of a file and its SHA-256 in hex.
func hashFile(path string) (size int64, hash string, err error) {
	file, err := config.OpenRegular(path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = file.Close() }()
	sum := sha256.New()
	size, err = io.Copy(sum, file)
	return size, hex.EncodeToString(sum.Sum(nil)), err
}

// writeState replaces the state of the file.
func (d *download) writeState(state downloadState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	return statedir.WriteFile(d.statePath(), text, 0o600)
}
