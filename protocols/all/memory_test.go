//go:build linux

package all_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

const (
	mebibyte     = 1 << 20
	floodBudget  = 48 * mebibyte
	floodLimit   = 96 * mebibyte  // GOMEMLIMIT
	floodMaxRSS  = 160 * mebibyte // of the whole process, with the code of the test
	floodVar     = "TIDEGATE_FLOOD"
	redisPort    = 6379
	httpPort     = 80
	dnsPort      = 53
	memcachePort = 11211
)

// A flood makes parsers keep state that no reply releases.
type flood struct {
	name   string
	port   uint16
	udp    bool
	conns  int
	rounds int                          // how often every connection sends
	send   func(conn, round int) []byte // what a connection sends in a round
	events int                          // that every connection has to emit in the end
}

var floods = []flood{
	{name: "redis: many commands behind one that blocks", port: redisPort, conns: 30, rounds: 160, events: 16_001, send: func(_, round int) []byte {
		ping := bytes.Repeat([]byte("*1\r\n$4\r\nPING\r\n"), 100)
		if round == 0 {
			return append([]byte("*3\r\n$5\r\nBLPOP\r\n$1\r\nk\r\n$1\r\n0\r\n"), ping...)
		}
		return ping
	}},
	{name: "redis: commands with many arguments", port: redisPort, conns: 30, rounds: 40, events: 4000, send: func(int, int) []byte {
		var out bytes.Buffer
		for range 100 {
			out.WriteString("*17\r\n$3\r\nDEL\r\n")
			for range 16 {
				out.WriteString("$200\r\n" + strings.Repeat("k", 200) + "\r\n")
			}
		}
		return out.Bytes()
	}},
	{name: "dns: queries without an answer", port: dnsPort, udp: true, conns: 600, rounds: 500, events: 500, send: func(conn, round int) []byte {
		out := binary.BigEndian.AppendUint16(nil, uint16(round))
		out = append(out, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		name := fmt.Sprintf("q%dx%d", conn, round)
		out = append(append(out, byte(len(name))), name...)
		return append(out, "\x07example\x00\x00\x01\x00\x01"...)
	}},
	{name: "http: pipelined requests", port: httpPort, conns: 600, rounds: 2, events: 256, send: func(int, int) []byte {
		return bytes.Repeat([]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), 128)
	}},
	{name: "http: pipelined requests with long URLs", port: httpPort, conns: 100, rounds: 16, events: 256, send: func(int, int) []byte {
		return bytes.Repeat([]byte("GET /"+strings.Repeat("u", 8000)+" HTTP/1.1\r\nHost: x\r\n\r\n"), 16)
	}},
	{name: "http: heads without an end", port: httpPort, conns: 1500, rounds: 60, events: -1, send: func(_, round int) []byte {
		if round == 0 {
			return []byte("GET /a HTTP/1.1\r\nHost: x\r\n")
		}
		return []byte("X-Header: " + strings.Repeat("v", 1000) + "\r\n")
	}},
	{name: "http: requests in bodies", port: httpPort, conns: 600, rounds: 4, events: -1, send: func(_, round int) []byte {
		inner := bytes.Repeat([]byte("GET /a HTTP/1.1\r\nHost: x\r\n\r\n"), 128)
		if round == 0 {
			return append([]byte("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"), inner...)
		}
		return inner
	}},
	{name: "memcached: commands without a reply", port: memcachePort, conns: 20, rounds: 100, events: 16_000, send: func(int, int) []byte {
		return bytes.Repeat([]byte("get key\r\n"), 160)
	}},
}

// run sends a flood and returns the number of events of each connection.
func (f *flood) run(t *testing.T, set *protocols.Set) []int {
	t.Helper()
	events := make([]int, f.conns)
	marked, partial := 0, 0
	conns := make([]*protocols.Conn, f.conns)
	for i := range conns {
		info := protocols.Info{
			Transport: pipeline.Transport_TCP,
			Client:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 40000),
			Server:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, 1}), f.port),
		}
		if f.udp {
			info.Transport = pipeline.Transport_UDP
		}
		conns[i] = set.Open(info, func(e *pipeline.Event) {
			if slices.Contains(e.Tags, pipeline.TagMemoryLimit) {
				marked++
			}
			if e.Partial {
				partial++
			}
			if !isStop(e) {
				events[i]++
			}
			pipeline.ReleaseEvent(e)
		})
	}
	at := int64(1)
	for round := range f.rounds {
		for i, conn := range conns {
			if f.udp {
				conn.Datagram(0, f.send(i, round), at)
			} else {
				conn.Data(0, f.send(i, round), at)
			}
			at++
		}
	}
	if marked == 0 || partial < marked {
		t.Errorf("%s: %d events say that memory ran out, %d are partial", f.name, marked, partial)
	}
	for _, conn := range conns {
		conn.Close(at)
	}
	return events
}

// isStop reports whether an event only says that a connection was not parsed.
func isStop(e *pipeline.Event) bool {
	return slices.Contains(e.Tags, pipeline.TagParsingStopped)
}

// TestFloodsStayWithinTheBudget: whatever clients send without waiting for replies, the parsers of a worker stay
// within the memory budget, measured as the resident memory of a process, and every request is an event.
func TestFloodsStayWithinTheBudget(t *testing.T) {
	if name := os.Getenv(floodVar); name != "" {
		runFlood(t, name)
		return
	}
	for i := range floods {
		t.Run(floods[i].name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestFloodsStayWithinTheBudget$", "-test.v")
			cmd.Env = append(os.Environ(), floodVar+"="+floods[i].name)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			match := regexp.MustCompile(`resident (\d+)`).FindSubmatch(out)
			if match == nil {
				t.Fatalf("no figure:\n%s", out)
			}
			resident, _ := strconv.Atoi(string(match[1]))
			t.Logf("%d MiB", resident/mebibyte)
			if resident > floodMaxRSS {
				t.Errorf("%d MiB resident, more than %d", resident/mebibyte, floodMaxRSS/mebibyte)
			}
		})
	}
}

func runFlood(t *testing.T, name string) {
	t.Helper()
	debug.SetMemoryLimit(floodLimit)
	budget := memory.New(floodBudget, nil)
	set := protocols.NewSet(all.Protocols, protocols.Default(), nil)
	set.SetMemory(budget.Open("parsers"))
	for i := range floods {
		if floods[i].name != name {
			continue
		}
		for conn, events := range floods[i].run(t, set) {
			if floods[i].events >= 0 && events != floods[i].events {
				t.Fatalf("connection %d: %d events, want %d", conn, events, floods[i].events)
			}
		}
	}
	if used := budget.Used(); used > 5*mebibyte { // what is kept for further connections
		t.Errorf("%d bytes are charged when all connections are closed", used)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	kibibytes, _ := strconv.Atoi(string(peak[1]))
	fmt.Printf("resident %d\n", kibibytes<<10)
}
