package sessions

import (
	"math"
	"net/netip"

	"tidegate/collector/reassembly"
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

var states = [...]string{
	stateFIN, stateResetClient, stateResetServer, stateTimeout,
	stateEvicted, stateRefused, stateNoAnswer, stateShutdown,
}

// The two directions of a flow by sender, as package reassembly counts them; protocols.Dir has the same
// numbers.
const (
	fromClient = reassembly.Dir(protocols.Client)
	fromServer = reassembly.Dir(protocols.Server)
)

// A flow is one connection in a Table, or one exchange of datagrams. Flows are reused.
type flow struct {
	t         *Table
	key       flowKey
	id        uint64 // unique in the process: the owner of claims in the DedupTable
	heapIndex int    // in Table.timers
	due       int64  // clock: when something may have to be done

	conn       *protocols.Conn // nil: not opened yet, or closed
	emit       func(*pipeline.Event)
	tickDue    int64 // clock: when conn is to be ticked
	session    pipeline.ID
	vlan       uint16
	clientSide uint8 // which end of key is the client: 0 a, 1 b
	dead       bool  // its event was emitted

	first, last int64 // packet times of the first and the last packet
	lastSeen    int64 // clock: the last packet

	stream     *reassembly.Conn // of TCP
	pendingSYN pendingSYN
	stats      sessionStats

	dedup  dedup
	nat    natState
	outbox outbox
}

// newFlow allocates a flow and its stream in one piece.
func newFlow(table *Table) *flow {
	both := &struct {
		flow   flow
		stream reassembly.Conn
	}{}
	f := &both.flow
	f.t, f.stream = table, &both.stream
	f.emit = f.emitEvent
	return f
}

// prepareReuse makes f ready for another connection; memory that it owns is kept.
func (f *flow) prepareReuse() {
	events := f.outbox.events[:0:min(cap(f.outbox.events), 32)]
	*f = flow{t: f.t, emit: f.emit, stream: f.stream, outbox: outbox{events: events}}
}

// endpoints returns the addresses of client and server as they were seen.
func (f *flow) endpoints() (client, server netip.AddrPort) {
	a := netip.AddrPortFrom(f.key.a.netip(), f.key.aport)
	b := netip.AddrPortFrom(f.key.b.netip(), f.key.bport)
	if f.clientSide == 0 {
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

// openProtocol gives the session its id and opens its protocols.Conn. seq is the first sequence number, 0 for
// UDP.
func (f *flow) openProtocol(seq uint32, midStream bool) {
	client, server := f.endpoints()
	f.stats.partialStart = midStream
	f.session = pipeline.SessionID(f.t.deps.Collector, f.transport(), client, server, seq, f.first)
	if f.dedup.state == duplicate || f.t.deps.Protocols == nil {
		return
	}
	f.conn = f.t.deps.Protocols.Open(protocols.Info{
		Transport: f.transport(), Client: client, Server: server, Session: f.session,
		CommunityID: pipeline.CommunityID(f.transport(), client, server), VLAN: f.vlan, MidStream: midStream,
	}, f.emit)
	f.tickDue = f.t.clock.now + f.tickEvery()
}

// tickEvery returns how often conn is ticked: answers over UDP are given up within seconds.
func (f *flow) tickEvery() int64 {
	if f.key.proto == protoUDP {
		return 1e9
	}
	return 5e9
}

func (f *flow) tickProtocol() {
	f.tickDue = f.t.clock.now + f.tickEvery()
	f.conn.Tick(f.t.clock.packetTime)
}

// closeProtocol closes conn: its parser emits what still waits.
func (f *flow) closeProtocol() {
	if f.conn == nil {
		return
	}
	conn := f.conn
	if name := conn.Protocol(); name != "" {
		f.stats.protocol = name
	}
	f.stats.flipped = conn.Flipped()
	conn.Close(f.t.clock.packetTime)
	f.conn = nil
}

// closeIfDuplicate frees what a duplicate does not need any more. A flow may become a duplicate while its
// parser emits an event, when neither conn nor stream can be taken from it; this is called afterwards.
func (f *flow) closeIfDuplicate() {
	if f.dedup.state == duplicate && (f.conn != nil || f.stream.Buffered() > 0) {
		f.closeProtocol()
		f.stream.Discard()
	}
}

// endTime returns when, by the clock, f is over if no more packets come.
func (f *flow) endTime() int64 {
	cfg := &f.t.cfg
	since, closing := f.stream.Closing()
	switch {
	case closing:
		return since + int64(cfg.CloseLinger)
	case f.key.proto == protoUDP:
		return f.lastSeen + int64(cfg.UDPIdleTimeout)
	case !f.stream.Established():
		return f.lastSeen + int64(cfg.SYNTimeout)
	}
	return f.lastSeen + int64(cfg.TCPIdleTimeout)
}

// schedule moves f in Table.timers: forward if something is due earlier than it was, back if its time has
// passed.
func (f *flow) schedule() {
	now := f.t.clock.now
	next := min(f.endTime(), f.stream.NextRelease())
	if f.conn != nil {
		next = min(next, f.tickDue)
	}
	if len(f.outbox.events) > 0 {
		next = min(next, f.outbox.retryAt)
	}

	// A timer that stays where it is costs nothing; a later time is found when the earlier one comes.
	next = max(next, now+1)
	if next < f.due || f.due <= now {
		f.due = next
		f.t.timers.updateFlow(f)
	}
}

// closedState returns how a flow whose time is over has ended.
func (f *flow) closedState() string {
	stream := f.stream
	resetBy, reset := stream.ResetBy()
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

// exchangeOver is the idle time, ns, after which an exchange of datagrams is most likely over.
const exchangeOver = int64(2e9)

// evictionValue returns how much would be lost with f. evictFlow evicts the flow with the lowest value.
func (f *flow) evictionValue() int64 {
	idle := f.t.clock.now - f.lastSeen
	if f.dead { // nothing: its event was emitted
		return -math.MaxInt64/2 - idle
	}

	// Idle time in ms decides between flows of one kind, the kind between flows of different kinds.
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
