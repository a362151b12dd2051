package redact

import (
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"testing"
)

// A secretForm is a line with a secret.
type secretForm struct{ section, text string }

// secretForms returns the forms of testdata/forms.txt.
func secretForms(t testing.TB) (list []secretForm) {
	t.Helper()
	data, err := os.ReadFile("testdata/forms.txt")
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if name, found := strings.CutPrefix(line, "# "); found {
			section, _, _ = strings.Cut(name, ":")
			continue
		}
		list = append(list, secretForm{section, line})
	}
	return list
}

// randomSecrets returns a secret of each alphabet that the forms of a section have.
func randomSecrets(rng *rand.Rand, section string) (list []string) {
	draw := func(alphabet string, size int) string {
		var out strings.Builder
		for range size {
			out.WriteByte(alphabet[rng.IntN(len(alphabet))])
		}
		return out.String()
	}
	if section == "word" {
		return []string{"monkey", "Sunshine", "qwertz", "letmein", "rosebud"}
	}
	if section == "pin" {
		return []string{draw("456789", 4), draw("456789", 6), draw("456789", 8)}
	}
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	list = []string{
		draw(lower, 5) + draw(digits, 2) + draw(lower+digits, 7), // hunter2hunter2
		draw(lower, 3) + draw(digits, 2) + draw(lower+upper+digits, 20),
		draw("abcdef", 2) + draw(digits, 2) + draw("abcdef"+digits, 28),
	}
	if section == "token" {
		return list
	}
	list = append(list,
		draw(lower, 2)+draw(digits, 1)+"$"+draw(lower+"!$^*~#", 8)+"x"+draw(digits, 1),
		draw(lower+upper, 4)+draw(digits, 2)+draw(lower+upper+digits+"+", 17)+"a==",
	)
	if section == "any" {
		list = append(list, draw(lower, 9), draw(upper, 10), draw(digits, 8))
	}
	return list
}

// places are texts that hold a line with a secret.
var places = map[string]func(line string) string{
	"alone":   func(line string) string { return line },
	"message": func(line string) string { return "2026-11-24T23:08:00.123Z INFO  main: " + line },
	"logfmt":  func(line string) string { return "level=info msg=" + quoteJSON(line) + " user=bob" },
	"JSON":    func(line string) string { return `{"level":"info","msg":` + quoteJSON(line) + `,"n":1}` },
	"JSON in it": func(line string) string {
		return `{"log":` + quoteJSON(`{"msg":`+quoteJSON(line)+`}`+"\n") + `,"stream":"stdout"}`
	},
	"list":   func(line string) string { return `{"lines":["x",` + quoteJSON(line) + `]}` },
	"colour": func(line string) string { return "\x1b[32mINFO\x1b[0m " + line },
	"query":  func(line string) string { return `"GET /x?q=%22` + url.PathEscape(line) + `%22 HTTP/1.1" 200` },
	"form":   func(line string) string { return `"POST /x?a=b+c&q=%22` + url.QueryEscape(line) + `%22 HTTP/1.1" 200` },
}

// sqlPlaces are statements that hold a line with a secret.
var sqlPlaces = []func(line string) string{
	func(line string) string { return "SELECT 1 -- " + line },
	func(line string) string { return "INSERT INTO log (text) VALUES (" + quoteSQL(line) + ", 7)" },
	func(line string) string {
		return "UPDATE log SET doc = " + quoteSQL(`{"msg":`+quoteJSON(line)+`}`) + " WHERE id = 7"
	},
}

// quoteSQL returns a literal of MySQL.
func quoteSQL(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", "''").Replace(text) + "'"
}

func quoteJSON(text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// TestSecretsOfEveryAlphabetAreHiddenInEveryPlace: no form leaks a secret, whatever its letters are, in lines, JSON,
// URLs and labels. A marker beside a secret that still stands would be worse than none.
func TestSecretsOfEveryAlphabetAreHiddenInEveryPlace(t *testing.T) {
	var redactor Redactor
	rng := rand.New(rand.NewPCG(3, 4))
	for _, form := range secretForms(t) {
		for _, secret := range randomSecrets(rng, form.section) {
			line := replaceSecret(form.text, secret)
			for name, place := range places {
				text := place(line)
				out, hidden := redactor.Line([]byte(text))
				if got := string(out); !hidden || holdsSecret(got, secret) {
					t.Errorf("%s: %s\n    → %s", name, text, got)
				}
				if json.Valid([]byte(text)) && !json.Valid(out) {
					t.Errorf("%s: no JSON: %s", name, out)
				}
			}
			for _, escape := range []func(string) string{url.PathEscape, url.QueryEscape} {
				target := "/x?q=%22" + escape(line) + "%22"
				if out, _ := redactor.URL([]byte(target)); holdsSecret(string(out), secret) {
					t.Errorf("URL: %s → %s", target, out)
				}
			}
			for _, place := range sqlPlaces {
				statement := place(line)
				if out, _ := redactor.SQL([]byte(statement)); holdsSecret(string(out), secret) {
					t.Errorf("SQL: %s → %s", statement, out)
				}
			}
			if out := redactor.Label("job.command", line); holdsSecret(out, secret) {
				t.Errorf("label: %s → %s", line, out)
			}
		}
	}
}

// holdsSecret reports whether a secret, or one half of it, is in a text, plain or escaped.
func holdsSecret(text, secret string) bool {
	for _, part := range []string{secret, secret[:len(secret)/2], secret[len(secret)/2:]} {
		escaped := strings.Trim(quoteJSON(part), `"`)
		for _, written := range []string{part, escaped, url.PathEscape(part)} {
			if len(part) > 3 && strings.Contains(text, written) {
				return true
			}
		}
	}
	return false
}
