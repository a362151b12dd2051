package engine

import (
	"slices"

	"tidegate/pipeline"
)

// A producer is one process of one collector.
type producer struct {
	collector [16]byte
	boot      uint64
}

// sequenceWindow is what is remembered of a life on this partition: its highest sequence and which of the 64 up to it have come; bit i
// stands for highest−i. A collector has at most 64 batches in flight, so what is older has come.
type sequenceWindow struct {
	highest, bits uint64
	lastOffset    int64 // offset at which it was heard of last
}

// dedupFilter knows the batches that have been taken, so that a producer that sends one again, as kafka-go's does after a time-out and a
// collector after a kill, changes nothing. It is a function of the partition's messages alone, and of its bound.
type dedupFilter struct {
	producers    map[producer]sequenceWindow
	maxProducers int
}

func newDedupFilter(limit int) *dedupFilter {
	return &dedupFilter{producers: map[producer]sequenceWindow{}, maxProducers: limit}
}

// accept tells whether the batch at offset is new, and remembers it.
func (s *dedupFilter) accept(st pipeline.BatchID, offset int64) bool {
	k := producer{st.Collector, st.Epoch}
	v, ok := s.producers[k]
	switch {
	case !ok:
		v = sequenceWindow{highest: st.Sequence, bits: 1}
	case st.Sequence > v.highest:
		if d := st.Sequence - v.highest; d < 64 {
			v.bits = v.bits<<d | 1
		} else {
			v.bits = 1
		}
		v.highest = st.Sequence
	default:
		d := v.highest - st.Sequence
		if d >= 64 || v.bits>>d&1 == 1 {
			return false
		}
		v.bits |= 1 << d
	}
	v.lastOffset = offset
	s.producers[k] = v
	if len(s.producers) > s.maxProducers {
		s.evictOldest()
	}
	return true
}

// hasProducer tells whether anything of a life is remembered.
func (s *dedupFilter) hasProducer(st pipeline.BatchID) bool {
	_, ok := s.producers[producer{st.Collector, st.Epoch}]
	return ok
}

// restoreProducer sets what the store says of a life.
func (s *dedupFilter) restoreProducer(k producer, highest, bits uint64) {
	s.producers[k] = sequenceWindow{highest: highest, bits: bits, lastOffset: -1}
	if len(s.producers) > s.maxProducers {
		s.evictOldest()
	}
}

// evictOldest forgets the eighth of the lives that were not heard of for longest.
func (s *dedupFilter) evictOldest() {
	type old struct {
		producer
		last int64
	}
	all := make([]old, 0, len(s.producers))
	for k, v := range s.producers {
		all = append(all, old{k, v.lastOffset})
	}
	slices.SortFunc(all, func(a, b old) int {
		if a.last != b.last {
			return int(min(max(a.last-b.last, -1), 1))
		}
		if c := slices.Compare(a.collector[:], b.collector[:]); c != 0 {
			return c
		}
		if a.boot < b.boot {
			return -1
		}
		return 1
	})
	for _, o := range all[:max(1, len(all)/8)] {
		delete(s.producers, o.producer)
	}
}
