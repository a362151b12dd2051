package rules

import (
	"slices"
	"strings"
	"testing"
)

// TestListsThatAnAutomatonServes: long enough, of bounded bytes, without an empty text, and with a class for each byte
// value.
func TestListsThatAnAutomatonServes(t *testing.T) {
	check := func(what string, texts []string, want bool) {
		t.Helper()
		if useAutomaton(texts) != want {
			t.Errorf("%s: used %t, want %t", what, !want, want)
		}
	}
	list := strings.Split("abcdefgh", "")
	check("8 texts", list, true)
	check("7 texts", list[:7], false)
	for i := range list {
		withEmpty := slices.Clone(list)
		withEmpty[i] = ""
		check("an empty text", withEmpty, false)
	}
	check("8 KiB", append(slices.Clone(list), strings.Repeat("a", 8<<10-8)), true)
	check("8 KiB and a byte", append(slices.Clone(list), strings.Repeat("a", 8<<10-7)), false)

	bytes := func(count int) (texts []string) {
		for i := range count {
			texts = append(texts, string([]byte{byte(i)}), string([]byte{byte(i), byte(i)}))
		}
		return texts
	}
	check("fewer byte values than classes", bytes(maxClasses-2), true)
	check("as many byte values as classes, of which one is for all others", bytes(maxClasses), false)
}
