package redis

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestNamesHaveLetters, digits and the separators of modules, 64 bytes at most.
func TestNamesHaveLetters(t *testing.T) {
	check := func(name string, want bool) {
		t.Helper()
		if got := isName([]byte(name)); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
	for c := range 256 {
		isLetter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		check(string([]byte{byte(c)}), isLetter)
		check("a"+string([]byte{byte(c)}), isLetter || c >= '0' && c <= '9' || strings.IndexByte("._-|", byte(c)) >= 0)
	}
	check("", false)
	check(strings.Repeat("a", 64), true)
	check(strings.Repeat("a", 65), false)
	if !printable([]byte(strings.Repeat(" ~\t\x7f\xff", 50)+strings.Repeat("a", 6)+"\x01")) || printable([]byte(strings.Repeat("a", 255)+"\x01")) {
		t.Error("the first 256 bytes decide whether a text is printable")
	}
}

// TestCutArgumentsAreTold by a tag: those that are too long, those between the first and the last ones, and those beyond what
// all commands that wait may have.
func TestCutArgumentsAreTold(t *testing.T) {
	check := func(what string, kept, count int, cut bool, words ...string) {
		t.Helper()
		p, events := opened(false)
		p.send(t, words...)
		p.Close(1)
		event := (*events)[0]
		if got := slices.Contains(event.Tags, pipeline.TagTruncated); got != cut || len(event.Redis.Args) != kept || int(event.Redis.ArgsCount) != count {
			t.Errorf("%s: cut %t, %d arguments of %d", what, got, len(event.Redis.Args), event.Redis.ArgsCount)
		}
	}
	words := func(count int) []string { return append([]string{"MGET"}, slices.Repeat([]string{"word"}, count)...) }
	check("a short one", 2, 2, false, "SET", "k", strings.Repeat("v", maxArg))
	check("a long one", 2, 2, true, "SET", "k", strings.Repeat("v", maxArg+1))
	check("as many as are kept", maxArgs, maxArgs, false, words(maxArgs)...)
	check("one more", maxArgs, maxArgs+1, true, words(maxArgs+1)...)

	// The settings of a server among many arguments are kept, up to a bound.
	settings := append([]string{"CONFIG", "SET"}, slices.Repeat([]string{"dir", "/tmp"}, 40)...)
	check("many settings", maxArgs+maxSettings, 80, true, settings...)

	p, events := opened(false)
	p.argsBytes = maxArgsBytes
	p.send(t, "GET", "a")
	p.argsBytes = maxArgsBytes + 1
	p.send(t, "GET", "b")
	p.Close(1)
	for i, kept := range []int{1, 0} {
		if event := (*events)[i]; len(event.Redis.Args) != kept || slices.Contains(event.Tags, pipeline.TagTruncated) != (kept == 0) || event.Redis.Key == "" {
			t.Errorf("command %d beside many: %v", i, event)
		}
	}
	p, events = opened(false)
	p.send(t, "CLIENT", strings.Repeat("x", 70))
	p.send(t, strings.Repeat("y", 70))
	p.Close(1)
	if got := (*events)[0].Redis.Command + " " + (*events)[1].Redis.Command; got != "CLIENT "+strings.Repeat("X", 64)+" "+strings.Repeat("Y", 64) {
		t.Errorf("%s", got)
	}
}

// TestBrokenArgumentDoesNotStall: the next command is read.
func TestBrokenArgumentDoesNotStall(t *testing.T) {
	for _, head := range []string{"\r\n", "+4\r\n", "$\r\n", "$x\r\n", "$-1\r\n", "$4294967297\r\n"} {
		same(t, play(false, short, cmd("GET a"), "<:1\r\n", ">*2\r\n$3\r\nGET\r\n", ">"+head, cmd("GET b"), "<:2\r\n"),
			"GET a = 1", "GET = 2 partial", "GET b, no reply partial")
	}
}

// TestGapsOfRepliesAreCounted: bytes that are lost within a string are bytes of the reply. Beyond it the position is lost.
func TestGapsOfRepliesAreCounted(t *testing.T) {
	check := func(size int, known bool) {
		t.Helper()
		p, events := opened(false)
		p.send(t, "GET", "a")
		p.answer(t, "$10\r\nab")
		p.Gap(protocols.Server, size)
		if p.suspended == known {
			t.Fatalf("a gap of %d: the position is known: %t", size, known)
		}
		if !known {
			return
		}
		p.answer(t, strings.Repeat("x", 8-size)+"\r\n")
		if event := (*events)[0]; event.Destination.Bytes != 17 || event.Redis.ReplyBytes != 10 || !event.Partial {
			t.Errorf("a gap of %d: %v", size, event)
		}
	}
	check(1, true)
	check(8, true)
	check(9, false)
	check(100, false)
}
