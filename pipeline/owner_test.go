package pipeline

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestGroupsAreReadAgain: the fields and values of the text of a group are those of which it was made, whatever the values
// hold; other texts are refused.
func TestGroupsAreReadAgain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		var group []byte
		var want [][2]string
		for range 1 + random.IntN(3) {
			value := ""
			for range random.IntN(4) {
				value += []string{"a", " ", "=", `"`, `\`, "\n", "é", "\u00a0", "b=c", `"x"`}[random.IntN(10)]
			}
			name := []string{"container.id", "source.ip"}[random.IntN(2)]
			group, want = AppendGroup(group, name, value), append(want, [2]string{name, value})
		}
		if got, ok := ParseGroup(string(group)); !ok || !slices.Equal(got, want) {
			t.Fatalf("%s: %q, want %q", group, got, want)
		}
	}
	for _, text := range []string{"", "a", "=", "a b=c", `a="b`, `a="b"c`, "a=b ", " a=b", `a="b" `, "a=b  c=d"} {
		if fields, ok := ParseGroup(text); ok {
			t.Errorf("%q has the fields %q", text, fields)
		}
	}
}
