package logs

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector/containers"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/tail"
	"tidegate/pipeline"
)

func handlerOf(registry Containers, container string) *lineHandler {
	source := New(Default(), registry, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	return newLineHandler(source, discover.Log{Dir: "/logs", Base: "a.log", Container: container})
}

// TestStateOfALogIsThatOfItsContainer: nothing is known of a log of the host, and of a container that is not known.
func TestStateOfALogIsThatOfItsContainer(t *testing.T) {
	registry := newRegistry()
	check := func(what string, handler *lineHandler, want tail.State, name string) {
		t.Helper()
		if got := handler.State(); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		handler.Refresh()
		if got := handler.container; got.GetName() != name || got.GetId() != handler.log.Container {
			t.Errorf("%s: container %v, want %q", what, got, name)
		}
	}
	check("unknown", handlerOf(registry, "c"), tail.State{}, "")
	registry.set("c", "web", containers.Status{Known: true, Running: true})
	check("running", handlerOf(registry, "c"), tail.State{}, "web")
	registry.set("c", "web", containers.Status{Known: true})
	check("stopped", handlerOf(registry, "c"), tail.State{Stopped: true}, "web")
	registry.set("c", "web", containers.Status{Known: true, Running: true, Excluded: true})
	check("excluded", handlerOf(registry, "c"), tail.State{Excluded: true}, "web")
	registry.set("c", "web", containers.Status{Running: false})
	check("not known to run", handlerOf(registry, "c"), tail.State{}, "web")
	registry.set("", "none", containers.Status{Known: true, Excluded: true})
	check("a log of the host", handlerOf(registry, ""), tail.State{}, "")
	check("no registry", handlerOf(nil, "c"), tail.State{}, "")
}

// disabledRegistry knows nothing, and never will.
type disabledRegistry struct{ *fakeRegistry }

func (disabledRegistry) Enabled() bool { return false }

// TestLogIsReadyOnceItsContainerIsKnown, or two seconds after it was found; an excluded one is not read.
func TestLogIsReadyOnceItsContainerIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(what string, handler *lineHandler, want bool, took time.Duration) {
			t.Helper()
			begin := time.Now()
			if got := handler.Ready(t.Context(), nil); got != want || time.Since(begin) != took {
				t.Errorf("%s: ready %t after %v, want %t after %v", what, got, time.Since(begin), want, took)
			}
		}
		registry := newRegistry()
		registry.set("known", "web", containers.Status{Known: true})
		registry.set("excluded", "db", containers.Status{Known: true, Excluded: true})
		check("known", handlerOf(registry, "known"), true, 0)
		check("excluded", handlerOf(registry, "excluded"), false, 0)
		check("of the host", handlerOf(registry, ""), true, 0)
		check("no registry", handlerOf(nil, "c"), true, 0)
		check("a registry that is off", handlerOf(disabledRegistry{registry}, "c"), true, 0)
		check("unknown", handlerOf(registry, "c"), true, 2*time.Second)
		early := handlerOf(registry, "c")
		time.Sleep(1500 * time.Millisecond)
		check("unknown for long", early, true, 500*time.Millisecond)

		// It waits for the container, and for no other.
		changed, ready := make(chan struct{}), make(chan bool, 1)
		go func() { ready <- handlerOf(registry, "c").Ready(t.Context(), changed) }()
		changed <- struct{}{}
		synctest.Wait()
		if len(ready) > 0 {
			t.Error("ready although its container is unknown")
		}
		registry.set("c", "web", containers.Status{Known: true})
		changed <- struct{}{}
		if !<-ready {
			t.Error("not ready although its container is known")
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if handlerOf(registry, "unknown").Ready(ctx, nil) || handlerOf(registry, "known").Ready(ctx, nil) {
			t.Error("ready behind the end")
		}
	})
}

// TestLogsOfOtherDriversAreCountedOnce under a name of Docker's documentation, or other. Those in json-files are read where
// the registry says.
func TestLogsOfOtherDriversAreCountedOnce(t *testing.T) {
	registry, reg := newRegistry(), prometheus.NewRegistry()
	registry.logs = []containers.LogFile{
		{ContainerID: "a", Driver: "json-file", Path: "/x//a/../a.log"},
		{ContainerID: "b", Driver: "json-file"},
		{ContainerID: "c", Driver: "journald"},
		{ContainerID: "d", Driver: "journald"},
		{ContainerID: "e", Driver: "my/driver:1"},
		{ContainerID: "f"},
	}
	var logged bytes.Buffer
	source := New(Default(), registry, pipeline.ID{1}, slog.New(slog.NewTextHandler(&logged, nil)), reg)
	found := &discovery{source: source, logged: map[string]bool{}, failed: map[discoverer]bool{}}
	for range 2 {
		if paths := found.filesOfContainers(); !maps.Equal(paths, map[string]string{"a": "/x/a.log"}) {
			t.Errorf("files %v", paths)
		}
	}
	line := `level=WARN msg="log of a container is not read, its driver keeps no json-file" container=e driver=my/driver:1` + "\n"
	if got := logged.String(); strings.Count(got, "\n") != 3 || !strings.HasSuffix(got, line) {
		t.Errorf("logged %s, want %s", got, line)
	}
	for driver, want := range map[string]float64{"journald": 2, "other": 1, "local": 0} {
		if got := testutil.ToFloat64(source.metrics.unread.WithLabelValues(driver)); got != want {
			t.Errorf("%v logs of the driver %s, want %v", got, driver, want)
		}
	}
	if driverLabel("gelf") != "gelf" || driverLabel("GELF") != "other" || driverLabel("") != "other" {
		t.Error("names of drivers")
	}
	if found.Handler(discover.Log{Container: "a"}) == nil {
		t.Error("a container that is not excluded has no handler")
	}
	registry.set("a", "web", containers.Status{Excluded: true})
	if found.Handler(discover.Log{Container: "a"}) != nil {
		t.Error("an excluded container has a handler")
	}
}

// TestShortTextsShareAnArena that is never written twice; long ones have their own memory.
func TestShortTextsShareAnArena(t *testing.T) {
	var buffers lineBuffers
	var texts []string
	input := make([]byte, 100)
	for i := range 2 * arenaSize / len(input) {
		copy(input, strings.Repeat(string(rune('a'+i%26)), len(input)))
		texts = append(texts, buffers.internUTF8(input))
		if cap(buffers.arena) != arenaSize {
			t.Fatalf("an arena of %d bytes", cap(buffers.arena))
		}
	}
	for i, text := range texts {
		if text != strings.Repeat(string(rune('a'+i%26)), len(input)) {
			t.Fatalf("text %d is %q", i, text)
		}
	}
	used := len(buffers.arena)
	long := []byte(strings.Repeat("x", arenaSize/8+1))
	if got := buffers.internUTF8(long); got != string(long) || len(buffers.arena) != used {
		t.Errorf("a long text takes %d bytes of the arena", len(buffers.arena)-used)
	}
	if got := buffers.internUTF8(nil); got != "" {
		t.Errorf("no text is %q", got)
	}
	if got := buffers.internUTF8([]byte("a\xffb\xc3")); got != "a\ufffdb\ufffd" || len(buffers.arena) != used {
		t.Errorf("invalid text is %q", got)
	}
	if got := buffers.internUTF8(long[:arenaSize/8]); len(got) != arenaSize/8 || len(buffers.arena) == used {
		t.Error("a text of an eighth of the arena is not in it")
	}
}

// TestBuffersOfALongLineAreNotKept if they are large; all others are used again.
func TestBuffersOfALongLineAreNotKept(t *testing.T) {
	source := New(Default(), nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	small, large := &lineBuffers{}, &lineBuffers{plain: make([]byte, maxKeptBuffers+1)}
	source.putBuffers(large, longLine+1)
	if source.lastBuffers.Load() != nil {
		t.Error("the buffers of a long line are kept")
	}
	source.putBuffers(large, longLine) // no such line has made them large
	if source.takeBuffers() != large || source.lastBuffers.Load() != nil {
		t.Error("the buffers of a short line are not used again")
	}
	source.putBuffers(small, longLine+1)
	if source.takeBuffers() != small {
		t.Error("small buffers of a long line are not used again")
	}
	source.putBuffers(small, 1)
	source.putBuffers(large, 1)
	if source.takeBuffers() != small {
		t.Error("buffers in use were replaced")
	}
	if source.takeBuffers() == nil || (&Source{}).takeBuffers() == nil {
		t.Error("no buffers")
	}
}
