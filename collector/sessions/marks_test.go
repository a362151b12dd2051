package sessions

import (
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// patchedSegment sends a segment as segment does, after change was applied to the TCP header.
func (b *tableTest) patchedSegment(way, flags string, off, ack int, payload string, change func(tcp []byte)) {
	b.Helper()
	src, dst := addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80")
	seq, ackNumber := b.isn[0]+1+uint32(off), b.isn[1]+1+uint32(ack)
	if way == "<" {
		src, dst, seq, ackNumber = dst, src, b.isn[1]+1+uint32(off), b.isn[0]+1+uint32(ack)
	}
	b.ipid++
	frame := tcpFrame(b, src, dst, flags, seq, ackNumber, b.ipid, payload)
	change(frame[34 : 14+(int(frame[16])<<8|int(frame[17]))]) // the frame may be padded
	b.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(b.now), frame, len(frame))
	b.now += 10_000
}

func (b *tableTest) wantTag(tag string) {
	b.Helper()
	for _, event := range b.events {
		if !slices.Contains(event.Tags, tag) {
			b.Errorf("%s event has the tags %v, want %s", event.Dataset.Name(), event.Tags, tag)
		}
	}
}

// TestUrgentDataIsNotPartOfTheStream: the byte before the urgent pointer is left out, wherever the segments
// begin and end, and in repetitions. What Linux ignores is not urgent.
func TestUrgentDataIsNotPartOfTheStream(t *testing.T) {
	type part struct {
		off     int
		payload string
		urgent  uint16 // 0: no flag; 100: the flag with the pointer 0
	}
	check := func(name, want string, parts ...part) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{}).handshake()
		test.TrustChecksums(true)
		for _, part := range parts {
			test.patchedSegment(">", "A", part.off, 0, part.payload, func(tcp []byte) {
				if part.urgent > 0 {
					tcp[13] |= 0x20
					tcp[19] = byte(part.urgent % 100)
				}
			})
		}
		session := test.closeOneSession()
		if got := string(test.recorder.bytes[0]); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		sent := len(want)
		if name != "ignored" {
			sent++
		}
		if int(session.Source.Bytes) != sent {
			t.Errorf("%s: %d bytes counted, want %d", name, session.Source.Bytes, sent)
		}
	}
	check("in the middle", "abcdef", part{0, "abcZdef", 4})
	check("at the end", "abcdef", part{0, "abcZ", 4}, part{4, "def", 0})
	check("at the front", "abcdef", part{0, "abc", 0}, part{3, "Zdef", 1})
	check("pointer of 0", "abcdef", part{0, "abc", 0}, part{3, "Zdef", 100})
	check("announced before", "abcdef", part{0, "abc", 4}, part{3, "Zdef", 0})
	check("alone", "abcdef", part{0, "abc", 0}, part{3, "Z", 1}, part{4, "def", 0})
	check("repeated", "abcdef", part{0, "abcZ", 4}, part{3, "Z", 1}, part{3, "Zdef", 1}, part{4, "def", 0})
	check("out of order", "abcdef", part{3, "Zdef", 1}, part{0, "abc", 0})
	check("repeated without the flag", "abcdef", part{3, "Z", 1}, part{0, "abcZdef", 0})
	check("ignored", "abcdef", part{0, "abcdef", 0}, part{2, "cd", 1})
}

// TestUrgentDataIsMarked: events of the connection have a tag, and the history a letter.
func TestUrgentDataIsMarked(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.TrustChecksums(true)
	test.patchedSegment(">", "A", 0, 0, "Zask", func(tcp []byte) { tcp[13] |= 0x20; tcp[19] = 1 })
	test.segment("<", "A", 0, 4, "tell")
	session := test.closeOneSession()
	test.wantTag(pipeline.TagUrgentData)
	if session.Session.History != "ShADUd" || session.Partial {
		t.Errorf("%v", session)
	}
}

// TestWrongChecksum: a receiver drops a segment with a wrong checksum. In a capture file it counts as dropped if
// the other segments of its sender show that their checksums are filled in, or are all left to the network card.
func TestWrongChecksum(t *testing.T) {
	pseudo := func(tcp []byte) { // as the kernel leaves it for the network card
		length := len(tcp)
		sum := uint64(6+length) + 0x0a00 + 1 + 0x0a00 + 2
		tcp[16], tcp[17] = byte(foldSum(sum)>>8), byte(foldSum(sum))
	}
	wrong := func(tcp []byte) { tcp[16] ^= 0x5a }
	none := func([]byte) {}
	check := func(name, want string, tagged bool, sender, forged func(tcp []byte)) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{})
		test.patchedSegment(">", "S", -1, 0, "", sender)
		test.patchedSegment("<", "SA", -1, 0, "", none)
		test.patchedSegment(">", "A", 0, 0, "", sender)
		test.patchedSegment(">", "A", 0, 0, "GET /innocent", forged)
		test.setTime(50e6).patchedSegment(">", "A", 0, 0, "GET /attacked", sender)
		test.patchedSegment("<", "A", 0, 13, "OK", none)
		test.closeOneSession()
		test.wantParserLog(want)
		for _, event := range test.events {
			if slices.Contains(event.Tags, pipeline.TagBadChecksum) != tagged {
				t.Errorf("%s: tags %v", name, event.Tags)
			}
		}
	}
	check("forged", ">GET /attacked <OK close", true, none, wrong)
	check("forged, offloaded", ">GET /attacked <OK close", true, pseudo, wrong)
	const both = ">GET /innocent close >GET /attacked <OK close" // nothing is known
	check("all wrong", both, false, wrong, wrong)
	check("all offloaded", both, false, pseudo, pseudo)
}

// TestChecksumsOfAFileThatAreAllWrong: checksums that a capture has destroyed cost the first segments at most.
func TestChecksumsOfAFileThatAreAllWrong(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	for i := range 30 {
		test.patchedSegment(">", "A", 3*i, 0, "ask", func(tcp []byte) { tcp[16] ^= 0x5a })
	}
	session := test.closeOneSession()
	if session.Source.Bytes < 60 {
		t.Errorf("%v", session)
	}
}

// TestConflictMarksTheEventsOfItsConnection: two versions of the same bytes were sent. The event of the protocol
// says so, because the receiver may have taken the other one.
func TestConflictMarksTheEventsOfItsConnection(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 4, 0, "EFGH")
	test.segment(">", "A", 2, 0, "cdefghij")
	test.segment(">", "A", 0, 0, "ab")
	test.closeOneSession()
	test.wantTag(pipeline.TagOverlapConflict)
}

// TestChecksumOfAnyLength: the sum of any bytes is that of RFC 1071.
func TestChecksumOfAnyLength(t *testing.T) {
	data := make([]byte, 100)
	for i := range data {
		data[i] = byte(i*37 + 11)
	}
	for n := range len(data) {
		want := uint64(0)
		for i := 0; i < n; i += 2 {
			want += uint64(data[i]) << 8
			if i+1 < n {
				want += uint64(data[i+1])
			}
		}
		if got := foldSum(sumBytes(data[:n])); got != foldSum(want) {
			t.Errorf("%d bytes: %x, want %x", n, got, foldSum(want))
		}
	}
}

// TestUDPBytesAreThoseThatCame: the length in a UDP header is what its sender claims.
func TestUDPBytesAreThoseThatCame(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	frame := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), 7, "query")
	frame[38], frame[39] = 0xff, 0xff
	test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
	if session := test.closeOneSession(); session.Source.Bytes != 5 || session.Partial {
		t.Errorf("%v", session)
	}
}

// TestHeaderWithoutChecksum: some systems leave the checksum of IPv4 to the network card, as 0. Any other value has to
// be right.
func TestHeaderWithoutChecksum(t *testing.T) {
	check := func(name string, change func(sum []byte), want string) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{}).handshake()
		test.TrustChecksums(false)
		frame := tcpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), "A", 1001, 5001, 99, "forged")
		change(frame[24:26])
		test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), frame, len(frame))
		test.setTime(50*time.Millisecond).segment(">", "A", 0, 0, "GET /x")
		test.segment("<", "A", 0, 6, "OK")
		test.closeOneSession()
		test.wantParserLog(want)
	}
	const both = ">forged close >GET /x <OK close"
	check("right", func([]byte) {}, both)
	check("none", func(sum []byte) { sum[0], sum[1] = 0, 0 }, both)
	check("wrong", func(sum []byte) { sum[0] ^= 0x5a }, ">GET /x <OK close")
}
