package logs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"tidegate/collector/containers"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
)

// A fakeRegistry holds the containers that a test sets.
type fakeRegistry struct {
	mu     sync.Mutex
	status map[string]containers.Status
	names  map[string]*pipeline.Container
	logs   []containers.LogFile
	subs   chan struct{} // for Subscribe
}

func newRegistry() *fakeRegistry {
	return &fakeRegistry{
		status: map[string]containers.Status{}, names: map[string]*pipeline.Container{}, subs: make(chan struct{}, 1),
	}
}

// set sets the name and status of a container and notifies the subscriber.
func (w *fakeRegistry) set(id, name string, status containers.Status) {
	w.mu.Lock()
	w.status[id] = status
	w.names[id] = &pipeline.Container{Id: id, Name: name}
	w.mu.Unlock()
	select {
	case w.subs <- struct{}{}:
	default:
	}
}

func (w *fakeRegistry) Enabled() bool { return true }
func (w *fakeRegistry) ByID(id string) *pipeline.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[id]
}

func (w *fakeRegistry) Status(id string) containers.Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status[id]
}

func (w *fakeRegistry) Logs() []containers.LogFile {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logs
}
func (w *fakeRegistry) Subscribe() <-chan struct{} { return w.subs }

// start runs a Source over root until the test ends or stop is called.
func start(t testing.TB, cfg Config, registry Containers, ship *logstest.Shipper) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(cfg.DockerDataRoot, "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, stop = startSource(t, New(cfg, registry, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil), ship)
	return stop
}

// startLogged is like start. It returns the Source, which logs to out.
func startLogged(t testing.TB, cfg Config, ship *logstest.Shipper, out io.Writer) *Source {
	t.Helper()
	log := slog.New(slog.NewTextHandler(out, nil))
	source, _ := startSource(t, New(cfg, nil, pipeline.ID{1}, log, nil), ship)
	return source
}

// startSource runs source until the test ends or stop is called.
func startSource(t testing.TB, source *Source, ship *logstest.Shipper) (_ *Source, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx, ship) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		files, bytes := source.group.Held()
		if files != 0 {
			t.Errorf("%d descriptors are still held", files)
		}
		if bytes != 0 {
			t.Errorf("%d bytes of incomplete lines are still counted", bytes)
		}
	})
	t.Cleanup(stop)
	return source, stop
}
