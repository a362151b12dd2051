package sessions

import (
	"sync/atomic"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"
)

// A Table is the connections of one worker.
type Table struct {
	cfg    Config
	deps   Deps
	dedup  *DedupTable
	number uint64 // of this Table in the process: the upper bits of its flows' numbers
	m      *metrics
	tally  tally

	p             packet
	flows         map[key]*flow
	heap          []*flow // all flows, the one that is due next first
	free          []*flow
	buffering     []*flow // those that hold bytes out of order
	bufferedBytes int     // what these bytes take
	outboxEvents  int     // events in outboxes
	bufs          buffers
	frags         frags
	dupFilter     dupFilter

	clock          int64 // goes forward only
	packetTime     int64 // the packet time that clock was last moved to
	timeBeforeJump int64 // what last was before packet time was set back
	opened         uint64
	rngState       uint64 // state of the random numbers that pick candidates for eviction

	ifaces     []iface
	names      map[string]uint16
	lastIface  uint16            // the interface of the last packet
	sinceFlush int               // packets since the last flush
	unresolved []unresolvedEvent // events that wait for a container to be known
	closed     bool
}

// An iface is an interface that packets came from.
type iface struct {
	name   string
	bridge bool
	shared uint16 // its number in DedupTable
}

var tables atomic.Uint64

// New makes a Table. A zero value in cfg is its default. Tables of one registry share their counters.
func New(cfg Config, deps Deps, reg prometheus.Registerer) *Table {
	cfg.fill()
	shared := deps.Dedup
	if shared == nil {
		shared = NewDedupTable()
	}
	return &Table{
		cfg: cfg, deps: deps, dedup: shared, number: tables.Add(1) << 40, m: newMetrics(reg),
		flows: map[key]*flow{}, frags: frags{m: map[fragKey]*datagram{}}, names: map[string]uint16{},
		rngState: 0x9e3779b97f4a7c15,
	}
}

func (c *Config) fill() {
	def := Default()
	fill(&c.MaxSessions, def.MaxSessions)
	fill(&c.SessionBuffer, def.SessionBuffer)
	fill(&c.Buffer, def.Buffer)
	fill(&c.FragmentBuffer, def.FragmentBuffer)
	fill(&c.Outbox, def.Outbox)
	fill(&c.TCPIdle, def.TCPIdle)
	fill(&c.SYNTimeout, def.SYNTimeout)
	fill(&c.UDPIdle, def.UDPIdle)
	fill(&c.FragmentTimeout, def.FragmentTimeout)
	fill(&c.Linger, def.Linger)
	fill(&c.Grace, def.Grace)
	fill(&c.GapTimeout, def.GapTimeout)
	fill(&c.NATWait, def.NATWait)
	fill(&c.Overlap, def.Overlap)
}

func fill[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// flushEvery is after how many packets the counters are told.
const flushEvery = 4096

// Packet takes one frame, captured on iface at the time at (ns since 1970). data is only valid during the call; wireLen is how long
// the frame was before it was cut.
func (t *Table) Packet(iface string, link layers.LinkType, at int64, data []byte, wireLen int) {
	if t.closed {
		return
	}
	defer t.recoverPanic()
	t.advanceClock(at)
	t.p = packet{at: at, iface: t.ifaceIndex(iface)}
	t.tally.packets[t.handleFrame(link, data, wireLen)]++
	if len(t.frags.loaned) > 0 {
		t.frags.settle(t)
	}
	if t.sinceFlush++; t.sinceFlush >= flushEvery {
		t.sinceFlush = 0
		t.flushCounters()
	}
}

// handleFrame decodes a frame and gives it to its flow.
func (t *Table) handleFrame(link layers.LinkType, data []byte, wireLen int) result {
	r := t.decode(link, data, wireLen)
	switch r {
	case resTCP:
		if t.dupFilter.isDuplicate(t) {
			return resDuplicate
		}
		t.handleTCP()
	case resUDP:
		if t.dupFilter.isDuplicate(t) {
			return resDuplicate
		}
		t.handleUDP()
	}
	return r
}

// Tick tells that packet time has come to now though no packet came.
func (t *Table) Tick(now int64) {
	if t.closed {
		return
	}
	defer t.recoverPanic()
	t.advanceClock(now)
	t.flushCounters()
	if len(t.unresolved) > 0 {
		t.retryUnresolved(false)
	}
}

// recoverPanic makes a panic, which is an error of ours that some input found, cost the sessions that are open and not the process.
func (t *Table) recoverPanic() {
	if r := recover(); r == nil {
		return
	}
	t.m.panics.Inc()
	for _, f := range t.heap {
		t.dedup.release(f)
	}
	t.flows, t.heap, t.free, t.buffering = map[key]*flow{}, nil, nil, nil
	t.bufferedBytes, t.outboxEvents, t.bufs, t.frags = 0, 0, buffers{}, frags{m: map[fragKey]*datagram{}}
	t.flushCounters()
}

// Close ends every session and emits everything. The Table takes no more packets.
func (t *Table) Close() {
	if t.closed {
		return
	}
	t.closed = true
	for len(t.heap) > 0 {
		f := t.heap[len(t.heap)-1]
		if !f.dead {
			t.finishFlow(f, "")
		}
		t.removeFlow(f, true)
	}
	t.flushCounters()
	t.retryUnresolved(true)
}

// maxBack is how far packet times may go back without being a clock that was set back.
const maxBack = int64(10e9)

// advanceClock moves the clock and does what is due.
func (t *Table) advanceClock(at int64) {
	switch d := at - t.packetTime; {
	case t.packetTime == 0:
		t.packetTime = at
		t.clock = 1
	case d > maxBack && t.timeBeforeJump != 0 && max(at-t.timeBeforeJump, t.timeBeforeJump-at) < maxBack:
		t.clock += max(at-t.timeBeforeJump, 0) // back from where a few packets with wrong times had led
		t.packetTime, t.timeBeforeJump = at, 0
	case d > 0:
		t.clock += min(d, int64(24*3600e9))
		t.packetTime = at
	case d < -maxBack:
		t.packetTime, t.timeBeforeJump = at, t.packetTime
	}
	for len(t.heap) > 0 && t.heap[0].due <= t.clock {
		t.runTimers(t.heap[0])
	}
	if t.frags.head < len(t.frags.line) {
		t.frags.expire(t)
	}
}

// ifaceIndex gives the number of an interface.
func (t *Table) ifaceIndex(name string) uint16 {
	if int(t.lastIface) < len(t.ifaces) && t.ifaces[t.lastIface].name == name {
		return t.lastIface
	}
	i, ok := t.names[name]
	if !ok {
		if len(t.ifaces) >= 1<<15 { // more than a host has: a hostile capture file
			return 0
		}
		i = uint16(len(t.ifaces))
		t.ifaces = append(t.ifaces, iface{name: name, bridge: t.deps.Bridge != nil && t.deps.Bridge(name), shared: t.dedup.iface(name)})
		t.names[name] = i
	}
	t.lastIface = i
	return i
}

// openFlow makes the flow of the packet at hand.
func (t *Table) openFlow(k key, side uint8) *flow {
	if len(t.heap) >= t.cfg.MaxSessions {
		t.evictFlow()
	}
	var f *flow
	if n := len(t.free); n > 0 {
		f, t.free = t.free[n-1], t.free[:n-1]
	} else {
		f = &flow{t: t}
		f.emit = f.emitEvent
	}
	t.opened++
	f.key, f.number = k, t.number+t.opened
	f.first, f.last, f.seen, f.opened = t.p.at, t.p.at, t.clock, t.clock
	f.half[0].fin, f.half[1].fin = -1, -1
	f.half[0].scale, f.half[1].scale = -1, -1
	f.vlan = t.p.vlan
	f.due = t.clock + int64(t.cfg.SYNTimeout)
	t.flows[k] = f
	t.push(f)
	if k.proto == protoTCP {
		t.m.opened[0].Inc()
	} else {
		t.m.opened[1].Inc()
	}
	f.guessDirection(side)
	f.claimFirst()
	return f
}

// timeWait is how long a flow that has been told is remembered, so that its last packets do not begin a new one and other
// interfaces' copies still find who spoke for it.
const timeWait = int64(5e9)

// finishFlow ends f and tells its session; f stays in the Table as a dead one. state "" is what it looks like: shutdown, unless it closed.
func (t *Table) finishFlow(f *flow, state string) {
	f.flushStreams()
	f.closeConn()
	f.emitSession(state)
	f.dead = true
	t.dedup.end(f)
	f.due = t.clock + timeWait
	t.fix(f)
}

// removeFlow takes a dead flow out of the Table. keep leaves its claim in DedupTable.
func (t *Table) removeFlow(f *flow, keep bool) {
	if !keep {
		t.dedup.release(f)
	}
	if t.flows[f.key] == f {
		delete(t.flows, f.key)
	}
	t.remove(f)
	f.reset()
	if len(t.free) < maxFreeFlows {
		t.free = append(t.free, f)
	}
}

const maxFreeFlows = 4096

// replaceFlow ends f because its tuple begins a new connection.
func (t *Table) replaceFlow(f *flow, state string) {
	if !f.dead {
		t.finishFlow(f, state)
	}
	t.removeFlow(f, false)
}

// runTimers does what the time of f has come for.
func (t *Table) runTimers(f *flow) {
	if f.dead {
		t.removeFlow(f, false)
		return
	}
	if len(f.outbox) > 0 && t.clock >= f.outboxRetry {
		f.outboxRetry = t.clock + outboxRetryEvery
		if t.clock >= f.outboxDeadline {
			f.resolveDedup(true, "timeout")
		} else {
			f.resolveDedup(false, "mapping")
		}
	}
	if end := f.endTime(); t.clock >= end {
		t.finishFlow(f, f.closedState())
		return
	}
	if f.key.proto == protoTCP {
		f.releaseExpired()
	}
	if f.conn != nil && t.clock >= f.tickDue {
		f.tickConn()
	}
	f.closeIfDuplicate()
	f.schedule()
}

// evictFlow makes room for a flow: of a few picked at random, the one that says least.
func (t *Table) evictFlow() {
	var worst *flow
	low := int64(0)
	for range 16 {
		f := t.heap[t.random(len(t.heap))]
		if v := f.evictionValue(); worst == nil || v < low {
			worst, low = f, v
		}
	}
	if !worst.dead {
		t.finishFlow(worst, stateEvicted)
	}
	t.removeFlow(worst, false)
}

// random is xorshift; the same packets evict the same flows.
func (t *Table) random(n int) int {
	t.rngState ^= t.rngState << 13
	t.rngState ^= t.rngState >> 7
	t.rngState ^= t.rngState << 17
	return int(t.rngState % uint64(n))
}

// freeBuffers frees memory of segments out of order: the flow that holds most, of a few, gives up its gaps.
func (t *Table) freeBuffers() {
	for t.bufferedBytes > t.cfg.Buffer && len(t.buffering) > 0 {
		var most *flow
		for range 8 {
			if f := t.buffering[t.random(len(t.buffering))]; most == nil || f.bufferedBytes > most.bufferedBytes {
				most = f
			}
		}
		for most.bufferedBytes > 0 {
			most.giveUpOldest(gapBudget)
		}
	}
}
