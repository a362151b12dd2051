// Package authority reads the texts in which protocols write a host: the authority of a URL (RFC 3986, section 3.2),
// Host, X-Forwarded-For, server names. They hold a name or an address, with or without a user, a port, brackets, a
// zone and the dot of the root. The protocols store the host as Host returns it; rules and feeds read addresses
// with Addr, so that a host is the same one in every field and in every spelling.
package authority

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
)

// Host returns the host of an authority without user, port, and the dot of the root. An IPv6 address keeps its
// brackets, if it has them. The result is a part of text.
func Host(text []byte) []byte {
	if at := bytes.LastIndexByte(text, '@'); at >= 0 {
		text = text[at+1:]
	}
	if len(text) > 0 && text[0] == '[' {
		if end := bytes.IndexByte(text, ']'); end > 0 {
			return text[:end+1]
		}
		return TrimRoot(text)
	}

	// One colon precedes a port. An IPv6 address without brackets has more of them, and no port.
	colon := bytes.IndexByte(text, ':')
	if colon >= 0 && bytes.IndexByte(text[colon+1:], ':') >= 0 && isAddr(text) {
		return TrimRoot(text)
	}
	if colon >= 0 {
		text = text[:colon]
	}
	return TrimRoot(text)
}

func isAddr(text []byte) bool {
	_, ok := Addr(string(text[:min(len(text), maxAddr)]))
	return ok
}

// TrimRoot returns a name without the dot of the root. The root itself, a dot alone, stays.
func TrimRoot[T ~string | ~[]byte](name T) T {
	for len(name) > 1 && name[len(name)-1] == '.' {
		name = name[:len(name)-1]
	}
	return name
}

// TrimPort returns a host without the colon and the digits at its end.
func TrimPort(host string) string {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.Trim(host[colon+1:], "0123456789") != "" {
		return host
	}
	return host[:colon]
}

// maxAddr is more than the length of an address with brackets, the name of an interface as its zone, and a port.
const maxAddr = 80

// Addr returns the address that text holds, without its zone; an IPv4 address mapped into IPv6 is returned as IPv4.
// A port and brackets may stand around it, and a dot behind it. ok is false for anything else, such as a name. Addr
// does not allocate for names.
func Addr(text string) (addr netip.Addr, ok bool) {
	if isName(text) {
		return netip.Addr{}, false
	}
	text = strings.Trim(text, " \t\"")
	if text == "" || len(text) > maxAddr {
		return netip.Addr{}, false
	}
	if text[0] == '[' {
		end := strings.IndexByte(text, ']')
		if end < 0 || end+1 < len(text) && text[end+1] != ':' && text[end+1] != '.' {
			return netip.Addr{}, false
		}
		text = text[1:end]
	}
	if zone := strings.IndexByte(text, '%'); zone >= 0 {
		if strings.ContainsAny(text[zone+1:], "%/ []") {
			return netip.Addr{}, false
		}
		text = text[:zone]
	}

	// A port stands behind the only colon. Some proxies leave the brackets of IPv6 out: then it stands behind an
	// address that is whole without it, one of eight groups or one that ends like IPv4.
	last, dot := strings.LastIndexByte(text, ':'), strings.LastIndexByte(text, '.')
	switch colons := strings.Count(text, ":"); {
	case colons == 1, colons == 8 && !strings.Contains(text, "::"), dot >= 0 && last > dot:
		text = text[:last]
	}
	text = TrimRoot(text)
	if !addrBytes(text) {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(text)
	return addr.Unmap(), err == nil
}

// isName reports whether text is a name at a first look, as most hosts are: it ends with a letter beyond f, and has
// neither a port nor a zone, which may end so.
func isName(text string) bool {
	if text == "" {
		return true
	}
	last := text[len(text)-1] | 0x20
	return 'g' <= last && last <= 'z' && strings.IndexByte(text, ':') < 0 && strings.IndexByte(text, '%') < 0
}

// addrBytes reports whether text has only bytes of an address. The error of netip.ParseAddr allocates.
func addrBytes(text string) bool {
	colons := strings.IndexByte(text, ':') >= 0
	for i := len(text) - 1; i >= 0; i-- {
		switch c := text[i]; {
		case '0' <= c && c <= '9', c == '.', c == ':':
		case colons && ('a' <= c|0x20 && c|0x20 <= 'f'):
		default:
			return false
		}
	}
	return true
}

// NumericIPv4 returns the IPv4 address of a host that is written as inet_aton and browsers read it: in one to four
// numbers, decimal, octal (0…) or hexadecimal (0x…), of which the last fills the bytes that are left. 3405803785,
// 0xcb.0.0x7109 and 203.0.28937 are 203.0.113.9. ok is false for the usual form and for names.
func NumericIPv4(host []byte) (addr netip.Addr, ok bool) {
	if len(host) == 0 || len(host) > 4*len("0x000000ff.") || host[0] < '0' || host[0] > '9' {
		return netip.Addr{}, false
	}
	var value uint64
	parts, unusual := 0, false
	for rest, more := host, true; more; parts++ {
		var part []byte
		part, rest, more = bytes.Cut(rest, []byte("."))
		number, plain, ok := parseNumber(part)
		limit := uint64(math.MaxUint8)
		if !more {
			limit = math.MaxUint32 >> min(8*parts, 32)
		}
		if !ok || number > limit || parts == 4 {
			return netip.Addr{}, false
		}
		unusual = unusual || !plain
		if more {
			value |= number << (24 - 8*min(parts, 3))
		} else {
			value |= number
		}
	}
	if parts == 4 && !unusual {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// parseNumber returns a number of inet_aton. plain is true if it is decimal.
func parseNumber(text []byte) (number uint64, plain, ok bool) {
	base := uint64(10)
	switch {
	case len(text) > 1 && text[0] == '0' && text[1]|0x20 == 'x':
		base, text = 16, text[2:]
	case len(text) > 1 && text[0] == '0':
		base, text = 8, text[1:]
	case len(text) == 0:
		return 0, false, false
	}
	for _, c := range text {
		digit := uint64(16)
		switch lower := c | 0x20; {
		case '0' <= c && c <= '9':
			digit = uint64(c - '0')
		case 'a' <= lower && lower <= 'f':
			digit = uint64(lower-'a') + 10
		}
		if digit >= base {
			return 0, false, false
		}
		if number = number*base + digit; number > math.MaxUint32 {
			return 0, false, false
		}
	}
	return number, base == 10, true
}
