package lineartest

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A recorder keeps the errors of a test in place of failing it.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()      {}
func (r *recorder) Failed() bool { return len(r.errors) > 0 }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

var sink int

// linearParser counts the separators.
func linearParser(in []byte) { sink += bytes.Count(in, []byte(",")) }

// quadraticParser hashes, for each separator, all that is before it. Each step waits for the product of the last one:
// a parser that only added would be cheaper per byte than Growth counts, on a fast machine.
func quadraticParser(in []byte) {
	for i, b := range in {
		if b == ',' {
			for _, earlier := range in[:i] {
				sink = sink*31 + int(earlier)
			}
		}
	}
}

// quadraticBuilder copies all that it has for each separator.
func quadraticBuilder(in []byte) {
	text := ""
	for range bytes.SplitSeq(in, []byte(",")) {
		text += "ab"
	}
	sink += len(text)
}

func TestQuadraticParserExceedsTheLimit(t *testing.T) {
	// 128 bytes: what a fuzzer writes is small.
	input := []byte(strings.Repeat("a,", 64))
	limit := Limit{Time: time.Millisecond, TimePerByte: time.Microsecond, Bytes: 1 << 20, BytesPerByte: 64}
	for name, parser := range map[string]func([]byte){"time": quadraticParser, "memory": quadraticBuilder} {
		record := &recorder{TB: t}
		CheckRepeated(record, limit, input, parser)
		if len(record.errors) != 1 || !strings.Contains(record.errors[0], "32896 bytes took") {
			t.Errorf("%s: %q", name, record.errors)
		}
	}
	CheckRepeated(t, limit, input, linearParser)
}

func TestQuadraticParserGrowsTooFast(t *testing.T) {
	for name, parser := range map[string]func([]byte){"time": quadraticParser, "memory": quadraticBuilder} {
		record := &recorder{TB: t}
		Growth{name, 2048, 2}.Check(record, func(n int) { parser(bytes.Repeat([]byte("a,"), n)) })
		if len(record.errors) != 1 {
			t.Errorf("%s: %q", name, record.errors)
		}
	}
	Growth{"linear", 2048, 2}.Check(t, func(n int) { linearParser(bytes.Repeat([]byte("a,"), n)) })
}

// TestOtherThreadsDoNotCount: what else the machine and the process do is not part of a measurement.
func TestOtherThreadsDoNotCount(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				select {
				case <-done:
					return
				default:
					sink2 := 0
					for i := range 10_000 {
						sink2 += i
					}
				}
			}
		}()
	}
	Limit{Time: 20 * time.Millisecond, Bytes: 1 << 20}.Check(t, 0, func() { time.Sleep(200 * time.Millisecond) })
}

// TestFailureOfTheFunctionEndsTheCheck: a body that fails the test itself is not run again.
func TestFailureOfTheFunctionEndsTheCheck(t *testing.T) {
	record, runs := &recorder{TB: t}, 0
	Limit{}.Check(record, 0, func() {
		runs++
		record.Errorf("wrong")
	})
	if runs != 1 || len(record.errors) != 1 {
		t.Errorf("%d runs, %q", runs, record.errors)
	}
}
