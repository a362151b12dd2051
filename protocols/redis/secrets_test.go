package redis

import (
	"os"
	"strings"
	"testing"
)

// TestArgumentsAreSearchedForSecrets: no form of a secret that lines of logs have passes as the value of a key, nor as
// an element of a list.
func TestArgumentsAreSearchedForSecrets(t *testing.T) {
	secret := "hunter2hunter2"
	data, err := os.ReadFile("../../pipeline/redact/testdata/forms.txt")
	if err != nil {
		t.Fatal(err)
	}
	forms := 0
	for form := range strings.Lines(string(data)) {
		if strings.HasPrefix(form, "# pin:") { // the last section
			secret = "480917"
		}
		text := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSuffix(form, "\n"), "%s", secret), "%%", "%")
		if !strings.Contains(text, secret) || strings.HasPrefix(text, "# Lines") || len(text) > maxArg {
			continue
		}
		forms++
		for _, words := range [][]string{{"SET", "k", text}, {"LPUSH", "k", "a", text}, {"PUBLISH", "c", text}} {
			for _, got := range play(false, short, ">"+resp(words...), "<+OK\r\n") {
				if strings.Contains(got, secret) {
					t.Errorf("%s", got)
				}
			}
		}
	}
	if forms < 500 {
		t.Errorf("%d forms", forms)
	}
	same(t, play(false, short, ">"+resp("SET", "k", "a value of some length"), "<+OK\r\n"), "SET k a value of some length = OK")
}
