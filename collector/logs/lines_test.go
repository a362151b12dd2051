package logs

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
	"tidegate/collector/logs/logstest"
	"tidegate/collector/logs/tail"
	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
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
	check(`time="2026-11-24T23:08:00Z" level=warning msg=x`, "warn")
	check(`{"ts":1,"level":"ERROR","msg":"x"}`, "error")
	check(`{"level" : "debug"}`, "debug")
	check(`{"level":30,"time":1}`, "info")
	check(`{"severity":"CRITICAL"}`, "fatal")
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
	check(`waterlevel=error sealevel=fatal`, "")
	check(`MYERROR [myerror] unlevel=warn`, "")
	check(``, "")
	check(strings.Repeat("x ", 60)+"[ERROR]", "")
	check(`2026-01-02 03:04:05 0 [Note] mariadbd: ready`, "info")
	check(`level=info msg="level=error in the text"`, "info")
	check(`msg="level=error \" level=fatal" level=info`, "info")

	// Short names, and the places in which common programs write a level.
	check(`INFO[0000] logrus`, "info")
	check(`ERRO[0012] an older logrus`, "error")
	check(`ERROR[x] y`, "")
	check(`12:00AM INF zerolog`, "info")
	check(`12:00AM FTL zerolog`, "fatal")
	check(`[12:00:00 WRN] Serilog`, "warn")
	check(`info: Microsoft.Hosting.Lifetime[0]`, "info")
	check(`fail: Foo[1]`, "error")
	check(`error: winston`, "error")
	check(`panic: runtime error`, "")
	check(`note: see above`, "")
	check(`warning:x`, "")
	check(`[Fri Jan 02 03:04:05.000 2026] [core:error] [pid 1] AH1`, "error")
	check(`[Fri Jan 02 03:04:05.000 2026] [mpm_event:notice] [pid 1] AH1`, "info")
	check(`[2026-01-02 03:04:05] local.ERROR: Laravel`, "error")
	check(`see a.WARN for more`, "")
	check(`npm ERR! code`, "error")
	check(`2026-01-02 03:04:05.000 UTC [1] DEBUG1:  x`, "debug")
	check(`W20260102 03:04:05.000000 1 main.cc:1] glog 0.6`, "warn")
	check(`INFORMATION: x`, "") // a heading; as a key or in brackets it is a level
	check(`[Information] x`, "info")
	check(`{"t":{"$date":"2026-01-02T03:04:05Z"},"s":"I","c":"NETWORK","msg":"MongoDB"}`, "info")
	check(`{"t":{"$date":"2026-01-02T03:04:05Z"},"s":"D2","c":"NETWORK","msg":"MongoDB"}`, "debug")
	check(`{"s":"Info","msg":"x"}`, "")
	check(`{"s":"I","level":"error"}`, "error")
	check(`{"level":"\u001b[1m\u001b[31merror\u001b[39m","message":"winston"}`, "error")
	check(`{"level":"\u001b[31","message":"x"}`, "")

	// In a JSON object the member counts, whatever the texts contain.
	check(`{"msg":"level=error in text","level":"info"}`, "info")
	check(`{"msg":"{\"level\":\"error\"}","level":"info"}`, "info")
	check(`{"level":"info","err":{"level":"error"}}`, "info")
	check(`{"err":{"level":"error"},"level":"info"}`, "info")
	check(`{"data":{"level":"gold"},"level":"error"}`, "error")
	check(`{"time":"x","log":{"level":"debug","context":"POSTGRES"}}`, "debug")
	check(`{"log":{"level":"debug"},"level":"warn"}`, "warn")
	check(`{"a":["level","error"],"b":["level",{"level":"fatal"}]}`, "")
	check(`{"level":{"name":"warn"}}`, "")
	check(`{"levelname":"CRITICAL"}`, "fatal")
	check(`{}}}{`, "")
	check(`{"msg":"x"}]} "level":"error"`, "")
	check(`{"level":200,"level_name":"INFO"}`, "info")
	check(`{"@level":"info","@message":"hclog"}`, "info")
	check(`{"Level":"Warning"}`, "warn")
	check(`{"time":"2026-01-02","msg":"`+strings.Repeat("x", 300)+`","level":"error"}`, "error")
	check(`  {"msg":"a","level":"error"`, "error")
	check(`{"msg":"[ERROR] no end`, "")
	check(strings.Repeat(`{"a":`, 100)+`"level"`, "")
}

// TestLevelsAreOfSixValues: whatever a program calls its levels, an event has one of six.
func TestLevelsAreOfSixValues(t *testing.T) {
	got := map[string]bool{}
	for _, name := range levelNames {
		got[detectLevel([]byte("["+name.word+"] x"))] = true
		got[detectLevel([]byte(`{"level":"`+strings.ToUpper(name.word)+`"}`))] = true
	}
	want := map[string]bool{"trace": true, "debug": true, "info": true, "warn": true, "error": true, "fatal": true}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTextForATerminalIsPlain(t *testing.T) {
	var buf []byte
	check := func(line, want string) {
		t.Helper()
		if got := string(plainText([]byte(line), &buf)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	check("", "")
	check("denied", "denied")
	check("denied\r", "denied")
	check("denied\r\r", "denied")
	check("a\rb", "a\rb")
	check("\x1b[31maccess denied\x1b[0m\r", "access denied")
	check("\x1b[31maccess denied\r\x1b[0m", "access denied")
	check("\x1b[3mpassword\x1b[0m\x1b[2m=\x1b[0mhunter2", "password=hunter2")
	check("\x1b[38;2;255;100;0mx\x1b[m\x1b[38:5:1my\x1b[K", "xy")

	check("\x1b(B\x1b[mERROR\x1b(B\x1b[m denied\x1b(B\x1b[m\r", "ERROR denied") // as tput sgr0 ends a colour
	check("\u009b31mERROR\u009b0m: \x1b[1mdenied\u009bm", "ERROR: denied")
	check("naïve ě\u009bx \xc2", "naïve ě\u009bx \xc2")

	// Sequences that are no colours stay: a reader should see that someone has sent them.
	check("\x1b[2J\x1b]0;title\a\x1b[1;1Hx", "\x1b[2J\x1b]0;title\a\x1b[1;1Hx")
	check("\x1b", "\x1b")
	check("\x1b[", "\x1b[")
	check("\x1b[1", "\x1b[1")
	check("\x1b["+strings.Repeat("1", 100)+"m", "\x1b["+strings.Repeat("1", 100)+"m")
	check(strings.Repeat("\x1b[1m", 10_000)+"x", "x")
	if cap(buf) > maxPlainBuffer {
		t.Errorf("%d bytes are kept for the next line", cap(buf))
	}
}

func FuzzLevel(f *testing.F) {
	f.Add([]byte(`level=info msg="x" [ERROR]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			_ = detectLevel(in)
		})
	})
}

// TestPanicOverALineLeavesOutItsTextOnly: a bug that the text of a line hits must not end the collector, and must not
// show a secret.
func TestPanicOverALineLeavesOutItsTextOnly(t *testing.T) {
	var logged bytes.Buffer
	source := New(Default(), nil, pipeline.ID{}, slog.New(slog.NewTextHandler(&logged, nil)), prometheus.NewRegistry())
	handler := newLineHandler(source, discover.Log{ID: "a", Dir: "/d", Base: "a.log"})
	var events []*pipeline.Event
	ship := func(stream decode.Stream) {
		t.Helper()
		line := &tail.Line{Stream: stream, Start: 7, Bytes: 20, Text: []byte("ERROR password=hunter2")}
		producer := callbackShipper{func(e *pipeline.Event) { events = append(events, e) }}
		if err := handler.Ship(t.Context(), producer, line, collector.Checkpoint{}); err != nil {
			t.Fatal(err)
		}
	}
	ship(decode.NumStreams) // there is no such stream: the handler has no state for it
	ship(decode.Stdout)
	failed, whole := events[0], events[1]
	if failed.Log.Message != unreadableText || failed.Log.Level != "" || !failed.Partial ||
		!slices.Equal(failed.Tags, []string{pipeline.TagParserPanic}) || failed.Log.Offset != 7 || failed.Log.Bytes != 20 {
		t.Errorf("event of the line that failed: %v", failed)
	}
	if whole.Log.Message != "ERROR password=REDACTED" || whole.Log.Level != "error" || len(whole.Tags) != 0 {
		t.Errorf("event of the next line: %v", whole)
	}
	want := `level=ERROR msg="the text of a line could not be handled" log=/d/a.log offset=7 panic="runtime error: index out of range`
	if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) || strings.Contains(got, "hunter2") ||
		!strings.Contains(got, "setText") || !strings.HasSuffix(got, " suppressed=0\n") {
		t.Errorf("logged %s, want %s", got, want)
	}
	if n := testutil.ToFloat64(source.metrics.panics); n != 1 {
		t.Errorf("%v panics are counted", n)
	}
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
