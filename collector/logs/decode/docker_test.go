package decode

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidegate/collector/logs/logstest"
)

// An oracle is a record as encoding/json reads it.
type oracle struct {
	Log    *string         `json:"log"`
	Stream string          `json:"stream"`
	Time   string          `json:"time"`
	Attrs  json.RawMessage `json:"attrs"`
}

func parseRecord(text string) (dockerRecord, bool) {
	var r dockerRecord
	var c timeParser
	ok := r.parse([]byte(text), &c)
	return r, ok
}

func TestRecordsAreReadAsDockerdWritesThem(t *testing.T) {
	check := func(in, log, stream string, newline bool, raw int) {
		t.Helper()
		r, ok := parseRecord(in)
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
		data := []byte(in)
		var r dockerRecord
		var c timeParser
		if r.parse(data, &c) {
			t.Errorf("%s was taken as %q", in, r.log)
		}
		if string(data) != in {
			t.Errorf("%s became %s", in, data)
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

// FuzzRecord compares the parser with encoding/json: what that reads must be read alike.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{"log":"hello\n","stream":"stdout","time":"2026-11-24T23:08:00.123456789Z"}`,
		`{"log":"\u003c\ud83d\ude00\ufffd\\","stream":"stderr","attrs":{"a":["}",{}]},"time":"2026-11-24T23:08:00Z"}`,
		`{"log":"\ud83d"}`, `{"log":"a","log":"b"}`, ` {"x":1e5,"log":"q"} `, `{"attrs":{"a":"\\"},"log":""}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		data := bytes.Clone(in)
		var r dockerRecord
		var c timeParser
		ok := r.parse(data, &c)
		if !ok && !bytes.Equal(data, in) {
			t.Fatalf("%q is no record, but became %q", in, data)
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

// exotic reports whether encoding/json reads a record by rules of its own: keys that match by case or with
// escapes, keys twice, null.
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
	// An escape in a key, or a letter that folds to one of the known keys.
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

// BenchmarkParse measures the parser alone, with lines of about 200 bytes as containers write them.
func BenchmarkParse(b *testing.B) {
	var r dockerRecord
	var c timeParser
	buf := make([]byte, 4096)
	n := 0
	for _, rec := range logstest.BenchRecords {
		n += len(rec) + 1
	}
	b.SetBytes(int64(n / len(logstest.BenchRecords)))
	b.ReportAllocs()
	defer logstest.ReportCPU(b)()
	for i := 0; b.Loop(); i++ {
		rec := logstest.BenchRecords[i%len(logstest.BenchRecords)]
		if !r.parse(buf[:copy(buf, rec)], &c) {
			b.Fatal("no record")
		}
	}
}
