package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// emitSession emits the session event of f unless f is a duplicate, and ends the wait of the outbox. If state
// is "", the state is shutdown, or closedState if f is closing.
func (f *flow) emitSession(state string) {
	if state == "" {
		state = stateShutdown
		if _, closing := f.stream.Closing(); closing {
			state = f.closedState()
		}
	}
	f.table.metrics.closed[state].Inc()
	if f.dedup.state == duplicate {
		f.dropOutbox()
		return
	}

	// The session event is the last one: a flow that is still pending is decided now.
	f.emitEvent(f.sessionEvent(state))
	if f.dedup.state == pending {
		f.resolveDedup(true, decidedByEnd)
	}
	f.dropOutbox()
}

// reportOpen emits an event of f, which is open, unless f is a duplicate or was never answered.
func (f *flow) reportOpen() {
	f.openDue = f.table.clock.now + int64(f.table.cfg.OpenInterval)
	if f.dedup.state == duplicate || f.key.proto == protoTCP && !f.stream.Established() {
		return
	}
	if f.conn != nil {
		if name := f.conn.Protocol(); name != "" {
			f.stats.protocol = name
		}
		f.stats.flipped = f.conn.Flipped()
	}
	event := f.sessionEvent(stateOpen)

	// The event of the end has the id of the session.
	const notADirection = 2
	id := pipeline.TransactionID(f.session, notADirection, uint64(f.openReports))
	f.openReports++
	event.Id = append(event.Id[:0], id[:]...)
	f.emitEvent(event)
}

// sessionEvent returns the event of dataset session.
func (f *flow) sessionEvent(state string) *pipeline.Event {
	stats := &f.stats
	clientStats, serverStats := &stats.sides[fromClient], &stats.sides[fromServer]
	client, server := f.endpoints()
	confidence := stats.directionConfidence

	// The parser may have found that the client is the server. The counts are stored by the inferred sides.
	if stats.flipped {
		clientStats, serverStats, client, server = serverStats, clientStats, server, client
		state = flippedState(state)
		confidence = 90
	}

	// The fields that events of all datasets have.
	event := pipeline.EventFromVTPool()
	event.Id = append(event.Id[:0], f.session[:]...)
	event.Dataset = pipeline.Dataset_SESSION
	event.Timestamp = f.first
	event.Duration = uint64(max(f.last-f.first, 0))
	event.Transport = f.transport()
	event.Vlan = uint32(f.vlan)
	event.Outcome = outcome(state)
	event.Partial = clientStats.missing+serverStats.missing > 0 || stats.partialStart && f.key.proto == protoTCP ||
		f.activity.lost.Load()
	if event.Transport != pipeline.Transport_TRANSPORT_NONE {
		id := pipeline.CommunityID(event.Transport, client, server)
		event.CommunityId = append(event.CommunityId[:0], id[:]...)
	}
	event.Source, event.Destination = pipeline.EndpointFromVTPool(), pipeline.EndpointFromVTPool()
	setEndpoint(event.Source, client, clientStats)
	setEndpoint(event.Destination, server, serverStats)

	if f.unopened {
		event.AddTag(pipeline.TagTunnelUnopened)
	}

	// The body of dataset session.
	session := event.Session
	if session == nil {
		session = pipeline.SessionFromVTPool()
		event.Session = session
	}
	session.History = stats.history.historyText(stats.flipped)
	session.State = state
	session.RttClient, session.RttServer = uint64(stats.rttClient), uint64(stats.rttServer)
	if stats.replyAt > stats.requestAt && stats.requestAt != 0 {
		session.ResponseTime = uint64(stats.replyAt - stats.requestAt)
	}
	session.SynRetransmissions, session.SynackRetransmissions = stats.repeatedSYNs, stats.repeatedSYNACKs
	session.ClientRetransmissions = clientStats.retransmissions
	session.ServerRetransmissions = serverStats.retransmissions
	session.ZeroWindows, session.OutOfOrder = stats.zeroWindows, stats.reordered
	session.OverlapConflicts = stats.conflicts
	session.ClientMissingBytes, session.ServerMissingBytes = clientStats.missing, serverStats.missing
	session.DirectionConfidence = uint32(confidence)
	session.Protocol = stats.protocol
	return event
}

// flippedState returns the state of the same session with client and server exchanged.
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

// setAddress sets the address and the port of end.
func setAddress(end *pipeline.Endpoint, a netip.AddrPort) {
	end.Ip = appendIP(end.Ip[:0], a.Addr())
	end.Port = uint32(a.Port())
}

// appendIP appends the 4 or 16 bytes of ip.
func appendIP(data []byte, ip netip.Addr) []byte {
	if ip = ip.Unmap(); ip.Is4() {
		a := ip.As4()
		return append(data, a[:]...)
	}
	a := ip.As16()
	return append(data, a[:]...)
}

// outcome returns the outcome of a session that ended with state.
func outcome(state string) pipeline.Outcome {
	switch state {
	case stateFIN:
		return pipeline.Outcome_SUCCESS
	case stateRefused, stateNoAnswer:
		return pipeline.Outcome_FAILURE
	}
	return pipeline.Outcome_UNKNOWN
}
