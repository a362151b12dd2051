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
	" id | name | password\n----+-------+----------\n  1 | eve   | \n  2 | guest | \n  3 | bob   | %s\n(3 rows)",
	"id|name|password|note\n1|bob|%s|keep\n2|eve||x\n3|joe|%s|y z\n(3 rows)", "name|password\nbob|%s\njoe|%s", "user_id|token\n12|%s",
	"Host\tUser\tauthentication_string\n%%\tbob\t%s\nlocalhost\troot\tNULL\nlocalhost\tjoe\t%s", "note\tsecret_key\na b\t%s",
	"id|name|password\n--+----+--------\n1|bob|%s\n2|joe|%s",
	" note | name | password\n------+------+----------\n      | eve  | %s\n a    | bob  | %s",
	"| note | password | name |\n|------|----------|------|\n|      | %s | bob |\n| a | %s |  |\n| b |  | |\n|  | %s |  |",
}

// tableProse are texts with tables that have no secret, or none that is meant.
var tableProse = []string{
	" id | name | password_changed_at\n----+------+---------------------\n  1 | bob  | 2026-11-24 10:00:00",
	"| suite | pass | fail |\n|-------|------|------|\n| unit  | 1234 | 5    |",
	"| model | tokens | cost |\n|-------|--------|------|\n| small | 1234567 | 5    |",
	"INFO | auth | token\nINFO | auth | monkeys",
	" name | password\n------+----------\n bob  | ********\n eve  | \n joe | NULL\n(3 rows)\nthe | usual | word\nyet another | monkeys",
	"WARN|auth|token\nINFO|auth|monkeys", "a|b|token\nx|y|monkeys", "suite\tpass\tfail\nunit\tmonkeys\t3", "id|password_changed_at\n1|monkeys", "id|name|pass\n1|unit|12",
	"id|password\n1 monkeys\n1|monkeys", "user\tpassword\nbob\t\tmonkeys", "2026|bob|password\n2026|joe|monkeys", "id|password|\n1|monkeys|",
	"| token | meaning\n| monkeys | words",
	"+----+----------+\n| id | password |\n+----+----------+\n|  1 | NULL     |\n+----+----------+\nINFO | auth | monkeys",
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

// TestBarInValueDoesNotEndTable: of a row with more or fewer cells than the heading has, all from the first secret column
// on is hidden, and the rows below it are still read.
func TestBarInValueDoesNotEndTable(t *testing.T) {
	const heading = " name | password | note\n------+----------+------\n"
	const framed = "+------+----------+\n| name | password |\n+------+----------+\n"
	check := func(heading, rows, want string) {
		t.Helper()
		if out := strings.Join(nextLines(heading+rows), "\n"); out != heading+want {
			t.Errorf("%s%s\n    became\n%s", heading, rows, out)
		}
		if again := strings.Join(nextLines(heading+want), "\n"); again != heading+want {
			t.Errorf("not idempotent:\n%s", again)
		}
	}
	check(heading, " bob | a|hunter2 | x\n joe | hunter2 | y", " bob | REDACTED\n joe | REDACTED | y")
	check(heading, " b|b | hunter2 | x\n joe | hunter2 | y", " b|REDACTED\n joe | REDACTED | y")
	check(heading, " bob | hunter2\n joe | hunter2 | y", " bob | REDACTED\n joe | REDACTED | y")
	check(framed, "| bob  | a|hunter2 |\n| joe  | hunter2  |", "| bob  | REDACTED |\n| joe  | REDACTED  |")
	check(framed, "INFO | auth | monkeys\n| joe | monkeys |", "INFO | auth | monkeys\n| joe | monkeys |")
	check(heading, "(2 rows)\nINFO | auth | monkeys", "(2 rows)\nINFO | auth | monkeys")
}

// TestLinesOfPasswordFilesAreHidden: with another port than that of PostgreSQL only if the password looks generated, and the
// line has nothing else.
func TestLinesOfPasswordFilesAreHidden(t *testing.T) {
	var redactor Redactor
	check := func(line, want string) {
		t.Helper()
		if out, _ := redactor.Line([]byte(line)); string(out) != want {
			t.Errorf("%s became %s, want %s", line, out, want)
		}
	}
	check("proxy.shop.example:6000:shop:bob:a1b2c3d4", "proxy.shop.example:6000:shop:bob:REDACTED")
	check("proxy.shop.example:6000:shop:bob:a1b2c3d4\r\n", "proxy.shop.example:6000:shop:bob:REDACTED\r\n")
	check("10.0.0.1:5432:shop:bob:monkey", "10.0.0.1:5432:shop:bob:REDACTED")
	check("a db:*:shop:bob:monkey b", "a db:*:shop:bob:REDACTED b")
	check("/run/postgresql:*:*:*:monkey", "/run/postgresql:*:*:*:REDACTED")
	for _, line := range []string{
		"proxy:6000:shop:bob:monkey", "10:00:00:INFO:monkey", "main.go:42:7:error:a1b2c3d4", "web:5432:1:bob:monkey", "web:5432:shop:1:monkey", "web:5432:shop:bob",
		"root:x:0:0:root:/root:/bin/bash", "web:5432:shop:bob: is ready", "web:5432:shop/a:bob:monkey", "we*:5432:shop:bob:monkey", "web:123456:*:bob:monkey", "web:5432:shop:bob:null",
		"postgres:5432: connection refused", "tcp 0.0.0.0:* 0.0.0.0:5432: open", "grant *:*:read on repo", "arn:aws:iam:*:*:monkey", "log a:6000:shop:bob:a1b2c3d4",
	} {
		check(line, line)
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
