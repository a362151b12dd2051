package sessions

// A fragKey names the datagram that a fragment belongs to, as RFC 791 and RFC 8200 do, and where it was seen.
type fragKey struct {
	src, dst addr
	id       uint32
	proto    uint8
	v6       bool
	iface    uint16
}

// A datagram is one of which some fragments have come.
type datagram struct {
	key   fragKey
	parts []fragment // in the order of their offset, without overlaps
	end   int        // its length, -1 while the last fragment has not come
	have  int        // bytes
	cost  int
	due   int64 // of the Table's clock
	dead  bool  // it broke a rule; its other fragments are ignored until it times out
}

type fragment struct {
	off int
	b   []byte
}

// Bounds of a datagram: IP's own length, and more fragments than any network makes.
const (
	maxDatagram  = 65535
	maxFragments = 256
)

// frags is the datagrams that wait for fragments, the oldest first in line.
type frags struct {
	m      map[fragKey]*datagram
	line   []*datagram // in the order of due; complete ones stay until their time, with no parts
	head   int
	cost   int
	loaned [][]byte // what was put together for the packet at hand
}

// add takes the fragment b at off of the datagram k and gives the whole once it is complete, nil until then. wire is the length of
// the fragment before it was cut.
func (f *frags) add(t *Table, k fragKey, b []byte, wire, off int, more bool) ([]byte, result) {
	if wire <= 0 || len(b) < wire || off+wire > maxDatagram || more && wire%8 != 0 {
		return nil, resBadFragment
	}
	d := f.m[k]
	if d == nil {
		d = &datagram{key: k, end: -1, due: t.clock + int64(t.cfg.FragmentTimeout)}
		f.m[k] = d
		f.line = append(f.line, d)
		f.charge(d, overhead)
		if len(f.line)-f.head > maxLine {
			f.pop(t, "limit")
		}
	}
	if d.dead {
		return nil, resBadFragment
	}
	if !more && (d.end >= 0 && d.end != off+wire) || d.end >= 0 && off+wire > d.end {
		return nil, f.kill(t, d)
	}
	if !more {
		d.end = off + wire
	}
	if r := f.insert(t, d, b[:wire], off); r != resFragment {
		return nil, r
	}
	if n := len(d.parts); d.end < 0 || d.have < d.end || d.parts[n-1].off+len(d.parts[n-1].b) != d.end {
		f.limit(t)
		return nil, resFragment
	}
	whole := t.bufs.get(d.end)
	for _, p := range d.parts {
		copy(whole[p.off:], p.b)
	}
	f.loaned = append(f.loaned, whole)
	f.drop(t, d)
	return whole, resFragment
}

// insert puts in what of b is new. Of IPv4 the first bytes win; an overlap kills a datagram of IPv6 (RFC 5722), except that a
// fragment may come twice.
func (f *frags) insert(t *Table, d *datagram, b []byte, off int) result {
	end := off + len(b)
	for i := 0; i < len(d.parts) && off < end; i++ {
		p := d.parts[i]
		pend := p.off + len(p.b)
		if pend <= off {
			continue
		}
		if p.off >= end {
			break
		}
		same := p.off == off && pend == end
		if d.key.v6 && !same {
			return f.kill(t, d)
		}
		if lo, hi := max(off, p.off), min(end, pend); string(b[lo-off:hi-off]) != string(p.b[lo-p.off:hi-p.off]) {
			t.m.conflicts.Inc()
		}
		if off < p.off { // what lies before the part
			if len(d.parts) >= maxFragments {
				return f.kill(t, d)
			}
			d.parts = insertAt(d.parts, i, f.keep(t, d, b[:p.off-off], off))
			i++
		}
		if pend >= end {
			return resFragment
		}
		b, off = b[pend-off:], pend
	}
	if len(d.parts) >= maxFragments {
		return f.kill(t, d)
	}
	at := len(d.parts)
	for at > 0 && d.parts[at-1].off > off {
		at--
	}
	d.parts = insertAt(d.parts, at, f.keep(t, d, b, off))
	return resFragment
}

func insertAt[E any](s []E, at int, e E) []E {
	var zero E
	s = append(s, zero)
	copy(s[at+1:], s[at:])
	s[at] = e
	return s
}

func (f *frags) keep(t *Table, d *datagram, b []byte, off int) fragment {
	c := t.bufs.get(len(b))
	copy(c, b)
	d.have += len(b)
	f.charge(d, cost(len(b)))
	return fragment{off, c}
}

func (f *frags) charge(d *datagram, n int) {
	d.cost += n
	f.cost += n
}

// kill drops what is kept of d and ignores the rest of it.
func (f *frags) kill(t *Table, d *datagram) result {
	f.empty(t, d)
	d.dead = true
	f.charge(d, overhead)
	return resBadFragment
}

// empty gives back what d holds.
func (f *frags) empty(t *Table, d *datagram) {
	for _, p := range d.parts {
		t.bufs.put(p.b)
	}
	f.cost -= d.cost
	d.parts, d.cost, d.have = nil, 0, 0
}

// drop forgets d; it stays in line, and is passed over when its time comes.
func (f *frags) drop(t *Table, d *datagram) {
	f.empty(t, d)
	delete(f.m, d.key)
	d.due = 0
}

// maxLine bounds the line, in which complete datagrams stay until those before them are gone.
const maxLine = 64 << 10

// limit drops the oldest while there is too much.
func (f *frags) limit(t *Table) {
	for f.head < len(f.line) && (f.cost > t.cfg.FragmentBuffer || len(f.line)-f.head > maxLine) {
		f.pop(t, "limit")
	}
}

// pop drops the first in line.
func (f *frags) pop(t *Table, why string) {
	d := f.line[f.head]
	f.line[f.head] = nil
	f.head++
	if d.due != 0 {
		n := len(d.parts)
		f.drop(t, d)
		t.m.fragments[why].Add(float64(n))
	}
	if f.head > 1024 && f.head*2 > len(f.line) {
		f.line = f.line[:copy(f.line, f.line[f.head:])]
		f.head = 0
	}
}

// expire drops what has waited too long.
func (f *frags) expire(t *Table) {
	for f.head < len(f.line) {
		if d := f.line[f.head]; d.due != 0 && d.due > t.clock {
			return
		}
		f.pop(t, "timeout")
	}
}

// settle takes back what add gave for the packet at hand.
func (f *frags) settle(t *Table) {
	for i, b := range f.loaned {
		t.bufs.put(b)
		f.loaned[i] = nil
	}
	f.loaned = f.loaned[:0]
}
