//go:build linux

package conntrack

import (
	"net/netip"
	"runtime"
	"testing"

	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"tidegate/pipeline/netnstest"
)

// TestKernelTableIsReadInParts: reading a table of 20,000 entries holds a small part of it at a time, and finds each
// entry once.
func TestKernelTableIsReadInParts(t *testing.T) {
	const entries = 20_000
	lab := newLab(t)
	<-netnstest.Start(t, lab.router, func() {
		conn, err := ct.Dial(nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		server := netip.MustParseAddr(serverIP)
		for i := range entries {
			client := netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})
			if err := conn.Create(ct.NewFlow(unix.IPPROTO_UDP, 0, client, server, 1000, 53, 300, 0)); err != nil {
				t.Error(err)
				return
			}
		}

		live := func() int64 {
			var stats runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&stats)
			return int64(stats.HeapAlloc)
		}
		before, most, found := live(), int64(0), map[netip.Addr]int{}
		if err := dumpTable(func(flow *ct.Flow) {
			found[flow.TupleOrig.IP.SourceAddress]++
			if len(found)%5000 == 0 {
				most = max(most, live()-before)
			}
		}); err != nil {
			t.Error(err)
		}
		for i := range entries {
			if client := netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}); found[client] != 1 {
				t.Errorf("%s was found %d times", client, found[client])
				return
			}
		}
		if most > 4<<20 {
			t.Errorf("%d bytes were held while the table was read", most)
		}
	})
}
