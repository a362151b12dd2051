package sessions

import (
	"slices"

	"tidegate/collector/reassembly"
	"tidegate/pipeline/memory"
)

// A fragKey identifies the datagram of a fragment by the fields that RFC 791 and RFC 8200 name, by the
// interface, and by the tunnel around it.
type fragKey struct {
	src, dst addr
	tunnel   uint64 // tunnel.key
	id       uint32
	proto    uint8
	v6       bool
	iface    uint16
}

// An ipFragment is one captured fragment.
type ipFragment struct {
	key  fragKey
	off  int    // of b in the datagram
	more bool   // more fragments follow
	b    []byte // as captured; valid during the call
	wire int    // length of the fragment's data on the wire
}

// A datagram is an incomplete IP datagram and the fragments of it that were captured.
type datagram struct {
	key      fragKey
	parts    []datagramPart // in the order of their offset, without overlaps
	end      int            // its length; -1 while the last fragment is missing
	received int            // bytes in parts
	cost     int            // memory charged for the buffers of parts
	due      int64          // clock: when it times out; 0 if it is complete
	conflict bool           // fragments overlap and have different bytes
	invalid  bool           // its fragments contradict each other; later ones are ignored until it times out
}

// A datagramPart is a run of bytes of a datagram.
type datagramPart struct {
	off int
	b   []byte // from defragmenter.buffers
}

// Bounds of a datagram: the largest length of IP, and more fragments than any network produces.
const (
	maxDatagram  = 65535
	maxFragments = 256
)

// maxDatagramQueue bounds the queue of datagrams. A complete datagram stays in the queue until all datagrams
// before it are gone.
const maxDatagramQueue = 64 << 10

// A defragmenter holds the fragments of IPv4 and IPv6 datagrams until the datagrams are complete.
type defragmenter struct {
	limit   int   // bound on cost
	timeout int64 // ns
	buffers *reassembly.Buffers
	metrics *tableMetrics
	memory  *memory.Account // charged with cost

	datagrams map[fragKey]*datagram
	queue     []*datagram // in the order of due; the first is queue[front]
	front     int
	cost      int      // sum of the costs of all datagrams
	complete  [][]byte // buffers of the datagrams that the current packet has completed
	conflict  bool     // fragments of the last complete datagram overlapped and had different bytes
}

func newDefragmenter(cfg *Config, buffers *reassembly.Buffers, m *tableMetrics) defragmenter {
	return defragmenter{
		limit: int(cfg.FragmentBytes), timeout: int64(cfg.FragmentTimeout), buffers: buffers, metrics: m,
		datagrams: map[fragKey]*datagram{},
	}
}

// addFragment stores a fragment. If the fragment completes its datagram, addFragment returns the datagram,
// which is valid until releaseComplete. Otherwise it returns nil and the result under which the packet is
// counted.
func (f *defragmenter) addFragment(now int64, in ipFragment) ([]byte, result) {
	end := in.off + in.wire
	if in.wire <= 0 || len(in.b) < in.wire || end > maxDatagram || in.more && in.wire%8 != 0 {
		return nil, resBadFragment
	}

	// Find its datagram, or begin one.
	target := f.datagrams[in.key]
	if target == nil {
		target = &datagram{key: in.key, end: -1, due: now + f.timeout}
		f.datagrams[in.key] = target
		f.queue = append(f.queue, target)
		f.chargeCost(target, reassembly.BufferOverhead)
		if len(f.queue)-f.front > maxDatagramQueue {
			f.removeOldest(f.metrics.fragmentsLimit)
		}
	}
	if target.invalid {
		return nil, resBadFragment
	}

	// All fragments must agree on the end of the datagram, which the last one determines.
	if !in.more && target.end >= 0 && target.end != end || target.end >= 0 && end > target.end {
		return nil, f.invalidate(target)
	}
	if !in.more {
		target.end = end
	}
	if res := f.insertPart(target, in.b[:in.wire], in.off); res != resFragment {
		return nil, res
	}

	// The parts do not overlap. So the datagram is complete when they hold as many bytes as it is long.
	if n := len(target.parts); target.end < 0 || target.received < target.end ||
		target.parts[n-1].off+len(target.parts[n-1].b) != target.end {
		f.enforceLimit()
		return nil, resFragment
	}
	whole := f.buffers.Get(target.end)
	for _, part := range target.parts {
		copy(whole[part.off:], part.b)
	}
	f.complete, f.conflict = append(f.complete, whole), target.conflict
	f.removeDatagram(target)
	return whole, resFragment
}

// insertPart stores those bytes of data, which begins at off, that are not in d yet. In IPv4 the bytes that
// came first stay. In IPv6 an overlap invalidates the datagram (RFC 5722), except that a fragment may come
// twice.
func (f *defragmenter) insertPart(d *datagram, data []byte, off int) result {
	end := off + len(data)

	// Walk the parts that data overlaps, in order. After each turn data begins at off, and all bytes before
	// off are in d.
	for i := 0; i < len(d.parts) && off < end; i++ {
		part := d.parts[i]
		partEnd := part.off + len(part.b)
		if partEnd <= off {
			continue
		}
		if part.off >= end {
			break
		}
		same := part.off == off && partEnd == end
		if d.key.v6 && !same {
			return f.invalidate(d)
		}
		lo, hi := max(off, part.off), min(end, partEnd)
		if string(data[lo-off:hi-off]) != string(part.b[lo-part.off:hi-part.off]) {
			f.metrics.conflicts.Inc()
			d.conflict = true
		}
		if off < part.off { // a hole before part: fill it; part is then at i+1
			if len(d.parts) >= maxFragments {
				return f.invalidate(d)
			}
			d.parts = slices.Insert(d.parts, i, f.newPart(d, data[:part.off-off], off))
			i++
		}
		if partEnd >= end {
			return resFragment
		}
		data, off = data[partEnd-off:], partEnd
	}

	// The rest of data overlaps no part. Fragments mostly come in order, so search its place from the end.
	if len(d.parts) >= maxFragments {
		return f.invalidate(d)
	}
	at := len(d.parts)
	for at > 0 && d.parts[at-1].off > off {
		at--
	}
	d.parts = slices.Insert(d.parts, at, f.newPart(d, data, off))
	return resFragment
}

// newPart returns a part at off with a copy of data, charged to d.
func (f *defragmenter) newPart(d *datagram, data []byte, off int) datagramPart {
	kept := f.buffers.Get(len(data))
	copy(kept, data)
	d.received += len(data)
	f.chargeCost(d, reassembly.BufferCost(len(data)))
	return datagramPart{off, kept}
}

// chargeCost adds n bytes, which may be negative, to the memory that d is charged.
func (f *defragmenter) chargeCost(d *datagram, n int) {
	d.cost += n
	f.cost += n
	f.memory.Add(int64(n))
}

// invalidate drops the parts of d. Later fragments of d are ignored until d times out.
func (f *defragmenter) invalidate(d *datagram) result {
	f.releaseParts(d)
	d.invalid = true
	f.chargeCost(d, reassembly.BufferOverhead)
	return resBadFragment
}

// releaseParts returns the buffers of d to the pool.
func (f *defragmenter) releaseParts(d *datagram) {
	for _, part := range d.parts {
		f.buffers.Put(part.b)
	}
	f.chargeCost(d, -d.cost)
	d.parts, d.received = nil, 0
}

// removeDatagram ends a complete or expired datagram. Its place in the queue is freed by removeOldest.
func (f *defragmenter) removeDatagram(d *datagram) {
	f.releaseParts(d)
	delete(f.datagrams, d.key)
	d.due = 0
}

// enforceLimit drops the oldest datagrams until the bounds on memory and on the queue hold.
func (f *defragmenter) enforceLimit() {
	for f.front < len(f.queue) {
		excess := f.memory.Excess()
		if f.cost <= f.limit && len(f.queue)-f.front <= maxDatagramQueue && excess == 0 {
			return
		}
		before := f.cost
		f.removeOldest(f.metrics.fragmentsLimit)
		if excess > 0 {
			f.memory.GaveUp(int64(before - f.cost))
		}
	}
}

// expire drops the datagrams that have timed out.
func (f *defragmenter) expire(now int64) {
	for f.front < len(f.queue) {
		if d := f.queue[f.front]; d.due != 0 && d.due > now {
			return
		}
		f.removeOldest(f.metrics.fragmentsTimeout)
	}
}

// close drops the datagrams that are still incomplete.
func (f *defragmenter) close() {
	for f.front < len(f.queue) {
		f.removeOldest(f.metrics.fragmentsStop)
	}
}

// removeOldest removes the first datagram of the queue. If it is incomplete, its fragments are counted in
// dropped.
func (f *defragmenter) removeOldest(dropped counter) {
	datagram := f.queue[f.front]
	f.queue[f.front] = nil
	f.front++
	if datagram.due != 0 {
		n := len(datagram.parts)
		f.removeDatagram(datagram)
		dropped.Add(float64(n))
	}

	// Move the queue to the front of its memory when more than half of that is unused.
	if f.front > 1024 && f.front*2 > len(f.queue) {
		f.queue = f.queue[:copy(f.queue, f.queue[f.front:])]
		f.front = 0
	}
}

// releaseComplete frees the datagrams that addFragment returned for the current packet.
func (f *defragmenter) releaseComplete() {
	for i, b := range f.complete {
		f.buffers.Put(b)
		f.complete[i] = nil
	}
	f.complete = f.complete[:0]
}
