//go:build linux

// Package conntrack follows how the kernel rewrites connections: what a container's own address and port are for one that is seen
// outside under the host's.
//
// A Tracker listens to conntrack's events and keeps both tuples of every entry in a map that the session tables of all workers
// read (sessions.NAT). It needs CAP_NET_ADMIN in the host's network namespace; without it, or without the kernel module, the
// collector still works, but a connection through NAT is told by each side of it.
package conntrack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ct "github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
)

// keep is how long an entry that the kernel has destroyed can still be asked for: the last packets of its session may be read later.
const keep = 30 * time.Second

// maxEntries bounds the map; the kernel's own table is usually a quarter of a million. Beyond it new entries are counted and left out.
const maxEntries = 1 << 20

// maxDying bounds what waits to be forgotten: beyond twice as many the oldest go before their time.
const maxDying = maxEntries / 4

type key struct {
	proto    pipeline.Transport
	src, dst netip.AddrPort
}

const shards = 64

type entry struct {
	sessions.Mapping
	seen time.Time // when the kernel told of it last
}

type shard struct {
	mu sync.RWMutex
	m  map[key]entry
}

// Tracker is the map and what keeps it.
type Tracker struct {
	log    *slog.Logger
	shards [shards]shard
	dying  []dying // in the order of their time; only the loop touches it
	keep   time.Duration
	tick   time.Duration // how often is looked for what to forget
	now    func() time.Time

	events  *prometheus.CounterVec
	dumps   prometheus.Counter
	dropped prometheus.Counter
	size    prometheus.GaugeFunc
}

type dying struct {
	at   time.Time
	keys [2]key
}

// New makes a tracker; Run fills it.
func New(log *slog.Logger, reg prometheus.Registerer) *Tracker {
	t := &Tracker{
		log: log, keep: keep, tick: 5 * time.Second, now: time.Now,
		events:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_conntrack_events_total", Help: "Events of the kernel's connection tracking."}, []string{"type"}),
		dumps:   prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_conntrack_dumps_total", Help: "Times that the whole table was read: at the start, and after events were lost."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_conntrack_dropped_total", Help: "Entries left out because the map was full."}),
	}
	for i := range t.shards {
		t.shards[i].m = map[key]entry{}
	}
	t.size = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "tidegate_conntrack_tuples", Help: "Tuples in the map, two an entry."}, func() float64 { return float64(t.Len()) })
	reg.MustRegister(t.events, t.dumps, t.dropped, t.size)
	return t
}

// Len counts the tuples.
func (t *Tracker) Len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.m)
		s.mu.RUnlock()
	}
	return n
}

// Lookup finds the entry of which src → dst is the original or the reply tuple, or the reverse of one.
func (t *Tracker) Lookup(proto pipeline.Transport, src, dst netip.AddrPort) (sessions.Mapping, bool) {
	if m, ok := t.get(key{proto, src, dst}); ok {
		return m, true
	}
	return t.get(key{proto, dst, src})
}

func (t *Tracker) get(k key) (sessions.Mapping, bool) {
	s := t.shard(k)
	s.mu.RLock()
	e, ok := s.m[k]
	s.mu.RUnlock()
	return e.Mapping, ok
}

func (t *Tracker) shard(k key) *shard {
	return &t.shards[(k.src.Port()^k.dst.Port()*31)%shards]
}

// lostPause is between the loss of events and the next reading of the table, so that a host whose connections come faster than we
// read does not keep us reading it without end.
const lostPause = 100 * time.Millisecond

// Run listens until ctx ends. When the kernel had to drop events (ENOBUFS), the whole table is read again.
func (t *Tracker) Run(ctx context.Context) error {
	wait := time.Second
	for {
		start := time.Now()
		err := t.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("listen to conntrack (it needs CAP_NET_ADMIN): %w", err)
		}
		if errors.Is(err, unix.ENOBUFS) {
			t.events.WithLabelValues("lost").Inc()
			wait = lostPause
		} else {
			t.log.Warn("conntrack is not listened to", "err", err, "again_in", wait)
		}
		if time.Since(start) > time.Minute {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(wait*2+time.Second, time.Minute)
	}
}

func (t *Tracker) listen(ctx context.Context) error {
	conn, err := ct.Dial(nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err := conn.SetReadBuffer(8 << 20); err != nil {
		t.log.Debug("conntrack buffer stays small", "err", err)
	}
	events := make(chan ct.Event, 4096)
	failed, err := conn.Listen(events, 1, []netfilter.NetlinkGroup{netfilter.GroupCTNew, netfilter.GroupCTDestroy})
	defer hangUp(conn, events, failed)
	if err != nil {
		return fmt.Errorf("join the groups: %w", err)
	}
	if err := t.dump(); err != nil {
		return err
	}
	tick := time.NewTicker(t.tick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case e := <-events:
			t.event(e)
		case <-tick.C:
			t.forget()
		}
	}
}

// hangUp closes conn while it takes what its worker may still want to hand over: Close waits for the worker, and the worker for
// whoever reads its channels.
func hangUp(conn io.Closer, events <-chan ct.Event, failed <-chan error) {
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

// dump reads the whole table over a connection of its own: the one that listens can do nothing else. What was known before and is not
// in the table has ended while nobody listened; it is forgotten like the rest.
func (t *Tracker) dump() error {
	conn, err := ct.Dial(nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = conn.Close() }()
	start := t.now()
	flows, err := conn.Dump(nil)
	if err != nil {
		return fmt.Errorf("read the table: %w", err)
	}
	t.dumps.Inc()
	for i := range flows {
		t.add(&flows[i])
	}
	t.endBefore(start)
	return nil
}

// endBefore marks everything as ended that was not seen since start.
func (t *Tracker) endBefore(start time.Time) {
	now := t.now()
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		for k, e := range s.m {
			if e.seen.Before(start) {
				t.dying = append(t.dying, dying{now, [2]key{k, k}})
			}
		}
		s.mu.RUnlock()
	}
}

func (t *Tracker) event(e ct.Event) {
	if e.Flow == nil {
		return
	}
	switch e.Type {
	case ct.EventNew:
		t.events.WithLabelValues("new").Inc()
		t.add(e.Flow)
	case ct.EventDestroy:
		t.events.WithLabelValues("destroy").Inc()
		if a, b, ok := keys(e.Flow); ok {
			t.dying = append(t.dying, dying{t.now(), [2]key{a, b}})
		}
		if len(t.dying) > 2*maxDying {
			t.forget()
		}
	default:
		t.events.WithLabelValues("other").Inc()
	}
}

func keys(f *ct.Flow) (orig, reply key, ok bool) {
	var proto pipeline.Transport
	switch f.TupleOrig.Proto.Protocol {
	case unix.IPPROTO_TCP:
		proto = pipeline.Transport_TCP
	case unix.IPPROTO_UDP:
		proto = pipeline.Transport_UDP
	default:
		return orig, reply, false
	}
	of := func(t ct.Tuple) key {
		return key{proto, netip.AddrPortFrom(t.IP.SourceAddress.Unmap(), t.Proto.SourcePort), netip.AddrPortFrom(t.IP.DestinationAddress.Unmap(), t.Proto.DestinationPort)}
	}
	return of(f.TupleOrig), of(f.TupleReply), true
}

// add keeps an entry under both tuples. The client is who began (original source, before SNAT), the server who answers (reply
// source, after DNAT): the addresses that a bridge sees. Outside they are the reply's and the original's destination.
func (t *Tracker) add(f *ct.Flow) {
	orig, reply, ok := keys(f)
	if !ok {
		return
	}
	e := entry{sessions.Mapping{Client: orig.src, Server: reply.src, OutsideClient: reply.dst, OutsideServer: orig.dst}, t.now()}
	for _, k := range [...]key{orig, reply} {
		s := t.shard(k)
		s.mu.Lock()
		if _, there := s.m[k]; !there && len(s.m) >= maxEntries*2/shards {
			t.dropped.Inc()
		} else {
			s.m[k] = e
		}
		s.mu.Unlock()
	}
}

// forget removes what was destroyed long enough ago, unless the tuple has been used again since: then its entry is a new one, and
// its end will be told too.
func (t *Tracker) forget() {
	now := t.now()
	n := 0
	for _, d := range t.dying {
		if now.Sub(d.at) < t.keep && len(t.dying)-n <= maxDying {
			break
		}
		for _, k := range d.keys {
			s := t.shard(k)
			s.mu.Lock()
			if e, ok := s.m[k]; ok && !e.seen.After(d.at) {
				delete(s.m, k)
			}
			s.mu.Unlock()
		}
		n++
	}
	t.dying = append(t.dying[:0], t.dying[n:]...)
}
