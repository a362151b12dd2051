// Package feeds judges events by lists of malicious domains and addresses.
//
// Load reads the files of all feeds into a Set: a bloom filter in front, which says at once that nearly
// everything is not listed, and an exact structure behind it, so that a verdict is never the filter's
// mistake. A Set is immutable and is a pipeline.Detector; the engine is given a new one when a file changes
// (Watch). A domain covers its sub-domains, an address may be a network.
//
// What is asked of an event: the names that it looked up, asked for or greeted (dns.question.name,
// url.domain, tls.client.server_name) and the addresses that it reached or was given (source.ip,
// destination.ip, dns.resolved_ip).
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
	text       string // as it is matched
	note       string
	feed       uint16
	confidence uint8
}

// A feed is what verdicts need of a Config.
type feed struct {
	name, version string
	severity      pipeline.Severity
}

// A Set is all feeds, ready to judge. It is safe for concurrent use.
type Set struct {
	version    string
	files      string // their state when they were read
	feeds      []feed
	indicators []indicator
	filter     *bloom.BloomFilter
	domains    map[string]int32 // to the indicator of the highest confidence
	addrs      map[netip.Addr]int32
	prefixes   map[netip.Prefix]int32
	bits4      []int // the lengths of prefixes that occur, longest first
	bits6      []int
}

// Version is a hash of every file and of what its feed is set to.
func (s *Set) Version() string { return s.version }

// Len is the number of indicators.
func (s *Set) Len() int { return len(s.indicators) }

// Evaluate writes a verdict for each indicator that an event touches, at most one per indicator and event.
func (s *Set) Evaluate(block []*pipeline.Event) {
	if len(s.indicators) == 0 {
		return
	}
	for _, e := range block {
		switch e.Dataset {
		case pipeline.Dataset_DNS:
			if s.checkDomain(e, "dns.question.name", e.GetDns().GetQuestionName()) {
				break // where a malicious name leads to says nothing more
			}
			for _, ip := range e.GetDns().GetResolvedIp() {
				if a, err := netip.ParseAddr(ip); err == nil {
					s.checkAddr(e, "dns.resolved_ip", a)
				}
			}
		case pipeline.Dataset_HTTP:
			s.checkDomain(e, "url.domain", e.GetHttp().GetUrlDomain())
		case pipeline.Dataset_TLS:
			s.checkDomain(e, "tls.client.server_name", e.GetTls().GetServerName())
		}
		s.checkEndpoint(e, "source.ip", e.Source)
		s.checkEndpoint(e, "destination.ip", e.Destination)
	}
}

func (s *Set) checkEndpoint(e *pipeline.Event, field string, p *pipeline.Endpoint) {
	if p == nil {
		return
	}
	if a, ok := netip.AddrFromSlice(p.Ip); ok {
		s.checkAddr(e, field, a)
	}
	if a, ok := netip.AddrFromSlice(p.NatIp); ok {
		s.checkAddr(e, field, a)
	}
}

// checkDomain asks for a domain and each domain above it, and tells whether one is listed.
func (s *Set) checkDomain(e *pipeline.Event, field, name string) bool {
	if len(s.domains) == 0 || name == "" || len(name) > 255 {
		return false
	}
	name = lowerASCII(strings.TrimSuffix(name, "."))
	for rest := name; rest != ""; {
		if s.filter.Test(unsafeBytes(rest)) {
			if i, ok := s.domains[rest]; ok {
				s.addVerdict(e, i, field, name)
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

// lowerASCII avoids the allocation where there is nothing to lower, which is nearly always.
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

func unsafeBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func (s *Set) checkAddr(e *pipeline.Event, field string, a netip.Addr) {
	a = a.Unmap()
	var key [17]byte
	if s.filter.Test(filterKey(&key, a, a.BitLen())) {
		if i, ok := s.addrs[a]; ok {
			s.addVerdict(e, i, field, a.String())
			return
		}
	}
	bits := s.bits4
	if a.Is6() {
		bits = s.bits6
	}
	for _, n := range bits {
		p, err := a.Prefix(n)
		if err != nil || !s.filter.Test(filterKey(&key, p.Addr(), n)) {
			continue
		}
		if i, ok := s.prefixes[p]; ok {
			s.addVerdict(e, i, field, a.String())
			return
		}
	}
}

// filterKey is what the filter knows of a network: its address and its length.
func filterKey(buf *[17]byte, a netip.Addr, bits int) []byte {
	b := a.As16()
	copy(buf[:], b[:])
	buf[16] = byte(bits)
	if a.Is4() {
		buf[16] |= 0x80
	}
	return buf[:]
}

func (s *Set) addVerdict(e *pipeline.Event, i int32, field, value string) {
	ind := &s.indicators[i]
	f := &s.feeds[ind.feed]
	if slices.ContainsFunc(e.Verdicts, func(v *pipeline.Verdict) bool {
		return v.Detector == "feeds" && strings.HasSuffix(v.Group, " "+ind.text)
	}) {
		return
	}
	evidence := fmt.Sprintf("%s %s is %s of feed %s", field, strings.Clone(value), ind.text, f.name)
	if ind.note != "" {
		evidence += ": " + ind.note
	}
	e.Verdicts = append(e.Verdicts, &pipeline.Verdict{
		Detector: "feeds", Rule: "feed-" + f.name, Version: f.version, Severity: f.severity, Score: uint32(ind.confidence),
		Evidence: evidence, Title: "Contact with an indicator of feed " + f.name, Group: e.Owner() + " " + ind.text,
	})
}
