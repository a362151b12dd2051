// Package lineartest bounds the work of a parser by the size of its input. Only tests use it.
//
// Check runs a function and fails the test if it takes more CPU time or allocates more memory than a Limit has for
// the size of the input. CheckRepeated does so for an input and for the input repeated to 32 KiB, since a quadratic
// parser is still fast on the small inputs that a fuzzer writes. Fuzz targets call one of them with their whole body.
// Growth compares the cost of an input with those of twice, four and eight times as much.
//
// The CPU time is that of the calling thread, which other processes and other tests do not change. The memory is
// that of the process. A measurement above the limit is taken again before it counts, so that the first use of
// a table, a stolen processor or an allocation of another goroutine does not fail a test.
package lineartest

import (
	"bytes"
	"hash/fnv"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Limit is the most that an input of n bytes may cost: the fixed part and n times the part of a byte.
type Limit struct {
	Time         time.Duration
	TimePerByte  time.Duration
	Bytes        uint64 // of memory that is allocated, released or not
	BytesPerByte uint64
}

// Default is generous: the body of a fuzz target often parses its input several times and prints what it found.
var Default = Limit{
	Time: 20 * time.Millisecond, TimePerByte: 20 * time.Microsecond, Bytes: 4 << 20, BytesPerByte: 8 << 10,
}

// A Cost holds the CPU time and the memory of a run of a function.
type Cost struct {
	Time  time.Duration // CPU time of the thread
	Bytes uint64        // allocated by the process
}

// instrumented is how many times slower code may be with the instrumentation of a fuzzer. Loops over single bytes are
// eight times slower.
const instrumented = 4

// tries is the number of measurements of which the least one counts.
const tries = 3

// Measure runs a function once and returns its cost.
func Measure(run func()) (cost Cost) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	time, allocated := threadTime(), allocatedBytes()
	run()
	return Cost{Time: threadTime() - time, Bytes: allocatedBytes() - allocated}
}

// Check runs a function on an input of size bytes. It fails the test if each of several runs costs more than the
// limit. run has to do the same each time.
func (l Limit) Check(t testing.TB, size int, run func()) {
	t.Helper()
	mostTime := l.Time + time.Duration(size)*l.TimePerByte
	if fuzzing() {
		mostTime *= instrumented
	}
	mostBytes := l.Bytes + uint64(size)*l.BytesPerByte
	var cost Cost
	for range tries {
		cost = Measure(run)
		if t.Failed() || cost.Time <= mostTime && cost.Bytes <= mostBytes {
			return
		}
	}
	t.Errorf("an input of %d bytes took %v of CPU time and %d bytes of memory, more than %v or %d bytes",
		size, cost.Time, cost.Bytes, mostTime, mostBytes)
}

// Inputs of at most mostRepeated bytes are repeated to repeatedBytes. A fuzzer repeats one of repeatedShare inputs,
// which costs it less than half of its speed.
const (
	repeatedBytes = 32 << 10
	mostRepeated  = 4 << 10
	repeatedShare = 256
)

// CheckRepeated is Check for a function that parses the bytes it is given. It also checks a share of the inputs
// repeated to 32 KiB. Plain tests, which run the seeds and the findings that were kept, repeat all of them.
func CheckRepeated[T ~string | ~[]byte](t testing.TB, limit Limit, in T, run func(in T)) {
	t.Helper()
	CheckRepeatedPair(t, limit, in, T([]byte(nil)), func(in, _ T) { run(in) })
}

// CheckRepeatedPair is CheckRepeated for a function of two inputs, such as the bytes of a client and of a server.
// Both are repeated as often.
func CheckRepeatedPair[T ~string | ~[]byte](t testing.TB, limit Limit, first, second T, run func(first, second T)) {
	t.Helper()
	size := len(first) + len(second)
	limit.Check(t, size, func() { run(first, second) })
	if t.Failed() || size == 0 || size > mostRepeated {
		return
	}
	if fuzzing() {
		hash := fnv.New32a() // the same in each process: a finding can be repeated
		_, _ = hash.Write([]byte(first))
		_, _ = hash.Write([]byte(second))
		if hash.Sum32()%repeatedShare != 0 {
			return
		}
	}
	times := repeatedBytes/size + 1
	first, second = T(bytes.Repeat([]byte(first), times)), T(bytes.Repeat([]byte(second), times))
	limit.Check(t, len(first)+len(second), func() { run(first, second) })
}

// Growth compares what n, 2n, 4n and 8n units of an input cost.
type Growth struct {
	Name  string
	Units int // n
	Size  int // bytes of a unit
}

// A cost below these is never too much: a parser that searches its buffer for the end of a line with each byte that
// arrives is quadratic up to the longest line that it takes, and cheap. The memory of the smallest input depends on
// what earlier runs have left in pools.
const (
	cheapTimePerByte  = 2 * time.Microsecond
	cheapBytesPerByte = 32
	cheapBytes        = 1 << 20
)

// Check runs a function on n and on 8n units. It fails the test if eight times as much costs more than 24 times
// the time or the memory, and more than 3 times that of 4n units: a linear function costs 8 times and twice as much, a
// quadratic one 64 times and 4 times.
func (g Growth) Check(t testing.TB, run func(units int)) {
	t.Helper()
	const times, tolerated, toleratedHalf = 8, 24, 3
	size := times * g.Units * g.Size
	cheapTime, cheapMemory := time.Duration(size)*cheapTimePerByte, uint64(max(cheapBytes, size*cheapBytesPerByte))
	grows := func(first, half, last Cost) bool {
		return last.Time > max(first.Time*tolerated, half.Time*toleratedHalf, cheapTime) ||
			last.Bytes > max(first.Bytes*tolerated, half.Bytes*toleratedHalf, cheapMemory)
	}
	for range tries {
		last := Measure(func() { run(times * g.Units) })
		if t.Failed() || !grows(Cost{}, Cost{}, last) {
			return
		}
		first, half := least(func() { run(g.Units) }), least(func() { run(times / 2 * g.Units) })
		if !grows(first, half, last) {
			return
		}
	}
	var costs [4]Cost
	for i := range costs {
		costs[i] = Measure(func() { run(g.Units << i) })
	}
	t.Errorf("%s: %d units of %d bytes, and 2, 4 and 8 times as many, cost %v: not linear", g.Name, g.Units, g.Size, costs)
}

// least returns the smaller costs of two runs.
func least(run func()) Cost {
	first, second := Measure(run), Measure(run)
	return Cost{Time: min(first.Time, second.Time), Bytes: min(first.Bytes, second.Bytes)}
}

// threadTime returns the CPU time of the calling thread.
func threadTime() time.Duration {
	var used unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used); err != nil {
		panic(err) // the clock exists on every kernel since 2.6.12
	}
	return time.Duration(used.Nano())
}

// allocatedBytes returns the number of bytes that the process has allocated since it started.
func allocatedBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
