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

// TestLossPairsNoResponseWithAnotherRequest drops packets at random from a generated capture. Fewer events
// may remain, but an answered event that is not partial equals the event of the whole capture: no response is
// paired with another request.
func TestLossPairsNoResponseWithAnotherRequest(t *testing.T) {
	path, _ := generatedCapture(t, filepath.Join(sharedFolder(t), "tools", "trafficgen"), "-seed", "3")
	whole := map[string][]byte{}
	replayWithLoss(t, path, 0, 0, func(id string, text []byte) { whole[id] = text })

	seeds := uint64(6)
	if testing.Short() {
		seeds = 2
	}
	// A transaction of about five packets is lost with each of them, or told as partial.
	shares, floors := []float64{0.002, 0.01, 0.05}, []int{98, 95, 81} // floors in percent
	for seed := range seeds {
		reported, wrong := 0, 0
		replayWithLoss(t, path, seed, shares[seed%3], func(id string, text []byte) {
			if reported++; bytes.Equal(whole[id], text) {
				return
			}
			if wrong++; wrong <= 3 {
				t.Errorf("seed %d:\n\t%.400s\nof the whole capture\n\t%.400s", seed, text, whole[id])
			}
		})
		t.Logf("seed %d: %d of %d transactions remain, %d of them wrong", seed, reported, len(whole), wrong)
		if floor := floors[seed%3]; reported < len(whole)*floor/100 {
			t.Errorf("seed %d: only %d of %d transactions, want %d %%", seed, reported, len(whole), floor)
		}
	}
}

// replayWithLoss replays a capture without a share of its packets and calls each with the answered
// transactions that are not partial, as JSON.
func replayWithLoss(t *testing.T, path string, seed uint64, share float64, each func(id string, text []byte)) {
	t.Helper()
	file, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()

	rng := rand.New(rand.NewPCG(seed, 9))
	set := protocols.NewSet(all.Protocols, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("the parser of %s panicked: %v\n%s", protocol, value, stack)
	}
	table := sessions.New(sessions.Default(), sessions.Deps{Protocols: set, Tunnels: sessions.EveryTunnel, Emit: func(event *pipeline.Event) {
		if event.Mysql != nil { // the login appears once in a connection, and may be lost
			event.Mysql.UserName, event.Mysql.Database = "", ""
		}
		if event.Dataset != pipeline.Dataset_SESSION && !event.Partial && event.Outcome != pipeline.Outcome_UNKNOWN {
			each(string(event.Id), pipeline.AppendJSON(nil, event))
		}
		pipeline.ReleaseEvent(event)
	}}, prometheus.NewRegistry())

	for {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		// Handshakes are kept: the ids of the events are made from the SYN.
		if rng.Float64() < share && len(packet.Data) > 80 {
			continue
		}
		table.Packet(packet.Iface, packet.Link, packet.At, packet.Data, packet.Length)
	}
	table.Close()
}
