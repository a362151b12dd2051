package protocols

import (
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/pipeline/redact"
)

// Info describes a connection as collector/sessions opens it.
type Info struct {
	Transport      pipeline.Transport
	Client, Server netip.AddrPort
	Session        pipeline.ID
	CommunityID    [20]byte
	VLAN           uint16
	MidStream      bool // no SYN was seen: the first bytes may be inside a message, and the roles are inferred
}

// A Set holds the protocols of one worker, with pools of connections, parsers and buffers. It is not safe for
// concurrent use: every worker has its own.
type Set struct {
	// Panicked, unless nil, is called for each panic of a parser. The bytes up to the next turn are ignored.
	Panicked func(protocol string, value any, stack []byte)
	cfg      Config
	list     []Protocol
	metrics  *setMetrics
	counters []counters // by protocol

	freeParsers [][]Parser // by protocol
	freeConns   []*Conn
	freeTails   [][]byte
	pooled      int // bytes of all three, estimated
	interned    [internSlots]string
	cut         []byte // buffer of Conn.Text

	holders  memory.Holders[*Conn]
	redactor redact.Redactor
}

// Bounds of the pools of a Set. The memory budget is charged with what is in them.
const (
	maxFreeParsers = 256 // of each protocol
	maxFreeConns   = 1024
	maxFreeTails   = 256
	maxFreeTail    = 16 << 10 // bytes of one; a larger one is left to the garbage collector
	newTail        = 4 << 10  // bytes of a new one
)

// chargePool charges the memory budget with n bytes more that are in the pools.
func (s *Set) chargePool(n int) {
	s.pooled += n
	s.holders.Account.Add(int64(n))
}

// dropPools leaves what is in the pools to the garbage collector.
func (s *Set) dropPools() {
	s.holders.Account.GaveUp(int64(s.pooled))
	s.chargePool(-s.pooled)
	clear(s.freeParsers)
	s.freeConns, s.freeTails = nil, nil
}

// NewSet returns the set of a worker. list is in the order in which protocols are tried, the more specific
// ones first. cfg must pass its Check. Sets of one registry share their counters.
func NewSet(list []Protocol, cfg Config, reg prometheus.Registerer) *Set {
	set := &Set{
		cfg: cfg, list: list, metrics: newSetMetrics(reg), freeParsers: make([][]Parser, len(list)),
		holders: memory.Holders[*Conn]{Least: holderBytes},
	}
	for _, protocol := range list {
		set.counters = append(set.counters, set.metrics.countersOf(protocol.Name))
	}
	return set
}

// Open returns a Conn for a new connection. emit is called with each of its events and owns them.
func (s *Set) Open(info Info, emit func(*pipeline.Event)) *Conn {
	var conn *Conn
	if free := len(s.freeConns); free > 0 {
		conn, s.freeConns = s.freeConns[free-1], s.freeConns[:free-1]
		s.chargePool(-connBytes)
	} else {
		conn = &Conn{set: s}
	}
	conn.info, conn.emit, conn.midStream, conn.lastProto = info, emit, info.MidStream, noProtocol
	conn.startDetection()
	s.holders.Charge(&conn.held, conn, connBytes+parserBytes)
	return conn
}

// SetMemory makes account the one that is charged with what the connections hold. While its budget is exceeded, the
// largest of them give up their state. The account before is closed; connections that are still open are not charged
// any more. nil: nothing is charged.
func (s *Set) SetMemory(account *memory.Account) {
	s.holders.SetAccount(account)
	account.Add(int64(s.pooled))
}

// takeParser returns a parser of proto from the pool, or a new one.
func (s *Set) takeParser(proto int) Parser {
	if free := s.freeParsers[proto]; len(free) > 0 {
		parser := free[len(free)-1]
		s.freeParsers[proto] = free[:len(free)-1]
		s.chargePool(-parserBytes)
		return parser
	}
	return s.list[proto].New()
}

func (s *Set) releaseParser(proto int, parser Parser) {
	if len(s.freeParsers[proto]) < maxFreeParsers {
		s.freeParsers[proto] = append(s.freeParsers[proto], parser)
		s.chargePool(parserBytes)
	}
}

// takeTail returns an empty buffer from the pool, or a new one.
func (s *Set) takeTail() []byte {
	if free := len(s.freeTails); free > 0 {
		tail := s.freeTails[free-1]
		s.freeTails = s.freeTails[:free-1]
		s.chargePool(-cap(tail))
		return tail
	}
	return make([]byte, 0, newTail)
}

func (s *Set) releaseTail(tail []byte) {
	if cap(tail) > 0 && cap(tail) <= maxFreeTail && len(s.freeTails) < maxFreeTails {
		s.freeTails = append(s.freeTails, tail[:0])
		s.chargePool(cap(tail))
	}
}

// releaseConn resets conn and returns it to the pool. It keeps the capacity of its slices.
func (s *Set) releaseConn(conn *Conn) {
	var streams [2]halfStream
	for dir := range streams {
		streams[dir].arrivals = conn.streams[dir].arrivals[:0]
	}
	*conn = Conn{set: s, pieces: conn.pieces[:0], streams: streams}
	if len(s.freeConns) < maxFreeConns {
		s.freeConns = append(s.freeConns, conn)
		s.chargePool(connBytes)
	}
}

// indexOf returns the index of a protocol in list, or noProtocol.
func (s *Set) indexOf(name string) int {
	for i := range s.list {
		if s.list[i].Name == name {
			return i
		}
	}
	return noProtocol
}
