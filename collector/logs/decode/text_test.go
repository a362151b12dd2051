package decode

import (
	"bytes"
	"testing"
	"time"

	"tidegate/pipeline/lineartest"
)

func TestLinesOfTextAreRecords(t *testing.T) {
	check := func(line, wantText, wantTime string) {
		t.Helper()
		var record Record
		ok := Text.New().Decode([]byte(line), &record)
		if ok != (wantText != "") || string(record.Text) != wantText || ok && (!record.Ends || record.Stream != NoStream) {
			t.Errorf("%q: %v %+v", line, ok, record)
		}
		at := ""
		if record.Time != 0 {
			at = time.Unix(0, record.Time).UTC().Format(time.RFC3339Nano)
		}
		if at != wantTime {
			t.Errorf("%q: time %s, want %s", line, at, wantTime)
		}
	}
	check("hello", "hello", "")
	check("hello\r", "hello", "")
	check("", "", "")
	check(" \t\r", "", "")
	check("a\x00b", "", "")
	check("2026-11-26T12:00:00Z x", "2026-11-26T12:00:00Z x", "2026-11-26T12:00:00Z")
	check("2026-11-26T12:00:00.123456+02:00 x", "2026-11-26T12:00:00.123456+02:00 x", "2026-11-26T10:00:00.123456Z")
	check("[2026-11-26T12:00:00Z] x", "[2026-11-26T12:00:00Z] x", "2026-11-26T12:00:00Z")
	check("2026-11-26T12:00:00Z", "2026-11-26T12:00:00Z", "2026-11-26T12:00:00Z")
	check("2026-11-26T12:00:00,123 x", "2026-11-26T12:00:00,123 x", "") // no zone: its time is not known
	check("2026-11-26 12:00:00 x", "2026-11-26 12:00:00 x", "")
	check("127.0.0.1 - - [26/Nov/2026:12:00:00 +0000]", "127.0.0.1 - - [26/Nov/2026:12:00:00 +0000]", "")
}

func TestFormatsAreDetected(t *testing.T) {
	check := func(head, want string) {
		t.Helper()
		got := ""
		if format, ok := Detect([]byte(head)); ok {
			got = format.Name
		}
		if got != want {
			t.Errorf("%.40q: %q, want %q", head, got, want)
		}
	}
	const docker = `{"log":"x\n","stream":"stdout","time":"2026-11-24T23:08:00Z"}`
	check(docker+"\n", "json-file")
	check("\x00\x00"+docker+"\nx", "json-file")
	check(`{"log":"a first record that is cut`, "json-file")
	check(`{"stream":"stdout","log":"x\n","time":"2026-11-24T23:08:00Z"}`+"\n", "json-file")
	check(`{"level":"info","msg":"x"}`+"\n", "text")
	check("127.0.0.1 - - \"GET /\"\n\x1b[31mred\x1b[0m\tü\n", "text")
	check("caf\xc3", "text") // cut within a character
	check("", "")
	check("\x00\x00", "")
	check("\xd4\xc3\xb2\xa1\x02\x00", "")
	check("\x0a\x0d\x0d\x0a\x1c\x00\x00\x00", "")
	check("\xa7\xa7\xa7\xa7\xa7", "")
}

func FuzzText(f *testing.F) {
	f.Add([]byte("2026-11-26T12:00:00.5Z ERROR: x\r"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			var record Record
			if Text.New().Decode(bytes.Clone(in), &record) && !bytes.HasPrefix(in, record.Text) {
				t.Fatalf("%q became %q", in, record.Text)
			}
			Detect(in)
		})
	})
}
