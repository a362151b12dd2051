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
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ct "github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

const (
	// keepDestroyed is the time for which an entry can be looked up after the kernel destroyed it. The last
	// packets of its session may be read later than the event.
	keepDestroyed = 30 * time.Second

	// maxTuples bounds the tuples in all shards, of about 125 bytes each, and 64 bytes more behind NAT. The kernel's own
	// table usually holds up to 262,144 entries, of two tuples behind NAT. A tuple above the bound is counted and not
	// stored.
	maxTuples = 1 << 19

	// maxExpiring is the length to which the list of destroyed entries is cut when it has become twice as
	// long: the oldest entries expire early.
	maxExpiring = maxTuples / 4

	// resyncPause is the pause between a loss of events and the next read of the whole table. It bounds the
	// work on a host whose connections arrive faster than the events are read.
	resyncPause = 100 * time.Millisecond

	// shardCount is the number of shards of the map.
	shardCount = 64
)

// A tuple is one direction of a connection, as the kernel's table lists it.
type tuple struct {
	proto    pipeline.Transport
	src, dst netip.AddrPort
}

// An entry is one connection of the kernel's table. The map holds it under both tuples, which differ behind NAT only:
// without NAT, one is the other in the other direction.
type entry struct {
	mapping *sessions.Mapping // nil: no NAT; the tuple has the addresses
	updated int64             // when the kernel last announced or listed the entry, ns since 1970
}

// A shard holds the tuples with one hash. mu guards entries.
type shard struct {
	mu      sync.RWMutex
	entries map[tuple]entry
}

// An expiringEntry is an entry that the kernel has destroyed.
type expiringEntry struct {
	destroyed time.Time
	tuples    [2]tuple
}

// A Tracker holds the map. Lookup and Len are safe for concurrent use; Run is called once.
type Tracker struct {
	log           *slog.Logger
	shards        [shardCount]shard
	seed          maphash.Seed    // of the hash that chooses the shard
	tuples        atomic.Int64    // in all shards
	expiring      []expiringEntry // in order of destruction; only Run's goroutine uses it
	keepDestroyed time.Duration
	expireEvery   time.Duration
	now           func() time.Time
	querier       querier

	events     *prometheus.CounterVec
	tableReads prometheus.Counter
	dropped    prometheus.Counter
}

// New returns an empty Tracker. Run fills it.
func New(log *slog.Logger, reg prometheus.Registerer) *Tracker {
	factory := metrics.With(reg)
	tracker := &Tracker{
		log: log, seed: maphash.MakeSeed(), keepDestroyed: keepDestroyed, expireEvery: 5 * time.Second, now: time.Now,
		events: factory.CounterVec("tidegate_conntrack_events_total",
			"Events that the kernel's connection tracking sent, by type. Type lost counts the times that the "+
				"kernel dropped events.", "type"),
		tableReads: factory.Counter("tidegate_conntrack_table_reads_total",
			"Reads of the kernel's whole conntrack table: one at the start, and one after each loss of events."),
		dropped: factory.Counter("tidegate_conntrack_dropped_total",
			"Conntrack tuples that were not stored because the map was full."),
	}
	for i := range tracker.shards {
		tracker.shards[i].entries = map[tuple]entry{}
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
	if mapping, ok := t.lookupTuple(tuple{proto, src, dst}); ok {
		return mapping, true
	}
	return t.lookupTuple(tuple{proto, dst, src})
}

// lookupTuple returns the mapping of the connection with the tuple k.
func (t *Tracker) lookupTuple(k tuple) (sessions.Mapping, bool) {
	shard := t.shardOf(k)
	shard.mu.RLock()
	found, ok := shard.entries[k]
	shard.mu.RUnlock()
	if !ok || found.mapping != nil {
		return valueOf(found.mapping), ok
	}
	return sessions.Mapping{Client: k.src, Server: k.dst, OutsideClient: k.src, OutsideServer: k.dst}, true
}

// valueOf returns the mapping at m, the zero Mapping if m is nil.
func valueOf(m *sessions.Mapping) (mapping sessions.Mapping) {
	if m != nil {
		mapping = *m
	}
	return mapping
}

// shardOf returns the shard of k. Both directions of a connection need not be in one shard. The hash covers the whole
// tuple: a scan, whose tuples differ in one address or port only, fills all shards.
func (t *Tracker) shardOf(k tuple) *shard {
	return &t.shards[maphash.Comparable(t.seed, k)%shardCount]
}

// Run follows the kernel's table until ctx ends. It returns an error only when it lacks the permission; after
// every other error it subscribes again and reads the whole table.
func (t *Tracker) Run(ctx context.Context) error {
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

// readKernelTable stores every entry of the kernel's table. It uses a netlink connection of its own, because
// a connection that listens cannot send requests. Entries that are missing in the table were destroyed while
// no events were read, so they expire.
func (t *Tracker) readKernelTable() error {
	conn, err := ct.Dial(nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()

	// Every entry that store does not refresh after start is missing in the table.
	start := t.now()
	flows, err := conn.Dump(nil)
	if err != nil {
		return fmt.Errorf("read the conntrack table: %w", err)
	}
	t.tableReads.Inc()
	for i := range flows {
		t.store(&flows[i])
	}
	t.expireUnseenSince(start)
	return nil
}

// expireUnseenSince treats every entry that the kernel has not announced or listed since start as destroyed
// now.
func (t *Tracker) expireUnseenSince(start time.Time) {
	now := t.now()
	for i := range t.shards {
		shard := &t.shards[i]
		shard.mu.RLock()
		for key, unseen := range shard.entries {
			if unseen.updated < start.UnixNano() {
				// Each direction of a connection is an entry of its own here; it expires alone.
				t.expiring = append(t.expiring, expiringEntry{now, [2]tuple{key, key}})
			}
		}
		shard.mu.RUnlock()
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
			t.expiring = append(t.expiring, expiringEntry{t.now(), [2]tuple{orig, reply}})
		}
		if len(t.expiring) > 2*maxExpiring {
			t.expireDestroyed()
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
	convert := func(t ct.Tuple) tuple {
		return tuple{
			proto: proto,
			src:   netip.AddrPortFrom(t.IP.SourceAddress.Unmap(), t.Proto.SourcePort),
			dst:   netip.AddrPortFrom(t.IP.DestinationAddress.Unmap(), t.Proto.DestinationPort),
		}
	}
	return convert(flow.TupleOrig), convert(flow.TupleReply), true
}

// store keeps an entry under both of its tuples.
//
// Client and Server are the addresses inside NAT, as on a bridge: the source of the original tuple
// (before SNAT) and the source of the reply tuple (after DNAT). The addresses outside NAT are the
// destinations of the two tuples.
func (t *Tracker) store(flow *ct.Flow) {
	orig, reply, ok := tuplesOf(flow)
	if !ok {
		return
	}
	mapping := sessions.Mapping{
		Client: orig.src, Server: reply.src,
		OutsideClient: reply.dst, OutsideServer: orig.dst,
	}
	stored := entry{updated: t.now().UnixNano()}
	keys := [...]tuple{orig, reply}
	numKeys := 1
	if isTranslated(&mapping) {
		stored.mapping, numKeys = &mapping, 2
	}

	// A full map accepts no new tuple, but a tuple that it holds is updated. Only this goroutine adds tuples.
	for _, key := range keys[:numKeys] {
		shard := t.shardOf(key)
		shard.mu.Lock()
		_, known := shard.entries[key]
		switch {
		case known:
			shard.entries[key] = stored
		case t.tuples.Load() >= maxTuples:
			t.dropped.Inc()
		default:
			shard.entries[key] = stored
			t.tuples.Add(1)
		}
		shard.mu.Unlock()
	}
}

// expireDestroyed removes entries that were destroyed at least keepDestroyed ago. A tuple that was stored
// again since then belongs to a new connection and stays: the kernel will announce its end, too.
func (t *Tracker) expireDestroyed() {
	now := t.now()
	expired := 0
	for _, expiring := range t.expiring {
		// The list is in order of destruction, so the first entry that is too young ends the walk, unless the
		// list is too long.
		if now.Sub(expiring.destroyed) < t.keepDestroyed && len(t.expiring)-expired <= maxExpiring {
			break
		}
		for _, tuple := range expiring.tuples {
			shard := t.shardOf(tuple)
			shard.mu.Lock()
			if e, ok := shard.entries[tuple]; ok && e.updated <= expiring.destroyed.UnixNano() {
				delete(shard.entries, tuple)
				t.tuples.Add(-1)
			}
			shard.mu.Unlock()
		}
		expired++
	}
	t.expiring = append(t.expiring[:0], t.expiring[expired:]...)
}
