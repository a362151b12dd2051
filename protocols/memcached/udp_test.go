package memcached

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// datagramOf returns a datagram with its header.
func datagramOf(id, number, total int, payload string) string {
	var out []byte
	for _, field := range []int{id, number, total, 0} {
		out = binary.BigEndian.AppendUint16(out, uint16(field))
	}
	return string(out) + payload
}

// checkDatagrams plays datagrams and compares the events, each with the bytes of both sides. A datagram is "> 7 get a",
// of the client, or "< 7 1/2 text", of the server, with the id of the request, and the number and the total.
func checkDatagrams(t *testing.T, steps []string, want ...string) {
	t.Helper()
	conversation := protocoltest.Conversation{UDP: true, Port: 11211}
	for _, step := range steps {
		var id, number, total int
		payload := ""
		if step[0] == '>' {
			_, _ = fmt.Sscanf(step, "> %d", &id)
			payload = strings.SplitN(step, " ", 3)[2]
			conversation.Steps = append(conversation.Steps, protocoltest.Client(datagramOf(id, 0, 1, payload)))
			continue
		}
		_, _ = fmt.Sscanf(step, "< %d %d/%d", &id, &number, &total)
		payload = strings.SplitN(step, " ", 4)[3]
		conversation.Steps = append(conversation.Steps, protocoltest.Server(datagramOf(id, number, total, payload)))
	}
	var got []string
	for _, event := range conversation.Events(list) {
		got = append(got, fmt.Sprintf("%s, %d for %d", short(event), event.Destination.Bytes, event.Source.Bytes))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\n got %q\nwant %q", steps, got, want)
	}
}

// TestReplyInSeveralDatagrams is read in the order of their numbers, whatever the order in which they come.
func TestReplyInSeveralDatagrams(t *testing.T) {
	const get = "> 7 get a\r\n"
	parts := []string{"< 7 0/3 VALUE a 0 10\r\n01234", "< 7 1/3 56789\r", "< 7 2/3 \nEND\r\n"}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}} {
		steps := []string{get}
		for _, i := range order {
			steps = append(steps, parts[i])
		}
		checkDatagrams(t, append(steps, get, "< 7 0/1 END\r\n"),
			"get a = END 1 hits 0 misses 10 bytes, 55 for 15", "get a = END 0 hits 1 misses, 13 for 15")
	}
	// One comes twice: what it belongs to is uncertain.
	checkDatagrams(t, []string{get, parts[0], parts[0], parts[1], parts[1], parts[2]}, "get a = END 1 hits 0 misses 10 bytes partial, 55 for 15")
	// One is lost: the bytes of the others count.
	checkDatagrams(t, []string{get, parts[0], parts[2]}, "get a, no reply partial, 41 for 15")
	checkDatagrams(t, []string{get, parts[1], parts[2]}, "get a, no reply partial, 28 for 15")
	// A line goes on in the next datagram.
	checkDatagrams(t, []string{"> 7 stats\r\n", "< 7 0/2 STAT a 1\r\nST", "< 7 1/2 AT b 2\r\nEND\r\n"}, "stats = END, 41 for 15")
}

// TestCommandsInOneDatagram are events, each with its reply. They need not be answered in the order of the ids.
func TestCommandsInOneDatagram(t *testing.T) {
	checkDatagrams(t, []string{"> 1 set a 0 0 2\r\nhi\r\nget a b\r\nxyz\r\n", "> 2 delete a\r\n", "< 2 0/1 DELETED\r\n", "< 1 0/1 STORED\r\n", "< 1 0/1 VALUE a 0 2\r\nhi\r\n", "< 1 0/1 END\r\n", "< 1 0/1 ERROR\r\n"},
		"delete a = DELETED, 17 for 18", "set a = STORED 2 bytes, 16 for 25", "get a b = END 1 hits 1 misses 2 bytes partial, 38 for 9", "xyz ! ERROR, 15 for 5")
	// One reply is lost: those behind it are paired with others.
	checkDatagrams(t, []string{"> 1 get a\r\nget b\r\n", "< 1 0/1 END\r\n"}, "get a = END 0 hits 1 misses partial, 13 for 15", "get b, no reply, 0 for 7")
	checkDatagrams(t, []string{"> 1 set a 0 0 2 noreply\r\nhi\r\nmg b q v\r\nmn\r\n", "< 1 0/1 VA 2\r\nhi\r\n", "< 1 0/1 MN\r\n"},
		"set a, no reply 2 bytes, 0 for 33", "mg b, no reply, 0 for 10", "mn = MN, 30 for 4")
	// The size is that of what was sent, not what the command says.
	checkDatagrams(t, []string{"> 1 set a 0 0 1000000\r\nhi", "> 1 get a"}, "set a, no reply 1000000 bytes partial, 0 for 29", "get a, no reply partial, 0 for 13")
}

// TestReplyWithoutRequest comes to a host whose address was forged. It is an event with its bytes and no command.
func TestReplyWithoutRequest(t *testing.T) {
	long := strings.Repeat("x", 1000)
	checkDatagrams(t, []string{"< 7 0/2 VALUE a 0 1500\r\n" + long, "< 7 1/2 " + long[:500] + "\r\nEND\r\n"}, " = END 1 hits 0 misses 1500 bytes partial, 1539 for 0")
	checkDatagrams(t, []string{"< 7 3/4 " + long, "< 7 2/4 " + long}, ", no reply partial, 2016 for 0")
	// The victim takes the server for its client.
	conversation := protocoltest.Conversation{UDP: true, Port: 40000, ClientPort: 11211, Steps: []protocoltest.Step{protocoltest.Client(datagramOf(7, 0, 1, "STAT a 1\r\nEND\r\n"))}}
	events := conversation.Events(list)
	if len(events) != 1 || events[0].Source.Port != 40000 || events[0].Destination.Port != 11211 || events[0].Destination.Bytes != 23 {
		t.Errorf("%v", events)
	}
}

// TestHeldDatagramsAreBounded: a server sends no first datagram. What is sent counts, and the next request is read.
func TestHeldDatagramsAreBounded(t *testing.T) {
	steps := []string{"> 7 get a\r\n"}
	size := 0
	for i := range 3 * maxHeld {
		payload := strings.Repeat("x", 1400)
		size += 1408
		steps = append(steps, fmt.Sprintf("< 7 %d/1000 %s", i+1, payload))
	}
	checkDatagrams(t, append(steps, "> 8 get a\r\n", "< 8 0/1 END\r\n"), "get a = END 0 hits 1 misses, 13 for 15", fmt.Sprintf("get a, no reply partial, %d for 15", size))

	set := protocols.NewSet(list, protocols.Default(), nil)
	conn := set.Open((&protocoltest.Conversation{UDP: true, Port: 11211}).Info(), func(event *pipeline.Event) { event.ReturnToVTPool() })
	parser := &datagramParser{}
	parser.Reset(conn)
	for i := range 4 * maxRequests {
		_, _ = parser.Parse(protocols.Client, []byte(datagramOf(i, 0, 1, "get a\r\n")), 1)
		_, _ = parser.Parse(protocols.Server, []byte(datagramOf(i, 0, 9, strings.Repeat("VALUE ", 300))), 1)
		_, _ = parser.Parse(protocols.Server, []byte(datagramOf(i, 2, 9, strings.Repeat("x", 9000))), 1)
		if len(parser.waiting) > maxRequests || parser.heldBytes > maxHeldBytes || parser.lineBytes > maxRequests*maxReplyLine {
			t.Fatalf("%d requests, %d bytes of lines, %d bytes are held", len(parser.waiting), parser.lineBytes, parser.heldBytes)
		}
	}
	parser.Tick(1 + int64(replyTimeout))
	if parser.Held() != 0 || len(parser.waiting)+len(parser.held) != 0 {
		t.Errorf("%d bytes are held behind the time-out", parser.Held())
	}
}

// TestDatagramsAreRecognised: a request on any port, a reply by its words. The server looks at no other field of a request.
func TestDatagramsAreRecognised(t *testing.T) {
	check := func(data string, want protocols.Match) {
		t.Helper()
		if got := detectDatagram(protocols.Client, []byte(data)); got != want {
			t.Errorf("%q: %d, want %d", data, got, want)
		}
	}
	check(datagramOf(1, 0, 1, "get a\r\n"), protocols.Yes)
	check("\x00\x01\x00\x07\x00\x01\x00\x07get a\n", protocols.Yes)
	check(datagramOf(1, 0, 1, "xyz\r\n"), protocols.More)
	check(datagramOf(1, 0, 1, "get a"), protocols.More)
	check(datagramOf(1, 0, 2, "get a\r\n"), protocols.No)
	check(datagramOf(1, 0, 1, "x\x01\r\n"), protocols.No)
	check(datagramOf(1, 0, 1, ""), protocols.No)
	check(datagramOf(1, 0, 3, "VALUE a 0 1\r\n"), protocols.Yes)
	check(datagramOf(1, 0, 3, "OK\r\n"), protocols.More)
	check(datagramOf(1, 0, 3, "STAT long"), protocols.More)
	check(datagramOf(1, 2, 3, "anything"), protocols.More)
	check(datagramOf(1, 3, 3, "anything"), protocols.No)
	check("\x00\x01\x00\x00\x00\x03\x00\x01VALUE a 0 1\r\n", protocols.No)
	check("\x00\x01\x00\x00\x00\x03\x01\x00VALUE a 0 1\r\n", protocols.No)
	check(datagramOf(1, 0, 1, "\x80\x0b"+strings.Repeat("\x00", 22)), protocols.Yes)
	check(datagramOf(1, 0, 2, "\x81\x0b"+strings.Repeat("\x00", 22)), protocols.Yes)
	// A query of DNS has 1 in the same place.
	check("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01", protocols.No)
}

// TestBinaryDatagramIsToldAsUnsupported, with the bytes of both sides.
func TestBinaryDatagramIsToldAsUnsupported(t *testing.T) {
	header := strings.Repeat("\x00", 22)
	conversation := protocoltest.Conversation{UDP: true, Port: 11211, Steps: []protocoltest.Step{
		protocoltest.Client(datagramOf(1, 0, 1, "\x80\x0b"+header)), protocoltest.Server(datagramOf(1, 0, 1, "\x81\x0b"+header+"1.6")),
		protocoltest.Client(datagramOf(2, 0, 1, "get a\r\n")), protocoltest.Server(datagramOf(2, 0, 1, "END\r\n")),
	}}
	events := conversation.Events(list)
	if len(events) != 2 || !slices.Contains(events[0].Tags, pipeline.TagUnsupported) || events[0].Source.Bytes != 32 || events[0].Destination.Bytes != 35 ||
		short(events[1]) != "get a = END 0 hits 1 misses" {
		t.Errorf("%v", events)
	}
}

// TestRealServerAnswersDatagrams: the events of what a memcached answers, with a value in many datagrams.
func TestRealServerAnswersDatagrams(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a memcached")
	}
	listener, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.LocalAddr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = listener.Close()
	startServer(t, "-U", port)
	client, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	var got []string
	set := protocols.NewSet(list, protocols.Default(), nil)
	info := (&protocoltest.Conversation{UDP: true, Port: 11211}).Info()
	conn := set.Open(info, func(event *pipeline.Event) { got = append(got, short(event)) })
	at, large := protocoltest.Start, strings.Repeat("0123456789", 2000)
	ask := func(id int, commands string) {
		t.Helper()
		request := datagramOf(id, 0, 1, commands)
		if _, err := client.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		at++
		conn.Datagram(protocols.Client, []byte(request), at)
		buffer := make([]byte, 64<<10)
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		for events := len(got); len(got) == events; {
			size, err := client.Read(buffer)
			if err != nil {
				t.Fatalf("%q: %v", commands[:min(len(commands), 40)], err)
			}
			at++
			conn.Datagram(protocols.Server, buffer[:size], at)
		}
	}
	ask(1, "set a 0 0 20000\r\n"+large+"\r\n")
	ask(2, "get a\r\n")
	ask(3, "get a b a\r\n")
	ask(4, "stats\r\n")
	ask(5, "xyz\r\n")
	conn.Close(at)
	want := []string{
		"set a = STORED 20000 bytes", "get a = END 1 hits 0 misses 20000 bytes", "get a b a = END 2 hits 1 misses 40000 bytes partial", "stats = END", "xyz ! ERROR",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// FuzzDatagrams plays arbitrary datagrams of both sides. The cost is linear, and each event is one of memcached.
func FuzzDatagrams(f *testing.F) {
	f.Add([]byte(datagramOf(1, 0, 1, "get a\r\n")), []byte(datagramOf(1, 0, 2, "VALUE a 0 1\r\n")))
	f.Add([]byte(datagramOf(1, 0, 1, "set a 0 0 1\r\nx\r\nstats\r\n")), []byte(datagramOf(1, 1, 2, "x\r\nEND\r\n")))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, first, second, func(first, second []byte) {
			steps := []protocoltest.Step{protocoltest.Client(string(first)), protocoltest.Server(string(second)), protocoltest.Server(string(first)), protocoltest.Client(string(second))}
			for _, event := range (protocoltest.Conversation{UDP: true, Port: 11211, Steps: steps}).Events(list) {
				if event.Memcached == nil || len(event.Id) != 16 {
					t.Fatalf("%v", event)
				}
			}
		})
	})
}
