package decode

import (
	"testing"
	"time"
)

// TestValuesOfJSONAreScanned: the index behind each, -1 for one that has no end.
func TestValuesOfJSONAreScanned(t *testing.T) {
	check := func(data string, i, want int) {
		t.Helper()
		if got := scanValue([]byte(data), i); got != want {
			t.Errorf("%q at %d: %d, want %d", data, i, got, want)
		}
	}
	check(`"a"x`, 0, 3)
	check(`"a\"b"x`, 0, 6)
	check(`"a\\"x`, 0, 5)
	check(`"a\\\"b"x`, 0, 8)
	check(`""`, 0, 2)
	check(`"a`, 0, -1)
	check(`"a\"`, 0, -1)
	check(`x"a"`, 1, 4)
	check(`-1.5E+3,`, 0, 7)
	check(`true}`, 0, 4)
	check(`09az`, 0, 4)
	check(`F`, 0, -1)
	check(``, 0, -1)
	check(`1`, 1, -1)
	check(`,`, 0, -1)
	check(`{}x`, 0, 2)
	check(`{"a":[1,{"b":"}"}]}x`, 0, 19)
	check(`[[],[]]x`, 0, 7)
	check(`[[]`, 0, -1)
	check(`{"a`, 0, -1)
	check(`{`, 0, -1)

	for i, want := range []int{4, 4, 4, 4, 4, 5} {
		if got := skipSpace([]byte(" \t\r\nx"), i); got != want {
			t.Errorf("space at %d ends at %d, want %d", i, got, want)
		}
	}
	for c := range 256 {
		want := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
		if isWordByte(byte(c)) != want {
			t.Errorf("%q is in a word: %t", rune(c), !want)
		}
	}
}

// TestEscapesAreResolvedInPlace, and those of bytes that are not UTF-8 are counted.
func TestEscapesAreResolvedInPlace(t *testing.T) {
	check := func(in, want string, wantInvalid int) {
		t.Helper()
		for i, c := range in {
			if c == '\\' {
				out, invalid := unescape([]byte(in), i)
				if string(out) != want || invalid != wantInvalid {
					t.Errorf("%s: %q, %d, want %q, %d", in, out, invalid, want, wantInvalid)
				}
				return
			}
		}
	}
	check(`\n\t\r\b\f\"\\\/`, "\n\t\r\b\f\"\\/", 0)
	check(`ab\ncd\nef`, "ab\ncd\nef", 0)
	check(`\n\n`, "\n\n", 0)
	check(`a\x`, `a\x`, 0)
	check(`a\xb\n`, "a\\xb\n", 0)
	check(`ab\`, `ab\`, 0)
	check(`a\nb\`, "a\nb\\", 0)
	check(`\u0041\u00e9\u20AC\uD83D\uDE00x`, "Aé€😀x", 0)
	check(`\u20ac\u20AC\u2ab9\uFFfE`, "€€\u2ab9\ufffe", 0)
	check(`\ufffdx\ufffd`, "\ufffdx\ufffd", 2)
	check(`\ud83dx`, "\ufffdx", 1)
	check(`\ud83d\u0041`, "\ufffdA", 1)
	check(`\udE00\ud83d`, "\ufffd\ufffd", 2)
	check(`\u004`, `\u004`, 0)
	check(`\u004g\n`, "\\u004g\n", 0)
	check(`\u00/0\u00:0\u00@0\u00G0\u00`+"`0"+`\u00g0`, `\u00/0\u00:0\u00@0\u00G0\u00`+"`0"+`\u00g0`, 0)
}

// TestBoundsOfTimes: each part at its last value and behind it.
func TestBoundsOfTimes(t *testing.T) {
	var times timeParser
	check := func(text string, ok bool) {
		t.Helper()
		got := times.parse([]byte(text))
		var want int64
		if ok {
			at, err := time.Parse(time.RFC3339Nano, text)
			if err != nil {
				t.Fatal(err)
			}
			want = at.UnixNano()
		}
		if got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
	check("2026-11-28T23:59:59.999999999Z", true)
	check("2026-11-28T23:59:59.1Z", true)
	check("2026-11-28T24:00:00Z", false)
	check("2026-11-28T00:60:00Z", false)
	check("2026-11-28T00:00:61Z", false)
	check("2026-11-28 00:00:00Z", false)
	check("2026-11-28T00-00:00Z", false)
	check("2026-11-28T00:00-00Z", false)
	check("2026-11-28T00:00:00", false)
	check("2026-11-28T00:00:00ZZ", false)
	check("2026-11-28T00:00:00+23:59", true)
	check("2026-11-28T00:00:00-23:59", true)
	check("2026-11-28T00:00:00+24:00", false)
	check("2026-11-28T00:00:00+00:60", false)
	check("2026-11-28T00:00:00*01:00", false)
	check("2026-11-28T00:00:00+01-00", false)
	check("2026-11-28T00:00:00+01:0", false)
	check("2026-11-28T00:00:00+1:000", false)
	check("2026-12-31T00:00:00Z", true)
	check("2026-01-01T00:00:00Z", true)
	check("2024-02-29T00:00:00Z", true)
	check("2000-02-29T00:00:00Z", true)
	check("2100-03-01T00:00:00Z", true)
	check("2000-03-01T00:00:00Z", true)
	check("2024-03-01T00:00:00Z", true)
	check("1970-01-01T00:00:01Z", true)
	check("1969-12-31T23:59:59Z", true)
	check("2026-00-01T00:00:00Z", false)
	check("2026-13-01T00:00:00Z", false)
	check("2026-01-00T00:00:00Z", false)
	check("2026-01-32T00:00:00Z", false)
	check("1678-01-01T00:00:00Z", true)
	check("1677-12-31T00:00:00Z", false)
	check("2261-12-31T00:00:00Z", true)
	check("2262-01-01T00:00:00Z", false)
	check("2026/01-01T00:00:00Z", false)
	check("2026-01/01T00:00:00Z", false)
	check("x026-01-01T00:00:00Z", false)
	check("20x6-01-01T00:00:00Z", false)
	if got, want := times.parse([]byte("2026-11-28t10:00:00z")), times.parse([]byte("2026-11-28T10:00:00Z")); got != want || got == 0 {
		t.Errorf("small letters: %d, want %d", got, want)
	}
	if got, want := times.parse([]byte("2016-12-31T23:59:60Z")), times.parse([]byte("2017-01-01T00:00:00Z")); got != want {
		t.Errorf("a leap second: %d, want %d", got, want)
	}
	if got, want := times.parse([]byte("2026-11-28T10:00:00.1234567899Z")), times.parse([]byte("2026-11-28T10:00:00.123456789Z")); got != want {
		t.Errorf("ten digits: %d, want %d", got, want)
	}

	// The date that is kept is that of the whole date.
	for _, date := range []string{"2026-11-28", "2026-11-29", "2026-11-18", "2026-12-28", "2027-11-28", "2026-11-28"} {
		check(date+"T10:00:00Z", true)
	}
	for text, want := range map[string]uint{"00": 0, "09": 9, "90": 90, "99": 99, "/0": 100, ":0": 100, "0/": 100, "0:": 100} {
		if got := twoDigits([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

// TestControlCharactersAreNoText but line ends, tabs and ESC; the end may cut a character.
func TestControlCharactersAreNoText(t *testing.T) {
	check := func(data string, want bool) {
		t.Helper()
		if got := isText([]byte(data)); got != want {
			t.Errorf("%q is text: %t", data, got)
		}
	}
	for c := range rune(0x80) {
		check("a"+string(c)+"b", c >= ' ' && c != 0x7f || c == '\n' || c == '\r' || c == '\t' || c == 0x1b)
	}
	check("", false)
	check("é€😀\ufffd", true)
	check("a€"[:2], true)
	check("a€"[:3], true)
	check("a😀"[:4], true)
	check("a\x80", false)
	check("a\xf0b", false)
	check("a\xff", false)
	check("a\x80b", false)
	for stream, want := range map[Stream]string{NoStream: "", Stdout: "stdout", Stderr: "stderr", NumStreams: ""} {
		if got := stream.String(); got != want {
			t.Errorf("stream %d: %q", stream, got)
		}
	}
}
