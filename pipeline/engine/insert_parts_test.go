package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tidegate/pipeline"
)

// A countingStore counts the queries of a fakeStore.
type countingStore struct {
	*fakeStore
	queries  int
	verified int // of them, those when rows were stored
}

func (s *countingStore) ExistingRows(ctx context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	if s.queries++; s.count() > 0 {
		s.verified++
	}
	return s.fakeStore.ExistingRows(ctx, block)
}

// TestRowsOfAPartAreStoredOnce: an insert that is repeated is verified, rows that are stored already are left out, and rows that
// the store acknowledged without holding them are inserted once more.
func TestRowsOfAPartAreStoredOnce(t *testing.T) {
	const all = 4 // events of the block, in two messages
	check := func(what string, rows, alreadyStored uint64, queries, inserts int, line string, change func(w *worker, s *countingStore, p *part)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			store := &countingStore{fakeStore: newFakeStore()}
			w, logged := newTestWorker(store)
			producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
			b := &block{from: 3, end: 5, time: testStart, intentTime: time.Now()}
			for offset := range int64(2) {
				batch := producer.batch(0, all/2)
				for _, e := range batch.Events {
					e.Ingested = testStart
				}
				b.messages = append(b.messages, message{record: recordOf(t, 3+offset, batch), batch: batch})
			}
			p := part{messages: b.messages, token: insertToken{block: w.blockID(b)}}
			change(w, store, &p)
			if err := w.insertPart(t.Context(), b, p); err != nil {
				t.Fatal(err)
			}
			if b.counts.rows != rows || b.counts.alreadyStored != alreadyStored || store.queries != queries || len(store.order) != inserts || store.count() != all {
				t.Errorf("%s: %d rows, %d were stored, %d queries, %d inserts, %d rows in the store; want %d, %d, %d, %d", what,
					b.counts.rows, b.counts.alreadyStored, store.queries, len(store.order), store.count(), rows, alreadyStored, queries, inserts)
			}
			if line == "" && logged.Len() > 0 || !strings.Contains(logged.String(), line) {
				t.Errorf("%s: logged %s", what, logged)
			}
		})
	}
	// fails makes the first inserts fail with errors.
	fails := func(list ...error) func(rows []fakeRow, token string) error {
		return func([]fakeRow, string) (err error) {
			if len(list) > 0 {
				err, list = list[0], list[1:]
			}
			return err
		}
	}
	// stored stores the first rows of the part, and tells the worker of them if known is set.
	stored := func(rows int, known bool) func(w *worker, s *countingStore, p *part) {
		return func(w *worker, s *countingStore, p *part) {
			w.appendRows(*p)
			s.rows = append(s.rows, w.rows.(*fakeInserter).rows[:rows]...)
			if known {
				p.existing, _ = s.fakeStore.ExistingRows(t.Context(), p.token.block)
			}
		}
	}
	check("the first attempt", all, 0, 0, 1, "", func(*worker, *countingStore, *part) {})
	check("known rows", all-1, 1, 1, 1, "", stored(1, true))
	check("all are known", 0, all, 0, 0, "", stored(all, true))
	check("a failure", all, 0, 1, 1, "attempt=1", func(_ *worker, s *countingStore, _ *part) { s.insert = fails(errPassing) })
	check("two failures", all, 0, 2, 1, "attempt=1", func(_ *worker, s *countingStore, _ *part) { s.insert = fails(errPassing, errPassing) })
	check("a lost answer", all, 0, 1, 1, "attempt=1", func(_ *worker, s *countingStore, _ *part) { s.insert = fails(errAfter) })
	check("rows are stored by an insert that failed twice", all, 0, 1, 1, "although the insert failed", func(_ *worker, s *countingStore, _ *part) {
		s.insert = fails(errPassing, errAfter)
	})
	check("an old failure is verified at once", all, 0, 1, 1, "although the insert failed", func(w *worker, s *countingStore, _ *part) {
		w.cfg.VerifyAfter = time.Millisecond
		s.insert = func([]fakeRow, string) error { time.Sleep(2 * time.Millisecond); return errAfter }
	})
	check("rejected rows that are stored", all, 0, 1, 1, "materialized view", func(_ *worker, s *countingStore, _ *part) {
		s.insert = fails(fmt.Errorf("%w, %w", errPermanent, errAfter))
	})
	check("an acknowledgement without rows", all, 0, 3, 1, "store acknowledged rows that it does not hold", func(_ *worker, s *countingStore, p *part) {
		s.insert = fails(errPassing)
		s.tokens[p.token.String()] = true
	})
	check("a rejected whole of accepted halves", all, 0, 3, 2, "bisecting", func(_ *worker, s *countingStore, _ *part) { s.insert = fails(errPermanent) })
}

// TestStoredRowsAreLookedUpBeforeTheFirstInsert where an earlier one may have stored some: of a block that is replayed, or whose intent is old.
func TestStoredRowsAreLookedUpBeforeTheFirstInsert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(what string, age time.Duration, replayed bool, queries int) {
			t.Helper()
			store := &countingStore{fakeStore: newFakeStore()}
			w, logged := newTestWorker(store)
			producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
			batch := producer.batch(0, 3)
			for _, e := range batch.Events {
				e.Ingested = testStart
			}
			b := &block{from: 3, end: 4, time: testStart, intentTime: time.Now().Add(-age), replayed: replayed}
			b.messages = []message{{record: recordOf(t, 3, batch), batch: batch}}
			if err := w.insertBlock(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if store.count() != 3 || b.counts.rows != 3 || logged.Len() > 0 {
				t.Errorf("%s: %d rows, %d counted, logged %s", what, store.count(), b.counts.rows, logged)
			}
			if before := store.queries - store.verified; before != queries {
				t.Errorf("%s: %d queries before the insert, want %d", what, before, queries)
			}
		}
		verifyAfter := Default().VerifyAfter
		check("a new block", 0, false, 0)
		check("a young intent", verifyAfter, false, 0)
		check("an old intent", verifyAfter+1, false, 1)
		check("a replayed block", 0, true, 1)
	})
}
