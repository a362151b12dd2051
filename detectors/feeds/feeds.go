// Package feeds is a pipeline.Detector that looks the names and addresses of events up in lists of malicious
// domains and addresses.
//
// Load reads the files of all feeds into a Set. A Set has a bloom filter, which rules out nearly every name
// and address at once, and exact maps behind it, so a false positive of the filter causes no verdict. A Set
// is immutable; a Watcher loads a new one when a file changes. A domain also matches its sub-domains, and an
// address may be a network.
//
// Evaluate looks up the names of an event (dns.question.name, url.domain, tls.client.server_name) and its
// addresses (source.ip, destination.ip, their NAT addresses, dns.resolved_ip).
package feeds

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unsafe"

	"github.com/bits-and-blooms/bloom/v3"

	"tidegate/pipeline"
)

// An indicator is one line of a feed.
type indicator struct {
	text       string // normalized as events are: the domain, address or network
	note       string
	feed       uint16 // index in Set.feeds
	confidence uint8
}

// A feed holds the fields of verdicts that all indicators of one feed share.
type feed struct {
	name, version string // the version is a hash of the file and the settings
	severity      pipeline.Severity
}

// A Set holds the indicators of all feeds. It is immutable and safe for concurrent use.
type Set struct {
	version    string
	files      string // filesState from before the files were read
	feeds      []feed
	indicators []indicator

	// filter contains every key of the three maps: a key that the filter rules out is in none of them.
	filter *bloom.BloomFilter

	// The values are indexes into indicators. A key of several indicators has the one of highest confidence.
	domains  map[string]int32
	addrs    map[netip.Addr]int32
	prefixes map[netip.Prefix]int32

	// Lengths of the keys of prefixes, longest first.
	prefixLengths4, prefixLengths6 []int
}

var _ pipeline.Detector = (*Set)(nil)

// Version returns a hash of the files and settings of all feeds.
func (s *Set) Version() string { return s.version }

// Len returns the number of indicators.
func (s *Set) Len() int { return len(s.indicators) }

// Evaluate appends a verdict to an event for each indicator that matches one of its fields, at most one for
// each indicator.
func (s *Set) Evaluate(block []*pipeline.Event) {
	if len(s.indicators) == 0 {
		return
	}
	for _, event := range block {
		// 1. The names and addresses that only this dataset has.
		switch event.Dataset {
		case pipeline.Dataset_DNS:
			if s.checkDomain(event, "dns.question.name", event.GetDns().GetQuestionName()) {
				break // The name is malicious, so its addresses add nothing.
			}
			for _, ip := range event.GetDns().GetResolvedIp() {
				if addr, err := netip.ParseAddr(ip); err == nil {
					s.checkAddr(event, "dns.resolved_ip", addr)
				}
			}
		case pipeline.Dataset_HTTP:
			s.checkDomain(event, "url.domain", event.GetHttp().GetUrlDomain())
		case pipeline.Dataset_TLS:
			s.checkDomain(event, "tls.client.server_name", event.GetTls().GetServerName())
		}

		// 2. The addresses of both sides, which events of every dataset may have.
		s.checkEndpoint(event, "source.ip", event.Source)
		s.checkEndpoint(event, "destination.ip", event.Destination)
	}
}

// checkEndpoint looks up the address of one side of a session, before and after NAT.
func (s *Set) checkEndpoint(event *pipeline.Event, field string, endpoint *pipeline.Endpoint) {
	if endpoint == nil {
		return
	}
	if addr, ok := netip.AddrFromSlice(endpoint.Ip); ok {
		s.checkAddr(event, field, addr)
	}
	if addr, ok := netip.AddrFromSlice(endpoint.NatIp); ok {
		s.checkAddr(event, field, addr)
	}
}

// checkDomain looks up a name and each of its parent domains. It reports whether one is listed, and appends a
// verdict if so.
func (s *Set) checkDomain(event *pipeline.Event, field, name string) bool {
	if len(s.domains) == 0 || name == "" || len(name) > 255 {
		return false
	}
	name = lowerASCII(strings.TrimSuffix(name, "."))

	// Each round removes the first label, so the most specific listed domain is found first.
	for rest := name; rest != ""; {
		if s.filter.Test(unsafeBytes(rest)) {
			if index, ok := s.domains[rest]; ok {
				s.addVerdict(event, index, field, name)
				return true
			}
		}
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		rest = parent
	}
	return false
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

// unsafeBytes returns the bytes of s without a copy. The caller must not change them.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// checkAddr looks up an address, then the networks that contain it, and appends a verdict for the first
// match.
func (s *Set) checkAddr(event *pipeline.Event, field string, addr netip.Addr) {
	addr = addr.Unmap()
	var key [filterKeySize]byte

	// 1. The address itself.
	if s.filter.Test(filterKey(&key, addr, addr.BitLen())) {
		if index, ok := s.addrs[addr]; ok {
			s.addVerdict(event, index, field, addr.String())
			return
		}
	}

	// 2. One lookup for each prefix length that the feeds use, so the smallest listed network is found first.
	lengths := s.prefixLengths4
	if addr.Is6() {
		lengths = s.prefixLengths6
	}
	for _, length := range lengths {
		prefix, err := addr.Prefix(length)
		if err != nil || !s.filter.Test(filterKey(&key, prefix.Addr(), length)) {
			continue
		}
		if index, ok := s.prefixes[prefix]; ok {
			s.addVerdict(event, index, field, addr.String())
			return
		}
	}
}

// filterKeySize is the size of a network's key in the filter: 16 bytes for the address and one byte for
// prefix length and address family.
const filterKeySize = 17

// filterKey writes the key of a network into buf and returns it. The network of one address has all its bits.
func filterKey(buf *[filterKeySize]byte, addr netip.Addr, bits int) []byte {
	const is4 = 0x80
	bytes := addr.As16()
	copy(buf[:], bytes[:])
	buf[16] = byte(bits)
	if addr.Is4() {
		buf[16] |= is4
	}
	return buf[:]
}

// addVerdict appends a verdict for the indicator with the given index, which matched value in a field of the
// event. It does nothing if the event has a verdict for the same indicator.
func (s *Set) addVerdict(event *pipeline.Event, index int32, field, value string) {
	// The group of a verdict ends with the indicator, so equal ends mean the same indicator.
	ind := &s.indicators[index]
	feed := &s.feeds[ind.feed]
	if slices.ContainsFunc(event.Verdicts, func(v *pipeline.Verdict) bool {
		return v.Detector == detectorName && strings.HasSuffix(v.Group, " "+ind.text)
	}) {
		return
	}

	// A parent domain or a network is named, since the value alone is not in the feed.
	listed := ""
	if value != ind.text {
		listed = " as " + ind.text
	}

	// Sprintf copies value, which is in a buffer that is reused after the block.
	evidence := fmt.Sprintf("%s %s is listed%s in feed %s, confidence %d", field, value, listed, feed.name, ind.confidence)
	if ind.note != "" {
		evidence += ": " + ind.note
	}
	event.Verdicts = append(event.Verdicts, &pipeline.Verdict{
		Detector: detectorName, Rule: "feed-" + feed.name, Version: feed.version,
		Severity: feed.severity, Score: uint32(ind.confidence), Evidence: evidence,
		Title: "Contact with an indicator of feed " + feed.name, Group: event.Owner() + " " + ind.text,
	})
}

const detectorName = "feeds"
