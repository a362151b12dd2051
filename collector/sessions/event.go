package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

var zeroID pipeline.ID

// emitSession emits the event of the session. state "" is what it looks like.
func (f *flow) emitSession(state string) {
	t := f.t
	if state == "" {
		if state = stateShutdown; f.isClosing {
			state = f.closedState()
		}
	}
	if f.dedup != duplicate && f.session == zeroID {
		f.openConn(f.half[0].base-1, true)
		f.closeConn()
	}
	t.m.closed[state].Inc()
	if f.dedup == duplicate {
		f.dropOutbox()
		return
	}
	f.emitEvent(f.event(state))
	if f.dedup == pending {
		f.resolveDedup(true, "end")
	}
	f.dropOutbox()
}

// event is dataset session.
func (f *flow) event(state string) *pipeline.Event {
	c, s := &f.half[0], &f.half[1]
	client, server := f.endpoints()
	if f.flipped {
		c, s, client, server = s, c, server, client
	}
	e := pipeline.EventFromVTPool()
	e.Id = append(e.Id[:0], f.session[:]...)
	e.Dataset = pipeline.Dataset_SESSION
	e.Timestamp = f.first
	e.Duration = uint64(max(f.last-f.first, 0))
	e.Transport = f.transport()
	e.Vlan = uint32(f.vlan)
	e.Outcome = outcome(state)
	e.Partial = c.missing+s.missing > 0 || f.partialStart && f.key.proto == protoTCP
	id := pipeline.CommunityID(e.Transport, client, server)
	e.CommunityId = append(e.CommunityId[:0], id[:]...)
	e.Source, e.Destination = pipeline.EndpointFromVTPool(), pipeline.EndpointFromVTPool()
	endpoint(e.Source, client, c)
	endpoint(e.Destination, server, s)
	b := e.Session
	if b == nil {
		b = pipeline.SessionFromVTPool()
		e.Session = b
	}
	b.History = f.historyString()
	b.State = state
	if f.flipped {
		switch state {
		case stateResetClient:
			b.State = stateResetServer
		case stateResetServer:
			b.State = stateResetClient
		}
	}
	b.RttClient, b.RttServer = uint64(f.rttClient), uint64(f.rttServer)
	if f.replyAt > f.requestAt && f.requestAt != 0 {
		b.ResponseTime = uint64(f.replyAt - f.requestAt)
	}
	b.SynRetransmissions, b.SynackRetransmissions = f.synAgain, f.synAckAgain
	b.ClientRetransmissions, b.ServerRetransmissions = c.retransmissions, s.retransmissions
	b.ZeroWindows, b.OutOfOrder, b.OverlapConflicts = f.zeroWindows, f.outOfOrder, f.conflicts
	b.ClientMissingBytes, b.ServerMissingBytes = c.missing, s.missing
	b.DirectionConfidence = uint32(f.directionConfidence)
	if f.flipped {
		b.DirectionConfidence = 90
	}
	b.Protocol = f.protocol
	return e
}

func endpoint(p *pipeline.Endpoint, a netip.AddrPort, h *halfStream) {
	setAddress(p, a)
	p.Bytes, p.Packets = h.bytes, h.packets
}

func setAddress(p *pipeline.Endpoint, a netip.AddrPort) {
	p.Ip = appendIP(p.Ip[:0], a.Addr())
	p.Port = uint32(a.Port())
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

// historyString is the history; "^" in front says that client and server were exchanged.
func (f *flow) historyString() string {
	h := f.history[:f.historyLen]
	if !f.flipped {
		if s, ok := commonHistories[string(h)]; ok {
			return s
		}
		return string(h)
	}
	b := make([]byte, 0, len(f.history)+1)
	b = append(b, '^')
	for _, l := range h {
		b = append(b, l^0x20)
	}
	return string(b)
}

// commonHistories holds histories that recur, so that they need no memory of their own.
var commonHistories = func() map[string]string {
	m := map[string]string{}
	for _, s := range []string{"Dd", "D", "ShADadFf", "ShADadfF", "ShADdaFf", "ShADdafF", "ShAdDaFf", "ShAdDaFfA", "ShADaFdf", "S", "Sr", "ShADadFfA", "ShADadR", "ShADadr", "ShADFdfa", "ShAFf", "ShADadFRf", "ShADdFf", "ShADadFfR", "ShADdaf", "ShADad"} {
		m[s] = s
	}
	return m
}()
