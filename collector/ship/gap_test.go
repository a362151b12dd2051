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
func (w *harness) withoutKafka() *Shipper {
	w.t.Helper()
	w.startBroker()
	w.start(failpoints{}).kill()
	w.stopBroker()
	return w.start(failpoints{})
}

// TestSealMovesWhoWaits: lines wait among the logs when their file is unlinked. They need not wait for Kafka, then: the spool takes them, and a
// kill does not lose them.
func TestSealMovesWhoWaits(t *testing.T) {
	w := newHarness(t)
	w.cfg.Memory = 8 * int64(w.cfg.BatchBytes)
	s := w.withoutKafka()
	all := files(2, 3000)
	all[1].container = all[0].container // both in one partition, and room is taken by the file that stays
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stays, poured := s.Lane(all[1].name), make(chan error, 2)
	go func() { poured <- all[1].shipTo(ctx, stays) }()
	eventually(t, "the room is taken", stays.(*lane).blocked.Load)
	gone := s.Lane(all[0].name)
	go func() { poured <- all[0].shipTo(t.Context(), gone) }()
	eventually(t, "the other waits", gone.(*lane).blocked.Load)
	gone.SourceGone()
	eventually(t, "its lines are safe", func() bool { return gone.Acked() == 300_000 })
	cancel()
	for range 2 {
		if err := <-poured; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	s.kill()

	w.startBroker()
	s = w.start(failpoints{})
	if err := all[1].shipTo(t.Context(), s.Lane(all[1].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.checkExactlyOnce(all...)
}

// TestLinesOfAFileThatIsGoneAreSpooled: a file was read to its end and deleted while Kafka is away. Nobody can read it again, so
// what is in memory goes to the spool.
func TestLinesOfAFileThatIsGoneAreSpooled(t *testing.T) {
	for _, lines := range []int{30, 8000} { // less than a batch; more than the window of stamps reaches
		w := newHarness(t)
		s := w.withoutKafka()
		f := files(1, lines)
		l := s.Lane(f[0].name)
		if err := f[0].shipTo(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		l.Close(false)
		eventually(t, "its lines are safe", func() bool { return l.Acked() == uint64(100*lines) })
		s.kill()
		w.startBroker()
		w.close(w.start(failpoints{}))
		w.checkExactlyOnce(f...)
	}
}

// TestAFileThatIsThereIsNotForgotten: a collector that ran for long without a reason to write its journal anew, or a host that was
// off, or whose clock was wrong, finds its files where it left them.
func TestAFileThatIsThereIsNotForgotten(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{})
	all := files(2, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.cfg.ForgetAfter, w.cfg.ResumeTimeout = time.Minute, 100*time.Millisecond
	w.age(30 * 24 * time.Hour)
	s = w.start(failpoints{})
	if m, ok := s.Lane(all[0].name).Resume(); !ok || m != (collector.Checkpoint{End: 10_000, ReadFrom: 10_000}) {
		t.Errorf("the file resumes at %v, %v", m, ok)
	}
	eventually(t, "the one that does not come back is forgotten", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lanes[all[1].name] == nil
	})
	if err := all[0].shipTo(t.Context(), s.Lane(all[0].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.checkExactlyOnce(all...)
	w.age(0)
	s = w.start(failpoints{})
	defer w.close(s)
	if _, ok := s.Lane(all[1].name).Resume(); ok {
		t.Error("the journal remembers what was forgotten")
	}
	if m, ok := s.Lane(all[0].name).Resume(); !ok || m.End != 10_000 {
		t.Errorf("the file resumes at %v, %v", m, ok)
	}
}

// age makes the journal say that its lanes were last seen that long ago.
func (w *harness) age(by time.Duration) {
	w.t.Helper()
	text, err := readJournal(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	out := []byte(journalMagic)
	readRecords(text, func(e *record) {
		e.seen -= int64(by / time.Second)
		out = appendRecord(out, e)
	})
	w.writeJournal(out)
}

func (w *harness) writeJournal(text []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.state, "journal"), text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}
