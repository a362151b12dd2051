package decode

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidegate/collector/logs/logstest"
	"tidegate/pipeline/lineartest"
)

// An oracle is a record as encoding/json reads it.
type oracle struct {
	Log    *string         `json:"log"`
	Stream string          `json:"stream"`
	Time   string          `json:"time"`
	Attrs  json.RawMessage `json:"attrs"`
}

// parseRecord parses text with a new time parser.
func parseRecord(text string) (dockerRecord, bool) {
	var record dockerRecord
	var times timeParser
	ok := record.parse([]byte(text), &times)
	return record, ok
}

func TestRecordsAreReadAsDockerdWritesThem(t *testing.T) {
	check := func(in, log, stream string, newline bool, raw int) {
		t.Helper()
		record, ok := parseRecord(in)
		if !ok || string(record.log) != log || record.stream.String() != stream ||
			record.newline != newline || record.raw != raw {
			t.Errorf("%s: %v %q %s %v %d", in, ok, record.log, record.stream, record.newline, record.raw)
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
	check(`{"log":"a\n\u00g0b\n"`+tail, "a\n\\u00g0b", "stdout", true, 10)
	check(`{"log":"e\n","stream":"stderr","attrs":{"a":"}\"]","b":[1,{"c":null}]},"time":"2026-11-24T23:08:00Z"}`, "e", "stderr", true, 2)
	check(`{"stream":"stderr","time":"2026-11-24T23:08:00Z"}`, "", "stderr", false, 0)
	check(`{"log":null,"stream":"stdout","time":"2026-11-24T23:08:00Z"}`, "", "stdout", false, 0)
	check(` { "time" : "2026-11-24T23:08:00Z" , "x" : -1.5e3, "y":true, "log" : "k\n" } `, "k", "stdout", true, 2)
}

// TestRecordsSayWhatTheyAreOf: the decoder returns all that the assembly of lines needs. A record ends its line
// if it has a newline or is shorter than a part.
func TestRecordsSayWhatTheyAreOf(t *testing.T) {
	at := time.Date(2026, 11, 24, 23, 8, 0, 1, time.UTC).UnixNano()
	const tail = `","stream":"stderr","time":"2026-11-24T23:08:00.000000001Z"}`
	part := strings.Repeat("p", DockerPartBytes)
	decoder := DockerJSON.New()
	for _, c := range []struct {
		log, text string
		ends      bool
	}{
		{`hello\n`, "hello", true},
		{"short", "short", true},
		{part, part, false},
		{part[1:] + `\n`, part[1:], true},
		{part[1:], part[1:], true},
	} {
		var got Record
		ok := decoder.Decode([]byte(`{"log":"`+c.log+tail), &got)
		want := Record{Text: []byte(c.text), Time: at, Group: at, Stream: Stderr, Ends: c.ends}
		if !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%.20q: %v, %+.60v, want %+.60v", c.log, ok, got, want)
		}
	}
}

func TestWhatIsNoRecordIsLeftAsItIs(t *testing.T) {
	for _, in := range []string{
		``, `{`, `{}`, `[]`, `x`, `{"log":"a\n"`, `{"log":"a\n"}x`, `{"log":5}`, `{"stream":"stdout"}`,
		`{"log":"a"`, `{"log":"a",}`, `{"log" "a"}`, `{"log":"a\\\"}`,
		`{"log":"a","attrs":{"x":}`, `{"log":"tor{"log":"b\n"}`, `{log:"a"}`, `{"log":}`, `{"log":"x","n":*}`,
		`{"stream":"stdout","time":"yesterday"}`, `{"time":"2026-11-24T23:08:00Z"}`,
		`{"stream":"stdout","time":"2026-11-24T23:08:00Z","msg":"a log of a program"}`,
	} {
		data := []byte(in)
		var record dockerRecord
		var times timeParser
		if record.parse(data, &times) {
			t.Errorf("%s was taken as %q", in, record.log)
		}
		if string(data) != in {
			t.Errorf("%s became %s", in, data)
		}
	}
}

// TestTimesAreReadAsTheLibraryReadsThem: times within the range of int64 nanoseconds are parsed as time.Parse
// parses them, all others as 0.
func TestTimesAreReadAsTheLibraryReadsThem(t *testing.T) {
	var times timeParser
	for _, in := range []string{
		"2026-11-24T23:08:00Z", "2026-11-24T23:08:00.1Z", "2026-11-24T23:08:00.123456789Z",
		"1970-01-01T00:00:00.000000001Z", "2024-02-29T12:00:00+05:30", "2000-03-01T00:00:00-11:59", "1969-12-31T23:59:59Z",
		"1900-03-01T01:02:03Z", "2261-12-31T00:00:00Z", "1678-01-01T00:00:00Z",
	} {
		want, err := time.Parse(time.RFC3339Nano, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := times.parse([]byte(in)); got != want.UnixNano() {
			t.Errorf("%s: %d, want %d", in, got, want.UnixNano())
		}
	}
	for _, in := range []string{
		"", "2026-11-24", "2026-11-24T23:08:00", "2026-13-24T23:08:00Z", "2026-11-24T25:08:00Z",
		"2026-11-24T23:08:00.Zx", "9999-01-01T00:00:00Z", "x026-11-24T23:08:00Z",
		"2026-11-24T23:08:00+24:00", "2026-11-24T23:08:00+05:60", "2026-11-24T23:08:00*05:30", "2026-11-24T23:08:00+05.30",
		"2026-11-24T23:08:00+05:300", "2026-11-24T23:08:00+0530",
	} {
		if got := times.parse([]byte(in)); got != 0 {
			t.Errorf("%s: %d", in, got)
		}
	}
	// Every day of four hundred years, as a date.
	for day := time.Date(1800, 1, 1, 0, 0, 0, 0, time.UTC); day.Year() < 2200; day = day.AddDate(0, 0, 1) {
		if got := times.parse(day.AppendFormat(nil, time.RFC3339)); got != day.UnixNano() {
			t.Fatalf("%s: %d", day, got)
		}
	}
}

// FuzzRecord compares the parser with encoding/json: a record that encoding/json reads must be read with the
// same values.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{
		`{"log":"hello\n","stream":"stdout","time":"2026-11-24T23:08:00.123456789Z"}`,
		`{"log":"\u003c\ud83d\ude00\ufffd\\","stream":"stderr","attrs":{"a":["}",{}]},"time":"2026-11-24T23:08:00Z"}`,
		`{"log":"\ud83d"}`, `{"log":"a","log":"b"}`, ` {"x":1e5,"log":"q"} `, `{"attrs":{"a":"\\"},"log":""}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			data := bytes.Clone(in)
			var record dockerRecord
			var times timeParser
			ok := record.parse(data, &times)
			if !ok && !bytes.Equal(data, in) {
				t.Fatalf("%q is no record, but became %q", in, data)
			}
			if ok && record.raw > len(in) {
				t.Fatalf("raw %d of %d bytes", record.raw, len(in))
			}
			var want oracle
			if !utf8.Valid(in) || json.Unmarshal(in, &want) != nil || want.Log == nil || exotic(in) {
				return
			}
			if !ok {
				t.Fatalf("%q is a record", in)
			}
			log, newline := strings.CutSuffix(*want.Log, "\n")
			if string(record.log) != log || record.newline != newline {
				t.Fatalf("%q: %q %v, want %q %v", in, record.log, record.newline, log, newline)
			}
			at, err := time.Parse(time.RFC3339Nano, want.Time)
			inRange := dockerTime.MatchString(want.Time) && at.Year() > 1680 && at.Year() < 2260
			if err == nil && (record.time != 0 || inRange) && record.time != at.UnixNano() {
				t.Fatalf("%q: time %d, want %d", in, record.time, at.UnixNano())
			}
		})
	})
}

// dockerTime matches times as dockerd writes them. time.Parse accepts others, too.
var dockerTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$`)

// exotic reports whether encoding/json treats a record differently on purpose: keys with other case or with
// escapes, repeated keys, null.
func exotic(in []byte) bool {
	if bytes.Contains(in, []byte(`null`)) {
		return true
	}
	lower := bytes.ToLower(in)
	if bytes.Count(lower, []byte(`log"`)) != 1 || bytes.Count(in, []byte(`"log"`)) != 1 {
		return true
	}
	for _, key := range []string{"stream", "time", "attrs"} {
		if bytes.Count(lower, []byte(key)) > 1 || bytes.Count(lower, []byte(key)) != bytes.Count(in, []byte(key)) {
			return true
		}
	}
	// An escape in a key, or a letter that folds to one of the known keys.
	var members map[string]json.RawMessage
	if json.Unmarshal(in, &members) != nil {
		return true
	}
	for key := range members {
		if strings.EqualFold(key, "log") && key != "log" || !bytes.Contains(in, []byte(`"`+key+`"`)) {
			return true
		}
	}
	return members["log"] == nil || members["log"][0] != '"'
}

// BenchmarkParse measures the parser alone, with lines of about 200 bytes as containers write them.
func BenchmarkParse(b *testing.B) {
	var record dockerRecord
	var times timeParser
	buf := make([]byte, 4096)
	size := 0
	for _, text := range logstest.BenchRecords {
		size += len(text) + 1
	}
	b.SetBytes(int64(size / len(logstest.BenchRecords)))
	b.ReportAllocs()
	defer logstest.ReportCPU(b)()
	for i := 0; b.Loop(); i++ {
		text := logstest.BenchRecords[i%len(logstest.BenchRecords)]
		if !record.parse(buf[:copy(buf, text)], &times) {
			b.Fatal("no record")
		}
	}
}
