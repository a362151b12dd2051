// Package feeds is a pipeline.Detector that looks the names and addresses of events up in lists of malicious
// domains and addresses.
//
// Load reads the file of each feed into a list (parse.go, list.go), which keeps a hash of each indicator (index.go). A
// bloom filter of all lists rules out nearly every name and address. A Set is
// immutable. A Watcher loads a file again when it changes, and keeps the other lists; a file that looks like a
// failed update is held back (watch.go). A domain also matches its sub-domains, and an address may be a
// network.
//
// Evaluate looks up the hosts that an event names (dns.question.name, the targets in dns.answers.data, url.domain,
// http.request.x_forwarded_for, tls.client.server_name) and its addresses (source.ip, destination.ip, their NAT
// addresses, dns.resolved_ip). A host is a name or an address, whatever its field is meant for. Each feed is asked
// for itself: an indicator that two feeds list has two verdicts.
package feeds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"unsafe"

	"github.com/bits-and-blooms/bloom/v3"

	"tidegate/pipeline"
	"tidegate/pipeline/authority"
)

// A Set holds the indicators of all feeds. It is immutable and safe for concurrent use.
type Set struct {
	version string
	lists   []*list // one of each feed
	filter  *bloom.BloomFilter
	used    int // indicators of all lists

	// Lengths of the prefixes of networks, longest first. Few lengths occur, so checkAddr tries each of them
	// instead of walking a tree of prefixes.
	prefixLengths4, prefixLengths6 []int
}

var _ pipeline.Detector = (*Set)(nil)

// newSet returns a set of these lists.
func newSet(lists []*list) *Set {
	set := &Set{lists: lists, filter: newFilter(lists)}
	all := sha256.New()
	var lengths4, lengths6 [129]bool
	for _, list := range lists {
		fmt.Fprintln(all, list.version)
		set.used += list.index.count
		for bits := range lengths4 {
			lengths4[bits] = lengths4[bits] || list.prefixLengths4[bits]
			lengths6[bits] = lengths6[bits] || list.prefixLengths6[bits]
		}
	}
	set.version = shortHash(all)
	for bits := 128; bits >= 0; bits-- {
		if lengths4[bits] {
			set.prefixLengths4 = append(set.prefixLengths4, bits)
		}
		if lengths6[bits] {
			set.prefixLengths6 = append(set.prefixLengths6, bits)
		}
	}
	return set
}

// shortHash returns the first six bytes of a hash in hex.
func shortHash(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:6]) }

// Version returns a hash of the files and settings of all feeds.
func (s *Set) Version() string { return s.version }

// Len returns the number of indicators.
func (s *Set) Len() int { return s.used }

// Has reports whether the feed with this name lists value, a host in any form that a field of an event may have: an
// address or a network that contains it, a name or one of its parent domains. A feed that does not exist lists nothing.
func (s *Set) Has(feed, value string) bool {
	index := slices.IndexFunc(s.lists, func(l *list) bool { return l.name == feed })
	if index < 0 {
		return false
	}
	var found feedSet
	s.checkHost(nil, "", value, &found)
	return found.has(index)
}

// HasFeed reports whether a feed has this name.
func (s *Set) HasFeed(name string) bool {
	return slices.ContainsFunc(s.lists, func(l *list) bool { return l.name == name })
}

// Warnings returns what is wrong with the feeds without being an error.
func (s *Set) Warnings() (warnings []string) {
	for _, list := range s.lists {
		switch {
		case list.index.count == 0:
			warnings = append(warnings, fmt.Sprintf("feed %s has no indicator: %s", list.name, list.config.Path))
		case list.skipped.Count > list.index.count:
			warnings = append(warnings, fmt.Sprintf("most lines of feed %s are invalid: %s:%d is the first",
				list.name, list.config.Path, list.skipped.Errors[0].Line))
		}
	}
	return warnings
}

// A feedSet is a set of feeds, by index.
type feedSet [maxFeeds / 64]uint64

func (f *feedSet) has(feed int) bool { return f[feed/64]&(1<<(feed%64)) != 0 }
func (f *feedSet) add(feed int)      { f[feed/64] |= 1 << (feed % 64) }

// addAll adds the feeds of other.
func (f *feedSet) addAll(other *feedSet) {
	for i := range f {
		f[i] |= other[i]
	}
}

// Evaluate appends a verdict to an event for each feed that lists one of its fields. For a name or an address
// the feed's most specific indicator counts. Two fields that match the same indicator have one verdict.
func (s *Set) Evaluate(block []*pipeline.Event) {
	if s.Len() == 0 {
		return
	}
	for _, event := range block {
		// 1. The hosts that only this dataset names.
		switch event.Dataset {
		case pipeline.Dataset_DNS:
			s.checkDNS(event)
		case pipeline.Dataset_HTTP:
			s.checkHost(event, "url.domain", event.GetHttp().GetUrlDomain(), &feedSet{})
			for _, host := range event.GetHttp().GetXForwardedFor() {
				s.checkHost(event, "http.request.x_forwarded_for", host, &feedSet{})
			}
		case pipeline.Dataset_TLS:
			s.checkHost(event, "tls.client.server_name", event.GetTls().GetServerName(), &feedSet{})
		}

		// 2. The addresses of both sides, which events of every dataset may have.
		s.checkEndpoint(event, "source.ip", event.Source)
		s.checkEndpoint(event, "destination.ip", event.Destination)
	}
}

// checkDNS looks up the name in the question, the targets of the answer, and its addresses. A feed that lists the name
// has no verdicts for the answer, and one that lists a target has none for the addresses.
func (s *Set) checkDNS(event *pipeline.Event) {
	body := event.GetDns()
	var byName feedSet
	s.checkHost(event, "dns.question.name", body.GetQuestionName(), &byName)
	byTarget := byName
	for i, typ := range body.GetAnswersType() {
		if i == len(body.AnswersData) {
			break
		}
		if target := targetOf(typ, body.AnswersData[i]); target != "" {
			found := byName
			s.checkHost(event, "dns.answers.data", target, &found)
			byTarget.addAll(&found)
		}
	}
	for _, ip := range body.GetResolvedIp() {
		if addr, ok := authority.Addr(ip); ok {
			found := byTarget
			s.checkAddr(event, "dns.resolved_ip", addr, &found)
		}
	}
}

// targetOf returns the host that a client asks or connects to next because of a record, or "". data is the data of
// the record in the form of a zone file.
func targetOf(typ, data string) string {
	before := 0 // fields before the target
	switch typ {
	case "CNAME", "DNAME":
	case "MX", "SVCB", "HTTPS": // a preference or priority
		before = 1
	case "SRV": // priority, weight and port
		before = 3
	default:
		return ""
	}
	for range before {
		_, data, _ = strings.Cut(data, " ")
	}
	target, _, _ := strings.Cut(data, " ")
	return target
}

// checkEndpoint looks up the address of one side of a session, before and after NAT.
func (s *Set) checkEndpoint(event *pipeline.Event, field string, endpoint *pipeline.Endpoint) {
	if endpoint == nil {
		return
	}
	if addr, ok := netip.AddrFromSlice(endpoint.Ip); ok {
		s.checkAddr(event, field, addr, &feedSet{})
	}
	if addr, ok := netip.AddrFromSlice(endpoint.NatIp); ok {
		s.checkAddr(event, field, addr, &feedSet{})
	}
}

// checkHost looks up a host, which is an address or a name, with a port or without.
func (s *Set) checkHost(event *pipeline.Event, field, host string, found *feedSet) {
	if addr, ok := authority.Addr(host); ok {
		s.checkAddr(event, field, addr, found)
		return
	}
	s.checkDomain(event, field, authority.TrimPort(host), found)
}

// checkDomain looks up a name and each of its parent domains, and adds the feeds that list it to found.
func (s *Set) checkDomain(event *pipeline.Event, field, name string, found *feedSet) {
	key := lowerASCII(authority.TrimRoot(name))
	for len(key) > maxDomain { // no indicator is longer, and escapes lengthen a name
		_, parent, ok := strings.Cut(key, ".")
		if !ok {
			return
		}
		key = parent
	}
	if !isASCII(key) {
		// Clients resolve a name in Unicode by its punycode.
		ascii, err := punycode(key)
		if err != nil {
			return
		}
		key = ascii
	}

	// Each round removes the first label, so the most specific listed domain is found first.
	for rest := key; rest != ""; {
		s.check(event, field, key, unsafeBytes(rest), found)
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		rest = parent
	}
}

// lowerASCII returns text in lower case. It does not allocate if text is in lower case already, as nearly all
// names are.
func lowerASCII(text string) string {
	for i := range len(text) {
		if 'A' <= text[i] && text[i] <= 'Z' {
			return strings.ToLower(text)
		}
	}
	return text
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// unsafeBytes returns the bytes of s without a copy. The caller must not change them.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// checkAddr looks up an address, then the networks that contain it, and adds the feeds that list it to found.
func (s *Set) checkAddr(event *pipeline.Event, field string, addr netip.Addr, found *feedSet) {
	addr = addr.Unmap()
	var key [networkKeySize]byte
	s.checkNetwork(event, field, addr, networkKey(&key, addr, addr.BitLen()), found)

	// One lookup for each prefix length that the feeds use, so the smallest listed network is found first.
	lengths := s.prefixLengths4
	if addr.Is6() {
		lengths = s.prefixLengths6
	}
	for _, length := range lengths {
		if prefix, err := addr.Prefix(length); err == nil {
			s.checkNetwork(event, field, addr, networkKey(&key, prefix.Addr(), length), found)
		}
	}
}

// checkNetwork is check for an address, which is written out only if it has a verdict.
func (s *Set) checkNetwork(event *pipeline.Event, field string, addr netip.Addr, key []byte, found *feedSet) {
	hash := hashKey(key)
	if !s.mayContain(hash) {
		return
	}
	for _, list := range s.lists {
		if _, ok := list.index.find(hash); ok {
			s.report(event, field, addr.String(), key, hash, found)
			return
		}
	}
}

// mayContain reports whether a key may have an indicator. It is false for nearly all keys without one.
func (s *Set) mayContain(hash keyHash) bool {
	key := hash.bytes()
	return s.filter.Test(key[:])
}

// check appends a verdict for each feed that lists key and is not in found, and adds the feed to found. value is
// what the field of the event holds. Without an event it only adds to found.
func (s *Set) check(event *pipeline.Event, field, value string, key []byte, found *feedSet) {
	if hash := hashKey(key); s.mayContain(hash) {
		s.report(event, field, value, key, hash, found)
	}
}

// report is check for a key that passes the filter.
func (s *Set) report(event *pipeline.Event, field, value string, key []byte, hash keyHash, found *feedSet) {
	for feed, list := range s.lists {
		if at, ok := list.index.find(hash); ok && !found.has(feed) {
			found.add(feed)
			if event != nil {
				list.addVerdict(event, &list.details.all[at], keyText(key), field, value)
			}
		}
	}
}

// addVerdict appends a verdict for an indicator, which matched value in a field of the event. It does nothing if the
// event has a verdict of the feed for the same indicator.
func (l *list) addVerdict(event *pipeline.Event, about *detail, text, field, value string) {
	// The group of a verdict ends with the indicator, so equal ends mean the same indicator.
	indicator := string(pipeline.AppendGroup([]byte{}, "indicator", text))
	note, confidence := about.note, about.confidence
	rule := "feed-" + l.name
	if slices.ContainsFunc(event.Verdicts, func(v *pipeline.Verdict) bool {
		return v.Detector == detectorName && v.Rule == rule && strings.HasSuffix(v.Group, " "+indicator)
	}) {
		return
	}

	// A parent domain or a network is named, since the value alone is not in the feed.
	listed := ""
	if value != text {
		listed = " as " + text
	}

	// Sprintf copies value, which is in a buffer that is reused after the block.
	evidence := fmt.Sprintf("%s %s is listed%s in feed %s, confidence %d", field, value, listed, l.name, confidence)
	if note != "" {
		evidence += ": " + note
	}
	event.Verdicts = append(event.Verdicts, &pipeline.Verdict{
		Detector: detectorName, Rule: rule, Version: l.version,
		Severity: l.severity, Score: uint32(confidence), Evidence: evidence,
		Title: "Contact with an indicator of feed " + l.name, Group: event.OwnerGroup() + " " + indicator,
	})
}

const detectorName = "feeds"
