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
	"syscall"
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

// runChild ships the files from where an earlier process stopped. It prints the number of safe lines every
// two milliseconds.
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
	shipper, err := New(cfg, kcfg, id, testLog(), reg)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- shipAll(context.Background(), shipper, testFiles(childFiles, childLines)) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := shipper.Close(ctx); err != nil {
				return err
			}
			fmt.Println("end", shipper.Ledger().IsBalanced(), shipper.Ledger().Buffered)
			return nil
		case <-time.After(2 * time.Millisecond):
			fmt.Println("safe", safeLines(reg))
		}
	}
}

// safeLines returns the value of the metric of safe log lines; -1: there is none.
func safeLines(reg *prometheus.Registry) int {
	families, err := reg.Gather()
	if err != nil {
		return -1
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == "tidegate_collector_events_safe_total" &&
				metric.GetLabel()[0].GetValue() == pipeline.Dataset_LOG.Name() {
				return int(metric.GetCounter().GetValue())
			}
		}
	}
	return -1
}

// killChildren starts children and kills each after some lines of output, until one has come to its end.
// Lines that a child reported as safe must be in Kafka. It returns the number of children that were killed, and
// of lines that they had reported as safe.
func killChildren(t *testing.T, harness *harness) (killed, safe int) {
	rng := rand.New(rand.NewPCG(1, 9))
	for run := 0; ; run++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SHIP_CHILD_STATE="+harness.state, "SHIP_CHILD_BROKER="+harness.kcfg.Brokers[0])
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := rng.IntN(5) // lines that it may print before it is killed
		if run > 25 {
			lines = 1 << 30
		}
		last := ""
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			last = scanner.Text()
			if lines--; lines < 0 {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		words := strings.Fields(last)
		switch {
		case status.Signal() == syscall.SIGKILL && len(words) == 2 && words[0] == "safe":
			lines, err := strconv.Atoi(words[1])
			if err != nil || lines < 0 {
				t.Fatalf("process %d reported %q", run, last)
			}
			killed, safe = killed+1, safe+lines
		case last == "end true 0":
			return killed, safe
		default: // it must not end by itself in any other way
			t.Fatalf("process %d ended with %q", run, last)
		}
		if events, _ := harness.deduplicatedEvents(); len(events) < safe {
			t.Fatalf("%d lines were safe, %d are in Kafka", safe, len(events))
		}
	}
}
