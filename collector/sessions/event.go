package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// emitSession emits the event of the session, and decides whether f is a duplicate if that is still open.
// state "" means that f decides: shutdown, unless it is closing.
func (f *flow) emitSession(state string) {
	if state == "" {
		state = stateShutdown
		if _, closing := f.stream.Closing(); closing {
			state = f.closedState()
		}
	}
	f.t.m.closed[state].Inc()
	if f.dedup.state == duplicate {
		f.dropOutbox()
		return
	}
	f.emitEvent(f.sessionEvent(state))
	if f.dedup.state == pending {
		f.resolveDedup(true, decidedByEnd)
	}
	f.dropOutbox()
}

// sessionEvent returns the event of dataset session.
func (f *flow) sessionEvent(state string) *pipeline.Event {
	s := &f.stats
	clientStats, serverStats := &s.sides[fromClient], &s.sides[fromServer]
	client, server := f.endpoints()
	confidence := s.directionConfidence
	if s.flipped {
		clientStats, serverStats, client, server = serverStats, clientStats, server, client
		state = flippedState(state)
		confidence = 90
	}

	e := pipeline.EventFromVTPool()
	e.Id = append(e.Id[:0], f.session[:]...)
	e.Dataset = pipeline.Dataset_SESSION
	e.Timestamp = f.first
	e.Duration = uint64(max(f.last-f.first, 0))
	e.Transport = f.transport()
	e.Vlan = uint32(f.vlan)
	e.Outcome = outcome(state)
	e.Partial = clientStats.missing+serverStats.missing > 0 || s.partialStart && f.key.proto == protoTCP
	id := pipeline.CommunityID(e.Transport, client, server)
	e.CommunityId = append(e.CommunityId[:0], id[:]...)
	e.Source, e.Destination = pipeline.EndpointFromVTPool(), pipeline.EndpointFromVTPool()
	setEndpoint(e.Source, client, clientStats)
	setEndpoint(e.Destination, server, serverStats)

	b := e.Session
	if b == nil {
		b = pipeline.SessionFromVTPool()
		e.Session = b
	}
	b.History = s.history.historyText(s.flipped)
	b.State = state
	b.RttClient, b.RttServer = uint64(s.rttClient), uint64(s.rttServer)
	if s.replyAt > s.requestAt && s.requestAt != 0 {
		b.ResponseTime = uint64(s.replyAt - s.requestAt)
	}
	b.SynRetransmissions, b.SynackRetransmissions = s.repeatedSYNs, s.repeatedSYNACKs
	b.ClientRetransmissions, b.ServerRetransmissions = clientStats.retransmissions, serverStats.retransmissions
	b.ZeroWindows, b.OutOfOrder, b.OverlapConflicts = s.zeroWindows, s.reordered, s.conflicts
	b.ClientMissingBytes, b.ServerMissingBytes = clientStats.missing, serverStats.missing
	b.DirectionConfidence = uint32(confidence)
	b.Protocol = s.protocol
	return e
}

// flippedState returns state with the sides exchanged.
func flippedState(state string) string {
	switch state {
	case stateResetClient:
		return stateResetServer
	case stateResetServer:
		return stateResetClient
	}
	return state
}

func setEndpoint(end *pipeline.Endpoint, a netip.AddrPort, s *sideStats) {
	setAddress(end, a)
	end.Bytes, end.Packets = s.bytes, s.packets
}

func setAddress(end *pipeline.Endpoint, a netip.AddrPort) {
	end.Ip = appendIP(end.Ip[:0], a.Addr())
	end.Port = uint32(a.Port())
}

func appendIP(b []byte, ip netip.Addr) []byte {
	if ip = ip.Unmap(); ip.Is4() {
		a := ip.As4()
		return append(b, a[:]...)
	}
	a := ip.As16()
	return append(b, a[:]...)
}

func outcome(state string) pipeline.Outcome {
	switch state {
	case stateFIN:
		return pipeline.Outcome_SUCCESS
	case stateRefused, stateNoAnswer:
		return pipeline.Outcome_FAILURE
	}
	return pipeline.Outcome_UNKNOWN
}
