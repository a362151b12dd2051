package engine

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/pipeline"
)

// A lineLog collects the lines of a logger.
type lineLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lineLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

// take returns the lines of the levels WARN and ERROR since the last call.
func (l *lineLog) take() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if at := strings.Index(line, "level="); at >= 0 && !strings.HasPrefix(line[at:], "level=INFO") {
			lines = append(lines, strings.TrimSpace(line[at:]))
		}
	}
	l.text.Reset()
	return lines
}

// checkWarnings requires the lines of the levels WARN and ERROR since the last call, in their order. Each is that of an expression.
func (h *harness) checkWarnings(want ...string) {
	h.Helper()
	checkLines(h, h.lines.take(), want...)
}

func checkLines(t testing.TB, got []string, want ...string) {
	t.Helper()
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		same = regexp.MustCompile("^level=" + want[i] + "$").MatchString(got[i])
	}
	if !same {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A busyStore works on inserts of an earlier owner for good.
type busyStore struct{ *fakeStore }

func (busyStore) RunningInserts(context.Context, pipeline.TopicPartition) (int, error) { return 3, nil }

// TestInsertsThatDoNotEndAreNotWaitedForForGood.
func TestInsertsThatDoNotEndAreNotWaitedForForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, logged := newTestWorker(busyStore{newFakeStore()})
		began := time.Now()
		if err := w.waitForInserts(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < maxInsertWait || waited > maxInsertWait+2*insertWaitLookup {
			t.Errorf("waited for %s", waited)
		}
		lines := &lineLog{}
		_, _ = lines.Write(logged.Bytes())
		checkLines(t, lines.take(), `ERROR msg="store still works on inserts of an earlier owner of the partition, going on without them" partition=0 topic=events inserts=3 waited=30s`)
	})
}
