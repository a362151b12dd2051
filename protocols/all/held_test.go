//go:build linux

package all_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// TestChargeOfWaitingCommandsIsWhatTheHeapHolds: what the budget is charged for requests without a reply is the memory
// that they take, for each protocol, with small and with long texts.
func TestChargeOfWaitingCommandsIsWhatTheHeapHolds(t *testing.T) {
	query := func(i int) []byte {
		out := binary.BigEndian.AppendUint16(nil, uint16(i))
		out = append(out, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		name := fmt.Sprintf("q%d", i)
		out = append(append(out, byte(len(name))), name...)
		return append(out, "\x07example\x00\x00\x01\x00\x01"...)
	}
	check := func(name string, port uint16, udp bool, conns, requests int, request func(i int) []byte) {
		t.Helper()
		heap := func() int64 {
			var stats runtime.MemStats
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&stats)
			return int64(stats.HeapAlloc)
		}
		before := heap()
		budget := memory.New(1<<40, nil)
		set := protocols.NewSet(all.Protocols, protocols.Default(), nil)
		set.SetMemory(budget.Open("parsers"))
		list := make([]*protocols.Conn, conns)
		for i := range list {
			info := protocols.Info{
				Transport: pipeline.Transport_TCP,
				Client:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 40000),
				Server:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, 1}), port),
			}
			if udp {
				info.Transport = pipeline.Transport_UDP
			}
			list[i] = set.Open(info, func(*pipeline.Event) { t.Errorf("%s: an event came", name) })
			for j := range requests {
				if udp {
					list[i].Datagram(0, request(j), 1)
				} else {
					list[i].Data(0, request(j), 1)
				}
			}
		}
		held, charged := heap()-before, budget.Used()
		each := func(sum int64) int64 { return sum / int64(conns*requests) }
		t.Logf("%-24s %5d bytes held for each request, %5d charged", name, each(held), each(charged))
		if held > charged*5/4 || held < charged/3 {
			t.Errorf("%s: %d bytes are held, %d charged", name, held, charged)
		}
		runtime.KeepAlive(list)
	}
	fixed := func(text string) func(int) []byte { return func(int) []byte { return []byte(text) } }
	check("redis PING", redisPort, false, 1, 3000, fixed("*1\r\n$4\r\nPING\r\n"))
	check("redis GET", redisPort, false, 1, 3000, fixed("*2\r\n$3\r\nGET\r\n$10\r\nuser:12345\r\n"))
	check("redis SET", redisPort, false, 1, 3000, fixed("*3\r\n$3\r\nSET\r\n$10\r\nuser:12345\r\n$3\r\nabc\r\n"))
	check("redis DEL 16", redisPort, false, 1, 1000, func(int) []byte {
		var out bytes.Buffer
		out.WriteString("*17\r\n$3\r\nDEL\r\n")
		for range 16 {
			out.WriteString("$200\r\n" + strings.Repeat("k", 200) + "\r\n")
		}
		return out.Bytes()
	})
	check("memcached get", memcachePort, false, 1, 3000, fixed("get key\r\n"))
	check("http short", httpPort, false, 20, 100, fixed("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"))
	check("http usual", httpPort, false, 20, 100, fixed("GET /shop/cart?item=17&count=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nReferer: https://shop.example.com/shop\r\n\r\n"))
	check("http long", httpPort, false, 10, 100, fixed("GET /"+strings.Repeat("u", 8000)+" HTTP/1.1\r\nHost: x\r\n\r\n"))
	check("dns", dnsPort, true, 10, 500, query)
}
