package ship

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tidegate/collector"
)

// withoutKafka begins a life that knows the topic's partitions, and cannot reach them.
func (w *world) withoutKafka() *Shipper {
	w.t.Helper()
	w.brokerUp()
	w.live(seams{}).kill()
	w.brokerAway()
	return w.live(seams{})
}

// TestSealMovesWhoWaits: lines wait among the logs when their file is unlinked. They need not wait for Kafka, then: the spool takes them, and a
// kill does not lose them.
func TestSealMovesWhoWaits(t *testing.T) {
	w := newWorld(t)
	w.cfg.Memory = 8 * int64(w.cfg.BatchBytes)
	s := w.withoutKafka()
	all := files(2, 3000)
	all[1].container = all[0].container // both in one partition, and room is taken by the file that stays
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stays, poured := s.Lane(all[1].name), make(chan error, 2)
	go func() { poured <- all[1].pour(ctx, stays) }()
	until(t, "the room is taken", stays.(*lane).blocked.Load)
	gone := s.Lane(all[0].name)
	go func() { poured <- all[0].pour(t.Context(), gone) }()
	until(t, "the other waits", gone.(*lane).blocked.Load)
	gone.Seal()
	until(t, "its lines are safe", func() bool { return gone.Acked() == 300_000 })
	cancel()
	for range 2 {
		if err := <-poured; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	s.kill()

	w.brokerUp()
	s = w.live(seams{})
	if err := all[1].pour(t.Context(), s.Lane(all[1].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.exactly(all...)
}

// TestLinesOfAFileThatIsGoneAreSpooled: a file was read to its end and deleted while Kafka is away. Nobody can read it again, so
// what is in memory goes to the spool.
func TestLinesOfAFileThatIsGoneAreSpooled(t *testing.T) {
	for _, lines := range []int{30, 8000} { // less than a batch; more than the window of stamps reaches
		w := newWorld(t)
		s := w.withoutKafka()
		f := files(1, lines)
		l := s.Lane(f[0].name)
		if err := f[0].pour(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		l.Close(false)
		until(t, "its lines are safe", func() bool { return l.Acked() == uint64(100*lines) })
		s.kill()
		w.brokerUp()
		w.close(w.live(seams{}))
		w.exactly(f...)
	}
}

// TestAFileThatIsThereIsNotForgotten: a collector that ran for long without a reason to write its journal anew, or a host that was
// off, or whose clock was wrong, finds its files where it left them.
func TestAFileThatIsThereIsNotForgotten(t *testing.T) {
	w := newWorld(t)
	w.brokerUp()
	s := w.live(seams{})
	all := files(2, 100)
	if err := pourAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.cfg.ForgetAfter, w.cfg.ResumeTimeout = time.Minute, 100*time.Millisecond
	w.age(30 * 24 * time.Hour)
	s = w.live(seams{})
	if m, ok := s.Lane(all[0].name).Resume(); !ok || m != (collector.Mark{At: 10_000, From: 10_000}) {
		t.Errorf("the file resumes at %v, %v", m, ok)
	}
	until(t, "the one that does not come back is forgotten", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lanes[all[1].name] == nil
	})
	if err := all[0].pour(t.Context(), s.Lane(all[0].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.exactly(all...)
	w.age(0)
	s = w.live(seams{})
	defer w.close(s)
	if _, ok := s.Lane(all[1].name).Resume(); ok {
		t.Error("the journal remembers what was forgotten")
	}
	if m, ok := s.Lane(all[0].name).Resume(); !ok || m.At != 10_000 {
		t.Errorf("the file resumes at %v, %v", m, ok)
	}
}

// age makes the journal say that its lanes were last seen that long ago.
func (w *world) age(by time.Duration) {
	w.t.Helper()
	text, err := readJournal(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	out := []byte(journalMagic)
	readRecords(text, func(e *entry) {
		e.seen -= int64(by / time.Second)
		out = appendRecord(out, e)
	})
	w.writeJournal(out)
}

func (w *world) writeJournal(text []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.state, "journal"), text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}
