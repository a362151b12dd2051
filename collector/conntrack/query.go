//go:build linux

package conntrack

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
)

// maxQueriesPerSecond bounds the queries of IsTranslated to the kernel, of about 20 µs each.
const maxQueriesPerSecond = 5000

// A querier asks the kernel for single entries. mu guards its fields.
type querier struct {
	mu     sync.Mutex
	conn   *ct.Conn // nil: Run is not connected
	second int64    // of the queries that left counts
	left   int

	answered, failed, limited prometheus.Counter
}

// connect sets the connection of the queries; nil ends their use.
func (q *querier) connect(conn *ct.Conn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.conn != nil {
		_ = q.conn.Close()
	}
	q.conn = conn
}

// IsTranslated reports whether the host has rewritten an address of a packet src → dst, in either direction. proto is
// the number of an IP protocol, and the ports are 0 if it has none. Unlike Lookup it knows that for certain, also if
// the kernel's event is still on its way, because it asks the kernel. It reports true if the kernel does not answer.
func (t *Tracker) IsTranslated(proto uint8, src, dst netip.AddrPort) bool {
	if proto == unix.IPPROTO_UDP {
		if mapping, ok := t.Lookup(pipeline.Transport_UDP, src, dst); ok {
			return isTranslated(&mapping)
		}
	}
	translated, known := t.querier.query(proto, src, dst)
	if !known {
		translated, _ = t.querier.query(proto, dst, src)
	}
	return translated
}

func isTranslated(m *sessions.Mapping) bool {
	return m.Client != m.OutsideClient || m.Server != m.OutsideServer
}

// query looks up the entry that has the tuple src → dst, in either of its directions. known is false if there is none.
func (q *querier) query(proto uint8, src, dst netip.AddrPort) (translated, known bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now := time.Now().Unix(); now != q.second {
		q.second, q.left = now, maxQueriesPerSecond
	}
	if q.left == 0 {
		q.limited.Inc()
		return true, true
	}
	q.left--
	if q.conn == nil {
		q.failed.Inc()
		return true, true
	}

	found, err := q.conn.Get(ct.NewFlow(proto, 0, src.Addr(), dst.Addr(), src.Port(), dst.Port(), 0, 0))
	if errors.Is(err, unix.ENOENT) {
		q.answered.Inc()
		return false, false
	}
	if err != nil {
		q.failed.Inc()
		return true, true
	}
	q.answered.Inc()
	orig, reply := &found.TupleOrig, &found.TupleReply
	return orig.IP.SourceAddress != reply.IP.DestinationAddress || orig.IP.DestinationAddress != reply.IP.SourceAddress ||
		orig.Proto.SourcePort != reply.Proto.DestinationPort || orig.Proto.DestinationPort != reply.Proto.SourcePort, true
}
