package redact

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// tables are those of clients of databases, with a secret in some column.
var tables = []string{
	" id | name | password | note\n----+------+----------+------\n  1 | bob  | %s | keep\n  2 | eve  |  | x\n  3 | joe | %s | y z\n(3 rows)",
	"+----+--------+------+\n| id | secret | note |\n+----+--------+------+\n|  7 | %s | a b  |\n|  8 | %s | c |\n+----+--------+------+",
	"| name | api_token |\n|:-----|----------:|\n| ci | %s |",
	" user | authentication_string | plugin\n------+---+---\n root | %s | mysql_native_password",
	"   ┏━━━━┳━━━━━━━━┳━━━━━━┓\n   ┃ id ┃ secret ┃ note ┃\n   ┡━━━━╇━━━━━━━━╇━━━━━━┩\n1. │  7 │ %s │ a │\n   ├────┼────────┼──────┤\n2. │  8 │ %s │ b │\n   └────┴────────┴──────┘",
}

// tableProse are texts with tables that have no secret, or none that is meant.
var tableProse = []string{
	" id | name | password_changed_at\n----+------+---------------------\n  1 | bob  | 2026-11-24 10:00:00",
	"| suite | pass | fail |\n|-------|------|------|\n| unit  | 1234 | 5    |",
	"| model | tokens | cost |\n|-------|--------|------|\n| small | 1234567 | 5    |",
	"INFO | auth | token\nINFO | auth | monkeys",
	" name | password\n------+----------\n bob  | ********\n eve  | \n joe | NULL\n(3 rows)\nthe | usual | word\nyet another | monkeys",
	"| token | meaning\n| monkeys | words",
}

// TestColumnsOfTablesAreHidden: of a table, the cells below the names of secrets are hidden, and no others.
func TestColumnsOfTablesAreHidden(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 20))
	for _, form := range tables {
		for _, secret := range randomSecrets(rng, "any") {
			text := replaceSecret(form, secret)
			out := strings.Join(nextLines(text), "\n")
			if want := replaceSecret(form, Marker); out != want {
				t.Errorf("%s\n    became\n%s", text, out)
			}
		}
	}
	for _, text := range tableProse {
		if out := strings.Join(nextLines(text), "\n"); out != text {
			t.Errorf("%s\n    became\n%s", text, out)
		}
	}
}

// TestCodesAndSeedsAreHidden: a code of digits, and the words of a seed, behind their names.
func TestCodesAndSeedsAreHidden(t *testing.T) {
	var redactor Redactor
	const seed = "legal winner thank year wave sausage worth useful legal winner thank yellow"
	for _, form := range [][2]string{
		{"your verification code is %s", "492817"},
		{"SMS to +49: your login code is %s.", "4928"},
		{"verification code: %s", "492817"},
		{"seed phrase: %s", seed},
		{"mnemonic=%s", seed},
		{`{"msg":"recovery phrase: %s"}`, seed},
	} {
		out, _ := redactor.Line([]byte(replaceSecret(form[0], form[1])))
		if want := replaceSecret(form[0], Marker); string(out) != want {
			t.Errorf("%s", out)
		}
	}
	for _, line := range []string{
		"the verification code is invalid", "security code is 12", "reset code is required", "the recovery phrase has 12 words",
		"login code is in auth.go:4711", "seed phrase: none of the words is known", "the security code was read by 4711 users",
	} {
		if out, hidden := redactor.Line([]byte(line)); hidden {
			t.Errorf("%s became %s", line, out)
		}
	}
}
