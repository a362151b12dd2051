package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tidegate/bench/traffic"
	"tidegate/pipeline"
)

// TestMain runs the broker command in a child process that startBroker has started from the test binary.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" && len(os.Args) > 1 && os.Args[1] == brokerCommand {
		if err := serveBroker(context.Background(), os.Args[2:]); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A datasetSink counts events by dataset. MySQL commands other than queries are not counted, as in
// traffic.Truth.
type datasetSink struct {
	events  map[string]int
	partial int
}

// add counts an event and releases it.
func (s *datasetSink) add(event *pipeline.Event) {
	if event.Dataset != pipeline.Dataset_MYSQL || event.Mysql.Command == "COM_QUERY" {
		s.events[event.Dataset.Name()]++
	}
	if event.Partial {
		s.partial++
	}
	pipeline.ReleaseEvent(event)
}
func (s *datasetSink) finish() error { return nil }
func (s *datasetSink) close() error  { return nil }

// countEvents generates a capture and counts the events that the parsers find in it.
func countEvents(t *testing.T, cfg traffic.Config) (traffic.Truth, *datasetSink) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "traffic.pcap")
	truth, err := writeCapture(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	found := &datasetSink{events: map[string]int{}}
	packets, err := readPackets(path, "protocols", found)
	if err != nil || packets != truth.Packets {
		t.Fatalf("%d packets of %d, %v", packets, truth.Packets, err)
	}
	return truth, found
}

// TestEveryEventIsFoundDespiteReorderingAndDuplicates compares the events of complete captures with the
// truth.
func TestEveryEventIsFoundDespiteReorderingAndDuplicates(t *testing.T) {
	check := func(cfg traffic.Config) {
		t.Helper()
		cfg.Bytes = 6 << 20
		truth, found := countEvents(t, cfg)
		for dataset, want := range truth.Events {
			if found.events[dataset] != want {
				t.Errorf("%+v: %d events of %s, want %d", cfg, found.events[dataset], dataset, want)
			}
		}
		if found.partial != 0 {
			t.Errorf("%+v: %d events are partial", cfg, found.partial)
		}
	}
	check(traffic.Config{Seed: 1})
	check(traffic.Config{Seed: 2, Reorder: 0.01})
	check(traffic.Config{Seed: 3, Duplicate: 0.02})
	check(traffic.Config{Seed: 4, Reorder: 0.05, Duplicate: 0.05})
}

// TestLostSegmentCostsFewEvents also checks that affected events are marked partial.
func TestLostSegmentCostsFewEvents(t *testing.T) {
	truth, found := countEvents(t, traffic.Config{Bytes: 6 << 20, Seed: 5, Lose: 0.002})
	if truth.Lost < 10 || found.partial == 0 {
		t.Fatalf("%d segments were lost, %d events are partial", truth.Lost, found.partial)
	}
	all, seen := 0, 0
	for dataset, want := range truth.Events {
		all, seen = all+want, seen+found.events[dataset]
	}
	if missing := all - seen; missing > 8*truth.Lost { // a Redis pipeline has up to eight commands in a segment
		t.Errorf("%d of %d events are missing for %d lost segments", missing, all, truth.Lost)
	}
}

// TestGeneratedRulesMatchNothing checks that index and loop are measured on the same work: neither finds a
// match. rulePeers returns an error if a rule of the index fires.
func TestGeneratedRulesMatchNothing(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"peers", "-runs", "1", "-only", "Rules/rules=10/"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "by=index") || !strings.Contains(out.String(), "\t0 hits") {
		t.Errorf("%s", out.String())
	}
}

// TestEachCommandPrintsItsLines runs the commands on little input, with the embedded broker in a child
// process.
func TestEachCommandPrintsItsLines(t *testing.T) {
	check := func(want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := run(t.Context(), args, &out); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%v: printed %q, not %q", args, out.String(), want)
		}
	}
	profile := filepath.Join(t.TempDir(), "cpu")
	check("BenchmarkCapture/stage=kafka", "capture", "-n", "1", "-runs", "1", "-cpuprofile", profile)
	if info, err := os.Stat(profile); err != nil || info.Size() == 0 {
		t.Errorf("no profile: %v", err)
	}
	check("BenchmarkLogs/stage=kafka", "logs", "-n", "2", "-runs", "1")
	check("BenchmarkReassembly/by=gopacket", "peers", "-n", "1", "-runs", "1", "-only", "Reassembly")
	check("rules=shipped+10-", "engine", "-n", "4", "-runs", "1", "-only", "store=columns/rules=shipped+10")
	check("peak-MB", "whole", "-runs", "1", "-name", "true", "true")
}

// TestCompareTakesLeastOfCostsAndMostOfRates checks the ratio of the best values of two files.
func TestCompareTakesLeastOfCostsAndMostOfRates(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before := write("old", "BenchmarkX-2 10 200 ns/op 50 events/s\nBenchmarkX-2 10 300 ns/op 40 events/s\n")
	after := write("new", "BenchmarkX-2 10 100 ns/op 80 events/s\nBenchmarkX-2 10 400 ns/op 90 events/s\n")
	var out bytes.Buffer
	if err := run(t.Context(), []string{"compare", before, after}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"0.500", "1.800"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no ratio %s in\n%s", want, out.String())
		}
	}
}

// TestCompareFindsRenamedBenchmarks checks that a benchmark compares with its earlier name, that one name in
// two packages is two benchmarks, and that a benchmark of one file alone is listed.
func TestCompareFindsRenamedBenchmarks(t *testing.T) {
	dir := t.TempDir()
	before, after := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	for path, text := range map[string]string{
		before: "pkg: tidegate/detectors/rules\nBenchmarkJudge/rules=10-2 9 100 ns/op\n" +
			"pkg: tidegate/protocols/http\nBenchmarkTransaction-2 9 1000 ns/op\npkg: tidegate/protocols/redis\nBenchmarkTransaction-2 9 10 ns/op\n",
		after: "pkg: tidegate/detectors/rules\nBenchmarkEvaluate/rules=10-2 9 25 ns/op\nBenchmarkRule-2 9 7 ns/op\n" +
			"pkg: tidegate/protocols/http\nBenchmarkTransaction-2 9 2000 ns/op\npkg: tidegate/protocols/redis\nBenchmarkTransaction-2 9 5 ns/op\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"compare", before, after}, &out); err != nil {
		t.Fatal(err)
	}
	for name, ratio := range map[string]string{
		"detectors/rules.Evaluate/rules=10-2": "0.250", "protocols/http.Transaction-2": "2.000", "protocols/redis.Transaction-2": "0.500",
	} {
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` ns/op .* ` + ratio + `$`).MatchString(out.String()) {
			t.Errorf("no ratio %s of %s in\n%s", ratio, name, out.String())
		}
	}
	if !strings.Contains(out.String(), "only in the new file:\n  detectors/rules.Rule-2\n") || strings.Contains(out.String(), "only in the old") {
		t.Errorf("the benchmark of one file alone is not listed in\n%s", out.String())
	}
}
