package rules

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestAutomatonOfAListAgreesWithSearches: contains with a long list holds for the texts for which one of the searches
// finds something, literals within literals included.
func TestAutomatonOfAListAgreesWithSearches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	word := func(longest int) string {
		var text strings.Builder
		for range 1 + rng.IntN(longest) {
			text.WriteByte("abcA\xff"[rng.IntN(5)])
		}
		return text.String()
	}
	for range 300 {
		var literals []string
		for range minAutomaton + rng.IntN(20) {
			literals = append(literals, word(12))
		}
		if !useAutomaton(literals) {
			t.Fatalf("not used for %q", literals)
		}
		found := newAutomaton(literals, false).hasAny
		want := anyOf(literals, strings.Contains)
		for range 100 {
			if text := word(40); found(text) != want(text) {
				t.Fatalf("%q in %q: %v, want %v", literals, text, found(text), want(text))
			}
		}
	}
	if useAutomaton(append([]string{""}, strings.Split("abcdefghij", "")...)) || useAutomaton([]string{"a"}) {
		t.Error("used for an empty text, or a short list")
	}
}
