package logs

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// oracle is what encoding/json makes of a record; ok is false where it is none.
type oracle struct {
	Log    *string         `json:"log"`
	Stream string          `json:"stream"`
	Time   string          `json:"time"`
	Attrs  json.RawMessage `json:"attrs"`
}

func parseString(s string) (record, bool) {
	var r record
	var c timeParser
	ok := r.parse([]byte(s), &c)
	return r, ok
}

func TestRecordsAreReadAsDockerdWritesThem(t *testing.T) {
	check := func(in, log, stream string, newline bool, raw int) {
		t.Helper()
		r, ok := parseString(in)
		if !ok || string(r.log) != log || r.stream.String() != stream || r.newline != newline || r.raw != raw {
			t.Errorf("%s: %v %q %s %v %d", in, ok, r.log, r.stream, r.newline, r.raw)
		}
	}
	const tail = `,"stream":"stdout","time":"2026-11-24T23:08:00.000000001Z"}`
	check(`{"log":"hello\n"`+tail, "hello", "stdout", true, 6)
	check(`{"log":"part"`+tail, "part", "stdout", false, 4)
	check(`{"log":"\n"`+tail, "", "stdout", true, 1)
	check(`{"log":""`+tail, "", "stdout", false, 0)
	check(`{"log":"a\\n"`+tail, `a\n`, "stdout", false, 3)
	check(`{"log":"a\\\n"`+tail, "a\\", "stdout", true, 3)
	check(`{"log":"\u003ca\u003e \"q\" \t\u0001\u2028\n"`+tail, "<a> \"q\" \t\x01\u2028", "stdout", true, 14)
	check(`{"log":"\ufffd\ufffdx\n"`+tail, "\ufffd\ufffdx", "stdout", true, 4)
	check(`{"log":"\ud83d\ude00 \ud83d \ude00x"`+tail, "😀 \ufffd \ufffdx", "stdout", false, 9)
	check(`{"log":"bad \x \u12 \uzzzz"`+tail, `bad \x \u12 \uzzzz`, "stdout", false, 18)
	check(`{"log":"e\n","stream":"stderr","attrs":{"a":"}\"]","b":[1,{"c":null}]},"time":"2026-11-24T23:08:00Z"}`, "e", "stderr", true, 2)
	check(` { "time" : "2026-11-24T23:08:00Z" , "x" : -1.5e3, "y":true, "log" : "k\n" } `, "k", "stdout", true, 2)
}

func TestWhatIsNoRecordIsLeftAsItIs(t *testing.T) {
	for _, in := range []string{
		``, `{`, `{}`, `[]`, `x`, `{"log":"a\n"`, `{"log":"a\n"}x`, `{"log":5}`, `{"stream":"stdout"}`, `{"log":"a"`, `{"log":"a",}`, `{"log" "a"}`, `{"log":"a\\\"}`,
		`{"log":"a","attrs":{"x":}`, `{"log":"tor{"log":"b\n"}`, `{log:"a"}`, `{"log":}`, `{"log":"x","n":*}`,
	} {
		b := []byte(in)
		var r record
		var c timeParser
		if r.parse(b, &c) {
			t.Errorf("%s was taken as %q", in, r.log)
		}
		if string(b) != in {
			t.Errorf("%s became %s", in, b)
		}
	}
}

func TestTimesAreReadAsTheLibraryReadsThem(t *testing.T) {
	var c timeParser
	for _, in := range []string{
		"2026-11-24T23:08:00Z", "2026-11-24T23:08:00.1Z", "2026-11-24T23:08:00.123456789Z", "1970-01-01T00:00:00.000000001Z", "2024-02-29T12:00:00+05:30",
		"2000-03-01T00:00:00-11:59", "1969-12-31T23:59:59Z", "1900-03-01T01:02:03Z", "2261-12-31T00:00:00Z", "1678-01-01T00:00:00Z",
	} {
		want, err := time.Parse(time.RFC3339Nano, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.parse([]byte(in)); got != want.UnixNano() {
			t.Errorf("%s: %d, want %d", in, got, want.UnixNano())
		}
	}
	for _, in := range []string{"", "2026-11-24", "2026-11-24T23:08:00", "2026-13-24T23:08:00Z", "2026-11-24T25:08:00Z", "2026-11-24T23:08:00.Zx", "9999-01-01T00:00:00Z", "x026-11-24T23:08:00Z"} {
		if got := c.parse([]byte(in)); got != 0 {
			t.Errorf("%s: %d", in, got)
		}
	}
	// Every day of four hundred years, as a date.
	for day := time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2200; day = day.AddDate(0, 0, 1) {
		if got := c.parse(day.AppendFormat(nil, time.RFC3339)); got != day.UnixNano() {
			t.Fatalf("%s: %d", day, got)
		}
	}
}

// FuzzRecord holds the parser against encoding/json: what that reads we read alike, and anything is survived.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		`{"log":"hello\n","stream":"stdout","time":"2026-11-24T23:08:00.123456789Z"}`,
		`{"log":"\u003c\ud83d\ude00\ufffd\\","stream":"stderr","attrs":{"a":["}",{}]},"time":"2026-11-24T23:08:00Z"}`,
		`{"log":"\ud83d"}`, `{"log":"a","log":"b"}`, ` {"x":1e5,"log":"q"} `, `{"attrs":{"a":"\\"},"log":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := bytes.Clone(in)
		var r record
		var c timeParser
		ok := r.parse(b, &c)
		if !ok && !bytes.Equal(b, in) {
			t.Fatalf("%q is no record, but became %q", in, b)
		}
		if ok && r.raw > len(in) {
			t.Fatalf("raw %d of %d bytes", r.raw, len(in))
		}
		var o oracle
		if !utf8.Valid(in) || json.Unmarshal(in, &o) != nil || o.Log == nil || exotic(in) {
			return
		}
		if !ok {
			t.Fatalf("%q is a record", in)
		}
		log, newline := strings.CutSuffix(*o.Log, "\n")
		if string(r.log) != log || r.newline != newline {
			t.Fatalf("%q: %q %v, want %q %v", in, r.log, r.newline, log, newline)
		}
		if at, err := time.Parse(time.RFC3339Nano, o.Time); err == nil && r.time != 0 && r.time != at.UnixNano() {
			t.Fatalf("%q: time %d, want %d", in, r.time, at.UnixNano())
		}
	})
}

// exotic tells of records that encoding/json reads by rules of its own: keys that match by case or with escapes, keys twice, null.
func exotic(in []byte) bool {
	if bytes.Contains(in, []byte(`null`)) {
		return true
	}
	lower := bytes.ToLower(in)
	if bytes.Count(lower, []byte(`log"`)) != 1 || bytes.Count(in, []byte(`"log"`)) != 1 {
		return true
	}
	for _, k := range []string{"stream", "time", "attrs"} {
		if bytes.Count(lower, []byte(k)) > 1 || bytes.Count(lower, []byte(k)) != bytes.Count(in, []byte(k)) {
			return true
		}
	}
	// An escape in a key, or a letter that folds to one of ours.
	var m map[string]json.RawMessage
	if json.Unmarshal(in, &m) != nil {
		return true
	}
	for k := range m {
		if strings.EqualFold(k, "log") && k != "log" || !bytes.Contains(in, []byte(`"`+k+`"`)) {
			return true
		}
	}
	return m["log"] == nil || m["log"][0] != '"'
}

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

var benchRecords = func() [][]byte {
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

// BenchmarkParse is the parser alone, of lines of about 200 bytes as containers write them.
func BenchmarkParse(b *testing.B) {
	var r record
	var c timeParser
	buf := make([]byte, 4096)
	n := 0
	for _, rec := range benchRecords {
		n += len(rec) + 1
	}
	b.SetBytes(int64(n / len(benchRecords)))
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		rec := benchRecords[i%len(benchRecords)]
		if !r.parse(buf[:copy(buf, rec)], &c) {
			b.Fatal("no record")
		}
	}
}

// BenchmarkLevelAndRedact is what a line costs beyond that.
func BenchmarkLevelAndRedact(b *testing.B) {
	var red redactor
	var c timeParser
	var lines [][]byte
	for _, rec := range benchRecords {
		var r record
		r.parse(bytes.Clone(rec), &c)
		lines = append(lines, bytes.Clone(r.log))
	}
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		l := lines[i%len(lines)]
		detectLevel(l)
		red.line(l)
	}
}
