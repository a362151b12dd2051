package sessions

import (
	"math"
	"net/netip"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// How a session ended.
const (
	stateFIN         = "fin"
	stateResetClient = "reset_client"
	stateResetServer = "reset_server"
	stateTimeout     = "timeout"
	stateEvicted     = "evicted"
	stateRefused     = "refused"
	stateNoAnswer    = "no_answer"
	stateShutdown    = "shutdown"
)

// A flow is one connection in a Table, or one exchange of datagrams. Flows are pooled.
type flow struct {
	t         *Table
	key       key
	number    uint64 // unique in the process: the owner in DedupTable
	heapIndex int    // in the heap
	due       int64  // of the clock: when something may have to be done
	emit      func(*pipeline.Event)

	conn                *protocols.Conn // nil: not opened yet, or hung up
	info                protocols.Info
	session             pipeline.ID
	vlan                uint16
	side                uint8 // of key, which is the client's: 0 a, 1 b
	directionConfidence uint8 // of the direction, percent

	half           [2]halfStream // by protocols.Dir
	bufferedBytes  int           // what the segments that wait take
	bufferingIndex int           // place in Table.line, plus one; 0 not there

	first, last  int64 // packet times
	seen, opened int64 // clock: the last packet, the first
	tickDue      int64 // clock: when the Conn is to be told the time next

	isClosing  bool
	dead       bool  // told; waits to be forgotten
	rst        uint8 // 1 + Dir of who reset
	rstOff     int64
	since      int64 // clock: since when it closes
	synPending bool  // a SYN with another sequence number was seen on an established connection
	pendingSeq uint32
	pendingAt  int64

	synAt, synAckAt           int64
	rttServer, rttClient      int64
	requestAt, replyAt        int64
	synAgain, synAckAgain     uint32
	zeroWindows, outOfOrder   uint32
	conflicts                 uint32
	history                   [24]byte
	historyLen                uint8
	historyHas                uint32
	protocol                  string
	flipped                   bool
	partialStart, established bool

	dedup          dedupState
	bridge         bool
	claims         [2]claimKey
	nclaims        int
	mapped         bool
	checked        bool
	mapping        Mapping
	outbox         []*pipeline.Event
	outboxDeadline int64 // clock: when they wait no longer
	outboxRetry    int64 // clock: when the connection tracker is asked again
}

// reset makes f ready for another connection; what it owns is kept.
func (f *flow) reset() {
	t, emit, out := f.t, f.emit, f.outbox[:0:min(cap(f.outbox), 32)]
	w0, w1 := small(f.half[0].wait), small(f.half[1].wait)
	*f = flow{t: t, emit: emit, outbox: out}
	f.half[0].wait, f.half[1].wait = w0, w1
}

// small gives s back empty if it is worth keeping.
func small(s []segment) []segment {
	if cap(s) > 32 {
		return nil
	}
	return s[:0]
}

// endpoints gives the addresses of both ends as seen on the wire, the client's first.
func (f *flow) endpoints() (client, server netip.AddrPort) {
	a, b := netip.AddrPortFrom(f.key.a.netip(), f.key.aport), netip.AddrPortFrom(f.key.b.netip(), f.key.bport)
	if f.side == 0 {
		return a, b
	}
	return b, a
}

func (f *flow) transport() pipeline.Transport {
	if f.key.proto == protoUDP {
		return pipeline.Transport_UDP
	}
	return pipeline.Transport_TCP
}

// guessDirection finds out which end is the client from the first packet, which side sent. How sure it is becomes the event's
// direction_confidence.
func (f *flow) guessDirection(side uint8) {
	p := &f.t.p
	switch {
	case f.key.proto == protoTCP && p.flags&(flagSYN|flagACK) == flagSYN:
		f.side, f.directionConfidence = side, 100
		return
	case f.key.proto == protoTCP && p.flags&flagSYN != 0:
		f.side, f.directionConfidence = side^1, 95
		return
	}
	if nat := f.t.deps.NAT; nat != nil {
		src, dst := netip.AddrPortFrom(p.src.netip(), p.sport), netip.AddrPortFrom(p.dst.netip(), p.dport)
		if m, ok := nat.Lookup(f.transport(), src, dst); ok {
			f.mapped, f.mapping = true, m
			f.side, f.directionConfidence = side, 98
			if src == m.Server || src == m.OutsideServer {
				f.side = side ^ 1
			}
			return
		}
	}
	from, to := serverScore(p.sport), serverScore(p.dport)
	switch {
	case from > to && (f.key.proto == protoTCP || from-to > 1):
		f.side, f.directionConfidence = side^1, 60+10*uint8(from-to)
	case from < to:
		f.side, f.directionConfidence = side, 60+10*uint8(to-from)
	case f.key.proto == protoUDP: // who speaks first asks
		f.side, f.directionConfidence = side, 70
	default:
		f.side, f.directionConfidence = side, 40
	}
}

// serverScore tells how much a port looks like that of a server.
func serverScore(port uint16) int {
	switch port {
	case 1433, 1521, 1883, 2181, 2375, 2376, 2379, 2380, 3000, 3128, 3306, 4222, 5000, 5432, 5672, 5984, 6379, 6443, 7000, 8000, 8080, 8081, 8086, 8123,
		8200, 8443, 8500, 8888, 9000, 9042, 9090, 9092, 9200, 9300, 10250, 11211, 15672, 26379, 27017, 33060:
		return 2
	}
	switch {
	case port == 0:
		return 0
	case port < 1024:
		return 3
	case port < 32768:
		return 1
	}
	return 0
}

// openConn opens the Conn, once the initial sequence number is known.
func (f *flow) openConn(seq uint32, midStream bool) {
	client, server := f.endpoints()
	f.partialStart = midStream
	f.session = pipeline.SessionID(f.t.deps.Collector, f.transport(), client, server, seq, f.first)
	if f.dedup == duplicate || f.t.deps.Protocols == nil {
		return
	}
	f.info = protocols.Info{
		Transport: f.transport(), Client: client, Server: server, Session: f.session,
		CommunityID: pipeline.CommunityID(f.transport(), client, server), VLAN: f.vlan, MidStream: midStream,
	}
	f.conn = f.t.deps.Protocols.Open(f.info, f.emit)
	f.tickDue = f.t.clock + f.tickEvery()
}

// tickEvery is how often a Conn is told the time: answers over UDP are given up on within seconds.
func (f *flow) tickEvery() int64 {
	if f.key.proto == protoUDP {
		return 1e9
	}
	return 5e9
}

func (f *flow) tickConn() {
	f.tickDue = f.t.clock + f.tickEvery()
	f.conn.Tick(f.t.packetTime)
}

// closeConn closes the Conn: its parser emits what still waits.
func (f *flow) closeConn() {
	if f.conn == nil {
		return
	}
	c := f.conn
	if name := c.Protocol(); name != "" {
		f.protocol = name
	}
	f.flipped = c.Flipped()
	c.Close(f.t.packetTime)
	f.conn = nil
}

// closeIfDuplicate hangs up a flow that was found to be a copy, outside of the parser that found it.
func (f *flow) closeIfDuplicate() {
	if f.dedup == duplicate && (f.conn != nil || f.bufferedBytes > 0) {
		f.closeConn()
		f.discardBuffered()
	}
}

// endTime is when f is over if no more packets come.
func (f *flow) endTime() int64 {
	cfg := &f.t.cfg
	switch {
	case f.isClosing:
		return f.since + int64(cfg.Linger)
	case f.key.proto == protoUDP:
		return f.seen + int64(cfg.UDPIdle)
	case !f.established:
		return f.seen + int64(cfg.SYNTimeout)
	}
	return f.seen + int64(cfg.TCPIdle)
}

// schedule moves f forward in the heap if something is due earlier than it was, or back if its time came and went.
func (f *flow) schedule() {
	want := f.endTime()
	if f.conn != nil && f.tickDue < want {
		want = f.tickDue
	}
	if len(f.outbox) > 0 && f.outboxRetry < want {
		want = f.outboxRetry
	}
	if at := f.releaseDue(); at < want {
		want = at
	}
	if want <= f.t.clock {
		want = f.t.clock + 1
	}
	if want < f.due || f.due <= f.t.clock {
		f.due = want
		f.t.fix(f)
	}
}

// startClosing begins the end of f.
func (f *flow) startClosing() {
	if !f.isClosing {
		f.isClosing, f.since = true, f.t.clock
	}
}

// closedState is the state of a flow whose time is over.
func (f *flow) closedState() string {
	c, s := &f.half[0], &f.half[1]
	switch {
	case f.rst != 0 && c.ended && s.ended:
		return stateFIN
	case f.rst != 0 && c.syn && !s.syn && s.top == 0:
		return stateRefused
	case f.rst == 1:
		return stateResetClient
	case f.rst == 2:
		return stateResetServer
	case c.ended && s.ended:
		return stateFIN
	case s.packets == 0 || c.packets == 0:
		if f.key.proto == protoUDP || c.syn {
			return stateNoAnswer
		}
	}
	return stateTimeout
}

// evictionValue is what would be lost with f: the lowest of a few goes when there is no room.
func (f *flow) evictionValue() int64 {
	t := f.t
	if f.dead {
		return -math.MaxInt64/2 - (t.clock - f.seen)
	}
	v := -(t.clock - f.seen) / 1e6 // idle, ms
	switch {
	case f.isClosing:
		v -= 1 << 40
	case f.key.proto == protoTCP && !f.established, f.half[1].packets == 0:
		v -= 1 << 38
	case f.dedup == duplicate, f.key.proto == protoUDP && t.clock-f.seen > 2e9: // an exchange that is over, most likely
		v -= 1 << 36
	case f.conn != nil && f.conn.Protocol() != "":
		v += 1 << 32
	}
	return v
}

// addHistory writes a letter into the history, once for each side.
func (f *flow) addHistory(letter byte, d protocols.Dir) {
	bit := uint32(1) << (2*uint(historyBit(letter)) + uint(d))
	if f.historyHas&bit != 0 || int(f.historyLen) == len(f.history) {
		return
	}
	f.historyHas |= bit
	if d == protocols.Server {
		letter |= 0x20
	}
	f.history[f.historyLen] = letter
	f.historyLen++
}

// historyLetters are Zeek's: SYN, SYN with ACK, pure ACK, data, FIN, reset, retransmission, zero window, gap.
const historyLetters = "SHADFRTWG"

func historyBit(letter byte) int {
	for i := range len(historyLetters) {
		if historyLetters[i] == letter {
			return i
		}
	}
	return len(historyLetters)
}
