package sessions

import (
	"net/netip"
	"slices"
)

// A dedupState is whether the events of a flow are emitted. The package comment has the transitions.
type dedupState uint8

const (
	pending   dedupState = iota // they wait in the outbox
	primary                     // they are emitted
	duplicate                   // they are dropped: another flow reports the same connection
)

// dedup is a flow's part in finding out which copy of a connection is reported.
type dedup struct {
	state     dedupState
	onBridge  bool
	confirmed bool        // confirmPrimary was called
	claims    [2]claimKey // that the flow holds in the DedupTable
	numClaims int
}

func (d *dedup) heldClaims() []claimKey { return d.claims[:d.numClaims] }

// A decision is the reason why the state pending of a flow has ended.
type decision string

const (
	decidedByMapping decision = "mapping" // the connection tracker knows the connection
	decidedByBridge  decision = "bridge"  // a flow on a bridge reports it
	decidedByTimeout decision = "timeout"
	decidedByLimit   decision = "full" // too many events waited
	decidedByEnd     decision = "end"  // the session ended
)

var decisions = [...]decision{decidedByMapping, decidedByBridge, decidedByTimeout, decidedByLimit, decidedByEnd}

// claimFirst sets the state at the first packet. A flow on a bridge is primary unless
// another bridge has the claim; a flow elsewhere is a duplicate if a bridge has it, and pending otherwise.
func (f *flow) claimFirst() {
	t := f.t
	f.dedup.onBridge = t.ifaces.list[f.key.iface].isBridge
	own := f.ownKey()
	if f.dedup.onBridge || t.deps.Bridge == nil {
		f.dedup.state = primary
		if !f.tryClaim(own) {
			f.markDuplicate()
		}
		return
	}
	if f.isClaimedElsewhere(own) ||
		f.locateMapping() && f.canonicalKey() != own && f.isClaimedElsewhere(f.canonicalKey()) {
		f.markDuplicate()
	}
}

// ownKey returns the key of the tuple as it was seen.
func (f *flow) ownKey() claimKey {
	key := &f.key
	return claimKey{key.a, key.b, key.aport, key.bport, key.proto}
}

// canonicalKey returns the key of the tuple on the container's side. The mapping must be known.
func (f *flow) canonicalKey() claimKey {
	return newClaimKey(f.key.proto, f.nat.mapping.Client, f.nat.mapping.Server)
}

// claimant returns the fields of f that the DedupTable uses.
func (f *flow) claimant() claimant {
	return claimant{owner: f.id, iface: f.t.ifaces.list[f.key.iface].dedupID, first: f.first}
}

// tryClaim claims k for f, and reports whether no other flow holds it.
func (f *flow) tryClaim(k claimKey) bool {
	if !f.t.dedup.tryClaim(k, f.claimant()) {
		return false
	}
	if dedup := &f.dedup; !slices.Contains(dedup.heldClaims(), k) && dedup.numClaims < len(dedup.claims) {
		dedup.claims[dedup.numClaims] = k
		dedup.numClaims++
	}
	return true
}

// isClaimedElsewhere reports whether another flow holds k.
func (f *flow) isClaimedElsewhere(k claimKey) bool {
	return f.t.dedup.isClaimedByOther(k, f.claimant())
}

func (f *flow) releaseClaims() {
	f.t.dedup.releaseClaims(f.dedup.heldClaims(), f.id)
	f.dedup.numClaims = 0
}

// markDuplicate makes f a duplicate.
func (f *flow) markDuplicate() {
	f.dedup.state = duplicate
	f.t.m.duplicates.Inc()
	f.releaseClaims()
	f.dropOutbox()
}

// confirmPrimary checks, before a primary on a bridge emits its first event, whether it is the only one. By
// now the connection tracker knows the connection. It may cross bridges twice, under two tuples (a container
// that connects to a published port of its own host), or a flow elsewhere may report it already because the
// bridge's packets came late.
func (f *flow) confirmPrimary() {
	f.dedup.confirmed = true
	if !f.dedup.onBridge || !f.locateMapping() {
		return
	}
	own := f.ownKey()
	if canonical := f.canonicalKey(); canonical != own && !f.tryClaim(canonical) {
		f.markDuplicate()
		return
	}
	outside := newClaimKey(f.key.proto, f.nat.mapping.OutsideClient, f.nat.mapping.OutsideServer)
	if outside != own && f.isClaimedElsewhere(outside) {
		f.markDuplicate()
	}
}

// resolveDedup tries to end the state pending. It stays pending while a bridge may still claim the
// connection, unless force says that it can wait no longer; why is then the reason.
func (f *flow) resolveDedup(force bool, why decision) {
	table := f.t

	// The connection may be claimed under its tuple as seen here and, once the mapping is known, as seen by
	// the container.
	mappingKnown := f.locateMapping()
	keys := [2]claimKey{f.ownKey(), {}}
	numKeys := 1
	if mappingKnown {
		if key := f.canonicalKey(); key != keys[0] {
			keys[1], numKeys = key, 2
		}
	}
	for _, key := range keys[:numKeys] {
		if f.isClaimedElsewhere(key) {
			f.countDecision(decidedByBridge)
			f.markDuplicate()
			return
		}
	}
	if !force && (table.deps.NAT != nil && !mappingKnown || f.hasLocalEndpoint()) {
		return
	}

	// Claim both. A bridge may do so at the same moment; the second of the two is the duplicate.
	f.dedup.state = primary
	for _, key := range keys[:numKeys] {
		if !f.tryClaim(key) {
			f.countDecision(decidedByBridge)
			f.markDuplicate()
			return
		}
	}
	f.countDecision(why)
	f.emitOutbox()
}

// countDecision counts what ended the state pending, if events have waited for it.
func (f *flow) countDecision(why decision) {
	if len(f.outbox.events) > 0 {
		f.t.m.pendingSessions[why].Inc()
	}
}

// hasLocalEndpoint reports whether an end of f is, or is about to be known as, a container of this host. Then
// a bridge will show the connection, if the bridge is captured.
func (f *flow) hasLocalEndpoint() bool {
	if f.t.deps.Containers == nil {
		return false
	}
	client, server := f.endpoints()
	if f.nat.known {
		client, server = f.nat.mapping.Client, f.nat.mapping.Server
	}
	for _, end := range [...]netip.AddrPort{client, server} {
		if container, settled := f.t.deps.Containers.Resolve(end.Addr(), f.last); container != nil || !settled {
			return true
		}
	}
	return false
}
