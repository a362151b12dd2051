package protocols

import (
	"bytes"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// TestProofIsOpenedByTheFirstBytesOfAClient of a stream.
func TestProofIsOpenedByTheFirstBytesOfAClient(t *testing.T) {
	check := func(what string, dir Dir, want bool, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, nil)
		conn.streams[Client].offset = 4
		change(conn)
		conn.openProof(dir, []byte("abc"), 5)
		if conn.proof.open != want || want && (string(conn.proof.bytes[Client]) != "abc" || conn.proof.at != 5 || conn.proof.from != 4) {
			t.Errorf("%s: %+v", what, conn.proof)
		}
	}
	nothing := func(*Conn) {}
	check("the client", Client, true, nothing)
	check("the server", Server, false, nothing)
	check("the server, roles exchanged", Server, false, func(c *Conn) { c.flip = 1 }) // the other side has sent
	check("the server, roles exchanged, first", Server, true, func(c *Conn) {
		c.flip, c.streams[Server].offset, c.streams[Client].offset = 1, 4, 0
	})
	check("mid-stream", Client, false, func(c *Conn) { c.midStream = true })
	check("the server has sent", Client, false, func(c *Conn) { c.streams[Server].offset = 1 })
	check("the server has sent what is not read", Client, false, func(c *Conn) { c.streams[Server].tail = []byte("x") })
	check("a datagram", Client, false, func(c *Conn) { c.info.Transport = pipeline.Transport_UDP })
}

// TestProofKeepsItsFirstBytes of each side, and counts those of the client beyond them.
func TestProofKeepsItsFirstBytes(t *testing.T) {
	conn := openOn(9, nil)
	check := func(role Dir, add, kept, lost int) {
		t.Helper()
		if conn.keepProof(role, bytes.Repeat([]byte("x"), add)); len(conn.proof.bytes[role]) != kept || conn.proof.lost != lost {
			t.Errorf("%d bytes are kept, %d lost; want %d and %d", len(conn.proof.bytes[role]), conn.proof.lost, kept, lost)
		}
	}
	check(Client, 0, 0, 0)
	if conn.proof.bytes[Client] != nil {
		t.Error("no bytes take a buffer")
	}
	check(Client, 10, 10, 0)
	check(Client, maxProof-10, maxProof, 0)
	check(Client, 5, maxProof, 5)
	check(Client, 1, maxProof, 6)
	check(Server, maxProof+3, maxProof, 6)
	if conn.closeProof(); len(conn.set.freeTails) != 0 {
		t.Error("a proof that is not open is closed")
	}
	conn.proof.open = true
	conn.proof.bytes = [2][]byte{conn.set.takeTail(), conn.set.takeTail()}
	if conn.closeProof(); len(conn.set.freeTails) != 2 || conn.proof.open || conn.proof.lost != 0 {
		t.Errorf("%d buffers are free", len(conn.set.freeTails))
	}
}

// threeToys returns a connection of the toy to a port, on a list with a protocol of datagrams in front and one more behind.
// Their servers send what begins with the name that the map has; what it has in capitals is certain.
func threeToys(port uint16, answers map[string]string) *Conn {
	conn := openOn(port, func(set *Set) {
		third := set.list[1]
		third.Name, third.Ports = "third", []uint16{10}
		datagrams := set.list[1]
		datagrams.Name, datagrams.TCP, datagrams.Ports = "datagrams", false, nil
		list := []Protocol{datagrams, set.list[0], set.list[1], third}
		for i := range list {
			name, detect := list[i].Name, list[i].Detect
			list[i].Detect = func(dir Dir, data []byte) Match {
				answer := answers[name]
				switch {
				case dir == Client:
					return detect(dir, data)
				case answer != "" && strings.HasPrefix(string(data), strings.ToLower(answer)):
					if answer == strings.ToUpper(answer) {
						return Yes
					}
					return More
				}
				return No
			}
		}
		*set = *NewSet(list, set.cfg, nil)
	})
	conn.proto = 1
	return conn
}

// TestAnswerChoosesAnotherProtocol: one that is certain, that of the port first; that of the port where none is certain, if
// no other may be or the answer is long enough.
func TestAnswerChoosesAnotherProtocol(t *testing.T) {
	check := func(answer string, port uint16, found int, more Match, answers map[string]string) {
		t.Helper()
		conn := threeToys(port, answers)
		if gotFound, gotMore := conn.protocolOfAnswer([]byte(answer)); gotFound != found || gotMore != more {
			t.Errorf("%q to port %d of %v: %d, %d; want %d, %d", answer, port, answers, gotFound, gotMore, found, more)
		}
	}
	type by = map[string]string
	check("err", 9, noProtocol, No, nil)
	check("err", 9, 2, No, by{"other": "ERR"})
	check("err", 9, 2, No, by{"other": "ERR", "third": "ERR"})
	check("err", 10, 3, No, by{"other": "ERR", "third": "ERR"})
	check("err", 9, noProtocol, More, by{"other": "err"})
	check("err", 8, 2, Yes, by{"other": "err"})
	check("err", 8, noProtocol, More, by{"other": "err", "third": "err"})
	check("error", 8, 2, Yes, by{"other": "err", "third": "err"})
	check("erro", 8, noProtocol, More, by{"other": "err", "third": "err"})
	check("error", 8, 3, No, by{"other": "err", "third": "ERR"})
	check("err", 9, 2, More, by{"other": "ERR", "third": "err"})
	check("err", 9, noProtocol, No, by{"toy": "ERR", "datagrams": "ERR"})
	check("err", 9, noProtocol, No, by{"toy": "err", "datagrams": "err"})
}

// TestMessageWithinTheProofChoosesAnotherProtocol, if the answer may be of that one and is not of the chosen one.
func TestMessageWithinTheProofChoosesAnotherProtocol(t *testing.T) {
	check := func(what, client, answer string, want int, answers map[string]string) {
		t.Helper()
		conn := threeToys(9, answers)
		conn.proof.bytes = [2][]byte{[]byte(client), []byte(answer)}
		if got := conn.protocolBySync(); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	type by = map[string]string
	check("a message", "x#", "err", 2, by{"other": "err"})
	check("a message of a certain one", "x#", "err", 3, by{"third": "ERR"})
	check("no message", "x", "err", noProtocol, by{"other": "err"})
	check("no answer", "x#", "", noProtocol, by{"other": "err"})
	check("another answer", "x#", "no", noProtocol, by{"other": "err"})
	check("an answer that may be of the chosen one", "x#", "err", noProtocol, by{"other": "err", "toy": "err"})
	check("datagrams", "x#", "err", noProtocol, by{"datagrams": "err"})
	conn := threeToys(9, by{"other": "err"})
	conn.set.list[2].Sync = func(_ Dir, data []byte) (int, Match) { return len(data), Yes }
	conn.proof.bytes = [2][]byte{[]byte("x#"), []byte("err")}
	if got := conn.protocolBySync(); got != noProtocol {
		t.Errorf("a start behind the last byte: %d", got)
	}
}

// TestMoreBytesMayDecide which protocol a client has, if one may be and none is.
func TestMoreBytesMayDecide(t *testing.T) {
	for data, want := range map[string]bool{"x": false, "h": true, "y": true, "hi": false, "": true} {
		conn := threeToys(9, nil)
		if got := conn.mayDecideLater([]byte(data)); got != want {
			t.Errorf("%q: %t", data, got)
		}
	}
	conn := threeToys(9, nil)
	for i := 1; i < 4; i++ {
		conn.set.list[i].TCP = false
	}
	if conn.mayDecideLater([]byte("y")) || conn.mayDecideLater([]byte("yo")) {
		t.Error("a protocol of datagrams decides")
	}
}

// play plays steps to a connection of the toys whose servers answer as the map says. It returns the calls of the parsers,
// with the names of those that are not the toy's.
func playAnswers(answers map[string]string, port uint16, list ...string) (calls string, conn *Conn, events []*pipeline.Event) {
	conn = threeToys(port, answers)
	var log []string
	for i := range conn.set.list {
		conn.set.list[i].New = func() Parser { return reader{&toy{log: &log}} }
	}
	conn.proto = noProtocol
	conn.emit = func(event *pipeline.Event) { events = append(events, event) }
	conn.startDetection()
	run(conn, list...)
	return strings.Join(log, ", "), conn, events
}

// TestAnswerDecidesWhatWasRead: the parser of another protocol reads both sides from their first byte; bytes of an answer
// that decides nothing wait for more.
func TestAnswerDecidesWhatWasRead(t *testing.T) {
	check := func(what string, answers map[string]string, want string, list ...string) {
		t.Helper()
		calls, conn, _ := playAnswers(answers, 9, list...)
		if calls != want {
			t.Errorf("%s:\n got %s\nwant %s", what, calls, want)
		}
		sent := [2]int{}
		for _, step := range list {
			if step = strings.TrimSuffix(step, " end"); step[0] == '>' {
				sent[Client] += len(step) - 1
			} else {
				sent[Server] += len(step) - 1
			}
		}
		held := len(conn.proof.bytes[Server])
		if int(conn.streams[Client].offset) != sent[Client] || int(conn.streams[Server].offset)+held != sent[Server] {
			t.Errorf("%s: offsets %d and %d of %v", what, conn.streams[Client].offset, conn.streams[Server].offset, sent)
		}
	}
	type by = map[string]string
	check("its own", by{"toy": "OK"}, `>"hi", <"ok", >"go"`, ">hi", "<ok", ">go")
	check("its own, in two parts", by{"toy": "o"}, `>"hi", <"ok", >"go"`, ">hi", "<o", "<k", ">go")
	check("that of another one", by{"other": "ERR"}, `>"hi", close, >"hi", <"err", >"go", <"on"`, ">hi", "<err", ">go", "<on")
	check("its own, up to its end", by{"toy": "o"}, `>"hi", <"ok", <end`, ">hi", "<ok", "< end")
	check("that of another one behind more bytes of the client", by{"other": "ERR"},
		`>"hi", >" there", close, >"hi there", <"err"`, ">hi", "> there", "<err")
	check("nobody's, and no message", nil, `>"hi", <"err", >"go"`, ">hi", "<err", ">go")
	check("another one may have sent it, and has a message", by{"other": "e"}, `>"hi#", close, >"hi#", <"err", >"go"`, ">hi#", "<err", ">go")
	check("another one may have sent it, and has a message later", by{"other": "e"}, `>"hi", close, >"hi#", <"err"`, ">hi", "<err", ">#")
	check("another one may have sent it, and a message may begin", by{"other": "e"}, `>"hi", close, >"yo"`, ">hi", "<err", ">y", ">o")
	check("another one may have sent it, and no message begins", by{"other": "e"}, `>"hi", close`, ">hi", "<err", ">x", ">o")
	long := strings.Repeat("e", maxAnswer)
	check("as long as decides", by{"toy": "e"}, `>"hi", <"`+long+`"`, ">hi", "<"+long)
	check("one byte less", by{"toy": "e"}, `>"hi"`, ">hi", "<"+long[1:])
	check("one byte less and one more", by{"toy": "e"}, `>"hi", <"`+long+`", <"x"`, ">hi", "<"+long[1:], "<e", "<x")
}

// TestRefutedProtocolIsLeftBehind: its events stand, it is no candidate any more, and its answer says which may follow.
func TestRefutedProtocolIsLeftBehind(t *testing.T) {
	_, conn, _ := playAnswers(map[string]string{"other": "error"}, 9, ">hi", "<error", ">x")
	if conn.state != dropped && conn.state != detecting || conn.left != 1<<1 || conn.proof.open || conn.parser != nil {
		t.Errorf("state %d, left %b", conn.state, conn.left)
	}
	if conn.refuted&^(1<<2) != 1|1<<1|1<<3 || conn.answeredAs&15 != 1<<2 {
		t.Errorf("refuted %b, answered as %b", conn.refuted, conn.answeredAs)
	}
	_, conn, _ = playAnswers(map[string]string{"other": "erro"}, 9, ">hi", "<erro", ">x")
	if conn.answeredAs != 0 {
		t.Errorf("four bytes are answered as %b", conn.answeredAs)
	}
}

// TestChangedProtocolSaysWhatItDidNotRead: bytes of the client beyond those of the proof.
func TestChangedProtocolSaysWhatItDidNotRead(t *testing.T) {
	for _, beyond := range []int{0, 1, 50} {
		calls, conn, events := playAnswers(map[string]string{"other": "ERR"}, 9, ">hi", ">"+strings.Repeat("x", maxProof-2+beyond), "<err")
		if told := len(events) == 1 && strings.Join(events[0].Tags, " ") == pipeline.TagParsingStopped+" "+pipeline.TagTruncated; told != (beyond > 0) {
			t.Errorf("%d bytes beyond the proof: %v", beyond, events)
		}
		if strings.Contains(calls, "gap") != (beyond > 0) || int(conn.streams[Client].offset) != maxProof+beyond {
			t.Errorf("%d bytes beyond the proof: offset %d", beyond, conn.streams[Client].offset)
		}
	}
}

// TestCutBytesAreTold, if any wait.
func TestCutBytesAreTold(t *testing.T) {
	check := func(want int, cut Dir, list ...string) {
		t.Helper()
		set, _ := toys(new([]string), nil)
		var events []*pipeline.Event
		conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
		run(conn, list...)
		conn.TellCut(cut)
		if len(events) != want || want > 0 && strings.Join(events[0].Tags, " ") != pipeline.TagParsingStopped+" "+pipeline.TagOverlapConflict {
			t.Errorf("%q: %v", list, events)
		}
	}
	check(1, Client, ">hi\nunread")
	check(0, Client, ">hi\n")
	check(0, Server, ">hi\nunread")
	check(1, Server, ">hi\n", "<a\nunread")
	check(0, Client, ">hi\ndrop\nunread")
}
