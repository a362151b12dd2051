package sessions

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
)

// countEvents runs the traffic through a Table. counts has the events by dataset, and the faults that the
// sessions report; partial has the partial events by dataset.
func (g *traffic) countEvents(cfg Config) (counts, partial map[string]int, table *Table) {
	counts, partial = map[string]int{}, map[string]int{}
	table = New(cfg, Deps{
		Protocols: protocols.NewSet(parsers, protocols.Default(), nil),
		Emit: func(event *pipeline.Event) {
			name := event.Dataset.Name()
			if command := event.Mysql; command != nil && command.Command != "COM_QUERY" {
				name = "mysql, other"
			}
			counts[name]++
			if event.Partial {
				partial[name]++
			}
			if session := event.Session; session != nil {
				counts["reordered"] += int(session.OutOfOrder)
				counts["repeated"] += int(session.ClientRetransmissions + session.ServerRetransmissions)
				counts["conflicts"] += int(session.OverlapConflicts)
				counts["missing"] += int(session.ClientMissingBytes + session.ServerMissingBytes)
			}
			pipeline.ReleaseEvent(event)
		},
	}, prometheus.NewRegistry())
	g.playThrough(table)
	return counts, partial, table
}

// TestEveryTransactionIsReported: clean, reordered and repeated traffic yields every event, none of them
// partial.
func TestEveryTransactionIsReported(t *testing.T) {
	for _, faults := range []struct{ reorder, duplicate float64 }{{}, {reorder: 0.01}, {duplicate: 0.01}, {0.05, 0.05}} {
		generated := newTraffic(t, 7)
		generated.reorder, generated.duplicate = faults.reorder, faults.duplicate
		generated.generate(400)
		counts, partial, _ := generated.countEvents(Default())
		for _, name := range []string{"http", "dns", "mysql", "redis"} {
			if counts[name] != generated.truth[name] || partial[name] != 0 {
				t.Errorf("%+v: %d %s, %d of them partial, want %d whole", faults, counts[name], name, partial[name],
					generated.truth[name])
			}
		}
		if counts["missing"] != 0 || counts["conflicts"] != 0 || faults.duplicate > 0 && faults.reorder == 0 &&
			counts["repeated"] != generated.truth["repeated"] {
			t.Errorf("%+v: %v, truth %v", faults, counts, generated.truth)
		}
	}
}

// TestLossIsOnlyWhatWasLost: each missing segment is one gap, and only the transactions that it belongs to
// are affected.
func TestLossIsOnlyWhatWasLost(t *testing.T) {
	generated := newTraffic(t, 11)
	generated.reorder, generated.loss = 0.01, 0.002
	generated.generate(600)
	counts, _, table := generated.countEvents(Default())
	var gaps float64
	for _, counter := range table.metrics.gaps {
		gaps += counterValue(counter)
	}
	if lost := generated.truth["lost"]; lost < 10 || int(gaps) > lost || int(gaps) < lost*9/10 {
		t.Errorf("%v gaps for %d lost segments", gaps, lost)
	}
	for _, name := range []string{"http", "mysql", "redis"} {
		if missing := generated.truth[name] - counts[name]; missing > 2*generated.truth["lost"] {
			t.Errorf("%d %s of %d", counts[name], name, generated.truth[name])
		}
	}
}

// TestSmallBudgets: with little memory every session still ends, and nothing is left behind.
func TestSmallBudgets(t *testing.T) {
	generated := newTraffic(t, 5)
	generated.reorder, generated.loss = 0.3, 0.05
	generated.generate(300)
	_, _, table := generated.countEvents(Config{
		MaxSessions: 16, ReassemblyBytesPerSession: 64 << 10,
		ReassemblyBytes: 128 << 10,
	})
	if table.pool.Used() != 0 || len(table.flows) != 0 || table.pool.Len() != 0 {
		t.Errorf("%d bytes, %d flows, %d streams that wait are left", table.pool.Used(), len(table.flows),
			table.pool.Len())
	}
}

// TestSteadyPathDoesNotAllocate: bytes in order on an open connection are handled without allocation.
func TestSteadyPathDoesNotAllocate(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.deps.Protocols = nil
	test.TrustChecksums(true) // that of data is not changed with its number
	test.handshake()
	client, server := addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80")
	data := tcpFrame(t, client, server, "A", 1001, 5001, 9, string(make([]byte, 1400)))
	at := startTime + int64(time.Second)
	seq := uint32(1001)
	if allocs := testing.AllocsPerRun(2000, func() {
		data[38], data[39], data[40], data[41] = byte(seq>>24), byte(seq>>16), byte(seq>>8), byte(seq)
		test.Packet("eth0", layers.LinkTypeEthernet, at, data, len(data))
		seq += 1400
		at += 1e6
	}); allocs > 0 {
		t.Errorf("%v allocations for a packet", allocs)
	}
	if got := test.closeOneSession().Source.Bytes; got != 2001*1400 {
		t.Errorf("%d bytes", got)
	}
}

// BenchmarkTable measures everything from packets to encoded events. TIDEGATE_CAPTURE names a capture file to
// use instead of generated traffic.
func BenchmarkTable(b *testing.B) { benchmarkTable(b, func(*Deps) {}) }

// BenchmarkTableWithinMemory is BenchmarkTable with a memory budget, which is never exceeded.
func BenchmarkTableWithinMemory(b *testing.B) {
	benchmarkTable(b, func(deps *Deps) { deps.Memory = memory.New(1<<40, nil) })
}

// BenchmarkTableOnBridge is BenchmarkTable on a bridge, where the MAC addresses of packets are checked.
func BenchmarkTableOnBridge(b *testing.B) {
	benchmarkTable(b, func(deps *Deps) {
		deps.Bridge = func(string) bool { return true }
		deps.IsHostMAC = func(mac uint64) bool { return mac == 0x020000000001 }
		deps.IsMACOfBridge = func(string, uint64) bool { return false }
		deps.HasMovedMAC = func(uint64, int64) bool { return false }
		deps.Senders = sendersFunc(func(netip.Addr, uint64, int64) (*pipeline.Container, bool) { return nil, false })
	})
}

func benchmarkTable(b *testing.B, change func(*Deps)) {
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
		size := event.SizeVT()
		if cap(buf) < size {
			buf = make([]byte, size*2)
		}
		if _, err := event.MarshalToSizedBufferVT(buf[:size]); err != nil {
			b.Error(err)
		}
		pipeline.ReleaseEvent(event)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for b.Loop() {
		deps := Deps{Protocols: protocols.NewSet(parsers, protocols.Default(), nil), Emit: emit}
		change(&deps)
		table := New(Default(), deps, prometheus.NewRegistry())
		table.SetSentByHost(false)
		for _, packet := range packets {
			table.Packet("eth0", link, packet.at, packet.data, len(packet.data))
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
	generated := newTraffic(b, 3).generate(50)
	table := New(Default(), Deps{Tunnels: EveryTunnel}, nil)
	var got packet
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		packet := &generated.packets[i%len(generated.packets)]
		table.decoder.decodeFrame(&got, layers.LinkTypeEthernet, packet.data, len(packet.data))
	}
}
