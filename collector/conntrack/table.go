//go:build linux

package conntrack

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"unsafe"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
)

// An address is an IP address and a port without a pointer, so that the garbage collector does not look into the table.
type address struct {
	ip   [16]byte // IPv4 as the IPv4-mapped address
	port uint16
}

func addressOf(a netip.AddrPort) address { return address{a.Addr().As16(), a.Port()} }

func (a address) addrPort() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.ip).Unmap(), a.port)
}

// A tuple is one direction of a connection, as the kernel's table lists it.
type tuple struct {
	src, dst address
	proto    uint8 // a pipeline.Transport
}

func tupleOf(proto pipeline.Transport, src, dst netip.AddrPort) tuple {
	return tuple{addressOf(src), addressOf(dst), uint8(proto)}
}

// A record is one connection of the kernel's table under one of its two tuples. A shard keeps it in one of two lists:
// that of the connections that are alive, or that of those that the kernel has destroyed.
type record struct {
	since      int64 // ns since 1970: when the kernel last announced or listed it, or when it was destroyed
	tuple      tuple
	other      [2]address // src and dst of the other tuple
	hash       uint32
	isReply    bool // tuple is the reply tuple
	list       listKind
	prev, next uint32 // records of the list, plus one; 0: none
}

// mapping returns the addresses on both sides of NAT.
//
// Client and Server are the addresses inside NAT, as on a bridge: the source of the original tuple (before SNAT) and
// the source of the reply tuple (after DNAT). The addresses outside NAT are the destinations of the two tuples.
func (r *record) mapping() sessions.Mapping {
	orig, reply := [2]address{r.tuple.src, r.tuple.dst}, r.other
	if r.isReply {
		orig, reply = reply, orig
	}
	return sessions.Mapping{
		Client: orig[0].addrPort(), Server: reply[0].addrPort(),
		OutsideClient: reply[1].addrPort(), OutsideServer: orig[1].addrPort(),
	}
}

type listKind uint8

const (
	alive     listKind = iota // ordered by the time of the last announcement
	destroyed                 // ordered by the time of destruction
	numLists
)

// A list has the ends of a list of records, plus one; 0: it is empty.
type list struct{ oldest, newest uint32 }

const (
	chunkRecords = 128
	minSlots     = 64
	recordBytes  = int64(unsafe.Sizeof(record{}))
	chunkBytes   = chunkRecords * recordBytes
	slotBytes    = int64(unsafe.Sizeof(slot{}))
)

// A slot of the hash index of a shard: a record, plus one, and bits of its hash, which save most comparisons of tuples
// that differ. record is 0 if the slot is free.
type slot struct{ hash, record uint32 }

// A shard holds the records with one hash, in chunks without holes: the last record takes the place of one that is
// removed, so that the memory of a shard shrinks with the number of its records. mu guards all.
type shard struct {
	mu     sync.RWMutex
	chunks []*[chunkRecords]record
	size   uint32
	slots  []slot // open addressing with linear probing; the length is 0 or a power of two
	lists  [numLists]list
}

// A table holds the tuples. Only one goroutine changes it; any may look up.
type table struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

// hash returns the shard of a tuple and the hash for its index. It covers the whole tuple: a scan, whose tuples differ in
// one address or port only, fills all shards. Both directions of a connection need not be in one shard.
func (t *table) hash(k *tuple) (*shard, uint32) {
	hash := maphash.Comparable(t.seed, *k)
	return &t.shards[hash%shardCount], uint32(hash >> 32)
}

// lookup returns the mapping of the connection with the tuple k.
func (t *table) lookup(k tuple) (mapping sessions.Mapping, ok bool) {
	shard, hash := t.hash(&k)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if at, found := shard.find(&k, hash); found {
		return shard.record(shard.slots[at].record).mapping(), true
	}
	return mapping, false
}

// record returns a record by its number plus one.
func (s *shard) record(number uint32) *record {
	number--
	return &s.chunks[number/chunkRecords][number%chunkRecords]
}

// find returns the slot of k, or the free one where it would be.
func (s *shard) find(k *tuple, hash uint32) (at uint32, found bool) {
	mask := uint32(len(s.slots) - 1)
	if len(s.slots) == 0 {
		return 0, false
	}
	for at = hash & mask; s.slots[at].record != 0; at = (at + 1) & mask {
		if s.slots[at].hash == hash && s.record(s.slots[at].record).tuple == *k {
			return at, true
		}
	}
	return at, false
}

// bytes returns the memory of the shard.
func (s *shard) bytes() int64 { return int64(len(s.chunks))*chunkBytes + int64(len(s.slots))*slotBytes }

// put stores a connection under k, alive since now. isNew is false if k was there.
func (s *shard) put(k *tuple, hash uint32, other [2]address, isReply bool, now int64) (isNew bool) {
	at, found := s.find(k, hash)
	if !found {
		if s.size++; int(s.size) > len(s.slots)/4*3 {
			s.resize(max(minSlots, 2*len(s.slots)))
			at, _ = s.find(k, hash)
		}
		if int(s.size) > len(s.chunks)*chunkRecords {
			s.chunks = append(s.chunks, new([chunkRecords]record))
		}
		s.slots[at] = slot{hash, s.size}
		*s.record(s.size) = record{tuple: *k, hash: hash}
	} else {
		s.unlink(s.slots[at].record)
	}
	r := s.record(s.slots[at].record)
	r.other, r.isReply, r.since, r.list = other, isReply, now, alive
	s.link(s.slots[at].record)
	return !found
}

// destroy marks the connection with the tuple k, if there is one, as destroyed at a time.
func (s *shard) destroy(k *tuple, hash uint32, now int64) {
	if at, found := s.find(k, hash); found && s.record(s.slots[at].record).list == alive {
		s.moveToDestroyed(s.slots[at].record, now)
	}
}

func (s *shard) moveToDestroyed(number uint32, now int64) {
	s.unlink(number)
	r := s.record(number)
	r.list, r.since = destroyed, now
	s.link(number)
}

// destroyBefore marks the connections that are alive and were announced last before start as destroyed now.
func (s *shard) destroyBefore(start, now int64) {
	for number := s.lists[alive].oldest; number != 0 && s.record(number).since < start; number = s.lists[alive].oldest {
		s.moveToDestroyed(number, now)
	}
}

// expire removes the connections that were destroyed before a time, and returns their number.
func (s *shard) expire(before int64) (removed int) {
	for number := s.lists[destroyed].oldest; number != 0 && s.record(number).since <= before; number = s.lists[destroyed].oldest {
		s.remove(number)
		removed++
	}
	return removed
}

// removeOldest removes up to n connections: those that were destroyed first, then those that were announced first. It
// returns how many it has removed.
func (s *shard) removeOldest(n int) (removed int) {
	for ; removed < n && s.size > 0; removed++ {
		if s.lists[destroyed].oldest != 0 {
			s.remove(s.lists[destroyed].oldest)
		} else {
			s.remove(s.lists[alive].oldest)
		}
	}
	return removed
}

// link appends a record to its list.
func (s *shard) link(number uint32) {
	r := s.record(number)
	ends := &s.lists[r.list]
	r.prev, r.next = ends.newest, 0
	if r.prev != 0 {
		s.record(r.prev).next = number
	} else {
		ends.oldest = number
	}
	ends.newest = number
}

// unlink takes a record out of its list.
func (s *shard) unlink(number uint32) {
	r := s.record(number)
	s.replaceInList(r, r.next, r.prev)
}

// replaceInList makes before the successor of the record in front of r in its list, and after the predecessor of the one
// behind r.
func (s *shard) replaceInList(r *record, before, after uint32) {
	ends := &s.lists[r.list]
	if r.prev != 0 {
		s.record(r.prev).next = before
	} else {
		ends.oldest = before
	}
	if r.next != 0 {
		s.record(r.next).prev = after
	} else {
		ends.newest = after
	}
}

// remove deletes a record. The last one takes its place.
func (s *shard) remove(number uint32) {
	s.unlink(number)
	s.freeSlot(s.slotOf(number))
	if last := s.size; last != number {
		s.slots[s.slotOf(last)].record = number
		moved := s.record(last)
		s.replaceInList(moved, number, number)
		*s.record(number) = *moved
	}
	s.size--

	// One spare chunk stays, and the index shrinks late, so that a number of records that goes up and down costs nothing.
	if spare := int(s.size)/chunkRecords + 2; len(s.chunks) > spare {
		s.chunks[spare] = nil
		s.chunks = s.chunks[:spare]
	}
	if len(s.slots) > minSlots && int(s.size) < len(s.slots)/8 {
		s.resize(len(s.slots) / 2)
	}
}

// slotOf returns the slot of a record.
func (s *shard) slotOf(number uint32) uint32 {
	mask := uint32(len(s.slots) - 1)
	at := s.record(number).hash & mask
	for s.slots[at].record != number {
		at = (at + 1) & mask
	}
	return at
}

// freeSlot frees a slot and moves those behind it that are not in their place because of it.
func (s *shard) freeSlot(at uint32) {
	mask := uint32(len(s.slots) - 1)
	for next := (at + 1) & mask; s.slots[next].record != 0; next = (next + 1) & mask {
		if wanted := s.slots[next].hash & mask; (next-wanted)&mask >= (next-at)&mask {
			s.slots[at] = s.slots[next]
			at = next
		}
	}
	s.slots[at] = slot{}
}

// resize makes an index of n slots.
func (s *shard) resize(n int) {
	old := s.slots
	s.slots = make([]slot, n)
	mask := uint32(n - 1)
	for _, used := range old {
		if used.record == 0 {
			continue
		}
		at := used.hash & mask
		for s.slots[at].record != 0 {
			at = (at + 1) & mask
		}
		s.slots[at] = used
	}
}
