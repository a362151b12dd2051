// Package feeds is a pipeline.Detector that looks up what events name in lists of malicious domains, addresses, networks,
// URLs, hashes, fingerprints and User-Agents.
//
// Load reads the file or folder of each feed into a list (read.go: lines in parse.go, CSV with a header in columns.go, JSON
// in json.go and stix.go), which keeps a hash of each indicator (index.go). A bloom filter of all lists rules out nearly
// every name and address. A Set is immutable. A Watcher loads a feed again when its files change, and keeps the other
// lists; a file that looks like a failed update is held back (watch.go). A domain also matches its sub-domains, and an
// address may be a network.
//
// Evaluate looks up the hosts that an event names (dns.question.name, the targets in dns.answers.data, url.domain,
// http.request.x_forwarded_for, tls.client.server_name), its addresses (source.ip, destination.ip, their NAT addresses,
// dns.resolved_ip), its URL, its User-Agent, its JA3 and JA3S, and the image of its container. A host is a name or an
// address, whatever its field is meant for. Each feed is asked for itself: an indicator that two feeds list has two
// verdicts. An allow-list ends the lookup. Whether an indicator has expired is decided by the time of the event.
package feeds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"tidegate/pipeline"
	"tidegate/pipeline/authority"
)

// A Set holds the indicators of all feeds. It is immutable and safe for concurrent use.
type Set struct {
	version string
	lists   []*list // one of each feed
	filter  filter
	used    int             // indicators of all lists
	types   map[string]bool // of the indicators
	allows  bool            // a list is an allow-list

	// Lengths of the prefixes of networks, longest first. Few lengths occur, so checkAddr tries each of them
	// instead of walking a tree of prefixes.
	prefixLengths4, prefixLengths6 []int
}

var _ pipeline.Detector = (*Set)(nil)

// newSet returns a set of these lists.
func newSet(lists []*list) *Set {
	set := &Set{lists: lists, filter: newFilter(lists), types: map[string]bool{}}
	all := sha256.New()
	var lengths4, lengths6 [129]bool
	for _, list := range lists {
		fmt.Fprintln(all, list.version)
		set.used += list.index.count
		set.allows = set.allows || list.config.Allow
		for typ := range list.types {
			set.types[typ] = true
		}
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

// Has reports whether the feed with this name lists value: a host in any form that a field of an event may have, as an
// address or by a network that contains it, as a name or by one of its parent domains; a URL, a hash, a JA3 or JA4, or a
// User-Agent. A feed that does not exist lists nothing. Indicators that have expired count.
func (s *Set) Has(feed, value string) bool { return s.HasAt(feed, value, 0) }

// HasAt is Has for a time in ns since 1970, such as that of an event: an indicator that has expired by then does not count.
func (s *Set) HasAt(feed, value string, at int64) bool {
	index := slices.IndexFunc(s.lists, func(l *list) bool { return l.name == feed })
	if index < 0 {
		return false
	}
	var found feedSet
	s.checkAny(target{at: at}, value, &found)
	return found.feeds[index/64]&(1<<(index%64)) != 0
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
type feedSet struct {
	feeds   [maxFeeds / 64]uint64
	allowed bool // an allow-list has what is looked up: no feed is asked from then on
}

func (f *feedSet) has(feed int) bool { return f.allowed || f.feeds[feed/64]&(1<<(feed%64)) != 0 }
func (f *feedSet) add(feed int)      { f.feeds[feed/64] |= 1 << (feed % 64) }

// addAll adds the feeds of other.
func (f *feedSet) addAll(other *feedSet) {
	for i := range f.feeds {
		f.feeds[i] |= other.feeds[i]
	}
	f.allowed = f.allowed || other.allowed
}

// A target is what a lookup is for.
type target struct {
	event   *pipeline.Event              // gets a verdict for each feed; may be nil
	at      int64                        // ns since 1970: indicators that have expired by then do not count; 0: all count
	matched func(*list, *detail, []byte) // is called for each feed, with a copy of the key; may be nil

	ignoreAllowed bool // an allow-list ends no lookup
}

// Evaluate appends a verdict to an event for each feed that lists one of its fields. For a name or an address
// the feed's most specific indicator counts. Two fields that match the same indicator have one verdict.
func (s *Set) Evaluate(block []*pipeline.Event) {
	if s.Len() == 0 {
		return
	}
	for _, event := range block {
		to := target{event: event, at: event.Timestamp}

		// 1. The hosts that only this dataset names.
		switch event.Dataset {
		case pipeline.Dataset_DNS:
			s.checkDNS(to)
		case pipeline.Dataset_HTTP:
			s.checkHost(to, "url.domain", event.GetHttp().GetUrlDomain(), &feedSet{})
			for _, host := range event.GetHttp().GetXForwardedFor() {
				s.checkHost(to, "http.request.x_forwarded_for", host, &feedSet{})
			}
			s.checkURL(to, event.GetHttp(), &feedSet{})
			s.checkText(to, "user_agent.original", userAgentMark, UserAgentType, event.GetHttp().GetUserAgent(), &feedSet{})
		case pipeline.Dataset_TLS:
			s.checkHost(to, "tls.client.server_name", event.GetTls().GetServerName(), &feedSet{})
			s.checkText(to, "tls.client.ja3", hashMark, HashType, event.GetTls().GetJa3(), &feedSet{})
			s.checkText(to, "tls.server.ja3s", hashMark, HashType, event.GetTls().GetJa3S(), &feedSet{})
		}

		image := strings.TrimPrefix(event.GetContainer().GetImageId(), "sha256:")
		s.checkText(to, "container.image.hash", hashMark, HashType, image, &feedSet{})

		// 2. The addresses of both sides, which events of every dataset may have.
		s.checkEndpoint(to, "source.ip", event.Source)
		s.checkEndpoint(to, "destination.ip", event.Destination)
	}
}

// checkDNS looks up the name in the question, the targets of the answer, and its addresses. A feed that lists the name
// has no verdicts for the answer, and one that lists a target has none for the addresses.
func (s *Set) checkDNS(to target) {
	body := to.event.GetDns()
	var byName feedSet
	s.checkHost(to, "dns.question.name", body.GetQuestionName(), &byName)
	byTarget := byName
	for i, typ := range body.GetAnswersType() {
		if i == len(body.AnswersData) {
			break
		}
		if target := targetOf(typ, body.AnswersData[i]); target != "" {
			found := byName
			s.checkHost(to, "dns.answers.data", target, &found)
			byTarget.addAll(&found)
		}
	}
	for _, ip := range body.GetResolvedIp() {
		if addr, ok := authority.Addr(ip); ok {
			found := byTarget
			s.checkAddr(to, "dns.resolved_ip", addr, &found)
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
func (s *Set) checkEndpoint(to target, field string, endpoint *pipeline.Endpoint) {
	if endpoint == nil {
		return
	}
	if addr, ok := netip.AddrFromSlice(endpoint.Ip); ok {
		s.checkAddr(to, field, addr, &feedSet{})
	}
	if addr, ok := netip.AddrFromSlice(endpoint.NatIp); ok {
		s.checkAddr(to, field, addr, &feedSet{})
	}
}

// checkHost looks up a host, which is an address or a name, with a port or without.
func (s *Set) checkHost(to target, field, host string, found *feedSet) {
	if addr, ok := authority.Addr(host); ok {
		s.checkAddr(to, field, addr, found)
		return
	}
	s.checkDomain(to, field, authority.TrimPort(host), found)
}

// checkDomain looks up a name and each of its parent domains, and adds the feeds that list it to found.
func (s *Set) checkDomain(to target, field, name string, found *feedSet) {
	key := lowerASCII(authority.TrimRoot(name))
	for len(key) > maxDomain { // no indicator is longer, and escapes lengthen a name
		_, parent, ok := strings.Cut(key, ".")
		if !ok {
			return
		}
		key = parent
	}
	for !isASCII(key) {
		// Clients resolve a name in Unicode by its punycode. A label that has none does not hide the domain behind it.
		ascii, err := punycode(key)
		if err == nil {
			key = ascii
			break
		}
		_, parent, ok := strings.Cut(key, ".")
		if !ok {
			return
		}
		key = parent
	}

	// Each round removes the first label, so the most specific listed domain is found first. No feed lists a top-level domain.
	for rest := key; ; {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			break
		}
		s.check(to, field, key, unsafeBytes(rest), found)
		rest = rest[dot+1:]
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
func (s *Set) checkAddr(to target, field string, addr netip.Addr, found *feedSet) {
	addr = addr.Unmap()
	var key [networkKeySize]byte
	s.checkNetwork(to, field, addr, networkKey(&key, addr, addr.BitLen()), found)

	// One lookup for each prefix length that the feeds use, so the smallest listed network is found first.
	lengths := s.prefixLengths4
	if addr.Is6() {
		lengths = s.prefixLengths6
	}
	for _, length := range lengths {
		if prefix, err := addr.Prefix(length); err == nil {
			s.checkNetwork(to, field, addr, networkKey(&key, prefix.Addr(), length), found)
		}
	}
}

// checkNetwork is check for an address, which is written out only if it has a verdict.
func (s *Set) checkNetwork(to target, field string, addr netip.Addr, key []byte, found *feedSet) {
	hash := hashKey(key)
	if !s.filter.mayContain(hash) {
		return
	}
	for _, list := range s.lists {
		if _, ok := list.index.find(hash); ok {
			s.report(to, field, addr.String(), key, hash, found)
			return
		}
	}
}

// check appends a verdict for each feed that lists key and is not in found, and adds the feed to found. value is
// what the field of the event holds. Without an event it only adds to found.
func (s *Set) check(to target, field, value string, key []byte, found *feedSet) {
	if hash := hashKey(key); s.filter.mayContain(hash) {
		s.report(to, field, value, key, hash, found)
	}
}

// report is check for a key that passes the filter. If an allow-list has it, no other feed is asked, nor for what is wider.
func (s *Set) report(to target, field, value string, key []byte, hash keyHash, found *feedSet) {
	if s.allows && !found.allowed && !to.ignoreAllowed {
		s.reportAllowed(to, key, hash, found)
	}
	for feed, list := range s.lists {
		if at, ok := list.index.find(hash); ok && !list.config.Allow && !found.has(feed) && !list.details.all[at].expiredAt(to.at) {
			found.add(feed)
			if to.matched != nil {
				to.matched(list, &list.details.all[at], slices.Clone(key))
			}
			if to.event != nil {
				list.addVerdict(to.event, &list.details.all[at], keyText(key), field, value)
			}
		}
	}
}

// reportAllowed is report for the allow-lists.
func (s *Set) reportAllowed(to target, key []byte, hash keyHash, found *feedSet) {
	for feed, list := range s.lists {
		if at, ok := list.index.find(hash); ok && list.config.Allow && !list.details.all[at].expiredAt(to.at) {
			found.add(feed)
			found.allowed = true
			if to.matched != nil {
				to.matched(list, &list.details.all[at], slices.Clone(key))
			}
		}
	}
}

// expiredAt reports whether an indicator is no longer valid at a time in ns since 1970; 0 is no time.
func (d *detail) expiredAt(at int64) bool { return d.expires != 0 && at != 0 && at/1e9 >= d.expires }

// checkText looks up a text of one kind, whole.
func (s *Set) checkText(to target, field string, mark byte, typ, text string, found *feedSet) {
	if text == "" || len(text) > maxText || !s.types[typ] {
		return
	}
	var buf [maxText + 1]byte
	if mark != userAgentMark {
		text = lowerASCII(text)
	}
	s.check(to, field, text, appendKey(buf[:0], mark, text), found)
}

// checkURL looks up host, path and query of a request, then without the query.
func (s *Set) checkURL(to target, body *pipeline.HTTPExchange, found *feedSet) {
	host, path, query := body.GetUrlDomain(), body.GetUrlPath(), body.GetUrlQuery()
	if !s.types[URLType] || len(host)+len(path)+2 > maxText {
		return
	}
	var buf [maxText + 1]byte
	key := append(buf[:0], urlMark)
	if addr, ok := authority.Addr(host); ok {
		key = addr.AppendTo(key)
	} else {
		host = lowerASCII(authority.TrimRoot(authority.TrimPort(host)))
		if !isASCII(host) {
			ascii, err := punycode(host)
			if err != nil {
				return
			}
			host = ascii
		}
		key = append(key, host...)
	}
	if path == "" || path[0] != '/' {
		key = append(key, '/')
	}
	key = append(key, path...)
	if query != "" && len(key)+1+len(query) <= maxText {
		whole := append(append(key, '?'), query...)
		s.checkWritten(to, "url.original", whole, found)
	}
	s.checkWritten(to, "url.original", key, found)
}

// checkWritten is check for a key of which the field of the event has another spelling.
func (s *Set) checkWritten(to target, field string, key []byte, found *feedSet) {
	if hash := hashKey(key); s.filter.mayContain(hash) {
		s.report(to, field, string(key[1:]), key, hash, found)
	}
}

// checkAny looks up a text whose field is not known.
func (s *Set) checkAny(to target, value string, found *feedSet) {
	switch text := unsafeBytes(value); {
	case hasScheme(text):
		_, rest, _ := cutScheme(text)
		s.checkURLText(to, unsafeText(rest), found)
	case isHash(text):
		s.checkText(to, "", hashMark, HashType, value, found)
	case isJA4(text):
		s.checkText(to, "", ja4Mark, JA4Type, value, found)
	default:
		s.checkHost(to, "", value, found)
	}
	s.checkText(to, "", userAgentMark, UserAgentType, value, found)
}

// checkURLText looks up a URL without its scheme, and its host.
func (s *Set) checkURLText(to target, rest string, found *feedSet) {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, path := string(authority.Host([]byte(rest[:end]))), rest[end:]
	path, _, _ = strings.Cut(path, "#")
	path, query, _ := strings.Cut(path, "?")
	s.checkURL(to, &pipeline.HTTPExchange{UrlDomain: host, UrlPath: path, UrlQuery: query}, found)
	s.checkHost(to, "", host, found)
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
	if about.source != "" {
		evidence += ", source " + about.source
	}
	if about.expires != 0 {
		evidence += ", valid until " + time.Unix(about.expires, 0).UTC().Format(time.RFC3339)
	}
	if note != "" {
		evidence += ": " + note
	}
	event.Verdicts = append(event.Verdicts, &pipeline.Verdict{
		Detector: detectorName, Rule: rule, Version: l.version,
		Severity: l.severity, Score: uint32(confidence), Evidence: evidence,
		Title: "Contact with an indicator of feed " + l.name, Group: event.OwnerGroup() + " " + indicator,
		Tags: about.tagList(),
	})
}

// tagList returns the tags of an indicator.
func (d *detail) tagList() []string {
	if d.tags == "" {
		return nil
	}
	return strings.Split(d.tags, ",")
}

const detectorName = "feeds"
