package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A meter holds the consumption of this process and its child processes at the time of reading.
type meter struct {
	at       time.Time
	self     time.Duration // CPU time of this process
	children time.Duration // CPU time of its descendants
	mallocs  uint64        // allocations of this process since its start
	bytes    uint64        // bytes of these allocations
}

// readMeter collects the garbage of earlier work and reads the meter.
func readMeter() meter {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return meter{time.Now(), selfCPU(), childrenCPU(), stats.Mallocs, stats.TotalAlloc}
}

// A usage holds the cost of a piece of work. The fields are those of meter.
type usage struct {
	wall, self, children time.Duration
	mallocs, bytes       uint64
}

// since returns the cost of the work since m was read.
func (m meter) since() usage {
	// The clocks are read first: ReadMemStats stops the world.
	wall, self, children := time.Since(m.at), selfCPU()-m.self, childrenCPU()-m.children
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return usage{wall, self, children, stats.Mallocs - m.mallocs, stats.TotalAlloc - m.bytes}
}

// A figure is a number with its unit.
type figure struct {
	value float64
	unit  string
}

// report prints a line in the format of go test -bench for count things and their cost. The line holds wall
// time, CPU time of this process and allocations per thing, and things per second. The CPU time of child
// processes follows if it is not 0, then the figures of more.
func report(out io.Writer, name, things string, count int, cost usage, more ...figure) {
	n := float64(count)
	fmt.Fprintf(out, "Benchmark%s-%d\t%d\t%.1f ns/op\t%.1f cpu-ns/op",
		name, runtime.GOMAXPROCS(0), count, float64(cost.wall)/n, float64(cost.self)/n)
	fmt.Fprintf(out, "\t%.0f %s/cpu-s\t%.0f %s/s", n/cost.self.Seconds(), things, n/cost.wall.Seconds(), things)
	fmt.Fprintf(out, "\t%.2f B/op\t%.4f allocs/op", float64(cost.bytes)/n, float64(cost.mallocs)/n)
	if cost.children > 0 {
		fmt.Fprintf(out, "\t%.1f others-cpu-ns/op", float64(cost.children)/n)
	}
	for _, figure := range more {
		fmt.Fprintf(out, "\t%.4g %s", figure.value, figure.unit)
	}
	fmt.Fprintln(out)
}

// selfCPU returns the user and system time of this process.
func selfCPU() time.Duration {
	var rusage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &rusage)
	return time.Duration(rusage.Utime.Nano() + rusage.Stime.Nano())
}

// childrenCPU returns the CPU time of all running descendants of this process, in steps of 10 ms.
func childrenCPU() (sum time.Duration) {
	// 1. Read parent and CPU time of every process. The command name in stat may contain blanks and brackets,
	// so the fields are counted from its last bracket, starting with the state, the third field
	// (proc_pid_stat(5)).
	parents := map[int]int{}
	ticks := map[int]int64{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		stat := string(data)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 13 {
			continue
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		ticks[pid] = user + system
	}

	// 2. Sum over the processes that descend from this one. The limit of hops guards against a cycle after a
	// pid was reused.
	for pid, used := range ticks {
		for ancestor, hops := pid, 0; ancestor > 1 && hops < 8; hops++ {
			if ancestor = parents[ancestor]; ancestor == os.Getpid() {
				sum += time.Duration(used) * 10 * time.Millisecond
				break
			}
		}
	}
	return sum
}

// whole runs a command as a process, discards its output and prints its cost. -n is the number of packets
// that the command processes.
func (o *options) whole(ctx context.Context, args []string) error {
	if len(args) == 0 || o.name == "" {
		return fmt.Errorf("whole: a -name and a command are needed")
	}
	for range o.runs {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Stderr = os.Stderr
		began := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}

		// Wait for the process, or kill it when ctx ends.
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			return <-done
		}
		o.reportProcess(time.Since(began), cmd.ProcessState)
	}
	return nil
}

// reportProcess prints the cost of a process that has ended.
func (o *options) reportProcess(wall time.Duration, state *os.ProcessState) {
	packets := float64(o.amountOr(1))
	user, system := state.UserTime(), state.SystemTime()
	cpu := user + system
	peakKB := int64(0)
	if rusage, ok := state.SysUsage().(*syscall.Rusage); ok {
		peakKB = rusage.Maxrss
	}
	fmt.Fprintf(o.out, "BenchmarkWhole/%s-%d\t%d\t%.1f ns/op\t%.1f cpu-ns/op\t%.0f packets/cpu-s",
		o.name, runtime.GOMAXPROCS(0), o.amountOr(1), float64(wall)/packets, float64(cpu)/packets, packets/cpu.Seconds())
	fmt.Fprintf(o.out, "\t%.2f user-s\t%.2f system-s\t%.1f peak-MB\n",
		user.Seconds(), system.Seconds(), float64(peakKB)/1024)
}
