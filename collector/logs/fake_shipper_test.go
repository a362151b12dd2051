package logs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/containers"
	"tidegate/pipeline"
)

// A shipped is what the fake keeps of an event.
type shipped struct {
	id, message, stream, path, level string
	time                             int64
	offset, bytes                    uint64
	truncated, partial               bool
	container                        string
	mark                             collector.Checkpoint
}

// String is what tells one from another: long lines differ in their length.
func (e shipped) String() string {
	return fmt.Sprintf("%.20q of %d bytes, %.8s, at %d, number %d, from %d", e.message, len(e.message), e.id, e.offset, e.mark.End, e.mark.ReadFrom)
}

// fakeShipper is a Shipper in memory that outlives the Source: crash takes back what was not acknowledged.
type fakeShipper struct {
	mu     sync.Mutex
	lanes  map[string]*fakeLane
	notify chan struct{}
	gate   func(lane string) <-chan struct{} // what Ship waits for; nil: nothing
	errs   []string
}

type fakeLane struct {
	s        *fakeShipper
	name     string
	list     []shipped
	replayed []shipped // what a crash took back and has to come again as it was
	open     bool
	sealed   chan struct{}
	dropped  bool
}

func newFake() *fakeShipper {
	return &fakeShipper{lanes: map[string]*fakeLane{}, notify: make(chan struct{}, 1)}
}

func (s *fakeShipper) Packets(string) collector.PacketProducer { return nil }
func (s *fakeShipper) Prune(func(string) bool)                 {}

func (s *fakeShipper) File(name string) collector.FileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[name]
	if l == nil {
		l = &fakeLane{s: s, name: name, sealed: make(chan struct{})}
		s.lanes[name] = l
	}
	if l.open {
		s.errs = append(s.errs, "lane opened twice: "+name)
	}
	if l.dropped {
		s.errs = append(s.errs, "lane opened after it was forgotten: "+name)
	}
	l.open = true
	return l
}

func (l *fakeLane) Ship(ctx context.Context, e *pipeline.Event, m collector.Checkpoint) error {
	if l.s.gate != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.s.gate(l.name):
		case <-l.sealed:
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	g := shipped{
		id: hex.EncodeToString(e.Id), message: string([]byte(e.Log.Message)), stream: e.Log.Stream, path: e.Log.Path, level: e.Log.Level, time: e.Timestamp,
		offset: e.Log.Offset, bytes: e.Log.Bytes, truncated: e.Log.Truncated, partial: e.Partial, container: e.Container.GetName(), mark: m,
	}
	if n := len(l.list); n > 0 && l.list[n-1].mark.End >= m.End {
		l.s.errs = append(l.s.errs, "number did not grow: "+l.name+" "+g.message)
	}
	if m.ReadFrom > m.End || m.ReadFrom < 0 {
		l.s.errs = append(l.s.errs, "From is behind At: "+l.name)
	}
	if len(l.replayed) > 0 {
		if w := l.replayed[0]; w.id != g.id || w.message != g.message || w.mark.End != g.mark.End {
			l.s.errs = append(l.s.errs, fmt.Sprintf("not the same as before the crash: %s / %s", w, g))
		}
		l.replayed = l.replayed[1:]
	}
	l.list = append(l.list, g)
	pipeline.ReleaseEvent(e)
	select {
	case l.s.notify <- struct{}{}:
	default:
	}
	return nil
}

func (l *fakeLane) Resume() (collector.Checkpoint, bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if len(l.list) == 0 {
		return collector.Checkpoint{}, false
	}
	return l.list[len(l.list)-1].mark, true
}

func (l *fakeLane) SourceGone() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	close(l.sealed)
}

func (l *fakeLane) Close(keep bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if !l.open {
		l.s.errs = append(l.s.errs, "lane closed twice: "+l.name)
	}
	l.open = false
	l.dropped = !keep
}

// crash leaves of each lane what keep says, and remembers the rest: it has to come again.
func (s *fakeShipper) crash(keep func(n int) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		n := keep(len(l.list))
		l.replayed = append(slices.Clone(l.list[n:]), l.replayed...)
		l.list = l.list[:n]
		l.open = false
		l.sealed = make(chan struct{})
	}
}

func (s *fakeShipper) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		n += len(l.list)
	}
	return n
}

// all returns what was shipped, by lane and then in order.
func (s *fakeShipper) all() []shipped {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []shipped
	for _, k := range slices.Sorted(maps.Keys(s.lanes)) {
		list = append(list, s.lanes[k].list...)
	}
	return list
}

// wait blocks until n events were shipped.
func (s *fakeShipper) wait(t testing.TB, n int) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for s.count() < n {
		select {
		case <-s.notify:
		case <-limit:
			for _, e := range s.all() {
				t.Logf("%.20q %+v", e.message, e.mark)
				if s.count() > 50 {
					break
				}
			}
			s.check(t)
			t.Fatalf("%d lines came, want %d", s.count(), n)
		}
	}
}

func (s *fakeShipper) check(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.errs {
		if i == 5 {
			t.Errorf("… and %d more", len(s.errs)-i)
			break
		}
		t.Error(e)
	}
}

// fakeRegistry is a registry that knows what a test tells it.
type fakeRegistry struct {
	mu     sync.Mutex
	status map[string]containers.Status
	names  map[string]*pipeline.Container
	logs   []containers.LogFile
	subs   chan struct{}
}

func newRegistry() *fakeRegistry {
	return &fakeRegistry{status: map[string]containers.Status{}, names: map[string]*pipeline.Container{}, subs: make(chan struct{}, 1)}
}

func (w *fakeRegistry) set(id, name string, st containers.Status) {
	w.mu.Lock()
	w.status[id] = st
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
func start(t testing.TB, cfg Config, who Containers, ship *fakeShipper) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(cfg.Root, "containers"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := New(cfg, who, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ship) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if n := s.budget.openFiles.Load(); n != 0 {
			t.Errorf("%d descriptors are still held", n)
		}
		if n := s.budget.pendingBytes.Load(); n != 0 {
			t.Errorf("%d bytes of incomplete lines are still counted", n)
		}
	})
	t.Cleanup(stop)
	return stop
}
