package sessions

import (
	"net/netip"
	"slices"
)

// A dedupState decides whether the events of a flow are emitted. The package comment has the transitions.
type dedupState uint8

const (
	pending   dedupState = iota // events wait in the outbox
	primary                     // events are emitted
	duplicate                   // events are dropped: another flow reports the same connection
)

// dedup is the deduplication state of a flow.
type dedup struct {
	state     dedupState
	onBridge  bool
	confirmed bool        // confirmPrimary was called
	claims    [2]claimKey // the keys that the flow has claimed in the DedupTable
	numClaims int
}

func (d *dedup) heldClaims() []claimKey { return d.claims[:d.numClaims] }

// A decision is the reason why a flow left the state pending. It is a metric label.
type decision string

const (
	decidedByMapping decision = "mapping" // the connection tracker has the connection's mapping
	decidedByBridge  decision = "bridge"  // a flow on a bridge reports it
	decidedByTimeout decision = "timeout"
	decidedByLimit   decision = "full" // the outboxes of all flows were full
	decidedByEnd     decision = "end"  // the session ended
)

var decisions = [...]decision{decidedByMapping, decidedByBridge, decidedByTimeout, decidedByLimit, decidedByEnd}

// claimFirst sets the deduplication state at the first packet. A flow on a bridge is primary, unless another
// flow has claimed the connection. A flow elsewhere is a duplicate if another flow has claimed it, and
// pending otherwise.
func (f *flow) claimFirst() {
	table := f.table
	f.dedup.onBridge = table.ifaces.list[f.key.iface].isBridge
	own := f.ownKey()
	if f.dedup.onBridge || table.deps.Bridge == nil {
		f.dedup.state = primary
		if !f.tryClaim(own) {
			f.markDuplicate()
		}
		return
	}

	// A bridge may have claimed the connection as seen here, or as seen by the container.
	if f.isClaimedElsewhere(own) ||
		f.locateMapping() && f.canonicalKey() != own && f.isClaimedElsewhere(f.canonicalKey()) {
		f.markDuplicate()
	}
}

// ownKey returns the claim key of the connection's addresses as captured.
func (f *flow) ownKey() claimKey {
	key := &f.key
	return claimKey{key.a, key.b, key.aport, key.bport, key.proto}
}

// canonicalKey returns the claim key of the connection's addresses on the container's side. The mapping must
// be known.
func (f *flow) canonicalKey() claimKey {
	return newClaimKey(f.key.proto, f.nat.mapping.Client, f.nat.mapping.Server)
}

// claimant returns f as the DedupTable identifies it.
func (f *flow) claimant() claimant {
	return claimant{owner: f.id, iface: f.table.ifaces.list[f.key.iface].dedupID, first: f.first}
}

// tryClaim claims key for f. It reports false if another flow holds the claim.
func (f *flow) tryClaim(key claimKey) bool {
	if !f.table.dedup.tryClaim(key, f.claimant()) {
		return false
	}
	if dedup := &f.dedup; !slices.Contains(dedup.heldClaims(), key) && dedup.numClaims < len(dedup.claims) {
		dedup.claims[dedup.numClaims] = key
		dedup.numClaims++
	}
	return true
}

// isClaimedElsewhere reports whether another flow holds the claim of k.
func (f *flow) isClaimedElsewhere(k claimKey) bool {
	return f.table.dedup.isClaimedByOther(k, f.claimant())
}

// releaseClaims removes the claims of f from the DedupTable.
func (f *flow) releaseClaims() {
	f.table.dedup.releaseClaims(f.dedup.heldClaims(), f.id)
	f.dedup.numClaims = 0
}

// markDuplicate makes f a duplicate and drops the events that wait.
func (f *flow) markDuplicate() {
	f.dedup.state = duplicate
	f.table.metrics.duplicates.Inc()
	f.releaseClaims()
	f.dropOutbox()
}

// confirmPrimary checks before the first event of a primary flow on a bridge whether another flow reports the
// connection already. The first packet could not show it; by the first event the connection tracker has the
// mapping. Two cases exist. The connection may cross bridges twice, under two tuples: a container connects to
// a published port of its own host. Or a flow elsewhere has become primary because the bridge's packets came
// late.
func (f *flow) confirmPrimary() {
	f.dedup.confirmed = true
	if !f.dedup.onBridge || !f.locateMapping() {
		return
	}

	// If two flows are on bridges, the first to claim the container's addresses stays primary.
	own := f.ownKey()
	if canonical := f.canonicalKey(); canonical != own && !f.tryClaim(canonical) {
		f.markDuplicate()
		return
	}

	// A flow elsewhere has claimed the addresses outside NAT.
	outside := newClaimKey(f.key.proto, f.nat.mapping.OutsideClient, f.nat.mapping.OutsideServer)
	if outside != own && f.isClaimedElsewhere(outside) {
		f.markDuplicate()
	}
}

// resolveDedup tries to move f from pending to primary or duplicate. f stays pending while a bridge may still
// claim the connection, unless force is set. why is counted as the reason if f becomes primary.
func (f *flow) resolveDedup(force bool, why decision) {
	table := f.table

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

	// If another flow has a claim, f is a duplicate. If a claim may still come, f waits.
	if slices.ContainsFunc(keys[:numKeys], f.isClaimedElsewhere) {
		f.countDecision(decidedByBridge)
		f.markDuplicate()
		return
	}
	if !force && (table.deps.NAT != nil && !mappingKnown || f.hasLocalEndpoint()) {
		return
	}

	// Claim all keys. A flow on a bridge may claim them at the same moment; the later of the two is the
	// duplicate.
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

// countDecision counts the reason why f leaves the state pending, if events have waited for it.
func (f *flow) countDecision(why decision) {
	if len(f.outbox.events) > 0 {
		f.table.metrics.pendingSessions[why].Inc()
	}
}

// hasLocalEndpoint reports whether an end of f is a container of this host, or may turn out to be one. The
// connection of a container also crosses a bridge, and a flow on the bridge reports it if the bridge is
// captured.
func (f *flow) hasLocalEndpoint() bool {
	if f.table.deps.Containers == nil {
		return false
	}
	client, server := f.endpoints()
	if f.nat.known {
		client, server = f.nat.mapping.Client, f.nat.mapping.Server
	}
	for _, end := range [...]netip.AddrPort{client, server} {
		if container, final := f.table.deps.Containers.Resolve(end.Addr(), f.last); container != nil || !final {
			return true
		}
	}
	return false
}
