package sessions

import (
	"slices"

	"tidegate/collector/reassembly"
)

// A fragKey identifies the datagram that a fragment belongs to, as RFC 791 and RFC 8200 do, and its
// interface.
type fragKey struct {
	src, dst addr
	id       uint32
	proto    uint8
	v6       bool
	iface    uint16
}

// An ipFragment is a fragment as the decoder found it.
type ipFragment struct {
	key  fragKey
	off  int
	more bool // it is not the last fragment
	b    []byte
	wire int // its length before the capture cut it
}

// A datagram is an incomplete IP datagram, with the fragments that have come.
type datagram struct {
	key      fragKey
	parts    []datagramPart // in the order of their offset, without overlaps
	end      int            // its length, -1 while the last fragment has not come
	received int            // bytes
	cost     int            // of the buffers
	due      int64          // clock: when it times out; 0 it is complete
	invalid  bool           // it broke a rule; its other fragments are ignored until it times out
}

type datagramPart struct {
	off int
	b   []byte // from the buffers
}

// Bounds of a datagram: IP's own length, and more fragments than any network makes.
const (
	maxDatagram  = 65535
	maxFragments = 256
)

// maxDatagramQueue bounds the queue of datagrams, in which complete ones stay until those before them are
// gone.
const maxDatagramQueue = 64 << 10

// A defragmenter holds the fragments of IPv4 and IPv6 datagrams until the datagrams are complete.
type defragmenter struct {
	limit   int   // the sum of the costs of all datagrams
	timeout int64 // ns
	buffers *reassembly.Buffers
	m       *tableMetrics

	datagrams map[fragKey]*datagram
	queue     []*datagram // in the order of due; the first is queue[front]
	front     int
	cost      int
	complete  [][]byte // buffers of the datagrams that were completed by the packet at hand
}

func newDefragmenter(cfg *Config, buffers *reassembly.Buffers, m *tableMetrics) defragmenter {
	return defragmenter{
		limit: int(cfg.FragmentBytes), timeout: int64(cfg.FragmentTimeout), buffers: buffers, m: m,
		datagrams: map[fragKey]*datagram{},
	}
}

// addFragment takes a fragment. It returns the datagram once that is complete, valid until releaseComplete;
// before, nil and what became of the fragment.
func (f *defragmenter) addFragment(now int64, in ipFragment) ([]byte, result) {
	end := in.off + in.wire
	if in.wire <= 0 || len(in.b) < in.wire || end > maxDatagram || in.more && in.wire%8 != 0 {
		return nil, resBadFragment
	}

	// Find its datagram.
	d := f.datagrams[in.key]
	if d == nil {
		d = &datagram{key: in.key, end: -1, due: now + f.timeout}
		f.datagrams[in.key] = d
		f.queue = append(f.queue, d)
		f.chargeCost(d, reassembly.BufferOverhead)
		if len(f.queue)-f.front > maxDatagramQueue {
			f.removeOldest(f.m.fragmentsLimit)
		}
	}
	if d.invalid {
		return nil, resBadFragment
	}

	// All fragments must agree on the end of the datagram.
	if !in.more && d.end >= 0 && d.end != end || d.end >= 0 && end > d.end {
		return nil, f.invalidate(d)
	}
	if !in.more {
		d.end = end
	}
	if res := f.insertPart(d, in.b[:in.wire], in.off); res != resFragment {
		return nil, res
	}

	// It is complete when its parts, which do not overlap, have as many bytes as it is long.
	if n := len(d.parts); d.end < 0 || d.received < d.end || d.parts[n-1].off+len(d.parts[n-1].b) != d.end {
		f.enforceLimit()
		return nil, resFragment
	}
	whole := f.buffers.Get(d.end)
	for _, part := range d.parts {
		copy(whole[part.off:], part.b)
	}
	f.complete = append(f.complete, whole)
	f.removeDatagram(d)
	return whole, resFragment
}

// insertPart keeps the bytes of b, at off, that are new. For IPv4 the bytes that came first win. An overlap
// invalidates a datagram of IPv6 (RFC 5722), except that a fragment may come twice.
func (f *defragmenter) insertPart(d *datagram, data []byte, off int) result {
	end := off + len(data)

	// Go through the parts that it touches, in order. b always begins at off, and everything before off is
	// kept.
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
			f.m.conflicts.Inc()
		}
		if off < part.off { // a hole before the part: fill it; the part is then at i+1
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

	// What is left of b touches no part. Fragments mostly come in order, so its place is searched from the end.
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

func (f *defragmenter) newPart(d *datagram, data []byte, off int) datagramPart {
	kept := f.buffers.Get(len(data))
	copy(kept, data)
	d.received += len(data)
	f.chargeCost(d, reassembly.BufferCost(len(data)))
	return datagramPart{off, kept}
}

func (f *defragmenter) chargeCost(d *datagram, n int) {
	d.cost += n
	f.cost += n
}

// invalidate drops the parts of d. Its other fragments will be ignored.
func (f *defragmenter) invalidate(d *datagram) result {
	f.releaseParts(d)
	d.invalid = true
	f.chargeCost(d, reassembly.BufferOverhead)
	return resBadFragment
}

// releaseParts gives the buffers of d back.
func (f *defragmenter) releaseParts(d *datagram) {
	for _, part := range d.parts {
		f.buffers.Put(part.b)
	}
	f.cost -= d.cost
	d.parts, d.cost, d.received = nil, 0, 0
}

// removeDatagram ends d. It stays in the queue until those before it are gone.
func (f *defragmenter) removeDatagram(d *datagram) {
	f.releaseParts(d)
	delete(f.datagrams, d.key)
	d.due = 0
}

// enforceLimit drops the oldest datagrams while there is too much.
func (f *defragmenter) enforceLimit() {
	for f.front < len(f.queue) && (f.cost > f.limit || len(f.queue)-f.front > maxDatagramQueue) {
		f.removeOldest(f.m.fragmentsLimit)
	}
}

// expire drops the datagrams whose time is over.
func (f *defragmenter) expire(now int64) {
	for f.front < len(f.queue) {
		if d := f.queue[f.front]; d.due != 0 && d.due > now {
			return
		}
		f.removeOldest(f.m.fragmentsTimeout)
	}
}

// removeOldest takes the first datagram out of the queue. Its fragments are added to dropped unless it is
// complete.
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

// releaseComplete takes back the datagrams that add returned for the packet at hand.
func (f *defragmenter) releaseComplete() {
	for i, b := range f.complete {
		f.buffers.Put(b)
		f.complete[i] = nil
	}
	f.complete = f.complete[:0]
}
