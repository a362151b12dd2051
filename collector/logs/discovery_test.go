package logs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/containers"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A fakeDiscoverer lists what it holds.
type fakeDiscoverer struct {
	folders []string
	logs    []discover.Log
	err     error
}

func (d *fakeDiscoverer) Folders() []string             { return d.folders }
func (d *fakeDiscoverer) List() ([]discover.Log, error) { return d.logs, d.err }

// TestListIsCompleteWhenEveryPartIs, and when the registry has listed its log files.
func TestListIsCompleteWhenEveryPartIs(t *testing.T) {
	one, two := discover.TextLog("/x", "one.log"), discover.TextLog("/y", "two.log")
	check := func(what string, registry Containers, firstErr, secondErr error, want bool) {
		t.Helper()
		source := New(Default(), registry, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
		first := &fakeDiscoverer{folders: []string{"/x"}, logs: []discover.Log{one}, err: firstErr}
		second := &fakeDiscoverer{folders: []string{"/y", "/z"}, logs: []discover.Log{two}, err: secondErr}
		source.discovery.discoverers = []discoverer{first, second}
		logs, complete := source.discovery.List()
		if len(logs) != 2 || logs[0].ID != one.ID || logs[1].ID != two.ID || complete != want {
			t.Errorf("%s: %d logs, complete %t", what, len(logs), complete)
		}
		if folders := source.discovery.Folders(); !slices.Equal(folders, []string{"/x", "/y", "/z"}) {
			t.Errorf("folders %q", folders)
		}
	}
	failure := errors.New("failed")
	check("no registry", nil, nil, nil, true)
	check("first failed", nil, failure, nil, false)
	check("second failed", nil, nil, failure, false)
	empty, filled := newRegistry(), newRegistry()
	filled.logs = []containers.LogFile{{ContainerID: "a"}}
	check("registry without logs", empty, nil, nil, false)
	check("registry with logs", filled, nil, nil, true)
	check("disabled registry", disabledRegistry{empty}, nil, nil, true)
}

// TestFailingListingIsLoggedOnce, and its end. A folder that is absent may be expected.
func TestFailingListingIsLoggedOnce(t *testing.T) {
	var logged bytes.Buffer
	source := New(Default(), nil, pipeline.ID{1}, slog.New(slog.NewTextHandler(&logged, nil)), nil)
	part := &fakeDiscoverer{folders: []string{"/x"}}
	check := func(what string, err error, lines ...string) {
		t.Helper()
		logged.Reset()
		part.err = err
		for range 2 {
			source.discovery.List()
		}
		if got := strings.Count(logged.String(), "\n"); got != len(lines) {
			t.Errorf("%s: %d lines: %s", what, got, &logged)
		}
		for _, line := range lines {
			if !strings.Contains(logged.String(), line) {
				t.Errorf("%s: %s, want %s", what, &logged, line)
			}
		}
	}
	source.discovery.discoverers = []discoverer{part}
	check("no error", nil)
	check("an error", fs.ErrPermission, `level=WARN msg="logs cannot be listed, retrying every second" err="permission denied"`)
	check("its end", nil, `level=INFO msg="logs are listed again" folders=[/x]`)
	check("absent", fs.ErrNotExist, "level=WARN")
	check("its end", nil, "listed again")
	source.QuietIfAbsent = true
	check("absent, as expected", fs.ErrNotExist, "level=INFO")
	check("its end", nil, "listed again")
	check("another error", fs.ErrPermission, "level=WARN")
}

// TestTextLogsOfContainersAreLeftOut: those in Docker's folder, and those that are the log of a listed container.
func TestTextLogsOfContainersAreLeftOut(t *testing.T) {
	cfg := Default()
	cfg.DockerDataRoot = "/docker"
	container := discover.DockerLog("abc", "/elsewhere", "abc-json.log")
	other := discover.DockerLog("def", "/elsewhere", "custom.log")
	logs := []discover.Log{
		container, other, discover.TextLog("/var/log", "a.log"), discover.TextLog("/docker/containers/xyz", "xyz-json.log"),
		discover.TextLog("/link", "abc-json.log"), discover.TextLog("/elsewhere", "custom.log"), discover.TextLog("/docker/other", "b.log"),
		discover.TextLog("/docker", "containers"),
	}
	left := func(files []string) (ids []string) {
		cfg.Files = files
		source := New(cfg, nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
		for _, log := range source.discovery.withoutContainers(slices.Clone(logs)) {
			ids = append(ids, log.ID)
		}
		return ids
	}
	if got := left(nil); len(got) != len(logs) {
		t.Errorf("without patterns: %q", got)
	}
	want := []string{"abc", "def", "/var/log/a.log", "/docker/other/b.log", "/docker/containers"}
	if got := left([]string{"/var/log/*.log"}); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	cfg.Files = nil
	if parts := len(New(cfg, nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil).discovery.discoverers); parts != 1 {
		t.Errorf("%d discoverers without patterns", parts)
	}
}

// TestHostHasNoStatus: neither a container nor a registry.
func TestHostHasNoStatus(t *testing.T) {
	registry := newRegistry()
	registry.set("", "host", containers.Status{Excluded: true})
	registry.set("a", "web", containers.Status{Known: true})
	source := New(Default(), registry, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	if got := source.status(""); got != (containers.Status{}) {
		t.Errorf("host: %+v", got)
	}
	if got := source.status("a"); !got.Known {
		t.Errorf("container: %+v", got)
	}
	source.registry = nil
	if got := source.status("a"); got.Known || source.discovery.filesOfContainers() != nil {
		t.Errorf("without a registry: %+v", got)
	}
}

// TestReadingIsConfigured: the limits of the configuration, and the time of the start.
func TestReadingIsConfigured(t *testing.T) {
	cfg := Default()
	if cfg.MaxLineBytes != 256<<10 || cfg.BufferBytes != 16<<20 || cfg.PartialTimeout != time.Minute || cfg.StartAt != "beginning" || !cfg.Enabled ||
		!cfg.Redact || cfg.DockerDataRoot != "/var/lib/docker" || cfg.MaxOpenFiles != 0 || cfg.DrainTimeout < time.Second {
		t.Errorf("default %+v", cfg)
	}
	cfg.MaxOpenFiles = 7
	got := cfg.tail()
	if got.LineMax != 256<<10 || got.Memory != 16<<20 || got.PartialTimeout != time.Minute || got.MaxOpen != 7 || got.DrainTimeout != cfg.DrainTimeout ||
		got.NotBefore != 0 {
		t.Errorf("%+v", got)
	}
	cfg.StartAt = "end"
	if since := time.Since(time.Unix(0, cfg.tail().NotBefore)); since < 0 || since > time.Minute {
		t.Errorf("without a state the start is %s ago", since)
	}
	cfg.NotBefore = time.Unix(5, 6)
	if got := cfg.tail().NotBefore; got != 5e9+6 {
		t.Errorf("the start is %d", got)
	}

	check := func(what string, want int, change func(*Config)) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		if problems := cfg.Check(); len(problems) != want {
			t.Errorf("%s: %v", what, problems)
		}
	}
	check("least line", 0, func(c *Config) { c.MaxLineBytes = config.KiB })
	check("shorter line", 1, func(c *Config) { c.MaxLineBytes = config.KiB - 1 })
	check("longest line", 0, func(c *Config) { c.MaxLineBytes = 16 * config.MiB })
	check("longer line", 1, func(c *Config) { c.MaxLineBytes = 16*config.MiB + 1 })
	check("least memory", 0, func(c *Config) { c.BufferBytes = 4 * config.MiB })
	check("less memory", 1, func(c *Config) { c.BufferBytes = 4*config.MiB - 1 })
	check("files", 1, func(c *Config) { c.MaxOpenFiles = -1 })
	check("timeout", 1, func(c *Config) { c.PartialTimeout = time.Second - 1 })
	check("start", 1, func(c *Config) { c.StartAt = "middle" })
	check("root", 1, func(c *Config) { c.DockerDataRoot = "" })
}

// TestNameOfAFileIsThatOfItsContainer where it has Docker's form, compressed or not; nothing else is kept of a file that is read
// by itself.
func TestNameOfAFileIsThatOfItsContainer(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, want := range map[string]string{"abc-json.log": "abc", "abc.log": "", "./abc-json.log": "abc"} {
		if err := os.WriteFile(filepath.Base(name), []byte("one\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var events []*pipeline.Event
		cfg := Default()
		cfg.StartAt = "end" // what is given is read, however old it is
		if err := ReadFile(t.Context(), cfg, name, decode.Text, pipeline.ID{1}, func(e *pipeline.Event) { events = append(events, e) }); err != nil {
			t.Fatal(err)
		}
		if len(events) != 1 || events[0].Container.GetId() != want || events[0].Log.Message != "one" || events[0].Log.Path != filepath.Base(name) {
			t.Errorf("%s: %v", name, events)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	ship := callbackShipper{func(*pipeline.Event) { cancel() }}
	if err := ship.Ship(ended, &pipeline.Event{}, collector.Checkpoint{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended Ship: %v", err)
	}
	if _, ok := ship.Resume(); ok || ship.Packets("") != nil || ship.Wait(ended, nil, collector.Checkpoint{}) != nil {
		t.Error("the shipper of a file has a checkpoint, or waits")
	}
}

// TestLevelsInJSONAreBounded: objects as deep as 63 are read, and cut ones as far as they go.
func TestLevelsInJSONAreBounded(t *testing.T) {
	deep := func(depth int) string {
		return `{"log":{"level":"warn"},"x":` + strings.Repeat("[", depth-1) + strings.Repeat("]", depth-1) + `,"level":"error"}`
	}
	checkLevel(t, deep(2), "error")
	checkLevel(t, deep(63), "error")
	checkLevel(t, deep(64), "warn")
	checkLevel(t, `{"log":{"level":"warn"},"x":"`, "warn")
	checkLevel(t, `{"a":{"level":"warn"}}`, "")
	checkLevel(t, `{"log":[{"level":"warn"}]}`, "")
	checkLevel(t, `{"a":["level","warn"]}`, "")
	checkLevel(t, `{"level":{},"severity":"error"}`, "error")
	checkLevel(t, `{"a":"level","b":"warn"}`, "")
	checkLevel(t, `{"a":1}{"level":"error"}`, "")
	for text, want := range map[string]int{
		`""`: 2, `"a"b`: 3, `"a\"b"c`: 6, `"a\\"b`: 5, `"\\\""`: 6, `"ab`: 3, `"a\"`: 4, `"`: 1, `"\"`: 3,
	} {
		if got := stringLength([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestSequencesOfColoursAreLeftOut, and no others.
func TestSequencesOfColoursAreLeftOut(t *testing.T) {
	check := func(data string, want int) {
		t.Helper()
		if got := colourLength([]byte(data)); got != want {
			t.Errorf("%q: %d, want %d", data, got, want)
		}
	}
	check("\x1b[m", 3)
	check("\x1b[K", 3)
	check("\x1b[0;31:5mx", 9)
	check("\x1b[", 0)
	check("\x1b[2J", 0)
	check("\x1b[/m", 0)
	check("\x1b[<m", 0)
	check("\x1b(B", 3)
	check("\x1b+0", 3)
	check("\x1b,0", 0)
	check("\x1b'0", 0)
	check("\x1b(/", 0)
	check("\x1b(~", 3)
	check("\x1b(\x7f", 0)
	check("\u009b1m", 4)
	check("\x1b["+strings.Repeat("1", 61)+"m", 64)
	check("\x1b["+strings.Repeat("1", 62)+"m", 0)
	for text, want := range map[string]int{"": -1, "a": -1, "a\x1bb": 1, "a\u009b\x1b": 1, "\x1b\u009b": 0} {
		if got := indexEscape([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	var buf []byte
	plain := func(line, want string) {
		t.Helper()
		if got := string(plainText([]byte(line), &buf)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	plain("a\r\r", "a")
	plain("\x1b[31ma\x1b[0mb\r", "ab")
	plain("a\r\x1b[0m", "a")
	plain("a\x1b[2Jb", "a\x1b[2Jb")
	if cap(buf) == 0 {
		t.Error("the buffer is not kept")
	}
	buf = nil
	plain("\x1b[m"+strings.Repeat("x", maxPlainBuffer), strings.Repeat("x", maxPlainBuffer))
	if kept := cap(buf); kept > maxPlainBuffer {
		t.Errorf("a buffer of %d bytes is kept", kept)
	}
	plain("\x1b[m"+strings.Repeat("x", 2*maxPlainBuffer), strings.Repeat("x", 2*maxPlainBuffer))
	if kept := cap(buf); kept > maxPlainBuffer {
		t.Errorf("a buffer of %d bytes is kept", kept)
	}
}
