package sessions

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// An attacked is the request that the server gets in the tests of decoys.
const attacked = "GET /attacked?x=../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"

// A decoyTest is a connection between two addresses of which the requests are read.
type decoyTest struct {
	*tableTest
	client, server string
}

// newDecoyTest returns a decoyTest behind the handshake.
func newDecoyTest(t testing.TB, client, server string) *decoyTest {
	test := &decoyTest{tableTest: newTableTest(t, Default(), Deps{}), client: client, server: server}
	test.deps.Protocols = protocols.NewSet(parsers, protocols.Default(), nil)
	test.send(">", "S", 0, 0, "")
	test.send("<", "SA", 0, 0, "")
	test.send(">", "A", 0, 0, "")
	return test
}

func (d *decoyTest) send(way, flags string, off, ack int, payload string) {
	d.Helper()
	d.segmentOn("eth0", d.client, d.server, way, flags, off, ack, payload)
}

// wait moves the clock forward.
func (d *decoyTest) wait(duration time.Duration) {
	d.now += duration
	d.Tick(startTime + int64(d.now))
}

// sendParts sends text from the offset off on in segments of a size.
func (d *decoyTest) sendParts(off, size int, text string) {
	d.Helper()
	for part := range slices.Chunk([]byte(text), size) {
		d.send(">", "A", off, 0, string(part))
		off += len(part)
	}
}

// sendOther sends size bytes on another connection.
func (d *decoyTest) sendOther(size int) {
	d.Helper()
	const most = 32 << 10
	for off := 0; off < size; off += most {
		d.segmentOn("eth0", "10.0.0.3:1", "10.0.0.4:2", ">", "A", off, 0, strings.Repeat("y", min(most, size-off)))
	}
}

// answer has the server acknowledge size bytes and answer.
func (d *decoyTest) answer(size int) {
	d.Helper()
	d.send("<", "A", 0, size, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
}

// urls returns the URLs of the events, and those whose events have the tag.
func (d *decoyTest) urls(tag string) (all, tagged []string) {
	for _, event := range d.events {
		if event.Http == nil {
			continue
		}
		all = append(all, event.Http.UrlOriginal)
		if slices.Contains(event.Tags, tag) {
			tagged = append(tagged, event.Http.UrlOriginal)
		}
	}
	return all, tagged
}

// innocent returns a request of a size, without its end.
func innocent(size int) string {
	const front = "GET /innocent HTTP/1.1\r\nX: "
	return (front + strings.Repeat("x", max(size, len(front))))[:size]
}

// hiddenDecoys are ways to have a text captured that the server does not get, beside the request that it gets.
var hiddenDecoys = map[string]func(d *decoyTest){
	"longer": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(1000))
		d.send(">", "A", 0, 0, attacked)
	},
	"longer, and complete": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(300)+"\r\n\r\n")
		d.send(">", "A", 0, 0, attacked)
	},
	"shorter": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(20))
		d.send(">", "A", 0, 0, attacked)
	},
	"as long": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(len(attacked)))
		d.send(">", "A", 0, 0, attacked)
	},
	"behind the front of both": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(1000))
		d.send(">", "A", 0, 0, attacked[:5])
		d.send(">", "A", 5, 0, attacked[5:])
	},
	"in the middle": func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked[:5])
		d.send(">", "A", 5, 0, innocent(500)[5:])
		d.send(">", "A", 5, 0, attacked[5:])
	},
	"behind an acknowledged front": func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked[:5])
		d.send("<", "A", 0, 5, "")
		d.send(">", "A", 5, 0, innocent(500)[5:])
		d.send(">", "A", 5, 0, attacked[5:])
	},
	"in small pieces": func(d *decoyTest) {
		for i, letter := range innocent(300) {
			d.send(">", "A", i, 0, string(letter))
			d.sendOther(1)
		}
		d.send(">", "A", 0, 0, attacked)
	},
	"each byte before the true one": func(d *decoyTest) {
		for i := range attacked {
			d.send(">", "A", i, 0, innocent(len(attacked))[i:i+1])
			d.send(">", "A", i, 0, attacked[i:i+1])
		}
	},
	"true bytes one by one": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(400))
		d.sendParts(0, 1, attacked)
	},
	"behind the request": func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.send(">", "A", 0, 0, innocent(1000))
	},
	"a body": func(d *decoyTest) {
		d.send(">", "A", 0, 0, "POST /innocent HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 900))
		d.send(">", "A", 0, 0, attacked)
	},
	"nonsense": func(d *decoyTest) {
		for i := range 20 {
			d.send(">", "A", 1400*i, 0, strings.Repeat("\x01\xff", 700))
		}
		d.send(">", "A", 0, 0, attacked)
	},
	"a megabyte": func(d *decoyTest) {
		d.sendParts(0, 32<<10, innocent(1<<20))
		d.send(">", "A", 0, 0, attacked)
	},
	"with its end": func(d *decoyTest) {
		d.send(">", "FA", 0, 0, innocent(100)+"\r\n\r\n")
		d.send(">", "A", 0, 0, attacked)
	},
	"with a reset": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(100)+"\r\n\r\n")
		d.send(">", "RA", 104, 0, "")
		d.wait(2 * time.Second)
		d.send(">", "A", 0, 0, attacked)
	},
	"without its first byte": func(d *decoyTest) {
		d.send(">", "A", 1, 0, "\r\n\r\n"+innocent(1000))
		d.wait(3 * time.Second)
		d.send(">", "A", 0, 0, attacked)
	},
	"before a part that waits": func(d *decoyTest) {
		d.send(">", "A", 30, 0, attacked[30:])
		d.send(">", "A", 0, 0, innocent(20))
		d.send(">", "A", 0, 0, attacked[:30])
	},
	"with another byte at its end": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(3000))
		d.send(">", "A", 2999, 0, "y")
		d.send(">", "A", 0, 0, attacked)
	},
	"behind a long front": func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked[:len(attacked)-2]+"X: "+strings.Repeat("x", 3000))
		d.send(">", "A", 3000, 0, "y\r\n\r\n"+innocent(100)+"\r\n\r\n")
		d.send(">", "A", 3000, 0, strings.Repeat("x", 300)+"\r\n\r\n")
	},
	"with many bytes in the place of one": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(3000))
		for i := range 200 {
			d.send(">", "A", 2999, 0, string(rune('a'+i%2)))
		}
		d.send(">", "A", 0, 0, attacked)
	},
	"long before": func(d *decoyTest) {
		d.send(">", "A", 0, 0, innocent(1000))
		d.setTime(d.now + 20*time.Second)
		d.sendOther(3 << 20)
		d.send(">", "A", 0, 0, attacked)
	},
	"behind 64 KiB that are sent again": repeatedBehindDecoy(64 << 10),
	"behind 3 MiB that are sent again":  repeatedBehindDecoy(3 << 20),
	"long before, in pieces": func(d *decoyTest) {
		d.sendParts(0, 100, innocent(20_000))
		d.setTime(d.now + 20*time.Second)
		d.sendOther(3 << 20)
		d.send(">", "A", 0, 0, attacked)
	},
}

// repeatedBehindDecoy sends size bytes, a decoy behind them, other traffic, the same bytes again, which the server
// acknowledges, and then the request.
func repeatedBehindDecoy(size int) func(d *decoyTest) {
	return func(d *decoyTest) {
		head := fmt.Sprintf("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %07d\r\n\r\n", size)
		front := head + strings.Repeat("x", size)
		d.sendParts(0, 1400, front)
		d.send(">", "A", len(front), 0, innocent(300)+"\r\n\r\n")
		d.sendOther(1 << 20)
		off := 0
		for part := range slices.Chunk([]byte(front), 1448) {
			d.send(">", "A", off, 0, string(part))
			off += len(part)
			d.send("<", "A", 0, off, "")
		}
		d.send(">", "A", len(front), 0, attacked)
	}
}

// TestDecoyIsAConflict: a text that the server does not get, and that nothing shows to be dropped, is in the place of
// the request. The request is told, and the events of the connection are marked.
func TestDecoyIsAConflict(t *testing.T) {
	for name, send := range hiddenDecoys {
		for _, ends := range [][2]string{{"10.0.0.1:40000", "10.0.0.2:80"}, {"[fd99::1]:40000", "[fd99::2]:80"}} {
			t.Run(name+" "+ends[1], func(t *testing.T) {
				test := newDecoyTest(t, ends[0], ends[1])
				send(test)
				test.answer(len(attacked))
				test.Close()
				all, tagged := test.urls(pipeline.TagOverlapConflict)
				if !slices.Contains(tagged, "/attacked?x=../../etc/passwd") {
					t.Errorf("the events are %q, those with the tag %q", all, tagged)
				}
				if panics := counterValue(test.metrics.panics); panics > 0 {
					t.Errorf("%v panics", panics)
				}
			})
		}
	}
}

// TestDecoyBeforeAReorderedRequestIsMarked: the last part of the request overtakes the first. It may belong to either
// text, so the request is not put together, but what is told is marked.
func TestDecoyBeforeAReorderedRequestIsMarked(t *testing.T) {
	test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
	test.send(">", "A", 0, 0, innocent(1000))
	test.send(">", "A", 30, 0, attacked[30:])
	test.send(">", "A", 0, 0, attacked[:30])
	test.answer(len(attacked))
	test.Close()
	if all, tagged := test.urls(pipeline.TagOverlapConflict); len(all) == 0 || len(tagged) != len(all) {
		t.Errorf("the events are %q, those with the tag %q", all, tagged)
	}
}

// TestRepetitionIsNoConflict: bytes that are sent again as they were are no conflict, however the segments are cut.
// Neither are the bytes of probes.
func TestRepetitionIsNoConflict(t *testing.T) {
	long := attacked[:len(attacked)-2] + "X: " + strings.Repeat("0123456789", 6000) + "\r\n\r\n"
	for name, send := range map[string]func(d *decoyTest){
		"a large segment in pieces": func(d *decoyTest) {
			d.send(">", "A", 0, 0, long)
			d.sendParts(0, 1448, long)
			d.sendParts(0, 536, long)
		},
		"pieces as a large segment": func(d *decoyTest) {
			d.sendParts(0, 1448, long)
			d.send(">", "A", 0, 0, long)
			d.send(">", "A", 700, 0, long[700:])
		},
		"after other traffic": func(d *decoyTest) {
			d.sendParts(0, 1448, long)
			d.sendOther(3 << 20)
			d.sendParts(0, 1448, long)
		},
		"in part behind new bytes": func(d *decoyTest) {
			d.send(">", "A", 0, 0, long[:3000])
			d.send(">", "A", 1448, 0, long[1448:])
		},
		"a keep-alive": func(d *decoyTest) {
			d.send(">", "A", 0, 0, long)
			d.send("<", "A", 0, len(long), "")
			for _, probe := range []string{"\x00", "x", "\n"} {
				d.send(">", "A", len(long)-1, 0, probe)
				d.send("<", "A", 0, len(long), "")
			}
		},
		"a probe of a closed window": func(d *decoyTest) {
			d.send(">", "A", 0, 0, long[:50])
			d.send("<", "AZ", 0, 50, "")
			for range 3 {
				d.send(">", "A", 50, 0, long[50:51])
				d.send("<", "AZ", 0, 50, "")
			}
			d.send("<", "A", 0, 50, "")
			d.send(">", "A", 50, 0, long[50:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
			send(test)
			test.answer(len(long))
			sessions := test.closeSessions()
			all, tagged := test.urls(pipeline.TagOverlapConflict)
			if len(all) != 1 || len(tagged) > 0 || sessions[0].Session.OverlapConflicts > 0 {
				t.Errorf("the events are %q, those with the tag %q", all, tagged)
			}
		})
	}
}

// TestAcknowledgedBytesAreTheRight: what differs from bytes that the receiver has acknowledged is not told, since
// the receiver has the first ones.
func TestAcknowledgedBytesAreTheRight(t *testing.T) {
	test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
	test.send(">", "A", 0, 0, attacked)
	test.send("<", "A", 0, len(attacked), "")
	test.send(">", "A", 0, 0, innocent(40))
	test.answer(len(attacked))
	test.Close()
	all, tagged := test.urls(pipeline.TagOverlapConflict)
	if len(all) != 1 || len(tagged) != 1 {
		t.Errorf("the events are %q, those with the tag %q", all, tagged)
	}
}

// TestUnacknowledgedMessageIsMarked: the server goes on to send and never acknowledges a request, or its client ends
// the connection before it. Nothing else is in its place, and the server is not known to have it.
func TestUnacknowledgedMessageIsMarked(t *testing.T) {
	check := func(name, tag string, want bool, send func(d *decoyTest)) {
		t.Helper()
		test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
		send(test)
		test.Close()
		if all, tagged := test.urls(tag); len(all) != 1 || len(tagged) == 1 != want {
			t.Errorf("%s: the events are %q, those with the tag %q", name, all, tagged)
		}
	}
	size := len(attacked)
	check("the server ends the connection", pipeline.TagUnacknowledged, true, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.wait(5 * time.Second)
		d.send("<", "FA", 0, 0, "")
	})
	check("the client ends the connection before", pipeline.TagOverlapConflict, true, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.send(">", "FA", 0, 0, "")
		d.send("<", "FA", 0, 1, "")
	})
	check("the server has it at last", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.wait(5 * time.Second)
		d.send("<", "A", 0, 0, "")
		d.send(">", "A", 0, 0, attacked)
		d.answer(size)
	})
	check("the server ends the connection at the same time", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.send("<", "FA", 0, 0, "")
		d.send("<", "R", 1, 0, "")
	})
	check("the server resets the connection", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.wait(5 * time.Second)
		d.send("<", "RA", 0, 0, "")
	})
	check("the server is silent", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.send(">", "A", 0, 0, attacked)
		d.wait(time.Minute)
	})
	check("the window of the server is closed", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.send("<", "AZ", 0, 0, "")
		d.send(">", "A", 0, 0, attacked)
		for range 4 {
			d.wait(2 * time.Second)
			d.send("<", "AZ", 0, 0, "")
		}
	})
	check("the client only was captured", pipeline.TagUnacknowledged, false, func(d *decoyTest) {
		d.client = "10.0.0.7:40000"
		d.send(">", "S", 0, 0, "")
		d.send(">", "A", 0, 0, attacked)
		d.wait(5 * time.Second)
		d.send(">", "FA", size, 0, "")
	})
}

// TestCutFrontIsTold: so many bytes of a request differ that its front is not read again. An event says so.
func TestCutFrontIsTold(t *testing.T) {
	test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
	test.send(">", "A", 0, 0, attacked)
	test.answer(len(attacked))
	test.send(">", "A", len(attacked), 40, innocent(3000))
	for i := range 100 {
		test.send(">", "A", len(attacked)+2999, 40, string(rune('a'+i%2)))
	}
	test.Close()
	for _, event := range test.events {
		if slices.Contains(event.Tags, pipeline.TagParsingStopped) &&
			slices.Contains(event.Tags, pipeline.TagOverlapConflict) {
			return
		}
	}
	t.Errorf("none of %d events says so", len(test.events))
}

// TestConflictingSegmentsCostNoMore: a sender whose segments contradict each other costs no more than one whose
// segments do not, and no memory. So does one that sends bytes again of which each was delivered on its own.
func TestConflictingSegmentsCostNoMore(t *testing.T) {
	measureOnce := func(send func(d *decoyTest, i int)) (took time.Duration, events int) {
		test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
		for i := range 2000 {
			test.send(">", "A", i, 0, "x")
			test.sendOther(1)
		}
		pings := strings.Repeat("*1\r\n$4\r\nPING\r\n", 140)
		test.client = "10.0.0.5:40000"
		test.send(">", "S", 0, 0, "")
		test.send("<", "SA", 0, 0, "")
		test.send(">", "A", 0, 0, pings)
		events = len(test.events)
		begun := cpuTime()
		for i := range 2000 {
			send(test, i)
		}
		took = cpuTime() - begun
		if held := test.pool.Used(); held > 1<<20 {
			t.Errorf("%d bytes are held", held)
		}
		test.Close()
		return took, len(test.events) - events
	}
	// Of several measurements the least counts: other processes change each.
	measure := func(send func(d *decoyTest, i int)) (took time.Duration, events int) {
		took, events = measureOnce(send)
		for range 4 {
			again, _ := measureOnce(send)
			took = min(took, again)
		}
		return took, events
	}
	ordinary, _ := measure(func(d *decoyTest, i int) { d.send(">", "A", 1960+14*i, 0, "*1\r\n$4\r\nPING\r\n") })
	differing, events := measure(func(d *decoyTest, i int) { d.send(">", "A", 1959, 0, string(rune('a'+i%2))) })
	repeated, _ := measure(func(d *decoyTest, _ int) {
		d.client = "10.0.0.1:40000"
		d.send(">", "A", 0, 0, "x")
	})
	if differing > 15*ordinary || events > 6*2000 || repeated > 3*ordinary {
		t.Errorf("2000 requests take %v, differing bytes %v with %d events, repeated ones %v", ordinary, differing,
			events, repeated)
	}
	t.Log(ordinary, differing, events, repeated)
}

// TestConflictsAreCounted: a byte that is sent again and again with other values is a conflict each time.
func TestConflictsAreCounted(t *testing.T) {
	test := newDecoyTest(t, "10.0.0.1:40000", "10.0.0.2:80")
	test.sendParts(0, 1000, innocent(60_000))
	for i := range 2000 {
		test.send(">", "A", 59_999, 0, fmt.Sprint(i%10))
	}
	if held := test.pool.Used(); held > 1<<20 {
		t.Errorf("%d bytes are held", held)
	}
	test.Close()
	if got := counterValue(test.metrics.conflicts); got < 1000 {
		t.Errorf("%v conflicts", got)
	}
}
