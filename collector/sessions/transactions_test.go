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
		Emit: func(event *pipeline.Event) {
			name := event.Dataset.Name()
			if m := event.Mysql; m != nil && m.Command != "COM_QUERY" {
				name = "mysql, other"
			}
			n[name]++
			if event.Partial {
				partial[name]++
			}
			if session := event.Session; session != nil {
				n["reordered"] += int(session.OutOfOrder)
				n["repeated"] += int(session.ClientRetransmissions + session.ServerRetransmissions)
				n["conflicts"] += int(session.OverlapConflicts)
				n["missing"] += int(session.ClientMissingBytes + session.ServerMissingBytes)
			}
			pipeline.ReleaseEvent(event)
		},
	}, prometheus.NewRegistry())
	g.playThrough(table)
	return n, partial, table
}

// TestEveryTransactionIsReported: clean, reordered and repeated traffic yields every event, none of them
// partial.
func TestEveryTransactionIsReported(t *testing.T) {
	for _, c := range []struct{ reorder, duplicate float64 }{{}, {reorder: 0.01}, {duplicate: 0.01}, {0.05, 0.05}} {
		traffic := newTraffic(t, 7)
		traffic.reorder, traffic.duplicate = c.reorder, c.duplicate
		traffic.generate(400)
		n, partial, _ := traffic.countEvents(Default())
		for _, name := range []string{"http", "dns", "mysql", "redis"} {
			if n[name] != traffic.truth[name] || partial[name] != 0 {
				t.Errorf("%+v: %d %s, %d of them partial, want %d whole", c, n[name], name, partial[name],
					traffic.truth[name])
			}
		}
		if n["missing"] != 0 || n["conflicts"] != 0 || c.duplicate > 0 && c.reorder == 0 &&
			n["repeated"] != traffic.truth["repeated"] {
			t.Errorf("%+v: %v, truth %v", c, n, traffic.truth)
		}
	}
}

// TestLossIsOnlyWhatWasLost: each missing segment is one gap, and only the transactions that it belongs to
// are affected.
func TestLossIsOnlyWhatWasLost(t *testing.T) {
	traffic := newTraffic(t, 11)
	traffic.reorder, traffic.loss = 0.01, 0.002
	traffic.generate(600)
	n, _, table := traffic.countEvents(Default())
	var gaps float64
	for _, c := range table.metrics.gaps {
		gaps += counterValue(c)
	}
	if lost := traffic.truth["lost"]; lost < 10 || int(gaps) > lost || int(gaps) < lost*9/10 {
		t.Errorf("%v gaps for %d lost segments", gaps, lost)
	}
	for _, name := range []string{"http", "mysql", "redis"} {
		if d := traffic.truth[name] - n[name]; d > 2*traffic.truth["lost"] {
			t.Errorf("%d %s of %d", n[name], name, traffic.truth[name])
		}
	}
}

// TestSmallBudgets: with little memory every session still ends, and nothing is left behind.
func TestSmallBudgets(t *testing.T) {
	traffic := newTraffic(t, 5)
	traffic.reorder, traffic.loss = 0.3, 0.05
	traffic.generate(300)
	_, _, table := traffic.countEvents(Config{
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
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.deps.Protocols = nil
	tableTest.handshake()
	c, s := addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80")
	data := tcpFrame(t, c, s, "A", 1001, 5001, 9, string(make([]byte, 1400)))
	at := startTime + int64(time.Second)
	seq := uint32(1001)
	if n := testing.AllocsPerRun(2000, func() {
		data[38], data[39], data[40], data[41] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
		tableTest.Packet("eth0", layers.LinkTypeEthernet, at, data, len(data))
		seq += 1400
		at += 1e6
	}); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
	if got := tableTest.closeOneSession().Source.Bytes; got != 2001*1400 {
		t.Errorf("%d bytes", got)
	}
}

// BenchmarkTable measures the way from packets to encoded events. TIDEGATE_CAPTURE names a capture file to
// use instead of generated traffic.
func BenchmarkTable(b *testing.B) {
	var packets []capturedPacket
	link := layers.LinkTypeEthernet
	if path := os.Getenv("TIDEGATE_CAPTURE"); path != "" {
		file, err := capture.OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		for {
			packet, err := file.Next()
			if err != nil {
				break
			}
			link = packet.Link
			packets = append(packets, capturedPacket{packet.At, append([]byte(nil), packet.Data...)})
		}
		_ = file.Close()
	} else {
		packets = newTraffic(b, 3).generate(1500).packets
	}
	var buf []byte
	events := 0
	emit := func(event *pipeline.Event) {
		events++
		n := event.SizeVT()
		if cap(buf) < n {
			buf = make([]byte, n*2)
		}
		if _, err := event.MarshalToSizedBufferVT(buf[:n]); err != nil {
			b.Error(err)
		}
		pipeline.ReleaseEvent(event)
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
	traffic := newTraffic(b, 3).generate(50)
	table := New(Default(), Deps{}, nil)
	var got packet
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p := &traffic.packets[i%len(traffic.packets)]
		table.decoder.decodeFrame(&got, layers.LinkTypeEthernet, p.data, len(p.data))
	}
}
