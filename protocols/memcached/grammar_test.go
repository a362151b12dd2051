package memcached

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// keysOf returns the keys of a command.
func keysOf(cmd *command) (keys []string) {
	for key, rest := cmd.nextKey(cmd.keys); len(key) > 0; key, rest = cmd.nextKey(rest) {
		keys = append(keys, string(key))
	}
	return keys
}

// TestCommandsHaveTheWordsOfTheSpecification: protocol.txt. A server answers any other line with an error.
func TestCommandsHaveTheWordsOfTheSpecification(t *testing.T) {
	check := func(line string, ok bool, flags commandFlags, valueBytes uint64, keys ...string) {
		t.Helper()
		cmd, got := parseCommand([]byte(line))
		if got != ok {
			t.Errorf("%q is a command: %t", line, got)
		}
		if ok && (cmd.flags != flags || cmd.valueBytes != valueBytes || !slices.Equal(keysOf(&cmd), keys)) {
			t.Errorf("%q: flags %b, %d bytes, keys %q", line, cmd.flags, cmd.valueBytes, keysOf(&cmd))
		}
	}
	for _, name := range []string{"set", "add", "replace", "append", "prepend"} {
		check(name+" k 0 0", false, 0, 0)
		check(name+" k 0 0 5", true, hasData, 5, "k")
		check(name+" k 0 0 5 noreply", true, hasData|noReply, 5, "k")
		check(name+" k 0 0 5 other", true, hasData, 5, "k")
		check(name+" k 0 0 5 other noreply", false, 0, 0)
		check(name+" k x 0 5", false, 0, 0)
		check(name+" k 0 x 5", false, 0, 0)
		check(name+" k 0 0 x", false, 0, 0)
		check(name+" k 4294967295 -1 5", true, hasData, 5, "k")
		check(name+" k +1 +1 +5", true, hasData, 5, "k")
		check(name+" k -1 0 5", false, 0, 0)
		check(name+" k 0 +-1 5", false, 0, 0)
		check(name+" k 0 -+1 5", false, 0, 0)
		check(name+" k 0 0 -5", false, 0, 0)
		check(name+" k 18446744073709551615 9223372036854775807 2147483645", true, hasData, maxStore, "k")
		check(name+" k 18446744073709551616 0 5", false, 0, 0)
		check(name+" k 0 9223372036854775808 5", false, 0, 0)
		check(name+" k 0 0 2147483646", false, 0, 0)
		check(name+" k 000000000000000000000000007 -00000000000000000000000007 000000000000000000000000005", true, hasData, 5, "k")
	}
	check("cas k 0 0 5 9", true, hasData, 5, "k")
	check("cas k 0 0 5", false, 0, 0)
	check("cas k 0 0 5 x", false, 0, 0)
	check("cas k 0 0 5 +9 noreply", true, hasData|noReply, 5, "k")
	check("cas k 0 0 5 9 x y", false, 0, 0)
	check("get", false, 0, 0)
	check("get a", true, retrieves, 0, "a")
	check("get  a   b ", true, retrieves, 0, "a", "b")
	check("gets noreply", true, retrieves, 0, "noreply")
	check("gat 60", false, 0, 0)
	check("gat 60 a b", true, retrieves, 0, "a", "b")
	check("gats 60 a", true, retrieves, 0, "a")
	for _, name := range []string{"incr", "decr", "touch"} {
		check(name+" k", false, 0, 0)
		check(name+" k 1", true, 0, 0, "k")
		check(name+" k 1 noreply", true, noReply, 0, "k")
		check(name+" k 1 2 3", false, 0, 0)
	}
	check("delete", false, 0, 0)
	check("delete k", true, 0, 0, "k")
	check("delete k noreply", true, noReply, 0, "k")
	check("delete noreply", true, 0, 0, "noreply")
	check("delete k 0 noreply", true, noReply, 0, "k")
	check("delete k 0 1 2", false, 0, 0)
	check("flush_all", true, 0, 0)
	check("flush_all 1 noreply", true, noReply, 0)
	check("flush_all noreply", true, noReply, 0)
	check("flush_all 1 2 noreply", true, noReply, 0)
	check("flush_all 1 2 3", false, 0, 0)
	check("version", true, 0, 0)
	check("version 1", false, 0, 0)
	check("quit", true, noReply, 0)
	check("watch fetchers", true, endsDialogue, 0)
	check("stats", true, 0, 0)
	check("slabs", false, 0, 0)
	check("mg k", true, retrieves, 0, "k")
	check("mg k q", true, retrieves|quiet, 0, "k")
	check("mg q", true, retrieves, 0, "q")
	check("mg k noreply", true, retrieves, 0, "k")
	check("mg k qq", true, retrieves, 0, "k")
	check("ms k 5 q", true, hasData|quiet, 5, "k")
	check("ms k 5", true, hasData, 5, "k")
	check("ms k", false, 0, 0)
	check("ms k q", false, 0, 0)
	check("mn", true, endsQuiet, 0)
	check("mn x", false, 0, 0)
	check(" get a", true, retrieves, 0, "a")
	check("   get   a b", true, retrieves, 0, "a", "b")
	check("\tget a", false, 0, 0)
	check(" set a 0 0 5", true, hasData, 5, "a")
	check("  ", false, 0, 0)
	check("GET a", false, 0, 0)
	check("cache_memlimit 1", true, 0, 0)
	check("cache_memlimitx 1", false, 0, 0)
	check("", false, 0, 0)
	check("get "+strings.Repeat("k", maxKey), true, retrieves, 0, strings.Repeat("k", maxKey))
	check("get a "+strings.Repeat("k", maxKey+1), false, 0, 0)

	name := func(line, want string, malformed bool) {
		t.Helper()
		cmd, _ := parseCommand([]byte(line))
		if malformed {
			cmd = malformedCommand([]byte(line))
		}
		if string(cmd.name) != want {
			t.Errorf("%q: %q, want %q", line, cmd.name, want)
		}
	}
	name("stats items 1", "stats items", false)
	name("stats", "stats", false)
	name("slabs automove 1", "slabs automove", false)
	name("mg items", "mg", false)
	name("nonsense a b", "nonsense", true)
	name(strings.Repeat("n", 28)+" a", strings.Repeat("n", 28), true)
	name(strings.Repeat("n", 29)+" a", "", true)
}

// TestNumbersAreThoseOfStrtoul, without a sign.
func TestNumbersAreThoseOfStrtoul(t *testing.T) {
	check := func(word string, limit, want uint64, ok bool) {
		t.Helper()
		if got, isNumber := number([]byte(word), limit); isNumber != ok || ok && got != want {
			t.Errorf("%q up to %d: %d, %t", word, limit, got, isNumber)
		}
	}
	check("0", 0, 0, true)
	check("18446744073709551615", 0, math.MaxUint64, true)
	check("18446744073709551616", 0, 0, false)
	check("7", 7, 7, true)
	check("8", 7, 0, false)
	check("", 0, 0, false)
	check("+1", 0, 0, false)
	check("-1", 0, 0, false)
	check("1x", 0, 0, false)
	check("00000000000000000001", 0, 1, true)
	check("000000000000000000001", 0, 0, false)
	for text, want := range map[string]string{"": "", "0": "0", "00": "0", "007": "7", "70": "70"} {
		if got := string(withoutZeros([]byte(text))); got != want {
			t.Errorf("%q without zeros is %q", text, got)
		}
	}
	for c := range 256 {
		if got, want := printable([]byte{'a', byte(c)}), c >= 0x20 && c != 0x7f; got != want {
			t.Errorf("%#x is printable: %t", c, got)
		}
	}
}

// TestRepliesHaveTheWordsOfTheSpecification.
func TestRepliesHaveTheWordsOfTheSpecification(t *testing.T) {
	type reply struct {
		status                         string
		last, hasData, isErr, distinct bool
		bytes                          uint64
	}
	check := func(line string, ok bool, want reply) {
		t.Helper()
		got, isReply := parseReplyLine([]byte(line))
		if isReply != ok {
			t.Errorf("%q is a reply: %t", line, isReply)
		}
		if found := (reply{string(got.status), got.last, got.hasData, got.isError, got.distinct, got.valueBytes}); ok && found != want {
			t.Errorf("%q: %+v, want %+v", line, found, want)
		}
	}
	none := reply{}
	check("VALUE k 0 5", true, reply{"VALUE", false, true, false, true, 5})
	check("VALUE k 0 5 77", true, reply{"VALUE", false, true, false, true, 5})
	check("VALUE k 0", false, none)
	check("VALUE k 0 x", false, none)
	check(fmt.Sprintf("VALUE k 0 %d", maxValue), true, reply{"VALUE", false, true, false, true, maxValue})
	check(fmt.Sprintf("VALUE k 0 %d", maxValue+1), false, none)
	check("VA 5 f0", true, reply{"VA", true, true, false, true, 5})
	check("VA", false, none)
	check("STAT pid 1", true, reply{"STAT", false, false, false, true, 0})
	check("STAT", false, none)
	check("ITEM k [1 b; 0 s]", true, reply{"ITEM", false, false, false, true, 0})
	for _, word := range []string{"STORED", "NOT_STORED", "END", "EN", "MN", "NS", "VERSION"} {
		check(word, true, reply{word, true, false, false, true, 0})
	}
	for _, word := range []string{"EXISTS", "NOT_FOUND", "DELETED", "TOUCHED", "OK", "RESET", "HD", "EX", "NF", "ME", "BUSY", "BADCLASS", "NOSPARE", "NOTFULL", "UNSAFE", "SAME"} {
		check(word+" x", true, reply{word, true, false, false, false, 0})
	}
	check("ERROR", true, reply{"ERROR", true, false, true, false, 0})
	check("CLIENT_ERROR bad", true, reply{"CLIENT_ERROR", true, false, true, true, 0})
	check("SERVER_ERROR bad", true, reply{"SERVER_ERROR", true, false, true, true, 0})
	check("42", true, reply{"VALUE", true, false, false, false, 0})
	check("42   ", true, reply{"VALUE", true, false, false, false, 0})
	check("42 x", false, none)
	check("key=k exp=-1", true, reply{"key=k", false, false, false, false, 0})
	check("kex", false, none)
	check("", false, none)
	check(" STORED", false, none)
	check("STORED\x01", false, none)
	for line, want := range map[string]string{"ERROR": "ERROR", "ERROR x": "ERROR x", "CLIENT_ERROR bad line": "bad line"} {
		if got, _ := parseReplyLine([]byte(line)); string(got.text) != want {
			t.Errorf("%q has the text %q", line, got.text)
		}
	}
}

// TestFrontOfALineMayBecomeOne of a command, or of a reply.
func TestFrontOfALineMayBecomeOne(t *testing.T) {
	check := func(dir protocols.Dir, data string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(data)); got != want {
			t.Errorf("%d %.40q: %d, want %d", dir, data, got, want)
		}
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	check(protocols.Client, "", more)
	check(protocols.Client, "g", more)
	check(protocols.Client, "get", more)
	check(protocols.Client, "getx", no)
	check(protocols.Client, "get k", more)
	check(protocols.Client, "ge k", no)
	check(protocols.Client, "version\r", more)
	check(protocols.Client, "get k\r", more)
	check(protocols.Client, "get\x01", no)
	check(protocols.Client, "get "+strings.Repeat("k", maxLine-5), more)
	check(protocols.Client, "get "+strings.Repeat("k", maxLine-4), no)
	check(protocols.Client, "get k\r\n", more)
	check(protocols.Client, "gets k\r\n", yes)
	check(protocols.Client, "gets k HTTP/1.1\r\n", no)
	check(protocols.Client, "gets k\x01\r\n", no)
	check(protocols.Server, "", more)
	check(protocols.Server, "S", more)
	check(protocols.Server, "STORED", more)
	check(protocols.Server, "STOREDx", no)
	check(protocols.Server, "STORED x", more)
	check(protocols.Server, "STORE x", no)
	check(protocols.Server, " ", no)
	check(protocols.Server, "42", more)
	check(protocols.Server, "k", more)
	check(protocols.Server, "key=", more)
	check(protocols.Server, "key=k e", more)
	check(protocols.Server, "key", more)
	check(protocols.Server, "key k", no)
	check(protocols.Server, "OK\r", more)
	check(protocols.Server, "STORED\r\n", yes)
	check(protocols.Server, "STORED\n", no)
	check(protocols.Server, "OK\r\n", more)
	check(protocols.Server, "what\r\n", no)

	// The binary protocol, RFC-like protocol_binary.txt: magic, opcode, key length, extras length, type of data, body length.
	header := func(magic, opcode byte, key uint16, extras, typ byte, body uint32) string {
		return string([]byte{magic, opcode, byte(key >> 8), byte(key), extras, typ, 0, 0, byte(body >> 24), byte(body >> 16), byte(body >> 8), byte(body)}) +
			strings.Repeat("\x00", 12)
	}
	whole := header(0x80, 0x3c, 3, 4, 0, 7)
	for size := 1; size < binaryHeader; size++ {
		check(protocols.Client, whole[:size], more)
	}
	check(protocols.Client, whole, yes)
	check(protocols.Server, whole, no)
	check(protocols.Server, "\x81"+whole[1:], yes)
	check(protocols.Client, header(0x80, 0x3d, 3, 4, 0, 7)[:2], no)
	check(protocols.Client, header(0x80, 1, 3, 4, 1, 7)[:6], no)
	check(protocols.Client, header(0x80, 1, 3, 4, 0, 6), no)
	check(protocols.Client, header(0x80, 1, 3, 4, 0, maxStore), yes)
	check(protocols.Client, header(0x80, 1, 3, 4, 0, maxStore+1), no)

	sync := func(dir protocols.Dir, data string, skip int, want protocols.Match) {
		t.Helper()
		if got, match := resync(dir, []byte(data)); got != skip || match != want {
			t.Errorf("%d %q: %d, %d; want %d, %d", dir, data, got, match, skip, want)
		}
	}
	sync(protocols.Client, "get k\r\n", 0, yes)
	sync(protocols.Client, "junk\r\nget k\r\n", 6, yes)
	sync(protocols.Client, "junk\r\nget k\x01\r\nget", 14, more)
	sync(protocols.Client, "junk\r\nxyz", 9, no)
	sync(protocols.Client, "", 0, no)
	sync(protocols.Server, "STORED\r\n", 0, yes)
	sync(protocols.Server, "ST", 0, yes)
	sync(protocols.Server, "junk\r\nSTORED\r\n", 14, no)
	sync(protocols.Server, "junk\r\n", 6, no)
}

// TestFirstTwoBytesShowMostLinesThatAreNoCommands.
func TestFirstTwoBytesShowMostLinesThatAreNoCommands(t *testing.T) {
	for name := range commands {
		if !mayBeCommand([]byte(name)) || !mayBeCommand([]byte(name[:1])) || !mayBeCommand([]byte(name[:2])) {
			t.Errorf("%s is none", name)
		}
	}
	for _, text := range []string{"xy", "x", "gz", "g ", "g{", "g`", "sz", "G", "\xff"} {
		if mayBeCommand([]byte(text)) {
			t.Errorf("%q may be one", text)
		}
	}
}

// TestKeysOfWaitingCommandsAreHeld up to their bounds, and released with their replies.
func TestKeysOfWaitingCommandsAreHeld(t *testing.T) {
	p := &parser{}
	protocol := Protocol
	protocol.New = func() protocols.Parser { return p }
	var events []*pipeline.Event
	set := protocols.NewSet([]protocols.Protocol{protocol}, protocols.Default(), nil)
	conn := set.Open(protocols.Info{}, func(event *pipeline.Event) { events = append(events, event) })
	at := int64(0)
	send := func(dir protocols.Dir, text string) {
		at++
		conn.Data(dir, []byte(text), at)
	}
	held := func(what string, waiting, keys int) {
		t.Helper()
		if got, want := p.Held(), waiting*protocols.EventBytes+keys; got != want {
			t.Errorf("%s: %d bytes are held, want %d", what, got, want)
		}
	}
	send(protocols.Client, "gets abc\r\n")
	held("one command", 1, 3)
	send(protocols.Server, "END\r\n")
	held("its reply", 0, 0)
	many := "gets"
	for i := range maxKeys {
		many += fmt.Sprintf(" %c", 'a'+i)
	}
	send(protocols.Client, many+"\r\n")
	held("as many keys as are kept", 1, maxKeys)
	send(protocols.Client, many+" last\r\n")
	held("more: the last one is kept", 2, maxKeys+maxKeys-1+4)
	send(protocols.Server, "END\r\nEND\r\n")
	held("two replies", 0, 0)
	if last := events[len(events)-1].Memcached; last.KeysCount != maxKeys+1 || last.Keys[maxKeys-1] != "last" || last.Misses != maxKeys+1 {
		t.Errorf("%v", last)
	}
	for range maxWaiting {
		send(protocols.Client, "gets k\r\n")
	}
	held("as many commands as may wait", maxWaiting, maxWaiting)
	before := len(events)
	send(protocols.Client, "gets k\r\n")
	if held("one more", maxWaiting, maxWaiting); len(events) != before+1 || !events[before].Partial {
		t.Errorf("%d events for the oldest command", len(events)-before)
	}
	send(protocols.Server, "END\r\n") // to the evicted one
	held("the reply to the evicted one", maxWaiting, maxWaiting)
	send(protocols.Server, "END\r\n")
	held("the reply to the next one", maxWaiting-1, maxWaiting-1)
	conn.Gap(protocols.Server, 9, at)
	send(protocols.Client, "gets next\r\n")
	held("replies were lost", 1, 4)
	if before = len(events); !events[before-1].Partial {
		t.Errorf("%v", events[before-1])
	}
	conn.Close(at)
	if len(events) != before+1 || p.conn != nil {
		t.Errorf("%d events at the end", len(events)-before)
	}
}
