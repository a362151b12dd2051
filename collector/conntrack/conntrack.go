//go:build linux

// Package conntrack mirrors the kernel's table of connections that NAT rewrites: it maps the addresses on
// eth0 to the addresses on a bridge.
//
// A Tracker subscribes to the netlink events of nf_conntrack and keeps both tuples of every entry in a map.
// The session tables of all workers read the map (sessions.NAT) and report a connection that is captured on
// both sides of NAT once. The Tracker needs CAP_NET_ADMIN in the network namespace of the host. Without it,
// or without the kernel module, the collector works, and each side of NAT is reported as a session of its
// own.
//
// An entry is stored when the kernel announces it (NEW) or lists it (dump), and expires keepDestroyed after
// its DESTROY event. When the kernel has dropped events (ENOBUFS), the Tracker reads the table again, and
// entries that are missing in the table expire.
//
// The map is bounded by maxTuples and charged to the memory budget. Beyond either, the oldest tuples are given up:
// those of connections that the kernel has destroyed, then those that it announced first. A mapping is needed when
// the first packets of its connection are read, and later only by a flow that begins anew.
//
// Only the goroutine of Run writes. Each shard of the map has a lock; no code holds two of them.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ct "github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

const (
	// keepDestroyed is the time for which an entry can be looked up after the kernel destroyed it. The last
	// packets of its session may be read later than the event.
	keepDestroyed = 30 * time.Second

	// maxTuples bounds the tuples in all shards, of about 110 bytes each. The kernel's own table usually holds up to
	// 262,144 entries, of two tuples behind NAT. Beyond it the oldest tuple of the shard is given up.
	maxTuples = 1 << 19

	// enforceEvery is the time between two looks at the memory budget while no events come: other parts may have grown.
	enforceEvery = 100 * time.Millisecond

	// resyncPause is the pause between a loss of events and the next read of the whole table. It bounds the
	// work on a host whose connections arrive faster than the events are read.
	resyncPause = 100 * time.Millisecond

	// shardCount is the number of shards of the map.
	shardCount = 64
)

// A Tracker holds the map. Lookup and Len are safe for concurrent use; Run is called once.
type Tracker struct {
	// Memory, unless nil, is charged with the map. While it is exceeded, the oldest tuples are given up. It is set before
	// Run.
	Memory *memory.Budget

	log           *slog.Logger
	table         table
	tuples        atomic.Int64 // in all shards
	account       *memory.Account
	keepDestroyed time.Duration
	expireEvery   time.Duration
	now           func() time.Time
	querier       querier

	events     *prometheus.CounterVec
	tableReads prometheus.Counter
	givenUp    *prometheus.CounterVec
}

// New returns an empty Tracker. Run fills it.
func New(log *slog.Logger, reg prometheus.Registerer) *Tracker {
	factory := metrics.With(reg)
	tracker := &Tracker{
		log: log, table: table{seed: maphash.MakeSeed()}, keepDestroyed: keepDestroyed, expireEvery: 5 * time.Second, now: time.Now,
		events: factory.CounterVec("tidegate_conntrack_events_total",
			"Events that the kernel's connection tracking sent, by type. Type lost counts the times that the "+
				"kernel dropped events.", "type"),
		tableReads: factory.Counter("tidegate_conntrack_table_reads_total",
			"Reads of the kernel's whole conntrack table: one at the start, and one after each loss of events."),
		givenUp: factory.LabelledCounters("tidegate_conntrack_dropped_total",
			"Conntrack tuples that the collector gave up, the oldest first, because the map was full or because the memory "+
				"budget was exceeded.", "reason", reasonFull, reasonMemory),
	}

	queries := factory.CounterVec("tidegate_conntrack_queries_total",
		"Queries for a single conntrack entry, whether the outer packet of a tunnel is that of a container, by result. "+
			"failed and limited: the tunnel is not opened.", "result")
	tracker.querier.answered = queries.WithLabelValues("answered")
	tracker.querier.failed = queries.WithLabelValues("failed")
	tracker.querier.limited = queries.WithLabelValues("limited")

	// Each counter starts at 0, so that a query of its rate finds it.
	for _, kind := range []string{"new", "destroy", "other", "lost"} {
		tracker.events.WithLabelValues(kind)
	}
	factory.GaugeFunc("tidegate_conntrack_tuples", "Conntrack tuples in the map: one for each connection, two behind NAT.",
		func() float64 { return float64(tracker.Len()) })
	return tracker
}

// Len returns the number of tuples in the map: one for each entry, two behind NAT.
func (t *Tracker) Len() int { return int(t.tuples.Load()) }

// Lookup returns the addresses on both sides of NAT of the connection to which a packet src → dst belongs.
// The packet may have been captured on either side of NAT and may go in either direction.
func (t *Tracker) Lookup(proto pipeline.Transport, src, dst netip.AddrPort) (sessions.Mapping, bool) {
	wanted := tupleOf(proto, src, dst)
	if mapping, ok := t.table.lookup(wanted); ok {
		return mapping, true
	}
	wanted.src, wanted.dst = wanted.dst, wanted.src
	return t.table.lookup(wanted)
}

// Run follows the kernel's table until ctx ends. It returns an error only when it lacks the permission; after
// every other error it subscribes again and reads the whole table.
func (t *Tracker) Run(ctx context.Context) error {
	t.account = t.Memory.Open("conntrack")
	defer t.account.Close()
	backoff := retry.Backoff{Min: time.Second, Max: time.Minute}
	for {
		start := time.Now()
		err := t.followEvents(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("subscribe to conntrack events (needs CAP_NET_ADMIN): %w", err)
		}
		if time.Since(start) > time.Minute {
			backoff.Reset()
		}

		// A loss of events is expected under load and is followed by a resync; everything else is logged.
		pause := resyncPause
		if errors.Is(err, unix.ENOBUFS) {
			t.events.WithLabelValues("lost").Inc()
		} else {
			pause = backoff.Next()
			t.log.Warn("conntrack events unavailable, retrying", "err", err, "retry_in", pause)
		}
		if retry.Sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// followEvents subscribes to the kernel's events, reads the whole table, and then applies event after event
// until ctx ends or netlink fails.
//
// The subscription comes first: an entry that is created between the two steps is then in the events, in the
// table or in both, and never missed.
func (t *Tracker) followEvents(ctx context.Context) error {
	// Subscribe.
	conn, err := ct.Dial(nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := conn.SetReadBuffer(8 << 20); err != nil {
		t.log.Debug("conntrack read buffer keeps its default size", "err", err)
	}
	events := make(chan ct.Event, 4096)
	failed, err := conn.Listen(events, 1, []netfilter.NetlinkGroup{netfilter.GroupCTNew, netfilter.GroupCTDestroy})
	defer closeAndDrain(conn, events, failed)
	if err != nil {
		return fmt.Errorf("join the netlink groups: %w", err)
	}

	// A connection that listens cannot send requests.
	queries, err := ct.Dial(nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	t.querier.connect(queries)
	defer t.querier.connect(nil)

	// Events that arrive meanwhile wait in the channel and in the socket's buffer.
	if err := t.readKernelTable(); err != nil {
		return err
	}

	// Apply the events. The map now holds every entry of the kernel's table, and perhaps destroyed ones.
	expire := time.NewTicker(t.expireEvery)
	defer expire.Stop()
	enforce := time.NewTicker(enforceEvery)
	defer enforce.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case event := <-events:
			t.handleEvent(event)
		case <-expire.C:
			t.expireDestroyed()
		case <-enforce.C:
			t.enforceBudget()
		}
	}
}

// closeAndDrain closes conn and discards the events and the error that its worker still sends. Close waits
// for the worker, and the worker blocks until its channels are read, so closeAndDrain reads while Close runs.
func closeAndDrain(conn io.Closer, events <-chan ct.Event, failed <-chan error) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = conn.Close()
	}()
	for {
		select {
		case <-events:
		case <-failed:
		case <-closed:
			return
		}
	}
}

// readKernelTable stores every entry of the kernel's table. Entries that are missing in the table were destroyed
// while no events were read, so they expire.
func (t *Tracker) readKernelTable() error {
	// Every entry that store does not refresh after start is missing in the table.
	start := t.now()
	if err := dumpTable(t.store); err != nil {
		return fmt.Errorf("read the conntrack table: %w", err)
	}
	t.tableReads.Inc()
	t.expireUnseenSince(start)
	return nil
}

// expireUnseenSince treats every entry that the kernel has not announced or listed since start as destroyed
// now.
func (t *Tracker) expireUnseenSince(start time.Time) {
	now := t.now().UnixNano()
	for i := range t.table.shards {
		shard := &t.table.shards[i]
		shard.mu.Lock()
		shard.destroyBefore(start.UnixNano(), now)
		shard.mu.Unlock()
	}
}

// handleEvent applies one event of the kernel to the map.
func (t *Tracker) handleEvent(event ct.Event) {
	if event.Flow == nil {
		return
	}
	switch event.Type {
	case ct.EventNew:
		t.events.WithLabelValues("new").Inc()
		t.store(event.Flow)
	case ct.EventDestroy:
		t.events.WithLabelValues("destroy").Inc()
		// The entry stays in the map for keepDestroyed.
		if orig, reply, ok := tuplesOf(event.Flow); ok {
			now := t.now().UnixNano()
			for _, key := range [...]tuple{orig, reply} {
				shard, hash := t.table.hash(&key)
				shard.mu.Lock()
				shard.destroy(&key, hash, now)
				shard.mu.Unlock()
			}
		}
	default:
		t.events.WithLabelValues("other").Inc()
	}
}

// tuplesOf returns both tuples of an entry, and false for a protocol other than TCP and UDP.
func tuplesOf(flow *ct.Flow) (orig, reply tuple, ok bool) {
	var proto pipeline.Transport
	switch flow.TupleOrig.Proto.Protocol {
	case unix.IPPROTO_TCP:
		proto = pipeline.Transport_TCP
	case unix.IPPROTO_UDP:
		proto = pipeline.Transport_UDP
	default:
		return orig, reply, false
	}
	convert := func(t *ct.Tuple) tuple {
		return tupleOf(proto, netip.AddrPortFrom(t.IP.SourceAddress, t.Proto.SourcePort),
			netip.AddrPortFrom(t.IP.DestinationAddress, t.Proto.DestinationPort))
	}
	return convert(&flow.TupleOrig), convert(&flow.TupleReply), true
}

// Reasons to give up tuples.
const (
	reasonFull   = "full"
	reasonMemory = "memory_limit"
)

// store keeps an entry under both of its tuples. They differ behind NAT only: without it, one is the other in the other
// direction, and one is enough.
func (t *Tracker) store(flow *ct.Flow) {
	orig, reply, ok := tuplesOf(flow)
	if !ok {
		return
	}
	now := t.now().UnixNano()
	t.put(&orig, &reply, false, now)
	if reply.src != orig.dst || reply.dst != orig.src {
		t.put(&reply, &orig, true, now)
	}
	t.enforceBudget()
}

// put keeps an entry under the tuple k. A full shard gives up its oldest tuple.
func (t *Tracker) put(k, other *tuple, isReply bool, now int64) {
	shard, hash := t.table.hash(k)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	before := shard.bytes()
	if shard.put(k, hash, [2]address{other.src, other.dst}, isReply, now) {
		t.tuples.Add(1)
	}
	if shard.size > maxTuples/shardCount {
		shard.removeOldest(1)
		t.tuples.Add(-1)
		t.givenUp.WithLabelValues(reasonFull).Inc()
	}
	t.account.Add(shard.bytes() - before)
}

// enforceBudget gives up the oldest tuples of all shards while the memory budget is exceeded and the map is the largest
// part. A shard has about the tuples of its share in the map, so that the oldest ones of the shards are those of the map.
func (t *Tracker) enforceBudget() {
	for excess := t.account.Excess(); excess > 0 && t.Len() > 0; excess = t.account.Excess() {
		// The memory comes back by whole chunks.
		each := max(int(excess/shardCount/recordBytes), chunkRecords)
		freed := int64(0)
		for i := range t.table.shards {
			freed += t.shrinkShard(&t.table.shards[i], reasonMemory, func(shard *shard) int { return shard.removeOldest(each) })
		}
		t.account.GaveUp(freed)
	}
}

// shrinkShard calls remove, which returns how many tuples it has removed from the shard, and returns how many bytes that
// has freed. With a reason they count as given up.
func (t *Tracker) shrinkShard(shard *shard, reason string, remove func(*shard) int) (freed int64) {
	shard.mu.Lock()
	defer shard.mu.Unlock()
	before := shard.bytes()
	removed := remove(shard)
	freed = before - shard.bytes()
	t.tuples.Add(-int64(removed))
	t.account.Add(-freed)
	if reason != "" {
		t.givenUp.WithLabelValues(reason).Add(float64(removed))
	}
	return freed
}

// expireDestroyed removes entries that were destroyed at least keepDestroyed ago. A tuple that was stored
// again since then belongs to a new connection and stays: the kernel will announce its end, too.
func (t *Tracker) expireDestroyed() {
	before := t.now().Add(-t.keepDestroyed).UnixNano()
	for i := range t.table.shards {
		t.shrinkShard(&t.table.shards[i], "", func(shard *shard) int { return shard.expire(before) })
	}
}
