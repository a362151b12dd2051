package sessions

import (
	"github.com/zeebo/xxh3"

	"tidegate/protocols"
)

// handleData takes size bytes at off, of which b was captured.
func (f *flow) handleData(d protocols.Dir, off int64, b []byte, size int, need int64) {
	t := f.t
	h, o := &f.half[d], &f.half[d^1]
	f.addHistory('D', d)
	if f.requestAt == 0 && d == protocols.Client {
		f.requestAt = t.p.at
	} else if f.replyAt == 0 && d == protocols.Server && f.requestAt != 0 {
		f.replyAt = t.p.at
	}
	if off-h.next > maxAhead || off-h.next < -maxAhead {
		f.handleStray(d, off, size)
		return
	}
	end := off + int64(size)
	if end <= h.next {
		f.handleRetransmission(d, off, b, end)
		return
	}
	if f.isClosing && f.rst == uint8(d)+1 && off >= f.rstOff { // the reset was not accepted
		f.isClosing, f.rst = false, 0
	}
	if off < h.top {
		f.classifyOverlap(h, d, off, end)
	}
	if off < h.next {
		n := int(h.next - off)
		f.compareTail(h, off, b[:min(n, len(b))])
		b, size, off = b[min(n, len(b)):], size-n, h.next
	}
	h.top = max(h.top, end)
	if off == h.next && (o.reached(need) || o.packets == 0) && (h.head == len(h.wait) || end <= h.wait[h.head].off) {
		f.deliver(d, b, size-len(b), t.p.at, gapCut)
		return
	}
	f.insertSegment(d, segment{off: off, need: need, at: t.p.at, clock: t.clock}, b, end)
}

// strays is how many segments in a row from elsewhere in the numbers make us believe that the stream goes on there.
const strays = 8

// handleStray takes a segment that lies outside of any window.
func (f *flow) handleStray(d protocols.Dir, off int64, size int) {
	h := &f.half[d]
	f.t.m.segments["outside_window"].Inc()
	if h.strays > 0 && off == h.strayEnd {
		h.strays++
	} else {
		h.strays = 1
	}
	h.strayEnd = off + int64(size)
	if h.strays < strays {
		return
	}
	h.strays = 0
	f.giveUp(d, 1, gapResync)
	h.base = f.t.p.seq + uint32(size) - uint32(h.next)
	h.top, h.ack, h.fin = h.next, h.next, -1
}

// handleRetransmission takes bytes that were all delivered before.
func (f *flow) handleRetransmission(d protocols.Dir, off int64, b []byte, end int64) {
	h := &f.half[d]
	if end <= 0 && !h.syn {
		f.t.m.segments["old"].Inc() // from before the first packet that we saw
		return
	}
	h.retransmissions++
	f.addHistory('T', d)
	for i := range h.recent {
		if r := &h.recent[i]; r.off == off && int(r.n) == len(b) && len(b) > 0 {
			if r.hash != xxh3.Hash(b) {
				f.countConflict()
			}
			return
		}
	}
	f.compareTail(h, off, b)
}

// compareTail compares b, which lies before h.next, with the last bytes that were delivered.
func (f *flow) compareTail(h *halfStream, off int64, b []byte) {
	from := h.next - int64(h.tailN)
	lo, hi := max(off, from), min(off+int64(len(b)), h.next)
	if lo >= hi {
		return
	}
	if string(b[lo-off:hi-off]) != string(h.tail[lo-from:hi-from]) {
		f.countConflict()
	}
}

func (f *flow) countConflict() {
	f.conflicts++
	f.t.m.conflicts.Inc()
}

// reorderTime is how late a segment can be and still have been overtaken rather than sent again.
const reorderTime = int64(3e6)

// classifyOverlap counts a segment that lies at least partly before the highest byte seen.
func (f *flow) classifyOverlap(h *halfStream, d protocols.Dir, off, end int64) {
	fills := off >= h.next
	since := int64(0)
	for i := h.head; i < len(h.wait); i++ {
		s := &h.wait[i]
		if s.off <= off && s.end() >= end {
			fills = false
		}
		if s.off >= off && since == 0 {
			since = s.at
		}
	}
	if fills && (since == 0 || f.t.p.at-since <= max(reorderTime, f.rttServer+f.rttClient)) {
		f.outOfOrder++
		return
	}
	h.retransmissions++
	f.addHistory('T', d)
}

// deliver gives the next bytes to the parser; lost more behind them are missing.
func (f *flow) deliver(d protocols.Dir, b []byte, lost int, at int64, why gapReason) {
	h := &f.half[d]
	if n := len(b); n > 0 {
		if f.conn != nil {
			f.conn.Data(d, b, at)
		}
		h.recent[h.recentN&3] = deliveredSegment{h.next, int32(n), xxh3.Hash(b)}
		h.recentN++
		if n >= len(h.tail) {
			h.tailN = uint8(copy(h.tail[:], b[n-len(h.tail):]))
		} else {
			keep := min(int(h.tailN), len(h.tail)-n)
			copy(h.tail[:], h.tail[int(h.tailN)-keep:h.tailN])
			copy(h.tail[keep:], b)
			h.tailN = uint8(keep + n)
		}
		h.next += int64(n)
		h.bytes += uint64(n)
	}
	if lost > 0 {
		h.bytes += uint64(lost)
		f.giveUp(d, int64(lost), why)
	}
	h.strays = 0
	if h.fin >= 0 && h.next > h.fin {
		h.fin = -1
	}
}

// giveUp passes the next n bytes, which were never seen.
func (f *flow) giveUp(d protocols.Dir, n int64, why gapReason) {
	h := &f.half[d]
	f.t.m.gaps[why].Inc()
	f.t.m.gapBytes[why].Add(float64(n))
	f.addHistory('G', d)
	if f.conn != nil {
		f.conn.Gap(d, int(n), f.t.packetTime)
	}
	h.missing += uint64(n)
	h.next += n
	h.top = max(h.top, h.next)
	h.tailN = 0
}
