package ship

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

const (
	childFiles = 5
	childLines = 30_000
)

// TestMain runs the tests, or the collector process that TestKillMinusNine kills.
func TestMain(m *testing.M) {
	if state := os.Getenv("SHIP_CHILD_STATE"); state != "" {
		if err := runChild(state, os.Getenv("SHIP_CHILD_BROKER")); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild ships the files from where an earlier process stopped, and prints how many lines are safe all the
// time.
func runChild(state, broker string) error {
	id, err := collector.LoadID(state)
	if err != nil {
		return err
	}
	cfg := Default()
	cfg.StateDir, cfg.BatchEvents, cfg.Linger, cfg.BufferBytes = state, 100, 5*time.Millisecond, 4<<20
	kcfg := kafka.Default()
	kcfg.Brokers = []string{broker}
	reg := prometheus.NewRegistry()
	s, err := New(cfg, kcfg, id, testLog(), reg)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- shipAll(context.Background(), s, testFiles(childFiles, childLines)) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := s.Close(ctx); err != nil {
				return err
			}
			fmt.Println("end", s.Ledger().IsBalanced(), s.Ledger().Buffered)
			return nil
		case <-time.After(2 * time.Millisecond):
			fmt.Println("safe", safeLines(reg))
		}
	}
}

func safeLines(reg *prometheus.Registry) int {
	families, err := reg.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tidegate_collector_events_safe_total" && m.GetLabel()[0].GetValue() == pipeline.Dataset_LOG.Name() {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}

// killChildren starts the child and kills it until one has come to the end. Lines that a child reported as
// safe must be in Kafka.
func killChildren(t *testing.T, h *harness) {
	r := rand.New(rand.NewPCG(1, 9))
	safe := 0
	for n := 0; ; n++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SHIP_CHILD_STATE="+h.state, "SHIP_CHILD_BROKER="+h.kcfg.Brokers[0])
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := r.IntN(5) // lines that it may print before it is killed
		if n > 25 {
			lines = 1 << 30
		}
		last := ""
		for in := bufio.NewScanner(out); in.Scan(); {
			last = in.Text()
			if lines--; lines < 0 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		words := strings.Fields(last)
		switch {
		case len(words) == 2 && words[0] == "safe":
			lines, _ := strconv.Atoi(words[1])
			safe += lines
		case last == "end true 0":
			t.Logf("%d processes, %d lines safe before a kill", n+1, safe)
			return
		case last != "" || n > 25:
			t.Fatalf("process %d ended with %q", n, last)
		}
		if events, _ := h.deduplicatedEvents(); len(events) < safe {
			t.Fatalf("%d lines were safe, %d are in Kafka", safe, len(events))
		}
	}
}
