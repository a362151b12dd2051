package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tidegate/pipeline"
)

// A fakeStore keeps rows in memory and follows the contract of Store. Its hooks make inserts fail.
type fakeStore struct {
	mu     sync.Mutex
	rows   []fakeRow
	tokens map[string]bool
	order  []string // tokens of the inserts that were stored
	alerts map[string]pipeline.Alert
	seen   map[pipeline.SeenValue]string // the topic

	// insert is called before an insert. The insert fails with its error; after errAfter the rows are stored
	// too.
	insert func(rows []fakeRow, token string) error
	// insertAlerts is called before an insert of alerts. They are stored if keep is set.
	insertAlerts func(token string) (keep bool, err error)
	// keepsNoTokens makes the store take an insert with a known token.
	keepsNoTokens bool
}

// A fakeRow holds what tests check of a stored event.
type fakeRow struct {
	pipeline.Position
	id       string
	ingested int64
	message  string
	rules    []string
	group    string
	event    *pipeline.Event // its time and verdicts, if it has some
}

var (
	errPermanent = fmt.Errorf("for good: %w", pipeline.ErrRowsRejected)
	errPassing   = errors.New("temporary")
	errAfter     = errors.New("the answer was lost")
)

func newFakeStore() *fakeStore {
	return &fakeStore{tokens: map[string]bool{}, alerts: map[string]pipeline.Alert{}, seen: map[pipeline.SeenValue]string{}}
}

// fakeInserter is an inserter of a fakeStore.
type fakeInserter struct {
	store *fakeStore
	rows  []fakeRow
}

func (s *fakeStore) NewInserter() pipeline.EventInserter { return &fakeInserter{store: s} }

func (i *fakeInserter) Append(e *pipeline.Event, at pipeline.Position, _ string) {
	// The strings of an event are valid until Append returns only.
	row := fakeRow{
		Position: at, id: fmt.Sprintf("%x", e.Id), ingested: e.Ingested,
		message: strings.Clone(e.GetLog().GetMessage()), group: strings.Clone(e.GetContainer().GetName()),
	}
	if len(e.Verdicts) > 0 {
		row.event = &pipeline.Event{
			Id: slices.Clone(e.Id), Timestamp: e.Timestamp, Ingested: e.Ingested, Dataset: e.Dataset,
			Verdicts: slices.Clone(e.Verdicts),
		}
	}
	for _, v := range e.Verdicts {
		row.rules = append(row.rules, v.Rule)
	}
	i.rows = append(i.rows, row)
}

func (i *fakeInserter) Rows() int     { return len(i.rows) }
func (i *fakeInserter) Reset()        { i.rows = nil }
func (i *fakeInserter) Capacity() int { return 0 }

func (i *fakeInserter) Insert(_ context.Context, token string) error {
	store := i.store
	store.mu.Lock()
	defer store.mu.Unlock()
	var after error
	if store.insert != nil {
		err := store.insert(i.rows, token)
		if after = err; err != nil && !errors.Is(err, errAfter) {
			return err
		}
	}
	if !store.tokens[token] {
		store.tokens[token] = !store.keepsNoTokens
		store.order = append(store.order, token)
		store.rows = append(store.rows, i.rows...)
	}
	return after
}

func (s *fakeStore) AckedRowsMayBeLost() bool { return true }

// snapshot returns a copy of the stored rows.
func (s *fakeStore) snapshot() []fakeRow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

// count returns the number of stored rows.
func (s *fakeStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rows)
}

func (s *fakeStore) ExistingRows(_ context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	existing := map[pipeline.RowID]struct{}{}
	for _, row := range s.snapshot() {
		inBlock := row.Offset >= block.Start && row.Offset < block.End && row.ingested == block.Time
		if row.Partition == block.Partition && inBlock {
			existing[pipeline.RowID{Offset: row.Offset, Index: row.Index}] = struct{}{}
		}
	}
	return existing, nil
}

func (s *fakeStore) NewestRows(
	_ context.Context, from pipeline.TopicPartition, end int64,
) (newest pipeline.NewestRows, ok bool, err error) {
	for _, row := range s.snapshot() {
		if row.Partition != from.Partition {
			continue
		}
		if !ok || row.Offset >= newest.Highest {
			newest.Highest, ok = row.Offset, true
		}
		newest.LastTime = max(newest.LastTime, row.ingested)
		if row.Offset < end && row.ingested >= newest.InLog.BlockTime {
			newest.HasInLog = true
			newest.InLog = pipeline.LogRow{Offset: row.Offset, BlockTime: row.ingested, BatchID: row.BatchID}
		}
	}
	return newest, ok, nil
}

func (s *fakeStore) RunningInserts(context.Context, pipeline.TopicPartition) (int, error) {
	return 0, nil
}

func (s *fakeStore) StoredBlock(
	_ context.Context, from pipeline.TopicPartition, blockTime int64,
) (block pipeline.StoredBlock, err error) {
	earlier := int64(0) // time of the block before
	for _, row := range s.snapshot() {
		if row.Partition == from.Partition && row.ingested < blockTime && row.ingested >= earlier {
			block.EarlierEnd, earlier = row.Offset+1, row.ingested
		}
		if row.Partition != from.Partition || row.ingested != blockTime {
			continue
		}
		if block.End == 0 {
			block.Start = row.Offset
		}
		block.Start, block.End = min(block.Start, row.Offset), max(block.End, row.Offset+1)
		block.HasVerdicts = block.HasVerdicts || len(row.rules) > 0
	}
	return block, nil
}

// StoredVerdicts returns events with the values that tests check.
func (s *fakeStore) StoredVerdicts(
	_ context.Context, block pipeline.BlockID, addEvent func(event *pipeline.Event, at pipeline.Position),
) error {
	for _, row := range s.snapshot() {
		if row.Partition == block.Partition && row.ingested == block.Time && row.event != nil {
			addEvent(row.event, row.Position)
		}
	}
	return nil
}

// selects reports whether a filter selects a row.
func selects(filter pipeline.BatchFilter, row fakeRow) bool {
	return row.Partition == filter.Partition && row.Offset >= filter.From && row.Offset < filter.Before &&
		(filter.Except == 0 || row.ingested != filter.Except) &&
		(filter.Since.IsZero() || row.ingested >= filter.Since.UnixNano()) &&
		(filter.Producer == nil || *filter.Producer == row.Producer())
}

// SequenceRanges returns a range for each sequence.
func (s *fakeStore) SequenceRanges(
	_ context.Context, filter pipeline.BatchFilter,
) (list []pipeline.SequenceRange, err error) {
	seen := map[pipeline.SequenceRange]bool{}
	for _, row := range s.snapshot() {
		stored := pipeline.SequenceRange{Producer: row.Producer(), First: row.Sequence, Last: row.Sequence}
		if selects(filter, row) && !seen[stored] {
			seen[stored] = true
			list = append(list, stored)
		}
	}
	slices.SortFunc(list, func(a, b pipeline.SequenceRange) int { return cmp.Compare(a.First, b.First) })
	return list, nil
}

func (s *fakeStore) StoredBatches(
	_ context.Context, filter pipeline.BatchFilter,
) (list []pipeline.StoredBatches, err error) {
	// Collect the sequences of the rows that pass the filter.
	byProducer := map[pipeline.Producer]map[uint64]bool{}
	for _, row := range s.snapshot() {
		if !selects(filter, row) {
			continue
		}
		producer := row.Producer()
		if byProducer[producer] == nil {
			byProducer[producer] = map[uint64]bool{}
		}
		byProducer[producer][row.Sequence] = true
	}

	// Bit d of Seen stands for the sequence d below the highest one.
	for producer, sequences := range byProducer {
		stored := pipeline.StoredBatches{Producer: producer}
		for sequence := range sequences {
			stored.Highest = max(stored.Highest, sequence)
		}
		for sequence := range sequences {
			if distance := stored.Highest - sequence; distance < 64 {
				stored.Seen |= 1 << distance
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
	for _, alert := range list {
		s.alerts[fmt.Sprintf("%s/%d", alert.ID, alert.Revision)] = *alert
	}
	return nil
}

func (s *fakeStore) NewestAlerts(_ context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := map[string]pipeline.Alert{} // the newest revision by ID
	var high time.Time                  // the newest start of a window
	for _, alert := range s.alerts {
		isLater := !filter.Latest.IsZero() && alert.WindowStart.After(filter.Latest)
		isExcepted := filter.Except.Time != 0 && alert.Ingested.UnixNano() == filter.Except.Time
		isOther := alert.Topic != filter.Topic && alert.Topic != ""
		if !isOther && alert.Partition == filter.Partition && !isExcepted && !isLater {
			if alert.WindowStart.After(high) {
				high = alert.WindowStart
			}
			if alert.Revision > last[alert.ID].Revision {
				last[alert.ID] = alert
			}
		}
	}
	var out []*pipeline.Alert
	for _, alert := range last {
		if alert.WindowStart.After(high.Add(-filter.Lookback)) {
			out = append(out, &alert)
		}
	}
	return out, nil
}

func (s *fakeStore) InsertSeenValues(_ context.Context, topic string, values []pipeline.SeenValue) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seen := range values {
		s.seen[seen] = topic
	}
	return nil
}

// SeenValues keeps to the contract, but for the limit.
func (s *fakeStore) SeenValues(_ context.Context, filter pipeline.SeenFilter, add func(pipeline.SeenValue)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, isGroup := range []bool{true, false} {
		for seen, topic := range s.seen {
			isOf := topic == filter.Topic && seen.Rule == filter.Rule && seen.Version == filter.Version
			if isOf && seen.IsGroup() == isGroup && seen.Group%uint64(filter.Partitions) == uint64(filter.Partition) {
				add(seen)
			}
		}
	}
	return nil
}
