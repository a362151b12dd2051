package redis

import (
	"strings"
	"testing"

	"tidegate/protocols"
)

// TestWordsOfALineAreThoseOfSdssplitargs: escapes count in double quotes, \' in single ones, and neither elsewhere.
func TestWordsOfALineAreThoseOfSdssplitargs(t *testing.T) {
	check := func(line string, want ...string) {
		t.Helper()
		var got []string
		for rest := []byte(line); len(rest) > 0; {
			var word []byte
			if word, rest = nextWord(rest, nil); word == nil {
				break
			}
			got = append(got, string(word))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") || len(got) != len(want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	check("")
	check(" \t\r\n\v\f\x00")
	check("a", "a")
	check(" a\tb\rc\x00d  e ", "a", "b", "c", "d", "e")
	check(`"a b" 'c d'`, "a b", "c d")
	check(`"" ''`, "", "")
	check(`"\n\r\t\b\a\"\\\q"`, "\n\r\t\b\a\"\\q")
	check(`'\n\'x\\'`, `\n'x\'`)
	check(`"\x41\xfF\x4g\xg4\x4"`, "A\xffx4gxg4x4")
	check(`'\x41'`, `\x41`)
	check(`\x41 a\n`, `\x41`, `a\n`)
	check(`"a'b" 'a"b'`, `a'b`, `a"b`)
	check(`"\`, `\`)
	check(`"open b`, "open b")
	if word, _ := nextWord([]byte(`"" x`), nil); word == nil {
		t.Error("an empty word is none")
	}
	for c, want := range map[byte]int{'0': 0, '9': 9, 'a': 10, 'f': 15, 'A': 10, 'F': 15} {
		if got := hexDigit(c); got != want {
			t.Errorf("%c is %d", c, got)
		}
	}
	for _, c := range []byte("/:@G`g \x00\xff") {
		if hexDigit(c) >= 0 {
			t.Errorf("%q is a digit", c)
		}
	}
}

// TestNumbersAreDecimal, of at most 18 digits.
func TestNumbersAreDecimal(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "7": 7, "-12": -12, "007": 7, "999999999999999999": 999999999999999999, "-999999999999999999": -999999999999999999,
	} {
		if got, ok := integer([]byte(text)); !ok || got != want {
			t.Errorf("%s: %d, %t", text, got, ok)
		}
	}
	for _, text := range []string{"", "-", "+1", "1a", "a1", " 1", "1 ", "--1", "1/", "1:", "1000000000000000000"} {
		if _, ok := integer([]byte(text)); ok {
			t.Errorf("%q is a number", text)
		}
	}
}

// TestFrontsOfCommandsAreRecognised: an array is certain with a name in it, a line never by itself.
func TestFrontsOfCommandsAreRecognised(t *testing.T) {
	check := func(dir protocols.Dir, text string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(text)); got != want {
			t.Errorf("%.60q: %d, want %d", text, got, want)
		}
	}
	const yes, more, no = protocols.Yes, protocols.More, protocols.No
	client := protocols.Client
	get := "*2\r\n$3\r\nGET\r\n"
	for size := range len(get) {
		check(client, get[:size], more)
	}
	check(client, get, yes)
	check(client, "*2\r\n$3\r\nfoo\r\n", yes)
	check(client, "*2\r\n$3\r\nGETxy", yes) // the server does not look at the line break behind a string
	check(client, "*2\r\n$3\r\nfooxy", no)
	check(client, "*2\r\n$3\r\nG T\r\n", no)
	check(client, "*2\r\n$65\r\n", no)
	check(client, "*2\r\n$64\r\n", more)
	check(client, "*2\r\n$0\r\n", no)
	check(client, "*2\r\n:3\r\n", no)
	check(client, "*x\r\n", no)
	check(client, "*2\n", no)
	check(client, "*2\rx$3\r\nGET\r\n", yes)
	check(client, "*12345678901\r\n", no)
	check(client, "*0\r\n\r\n*-1\r\n"+get, yes)
	check(client, "*0\r\n", more)
	check(client, "*0", more)
	check(client, "*-", more)
	check(client, "*0"+strings.Repeat("0", 20), no)
	check(client, "\r\n", more)
	check(client, "", more)

	check(client, "*00000000000000\r\n"[:14]+"\r\n"+get, yes)
	check(client, "*"+strings.Repeat("0", 15)+"\r\n"+get, no)
	check(client, "*"+strings.Repeat("0", 14), more)
	check(client, "*"+strings.Repeat("0", 15), no)
	check(client, "1", no)
	check(client, "SYNC \r\nSAVE\r\n", yes)
	check(client, "SYNC\r\nnothing\r\n", more)
	check(client, "SYNC\r\nSAVE"+strings.Repeat(" ", longInline), more)
	check(client, `"get`+strings.Repeat(" ", 60)+`"`, no)

	check(client, "GET key", more)
	check(client, "GE", more)
	check(client, "nothing there", no)
	check(client, "GET / HTTP/1.1\r\n", no)
	check(client, "GET a\x01", no)
	check(client, "GET a\tb\v\f\r\n", more)
	check(client, strings.Repeat("A", 20), more)
	check(client, strings.Repeat("A", 21), no)
	check(client, "GET "+strings.Repeat("a", 1<<10), more)
	for _, line := range []string{"SYNC\r\n", "SYNC\n\n", "SYNC\r\nQUIT\r\n", "SYNC\r\nGET a\r\n", "SYNC\r\nSAVE", "PSYNC a b\r\n", "PSYNC ? b\r\n", "PSYNC ?\r\n"} {
		check(client, line, more)
	}
	stream := strings.Repeat("0123456789abcdefABCDEF", 2)[:40]
	for _, line := range []string{"SYNC\r\nSAVE\r\n", "sync\n\nSAVE\n", "PSYNC ? -1\r\n", "PSYNC " + stream + " 1\r\n", "PSYNC a b\r\nSAVE\r\n"} {
		check(client, line, yes)
	}
	for _, id := range []string{stream[1:], stream + "0", "g" + stream[1:], "/" + stream[1:], ":" + stream[1:], "G" + stream[1:]} {
		check(client, "PSYNC "+id+" 1\r\n", more)
	}
	check(client, `"GET" a`, yes)
	check(client, `"get"`+"\n", yes)
	check(client, `"ge`, more)
	check(client, `"nothing" a`, no)
	check(client, "\"ge\x01", no)
	check(client, `"`+strings.Repeat("g", 70), no)

	server := protocols.Server
	for _, text := range []string{
		"+PONG\r\n", "+QUEUED\r\n", "+FULLRESYNC x 1\r\n", "-NOAUTH x\r\n", "-WRONGTYPE x\r\n", "-NOGROUP x\r\n", ":1\r\n", "$3\r\nabc\r\n", "*1\r\n",
		"%1\r\n", "~1\r\n", ">2\r\n", "$-1\r\n", "$EOF:0", "\n$EOF:0", "\n\n$9\r\nREDIS", "-NOMASTERLINK x\r\n", "+OK\r\n:1\r\n", "_\r\n:1\r\n", "#t\r\n+PONG\r\n", "-ERR x\r\n:1\r\n",
	} {
		check(server, text, yes)
	}
	for _, text := range []string{"\n", "\n\n", "$EOF:", "\n$E", "\n\n$9\r\n", "\n$9\r\nRED", "$", "+OK\r\n", "+OK", "-ERR x\r\n", "-ERR\r\n", "_\r\n", "#f\r\n", ",1.5\r\n", "(123\r\n", strings.Repeat("+OK\r\n", 9)} {
		check(server, text, more)
	}
	for _, text := range []string{
		"\nx", "+OK Dovecot ready.\r\n", "-FOO x\r\n", "-NOAUTH\r\n", ":x\r\n", "$x\r\n", "$EOx", "\nx\r\n", "\n*1\r\n", "\n$4\r\nPING\r\n", "\n:1\r\n", "\n+PONG\r\n", "\n$0\r\n", "*a\r\n", "\r\n", "+OK\n", ":1\n", "hello\r\n", "+OK\r\nhello\r\n",
	} {
		check(server, text, no)
	}
}
