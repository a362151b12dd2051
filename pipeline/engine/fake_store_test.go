package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tidegate/pipeline"
)

// A fakeStore keeps rows in memory and behaves as Store promises. Its hooks make inserts fail.
type fakeStore struct {
	mu     sync.Mutex
	rows   []fakeRow
	tokens map[string]bool
	order  []string // tokens of the inserts that were stored
	alerts map[string]pipeline.Alert

	insert        func(rows []fakeRow, token string) error // called before an insert; with errAfter the insert is stored and fails
	insertAlerts  func(token string) (keep bool, err error)
	keepsNoTokens bool
}

type fakeRow struct {
	pipeline.Position
	id       string
	ingested int64
	message  string
	rules    []string
	group    string
}

var (
	errPermanent = fmt.Errorf("for good: %w", pipeline.ErrRowsRejected)
	errPassing   = errors.New("temporary")
	errAfter     = errors.New("the answer was lost")
)

func newFakeStore() *fakeStore {
	return &fakeStore{tokens: map[string]bool{}, alerts: map[string]pipeline.Alert{}}
}

// fakeInserter is an inserter of a fakeStore.
type fakeInserter struct {
	store *fakeStore
	rows  []fakeRow
}

func (s *fakeStore) NewInserter() pipeline.EventInserter { return &fakeInserter{store: s} }

func (i *fakeInserter) Append(e *pipeline.Event, at pipeline.Position, _ string) {
	r := fakeRow{Position: at, id: fmt.Sprintf("%x", e.Id), ingested: e.Ingested, message: strings.Clone(e.GetLog().GetMessage()), group: strings.Clone(e.GetContainer().GetName())}
	for _, v := range e.Verdicts {
		r.rules = append(r.rules, v.Rule)
	}
	i.rows = append(i.rows, r)
}
func (i *fakeInserter) Rows() int { return len(i.rows) }
func (i *fakeInserter) Reset()    { i.rows = nil }

func (i *fakeInserter) Insert(_ context.Context, token string) error {
	s := i.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var after error
	if s.insert != nil {
		err := s.insert(i.rows, token)
		if after = err; err != nil && !errors.Is(err, errAfter) {
			return err
		}
	}
	if !s.tokens[token] {
		s.tokens[token] = !s.keepsNoTokens
		s.order = append(s.order, token)
		s.rows = append(s.rows, i.rows...)
	}
	return after
}

func (s *fakeStore) AckedRowsMayBeLost() bool { return true }

func (s *fakeStore) snapshot() []fakeRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

func (s *fakeStore) count() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.rows) }

func (s *fakeStore) ExistingRows(_ context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	existing := map[pipeline.RowID]struct{}{}
	for _, r := range s.snapshot() {
		if r.Partition == block.Partition && r.Offset >= block.Start && r.Offset < block.End && r.ingested == block.Time {
			existing[pipeline.RowID{Offset: r.Offset, Index: r.Index}] = struct{}{}
		}
	}
	return existing, nil
}

func (s *fakeStore) HighestOffset(_ context.Context, from pipeline.TopicPartition) (offset int64, ok bool, err error) {
	for _, r := range s.snapshot() {
		if r.Partition == from.Partition {
			offset, ok = max(offset, r.Offset), true
		}
	}
	return offset, ok, nil
}

func (s *fakeStore) StoredBatches(_ context.Context, filter pipeline.BatchFilter) (list []pipeline.StoredBatches, err error) {
	byProducer := map[pipeline.Producer]map[uint64]bool{}
	for _, r := range s.snapshot() {
		if r.Partition != filter.Partition || r.Offset >= filter.Before || !filter.Since.IsZero() && r.ingested < filter.Since.UnixNano() {
			continue
		}
		p := r.Producer()
		if filter.Producer != nil && *filter.Producer != p {
			continue
		}
		if byProducer[p] == nil {
			byProducer[p] = map[uint64]bool{}
		}
		byProducer[p][r.Sequence] = true
	}
	for p, sequences := range byProducer {
		stored := pipeline.StoredBatches{Producer: p}
		for q := range sequences {
			stored.Highest = max(stored.Highest, q)
		}
		for q := range sequences {
			if d := stored.Highest - q; d < 64 {
				stored.Seen |= 1 << d
			}
		}
		list = append(list, stored)
	}
	return list, nil
}

func (s *fakeStore) InsertAlerts(_ context.Context, list []*pipeline.Alert, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.insertAlerts != nil {
		if keep, err := s.insertAlerts(token); err != nil || !keep {
			return err
		}
	}
	for _, a := range list {
		s.alerts[fmt.Sprintf("%s/%d", a.ID, a.Revision)] = *a
	}
	return nil
}

func (s *fakeStore) AlertsBefore(_ context.Context, partition int32, before int64, lookback time.Duration) ([]*pipeline.Alert, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := map[string]pipeline.Alert{}
	var high time.Time
	for _, a := range s.alerts {
		if a.Partition == partition && a.Offset < before {
			if a.WindowStart.After(high) {
				high = a.WindowStart
			}
			if a.Revision > last[a.ID].Revision {
				last[a.ID] = a
			}
		}
	}
	var out []*pipeline.Alert
	for _, a := range last {
		if a.WindowStart.After(high.Add(-lookback)) {
			out = append(out, &a)
		}
	}
	return out, nil
}
