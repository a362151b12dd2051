package sessions

import (
	"math"
	"net/netip"

	"tidegate/collector/reassembly"
	"tidegate/pipeline"
	"tidegate/protocols"
)

// States of a session's event: how the session ended, or that it has not.
const (
	stateFIN         = "fin"
	stateResetClient = "reset_client"
	stateResetServer = "reset_server"
	stateTimeout     = "timeout"
	stateEvicted     = "evicted"
	stateRefused     = "refused"
	stateNoAnswer    = "no_answer"
	stateShutdown    = "shutdown"
	stateOpen        = "open" // it goes on: an event at an interval
)

var states = [...]string{
	stateFIN, stateResetClient, stateResetServer, stateTimeout,
	stateEvicted, stateRefused, stateNoAnswer, stateShutdown,
}

// The two directions of a flow by sender, as package reassembly numbers them. protocols.Dir has the same
// numbers.
const (
	fromClient = reassembly.Dir(protocols.Client)
	fromServer = reassembly.Dir(protocols.Server)
)

// A flow is one connection in a Table, or one exchange of datagrams. Flows are reused.
type flow struct {
	table     *Table
	key       flowKey
	id        uint64 // unique in the process: the owner of claims in the DedupTable
	activity  *activity
	heapIndex int   // in Table.timers
	due       int64 // clock: when runTimers is called

	conn       *protocols.Conn // nil: not opened yet, or closed
	emit       func(*pipeline.Event)
	tickDue    int64 // clock: when conn.Tick is called
	session    pipeline.ID
	vlan       uint16
	tunnel     *tunnel     // nil: none; its source is the side of the client
	sender     frameSender // of the first packet
	clientSide uint8       // the end of key that is the client: 0 for a, 1 for b
	dead       bool        // its session event was emitted
	unopened   bool        // its datagrams have the form of a tunnel that was not opened

	openReports uint32 // events of the state open so far
	openDue     int64  // clock: when the next one is due; 0: never

	first, last int64 // packet times of the first and the last packet
	lastSeen    int64 // clock: the last packet

	stream     *reassembly.Conn // TCP only; never nil
	pendingSYN pendingSYN
	stats      sessionStats
	marks      marks
	checksums  [2]checksumCounts // by end of key

	dedup  dedup
	nat    natState
	outbox outbox
}

// A flowMemory is a flow with its stream and its activity, which are allocated together.
type flowMemory struct {
	flow     flow
	stream   reassembly.Conn
	activity activity
}

func newFlow(table *Table) *flow {
	all := &flowMemory{}
	f := &all.flow
	f.table, f.stream, f.activity = table, &all.stream, &all.activity
	f.activity.progress = &table.progress
	f.emit = f.emitEvent
	return f
}

// prepareReuse resets f for another connection and keeps the memory that f owns.
func (f *flow) prepareReuse() {
	events := f.outbox.events[:0:min(cap(f.outbox.events), 32)]
	*f = flow{
		table: f.table, emit: f.emit, stream: f.stream, activity: f.activity, outbox: outbox{events: events},
	}
}

// endpoints returns the addresses of client and server as captured, before NAT is undone.
func (f *flow) endpoints() (client, server netip.AddrPort) {
	a := netip.AddrPortFrom(f.key.a.netip(), f.key.aport)
	b := netip.AddrPortFrom(f.key.b.netip(), f.key.bport)
	if f.clientSide == 0 {
		return a, b
	}
	return b, a
}

func (f *flow) transport() pipeline.Transport {
	switch f.key.proto {
	case protoTCP:
		return pipeline.Transport_TCP
	case protoUDP:
		return pipeline.Transport_UDP
	}
	return pipeline.Transport_TRANSPORT_NONE
}

// setSession sets the session's id. seq is the first sequence number, 0 for a protocol without one.
func (f *flow) setSession(seq uint32) {
	client, server := f.endpoints()
	f.session = pipeline.SessionID(f.table.deps.Collector, f.transport(), client, server, seq, f.first)
	if f.tunnel != nil {
		f.session = f.tunnel.sessionID(f.session)
	}
}

// openProtocol sets the session's id and opens its protocols.Conn. seq is the first sequence number, 0 for
// UDP.
func (f *flow) openProtocol(seq uint32, midStream bool) {
	f.stats.partialStart = midStream
	f.setSession(seq)
	if f.dedup.state == duplicate || f.table.deps.Protocols == nil {
		return
	}
	client, server := f.endpoints()
	f.conn = f.table.deps.Protocols.Open(protocols.Info{
		Transport: f.transport(), Client: client, Server: server, Session: f.session,
		CommunityID: pipeline.CommunityID(f.transport(), client, server), VLAN: f.vlan, MidStream: midStream,
	}, f.emit)
	f.tickDue = f.table.clock.now + f.tickEvery()
}

// tickEvery returns the interval of conn's ticks, ns. A parser of UDP gives up on an answer within seconds.
func (f *flow) tickEvery() int64 {
	if f.key.proto == protoUDP {
		return 1e9
	}
	return 5e9
}

// tickProtocol calls Tick of the parser, which gives up on answers that are overdue.
func (f *flow) tickProtocol() {
	f.tickDue = f.table.clock.now + f.tickEvery()
	f.conn.Tick(f.table.clock.packetTime)
}

// closeProtocol closes conn. Its parser then emits its unfinished transactions.
func (f *flow) closeProtocol() {
	if f.conn == nil {
		return
	}
	conn := f.conn
	if name := conn.Protocol(); name != "" {
		f.stats.protocol = name
	}
	f.stats.flipped = conn.Flipped()
	conn.Close(f.table.clock.packetTime)
	f.conn = nil
}

// closeIfDuplicate frees the parser and the buffered bytes of a duplicate. A flow may become a duplicate
// while its parser emits an event, and must not close the parser then. So callers of the parser call
// closeIfDuplicate when the parser has returned.
func (f *flow) closeIfDuplicate() {
	if f.dedup.state == duplicate && (f.conn != nil || f.stream.Buffered() > 0) {
		f.closeProtocol()
		f.stream.Discard()
	}
}

// endTime returns the time, by the clock, at which f ends if no more packets come.
func (f *flow) endTime() int64 {
	if f.dedup.foreign {
		return f.quietTime() + 2*int64(f.table.cfg.NATTimeout) // what may be its copy ends first
	}
	return f.quietTime()
}

// quietTime returns the time, by the clock, at which the connection counts as over if no more packets come.
func (f *flow) quietTime() int64 {
	cfg := &f.table.cfg
	since, closing := f.stream.Closing()
	doubtSince, doubtful := f.stream.DoubtfulReset()
	switch {
	case closing:
		return since + int64(cfg.CloseLinger)
	case doubtful:
		return doubtSince + int64(cfg.SYNTimeout)
	case f.key.proto != protoTCP:
		return f.lastSeen + int64(cfg.UDPIdleTimeout)
	case !f.stream.Established():
		return f.lastSeen + int64(cfg.SYNTimeout)
	}
	return f.lastSeen + int64(cfg.TCPIdleTimeout)
}

// schedule sets f.due to the time of f's earliest timer and moves f in Table.timers. It keeps f.due if
// f.due is in the future and not later than that time.
func (f *flow) schedule() {
	now := f.table.clock.now

	// next becomes the earliest of: the end, a gap, the parser's tick, and the outbox.
	next := min(f.endTime(), f.stream.NextRelease())
	if f.openDue != 0 {
		next = min(next, f.openDue)
	}
	if f.conn != nil {
		next = min(next, f.tickDue)
	}
	if len(f.outbox.events) > 0 {
		next = min(next, f.outbox.retryAt)
	}

	// A time that became later is not stored: runTimers calls schedule again at the earlier time. So most
	// packets leave the heap as it is.
	next = max(next, now+1)
	if next < f.due || f.due <= now {
		f.due = next
		f.table.timers.updateFlow(f)
	}
}

// closedState returns the state of a flow that its timers or a successor end.
func (f *flow) closedState() string {
	stream := f.stream
	resetBy, reset := stream.ResetBy()

	// The end of both directions counts more than a RST: many clients send a RST after their FIN.
	ended := stream.Ended(fromClient) && stream.Ended(fromServer)
	switch {
	case ended:
		return stateFIN
	case reset && stream.SYNSeen(fromClient) && !stream.SYNSeen(fromServer) && !stream.HasSent(fromServer):
		return stateRefused
	case reset && resetBy == fromClient:
		return stateResetClient
	case reset:
		return stateResetServer
	case f.stats.sides[fromClient].packets == 0 || f.stats.sides[fromServer].packets == 0:
		if f.key.proto == protoUDP || stream.SYNSeen(fromClient) {
			return stateNoAnswer
		}
	}
	return stateTimeout
}

// exchangeOver is the idle time, ns, after which a UDP exchange is most likely over.
const exchangeOver = int64(2e9)

// evictionValue returns the value of f for the comparison of evictFlow, which evicts the flow with the lowest
// value.
func (f *flow) evictionValue() int64 {
	idle := f.table.clock.now - f.lastSeen
	if f.dead { // its session event was emitted: nothing is lost
		return -math.MaxInt64/2 - idle
	}

	// The kind of a flow outweighs any idle time. Idle time, in ms, orders the flows of one kind.
	value := -idle / 1e6
	_, closing := f.stream.Closing()
	switch {
	case closing:
		value -= 1 << 40
	case f.key.proto == protoTCP && !f.stream.Established(), f.stats.sides[fromServer].packets == 0:
		value -= 1 << 38
	case f.dedup.state == duplicate, f.key.proto == protoUDP && idle > exchangeOver:
		value -= 1 << 36
	case f.conn != nil && f.conn.Protocol() != "":
		value += 1 << 32
	}
	return value
}
