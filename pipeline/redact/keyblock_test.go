package redact

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomKey returns the lines of a private key in PEM whose body has that many bytes.
func randomKey(rng *rand.Rand, size int) []string {
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	lines := []string{"-----BEGIN PRIVATE KEY-----"}
	for text := base64.StdEncoding.EncodeToString(body); text != ""; {
		n := min(len(text), 64)
		lines, text = append(lines, text[:n]), text[n:]
	}
	return append(lines, "-----END PRIVATE KEY-----")
}

// TestKeysOverSeveralRecordsAreHidden: no line of a private key passes, with times, levels and quotes around its lines,
// and while others write between them; the lines of others do not change.
func TestKeysOverSeveralRecordsAreHidden(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	fronts := map[string]func(i int, line string) string{
		"plain":    func(_ int, line string) string { return line },
		"indented": func(_ int, line string) string { return "    " + line },
		"time": func(i int, line string) string {
			return fmt.Sprintf("2026-11-24T23:08:%02dZ INFO  main: %s", i%60, line)
		},
		"compose": func(_ int, line string) string { return "web-1  | " + line },
		"JSON":    func(i int, line string) string { return fmt.Sprintf(`{"t":%02d,"msg":%s}`, i%100, quoteJSON(line)) },
		"code":    func(_ int, line string) string { return `  "` + line + `\n" +` },
		"logfmt":  func(_ int, line string) string { return `level=info msg="` + line + `"` },
		"CRI": func(i int, line string) string {
			return fmt.Sprintf("2026-11-24T23:08:%02d.1Z stdout F %s", i%60, line)
		},
	}
	others := []string{
		"GET /healthz 200", "started", "order 4711 was placed", `{"level":"info","msg":"cache miss"}`, "ok", "main.Run(0xc000012345)",
	}
	for name, front := range fronts {
		for _, disturbed := range []bool{false, true} {
			for size := 1100; size < 1112; size++ {
				var redactor Redactor
				var state LogState
				for i, line := range randomKey(rng, size) {
					out, _ := redactor.NextLine([]byte(front(i, line)), &state)
					isShort := len(line) < minEncoded && disturbed && !strings.HasSuffix(line, "=")
					if !strings.HasPrefix(line, "-----") && !isShort && strings.Contains(string(out), line) {
						t.Errorf("%s, %d bytes, disturbed %v: %s", name, size, disturbed, out)
					}
					if disturbed {
						other := others[rng.IntN(len(others))]
						if out, hidden := redactor.NextLine([]byte(other), &state); hidden {
							t.Errorf("%s: %s → %s", name, other, out)
						}
					}
				}
				if out, hidden := redactor.NextLine([]byte("word"), &state); hidden {
					t.Errorf("%s: the line behind the key became %s", name, out)
				}
			}
		}
	}
}

// TestAKeyWithoutItsEndHidesNoLogForEver: a log is read as before some lines after the beginning of a key.
func TestAKeyWithoutItsEndHidesNoLogForEver(t *testing.T) {
	var redactor Redactor
	var state LogState
	redactor.NextLine([]byte("-----BEGIN PRIVATE KEY-----"), &state)
	for i := range maxOtherLines + maxKeyLines {
		line := []string{"order placed by bob", "started"}[min(i, 1)]
		if _, hidden := redactor.NextLine([]byte(line), &state); hidden {
			t.Fatalf("line %d is hidden: %s", i, line)
		}
	}
	if state.key.open {
		t.Error("the key has no end")
	}
}
