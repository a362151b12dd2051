// Package feeds is a pipeline.Detector that looks the names and addresses of events up in lists of malicious
// domains and addresses.
//
// Load reads the files of all feeds into a Set: a bloom filter, which rules out nearly everything at once,
// and exact maps behind it, so that a verdict is never a mistake of the filter. A Set is immutable; a Watcher
// makes a new one when a file changes. A domain covers its sub-domains, and an address may be a network.
//
// Looked up are the names of an event (dns.question.name, url.domain, tls.client.server_name) and its
// addresses (source.ip, destination.ip, both of NAT, dns.resolved_ip).
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
	text       string // in the form in which it is compared
	note       string
	feed       uint16 // index in Set.feeds
	confidence uint8
}

// A feed is the part of a Config that verdicts carry.
type feed struct {
	name, version string
	severity      pipeline.Severity
}

// A Set holds the indicators of all feeds. It is immutable and safe for concurrent use.
type Set struct {
	version    string
	files      string // state of the files before they were read
	feeds      []feed
	indicators []indicator

	// filter holds the keys of all maps below; what it does not have, they do not have.
	filter *bloom.BloomFilter

	// Indexes in indicators. Of several indicators for one key it is that of the highest confidence.
	domains  map[string]int32
	addrs    map[netip.Addr]int32
	prefixes map[netip.Prefix]int32

	// Lengths of the prefixes that occur, longest first.
	prefixLengths4, prefixLengths6 []int
}

var _ pipeline.Detector = (*Set)(nil)

// Version returns a hash of the files and settings of all feeds.
func (s *Set) Version() string { return s.version }

// Len returns the number of indicators.
func (s *Set) Len() int { return len(s.indicators) }

// Evaluate appends a verdict to each event for each indicator that it has in one of its fields, at most one
// for an indicator.
func (s *Set) Evaluate(block []*pipeline.Event) {
	if len(s.indicators) == 0 {
		return
	}
	for _, event := range block {
		// The names of the dataset, then the addresses that every event has.
		switch event.Dataset {
		case pipeline.Dataset_DNS:
			if s.checkDomain(event, "dns.question.name", event.GetDns().GetQuestionName()) {
				break // The addresses of a malicious name add nothing.
			}
			for _, ip := range event.GetDns().GetResolvedIp() {
				if a, err := netip.ParseAddr(ip); err == nil {
					s.checkAddr(event, "dns.resolved_ip", a)
				}
			}
		case pipeline.Dataset_HTTP:
			s.checkDomain(event, "url.domain", event.GetHttp().GetUrlDomain())
		case pipeline.Dataset_TLS:
			s.checkDomain(event, "tls.client.server_name", event.GetTls().GetServerName())
		}
		s.checkEndpoint(event, "source.ip", event.Source)
		s.checkEndpoint(event, "destination.ip", event.Destination)
	}
}

// checkEndpoint looks the addresses of one side of a session up.
func (s *Set) checkEndpoint(event *pipeline.Event, field string, endpoint *pipeline.Endpoint) {
	if endpoint == nil {
		return
	}
	if a, ok := netip.AddrFromSlice(endpoint.Ip); ok {
		s.checkAddr(event, field, a)
	}
	if a, ok := netip.AddrFromSlice(endpoint.NatIp); ok {
		s.checkAddr(event, field, a)
	}
}

// checkDomain looks a name and the domains above it up, and reports whether one is listed.
func (s *Set) checkDomain(event *pipeline.Event, field, name string) bool {
	if len(s.domains) == 0 || name == "" || len(name) > 255 {
		return false
	}
	name = lowerASCII(strings.TrimSuffix(name, "."))
	// The name itself, then without its first label, and so on: the longest listed domain is found first.
	for rest := name; rest != ""; {
		if s.filter.Test(unsafeBytes(rest)) {
			if i, ok := s.domains[rest]; ok {
				s.addVerdict(event, i, field, name)
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

// lowerASCII returns s in lower case, without an allocation where it is that already, as nearly always.
func lowerASCII(text string) string {
	for i := range len(text) {
		if 'A' <= text[i] && text[i] <= 'Z' {
			return strings.ToLower(text)
		}
	}
	return text
}

// unsafeBytes returns the bytes of s, which must not be changed.
func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// checkAddr looks an address up, and then the networks that hold it, the smallest first.
func (s *Set) checkAddr(event *pipeline.Event, field string, addr netip.Addr) {
	addr = addr.Unmap()
	var key [filterKeySize]byte
	if s.filter.Test(filterKey(&key, addr, addr.BitLen())) {
		if i, ok := s.addrs[addr]; ok {
			s.addVerdict(event, i, field, addr.String())
			return
		}
	}
	lengths := s.prefixLengths4
	if addr.Is6() {
		lengths = s.prefixLengths6
	}
	for _, length := range lengths {
		prefix, err := addr.Prefix(length)
		if err != nil || !s.filter.Test(filterKey(&key, prefix.Addr(), length)) {
			continue
		}
		if i, ok := s.prefixes[prefix]; ok {
			s.addVerdict(event, i, field, addr.String())
			return
		}
	}
}

// filterKeySize is the size of the key of a network: 16 bytes of address and one of prefix length and family.
const filterKeySize = 17

// filterKey writes the filter's key of a network into buf.
func filterKey(buf *[filterKeySize]byte, addr netip.Addr, bits int) []byte {
	const is4 = 0x80
	b := addr.As16()
	copy(buf[:], b[:])
	buf[16] = byte(bits)
	if addr.Is4() {
		buf[16] |= is4
	}
	return buf[:]
}

// addVerdict appends the verdict of indicator i, which the event has in field as value, unless it has one of
// the same indicator.
func (s *Set) addVerdict(event *pipeline.Event, i int32, field, value string) {
	ind := &s.indicators[i]
	feed := &s.feeds[ind.feed]
	if slices.ContainsFunc(event.Verdicts, func(v *pipeline.Verdict) bool {
		return v.Detector == detectorName && strings.HasSuffix(v.Group, " "+ind.text)
	}) {
		return
	}
	listed := ""
	if value != ind.text {
		listed = " as " + ind.text
	}
	// The text is a copy: value lies in a buffer that is used again after the block.
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
