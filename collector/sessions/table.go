package sessions

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/links"
	"tidegate/collector/reassembly"
	"tidegate/pipeline/memory"
)

// A Table holds the connections of one worker. It is used by one goroutine.
//
// A method that takes a *packet handles that packet. A method without one may also run from a timer, when
// there is no packet.
type Table struct {
	cfg     Config
	deps    Deps
	dedup   *DedupTable
	metrics *tableMetrics

	decoder   decoder
	dupFilter dupFilter
	senders   senderCache
	receivers receiverCache
	ifaces    ifaceTable
	clock     packetClock
	origin    frameOrigin // of the packets that follow

	payload     []byte // of the packet of TCP that is handled
	payloadHash uint64 // of payload

	counts packetCounts

	flows       map[flowKey]*flow
	timers      timerHeap // all flows
	free        []*flow   // removed flows, for reuse
	flowIDBase  uint64    // the upper bits of flow.id, which are unique to this Table
	openedFlows uint64    // flows opened so far; the lower bits of flow.id
	random      uint64    // state of the generator that picks candidates for eviction

	streamConfig reassembly.Config
	pool         *reassembly.Pool
	memory       *memory.Account // charged with the flows
	outboxes     memory.Holders[*flow]
	outboxEvents int // events in the outboxes of all flows
	enricher     enricher
	closed       bool

	progress  atomic.Int64 // packet time of the last packet or tick, for other Tables; see publishEvery
	published int64        // the last value that was written to progress
}

// lastTableID numbers the Tables of the process.
var lastTableID atomic.Uint64

// New returns a Table. cfg must pass its Check. Tables of one registry share their counters.
func New(cfg Config, deps Deps, reg prometheus.Registerer) *Table {
	dedup := deps.Dedup
	if dedup == nil {
		dedup = NewDedupTable()
	}
	table := &Table{
		cfg: cfg, deps: deps, dedup: dedup, metrics: newTableMetrics(reg),
		ifaces:     ifaceTable{byName: map[string]uint16{}},
		flowIDBase: lastTableID.Add(1) << 40, random: 0x9e3779b97f4a7c15,
		streamConfig: reassembly.Config{
			ConnBuffer: int(cfg.ReassemblyBytesPerSession), KeepLast: cfg.OverlapPolicy == "last",
			Grace: cfg.ReorderGrace, GapTimeout: cfg.GapTimeout,
		},
		enricher: enricher{
			containers: deps.Containers, senders: deps.Senders, isHostMAC: deps.IsHostMAC,
			hasMovedMAC: deps.HasMovedMAC, emit: deps.Emit,
			limit: cfg.MaxPendingEvents,
		},
	}
	table.clearFlows()
	return table
}

// clearFlows empties the Table.
func (t *Table) clearFlows() {
	t.closeAccounts()
	t.flows, t.timers, t.free = map[flowKey]*flow{}, nil, nil
	t.pool, t.outboxEvents = reassembly.NewPool(int(t.cfg.ReassemblyBytes)), 0
	t.decoder.frags = newDefragmenter(&t.cfg, &t.pool.Buffers, t.metrics)
	t.decoder.tunnels = newTunnelGate(t)

	// Each part has an account of its own, so that the part that has grown gives something up.
	budget := t.deps.Memory
	t.memory, t.decoder.frags.memory = budget.Open("sessions"), budget.Open("fragments")
	t.pool.SetAccount(budget.Open("reassembly"))
	t.pool.SetDelivered(budget.OpenFixed("delivered"), deliveredBytes(budget))
	t.outboxes, t.enricher.memory = memory.Holders[*flow]{Account: budget.Open("pending")}, budget.Open("pending")
	for i := range t.enricher.unresolved {
		t.enricher.memory.Add(int64(t.enricher.unresolved[i].bytes))
	}
	if t.deps.Protocols != nil {
		t.deps.Protocols.SetMemory(budget.Open("parsers"))
	}
}

// deliveredBytes returns the memory of a worker for the bytes that were delivered last: 512 KiB, or less within a
// small budget.
func deliveredBytes(budget *memory.Budget) int {
	const most, least = 512 << 10, 128 << 10
	if budget == nil {
		return most
	}
	return int(min(max(budget.Limit()/64, least), most))
}

// closeAccounts releases what the parts of the Table are charged.
func (t *Table) closeAccounts() {
	if t.pool == nil {
		return
	}
	t.memory.Close()
	t.pool.CloseAccounts()
	t.decoder.frags.memory.Close()
	t.outboxes.Account.Close()
	t.enricher.memory.Close()
	if t.deps.Protocols != nil {
		t.deps.Protocols.SetMemory(nil)
	}
}

// flowBytes is the memory that a flow takes: itself with its stream, its places in the map and in the heap, its claims
// and its event.
const flowBytes = int64(unsafe.Sizeof(flowMemory{})) + 512

// enforceBudget drops the free flows and evicts others while the memory budget is exceeded and this Table's
// flows are the largest part.
func (t *Table) enforceBudget() {
	for t.memory.Excess() > 0 {
		if len(t.free) == 0 {
			if len(t.timers) == 0 {
				return
			}
			t.evictFlow()
		}
		freed := flowBytes * int64(len(t.free))
		t.free = nil
		t.memory.Add(-freed)
		t.memory.GaveUp(freed)
	}
}

// enforceBudgets has each part give up memory if the budget is exceeded and the part is the largest. Packets
// have the part that they let grow do so; here a part does that does not grow, while others do.
func (t *Table) enforceBudgets() {
	t.enforceBudget()
	t.pool.EnforceLimit()
	t.decoder.frags.enforceLimit()
	t.enforceOutboxes()
	t.enricher.enforceBudget()
	if t.deps.Protocols != nil {
		t.deps.Protocols.EnforceBudget(t.clock.now)
	}
}

const (
	flushEvery   = 4096 // packets between two flushes of the counters
	enforceEvery = 64   // packets between two looks at the memory budget
)

// Packet handles one frame, captured on ifaceName at the packet time at. data is valid until Packet returns.
// wireLen is the length of the frame on the wire.
func (t *Table) Packet(ifaceName string, link layers.LinkType, at int64, data []byte, wireLen int) {
	if t.closed {
		return
	}
	defer t.recoverPanic()

	// The timers run first: they belong to the time before the packet.
	t.advanceClock(at)
	t.publishProgress(at)
	p := packet{clock: t.clock.now, iface: t.ifaceIndex(ifaceName)}
	p.Time = at
	t.counts.results[t.handleFrame(&p, link, data, wireLen)]++
	if t.decoder.aggregate != nil {
		t.handleAggregate(at)
	}

	// The payload of p may be in a defragmented datagram, so its buffer is released only now.
	if len(t.decoder.frags.complete) > 0 {
		t.decoder.frags.releaseComplete()
	}
	t.counts.pending++
	if t.counts.pending%enforceEvery == 0 {
		t.enforceBudgets()
	}
	if t.counts.pending >= flushEvery {
		t.flushCounters()
	}
}

// handleFrame decodes a frame into p and hands p to its flow.
func (t *Table) handleFrame(p *packet, link layers.LinkType, data []byte, wireLen int) result {
	res := t.decoder.decodeFrame(p, link, data, wireLen)
	if p.unopened != links.NoEncapsulation {
		t.metrics.unopenedTunnels[p.unopened].Inc()
	}
	damaged := res.isDamaged()
	if t.deps.Senders != nil && link == layers.LinkTypeEthernet && (res == resTCP || res == resUDP || damaged) {
		t.checkSender(p, data)
	}
	if damaged {
		t.handleDamaged(p, wireLen)
	}
	if link == layers.LinkTypeEthernet && res == resTCP {
		t.checkReceiver(p, data)
	}
	return t.handleDecoded(p, res)
}

// handleDecoded hands p, which was decoded with the result res, to its flow.
func (t *Table) handleDecoded(p *packet, res result) result {
	switch res {
	case resTCP:
		if t.dupFilter.isDuplicate(p) {
			return resDuplicate
		}
		t.payload, t.payloadHash = p.Payload, p.payloadHash
		t.handleTCP(p)
		t.payload = nil
	case resUDP:
		if t.dupFilter.isDuplicate(p) {
			return resDuplicate
		}
		t.handleUDP(p)
	default:
		if p.undecoded.Layer != noLayer {
			t.metrics.undecoded.add(p.undecoded)
		}
		if t.deps.Undecoded != nil && res != resFragment {
			t.deps.Undecoded(p.undecoded, resultNames[res])
		}
	}
	return res
}

// handleAggregate handles the frames of an A-MSDU behind the first one, each as a packet of its own.
func (t *Table) handleAggregate(at int64) {
	for t.decoder.aggregate != nil {
		data := t.decoder.aggregate
		t.decoder.aggregate = nil
		p := packet{clock: t.clock.now, iface: t.ifaces.lastIndex}
		p.Time = at
		t.counts.results[t.handleDecoded(&p, t.decoder.decodeAggregate(&p, data, len(data), 0))]++
	}
}

// Tick advances the clock to the packet time now while no packets come.
func (t *Table) Tick(now int64) {
	if t.closed {
		return
	}
	defer t.recoverPanic()
	t.advanceClock(now)
	t.publishProgress(now)
	t.flushCounters()
	t.enforceBudgets()
	t.enricher.retryUnresolved(t.clock.now, false)
}

// recoverPanic recovers from a panic in the handling of a packet, which is a bug of this program. It must be
// deferred. The state of the Table cannot be trusted after a panic, so all open sessions are dropped.
func (t *Table) recoverPanic() {
	if r := recover(); r == nil {
		return
	}
	t.metrics.panics.Inc()
	for _, f := range t.timers {
		t.dedup.releaseClaims(f.dedup.heldClaims(), f.id)
	}
	t.clearFlows()
	t.flushCounters()
}

// Close ends every session and emits all events that wait. Later packets are ignored.
func (t *Table) Close() {
	if t.closed {
		return
	}
	t.closed = true
	for len(t.timers) > 0 {
		flow := t.timers[len(t.timers)-1] // the last one is removed from the heap at no cost
		if !flow.dead {
			t.finishFlow(flow, "")
		}
		t.removeFlow(flow, keepClaims)
	}
	t.decoder.frags.close()
	t.progress.Store(math.MaxInt64) // nobody waits for a Table that is closed
	t.flushCounters()
	t.enricher.retryUnresolved(t.clock.now, true)
	t.closeAccounts()
}

// publishProgress lets the Tables of other workers know that this one has handled the packets up to the packet
// time at.
func (t *Table) publishProgress(at int64) {
	if isDue(at, t.published) {
		t.published = at
		t.progress.Store(at)
	}
}

// advanceClock moves the clock and runs the timers that are due.
func (t *Table) advanceClock(at int64) {
	t.clock.advance(at)
	for len(t.timers) > 0 && t.timers[0].due <= t.clock.now {
		t.runTimers(t.timers[0])
	}
	t.decoder.frags.expire(t.clock.now)
}

// openFlow returns a new flow whose first packet is p. sender is the end of key that sent p.
// The flow is pending, primary or already a duplicate.
func (t *Table) openFlow(p *packet, key flowKey, sender uint8) *flow {
	if len(t.timers) >= t.cfg.MaxSessions {
		t.evictFlow()
	}

	// Take a flow from the free list, else allocate one. Beyond the budget that of an evicted flow is reused.
	if len(t.free) == 0 && len(t.timers) > 0 && t.memory.Excess() > 0 {
		t.evictFlow()
	}
	var f *flow
	if n := len(t.free); n > 0 {
		f, t.free = t.free[n-1], t.free[:n-1]
	} else {
		f = newFlow(t)
		t.memory.Add(flowBytes)
	}

	// The key, the id and the times are set first: inferDirection and claimFirst use them.
	f.stream.Init(&t.streamConfig, t.pool, f)
	t.openedFlows++
	f.key, f.id = key, t.flowIDBase+t.openedFlows
	f.first, f.last, f.lastSeen = p.Time, p.Time, t.clock.now
	f.vlan = p.vlan
	f.sender = frameSender{p.src, p.mac, p.origin}
	f.setTunnel(p)
	f.due = t.clock.now + int64(t.cfg.SYNTimeout)
	if t.cfg.OpenInterval > 0 {
		f.openDue = t.clock.now + int64(t.cfg.OpenInterval)
	}
	f.resetActivity(p.Time, sender)
	if p.checksum == sumPlausible {
		f.checksums[sender].plausible = 1
	}
	t.flows[key] = f
	t.timers.insertFlow(f)
	switch key.proto {
	case protoTCP:
		t.metrics.opened[0].Inc()
	case protoUDP:
		t.metrics.opened[1].Inc()
	default:
		t.metrics.opened[2].Inc()
	}
	f.inferDirection(p, sender)
	f.orientTunnel(sender)
	f.claimFirst()
	return f
}

// resetActivity makes the activity of f that of a flow whose first packet came from sender.
func (f *flow) resetActivity(first int64, sender uint8) {
	f.activity.owner.Store(f.id)
	f.activity.lost.Store(false)
	f.activity.prints[0].clearPrints()
	f.activity.prints[1].clearPrints()
	f.activity.seen[sender].Store(first)
	f.activity.seen[sender^1].Store(0)
	f.dedup.published[sender] = first
}

// timeWait is the time, ns, that a dead flow stays, so that its last packets do not begin a new one and the
// flows of other interfaces find its claim.
const timeWait = int64(5e9)

// finishFlow ends f and emits its session event. f stays in the Table as a dead flow. If state is "", the
// state is shutdown, or closedState if f was closing.
func (t *Table) finishFlow(f *flow, state string) {
	// The order matters. The parser gets the last bytes before it is closed. Its last events come before the
	// session event. The claims are held until all events are emitted.
	f.stream.Flush()
	f.closeProtocol()
	f.emitSession(state)
	if f.dedup.state == duplicate {
		f.countUnreported()
	}
	f.dead = true
	t.dedup.endClaims(f.dedup.heldClaims(), f.id, f.last)
	f.due = t.clock.now + timeWait
	t.timers.updateFlow(f)
}

// A claimsOnRemove selects what removeFlow does with the claims of the flow.
type claimsOnRemove bool

const (
	keepClaims claimsOnRemove = false // the flows of other Tables still find the claims, which expire by themselves
	dropClaims claimsOnRemove = true
)

// removeFlow takes a dead flow out of the Table.
func (t *Table) removeFlow(f *flow, claims claimsOnRemove) {
	if claims == dropClaims {
		f.releaseClaims()
	}
	if t.flows[f.key] == f {
		delete(t.flows, f.key)
	}
	t.timers.removeFlow(f)
	f.stream.ForgetDelivered()
	f.prepareReuse()
	if len(t.free) < maxFreeFlows {
		t.free = append(t.free, f) // and stays charged
	} else {
		t.memory.Add(-flowBytes)
	}
}

// maxFreeFlows is the number of removed flows that are kept for reuse.
const maxFreeFlows = 1024

// replaceFlow ends and removes f, because a packet with its tuple begins a new connection.
func (t *Table) replaceFlow(f *flow, state string) {
	if !f.dead {
		t.finishFlow(f, state)
	}
	t.removeFlow(f, dropClaims)
}

// runTimers handles the timers of f that are due.
func (t *Table) runTimers(f *flow) {
	if f.dead {
		t.removeFlow(f, dropClaims)
		return
	}

	// Deduplication comes before the end of the flow, which would decide it without a mapping.
	if len(f.outbox.events) > 0 && t.clock.now >= f.outbox.retryAt {
		f.outbox.retryAt = t.clock.now + outboxRetryEvery
		if t.clock.now >= f.outbox.deadline {
			f.resolveDedup(true, decidedByTimeout)
		} else {
			f.resolveDedup(false, decidedByMapping)
		}
	}
	if t.clock.now >= f.endTime() {
		state := f.closedState()
		if f.dedup.state == duplicate && f.key.proto == protoTCP {
			f = t.separateEnded(f)
		}
		t.finishFlow(f, state)
		return
	}

	if f.openDue != 0 && t.clock.now >= f.openDue {
		f.reportOpen()
	}

	// Gaps come before the parser's time-outs: the bytes behind a gap may be the answer that the parser waits
	// for.
	if f.key.proto == protoTCP {
		f.stream.Release(t.clock.now)
	}
	if f.conn != nil && t.clock.now >= f.tickDue {
		f.tickProtocol()
	}
	f.closeIfDuplicate()
	f.schedule()
}

// evictionSamples is the number of flows that evictFlow compares. A comparison of all flows would take too
// long.
const evictionSamples = 16

// evictFlow removes the least valuable of a few flows that are picked at random.
func (t *Table) evictFlow() {
	var worst *flow
	lowest := int64(0)
	for range evictionSamples {
		candidate := t.timers[t.randomIndex(len(t.timers))]
		if value := candidate.evictionValue(); worst == nil || value < lowest {
			worst, lowest = candidate, value
		}
	}
	if !worst.dead {
		t.finishFlow(worst, stateEvicted)
	}
	t.removeFlow(worst, dropClaims)
}

// randomIndex returns a pseudo-random number below n (xorshift). The same packets always evict the same
// flows.
func (t *Table) randomIndex(n int) int {
	t.random ^= t.random << 13
	t.random ^= t.random >> 7
	t.random ^= t.random << 17
	return int(t.random % uint64(n))
}
