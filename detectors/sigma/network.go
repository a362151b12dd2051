package sigma

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// isNetwork reports whether text is an address or a network.
func isNetwork(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	network, err := netip.ParsePrefix(text)
	return err == nil && network == network.Masked()
}

// addressLike returns text if it is an address; the first one of a network or with text in front of it, else
// any address.
func addressLike(text string) string {
	if network, err := netip.ParsePrefix(text); err == nil {
		return network.Addr().String()
	}
	if network := networkOfPrefix(text); network != "" {
		return addressLike(network)
	}
	if _, err := netip.ParseAddr(text); err != nil {
		return "192.0.2.1"
	}
	return text
}

// networkOfPrefix returns the network of the addresses of IPv4 that begin with whole numbers and a dot: of
// "10.1." it is 10.1.0.0/16. It returns "" for other texts.
func networkOfPrefix(text string) string {
	parts, ok := strings.CutSuffix(text, ".")
	numbers := strings.Split(parts, ".")
	if !ok || len(numbers) > 3 {
		return ""
	}
	for _, number := range numbers {
		if n, err := strconv.ParseUint(number, 10, 8); err != nil || strconv.FormatUint(n, 10) != number {
			return ""
		}
	}
	bits := 8 * len(numbers)
	for len(numbers) < 4 {
		numbers = append(numbers, "0")
	}
	return fmt.Sprintf("%s/%d", strings.Join(numbers, "."), bits)
}
