package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// TestLossNeverLies drops packets at random from a capture whose every transaction is known. Fewer events may
// remain, but an answered event that is not marked partial equals the one of the whole capture: no response is
// paired with another request.
func TestLossNeverLies(t *testing.T) {
	path, _ := generatedCapture(t, filepath.Join(sharedFolder(t), "tools", "trafficgen"), "-seed", "3")
	whole := map[string][]byte{}
	dropPackets(t, path, 0, 0, func(id string, text []byte) { whole[id] = text })
	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		told, untrue := 0, 0
		dropPackets(t, path, seed, []float64{0.002, 0.01, 0.05}[seed%3], func(id string, text []byte) {
			if told++; bytes.Equal(whole[id], text) {
				return
			}
			if untrue++; untrue <= 3 {
				t.Errorf("seed %d:\n\t%.400s\nof the whole capture\n\t%.400s", seed, text, whole[id])
			}
		})
		t.Logf("seed %d: %d of %d transactions whole, %d untrue", seed, told, len(whole), untrue)
		if told < len(whole)/4 {
			t.Errorf("seed %d: only %d of %d transactions", seed, told, len(whole))
		}
	}
}

// dropPackets replays a capture without a share of its packets and calls each with the answered transactions
// that are not partial, as JSON.
func dropPackets(t *testing.T, path string, seed uint64, share float64, each func(id string, text []byte)) {
	t.Helper()
	f, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rng := rand.New(rand.NewPCG(seed, 9))
	set := protocols.NewSet(all.Protocols, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("the parser of %s panicked: %v\n%s", protocol, value, stack)
	}
	table := sessions.New(sessions.Default(), sessions.Deps{Protocols: set, Emit: func(e *pipeline.Event) {
		if e.Mysql != nil { // the login appears once in a connection, and may be lost
			e.Mysql.UserName, e.Mysql.Database = "", ""
		}
		if e.Dataset != pipeline.Dataset_SESSION && !e.Partial && e.Outcome != pipeline.Outcome_UNKNOWN {
			each(string(e.Id), pipeline.AppendJSON(nil, e))
		}
		pipeline.ReleaseEvent(e)
	}}, prometheus.NewRegistry())
	for {
		p, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// The ids of a connection whose SYN is lost are others, so handshakes are kept.
		if rng.Float64() < share && len(p.Data) > 80 {
			continue
		}
		table.Packet(p.Iface, p.Link, p.At, p.Data, p.Length)
	}
	table.Close()
}
