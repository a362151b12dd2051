package rules

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestTimesDurationsAndSizesAreConstants: a time is compared with a text, and numbers have units.
func TestTimesDurationsAndSizesAreConstants(t *testing.T) {
	stamp := func(text string) int64 {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixNano()
	}
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_TLS, Timestamp: stamp("2026-11-27T16:20:30.5Z"), Duration: 1500e6,
		Source: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}, Port: 443, Bytes: 9 << 20},
		Tls:    &pipeline.TLSHandshake{ServerNotAfter: stamp("2026-12-01T00:00:00Z"), ServerName: "5s @timestamp // 8MiB"},
	}
	check := func(when string, want bool) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		event.Verdicts = nil
		set.Evaluate([]*pipeline.Event{event})
		if got := len(event.Verdicts) == 1; got != want {
			t.Errorf("%s: %t", when, got)
		}
	}
	check(`timestamp >= "2026-11-27T16:20:00Z" and timestamp < "2026-11-27 16:21"`, true)
	check(`@timestamp >= "2026-11-27" and @timestamp < "2026-11-28"`, true)
	check(`@timestamp > "2026-11-27T18:20:00+01:00"`, false) // 17:20 UTC
	check(`"2026-11-27T16:20:30.5Z" == timestamp`, true)
	check(`timestamp != "2026-11-27 16:20:30"`, true)
	check(`tls.server.not_after < "2026-12-01 00:00:01"`, true)
	check(`tls.server.not_after - timestamp < 4d`, true)
	check(`tls.server.not_after - timestamp < 79h`, false)
	check(`has(@timestamp)`, true)
	check(`event.duration > 1s and event.duration < 1.6s`, true)
	check(`event.duration == 1500ms and event.duration == 1_500_000us`, true)
	check(`event.duration in [1s, 1500ms]`, true)
	check(`event.duration not in [1s, 1m]`, true)
	check(`source.bytes > 8MiB and source.bytes <= 9 * 1024KiB`, true)
	check(`source.bytes >= 1GiB`, false)
	check(`tls.client.server_name == "5s @timestamp // 8MiB"`, true) // in a text, nothing is a literal
	check("tls.client.server_name contains `8MiB` /* 5s */ and event.duration > 1s // 8MiB's", true)
	check(`source.port == 443 and 1e3 < source.bytes`, true)
}

// TestLiteralsKeepThePositionsOfErrors: an error behind a literal is reported where it stands.
func TestLiteralsKeepThePositionsOfErrors(t *testing.T) {
	check := func(when, want string) {
		t.Helper()
		_, err := compileText(t, ruleYAML("r", when))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", when, err, want)
		}
	}
	// The expression begins in column 10.
	check(`event.duration > 5s and mesage == "x"`, `t.yaml:4:34: r: when: unknown field "mesage", did you mean "message"?`)
	check(`event.duration > 5x`, `t.yaml:4:28: r: when: "5x" is not a number: a duration has the unit ns`)
	check(`event.duration > 5s 6`, `t.yaml:4:30`)
	check(`url.path == 5s`, `== cannot combine url.path (text) with 5s (a number)`)
	check(`event.duration > 400000d`, `400000d is too large`)
	check(`event.duration > 9999999999999999999s`, `9999999999999999999s is too large`)
	check(`5s`, "must be true or false")
	check(`timestamp > "2026-13-01"`, `"2026-13-01" is not a time`)
	check(`timestamp == 5s and @timestamp.x == 1`, `unknown field "@timestamp.x"`)
	check(`@timestam > 1`, `unknown field "@timestam", did you mean "@timestamp"?`)
	check(`event.duration > 5s 5s`, `unexpected 5s`)
	check(`timestamp > "1066-10-14"`, "out of range")
}

// FuzzHideLiterals: the hidden text has as many runes as the source, and shows it again.
func FuzzHideLiterals(f *testing.F) {
	for _, seed := range []string{`event.duration > 5s`, `"5s`, "`", `/* 5s`, `// 5s`, `@a.5s`, `1.5.5h`, `5µs`, "\xff5s", `'\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		hidden := hideLiterals(source)
		if strings.ContainsFunc(source, isHidden) {
			return
		}
		if got, want := shown(hidden), string([]rune(source)); got != want || len([]rune(hidden)) != len([]rune(source)) {
			t.Errorf("%q: %q", source, got)
		}
		_, _ = compileExpression(source, &names{}, newSlotTable())
	})
}
