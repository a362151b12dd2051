package logstest

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A Shipped is what the fake keeps of an event.
type Shipped struct {
	ID, Message, Stream, Path, Level string
	Time                             int64
	Offset, Bytes                    uint64
	Truncated, Partial               bool
	Container                        string
	Checkpoint                       collector.Checkpoint
}

// String is what tells one from another: long lines differ in their length.
func (e Shipped) String() string {
	return fmt.Sprintf("%.20q of %d bytes, %.8s, at %d, number %d, from %d", e.Message, len(e.Message), e.ID, e.Offset, e.Checkpoint.End, e.Checkpoint.ReadFrom)
}

// Shipper is a Shipper in memory that outlives the Source: crash takes back what was not acknowledged.
type Shipper struct {
	mu     sync.Mutex
	lanes  map[string]*producer
	notify chan struct{}
	Gate   func(lane string) <-chan struct{} // what Ship waits for; nil: nothing
	errs   []string
	pruned int
}

type producer struct {
	s        *Shipper
	name     string
	list     []Shipped
	replayed []Shipped // what a crash took back and has to come again as it was
	open     bool
	sealed   chan struct{}
	dropped  bool
}

func NewShipper() *Shipper {
	return &Shipper{lanes: map[string]*producer{}, notify: make(chan struct{}, 1)}
}

// Prune drops the checkpoints of files that do not exist, as the real one does.
func (s *Shipper) Prune(exists func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pruned++
	for name, l := range s.lanes {
		if !l.open && len(l.list) > 0 && !exists(name) {
			l.dropped = true
		}
	}
}

// Pruned returns how often Prune was called.
func (s *Shipper) Pruned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pruned
}

func (s *Shipper) Packets(string) collector.PacketProducer { return nil }

func (s *Shipper) File(name string) collector.FileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[name]
	if l == nil {
		l = &producer{s: s, name: name, sealed: make(chan struct{})}
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

func (l *producer) Ship(ctx context.Context, e *pipeline.Event, m collector.Checkpoint) error {
	if l.s.Gate != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.s.Gate(l.name):
		case <-l.sealed:
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	g := Shipped{
		ID: hex.EncodeToString(e.Id), Message: string([]byte(e.Log.Message)), Stream: e.Log.Stream, Path: e.Log.Path, Level: e.Log.Level, Time: e.Timestamp,
		Offset: e.Log.Offset, Bytes: e.Log.Bytes, Truncated: e.Log.Truncated, Partial: e.Partial, Container: e.Container.GetName(), Checkpoint: m,
	}
	if n := len(l.list); n > 0 && l.list[n-1].Checkpoint.End >= m.End {
		l.s.errs = append(l.s.errs, "number did not grow: "+l.name+" "+g.Message)
	}
	if m.ReadFrom > m.End || m.ReadFrom < 0 {
		l.s.errs = append(l.s.errs, "From is behind At: "+l.name)
	}
	if len(l.replayed) > 0 {
		if w := l.replayed[0]; w.ID != g.ID || w.Message != g.Message || w.Checkpoint.End != g.Checkpoint.End {
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

func (l *producer) Resume() (collector.Checkpoint, bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if len(l.list) == 0 {
		return collector.Checkpoint{}, false
	}
	return l.list[len(l.list)-1].Checkpoint, true
}

func (l *producer) SourceGone() {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	close(l.sealed)
}

func (l *producer) Close(keep bool) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if !l.open {
		l.s.errs = append(l.s.errs, "lane closed twice: "+l.name)
	}
	l.open = false
	l.dropped = !keep && len(l.list) > 0
}

// crash leaves of each lane what keep says, and remembers the rest: it has to come again.
func (s *Shipper) Crash(keep func(n int) int) {
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

func (s *Shipper) Count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		n += len(l.list)
	}
	return n
}

// all returns what was shipped, by lane and then in order.
func (s *Shipper) All() []Shipped {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Shipped
	for _, k := range slices.Sorted(maps.Keys(s.lanes)) {
		list = append(list, s.lanes[k].list...)
	}
	return list
}

// wait blocks until n events were shipped.
func (s *Shipper) Wait(t testing.TB, n int) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for s.Count() < n {
		select {
		case <-s.notify:
		case <-limit:
			for _, e := range s.All() {
				t.Logf("%.20q %+v", e.Message, e.Checkpoint)
				if s.Count() > 50 {
					break
				}
			}
			s.Check(t)
			t.Fatalf("%d lines came, want %d", s.Count(), n)
		}
	}
}

func (s *Shipper) Check(t testing.TB) {
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

// Opened returns how many producers were opened.
func (s *Shipper) Opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lanes)
}

// Dropped returns the names of the producers whose checkpoint was given up.
func (s *Shipper) Dropped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, l := range s.lanes {
		if l.dropped {
			list = append(list, l.name)
		}
	}
	return list
}
