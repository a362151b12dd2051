package logstest

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A Shipped is the record that a Shipper keeps of one event.
type Shipped struct {
	ID, Message, Stream, Path, Level string
	Time                             int64
	Offset, Bytes                    uint64
	Truncated, Partial               bool
	Container                        string
	Checkpoint                       collector.Checkpoint
}

// String returns a short description for failure messages.
func (e Shipped) String() string {
	return fmt.Sprintf("%.20q of %d bytes, %.8s, at %d, %+v", e.Message, len(e.Message), e.ID, e.Offset, e.Checkpoint)
}

// A Shipper is a collector.Shipper in memory. It outlives the Source: Crash takes back the events that a kill
// would lose. Violations of the contract are stored, and Check reports them.
type Shipper struct {
	mu     sync.Mutex
	files  map[string]*producer
	notify chan struct{}
	Gate   func(name string) <-chan struct{} // Wait, or Ship, waits for a value from it; nil: they do not wait
	errs   []string
	pruned int
}

// A producer is the collector.FileProducer of one file.
type producer struct {
	shipper    *Shipper
	name       string
	list       []Shipped
	replayed   []Shipped // taken back by Crash: they must be shipped again, unchanged
	open       bool
	sourceGone chan struct{}
	dropped    bool
	passed     bool // the gate was passed for the next event
}

// NewShipper returns a Shipper without any files.
func NewShipper() *Shipper {
	return &Shipper{files: map[string]*producer{}, notify: make(chan struct{}, 1)}
}

// Prune drops the checkpoints of files that do not exist, as the real one does.
func (s *Shipper) Prune(exists func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pruned++
	for name, file := range s.files {
		if !file.open && len(file.list) > 0 && !exists(name) {
			file.dropped = true
		}
	}
}

// Pruned returns how often Prune was called.
func (s *Shipper) Pruned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pruned
}

// Files implements collector.Shipper.
func (s *Shipper) Files(prefix string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, file := range s.files {
		if !file.open && !file.dropped && len(file.list) > 0 && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// Packets implements collector.Shipper; it is not used.
func (s *Shipper) Packets(string) collector.PacketProducer { return nil }

// File implements collector.Shipper.
func (s *Shipper) File(name string) collector.FileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.files[name]
	if file == nil {
		file = &producer{shipper: s, name: name, sourceGone: make(chan struct{})}
		s.files[name] = file
	}
	if file.open {
		s.errs = append(s.errs, "file opened twice: "+name)
	}
	if file.dropped {
		s.errs = append(s.errs, "file opened after its checkpoint was dropped: "+name)
	}
	file.open = true
	return file
}

// Wait implements collector.FileProducer. It waits at the gate, unless the file cannot be read again.
func (p *producer) Wait(ctx context.Context, _ *pipeline.Container, _ collector.Checkpoint) error {
	if p.shipper.Gate != nil && !p.passed {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.shipper.Gate(p.name):
		case <-p.sourceGone:
		}
		p.passed = true
	}
	return ctx.Err()
}

// Ship implements collector.FileProducer.
func (p *producer) Ship(ctx context.Context, event *pipeline.Event, checkpoint collector.Checkpoint) error {
	if err := p.Wait(ctx, nil, checkpoint); err != nil {
		return err
	}
	p.passed = false

	// Check the contract: checkpoints grow, and events that Crash took back come again unchanged.
	p.shipper.mu.Lock()
	defer p.shipper.mu.Unlock()
	shipped := Shipped{
		ID: hex.EncodeToString(event.Id), Message: string([]byte(event.Log.Message)), Stream: event.Log.Stream,
		Path: event.Log.Path, Level: event.Log.Level, Time: event.Timestamp,
		Offset: event.Log.Offset, Bytes: event.Log.Bytes, Truncated: event.Log.Truncated,
		Partial: event.Partial, Container: event.Container.GetName(), Checkpoint: checkpoint,
	}
	if shippedBefore := len(p.list); shippedBefore > 0 && p.list[shippedBefore-1].Checkpoint.End >= checkpoint.End {
		p.shipper.errs = append(p.shipper.errs, "End did not grow: "+p.name+" "+shipped.Message)
	}
	if checkpoint.ReadFrom > checkpoint.End || checkpoint.ReadFrom < 0 {
		p.shipper.errs = append(p.shipper.errs, "ReadFrom is behind End: "+p.name)
	}
	if len(p.replayed) > 0 {
		want := p.replayed[0]
		if want.ID != shipped.ID || want.Message != shipped.Message || want.Checkpoint.End != shipped.Checkpoint.End {
			p.shipper.errs = append(p.shipper.errs, fmt.Sprintf("not the same as before the crash: %s / %s", want, shipped))
		}
		p.replayed = p.replayed[1:]
	}

	// Store the event and wake Wait.
	p.list = append(p.list, shipped)
	pipeline.ReleaseEvent(event)
	select {
	case p.shipper.notify <- struct{}{}:
	default:
	}
	return nil
}

// Resume implements collector.FileProducer.
func (p *producer) Resume() (collector.Checkpoint, bool) {
	p.shipper.mu.Lock()
	defer p.shipper.mu.Unlock()
	if len(p.list) == 0 {
		return collector.Checkpoint{}, false
	}
	checkpoint := p.list[len(p.list)-1].Checkpoint
	if n := len(p.replayed); n > 0 {
		checkpoint.Sample = p.replayed[n-1].Checkpoint.Sample
	}
	return checkpoint, true
}

// SourceGone implements collector.FileProducer.
func (p *producer) SourceGone() {
	p.shipper.mu.Lock()
	defer p.shipper.mu.Unlock()
	close(p.sourceGone)
}

// Close implements collector.FileProducer.
func (p *producer) Close(keep bool) {
	p.shipper.mu.Lock()
	defer p.shipper.mu.Unlock()
	if !p.open {
		p.shipper.errs = append(p.shipper.errs, "file closed twice: "+p.name)
	}
	p.open = false
	p.dropped = !keep && len(p.list) > 0
}

// Crash simulates a kill. keep gets the number of events of each file and returns how many of the first are
// kept. The others must be shipped again, unchanged.
func (s *Shipper) Crash(keep func(kept int) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.files {
		kept := keep(len(file.list))
		file.replayed = append(slices.Clone(file.list[kept:]), file.replayed...)
		file.list = file.list[:kept]
		file.open = false
		file.sourceGone = make(chan struct{})
	}
}

// Count returns the number of shipped events.
func (s *Shipper) Count() (count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, file := range s.files {
		count += len(file.list)
	}
	return count
}

// All returns the shipped events, ordered by the name of their file and then by their order in it.
func (s *Shipper) All() []Shipped {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Shipped
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		list = append(list, s.files[name].list...)
	}
	return list
}

// Wait waits until n events were shipped.
func (s *Shipper) Wait(t testing.TB, n int) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for count := s.Count(); count < n; {
		select {
		case <-s.notify:
			if now := s.Count(); now > count {
				count = now
				limit.Reset(patience)
			}
		case <-limit.C:
			for i, shipped := range s.All() {
				if i < 20 || i >= s.Count()-20 {
					t.Logf("%d: %.20q %+v", i, shipped.Message, shipped.Checkpoint)
				}
			}
			s.Check(t)
			t.Fatalf("%d lines came, and no more for %s, want %d", s.Count(), patience, n)
		}
	}
}

// patience is the time after which Wait gives up if not one more line comes. A busy machine makes lines slow.
const patience = 30 * time.Second

// Check fails the test if the contract was violated.
func (s *Shipper) Check(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, text := range s.errs {
		if i == 5 {
			t.Errorf("… and %d more", len(s.errs)-i)
			break
		}
		t.Error(text)
	}
}

// Opened returns the number of files of which a producer was opened.
func (s *Shipper) Opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files)
}

// Dropped returns the names of the files whose checkpoint was dropped.
func (s *Shipper) Dropped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, file := range s.files {
		if file.dropped {
			names = append(names, file.name)
		}
	}
	return names
}
