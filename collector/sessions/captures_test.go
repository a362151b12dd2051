package sessions

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tidegate/collector/capture"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/dns"
	"tidegate/protocols/http"
	"tidegate/protocols/mysql"
	"tidegate/protocols/redis"
)

// parsers holds the protocols whose events the tests count.
var parsers = []protocols.Protocol{http.Protocol, mysql.Protocol, redis.Protocol, dns.Protocol}

// sharedData returns the folder of the shared captures, or skips the test where there is none.
func sharedData(t testing.TB) string {
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = "../../../shared"
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "pcaps")); err != nil {
		t.Skip("no shared data: set TIDEGATE_SHARED")
	}
	return dir
}

// counterValue returns the value of a counter or gauge.
func counterValue(metric prometheus.Metric) float64 {
	var value dto.Metric
	if err := metric.Write(&value); err != nil {
		panic(err)
	}
	return value.GetCounter().GetValue() + value.GetGauge().GetValue()
}

// playCapture runs a capture file through a Table. It returns the Table and the number of packets.
func playCapture(
	t testing.TB, path string, cfg Config, deps Deps, list []protocols.Protocol, emit func(*pipeline.Event),
) (*Table, int) {
	t.Helper()
	return playCaptureOn(t, prometheus.NewRegistry(), path, cfg, deps, list, emit)
}

// playCaptureOn is playCapture with the registry of the Table's metrics.
func playCaptureOn(
	t testing.TB, reg *prometheus.Registry, path string, cfg Config, deps Deps, list []protocols.Protocol, emit func(*pipeline.Event),
) (*Table, int) {
	t.Helper()
	file, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	deps.Protocols = protocols.NewSet(list, protocols.Default(), nil)
	deps.Emit = emit
	deps.Collector = pipeline.ID(sha256.New().Sum(nil)[:16])
	table := New(cfg, deps, reg)
	packets := 0
	for ; ; packets++ {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Logf("%v", err)
			break
		}
		table.Packet(packet.Iface, packet.Link, packet.At, packet.Data, packet.Length)
	}
	table.Close()
	return table, packets
}

// TestEveryCapture: no capture makes a Table panic, every packet is counted once, and nothing is left in the
// Table after Close.
func TestEveryCapture(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(sharedData(t), "data", "pcaps", "*"))
	if len(files) < 500 {
		t.Fatalf("%d captures in %s, want at least 500", len(files), sharedData(t))
	}
	total := map[result]float64{}
	conflicting := map[string]bool{ // the captures of tools that send two versions of the same bytes
		"sv__eve-overlap-payload-01_tcp-overlap.pcap": true, "zeek__tcp_qi_internet_SYNACK_curl_jsonip.pcap": true,
		"zeek__tcp_reassembly.pcap": true, "sv__ipv6-evasion_ipv6-malformed-fragments-1_frag-1.pcap": true,
		"zeek__ipv4_fragmented-1.pcap": true,
	}
	for _, path := range files {
		if filepath.Ext(path) == ".tsv" {
			continue
		}
		sessions, ids := 0, map[string]bool{}
		table, packets := playCapture(t, path, Default(), Deps{Tunnels: EveryTunnel}, parsers, func(event *pipeline.Event) {
			if event.Dataset == pipeline.Dataset_SESSION {
				sessions++
			}
			if slices.Contains(event.Tags, pipeline.TagUnacknowledged) {
				t.Errorf("%s: %v", filepath.Base(path), event)
			}
			if ids[string(event.Id)] {
				t.Errorf("%s: two events have the id %x (%s)", filepath.Base(path), event.Id, event.Dataset)
			}
			ids[string(event.Id)] = true
			pipeline.ReleaseEvent(event)
		})
		var counted float64
		for kind, counter := range table.metrics.packets {
			total[result(kind)] += counterValue(counter)
			counted += counterValue(counter)
		}
		if int(counted) != packets {
			t.Errorf("%s: %d packets, %v counted", path, packets, counted)
		}
		if packets := counterValue(table.metrics.panics); packets != 0 {
			t.Errorf("%s: %v panics", path, packets)
		}
		if got := counterValue(table.metrics.conflicts) > 0; got != conflicting[filepath.Base(path)] {
			t.Errorf("%s: conflicts %t", path, got)
		}
		opened := counterValue(table.metrics.opened[0]) + counterValue(table.metrics.opened[1])
		if int(opened) != sessions {
			t.Errorf("%s: %v sessions opened, %d reported", path, opened, sessions)
		}
		if table.pool.Used() != 0 || len(table.decoder.frags.complete) > 0 || len(table.flows) != 0 ||
			table.pool.Len() != 0 || table.outboxEvents != 0 {
			t.Errorf("%s: left behind: %d bytes, %d flows, %d streams that wait, %d events in outboxes", path,
				table.pool.Used(), len(table.flows), table.pool.Len(), table.outboxEvents)
		}
	}
	for kind, packets := range total {
		t.Logf("%-16s %.0f", resultNames[kind], packets)
	}
}
