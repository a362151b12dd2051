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
	foreign   bool        // it is on a bridge, and both ends are outside of the bridge's networks
	confirmed bool        // confirmPrimary was called
	claims    [2]claimKey // the keys that the flow has claimed in the DedupTable
	numClaims int
	published [2]int64 // packet times that were last written to flow.activity

	// A duplicate compares its packets with those that its reporter has seen. The arrays are by end of
	// flow.key: the packet time since which the reporter is not known to have seen a packet, the bytes that
	// the duplicate has dropped since then, and the packet time of the duplicate's last packet.
	reporter     reporter
	unseenSince  [2]int64
	unseenTop    [2]uint64 // the sequence number behind that packet, from knownTop on, if it has payload of TCP
	droppedBytes [2]uint64
	lastFrom     [2]int64
	comparedTop  [2]uint64       // the sequence number behind the last print that was compared, from knownTop on; 0: none
	openPrint    [2]payloadPrint // of the reporter, that ends behind what the duplicate has seen; 0: none
	openSince    [2]int64        // packet time when openPrint was found
	finAt        [2]uint64       // the sequence number of the last FIN, from knownTop on; 0: none

	// candidate is set while f is pending and reporter may report the same connection, see copies.go.
	candidate    bool
	payloadSince int64        // packet time of the first print; 0: none
	numPrints    [2][4]uint32 // prints that were published, by end and list

	// halfOnly is set if the flow is primary for the packets of one end only, and reporter for those of the
	// other end: routes of the two directions may differ.
	halfOnly bool
	// apart is set if the flow is primary, and reporter reports a connection with the same addresses and
	// other payload.
	apart bool
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
// flow has claimed the connection. A flow elsewhere, or one on a bridge that is foreign to it, is pending. If
// another flow has claimed the connection, the flow is pending, and a candidate if the owner of the claim has seen
// the packet.
func (f *flow) claimFirst() {
	table := f.table
	iface := &table.ifaces.list[f.key.iface]
	f.dedup.foreign = iface.isBridge && f.tunnel == nil && table.deps.IsOutsideBridge != nil &&
		table.deps.IsOutsideBridge(iface.name, f.key.a.netip()) && table.deps.IsOutsideBridge(iface.name, f.key.b.netip())
	f.dedup.onBridge = iface.isBridge && !f.dedup.foreign
	own := f.ownKey()
	if f.dedup.onBridge || table.deps.Bridge == nil {
		switch state, reporter := f.tryClaim(own, false); state {
		case claimFree:
			f.dedup.state = primary
		case claimHeld:
			f.awaitCopy(reporter)
		}
		return
	}

	// A bridge may have claimed the connection as seen here, or as seen by the container.
	state, reporter := f.lookUpClaim(own)
	if state != claimHeld && f.locateMapping() && f.canonicalKey() != own {
		state, reporter = f.lookUpClaim(f.canonicalKey())
	}
	if state == claimHeld {
		f.awaitCopy(reporter)
	}
}

// ownKey returns the claim key of the connection's addresses as captured.
func (f *flow) ownKey() claimKey {
	key := &f.key
	return claimKey{key.a, key.b, key.tunnel, key.aport, key.bport, key.proto}
}

// canonicalKey returns the claim key of the connection's addresses on the container's side. The mapping must
// be known.
func (f *flow) canonicalKey() claimKey {
	return newClaimKey(f.key.proto, f.nat.mapping.Client, f.nat.mapping.Server)
}

// outsideKey returns the claim key of the connection's addresses outside NAT. The mapping must be known.
func (f *flow) outsideKey() claimKey {
	return newClaimKey(f.key.proto, f.nat.mapping.OutsideClient, f.nat.mapping.OutsideServer)
}

// claimant returns f as the DedupTable identifies it, for a claim of key.
func (f *flow) claimant(key claimKey) claimant {
	return claimant{
		owner: f.id, activity: f.activity, reversed: f.isReversed(key),
		iface: f.table.ifaces.list[f.key.iface].dedupID, first: f.first,
	}
}

// isReversed reports whether the ends of key, the connection's addresses on either side of NAT, are in the
// other order than those of f.key.
func (f *flow) isReversed(key claimKey) bool {
	if key == f.ownKey() || !f.nat.known {
		return false
	}
	mapping := &f.nat.mapping
	isClient := func(ip addr, port uint16) bool {
		return ip == addrOf(mapping.Client.Addr()) && port == mapping.Client.Port() ||
			ip == addrOf(mapping.OutsideClient.Addr()) && port == mapping.OutsideClient.Port()
	}
	return isClient(key.a, key.aport) != isClient(f.key.a, f.key.aport)
}

// tryClaim claims key for f, see DedupTable.tryClaim.
func (f *flow) tryClaim(key claimKey, takeStale bool) (claimState, reporter) {
	state, reporter := f.table.dedup.tryClaim(key, f.claimant(key), takeStale)
	if dedup := &f.dedup; state == claimFree && !slices.Contains(dedup.heldClaims(), key) &&
		dedup.numClaims < len(dedup.claims) {
		dedup.claims[dedup.numClaims] = key
		dedup.numClaims++
	}
	return state, reporter
}

// lookUpClaim returns what the claim of key is to f, see DedupTable.lookUpClaim.
func (f *flow) lookUpClaim(key claimKey) (claimState, reporter) {
	return f.table.dedup.lookUpClaim(key, f.claimant(key))
}

// releaseClaims removes the claims of f from the DedupTable.
func (f *flow) releaseClaims() {
	f.table.dedup.releaseClaims(f.dedup.heldClaims(), f.id)
	f.dedup.numClaims = 0
}

// markDuplicate makes f a duplicate of reporter and drops the events that wait.
func (f *flow) markDuplicate(reporter reporter) {
	f.dedup.state, f.dedup.reporter, f.dedup.candidate = duplicate, reporter, false
	f.table.metrics.duplicates.Inc()
	f.releaseClaims()
	f.dropOutbox()
}

// confirmPrimary checks before the first event of a primary flow on a bridge whether another flow reports the
// connection already. The first packet could not show it; by the first event the connection tracker has the
// mapping. Three cases exist. The connection may cross bridges twice, under two tuples: a container connects to
// a published port of its own host. Or a flow elsewhere has become primary because the bridge's packets came
// late. Or f has seen one end only and may be one direction of a connection: it waits for a flow that sees both.
func (f *flow) confirmPrimary() {
	f.dedup.confirmed = true
	if !f.dedup.onBridge {
		return
	}
	if f.mayBeHalfTranslated() {
		f.dedup.state = pending
		return
	}
	if !f.locateMapping() {
		return
	}

	// If two flows are on bridges, the first to claim the container's addresses stays primary.
	own := f.ownKey()
	if canonical := f.canonicalKey(); canonical != own {
		switch state, reporter := f.tryClaim(canonical, false); state {
		case claimHeld:
			f.awaitCopy(reporter)
			return
		case claimStale: // resolveDedup decides when it is known whether the other flow sees the connection
			f.dedup.state = pending
			return
		}
	}

	// A flow elsewhere has claimed the addresses outside NAT.
	outside := f.outsideKey()
	if outside == own {
		return
	}
	if state, reporter := f.lookUpClaim(outside); state == claimHeld {
		f.awaitCopy(reporter)
	}
}

// mayBeHalfTranslated reports whether f may be one direction of a connection whose other direction has other addresses.
// On a bridge, requests carry the source address after SNAT. Replies may carry the address before it, because
// br_netfilter undoes SNAT before the capture. The flow that sees both directions reports the connection.
func (f *flow) mayBeHalfTranslated() bool {
	return f.dedup.onBridge && f.table.deps.NAT != nil && f.tunnel == nil && f.isHalf()
}

// possibleKeys returns the keys under which other flows may have claimed the connection: its tuple as seen
// here and, once the mapping is known, as seen by the container. f itself claims the first numOwn of them: a
// flow on a bridge does not claim the tuple outside NAT.
func (f *flow) possibleKeys() (keys [3]claimKey, numOwn, numAll int) {
	keys[0] = f.ownKey()
	numOwn = 1
	if !f.locateMapping() {
		return keys, numOwn, numOwn
	}
	if key := f.canonicalKey(); key != keys[0] {
		keys[1], numOwn = key, 2
	}
	numAll = numOwn
	if key := f.outsideKey(); f.dedup.onBridge && key != keys[0] && key != keys[1] {
		keys[numAll] = key
		numAll++
	}
	return keys, numOwn, numAll
}

// resolveDedup tries to move f from pending to primary or duplicate. f stays pending while a bridge may still
// claim the connection, unless force is set, and while it is not known whether the owner of a claim sees the
// same payload. why is counted as the reason if f becomes primary.
func (f *flow) resolveDedup(force bool, why decision) {
	table := f.table
	keys, numOwn, numAll := f.possibleKeys()

	// If another flow holds a claim and has seen the same payload, f is a duplicate. f waits if a claim may
	// still come, and if it is not known whether the owner of a claim sees the connection.
	stale, unknown := false, false
	var other separation
	for i := range keys[:numAll] {
		found := f.examineClaims(&keys[i], why, &other)
		if found == claimHeld {
			return // f is a duplicate
		}
		unknown = unknown || found == claimUnknown
		stale = stale || found == claimStale && i < numOwn
	}
	onBridge := f.dedup.onBridge || table.deps.Bridge == nil
	mayBeTranslated := table.deps.NAT != nil && !f.nat.known && f.tunnel == nil
	mayBeElsewhere := !onBridge && (mayBeTranslated || f.dedup.foreign || f.hasLocalEndpoint()) || f.mayBeHalfTranslated()
	if unknown || !force && (stale || mayBeElsewhere) {
		return
	}

	// Claim all keys. A flow on a bridge may claim them at the same moment; the later of the two waits.
	f.dedup.state, f.dedup.candidate = primary, false
	for _, key := range keys[:numOwn] {
		if key == (claimKey{}) || f.dedup.foreign {
			continue
		}
		state, reporter := f.tryClaim(key, true)
		switch {
		case state != claimHeld:
		case !force:
			f.awaitCopy(reporter)
			return
		case f.compareCopies(reporter, why) == copySame:
			f.countDecision(decidedByBridge)
			f.markDuplicate(reporter)
			return
		}
	}
	if other.copies != copyUnknown {
		f.separate(other)
	}
	f.countDecision(why)
	f.emitOutbox()
}

// examineClaims compares f with the owners of the claims of key. It makes f a duplicate if one of them has
// seen the same payload, and then returns claimHeld. It returns claimUnknown if that is not known. If the
// owner of the first claim has seen other payload, key becomes that of the second claim, and zero if its
// owner has, too; other says so.
func (f *flow) examineClaims(key *claimKey, why decision, other *separation) claimState {
	for second := range 2 {
		state, reporter := f.lookUpClaim(*key)
		if state != claimHeld {
			return state
		}
		switch copies := f.compareCopies(reporter, why); copies {
		case copySame:
			f.countDecision(decidedByBridge)
			f.markDuplicate(reporter)
			return claimHeld
		case copyUnknown:
			f.awaitCopy(reporter)
			return claimUnknown
		case copyStale, copyOneSided:
			if !f.dedup.foreign { // which may be forged, and ends no other flow
				f.table.dedup.revokeClaim(*key, reporter.owner)
			}
			return claimFree
		default:
			if other.copies != copyDiffers {
				*other = separation{reporter, copies}
			}
		}
		if second == 0 {
			*key = key.ofSecond()
		}
	}
	*key = claimKey{}
	return claimFree
}

// countDecision counts the reason why f leaves the state pending, if events have waited for it.
func (f *flow) countDecision(why decision) {
	if len(f.outbox.events) > 0 {
		f.table.metrics.pendingSessions[why].Inc()
	}
}

// hasLocalEndpoint reports whether an end of f is a container of this host, or may turn out to be one. The
// connection of a container also crosses a bridge, and a flow on the bridge reports it if the bridge is
// captured. The addresses in a tunnel are no container's.
func (f *flow) hasLocalEndpoint() bool {
	if f.table.deps.Containers == nil || f.tunnel != nil {
		return false
	}
	client, server := f.endpoints()
	if f.nat.known {
		client, server = f.nat.mapping.Client, f.nat.mapping.Server
	}
	for _, end := range [...]netip.AddrPort{client, server} {
		if container, final := f.table.deps.Containers.Resolve(end.Addr(), f.first); container != nil || !final {
			return true
		}
	}
	return false
}
