package memcached

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// metaStores returns lines of the command ms with data of a size, many of which the server refuses.
func metaStores(size int) (lines []string) {
	for _, flags := range []string{
		"", " I", " T30", " F-1", " bogus", " T1 T1", " MZ", " Tx", " ME", " q", " q bogus", " b", " S9",
		" k O123 c", " Cx", " T", " I I",
		strings.Repeat(" I", 30), strings.Repeat(" O1", 40), " q" + strings.Repeat(" I", 30), " " + strings.Repeat("O", 300),
	} {
		lines = append(lines, fmt.Sprintf("ms k %d%s", size, flags))
	}
	longKey := "ms " + strings.Repeat("k", 300) + " %d"
	for _, form := range []string{"ms k S%d", "ms k +%d", "ms k 0%d", "ms k %dx", longKey, "ms !!! %d b"} {
		lines = append(lines, fmt.Sprintf(form, size))
	}
	return append(lines, "ms k", "ms k -1", "ms", "ms k seven")
}

// TestDataOfRefusedStoresHideNoCommand: whatever a real memcached executes behind a store is told, also if it lies in
// the data that are announced.
func TestDataOfRefusedStoresHideNoCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	first := startServer(t)
	var lines []string
	for _, size := range []int{1, 9, 40, 300} {
		lines = append(lines, metaStores(size)...)
		for _, store := range []string{
			"set k 0 0 %d", "set k 0 0 %d noreply", "set k x 0 %d", "cas k 0 0 %d x", "append k 0 0 %d x", "set k 0 0 %d x y",
		} {
			lines = append(lines, fmt.Sprintf(store, size))
		}
	}
	for i, line := range lines {
		server, err := net.Dial("tcp", first.RemoteAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		text := line + "\r\n"
		for j := range 9 {
			text += fmt.Sprintf("set evil%dx%d 0 0 1\r\n1\r\n", i, j) + strings.Repeat("x", j) + "\r\n"
		}
		text += strings.Repeat("\r\nx", 300) + "\r\n"
		reply := replyTo(t, server, text+"mn\r\n")
		server.Close()
		conversation := protocoltest.Conversation{Port: 11211, Steps: []protocoltest.Step{
			protocoltest.Client(text + "mn\r\n"), protocoltest.Server(reply),
			protocoltest.Client("get last\r\n"), protocoltest.Server("END\r\n"),
		}}
		var keys []string
		for j := range 9 {
			key := fmt.Sprintf("evil%dx%d", i, j)
			if strings.HasPrefix(replyTo(t, first, "get "+key+"\r\nmn\r\n"), "VALUE") {
				keys = append(keys, key)
			}
		}
		checkTold(t, conversation, line, keys...)
	}
}

// checkTold checks that a set of each key is told, however the bytes are cut.
func checkTold(t *testing.T, conversation protocoltest.Conversation, name string, keys ...string) {
	t.Helper()
	for _, cut := range []protocoltest.Conversation{conversation, conversation.Cut(1), conversation.Cut(7)} {
		told := map[string]bool{}
		set := protocols.NewSet(list, protocols.Default(), nil)
		cut.Emit(set, func(event *pipeline.Event) {
			if event.Memcached.Command == "set" {
				told[event.Memcached.Key] = true
			}
		})
		for _, key := range keys {
			if !told[key] {
				t.Errorf("%.80q: the server has set %s; told are %v", name, key, told)
			}
		}
	}
}

func TestCommandsInRefusedDataAreAmbiguous(t *testing.T) {
	tagged := func(steps ...string) (all []string) {
		conversation := protocoltest.Conversation{Port: 11211}
		for _, step := range steps {
			dir := protocols.Dir(strings.Index("><", step[:1]))
			conversation.Steps = append(conversation.Steps, protocoltest.Step{Dir: dir, Data: []byte(step[1:])})
		}
		conversation.Emit(protocols.NewSet(list, protocols.Default(), nil), func(event *pipeline.Event) {
			all = append(all, fmt.Sprint(short(event), event.Tags))
		})
		return all
	}
	const refused, large = "<CLIENT_ERROR options flags too long\r\n", "<SERVER_ERROR object too large for cache\r\n"
	const store, data, bad = ">ms k 22\r\n", "get a\r\nflush_all\r\nxx\r\n\r\n", " partial[ambiguous]"
	const isRefused, isLarge = "ms k ! options flags too long 22 bytes[]", "ms k ! object too large for cache 22 bytes[]"
	const get, flush, plain = "get a = END 0 hits 1 misses" + bad, "flush_all = OK" + bad, "get b = END 0 hits 1 misses[]"
	same(t, tagged(store+data, refused+"END\r\nOK\r\nERROR\r\n", ">get b\r\n", "<END\r\n"), isRefused, get, flush, plain)
	// The reply comes before the data.
	same(t, tagged(store, refused, ">get a\r\n", "<END\r\n", ">flush_all\r\n", "<OK\r\n"), isRefused, get, flush)
	// A line goes on behind the data.
	same(t, tagged(">ms k 21\r\nflush_all noreply\r\n\r\nget evilkey\r\n", refused+"END\r\n", ">get b\r\n", "<END\r\n"),
		"flush_all, no reply"+bad, strings.Replace(isRefused, "22", "21", 1), "get evilkey, no reply"+bad, "t = END[]", plain)
	// Values that are stored, or skipped since they are too large, are no commands.
	same(t, tagged(store+data, "<HD\r\n"), "ms k = HD 22 bytes[]")
	same(t, tagged(store+data, large, ">get b\r\n", "<END\r\n"), isLarge, plain)
	same(t, tagged(store+data, large, "<END\r\n", "<OK\r\n"), isLarge, get, flush)
}

// TestServerChoosesTheProtocol: a server that was started for the text protocol answers the header of the binary one
// with an error, and reads on. One that chooses by itself answers in the binary protocol.
func TestServerChoosesTheProtocol(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	header := func(opcode, body byte) string {
		front := string([]byte{0x80, opcode, 0, 0, 0, 0, 0, 0, 0, 0, 0, body})
		return front + strings.Repeat("\x00", 12) + strings.Repeat("v", int(body))
	}
	text := startServer(t, "-B", "ascii")
	for i, front := range []string{
		header(10, 0), header(1, 9), header(0x11, 200), header(10, 0) + "\n" + header(7, 0), header(10, 0)[:23],
	} {
		set := fmt.Sprintf("set evil%d 0 0 1\r\n1\r\n", i)
		server, err := net.Dial("tcp", text.RemoteAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		reply := replyTo(t, server, front+"\r\n"+set+"mn\r\n")
		server.Close()
		if !strings.Contains(reply, "STORED") {
			t.Fatalf("%q: %q", front, reply)
		}
		errors := strings.Index(reply, "STORED")
		for _, port := range []uint16{11211, 11222} {
			at := protocoltest.Conversation{Port: port}
			at.Steps = []protocoltest.Step{protocoltest.Client(front + "\r\n" + set + "mn\r\n"), protocoltest.Server(reply)}
			checkTold(t, at, front, fmt.Sprintf("evil%d", i))
			at.Steps = []protocoltest.Step{
				protocoltest.Client(front), protocoltest.Client("\r\n"), protocoltest.Server(reply[:errors]),
				protocoltest.Client(set + "mn\r\n"), protocoltest.Server(reply[errors:]),
			}
			checkTold(t, at, front, fmt.Sprintf("evil%d", i))
		}
	}

	both := startServer(t)
	if _, err := fmt.Fprint(both, header(10, 0)+"version\r\n"); err != nil {
		t.Fatal(err)
	}
	magic, err := bufio.NewReader(both).ReadByte()
	if err != nil || magic != binaryMagic[protocols.Server] {
		t.Errorf("the server answers %q, %v", magic, err)
	}
}
