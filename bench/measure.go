package main

import (
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

// A meter holds what this process and its child processes had used when the meter was read.
type meter struct {
	at       time.Time
	self     time.Duration
	children time.Duration
	mallocs  uint64
	bytes    uint64
}

func readMeter() meter {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return meter{time.Now(), selfCPU(), childrenCPU(), m.Mallocs, m.TotalAlloc}
}

// A usage holds the cost of a piece of work.
type usage struct {
	wall, self, children time.Duration
	mallocs, bytes       uint64
}

func (m meter) since() usage {
	wall, self, children := time.Since(m.at), selfCPU()-m.self, childrenCPU()-m.children
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	return usage{wall, self, children, now.Mallocs - m.mallocs, now.TotalAlloc - m.bytes}
}

// A figure is a number with its unit.
type figure struct {
	value float64
	unit  string
}

// report prints a line in the format of go test -bench for n things that cost u: wall time, CPU time of this
// process and allocations per thing, and things per second. The CPU time of child processes is appended where
// there are any.
func report(out io.Writer, name, things string, n int, u usage, more ...figure) {
	k := float64(n)
	fmt.Fprintf(out, "Benchmark%s-%d\t%d\t%.1f ns/op\t%.1f cpu-ns/op\t%.0f %s/cpu-s\t%.0f %s/s\t%.2f B/op\t%.4f allocs/op", name, runtime.GOMAXPROCS(0), n,
		float64(u.wall)/k, float64(u.self)/k, k/u.self.Seconds(), things, k/u.wall.Seconds(), things, float64(u.bytes)/k, float64(u.mallocs)/k)
	if u.children > 0 {
		fmt.Fprintf(out, "\t%.1f others-cpu-ns/op", float64(u.children)/k)
	}
	for _, f := range more {
		fmt.Fprintf(out, "\t%.4g %s", f.value, f.unit)
	}
	fmt.Fprintln(out)
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// childrenCPU returns the CPU time of all running descendants of this process, in steps of 10 ms.
func childrenCPU() (sum time.Duration) {
	// 1. Parent and CPU time of every process. The fields of stat follow the command name, which may contain
	// blanks and brackets (proc_pid_stat(5)).
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
		f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:])) // from the state, the third field, on
		if len(f) < 13 {
			continue
		}
		parents[pid], _ = strconv.Atoi(f[1])
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		ticks[pid] = user + system
	}

	// 2. Sum over the processes that descend from this one. The limit of hops guards against a cycle after a
	// pid was reused.
	for pid, n := range ticks {
		for p, hops := pid, 0; p > 1 && hops < 8; hops++ {
			if p = parents[p]; p == os.Getpid() {
				sum += time.Duration(n) * 10 * time.Millisecond
				break
			}
		}
	}
	return sum
}

// whole runs a command, discards its output and prints what it cost as a process. -n is the number of things
// that the command processes.
func (o *options) whole(ctx interface{ Done() <-chan struct{} }, args []string) error {
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
		wall, n := time.Since(began), float64(o.amountOr(1))
		state := cmd.ProcessState
		cpu := state.UserTime() + state.SystemTime()
		peak := int64(0)
		if u, ok := state.SysUsage().(*syscall.Rusage); ok {
			peak = u.Maxrss
		}
		fmt.Fprintf(o.out, "BenchmarkWhole/%s-%d\t%d\t%.1f ns/op\t%.1f cpu-ns/op\t%.0f packets/cpu-s\t%.2f user-s\t%.2f system-s\t%.1f peak-MB\n", o.name, runtime.GOMAXPROCS(0), o.amountOr(1),
			float64(wall)/n, float64(cpu)/n, n/cpu.Seconds(), state.UserTime().Seconds(), state.SystemTime().Seconds(), float64(peak)/1024)
	}
	return nil
}
