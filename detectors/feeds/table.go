package feeds

import (
	"math/bits"
	"math/rand/v2"

	"github.com/bits-and-blooms/bloom/v3"
	"github.com/zeebo/xxh3"
)

// A table finds the indicators of a key: a bloom filter, and behind it a hash table with open addressing and linear
// probing. The filter rules out nearly every key, and stays in the cache of a processor where the table does not: it
// has 12 bits an indicator instead of some 100.
//
// A slot of the table is 0 if it is free, else it has the upper bits of the hash, which rule out nearly all other
// keys, the feed, and the index of the indicator in its list, plus 1. A key has at most one slot of each feed. With
// 8 bytes a slot and the keys in the lists, five million indicators take a third of the memory of a map of strings.
type table struct {
	filter *bloom.BloomFilter // of all keys

	slots []uint64 // their number is a power of two
	mask  uint64
	seed  uint64 // the keys of one slot cannot be chosen in advance
	used  int    // number of slots that are not free
}

const (
	indexBits = 28
	feedBits  = 8
	maxFeeds  = 1 << feedBits
	tagShift  = indexBits + feedBits
	indexMask = 1<<indexBits - 1

	// falsePositives is the share of keys without an indicator that pass the filter. Each costs a search of the table.
	falsePositives = 0.003
)

// newTable returns a table of the indicators of all lists.
func newTable(lists []*list) table {
	total := 0
	for _, list := range lists {
		total += len(list.indicators)
	}
	size := uint64(1) << bits.Len64(uint64(max(total, 8))*3/2)
	out := table{
		filter: bloom.NewWithEstimates(uint(max(total, 1024)), falsePositives),
		slots:  make([]uint64, size), mask: size - 1, seed: rand.Uint64(),
	}
	for feed, list := range lists {
		for index := range list.indicators {
			out.insert(lists, feed, index)
		}
	}
	return out
}

// insert enters an indicator. If its feed has the key twice, the indicator of higher confidence stays.
func (t *table) insert(lists []*list, feed, index int) {
	key := lists[feed].key(index)
	t.filter.Add(key)
	at := t.firstCursor(key)
	for ; at.slot != 0; at = t.nextCursor(at) {
		if at.feed() == feed && at.matches(lists, key) {
			if lists[feed].indicators[at.index()].confidence < lists[feed].indicators[index].confidence {
				t.slots[at.place] = at.entry(feed, index)
			}
			return
		}
	}
	t.slots[at.place] = at.entry(feed, index)
	t.used++
}

// A cursor is a place in the table while a key is looked up.
type cursor struct {
	place, slot, tag uint64
}

// mayContain reports whether key may have an indicator. It is false for nearly all keys without one.
func (t *table) mayContain(key []byte) bool { return t.filter.Test(key) }

// firstCursor returns the first place of a key.
func (t *table) firstCursor(key []byte) cursor {
	hash := xxh3.HashSeed(key, t.seed)
	place := hash & t.mask
	return cursor{place: place, slot: t.slots[place], tag: hash >> tagShift}
}

// nextCursor returns the next place. A third of the slots at least is free, so each search ends.
func (t *table) nextCursor(at cursor) cursor {
	at.place = (at.place + 1) & t.mask
	at.slot = t.slots[at.place]
	return at
}

func (c cursor) feed() int  { return int(c.slot >> indexBits & (maxFeeds - 1)) }
func (c cursor) index() int { return int(c.slot&indexMask) - 1 }

// matches reports whether the slot holds an indicator of key.
func (c cursor) matches(lists []*list, key []byte) bool {
	return c.slot>>tagShift == c.tag && string(lists[c.feed()].key(c.index())) == string(key)
}

// entry returns the slot of an indicator with the key of the cursor.
func (c cursor) entry(feed, index int) uint64 {
	return c.tag<<tagShift | uint64(feed)<<indexBits | uint64(index+1)
}
