package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestOldDuplicateIsRecognised: a host or the engine was off for longer than the lookback of the duplicate
// filter. A batch that was stored before is recognised, and a new batch of the same producer is stored.
func TestOldDuplicateIsRecognised(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var sent [][]byte
	for range 8 {
		sent = append(sent, encode(t, r.batch(0, 5)))
	}
	r.produce(0, sent[:6]...)
	_, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 30 })
	stop()
	for i := range s.rows {
		s.rows[i].ingested -= int64(100 * time.Hour)
	}
	r.produce(0, sent[5], sent[2], sent[6], sent[7], sent[6])
	e, stop := r.start(s, testBundle, func(c *Config, _ *Deps) { c.DedupLookback = 48 * time.Hour })
	waitUntil(t, "rows", func() bool { return e.Ledger().Messages == 5 && s.count() >= 40 })
	stop()
	checkExactlyOnce(t, s.rows, 40)
	if l := e.Ledger(); l.Duplicates != 3 {
		t.Errorf("ledger %+v", l)
	}
}

// TestRowsAreInsertedWhenOnlyTheirTokenWasKept: a server that was killed within an insert remembers the token
// and has not kept the rows. In the end they are stored once, also if the engine was killed too.
func TestRowsAreInsertedWhenOnlyTheirTokenWasKept(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for _, restart := range []bool{false, true} {
		r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
		failing := true
		s.insert = func(_ []fakeRow, token string) error {
			if failing && !strings.HasSuffix(token, "~") {
				s.tokens[token] = true
				return errPassing
			}
			return nil
		}
		r.send(0, 3, 20)
		e, stop := r.start(s, testBundle, nil)
		waitUntil(t, "an insert that failed", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.tokens) > 0 })
		if restart {
			stop()
		}
		s.mu.Lock()
		failing = false
		s.mu.Unlock()
		if restart {
			e, stop = r.start(s, testBundle, nil)
		}
		waitUntil(t, "rows", func() bool { return s.count() >= 60 })
		waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 3 && m == "" })
		stop()
		checkExactlyOnce(t, s.rows, 60)
		if l := e.Ledger(); l.Rows != 60 {
			t.Errorf("ledger %+v", l)
		}
	}
}

// TestRowsOfAnEarlierTopicAreNotTakenForExisting: the topic was created anew and has grown longer
// than before; an engine was killed in a block whose offsets the store holds from the earlier topic.
func TestRowsOfAnEarlierTopicAreNotTakenForExisting(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	for i := range 60 {
		s.rows = append(s.rows, fakeRow{Position: pipeline.Position{Offset: int64(i / 10), Index: uint32(i % 10), BatchID: pipeline.BatchID{Collector: testCollector, Epoch: 1, Sequence: uint64(i/10) + 1}}, id: "old", ingested: testStart})
	}
	s.tokens[fmt.Sprintf("tidegate.events/0/2-5@%d", testStart)] = true
	r.send(0, 10, 10)
	r.commit(0, 2, fmt.Sprintf("v1 5 %d 0 v1", testStart+1))
	_, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 60+80 })
	stop()
	seen := map[string]int{}
	for _, row := range s.rows {
		seen[row.id]++
	}
	for i := 20; i < 100; i++ {
		if id := fmt.Sprintf("%x", event(i).Id); seen[id] != 1 {
			t.Errorf("event %d is stored %d times", i, seen[id])
		}
	}
}

// TestAlertsAreInsertedWhenOnlyTheirTokenWasKept: the same for the table alerts.
func TestAlertsAreInsertedWhenOnlyTheirTokenWasKept(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	tries := 0
	s.insertAlerts = func(token string) (bool, error) {
		tries++
		switch {
		case tries == 1:
			return false, errPassing
		case strings.HasSuffix(token, "~"):
			return true, nil
		}
		return false, nil // it remembers the token: taken, and dropped
	}
	r.send(0, 3, 20)
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 3 && m == "" })
	stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := e.Ledger(); l.Revisions == 0 || len(s.alerts) != int(l.Revisions) {
		t.Errorf("%d revisions are there, ledger %+v", len(s.alerts), l)
	}
}
