package engine

import (
	"slices"

	"tidegate/pipeline"
)

// A life is one process of one collector.
type life struct {
	collector [16]byte
	boot      uint64
}

// seen is what is remembered of a life on this partition: its highest sequence and which of the 64 up to it have come; bit i
// stands for highest−i. A collector has at most 64 batches in flight, so what is older has come.
type seen struct {
	highest, bits uint64
	last          int64 // offset at which it was heard of last
}

// stamps knows the batches that have been taken, so that a producer that sends one again, as kafka-go's does after a time-out and a
// collector after a kill, changes nothing. It is a function of the partition's messages alone, and of its bound.
type stamps struct {
	lives map[life]seen
	max   int
}

func newStamps(limit int) *stamps { return &stamps{lives: map[life]seen{}, max: limit} }

// take tells whether the batch at offset is new, and remembers it.
func (s *stamps) take(st pipeline.Stamp, offset int64) bool {
	k := life{st.Collector, st.Boot}
	v, ok := s.lives[k]
	switch {
	case !ok:
		v = seen{highest: st.Sequence, bits: 1}
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
	v.last = offset
	s.lives[k] = v
	if len(s.lives) > s.max {
		s.shrink()
	}
	return true
}

// knows tells whether anything of a life is remembered.
func (s *stamps) knows(st pipeline.Stamp) bool {
	_, ok := s.lives[life{st.Collector, st.Boot}]
	return ok
}

// restore sets what the store says of a life.
func (s *stamps) restore(k life, highest, bits uint64) {
	s.lives[k] = seen{highest: highest, bits: bits, last: -1}
	if len(s.lives) > s.max {
		s.shrink()
	}
}

// shrink forgets the eighth of the lives that were not heard of for longest.
func (s *stamps) shrink() {
	type old struct {
		life
		last int64
	}
	all := make([]old, 0, len(s.lives))
	for k, v := range s.lives {
		all = append(all, old{k, v.last})
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
		delete(s.lives, o.life)
	}
}
