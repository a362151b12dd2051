package redact

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestPrefilterMissesNoSecret: the passes find nothing in a line that the prefilter rejects, in texts composed of parts
// of all forms of secrets and of ordinary lines.
func TestPrefilterMissesNoSecret(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var lines []string
	for _, form := range secretForms(t) {
		lines = append(lines, replaceSecret(form.text, randomSecrets(rng, form.section)[rng.IntN(3)]))
	}
	for _, form := range secretLines {
		lines = append(lines, replaceSecret(form, secret))
	}
	lines = append(append(lines, ordinaryLines...), proseLines(t)...)
	joints := []string{"", " ", "\"", "'", "=", ": ", ", ", "\\", "|", "%20", "@", "/", "-", "\n", "\\\"", "\u00e9", "\t"}
	part := func() string {
		line := lines[rng.IntN(len(lines))]
		from := rng.IntN(len(line) + 1)
		return line[from : from+rng.IntN(len(line)-from+1)]
	}
	rounds := 200_000
	if testing.Short() {
		rounds = 20_000
	}
	for range rounds {
		var text strings.Builder
		for range 1 + rng.IntN(3) {
			text.WriteString(part())
			text.WriteString(joints[rng.IntN(len(joints))])
		}
		checkPrefilter(t, []byte(text.String()))
	}
}

// checkPrefilter checks that the prefilter lets a line pass if a secret is in it.
func checkPrefilter(t *testing.T, line []byte) {
	t.Helper()
	var filtered, unfiltered Redactor
	filtered.findLine(line)
	unfiltered.readText(view{text: line}, 0)
	if got, want := filtered.Findings(), unfiltered.Findings(); !slices.Equal(got, want) {
		t.Fatalf("%q: %v with the prefilter, %v without", line, got, want)
	}
}
