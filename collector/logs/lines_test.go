package logs

import (
	"bytes"
	"strings"
	"testing"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
	"tidegate/pipeline/redact"
)

func TestLevelsAreFound(t *testing.T) {
	check := func(line, want string) {
		t.Helper()
		if got := detectLevel([]byte(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	check(`level=info msg="x"`, "info")
	check(`time="2026-11-24T23:08:00Z" level=warning msg=x`, "warning")
	check(`{"ts":1,"level":"ERROR","msg":"x"}`, "error")
	check(`{"level" : "debug"}`, "debug")
	check(`{"level":30,"time":1}`, "info")
	check(`{"severity":"CRITICAL"}`, "critical")
	check(`lvl=eror`, "")
	check(`2026/11/24 23:08:00 [error] 12#12: *1 open() failed`, "error")
	check(`[WARN] disk`, "warn")
	check(`2026-11-24 23:08:00,123 INFO  com.example.Main - started`, "info")
	check(`ERROR: relation does not exist`, "error")
	check(`2026-11-24 23:08:00.123 UTC [1] FATAL:  password authentication failed`, "fatal")
	check(`I1124 23:08:00.123456       1 main.go:5] hello`, "info")
	check(`E1124 23:08:00.123456       1 main.go:5] hello`, "error")
	check(`an error has happened, no level`, "")
	check(`INFORMAL talk, ERRORS everywhere, infoX`, "")
	check(`the level of water`, "")
	check(``, "")
	check(strings.Repeat("x ", 60)+"[ERROR]", "")
}

func FuzzLevel(f *testing.F) {
	f.Add([]byte(`level=info msg="x" [ERROR]`))
	f.Fuzz(func(_ *testing.T, in []byte) {
		_ = detectLevel(in)
	})
}

// BenchmarkLevelAndRedact measures the cost of a line besides reading and parsing.
func BenchmarkLevelAndRedact(b *testing.B) {
	var redactor redact.Redactor
	decoder := decode.DockerJSON.New()
	var lines [][]byte
	for _, text := range logstest.BenchRecords {
		var record decode.Record
		decoder.Decode(bytes.Clone(text), &record)
		lines = append(lines, bytes.Clone(record.Text))
	}
	b.ReportAllocs()
	defer logstest.ReportCPU(b)()
	for i := 0; b.Loop(); i++ {
		line := lines[i%len(lines)]
		detectLevel(line)
		redactor.Line(line)
	}
}
