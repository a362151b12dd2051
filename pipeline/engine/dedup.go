package engine

import (
	"cmp"
	"slices"
	"sort"

	"tidegate/pipeline"
)

// A dedupFilter recognises batches that were accepted before. Producers send a batch twice: kafka-go after a
// timeout, a collector after it was killed. The state of the filter depends only on the messages of the
// partition, on maxProducers and on the rows that were stored at the start, so a replay accepts the same batches.
type dedupFilter struct {
	producers    map[pipeline.Producer]producerState
	maxProducers int
	// stored holds batches that are stored in rows behind the offset at which the worker started, by producer, in
	// ascending order. Unlike a window it says nothing about the batches that it does not hold, because offsets that were
	// set back and forth leave gaps.
	stored map[pipeline.Producer][]sequenceRange
}

// A sequenceRange holds the sequences first to last.
type sequenceRange struct{ first, last uint64 }

// A producerState is the filter's state of one producer: a window of its last 64 sequences. A collector has
// at most 64 batches in flight, so a sequence below the window was seen before.
type producerState struct {
	pipeline.SequenceWindow
	lastOffset int64 // of the producer's last message; -1: restored from the store, no message since
}

func newDedupFilter(maxProducers int) *dedupFilter {
	return &dedupFilter{
		producers: map[pipeline.Producer]producerState{}, maxProducers: maxProducers,
		stored: map[pipeline.Producer][]sequenceRange{},
	}
}

// accept reports whether the batch is new. If so, it marks the batch as seen at offset.
func (f *dedupFilter) accept(id pipeline.BatchID, offset int64) bool {
	key := id.Producer()
	state, known := f.producers[key]
	switch {
	case !known:
		state.Highest, state.Seen = id.Sequence, 1

	case id.Sequence > state.Highest: // above the window: move the window up
		if distance := id.Sequence - state.Highest; distance < 64 {
			state.Seen = state.Seen<<distance | 1
		} else {
			state.Seen = 1 // no sequence of the old window is in the new one
		}
		state.Highest = id.Sequence

	default: // within or below the window
		// Below the window counts as seen; within it, the bit decides.
		distance := state.Highest - id.Sequence
		if distance >= 64 || state.Seen>>distance&1 == 1 {
			return false
		}
		state.Seen |= 1 << distance
	}

	state.lastOffset = offset
	f.setProducer(key, state)
	return !f.isStored(id)
}

// isStored reports whether the batch is one of f.stored.
func (f *dedupFilter) isStored(id pipeline.BatchID) bool {
	ranges := f.stored[id.Producer()]
	i := sort.Search(len(ranges), func(i int) bool { return ranges[i].last >= id.Sequence })
	return i < len(ranges) && ranges[i].first <= id.Sequence
}

// restoreRanges adds batches that are stored. The ranges of a producer are in ascending order.
func (f *dedupFilter) restoreRanges(list []pipeline.SequenceRange) {
	for _, r := range list {
		f.stored[r.Producer] = append(f.stored[r.Producer], sequenceRange{r.First, r.Last})
	}
}

// hasProducer reports whether the filter holds a window of p.
func (f *dedupFilter) hasProducer(p pipeline.Producer) bool {
	_, ok := f.producers[p]
	return ok
}

// replaceRanges sets the batches of one producer that are stored.
func (f *dedupFilter) replaceRanges(producer pipeline.Producer, list []pipeline.SequenceRange) {
	delete(f.stored, producer)
	f.restoreRanges(list)
}

// restoreProducer sets the window of a producer to the batches that the store holds.
func (f *dedupFilter) restoreProducer(stored pipeline.StoredBatches) {
	f.setProducer(stored.Producer, producerState{SequenceWindow: stored.SequenceWindow, lastOffset: -1})
}

func (f *dedupFilter) setProducer(p pipeline.Producer, state producerState) {
	f.producers[p] = state
	if len(f.producers) > f.maxProducers {
		f.evictOldest()
	}
}

// evictOldest drops the eighth of the producers whose last messages are the oldest.
func (f *dedupFilter) evictOldest() {
	type candidate struct {
		pipeline.Producer
		lastOffset int64
	}
	candidates := make([]candidate, 0, len(f.producers))
	for producer, state := range f.producers {
		candidates = append(candidates, candidate{producer, state.lastOffset})
	}
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.lastOffset, b.lastOffset),
			slices.Compare(a.Collector[:], b.Collector[:]), // breaks ties, so that a replay evicts the same ones
			cmp.Compare(a.Epoch, b.Epoch),
		)
	})
	for _, c := range candidates[:max(1, len(candidates)/8)] {
		delete(f.producers, c.Producer)
	}
}
