package feeds

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"tidegate/pipeline/authority"
)

// A kind is a sort of indicator, as the column or the type of a record states it.
type kind uint8

const (
	kindUnknown   kind = iota
	kindAny            // what the text looks like
	kindHost           // a name, or an address
	kindAddr           // an address, a network or a range
	kindURL            //
	kindHash           // MD5, SHA-1 or SHA-256 in hex, also JA3 and JA3S
	kindJA4            //
	kindUserAgent      // the whole header
)

// The first byte of a key keeps the kinds apart. A domain has none of these, and begins with its first label.
const (
	networkMark = iota
	urlMark
	hashMark
	ja4Mark
	userAgentMark
)

// Kinds of indicators, as counts name them.
const (
	DomainType    = "domain"
	AddressType   = "address"
	NetworkType   = "network"
	URLType       = "url"
	HashType      = "hash" // JA3 too, which is an MD5
	JA4Type       = "ja4"
	UserAgentType = "user-agent"
)

// typeOf returns the type of the indicator of a key.
func typeOf(key []byte) string {
	if len(key) == 0 {
		return DomainType
	}
	switch key[0] {
	case networkMark:
		if bits := key[17] &^ is4; bits == 0 || key[17]&is4 != 0 && bits == 32 {
			return AddressType
		}
		return NetworkType
	case urlMark:
		return URLType
	case hashMark:
		return HashType
	case ja4Mark:
		return JA4Type
	case userAgentMark:
		return UserAgentType
	}
	return DomainType
}

// maxText bounds the bytes of a URL or a User-Agent that are looked up. A longer indicator is refused.
const maxText = 1024

// addKind adds an indicator of a kind.
func (p *feedParser) addKind(kind kind, text []byte, about detail) error {
	switch kind {
	case kindUserAgent:
		return p.addUserAgent(bytes.TrimSpace(text), about)
	case kindURL:
		return p.addURL(unquote(text), about)
	case kindHash:
		return p.addHash(unquote(text), about)
	case kindJA4:
		return p.addJA4(unquote(text), about)
	case kindAny:
		text = unquote(text)
		switch {
		case hasScheme(text):
			return p.addURL(text, about)
		case isHash(text):
			return p.addHash(text, about)
		case isJA4(text):
			return p.addJA4(text, about)
		}
	}
	text = cleanIndicator(text)
	if first, last, ok := parseRange(text); ok {
		return p.addRange(first, last, about)
	}
	if kind == kindAddr && !bytes.ContainsRune(text, '/') {
		if _, err := netip.ParseAddr(string(text)); err != nil {
			return fmt.Errorf("%q is not an address", shorten(text))
		}
	}
	return p.add(text, about)
}

// isHash reports whether text has the length and the digits of an MD5, SHA-1 or SHA-256 in hex.
func isHash(text []byte) bool {
	if len(text) != 32 && len(text) != 40 && len(text) != 64 {
		return false
	}
	for _, c := range text {
		if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
			return false
		}
	}
	return true
}

func (p *feedParser) addHash(text []byte, about detail) error {
	text = bytes.TrimPrefix(text, []byte("sha256:"))
	if !isHash(text) {
		return fmt.Errorf("%q is not an MD5, SHA-1 or SHA-256 in hex", shorten(text))
	}
	p.list.add(appendKey(p.key[:0], hashMark, bytes.ToLower(text)), about)
	return nil
}

// isJA4 reports whether text has the form of a JA4: t13d1516h2_8daaf6152771_b186095e22b6.
func isJA4(text []byte) bool {
	if len(text) != 36 || text[10] != '_' || text[23] != '_' || !bytes.ContainsRune([]byte("tqdTQD"), rune(text[0])) {
		return false
	}
	for i, c := range text {
		if i != 10 && i != 23 && !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z') {
			return false
		}
	}
	return true
}

func (p *feedParser) addJA4(text []byte, about detail) error {
	if !isJA4(text) {
		return fmt.Errorf("%q is not a JA4", shorten(text))
	}
	p.list.add(appendKey(p.key[:0], ja4Mark, bytes.ToLower(text)), about)
	return nil
}

// minUserAgent is the length from which on a User-Agent tells one client from others.
const minUserAgent = 4

func (p *feedParser) addUserAgent(text []byte, about detail) error {
	if len(text) < minUserAgent || len(text) > maxText {
		return fmt.Errorf("user agent %q has %d bytes, not %d to %d", shorten(text), len(text), minUserAgent, maxText)
	}
	p.list.add(appendKey(p.key[:0], userAgentMark, text), about)
	return nil
}

func appendKey[T ~string | ~[]byte](buf []byte, mark byte, text T) []byte {
	return append(append(buf, mark), text...)
}

// hasScheme reports whether text begins like a URL: letters and ://, also where the letters or the colon are changed so
// that nobody follows the link (hxxp, [:]//).
func hasScheme(text []byte) bool {
	scheme, _, ok := cutScheme(text)
	return ok && len(scheme) > 0
}

func cutScheme(text []byte) (scheme, rest []byte, ok bool) {
	end := 0
	for end < len(text) && end < 16 && ('a' <= text[end]|0x20 && text[end]|0x20 <= 'z') {
		end++
	}
	for _, mark := range []string{"://", "[:]//", "[://]"} {
		if bytes.HasPrefix(text[end:], []byte(mark)) {
			return text[:end], text[end+len(mark):], true
		}
	}
	return nil, text, false
}

// addURL adds a URL. Its key is host, path and query: a server behind a proxy sees neither scheme nor port of what the
// client asked for.
func (p *feedParser) addURL(text []byte, about detail) error {
	scheme, rest, _ := cutScheme(text)
	switch strings.ToLower(string(scheme)) {
	case "", "http", "https", "hxxp", "hxxps", "ws", "wss", "ftp", "fxp", "tcp", "udp":
	default:
		return fmt.Errorf("%q has a scheme of no protocol of events", shorten(text))
	}
	end := bytes.IndexAny(rest, "/?#\\")
	if end < 0 {
		end = len(rest)
	}
	host, path := authority.Host(cleanDots(rest[:end])), rest[end:]
	path, _, _ = bytes.Cut(path, []byte("#"))

	key := append(p.key[:0], urlMark)
	addr, ok := authority.Addr(string(host))
	if !ok {
		addr, ok = authority.NumericIPv4(host)
	}
	if ok {
		if err := p.checkNetwork(netip.PrefixFrom(addr, addr.BitLen())); err != nil {
			return err
		}
		key = addr.AppendTo(key)
	} else {
		name, err := p.normalizeDomain(host)
		if err != nil {
			return err
		}
		key = append(key, name...)
	}
	if len(key)+len(path)+1 > maxText {
		return fmt.Errorf("%q… has more than %d bytes", shorten(text), maxText)
	}
	if len(path) == 0 || path[0] != '/' {
		key = append(key, '/')
	}
	p.list.add(append(key, path...), about)
	return nil
}

// parseRange returns the ends of a range of addresses, as in 192.0.2.7-192.0.2.20.
func parseRange(text []byte) (first, last netip.Addr, ok bool) {
	from, to, ok := bytes.Cut(text, []byte("-"))
	if !ok || len(text) > 100 {
		return first, last, false
	}
	first, err := netip.ParseAddr(string(bytes.TrimSpace(from)))
	if err != nil {
		return first, last, false
	}
	last, err = netip.ParseAddr(string(bytes.TrimSpace(to)))
	return first.Unmap(), last.Unmap(), err == nil
}

// addRange adds the networks of which a range consists, 254 at most.
func (p *feedParser) addRange(first, last netip.Addr, about detail) error {
	if first.BitLen() != last.BitLen() || last.Less(first) || first.Zone() != "" || last.Zone() != "" {
		return fmt.Errorf("range %s-%s ends before it begins, or mixes IPv4 and IPv6", first, last)
	}
	var networks []netip.Prefix
	for at := first; ; {
		bits := at.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(at, bits-1)
			if wider.Masked().Addr() != at || last.Less(lastAddr(wider)) {
				break
			}
			bits--
		}
		network := netip.PrefixFrom(at, bits)
		if err := p.checkNetwork(network); err != nil {
			return fmt.Errorf("range %s-%s: %w", first, last, err)
		}
		networks = append(networks, network)
		end := lastAddr(network)
		if end == last {
			break
		}
		at = end.Next()
	}
	if p.list.index.count+len(networks) > p.room {
		return skipf("too many indicators", "more than %d indicators", maxIndicators)
	}
	for _, network := range networks {
		if err := p.addNetwork(network, about); err != nil {
			return err
		}
	}
	return nil
}

// lastAddr returns the last address of a network.
func lastAddr(network netip.Prefix) netip.Addr {
	bytes := network.Masked().Addr().AsSlice()
	for bit := network.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}
