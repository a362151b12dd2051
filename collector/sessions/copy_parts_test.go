package sessions

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/zeebo/xxh3"

	"tidegate/collector/reassembly"
	"tidegate/pipeline"
)

// otherFlow returns the activity of a flow in another Table, and it as a reporter.
func otherFlow(owner uint64) (reporter, *activity) {
	other := &activity{progress: &atomic.Int64{}}
	other.owner.Store(owner)
	return reporter{owner: owner, activity: other}, other
}

// printAt returns the print of a text at a sequence number.
func printAt(seq uint32, text string) payloadPrint {
	return newPrint(seq, len(text), xxh3.Hash([]byte(text)))
}

// TestActivityIsPublishedForTheEndThatSent, and a flow whose claims were taken reports no longer.
func TestActivityIsPublishedForTheEndThatSent(t *testing.T) {
	const at = int64(1e12)
	check := func(what string, want bool, change func(f *flow, other *activity)) {
		t.Helper()
		for sender := range uint8(2) {
			_, f := openTCP(t, Default(), Deps{})
			by, other := otherFlow(7)
			f.dedup.reporter, f.first = by, at-100
			other.seen[sender^1].Store(at)
			f.dedup.published, f.activity.seen[sender^1] = [2]int64{3, 4}, atomic.Int64{}
			change(f, other)
			if got := f.publishActivity(&packet{Segment: reassembly.Segment{Time: at}}, sender); got != want {
				t.Errorf("%s: reports %t", what, got)
			}
			if f.dedup.published[sender] != at || f.dedup.published[sender^1] > 4 || f.activity.seen[sender].Load() != at || f.activity.seen[sender^1].Load() != 0 {
				t.Errorf("%s: end %d published %v", what, sender, f.dedup.published)
			}
		}
	}
	seen := func(t int64) func(f *flow, other *activity) {
		return func(f *flow, other *activity) {
			f.dedup.halfOnly = true
			other.seen[0].Store(t)
			other.seen[1].Store(t)
		}
	}
	check("it has its claims", true, func(*flow, *activity) {})
	check("its claims were taken", false, func(f *flow, _ *activity) { f.activity.lost.Store(true) })
	check("half, and the other one sees this end no more", true, seen(at-101))
	check("half, and the other one sees this end too", false, seen(at-100))
	check("half, its claims do not count", true, func(f *flow, other *activity) { seen(1)(f, other); f.activity.lost.Store(true) })
}

// TestDuplicateWaitsForItsReporter: for silentAfter, and longer for a Table that is late, up to maxLag.
func TestDuplicateWaitsForItsReporter(t *testing.T) {
	const since = int64(1e12)
	check := func(what string, at int64, misses bool, unseen int64, dropped uint64, change func(f *flow, other *activity)) {
		t.Helper()
		_, f := openTCP(t, Default(), Deps{})
		by, other := otherFlow(7)
		f.dedup.reporter = by
		f.dedup.unseenSince, f.dedup.droppedBytes = [2]int64{since, since}, [2]uint64{5, 6}
		f.dedup.unseenTop = [2]uint64{knownTop | 1010, knownTop | 1010}
		other.progress.Store(since + silentAfter)
		change(f, other)
		p := &packet{Segment: reassembly.Segment{Time: at, Seq: 2000, Payload: []byte("abc"), Size: 3}}
		if got := f.reporterMisses(p, 1); got != misses || f.dedup.unseenSince[1] != unseen || f.dedup.droppedBytes[1] != dropped || f.dedup.lastFrom != [2]int64{0, at} {
			t.Errorf("%s: misses %t, unseen since %d, %d bytes, last %v", what, got, f.dedup.unseenSince[1]-since, f.dedup.droppedBytes[1], f.dedup.lastFrom)
		}
		if unseen == at && f.dedup.unseenTop[1] != knownTop|2003 {
			t.Errorf("%s: unseen is %#x", what, f.dedup.unseenTop[1])
		}
	}
	nothing := func(*flow, *activity) {}
	top := func(seq uint64) func(*flow, *activity) {
		return func(_ *flow, other *activity) { other.prints[1].top.Store(knownTop | seq) }
	}
	check("the first packet", since+1, false, since+1, 3, func(f *flow, _ *activity) { f.dedup.unseenSince[1] = 0 })
	check("times were set back a little", since-maxLag, false, since, 9, nothing)
	check("times were set back", since-maxLag-1, false, since-maxLag-1, 3, nothing)
	check("the reporter has seen it", since+5, false, since+5, 3, top(1010))
	check("the reporter has seen more", since+5, false, since+5, 3, top(1011))
	check("the reporter has seen less", since+5, false, since, 9, top(1009))
	check("not long enough", since+silentAfter-1, false, since, 9, nothing)
	check("long enough", since+silentAfter, true, since, 6, nothing)
	late := func(_ *flow, other *activity) { other.progress.Store(since + silentAfter - 1) }
	check("the other Table is late", since+maxLag-1, false, since, 9, late)
	check("the other Table has stopped", since+maxLag, true, since, 6, late)
	check("another flow has the claim", since+silentAfter, false, 0, 0, func(f *flow, _ *activity) {
		f.releaseClaims()
		f.table.dedup.tryClaim(f.ownKey(), claimantOf(9, 0, 0, since+silentAfter), true)
	})

	// A packet without payload, and a datagram, are found by their times.
	_, f := openTCP(t, Default(), Deps{})
	by, other := otherFlow(7)
	f.dedup.reporter = by
	for _, udp := range []bool{false, true} {
		p := &packet{Segment: reassembly.Segment{Time: since}}
		if udp {
			f.key.proto, p.Size = protoUDP, 3
		}
		f.dedup.unseenSince[0], f.dedup.unseenTop[0] = 0, 7
		if f.reporterMisses(p, 0) || f.dedup.unseenTop[0] != 0 || f.dedup.unseenSince[0] != since {
			t.Errorf("no payload of TCP: unseen is %#x", f.dedup.unseenTop[0])
		}
	}
	other.seen[0].Store(since - copyDelay)
	if !f.isSeenByReporter(0) {
		t.Error("a packet as late as a copy may be is not seen")
	}
	if other.seen[0].Store(since - copyDelay - 1); f.isSeenByReporter(0) {
		t.Error("an earlier packet is seen")
	}
}

// TestNextReporterHasSeenTheConnectionSinceThen.
func TestNextReporterHasSeenTheConnectionSinceThen(t *testing.T) {
	const since = int64(1e12)
	find := func(what string, owner uint64, seen int64, want bool) {
		t.Helper()
		_, f := openTCP(t, Default(), Deps{})
		f.first, f.dedup.reporter.owner = since-int64(1e11), 7
		f.releaseClaims()
		f.table.dedup.tryClaim(f.ownKey(), claimantOf(owner, 0, 0, seen), true)
		if found, ok := f.findReporter(since); ok != want || ok && found.owner != owner {
			t.Errorf("%s: found %t, flow %d", what, ok, found.owner)
		}
	}
	find("as late as a copy may be", 9, since-copyDelay, true)
	find("not since then", 9, since-copyDelay-1, false)
	find("the reporter itself", 7, since, false)
	_, f := openTCP(t, Default(), Deps{})
	if _, ok := f.findReporter(since); ok {
		t.Error("its own claim is that of another one")
	}
}

// TestSilentReporterLosesItsClaims, unless it still sees the other end, or the flow is foreign to its bridge.
func TestSilentReporterLosesItsClaims(t *testing.T) {
	const at = startTime + int64(1e12)
	check := func(what string, seen, last int64, foreign, half, lost bool) {
		t.Helper()
		test, f := openTCP(t, Default(), Deps{})
		by := claimantOf(7, 0, 0, at)
		f.releaseClaims()
		f.table.dedup.tryClaim(f.ownKey(), by, true)
		sender := f.clientSide
		by.activity.seen[sender].Store(0)
		by.activity.seen[sender^1].Store(seen)
		f.dedup.state, f.dedup.reporter, f.dedup.foreign = duplicate, reporter{owner: 7, activity: by.activity}, foreign
		f.dedup.lastFrom[sender^1] = last
		p := &packet{iface: f.key.iface, src: f.key.a, dst: f.key.b, sport: f.key.aport, dport: f.key.bport, proto: protoTCP}
		p.Time = at
		confidence := f.stats.directionConfidence
		next := test.takeOver(f, p, sender)
		if next.dedup.halfOnly != half || next.dedup.apart != (foreign && !half) || by.activity.lost.Load() != lost || next.clientSide != sender || next.stats.directionConfidence != confidence {
			t.Errorf("%s: half %t, apart %t, lost %t", what, next.dedup.halfOnly, next.dedup.apart, by.activity.lost.Load())
		}
		if half || foreign {
			if next.dedup.state != primary || next.dedup.candidate || !next.dedup.confirmed || next.dedup.reporter.owner != 7 {
				t.Errorf("%s: %+v", what, next.dedup)
			}
		}
		if got := counterValue(test.metrics.takeovers); got != 1 {
			t.Errorf("%s: %v are counted", what, got)
		}
	}
	const old = at - silentAfter - 1
	check("it sees neither end", old, old, false, false, true)
	check("it sees the other end", at-silentAfter, old, false, true, false)
	check("both see the other end", at-silentAfter, at-silentAfter, false, false, true)
	check("it sees neither end of a foreign connection", old, old, true, false, false)
	check("it sees the other end of a foreign connection", at, old, true, true, false)
}

// TestContradictionIsOtherBytesInOnePlace, or bytes that the duplicate never gets.
func TestContradictionIsOtherBytesInOnePlace(t *testing.T) {
	const at = startTime + int64(1e9)
	base := uint32(1001)
	type segment struct {
		off     uint32
		flags   uint8
		payload string
		change  func(p *packet)
	}
	check := func(what string, s segment, back bool, off int, change func(f *flow, end uint8), prints ...payloadPrint) *flow {
		t.Helper()
		test, f := openTCP(t, Default(), Deps{})
		test.segment(">", "A", 0, 0, "abcdef")
		by, other := otherFlow(7)
		end := f.clientSide
		f.dedup.state, f.dedup.reporter = duplicate, by
		for i, print := range prints {
			other.prints[end].list[i].Store(uint64(print))
		}
		p := &packet{proto: protoTCP, Segment: reassembly.Segment{Seq: base + s.off, Flags: s.flags | reassembly.ACK, Payload: []byte(s.payload), Size: len(s.payload), Time: at}}
		sender := end
		if back {
			sender, p.Seq = end^1, 5001+s.off
		}
		if s.change != nil {
			s.change(p)
		}
		if change != nil {
			change(f, end)
		}
		if from, found := f.findContradiction(p, sender, end); found != (off >= 0) || found && from != base+uint32(off) {
			t.Errorf("%s: found %t at %d, want %d", what, found, int32(from-base), off)
		}
		return f
	}
	const none = -1
	ack, later := segment{off: 6}, segment{off: 6, payload: "gh"}
	check("nothing is published", ack, false, none, nil)
	f := check("the same", ack, false, none, nil, printAt(base, "abc"), printAt(base+3, "de"))
	if got := f.dedup.comparedTop[f.clientSide]; got != knownTop|uint64(base+5) {
		t.Errorf("compared up to %#x", got)
	}
	check("other bytes", ack, false, 0, nil, printAt(base, "aXc"))
	check("other bytes behind the same", ack, false, 3, nil, printAt(base, "abc"), printAt(base+3, "dXf"))
	check("other bytes, of the other side's packet", segment{}, true, 3, nil, printAt(base+3, "dXf"))
	check("of UDP", ack, false, none, func(f *flow, _ uint8) { f.key.proto = protoUDP }, printAt(base, "aXc"))
	check("the reporter is gone", ack, false, none, func(f *flow, _ uint8) { f.dedup.reporter.owner++ }, printAt(base, "aXc"))

	open := printAt(base+3, "defgh")
	f = check("bytes that are not here yet", ack, false, none, nil, open)
	if end := f.clientSide; f.dedup.openPrint[end] != open || f.dedup.openSince[end] != at {
		t.Errorf("%#x is awaited since %d", f.dedup.openPrint[end], f.dedup.openSince[end])
	}
	since := func(since int64) func(f *flow, end uint8) {
		return func(f *flow, end uint8) { f.dedup.openPrint[end], f.dedup.openSince[end] = open, since }
	}
	check("they are late", ack, false, none, since(at-copyDelay), open)
	check("they do not come", ack, false, 3, since(at-copyDelay-1), open)
	f = check("they come", later, false, none, since(at-copyDelay-1), open)
	if f.dedup.openPrint[f.clientSide] != 0 {
		t.Error("they are awaited although they came")
	}
	check("a FIN in their place", segment{off: 6, flags: reassembly.FIN}, false, 3, nil, open)
	check("a FIN elsewhere", segment{off: 9, flags: reassembly.FIN}, false, none, nil, open)
	check("a FIN of the other side", segment{flags: reassembly.FIN}, true, none, nil, open)
	check("a FIN behind them", segment{off: 6, flags: reassembly.FIN, payload: "gh"}, false, none, nil, open)
	check("a RST in their place", segment{off: 6, flags: reassembly.RST}, false, 3, nil, open)
	check("a RST elsewhere", segment{off: 7, flags: reassembly.RST}, false, none, nil, open)
	check("a RST of the other side", segment{flags: reassembly.RST}, true, 3, nil, open)
	check("bytes far behind", ack, false, none, nil, printAt(base+6, "gh"))

	own := segment{off: 3, payload: "XYZ"}
	known := printAt(base+3, "def")
	check("other bytes with the bounds of a print", own, false, 3, nil, known)
	check("other bytes that the reporter has, too", own, false, none, nil, known, printAt(base+3, "XYZ"))
	check("other bytes with other bounds", segment{off: 3, payload: "XY"}, false, none, nil, known)
	check("bytes in doubt", segment{off: 3, payload: "XYZ", change: func(p *packet) { p.Doubtful = true }}, false, none, nil, known)
	check("bytes of a RST", segment{off: 3, payload: "XYZ", flags: reassembly.RST}, false, none, nil, known)
	check("a keep-alive", segment{off: 5, payload: "X"}, false, none, nil, printAt(base+5, "f"))
	check("a byte before the last", segment{off: 4, payload: "X"}, false, 4, nil, printAt(base+4, "e"))
	compared := func(f *flow, end uint8) { f.dedup.comparedTop[end] = knownTop | uint64(base+6) }
	check("what was compared", ack, false, none, compared, printAt(base, "aXc"))
	check("what was compared, and is repeated", segment{off: 2, payload: "c"}, false, 0, compared, printAt(base, "aXc"))
	check("what was compared, and others are repeated", segment{off: 3, payload: "def"}, false, none, compared, printAt(base, "aXc"))
	check("what was not compared", ack, false, 0, func(f *flow, end uint8) { f.dedup.comparedTop[end] = knownTop | uint64(base+2) }, printAt(base, "aXc"))

	// Behind the first ones only the last ones count.
	many := make([]payloadPrint, keptPrints+1)
	many[0], many[keptPrints] = printAt(base, "aXc"), printAt(base, "abc")
	check("the first ones", ack, false, none, nil, many...)
	many[keptPrints] = printAt(base+1, "X")
	check("the last ones", ack, false, 1, nil, many...)
}

// TestPrintsOfTwoFlowsAreCompared with those that were published, and with the bytes that were delivered.
func TestPrintsOfTwoFlowsAreCompared(t *testing.T) {
	const base = 1001
	check := func(what string, want copyState, prints ...payloadPrint) {
		t.Helper()
		test, f := openTCP(t, Default(), Deps{})
		test.segment(">", "A", 0, 0, "abc")
		test.segment(">", "A", 3, 0, "def")
		by, other := otherFlow(7)
		for i, print := range prints {
			other.prints[f.clientSide].list[i].Store(uint64(print))
		}
		if got := f.comparePrints(by); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
		by.reversed = true // the other end has sent nothing
		if got := f.comparePrints(by); got != copyUnknown {
			t.Errorf("%s: %d of the other end", what, got)
		}
		by.owner++
		if got := f.comparePrints(by); got != copyUnknown || f.hasOpenPrint(by, f.clientSide) || by.covers(f.clientSide, 0) {
			t.Errorf("%s: %d of a flow that is gone", what, got)
		}
	}
	check("none", copyUnknown)
	check("the same", copySame, printAt(base, "abc"))
	check("the same bytes with other bounds", copySame, printAt(base+1, "bcde"))
	check("other bytes with the same bounds", copyDiffers, printAt(base, "abX"))
	check("other bytes with other bounds", copyDiffers, printAt(base+1, "bcX"))
	check("one that differs behind the same", copyDiffers, printAt(base, "abc"), printAt(base+3, "deX"))
	check("bytes behind", copyUnknown, printAt(base+6, "ghi"))
	check("bytes that end behind", copyUnknown, printAt(base+4, "efgh"))
	check("behind an empty place", copyUnknown, 0, printAt(base, "abc"))

	test, f := openTCP(t, Default(), Deps{})
	test.segment(">", "A", 0, 0, "abc")
	by, other := otherFlow(7)
	open := func(print payloadPrint, want bool) {
		t.Helper()
		other.prints[f.clientSide].list[3].Store(uint64(print))
		if got := f.hasOpenPrint(by, f.clientSide); got != want {
			t.Errorf("%#x is open: %t", print, got)
		}
		if f.hasOpenPrint(by, f.clientSide^1) {
			t.Error("an end without payload has an open print")
		}
	}
	open(printAt(base+1, "bcd"), true)
	open(printAt(base+1, "bc"), false)
	open(printAt(base+3, "d"), false)
	open(0, false)
	covers := func(top uint64, seq uint32, want bool) {
		t.Helper()
		other.prints[0].top.Store(top)
		if got := by.covers(0, seq); got != want {
			t.Errorf("%#x covers %d: %t", top, seq, got)
		}
	}
	covers(knownTop|1000, 1000, true)
	covers(knownTop|1001, 1000, true)
	covers(knownTop|999, 1000, false)
	covers(0, 0, false)
	covers(knownTop|5, 0xfffffff0, true)
}

// TestChecksumsOfASenderDecide: in a file they are in doubt, and from a ring the packet is dropped.
func TestChecksumsOfASenderDecide(t *testing.T) {
	check := func(what string, source checksumSource, before checksumCounts, p packet, dropped, doubtful bool) {
		t.Helper()
		_, f := openTCP(t, Default(), Deps{})
		f.table.decoder.checksums = source
		f.checksums[1] = before
		marks := f.marks
		if got := f.rejectsChecksum(&p, 1); got != dropped || p.Doubtful != doubtful || (f.marks != marks) != (dropped && source == checksumsFilledIn) {
			t.Errorf("%s: dropped %t, doubtful %t, marks %b", what, got, p.Doubtful, f.marks)
		}
		want := before
		if p.checksum == sumWrong {
			want.wrong++
		} else {
			want.plausible++
		}
		if f.checksums[1] != want {
			t.Errorf("%s: %+v", what, f.checksums[1])
		}
	}
	wrong := func(size int, flags uint8) packet {
		return packet{checksum: sumWrong, proto: protoTCP, Segment: reassembly.Segment{Size: size, Flags: flags}}
	}
	datagram := wrong(3, 0)
	datagram.proto = protoUDP
	const file, ring = checksumsUnknown, checksumsFilledIn
	filled := checksumCounts{plausible: 5}
	check("right", file, filled, packet{checksum: sumPlausible, proto: protoTCP}, false, false)
	check("all wrong so far", file, checksumCounts{}, wrong(3, reassembly.ACK), false, false)
	check("all wrong so far, of a ring", ring, checksumCounts{}, wrong(3, reassembly.ACK), false, false)
	check("wrong", file, filled, wrong(3, reassembly.ACK), false, true)
	check("wrong, of a ring", ring, filled, wrong(3, reassembly.ACK), true, false)
	check("a SYN", file, filled, wrong(0, reassembly.SYN), true, true)
	check("a RST", file, filled, wrong(0, reassembly.RST), true, true)
	check("a datagram", file, filled, datagram, false, false)
	check("a datagram of a ring", ring, filled, datagram, true, false)
	check("as large as an unmerged one", file, filled, wrong(maxUnmerged, 0), false, true)
	check("a merged one", file, filled, wrong(maxUnmerged+1, 0), false, false)
	check("a merged one of a ring", ring, filled, wrong(maxUnmerged+1, 0), true, false)
	check("many are wrong, but fewer than right ones", file, checksumCounts{plausible: 9, wrong: 8}, wrong(3, 0), false, true)
	check("most are wrong", file, checksumCounts{plausible: 8, wrong: 8}, wrong(3, 0), false, false)
	check("most of a few are wrong", file, checksumCounts{plausible: 1, wrong: maxWrong - 1}, wrong(3, 0), false, true)
}

// TestRoundTripOfTheClientIsMeasuredOnce: by its first acknowledgement of the SYN-ACK.
func TestRoundTripOfTheClientIsMeasuredOnce(t *testing.T) {
	check := func(what string, dir reassembly.Dir, flags uint8, want int64, change func(f *flow)) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{})
		test.segment(">", "S", 0, 0, "")
		f := test.timers[0]
		f.stats.synAckAt, f.stats.rttServer = 100, 7
		change(f)
		before := f.stats.rttClient
		f.measureClientRTT(&packet{Segment: reassembly.Segment{Flags: flags, Time: 130}}, dir)
		if got := f.stats.rttClient - before; got != want {
			t.Errorf("%s: %d ns, want %d", what, got, want)
		}
	}
	nothing := func(*flow) {}
	check("its ACK", fromClient, reassembly.ACK, 30, nothing)
	check("with bytes", fromClient, reassembly.ACK|reassembly.PSH, 30, nothing)
	check("of the server", fromServer, reassembly.ACK, 0, nothing)
	check("a RST", fromClient, reassembly.ACK|reassembly.RST, 0, nothing)
	check("a SYN", fromClient, reassembly.ACK|reassembly.SYN, 0, nothing)
	check("no ACK", fromClient, 0, 0, nothing)
	check("no SYN-ACK", fromClient, reassembly.ACK, 0, func(f *flow) { f.stats.synAckAt = 0 })
	check("measured", fromClient, reassembly.ACK, 0, func(f *flow) { f.stats.rttClient = 1 })
	check("times were set back", fromClient, reassembly.ACK, 0, func(f *flow) { f.stats.synAckAt = 131 })
}

// TestFlowIsSeenAnew: what the flow before has published is not of the next one, which uses its memory.
func TestFlowIsSeenAnew(t *testing.T) {
	for sender := range uint8(2) {
		_, f := openTCP(t, Default(), Deps{})
		f.activity.seen[0].Store(5)
		f.activity.seen[1].Store(6)
		f.activity.lost.Store(true)
		for i := range f.activity.prints {
			f.activity.prints[i].list[1].Store(9)
		}
		f.resetActivity(startTime, sender)
		seen, other := f.activity.seen[sender].Load(), f.activity.seen[sender^1].Load()
		if seen != startTime || other != 0 || f.activity.lost.Load() || f.activity.owner.Load() != f.id || f.dedup.published[sender] != startTime ||
			f.activity.prints[0].list[1].Load() != 0 || f.activity.prints[1].list[1].Load() != 0 {
			t.Errorf("sender %d: seen %d and %d", sender, seen, other)
		}
	}
}

// TestEventHasEachInterfaceOnce, its own first.
func TestEventHasEachInterfaceOnce(t *testing.T) {
	test, f := openTCP(t, Default(), Deps{})
	event := &pipeline.Event{Interfaces: []string{"before"}}
	check := func(want ...string) {
		t.Helper()
		f.setInterfaces(event)
		if len(event.Interfaces) != len(want) {
			t.Fatalf("%v, want %v", event.Interfaces, want)
		}
		for i := range want {
			if event.Interfaces[i] != want[i] {
				t.Errorf("%v, want %v", event.Interfaces, want)
			}
		}
	}
	check("eth0")
	by := claimantOf(9, test.dedup.ifaceID("docker0"), startTime, startTime)
	check("eth0")
	for range 2 {
		test.dedup.lookUpClaim(f.ownKey(), by)
		check("eth0", "docker0")
	}
	by.iface = test.dedup.ifaceID("eth0")
	test.dedup.lookUpClaim(f.ownKey(), by)
	check("eth0", "docker0")
	by.iface = test.dedup.ifaceID("veth1")
	test.dedup.lookUpClaim(f.ownKey(), by)
	check("eth0", "docker0", "veth1")
	f.releaseClaims()
	check("eth0")
	if got := appendNew([]string{"a"}, ""); len(got) != 1 {
		t.Errorf("%v", got)
	}
}

// TestDatagramsAreComparedByTheirPrintsOnly: they have no place in a stream, so that another one of the same length says nothing.
func TestDatagramsAreComparedByTheirPrintsOnly(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	frame := udpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), 1, "abc")
	test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
	f := test.timers[0]
	check := func(what string, want copyState, print payloadPrint) {
		t.Helper()
		by, other := otherFlow(7)
		other.prints[f.clientSide].list[0].Store(uint64(print))
		if got := f.comparePrints(by); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	print := newDatagramPrint([]byte("abc"))
	check("the same", copySame, print)
	check("another one", copyUnknown, newDatagramPrint([]byte("abX")))
	check("another one with the same place and length", copyUnknown, print^1)
	check("none", copyUnknown, 0)
}

// TestPrintsWithoutTheirBytesAreCompared: of a segment whose bytes are no longer held, a print with the same place and length
// and another payload shows another connection; one with another length shows nothing.
func TestPrintsWithoutTheirBytesAreCompared(t *testing.T) {
	_, f := openTCP(t, Default(), Deps{})
	const place = 500_000 // far from what was delivered
	end := f.clientSide
	f.activity.prints[end].list[0].Store(uint64(newPrint(place, 3, 7<<20)))
	f.activity.prints[end].list[1].Store(uint64(newPrint(place+3, 5, 9<<20)))
	check := func(what string, want copyState, other payloadPrint) {
		t.Helper()
		if got := f.comparePrint(end, other); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	own := payloadPrint(f.activity.prints[end].list[1].Load())
	check("the same", copySame, own)
	check("another payload", copyDiffers, own^1)
	check("another payload of the first", copyDiffers, payloadPrint(f.activity.prints[end].list[0].Load())^1)
	check("another length", copyUnknown, newPrint(place+3, 4, 9<<20))
	check("another place", copyUnknown, newPrint(place+4, 5, 9<<20))
	if got := f.comparePrint(end^1, own); got != copyUnknown {
		t.Errorf("of the other end: %d", got)
	}
}

// TestDuplicateFreesItsParserAndItsBytes when its parser has returned; another flow keeps them.
func TestDuplicateFreesItsParserAndItsBytes(t *testing.T) {
	check := func(what string, state dedupState, hasParser, waits, wantFreed bool) {
		t.Helper()
		test, f := openTCP(t, Default(), Deps{})
		test.segment(">", "A", 0, 0, "abc")
		if waits {
			test.segment(">", "A", 6, 0, "ghi") // behind a hole
		}
		if (f.stream.Buffered() > 0) != waits {
			t.Fatalf("%s: %d bytes wait", what, f.stream.Buffered())
		}
		if !hasParser {
			f.closeProtocol()
		}
		f.dedup.state = state
		f.closeIfDuplicate()
		closed := strings.HasSuffix(test.recorder.log.String(), "close ")
		if freed := f.conn == nil && f.stream.Buffered() == 0; freed != wantFreed || closed != (wantFreed || !hasParser) {
			t.Errorf("%s: freed is %t, closed is %t, want %t: %s", what, freed, closed, wantFreed, test.recorder.log.String())
		}
		f.dedup.state = primary
	}
	check("a duplicate with bytes that wait", duplicate, true, true, true)
	check("a duplicate without", duplicate, true, false, true)
	check("a duplicate without a parser", duplicate, false, true, true)
	check("a primary", primary, true, true, false)
	check("one that is not decided", pending, true, true, false)
}
