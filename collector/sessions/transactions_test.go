package sessions

import (
	"os"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/pipeline"
	"tidegate/protocols"
)

// countEvents plays the traffic and counts the events by dataset, all of them and those that are partial.
func (g *traffic) countEvents(cfg Config) (n, partial map[string]int, table *Table) {
	n, partial = map[string]int{}, map[string]int{}
	table = New(cfg, Deps{
		Protocols: protocols.NewSet(parsers, protocols.Default(), nil),
		Emit: func(e *pipeline.Event) {
			name := e.Dataset.Name()
			if m := e.Mysql; m != nil && m.Command != "COM_QUERY" {
				name = "mysql, other"
			}
			n[name]++
			if e.Partial {
				partial[name]++
			}
			if s := e.Session; s != nil {
				n["reordered"] += int(s.OutOfOrder)
				n["repeated"] += int(s.ClientRetransmissions + s.ServerRetransmissions)
				n["conflicts"] += int(s.OverlapConflicts)
				n["missing"] += int(s.ClientMissingBytes + s.ServerMissingBytes)
			}
			pipeline.ReleaseEvent(e)
		},
	}, prometheus.NewRegistry())
	g.playThrough(table)
	return n, partial, table
}

// TestEveryTransactionIsReported: of clean, reordered and repeated traffic no event is missing and none is
// partial.
func TestEveryTransactionIsReported(t *testing.T) {
	for _, c := range []struct{ reorder, duplicate float64 }{{}, {reorder: 0.01}, {duplicate: 0.01}, {0.05, 0.05}} {
		g := newTraffic(t, 7)
		g.reorder, g.duplicate = c.reorder, c.duplicate
		g.generate(400)
		n, partial, _ := g.countEvents(Default())
		for _, name := range []string{"http", "dns", "mysql", "redis"} {
			if n[name] != g.truth[name] || partial[name] != 0 {
				t.Errorf("%+v: %d %s, %d of them partial, want %d whole", c, n[name], name, partial[name],
					g.truth[name])
			}
		}
		if n["missing"] != 0 || n["conflicts"] != 0 || c.duplicate > 0 && c.reorder == 0 &&
			n["repeated"] != g.truth["repeated"] {
			t.Errorf("%+v: %v, truth %v", c, n, g.truth)
		}
	}
}

// TestLossIsOnlyWhatWasLost: each missing segment is one gap, and only the transactions that it belongs to
// are affected.
func TestLossIsOnlyWhatWasLost(t *testing.T) {
	g := newTraffic(t, 11)
	g.reorder, g.loss = 0.01, 0.002
	g.generate(600)
	n, _, table := g.countEvents(Default())
	var gaps float64
	for _, c := range table.m.gaps {
		gaps += counterValue(c)
	}
	if lost := g.truth["lost"]; lost < 10 || int(gaps) > lost || int(gaps) < lost*9/10 {
		t.Errorf("%v gaps for %d lost segments", gaps, lost)
	}
	for _, name := range []string{"http", "mysql", "redis"} {
		if d := g.truth[name] - n[name]; d > 2*g.truth["lost"] {
			t.Errorf("%d %s of %d", n[name], name, g.truth[name])
		}
	}
}

// TestSmallBudgets: with little memory every session still ends, and nothing is left behind.
func TestSmallBudgets(t *testing.T) {
	g := newTraffic(t, 5)
	g.reorder, g.loss = 0.3, 0.05
	g.generate(300)
	_, _, table := g.countEvents(Config{
		MaxSessions: 16, ReassemblyBytesPerSession: 64 << 10,
		ReassemblyBytes: 128 << 10,
	})
	if table.pool.Used() != 0 || len(table.flows) != 0 || table.pool.Holders() != 0 {
		t.Errorf("%d bytes, %d flows, %d streams that wait are left", table.pool.Used(), len(table.flows),
			table.pool.Holders())
	}
}

// TestSteadyPathDoesNotAllocate: bytes in order on an open connection are handled without allocation.
func TestSteadyPathDoesNotAllocate(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.deps.Protocols = nil
	b.handshake()
	c, s := addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80")
	f := tcpFrame(t, c, s, "A", 1001, 5001, 9, string(make([]byte, 1400)))
	at := startTime + int64(time.Second)
	seq := uint32(1001)
	if n := testing.AllocsPerRun(2000, func() {
		f[38], f[39], f[40], f[41] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
		b.Packet("eth0", layers.LinkTypeEthernet, at, f, len(f))
		seq += 1400
		at += 1e6
	}); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if got := b.closeOneSession().Source.Bytes; got != 2001*1400 {
		t.Errorf("%d bytes", got)
	}
}

// BenchmarkTable measures the way from packets to encoded events. TIDEGATE_CAPTURE names a capture file to
// use instead of generated traffic.
func BenchmarkTable(b *testing.B) {
	var packets []capturedPacket
	link := layers.LinkTypeEthernet
	if path := os.Getenv("TIDEGATE_CAPTURE"); path != "" {
		f, err := capture.OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		for {
			p, err := f.Next()
			if err != nil {
				break
			}
			link = p.Link
			packets = append(packets, capturedPacket{p.At, append([]byte(nil), p.Data...)})
		}
		_ = f.Close()
	} else {
		packets = newTraffic(b, 3).generate(1500).packets
	}
	var buf []byte
	events := 0
	emit := func(e *pipeline.Event) {
		events++
		n := e.SizeVT()
		if cap(buf) < n {
			buf = make([]byte, n*2)
		}
		if _, err := e.MarshalToSizedBufferVT(buf[:n]); err != nil {
			b.Error(err)
		}
		pipeline.ReleaseEvent(e)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for b.Loop() {
		table := New(Default(), Deps{
			Protocols: protocols.NewSet(parsers, protocols.Default(), nil),
			Emit:      emit,
		}, prometheus.NewRegistry())
		for _, p := range packets {
			table.Packet("eth0", link, p.at, p.data, len(p.data))
		}
		table.Close()
	}
	if used := cpuTime() - before; used > 0 {
		b.ReportMetric(float64(b.N)*float64(len(packets))/used.Seconds(), "packets/cpu-s")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(packets)), "ns/packet")
	b.ReportMetric(float64(events)/float64(b.N)/float64(len(packets)), "events/packet")
}

// BenchmarkDecode measures the decoder alone.
func BenchmarkDecode(b *testing.B) {
	g := newTraffic(b, 3).generate(50)
	table := New(Default(), Deps{}, nil)
	var got packet
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := &g.packets[i%len(g.packets)]
		table.decoder.decodeFrame(&got, layers.LinkTypeEthernet, p.data, len(p.data))
	}
}
