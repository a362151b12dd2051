package memcached

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"tidegate/protocols/protocoltest"
)

// storeLines returns lines of stores of seven bytes, of which the server refuses some.
func storeLines() (lines []string) {
	numbers := []string{"0", "abc", "+1", "-1", "1x", "0x1", "000000000000000000000000000001", "99999999999", "18446744073709551616", "99999999999999999999999"}
	for _, number := range numbers {
		lines = append(lines, "set k "+number+" 0 7", "set k 0 "+number+" 7", "cas k 0 0 7 "+number, "append k "+number+" "+number+" 7")
	}
	for _, size := range []string{"7", "+7", "007", "0000000000000000000000000007", "-7", "7x", "0x7", "seven"} {
		lines = append(lines, "set k 0 0 "+size, "cas k 0 0 "+size+" 1")
	}
	for _, more := range []string{"", " x", " noreply", " x y", " noreply x", " x noreply"} {
		lines = append(lines, "set k 0 0 7"+more, "add k 0 0 7"+more, "cas k 0 0 7 1"+more)
	}
	for _, key := range []string{"a\x01b", "a\tb", "\x7f", "é", strings.Repeat("k", 250), strings.Repeat("k", 251)} {
		lines = append(lines, "set "+key+" 0 0 7", "set "+key+" x 0 7")
	}
	return append(lines, "set  k  0  0  7", "set k 0 0", "set k", "set", "set k 0 0 2147483646")
}

// TestRefusedStoreSkipsNothing: a real memcached reads on at the next line behind a store that it refuses, and takes
// that line for the data of one that it does not. So does the parser.
func TestRefusedStoreSkipsNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	first := startServer(t)
	for _, line := range storeLines() {
		server, err := net.Dial("tcp", first.RemoteAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		reply := replyTo(t, server, line+"\r\nversion\r\nmn\r\n")
		server.Close()
		steps := []string{">" + line + "\r\nversion\r\nmn\r\n", "<" + reply}
		events := strings.Join(play(false, steps...), "\n")
		if ran := strings.Contains(reply, "VERSION "); ran != strings.Contains(events, "version") {
			t.Errorf("%.80q: the server answers %q; the events are\n%s", line, reply, events)
		}
	}
}

// replyTo sends text and returns the reply up to MN.
func replyTo(t *testing.T, server net.Conn, text string) (reply string) {
	t.Helper()
	if _, err := fmt.Fprint(server, text); err != nil {
		t.Fatal(err)
	}
	_ = server.SetReadDeadline(time.Now().Add(time.Minute))
	for reader := bufio.NewReader(server); !strings.HasSuffix(reply, "MN\r\n"); {
		line, err := reader.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		reply += line
	}
	return reply
}

func TestRefusedStoresAreToldWithWhatFollows(t *testing.T) {
	const bad = "<CLIENT_ERROR bad command line format\r\n"
	for _, line := range []string{"set foo abc 0 1000000", "set foo 0 abc 1000000", "cas foo 0 0 1000000 xyz", "set foo 0 0 -1", "cas foo 0 0 9 -1"} {
		name, _, _ := strings.Cut(line, " ")
		same(t, play(false, ">"+line+"\r\n", bad, ">set evil1 0 0 2\r\nhi\r\n", "<STORED\r\n", ">get evil2\r\n", "<END\r\n"),
			name+" ! bad command line format", "set evil1 = STORED 2 bytes", "get evil2 = END 0 hits 1 misses")
	}
}

func TestAcceptedFormsOfCommands(t *testing.T) {
	check := func(command, reply, want string) {
		t.Helper()
		same(t, play(false, ">get a\r\n", "<END\r\n", ">"+command, "<"+reply), "get a = END 0 hits 1 misses", want)
	}
	check("set evil 0 0 11 x\r\nflush_all 0\r\n", "STORED\r\n", "set evil = STORED 11 bytes")
	check("set evil 0 0 +9\r\nflush_all\r\n", "STORED\r\n", "set evil = STORED 9 bytes")
	check("set evil 0 0 0000000000000000000000000009\r\nflush_all\r\n", "STORED\r\n", "set evil = STORED 9 bytes")
	check("set evil\x01 0 0 11\r\nflush_all 0\r\n", "STORED\r\n", "set evil\x01 = STORED 11 bytes")
	check("get evil\x01b\r\n", "END\r\n", "get evil\x01b = END 0 hits 1 misses")
	check("get evil\tq\r\n", "END\r\n", "get evil\tq = END 0 hits 1 misses")
	check("incr evil 5 zzz\r\n", "6\r\n", "incr evil = VALUE")
	check("delete evil 0 x\r\n", "DELETED\r\n", "delete evil = DELETED")
	check("  get   evil  \r\n", "END\r\n", "get evil = END 0 hits 1 misses")
	check(" set evil 0 0 11\r\nflush_all 0\r\n", "STORED\r\n", "set evil = STORED 11 bytes")
}

// TestKeysBeyondTheBoundAreTold: of many keys the first ones and the last are kept, and the event says so.
func TestKeysBeyondTheBoundAreTold(t *testing.T) {
	conversation := protocoltest.Conversation{Port: 11211, Steps: []protocoltest.Step{
		protocoltest.Client("get " + strings.Repeat("k ", 20) + "evil\r\n"), protocoltest.Server("END\r\n"),
	}}
	events, _ := conversation.Play(list)
	if all := strings.Join(events, "\n"); len(events) != 1 || !strings.Contains(all, `"k" "evil"]`) || !strings.Contains(all, `tags=["truncated"]`) {
		t.Errorf("the events are %s", all)
	}
}

// TestBinaryProtocolIsTold: it is not read, and an event says so, with and without an answer.
func TestBinaryProtocolIsTold(t *testing.T) {
	header := func(magic, opcode, extras, key, body byte) string {
		return string([]byte{magic, opcode, 0, key, extras, 0, 0, 0, 0, 0, 0, body}) + strings.Repeat("\x00", 12)
	}
	set, answer := header(0x80, 1, 8, 3, 12)+strings.Repeat("\x00", 8)+"keyv", header(0x81, 1, 0, 0, 0)
	setQuietly := header(0x80, 0x11, 8, 3, 12) + strings.Repeat("\x00", 8) + "keyv"
	for _, port := range []uint16{11211, 11222} {
		for _, steps := range [][]protocoltest.Step{
			{protocoltest.Client(set), protocoltest.Server(answer)},
			{protocoltest.Client(setQuietly + setQuietly)},
			{protocoltest.Client(header(0x80, 8, 0, 0, 0)), protocoltest.Server(answer)},
		} {
			for _, size := range []int{1, 7, 1000} {
				conversation := protocoltest.Conversation{Port: port, Steps: steps}
				events, name := conversation.Cut(size).Play(list)
				if len(events) != 1 || name != "memcached" || !strings.Contains(events[0], `tags=["parsing_stopped" "unsupported"]`) {
					t.Errorf("port %d, cut by %d: %q is %s", port, size, name, events)
				}
			}
		}
	}
}
