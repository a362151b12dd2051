package pipeline

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// RegisteredDomain returns the registered domain of a DNS name: its public suffix and the label in front of it, or "" if
// name is a public suffix. Private suffixes (duckdns.org) count.
func RegisteredDomain(name string) string {
	suffix, _ := publicsuffix.PublicSuffix(name)
	end := len(name) - len(suffix) - 1
	if end <= 0 || name[end] != '.' {
		return ""
	}
	for end--; end >= 0; end-- {
		if name[end] == '.' && !isEscaped(name[:end]) {
			break
		}
	}
	return name[end+1:]
}

// isEscaped reports whether the byte that follows before is escaped by a backslash.
func isEscaped(before string) bool {
	return (len(before)-len(strings.TrimRight(before, `\`)))%2 == 1
}
