package logstest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BenchRecords are records of about 200 bytes as containers write them.
var BenchRecords = func() [][]byte {
	var list [][]byte
	for _, log := range []string{
		`172.17.0.1 - - [24/Nov/2026:23:08:00 +0000] \"GET /api/v1/items?page=2 HTTP/1.1\" 200 5120 \"-\" \"curl/8.5.0\"\n`,
		`level=info ts=2026-11-24T23:08:00.123Z caller=main.go:42 msg=\"request done\" method=GET path=/healthz took=1.2ms\n`,
		`2026-11-24 23:08:00.123  INFO 1 --- [nio-8080-exec-1] c.e.OrderService : order 4711 was placed by customer 12\n`,
		`{\"level\":\"info\",\"ts\":1764025680.123,\"msg\":\"cache miss\",\"key\":\"user:4711\",\"took\":0.0012}\n`,
	} {
		list = append(list, []byte(`{"log":"`+log+`","stream":"stdout","time":"2026-11-24T23:08:00.123456789Z"}`))
	}
	return list
}()

// ReportCPU returns a function that reports the processor time per iteration since the call. On a shared
// machine wall-clock time is not meaningful.
func ReportCPU(b *testing.B) func() {
	used := func() int64 {
		var usage unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
		return usage.Utime.Nano() + usage.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N), "cpu-ns/op") }
}
