package logs

import (
	"context"
	"testing"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline"
)

// BenchmarkFile reads a file of 200,000 lines as the Source does: read, parse, level, redaction, event,
// producer. One iteration is one line.
func BenchmarkFile(b *testing.B) {
	root := b.TempDir()
	dockerd := logstest.NewDockerd(b, root, 1)
	var data []byte
	const lines = 200_000
	for i := range lines {
		data = append(append(data, logstest.BenchRecords[i%len(logstest.BenchRecords)]...), '\n')
	}
	if _, err := dockerd.File.Write(data); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data) / lines))
	b.ReportAllocs()
	b.ResetTimer()
	defer logstest.ReportCPU(b)()
	for read := 0; read < b.N; read += lines {
		shipped := 0
		count := func(event *pipeline.Event) {
			shipped++
			pipeline.ReleaseEvent(event)
		}
		err := ReadFile(context.Background(), Default(), dockerd.Path, decode.DockerJSON, pipeline.ID{1}, count)
		if err != nil || shipped != lines {
			b.Fatal(shipped, err)
		}
	}
}
