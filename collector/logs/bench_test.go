package logs

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A discardProducer is a lane that forgets: it counts and gives the events back.
type discardProducer struct{ n int }

func (s *discardProducer) Ship(_ context.Context, e *pipeline.Event, _ collector.Checkpoint) error {
	s.n++
	pipeline.ReleaseEvent(e)
	return nil
}

func (s *discardProducer) Resume() (collector.Checkpoint, bool) { return collector.Checkpoint{}, false }
func (s *discardProducer) SourceGone()                          {}
func (s *discardProducer) Close(bool)                           {}

// cpu reports what an iteration took of a processor: on a machine that others use too the clock says little.
func cpu(b *testing.B) func() {
	used := func() int64 {
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkFile reads a file of 200,000 lines as the Source does: read, parse, level, redaction, event, lane. One iteration is one line.
func BenchmarkFile(b *testing.B) {
	root := b.TempDir()
	d := newDockerd(b, root, 1)
	var data []byte
	const lines = 200_000
	for i := range lines {
		data = append(append(data, benchRecords[i%len(benchRecords)]...), '\n')
	}
	if _, err := d.f.Write(data); err != nil {
		b.Fatal(err)
	}
	s := New(config(root), nil, pipeline.ID{1}, slog.New(slog.DiscardHandler), nil)
	b.SetBytes(int64(len(data) / lines))
	b.ReportAllocs()
	b.ResetTimer()
	defer cpu(b)()
	for n := 0; n < b.N; n += lines {
		c := newTailer(s, d.id, d.dir, d.id+"-json.log", 0)
		f, err := os.Open(d.path)
		if err != nil {
			b.Fatal(err)
		}
		to := &discardProducer{}
		file := &file{file: f, lane: to, identified: true}
		if _, err := c.readToEnd(context.Background(), file, false); err != nil || to.n != lines {
			b.Fatal(to.n, err)
		}
		_ = f.Close()
		s.metrics.addTally(&c.tally)
	}
}
