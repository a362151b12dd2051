// Package main measures what tidegate costs in CPU time, memory and allocations. run.sh builds it and calls
// its commands. Each command feeds generated input to the production code and prints the cost as lines in
// the format of go test -bench, which benchstat reads.
//
//	traffic   writes a capture and its truth (package traffic)
//	capture   packets → sessions → protocols → batches → Kafka; each stage includes the one before
//	logs      log file of a container → lines → batches → Kafka; with -filed the same file by file.d, in turn
//	engine    Kafka → decode → detectors → columns → store; without detectors and with 10 to 10,000 rules
//	rules     what rules cost, over one event and over several, as a table of targets
//	peers     the same work by other code: expr in a loop, gopacket's reassembly
//	whole     a command as a process: its CPU time and its peak memory (tidegate replay, tshark)
//	compare   two files of such lines, side by side
//
// CPU time is the figure that counts, because the machine may be busy with other work. Every command repeats
// its measurement and prints each run. Broker and ClickHouse run as child processes; their CPU time is
// reported separately. RESULTS.md holds the figures and the conclusions.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"

	"tidegate/bench/traffic"
)

// options holds the flags of all commands. Each command reads those that concern it.
type options struct {
	runs       int    // repetitions of each measurement
	amount     int    // -n; 0 selects the default of the command
	file       string // capture to read; empty: generate one; of rules the document with the table
	only       string // part of the names of the cases that are measured
	name       string // name of the figure of whole
	cpuProfile string
	memProfile string
	filedPath  string // binary of file.d, which logs measures in turn with ours; empty: it is not measured
	seed       uint64
	reorder    float64
	duplicate  float64
	loss       float64
	out        io.Writer

	earlierRate float64 // what the earlier version has measured in this run; 0: nothing

	cpuProfileFile  *os.File // open while the CPU profile runs
	profilesStarted bool     // set by the first startMeter
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run parses the flags behind the name of a command and runs the command. The profiles are written even if
// the command returns an error.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command: one of traffic, capture, logs, engine, rules, peers, whole, compare")
	}
	o := &options{out: out}
	flagSet := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flagSet.IntVar(&o.runs, "runs", 5, "how often each is measured")
	flagSet.IntVar(&o.amount, "n", 0,
		"how much: megabytes of capture, thousands of lines or events; 0 is the command's own choice")
	flagSet.StringVar(&o.file, "file", "", "the capture; of rules the document whose table is replaced")
	flagSet.StringVar(&o.only, "only", "", "only the cases whose name contains this")
	flagSet.StringVar(&o.name, "name", "", "name of the figure of whole")
	flagSet.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile here")
	flagSet.StringVar(&o.memProfile, "memprofile", "", "write a profile of allocations here")
	flagSet.StringVar(&o.filedPath, "filed", os.Getenv("FILED"), "binary of file.d, which reads the same log in turn")
	flagSet.Uint64Var(&o.seed, "seed", 1, "seed of the generated traffic")
	flagSet.Float64Var(&o.reorder, "reorder", 0, "share of segments that are seen too late")
	flagSet.Float64Var(&o.duplicate, "dup", 0, "share of segments that are seen twice")
	flagSet.Float64Var(&o.loss, "loss", 0, "share of segments that are not seen")
	if err := flagSet.Parse(args[1:]); err != nil {
		return err
	}

	// Allocations are not sampled before startMeter sets the rate.
	runtime.MemProfileRate = 0
	err := o.runCommand(ctx, args[0], flagSet.Args())
	return errors.Join(err, o.endProfiles())
}

// runCommand runs the command that name names with the arguments behind the flags.
func (o *options) runCommand(ctx context.Context, name string, args []string) error {
	switch name {
	case "traffic":
		return o.traffic(args)
	case "capture":
		return o.capture(ctx)
	case "logs":
		return o.logs(ctx)
	case "engine":
		return o.engine(ctx)
	case "rules":
		return o.rules(ctx)
	case stateCommand:
		return o.state(args)
	case "peers":
		return o.peers()
	case "whole":
		return o.whole(ctx, args)
	case "compare":
		return o.compare(args)
	case brokerCommand:
		return serveBroker(ctx, args)
	}
	return fmt.Errorf("no command is called %s", name)
}

// selected reports whether a case is measured.
func (o *options) selected(name string) bool { return strings.Contains(name, o.only) }

// startMeter starts a measurement. The first call also starts the profiles that the flags select, so that
// preparation is not in them.
func (o *options) startMeter() (meter, error) {
	if !o.profilesStarted {
		o.profilesStarted = true
		if err := o.startProfiles(); err != nil {
			return meter{}, err
		}
	}
	return readMeter(), nil
}

// startProfiles starts the profiles whose flags are set.
func (o *options) startProfiles() error {
	if o.memProfile != "" {
		runtime.MemProfileRate = 64 << 10
	}
	if o.cpuProfile == "" {
		return nil
	}
	file, err := os.Create(o.cpuProfile)
	if err != nil {
		return err
	}
	o.cpuProfileFile = file // endProfiles closes it, also if the profile does not start
	return pprof.StartCPUProfile(file)
}

// endProfiles writes the profiles that startMeter started.
func (o *options) endProfiles() error {
	if o.cpuProfileFile != nil {
		pprof.StopCPUProfile()
		if err := o.cpuProfileFile.Close(); err != nil {
			return err
		}
	}
	if !o.profilesStarted || o.memProfile == "" {
		return nil
	}
	file, err := os.Create(o.memProfile)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("allocs").WriteTo(file, 0), file.Close())
}

// traffic writes a capture to the file that the argument names and prints its truth as JSON.
func (o *options) traffic(args []string) error {
	if len(args) != 1 {
		return errors.New("traffic: name one file")
	}
	truth, err := writeCapture(args[0], o.trafficConfig())
	if err != nil {
		return err
	}
	return json.NewEncoder(o.out).Encode(truth)
}

// trafficConfig returns the configuration of the generator as the flags set it, 60 MB by default.
func (o *options) trafficConfig() traffic.Config {
	return traffic.Config{
		Bytes: o.amountOr(60) << 20, Seed: o.seed,
		Reorder: o.reorder, Duplicate: o.duplicate, Lose: o.loss,
	}
}

// amountOr returns the value of -n, or the default of the command.
func (o *options) amountOr(byDefault int) int {
	if o.amount > 0 {
		return o.amount
	}
	return byDefault
}

// writeCapture generates a capture into the file at path and returns the truth of the capture.
func writeCapture(path string, cfg traffic.Config) (traffic.Truth, error) {
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return traffic.Truth{}, err
	}
	buffered := bufio.NewWriter(file)
	truth, err := traffic.Write(buffered, cfg)
	return truth, errors.Join(err, buffered.Flush(), file.Close())
}
