package logs

import (
	"bytes"
	"strings"
	"testing"

	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
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

func TestSecretsAreTakenOut(t *testing.T) {
	var r redactor
	check := func(line, want string) {
		t.Helper()
		got, found := r.line([]byte(line))
		if string(got) != want || found != (line != want) {
			t.Errorf("%q: %q %v, want %q", line, got, found, want)
		}
	}
	check(`password=hunter2 user=bob`, `password=REDACTED user=bob`)
	check(`DB_PASSWORD: "hunter 2", x`, `DB_PASSWORD: "REDACTED", x`)
	check(`{"user":"bob","password":"hun\"ter2","n":1}`, `{"user":"bob","password":"REDACTED","n":1}`)
	check(`msg="{\"password\":\"hunter2\",\"n\":1}"`, `msg="{\"password\":\"REDACTED\",\"n\":1}"`)
	check(`{"token":"abc","a":1}`, `{"token":"REDACTED","a":1}`)
	check(`GET /x?api_key=abc123&y=2 HTTP/1.1`, `GET /x?api_key=REDACTED&y=2 HTTP/1.1`)
	check(`Authorization: Bearer eyJhbGciOi.J9.x`, `Authorization: Bearer REDACTED`)
	check(`Authorization: Basic dXNlcjpwYXNz`, `Authorization: Basic REDACTED`)
	check(`sent "authorization":"Bearer abc.def" ok`, `sent "authorization":"Bearer REDACTED" ok`)
	check(`with Bearer abcdefgh1234 given`, `with Bearer REDACTED given`)
	check(`the bearer of news`, `the bearer of news`)
	check(`Set-Cookie: sid=1; Path=/`, `Set-Cookie: REDACTED`)
	check(`postgres://bob:s3cret@db:5432/x`, `postgres://bob:REDACTED@db:5432/x`)
	check(`http://host:8080/a@b`, `http://host:8080/a@b`)
	check(`CREATE USER 'a' IDENTIFIED BY 'pw1'`, `CREATE USER 'a' IDENTIFIED BY 'REDACTED'`)
	check(`unexpected token: <`, `unexpected token: <`)
	check(`time: 12:00:00 a=b c:d`, `time: 12:00:00 a=b c:d`)
	check(`password=`, `password=`)
	check(`a password=x and secret=y`, `a password=REDACTED and secret=REDACTED`)
	check(``, ``)
}

func FuzzRedact(f *testing.F) {
	f.Add([]byte(`a password="x\"y" http://a:b@c Bearer abcdefghi IDENTIFIED BY 'x' cookie: a b`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r redactor
		b := bytes.Clone(in)
		out, found := r.line(b)
		if !bytes.Equal(b, in) || found == bytes.Equal(out, in) && !bytes.Contains(in, []byte(redacted)) {
			t.Fatalf("%q → %q %v", in, out, found)
		}
		_ = detectLevel(in)
	})
}

// BenchmarkLevelAndRedact is what a line costs beyond reading and parsing it.
func BenchmarkLevelAndRedact(b *testing.B) {
	var red redactor
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
		red.line(line)
	}
}
