package discover

import (
	"strings"
	"testing"
)

// TestIDsOfContainersAre64HexDigits in lower case, as dockerd writes them.
func TestIDsOfContainersAre64HexDigits(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for _, c := range "09afAFgz/:`\x00@" {
		text := id[:63] + string(c)
		if want := strings.ContainsRune("0123456789abcdef", c); isContainerID(text) != want {
			t.Errorf("%q is an id: %t", text, !want)
		}
		if isContainerID(string(c)+id[1:]) != strings.ContainsRune("0123456789abcdef", c) {
			t.Errorf("an id that begins with %q", c)
		}
	}
	for _, text := range []string{"", id[:63], id + "0"} {
		if isContainerID(text) {
			t.Errorf("%q is an id", text)
		}
	}
}
