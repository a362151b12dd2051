package sessions

import (
	"tidegate/collector/reassembly"
	"tidegate/protocols"
)

// sessionStats holds the counts and times that event.go copies into the session's event.
type sessionStats struct {
	sides [2]sideStats // by sender

	synAt, synAckAt      int64 // packet times of the last SYN and SYN-ACK, 0 not seen
	rttServer, rttClient int64 // ns, from the point of capture to the server or client and back; 0 not measured
	requestAt, replyAt   int64 // packet times of the client's first bytes, and of the server's first bytes after those

	repeatedSYNs, repeatedSYNACKs uint32
	zeroWindows, reordered        uint32
	conflicts                     uint32

	history             history
	directionConfidence uint8  // percent
	flipped             bool   // the parser found that the client is the server
	partialStart        bool   // the first packet was from the middle of a stream
	protocol            string // "" not recognised
}

// sideStats holds the counts of one sender.
type sideStats struct {
	packets, bytes  uint64
	missing         uint64 // bytes that were never seen
	retransmissions uint32
}

// addPayload records that dir has sent payload at the packet time at.
func (s *sessionStats) addPayload(dir reassembly.Dir, at int64) {
	s.history.addKind(kindData, dir)
	if s.requestAt == 0 && dir == fromClient {
		s.requestAt = at
	} else if s.replyAt == 0 && dir == fromServer && s.requestAt != 0 {
		s.replyAt = at
	}
}

// Data implements reassembly.Handler. It counts the bytes, publishes their print and passes them to the parser.
func (f *flow) Data(dir reassembly.Dir, data []byte, at int64) {
	f.stats.sides[dir].bytes += uint64(len(data))
	f.publishDelivered(uint8(dir)^f.clientSide, data)
	if f.conn != nil {
		f.conn.Data(protocols.Dir(dir), data, at)
	}
}

// Gap implements reassembly.Handler. It counts the gap and passes it to the parser. Bytes that the capture
// cut off are also counted as bytes of the session, because their packet was seen. What comes behind a conflict is
// not read as the rest of what came before.
func (f *flow) Gap(dir reassembly.Dir, n int, why reassembly.GapReason) {
	f.table.metrics.gaps[why].Inc()
	f.table.metrics.gapBytes[why].Add(float64(n))
	if why == reassembly.GapConflict { // nothing is missing
		if f.conn != nil {
			f.conn.Restart(f.table.clock.packetTime)
		}
		return
	}
	f.stats.history.addKind(kindGap, dir)
	side := &f.stats.sides[dir]
	side.missing += uint64(n)
	if why == reassembly.GapCut {
		side.bytes += uint64(n)
	}
	if f.conn != nil {
		f.conn.Gap(protocols.Dir(dir), n, f.table.clock.packetTime)
	}
}

// End implements reassembly.Handler. It passes the end to the parser.
func (f *flow) End(d reassembly.Dir) {
	if f.conn != nil {
		f.conn.End(protocols.Dir(d), f.table.clock.packetTime)
	}
}

// Observe implements reassembly.Handler. It updates the statistics of the session.
func (f *flow) Observe(dir reassembly.Dir, kind reassembly.Observation, at int64) {
	stats := &f.stats
	switch kind {
	// Payload and acknowledgements: nearly all segments.
	case reassembly.Data:
		stats.addPayload(dir, at)
	case reassembly.PureACK:
		stats.history.addKind(kindPureACK, dir)

	// The handshake. The time between SYN and SYN-ACK is the round trip between here and the server; a
	// repeated SYN restarts the measurement.
	case reassembly.FirstSYN:
		stats.partialStart = false
		stats.synAt = at
		stats.history.addKind(kindSYN, dir)
		if dir == fromClient {
			stats.directionConfidence = 100
		}
	case reassembly.FirstSYNACK:
		stats.partialStart = false
		stats.synAckAt = at
		stats.history.addKind(kindSYNACK, dir)
		if stats.synAt != 0 && dir == fromServer {
			stats.rttServer = max(at-stats.synAt, 0)
			f.stream.SetRTT(stats.rttServer + stats.rttClient)
		}
	case reassembly.RepeatedSYN:
		stats.repeatedSYNs++
		stats.synAt = at
		stats.history.addKind(kindRetransmission, dir)
	case reassembly.RepeatedSYNACK:
		stats.repeatedSYNACKs++
		stats.synAckAt = at
		stats.history.addKind(kindRetransmission, dir)

	// The end.
	case reassembly.CloseRequest:
		stats.history.addKind(kindFIN, dir)
	case reassembly.ValidReset:
		stats.history.addKind(kindReset, dir)

	// Trouble on the network or in the capture.
	case reassembly.Retransmission:
		stats.sides[dir].retransmissions++
		stats.history.addKind(kindRetransmission, dir)
	case reassembly.Reordered:
		stats.reordered++
	case reassembly.ZeroWindow:
		stats.zeroWindows++
		stats.history.addKind(kindZeroWindow, dir)
	case reassembly.OverlapConflict:
		stats.conflicts++
		f.marks |= markConflict
		f.table.metrics.conflicts.Inc()
	case reassembly.CopyDropped:
		f.table.metrics.droppedCopies.Inc()
	case reassembly.UrgentByte:
		stats.sides[dir].bytes++
		stats.history.addKind(kindUrgent, dir)
		f.marks |= markUrgent
		f.table.metrics.urgentBytes.Inc()
	case reassembly.DoubtfulDropped:
		if f.marks&markHeaders == 0 {
			f.markChecksum(dir)
		}
	case reassembly.NotRepeated:
		if f.conn != nil {
			f.conn.TellCut(protocols.Dir(dir))
		}
	case reassembly.OutsideWindow:
		f.table.metrics.segmentsOutside.Inc()
	case reassembly.BeforeStart:
		f.table.metrics.segmentsBeforeStart.Inc()
	}
}

// measureClientRTT sets the round-trip time to the client if p is the client's first ACK: the time since the
// SYN-ACK.
func (f *flow) measureClientRTT(p *packet, dir reassembly.Dir) {
	stats := &f.stats
	if dir != fromClient || stats.synAckAt == 0 || stats.rttClient != 0 || f.stream.Established() {
		return
	}
	if p.Flags&(reassembly.ACK|reassembly.SYN|reassembly.RST) == reassembly.ACK {
		stats.rttClient = max(p.Time-stats.synAckAt, 0)
		f.stream.SetRTT(stats.rttServer + stats.rttClient)
	}
}
