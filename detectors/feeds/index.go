package feeds

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"unsafe"

	"github.com/bits-and-blooms/bloom/v3"
	"github.com/zeebo/xxh3"
)

// maxFeeds is the number of feeds of a set.
const maxFeeds = 256

// seed keeps what writes a feed or an event from choosing keys of equal hashes.
var seed = rand.Uint64()

// A keyHash stands for the key of an indicator. Of ten million indicators and a key that is none of them, one has its
// hash with a probability of 1e-22.
type keyHash struct {
	hash  uint64
	check uint32
}

func hashKey(key []byte) keyHash {
	sum := xxh3.Hash128Seed(key, seed)
	return keyHash{hash: sum.Hi, check: uint32(sum.Lo)}
}

// An entry is an indicator of a list: entrySize bytes, however long its text is. The fields of its keyHash are its own, since
// one in the entry would be padded.
type entry struct {
	hash   uint64
	check  uint32
	detail uint32 // index in the details of the list
}

const entrySize = int(unsafe.Sizeof(entry{}))

func (e entry) key() keyHash { return keyHash{hash: e.hash, check: e.check} }

// An index finds the indicators of one list. The first byte of a hash selects a bucket, in which the entries are sorted
// by hash. While it is built, each bucket grows alone, so that what append leaves unused and copies is small beside the
// whole.
type index struct {
	buckets [256][]entry
	count   int
}

// add appends an entry. The index answers once finish has sorted it.
func (x *index) add(h keyHash, detail uint32) {
	bucket := &x.buckets[h.hash>>56]
	*bucket = append(*bucket, entry{h.hash, h.check, detail})
	x.count++
}

// finish sorts the entries. Of entries with the same key, the one whose detail prefer orders first stays.
func (x *index) finish(prefer func(a, b uint32) int) {
	x.count = 0
	for i, bucket := range x.buckets {
		slices.SortFunc(bucket, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.check, b.check), prefer(a.detail, b.detail))
		})
		bucket = slices.CompactFunc(bucket, func(a, b entry) bool { return a.key() == b.key() })
		x.buckets[i] = append(make([]entry, 0, len(bucket)), bucket...)
		x.count += len(bucket)
	}
}

// find returns the detail of a key. Hashes are spread evenly, so the first guess is near the entry.
func (x *index) find(h keyHash) (detail uint32, ok bool) {
	bucket := x.buckets[h.hash>>56]
	from, to := 0, len(bucket)
	for to-from > 8 {
		low, high := bucket[from].hash, bucket[to-1].hash
		if h.hash < low || h.hash > high {
			return 0, false
		}
		middle := from + (to-from)/2
		if width := float64(high - low); width > 0 {
			guess := from + int(float64(h.hash-low)/width*float64(to-from-1))
			// A quarter at least is left out, so that no choice of hashes makes the search long.
			middle = min(max(guess, from+(to-from)/4), to-1-(to-from)/4)
		}
		if bucket[middle].hash < h.hash {
			from = middle + 1
		} else {
			to = middle + 1
		}
	}
	for ; from < len(bucket) && bucket[from].hash <= h.hash; from++ {
		if bucket[from].key() == h {
			return bucket[from].detail, true
		}
	}
	return 0, false
}

const (
	// A filter has more bits than it needs, so that a third of the keys at most needs a second one: each is a miss of the
	// cache.
	filterBits   = 16 // for each indicator
	filterHashes = 4

	// falsePositives is the share of keys without an indicator that pass the filter. Each costs a search in every list.
	falsePositives = 0.0024
)

// A filter is a bloom filter of the keys of all lists. It rules out nearly every name and address of ordinary traffic. Its
// places follow from the hashes of keys, which exist anyway; those of bloom.Test would cost as much again.
type filter struct{ *bloom.BloomFilter }

func newFilter(lists []*list) filter {
	total := 0
	for _, list := range lists {
		total += list.index.count
	}
	out := filter{bloom.New(uint(max(total, 64)*filterBits), filterHashes)}
	set := out.BitSet()
	for _, list := range lists {
		for _, bucket := range list.index.buckets {
			for i := range bucket {
				for n := range uint64(filterHashes) {
					set.Set(out.place(bucket[i].key(), n))
				}
			}
		}
	}
	return out
}

// place returns the n-th place of a key.
func (f filter) place(h keyHash, n uint64) uint {
	high, _ := bits.Mul64(h.hash+n*(uint64(h.check)*0x9e3779b97f4a7c15|1), uint64(f.Cap()))
	return uint(high)
}

// mayContain reports whether a key may have an indicator.
func (f filter) mayContain(h keyHash) bool {
	set := f.BitSet()
	for n := range uint64(filterHashes) {
		if !set.Test(f.place(h, n)) {
			return false
		}
	}
	return true
}

// A detail is what a feed says about an indicator. Many indicators share one.
type detail struct {
	expires    int64 // Unix seconds from which on the indicator is not valid; 0: never
	confidence uint8
	source     string
	tags       string // separated by commas
	note       string
}

// maxDetails bounds the details of all feeds. An indicator beyond it has its confidence and expiry only.
const maxDetails = 500_000

// details holds the distinct details of a list.
type details struct {
	all     []detail
	byValue map[detail]uint32 // nil once the list is read
	room    int
	dropped int // indicators whose texts were left out
}

// add returns the index of a detail. It copies the texts that it keeps.
func (d *details) add(value detail) uint32 {
	if at, ok := d.byValue[value]; ok {
		return at
	}
	if len(d.all) >= d.room && (value.source != "" || value.tags != "" || value.note != "") {
		d.dropped++
		return d.add(detail{confidence: value.confidence, expires: value.expires})
	}
	if len(d.all) >= d.room+maxBareDetails {
		// Times of expiry without end: the hour is enough of them, then the day.
		value.expires += 86400 - value.expires%86400
		if at, ok := d.byValue[value]; ok {
			return at
		}
	}
	value.source, value.tags, value.note = strings.Clone(value.source), strings.Clone(value.tags), strings.Clone(value.note)
	if d.byValue == nil {
		d.byValue = map[detail]uint32{}
	}
	at := uint32(len(d.all))
	d.all = append(d.all, value)
	d.byValue[value] = at
	return at
}

// maxBareDetails is the number of details without texts that are kept beyond the others.
const maxBareDetails = 100_000

// prefer orders the indicator first that is valid longer, then the surer one.
func (d *details) prefer(a, b uint32) int {
	if a == b {
		return 0
	}
	first, second := d.all[a], d.all[b]
	if first.expires != second.expires {
		if first.expires == 0 || second.expires == 0 {
			return cmp.Compare(first.expires, second.expires)
		}
		return cmp.Compare(second.expires, first.expires)
	}
	return cmp.Compare(second.confidence, first.confidence)
}
