package redact

import (
	"math/rand/v2"
	"testing"
)

// TestPrefilterMissesNoSecret: the passes find nothing in a line that the prefilter rejects, in texts composed of parts
// of all forms of secrets and of ordinary lines, with escapes, encodings and colours between them.
func TestPrefilterMissesNoSecret(t *testing.T) {
	seeds, rounds := 16, 100_000
	if testing.Short() {
		seeds, rounds = 4, 20_000
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), 6))
		lines := composedLines(t, rng)
		var redactor Redactor
		for range rounds {
			checkPrefilter(t, &redactor, lines())
		}
	}
}

// composedLines returns a function that composes lines.
func composedLines(t *testing.T, rng *rand.Rand) func() []byte {
	t.Helper()
	var lines []string
	for _, form := range secretForms(t) {
		lines = append(lines, replaceSecret(form.text, randomSecrets(rng, form.section)[rng.IntN(3)]))
	}
	for _, form := range secretLines {
		lines = append(lines, replaceSecret(form, secret))
	}
	lines = append(append(lines, ordinaryLines...), proseLines(t)...)
	joints := []string{
		"", " ", "\"", "'", "=", ": ", ", ", "\\", "|", "%20", "@", "/", "-", "\n", "\\\"", "\u00e9", "\t", "%2", "%", "+", "`", "?",
		"&", "&quot;", "&#61;", `\x22`, `\n`, `\t`, `\b`, `\/`, `\\`, `\u0020`, `\u001b[1m`, "\x1b[m", "''", `""`, "：", "“", "＝",
	}
	part := func() string {
		line := lines[rng.IntN(len(lines))]
		from := rng.IntN(len(line) + 1)
		return line[from : from+rng.IntN(len(line)-from+1)]
	}
	return func() []byte {
		var text []byte
		for range 1 + rng.IntN(3) {
			text = append(text, part()...)
			text = append(text, joints[rng.IntN(len(joints))]...)
		}
		return text
	}
}

// checkPrefilter checks that no pass finds a secret in a line that the prefilter rejects.
func checkPrefilter(t *testing.T, r *Redactor, line []byte) {
	t.Helper()
	if r.mayHoldSecret(line) {
		return
	}
	r.spans = r.spans[:0]
	if r.readText(view{text: line}, 0); len(r.spans) > 0 {
		t.Fatalf("%q: %v without the prefilter", line, r.Findings())
	}
}

// TestPrefilterReadsEscapesAsThePassesDo: an escape, a colour or an encoded character may end a word, or stand within
// the name of a parameter.
func TestPrefilterReadsEscapesAsThePassesDo(t *testing.T) {
	var redactor Redactor
	for _, line := range []string{
		`at\nzip -P hunter2 a.zip`, `{"x":"password\t\"hunter2\""}`, `{"x":"</pass\ter2hunter2"}`, `Bearer hunter2\/hunter2`, `x\nghp_hunter2hunter2`,
		`x\nsk-ant-hunter2hunter2`, `{"c":"\u001b[36mpass\u001b[0m=hunter2"}`, `{"c":"\u0070ass=hunter2"}`, "masterauth\"\"hunter2",
		"CONFIG SET requirepass\u00e9 hunter2", "HELLO 3 AUTH , hunter2", "?q=token%2=hunter2", "/x?pass%20word=hunter2", "login\tbob/hunter2",
		`x\twebhooks/123456/hunter2hunter2hunter2`, `bearer, \thunter2hunter2`, `\naccess key hunter2hunter2`, "the secrets...@6+LtTTYq4",
		"identified by\t'hunter2'", `npm\u0020config\u0020set x:_auth hunter2`, `a\tmysql -phunter2`, `x\nroot:hunter2@tcp(db:1)/x`,
	} {
		if out, hidden := redactor.Line([]byte(line)); !hidden {
			t.Errorf("%s", out)
		}
		checkPrefilter(t, &redactor, []byte(line))
	}
}
