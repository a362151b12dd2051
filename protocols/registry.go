package protocols

import (
	"errors"
	"net/netip"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeebo/xxh3"

	"tidegate/pipeline"
)

// Info is what is known of a connection when it is opened.
type Info struct {
	Transport      pipeline.Transport
	Client, Server netip.AddrPort
	Session        pipeline.ID
	CommunityID    [20]byte
	VLAN           uint16
	MidStream      bool // no SYN was seen: it may begin in the middle of a message, and the roles are a guess
}

// A Set is the protocols of one worker with their pools. It is not safe for concurrent use: every worker has its own.
type Set struct {
	// Panicked, if it is set, is told of each panic of a parser, to write it down; the connection is ignored from there on.
	Panicked func(protocol string, value any, stack []byte)

	cfg      Config
	list     []Protocol
	metrics  *metrics
	counters []counters // by protocol

	parsers [][]Parser // free ones, by protocol
	conns   []*Conn    // free ones
	tails   [][]byte   // free ones
	interns [interns]string
}

// Bounds of what a Set keeps for later.
const (
	freeParsers = 256      // of each protocol
	freeConns   = 1024     //
	freeTails   = 256      //
	freeTail    = 64 << 10 // bytes; a larger one is left to the garbage collector
	interns     = 2048     // strings
	internLen   = 256      // bytes of one
)

// NewSet makes the set of a worker. list is in the order in which the protocols are asked, the more specific first. cfg
// passes its Check. Sets of one registry share their counters.
func NewSet(list []Protocol, cfg Config, reg prometheus.Registerer) *Set {
	s := &Set{cfg: cfg, list: list, metrics: newMetrics(reg), parsers: make([][]Parser, len(list))}
	for _, p := range list {
		s.counters = append(s.counters, s.metrics.countersOf(p.Name))
	}
	return s
}

// Open begins a connection. emit is given every event of it and owns them.
func (s *Set) Open(info Info, emit func(*pipeline.Event)) *Conn {
	var c *Conn
	if n := len(s.conns); n > 0 {
		c, s.conns = s.conns[n-1], s.conns[:n-1]
	} else {
		c = &Conn{set: s}
	}
	c.info, c.emit, c.midStream, c.lastProto = info, emit, info.MidStream, none
	c.startDetection()
	return c
}

// takeParser takes one of protocol i from the pool.
func (s *Set) takeParser(i int) Parser {
	if free := s.parsers[i]; len(free) > 0 {
		p := free[len(free)-1]
		s.parsers[i] = free[:len(free)-1]
		return p
	}
	return s.list[i].New()
}

func (s *Set) releaseParser(i int, p Parser) {
	if len(s.parsers[i]) < freeParsers {
		s.parsers[i] = append(s.parsers[i], p)
	}
}

func (s *Set) takeTail() []byte {
	if n := len(s.tails); n > 0 {
		b := s.tails[n-1]
		s.tails = s.tails[:n-1]
		return b
	}
	return make([]byte, 0, 4<<10)
}

func (s *Set) releaseTail(b []byte) {
	if cap(b) > 0 && cap(b) <= freeTail && len(s.tails) < freeTails {
		s.tails = append(s.tails, b[:0])
	}
}

func (s *Set) releaseConn(c *Conn) {
	*c = Conn{set: s, pieces: c.pieces[:0], streams: [2]stream{{arrivals: c.streams[0].arrivals[:0]}, {arrivals: c.streams[1].arrivals[:0]}}}
	if len(s.conns) < freeConns {
		s.conns = append(s.conns, c)
	}
}

// intern gives b as a string, the same one as the last time where it is still remembered. The table is direct-mapped: hostile
// input can push strings out of it but not make it grow. Bytes that are not UTF-8 are written \xNN: the event's strings must be.
func (s *Set) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > internLen {
		return validUTF8(b)
	}
	at := &s.interns[xxh3.Hash(b)%interns]
	if *at != string(b) {
		t := validUTF8(b)
		if len(t) != len(b) {
			return t
		}
		*at = t
	}
	return *at
}

// validUTF8 copies b into a string of valid UTF-8.
func validUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	const hex = "0123456789abcdef"
	out := make([]byte, 0, len(b)+len(b)/2)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			out = append(out, '\\', 'x', hex[b[0]>>4], hex[b[0]&15])
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return string(out)
}

// indexOf finds a protocol by its name.
func (s *Set) indexOf(name string) int {
	for i := range s.list {
		if s.list[i].Name == name {
			return i
		}
	}
	return none
}

// metrics are the counters of the framework, shared by all sets of a registry.
type metrics struct {
	connections, events, errors, resyncs, panics *prometheus.CounterVec
	anomalies, dropped                           *prometheus.CounterVec
	undetected                                   prometheus.Counter
}

// counters are those of one protocol; odd fills up with the reasons that its parser names.
type counters struct {
	connections, events, errors, resyncs, panics prometheus.Counter
	anomalies, dropped                           map[string]prometheus.Counter
	anomaliesVec, droppedVec                     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return registered(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_protocols_" + name, Help: help}, labels))
	}
	return &metrics{
		connections: vec("connections_total", "Connections whose protocol was recognised.", "protocol"),
		events:      vec("events_total", "Events that parsers emitted.", "protocol"),
		errors:      vec("errors_total", "Bytes that were not what the protocol allows.", "protocol"),
		resyncs:     vec("resyncs_total", "Starts of a message found again after a gap or an error.", "protocol"),
		panics:      vec("panics_total", "Panics of parsers; the connection is ignored from there on.", "protocol"),
		anomalies:   vec("anomalies_total", "Protocol anomalies that parsers met and limits that they reached, by reason.", "protocol", "reason"),
		dropped:     vec("dropped_bytes_total", "Bytes that no parser read, by reason.", "protocol", "reason"),
		undetected: registered(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tidegate_protocols_undetected_total", Help: "Connections that were none of the protocols.",
		})),
	}
}

// registered registers c, or gives what was registered under its name before.
func registered[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &already) {
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
	}
	return c
}

func (m *metrics) countersOf(name string) counters {
	return counters{
		connections:  m.connections.WithLabelValues(name),
		events:       m.events.WithLabelValues(name),
		errors:       m.errors.WithLabelValues(name),
		resyncs:      m.resyncs.WithLabelValues(name),
		panics:       m.panics.WithLabelValues(name),
		anomalies:    map[string]prometheus.Counter{},
		dropped:      map[string]prometheus.Counter{},
		anomaliesVec: m.anomalies.MustCurryWith(prometheus.Labels{"protocol": name}),
		droppedVec:   m.dropped.MustCurryWith(prometheus.Labels{"protocol": name}),
	}
}

// addCount adds n to the counter of reason, which is a constant of the code, never a word of the input.
func addCount(of map[string]prometheus.Counter, vec *prometheus.CounterVec, reason string, n int) {
	if n <= 0 {
		return
	}
	k, ok := of[reason]
	if !ok {
		k = vec.WithLabelValues(reason)
		of[reason] = k
	}
	k.Add(float64(n))
}
