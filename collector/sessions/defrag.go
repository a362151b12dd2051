package sessions

import (
	"slices"
	"sort"

	"tidegate/collector/reassembly"
	"tidegate/pipeline/memory"
)

// A fragKey identifies the datagram of a fragment by the fields that RFC 791 and RFC 8200 name, by the
// interface, and by the tunnel around it.
type fragKey struct {
	src, dst addr
	tunnel   uint64 // tunnel.key
	id       uint32
	proto    uint8 // of IPv4
	v6       bool
	refused  bool // Linux drops the fragment because of a header in front of it
	iface    uint16
}

// An ipFragment is one captured fragment.
type ipFragment struct {
	key  fragKey
	off  int    // of b in the datagram
	more bool   // more fragments follow
	b    []byte // as captured; valid during the call
	wire int    // length of the fragment's data on the wire
	next byte   // of IPv6: the type of the header at the front of b
}

// A datagram is an incomplete IP datagram and the fragments of it that were captured.
type datagram struct {
	key      fragKey
	parts    []datagramPart // in the order of their offset, without overlaps
	end      int            // its length; -1 while the last fragment is missing
	received int            // bytes in parts
	cost     int            // memory charged for the buffers of parts
	due      int64          // clock: when it times out; 0 if it is complete or was given up
	conflict bool           // fragments overlap and have different bytes
	source   *fragSource    // of IPv4
	newest   uint64         // number of its last fragment among those of source
	next     byte           // of IPv6: the type of the header at its front
}

// A datagramPart is a part of a datagram that does not overlap others.
type datagramPart struct {
	off    int
	b      []byte // from defragmenter.buffers
	begins bool   // it begins a run, as Linux has them: a part that came directly behind the last one continues its run
}

func (p *datagramPart) end() int { return p.off + len(p.b) }

// A fragSource counts the fragments of IPv4 of one host to another one, while a datagram of them is incomplete.
type fragSource struct {
	fragments uint64
	datagrams int // incomplete
}

// sourceCost is what a source is charged, with its place in the table.
const sourceCost = 192

// maxDistance is the number of fragments of a source between two of a datagram behind which Linux drops the first one
// (net.ipv4.ipfrag_max_dist): the id, of 16 bits, is that of another datagram then.
const maxDistance = 64

// sourceKey returns the key of the source of a fragment.
func (k fragKey) sourceKey() fragKey {
	k.id, k.proto, k.refused = 0, 0, false
	return k
}

// maxDatagram is the largest length of a datagram. Its parts have 8 bytes at least, but for the last one.
const maxDatagram = 65535

// maxDatagramQueue bounds the queue of datagrams. A complete datagram stays in the queue until all datagrams
// before it are gone.
const maxDatagramQueue = 64 << 10

// A defragmenter holds the fragments of IPv4 and IPv6 datagrams until the datagrams are complete. It does as Linux: a
// fragment that contradicts those before it ends the datagram, and what follows begins another one.
type defragmenter struct {
	limit   int   // bound on cost
	timeout int64 // ns
	buffers *reassembly.Buffers
	metrics *tableMetrics
	memory  *memory.Account // charged with cost

	datagrams map[fragKey]*datagram
	sources   map[fragKey]*fragSource // by sourceKey
	queue     []*datagram             // in the order of due; the first is queue[front]
	front     int
	cost      int      // sum of the costs of all datagrams and sources
	complete  [][]byte // buffers of the datagrams that the current packet has completed
	conflict  bool     // fragments of the last complete datagram overlapped and had different bytes
	next      byte     // of the last complete datagram
}

func newDefragmenter(cfg *Config, buffers *reassembly.Buffers, m *tableMetrics) defragmenter {
	return defragmenter{
		limit: int(cfg.FragmentBytes), timeout: int64(cfg.FragmentTimeout), buffers: buffers, metrics: m,
		datagrams: map[fragKey]*datagram{}, sources: map[fragKey]*fragSource{},
	}
}

// addFragment stores a fragment. If the fragment completes its datagram, addFragment returns the datagram,
// which is valid until releaseComplete. Otherwise it returns nil and the result under which the packet is
// counted.
func (f *defragmenter) addFragment(now int64, in ipFragment) ([]byte, result) {
	if in.more && in.wire%8 != 0 && !in.key.v6 {
		in.wire &^= 7 // Linux drops the rest of such a fragment of IPv4
	}
	end := in.off + in.wire
	if in.wire <= 0 || len(in.b) < in.wire || end > maxDatagram || in.more && in.wire%8 != 0 {
		return nil, resBadFragment
	}

	// Find its datagram, or begin one.
	target := f.datagrams[in.key]
	if target != nil && target.source != nil && target.source.fragments-target.newest >= maxDistance {
		f.metrics.fragmentsTimeout.Add(float64(len(target.parts)))
		f.removeDatagram(target)
		target = nil
	}
	if target == nil {
		target = &datagram{key: in.key, end: -1, due: now + f.timeout}
		f.datagrams[in.key] = target
		f.openSource(target)
		f.queue = append(f.queue, target)
		f.chargeCost(target, reassembly.BufferOverhead)
		if len(f.queue)-f.front > maxDatagramQueue {
			f.removeOldest(f.metrics.fragmentsLimit)
		}
	}

	if target.source != nil {
		target.source.fragments++
		target.newest = target.source.fragments
	}

	// All fragments must agree on the end of the datagram, which the last one determines.
	if !in.more && target.end >= 0 && target.end != end || target.end >= 0 && end > target.end ||
		!in.more && end < target.reached() {
		return nil, f.giveUp(target)
	}
	if !in.more {
		target.end = end
	}
	if in.off == 0 {
		target.next = in.next
	}
	if res := f.insertPart(target, in.b[:in.wire], in.off); res != resFragment {
		return nil, res
	}

	// The parts do not overlap. So the datagram is complete when they hold as many bytes as it is long.
	if target.end < 0 || target.received < target.end || target.reached() != target.end {
		f.enforceLimit()
		return nil, resFragment
	}
	whole := f.buffers.Get(target.end)
	for _, part := range target.parts {
		copy(whole[part.off:], part.b)
	}
	f.complete, f.conflict, f.next = append(f.complete, whole), target.conflict, target.next
	f.removeDatagram(target)
	return whole, resFragment
}

// openSource sets the source of a datagram that begins.
func (f *defragmenter) openSource(d *datagram) {
	if d.key.v6 {
		return
	}
	key := d.key.sourceKey()
	if d.source = f.sources[key]; d.source == nil {
		d.source = &fragSource{}
		f.sources[key] = d.source
		f.chargeSource(sourceCost)
	}
	d.source.datagrams++
}

// chargeSource adds n bytes, which may be negative, to the memory of the fragments.
func (f *defragmenter) chargeSource(n int) {
	f.cost += n
	f.memory.Add(int64(n))
}

// closeSource ends the part of a datagram in its source.
func (f *defragmenter) closeSource(d *datagram) {
	if d.source == nil {
		return
	}
	if d.source.datagrams--; d.source.datagrams == 0 {
		delete(f.sources, d.key.sourceKey())
		f.chargeSource(-sourceCost)
	}
	d.source = nil
}

// reached returns the offset behind the last part of d.
func (d *datagram) reached() int {
	if len(d.parts) == 0 {
		return 0
	}
	return d.parts[len(d.parts)-1].end()
}

// insertPart stores data, which begins at off, in d. Bytes that a run of d has already are a repetition, and the ones
// that came first stay. Any other overlap ends the datagram, in IPv4 too.
func (f *defragmenter) insertPart(d *datagram, data []byte, off int) result {
	end := off + len(data)

	// Find the first part that ends behind off. The parts are in order.
	at := sort.Search(len(d.parts), func(i int) bool { return d.parts[i].end() > off })
	if at < len(d.parts) && d.parts[at].off < end {
		return f.repeatPart(d, at, data, off)
	}
	begins := at < len(d.parts) || at == 0 || d.parts[at-1].end() != off
	d.parts = slices.Insert(d.parts, at, f.newPart(d, data, off, begins))
	return resFragment
}

// repeatPart compares data, which begins at off, with the bytes of d at its place. at is the first part that data
// overlaps.
func (f *defragmenter) repeatPart(d *datagram, at int, data []byte, off int) result {
	end := off + len(data)
	if d.parts[at].off > off {
		return f.giveUp(d)
	}
	differs := false
	for i := at; off < end; i++ { // all bytes before off are in d
		if i == len(d.parts) || d.parts[i].off > off || i > at && d.parts[i].begins {
			return f.giveUp(d)
		}
		part := &d.parts[i]
		size := min(end, part.end()) - off
		differs = differs || string(data[:size]) != string(part.b[off-part.off:][:size])
		data, off = data[size:], off+size
	}
	if differs {
		f.metrics.conflicts.Inc()
		d.conflict = true
	}
	return resFragment
}

// newPart returns a part at off with a copy of data, charged to d.
func (f *defragmenter) newPart(d *datagram, data []byte, off int, begins bool) datagramPart {
	kept := f.buffers.Get(len(data))
	copy(kept, data)
	d.received += len(data)
	f.chargeCost(d, reassembly.BufferCost(len(data)))
	return datagramPart{off, kept, begins}
}

// chargeCost adds n bytes, which may be negative, to the memory that d is charged.
func (f *defragmenter) chargeCost(d *datagram, n int) {
	d.cost += n
	f.cost += n
	f.memory.Add(int64(n))
}

// giveUp drops d, whose fragments contradict each other. A later fragment with its key begins another datagram.
func (f *defragmenter) giveUp(d *datagram) result {
	f.metrics.conflicts.Inc()
	f.removeDatagram(d)
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

// removeDatagram ends a datagram that is complete, given up or expired. Its place in the queue is freed by
// removeOldest.
func (f *defragmenter) removeDatagram(d *datagram) {
	f.releaseParts(d)
	delete(f.datagrams, d.key)
	f.closeSource(d)
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
