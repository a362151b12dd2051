package redact

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// nextLines returns the lines of a text, each redacted as the next record of a log.
func nextLines(text string) []string {
	var redactor Redactor
	var state LogState
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		redacted, _ := redactor.NextLine([]byte(line), &state)
		out = append(out, string(redacted))
	}
	return out
}

// continuedForms are texts whose lines are records of a log: the name of a secret is in one, the secret in another.
var continuedForms = []string{
	"- name: DB_PASSWORD\n  value: %s", "        - name: DB_PASSWORD\n          value: \"%s\"", "env:\n- name: API_TOKEN\n  value: '%s'\n- name: LOG",
	"web-1  | - name: DB_PASSWORD\nweb-1  |   value: %s", "{\n  \"name\": \"DB_PASSWORD\",\n  \"value\": \"%s\"\n}",
	"    \"Key\": \"api_key\",\n    \"Type\": \"String\",\n    \"Value\": \"%s\",", "+ name  = \"DB_PASSWORD\"\n+ value = \"%s\"",
	"name: DB_PASSWORD\ntype: env\nvalue: two words %s", "Variable_name: wsrep_sst_auth\n        Value: root:%s",
	"name  | DB_PASSWORD\nvalue | %s", "  Name: MYSQL_ROOT_PASSWORD\n  Value: %s",
	"{\n  \"password\":\n    \"%s\",\n  \"user\": \"bob\"", "password:\n  %s", "- password:\n    '%s'", "passwords:\n  - %s\n  - %s\nuser: bob", "api_keys:\n- %s\n- %s",
	"password: |\n  %s\n  and %s\nuser: bob", "  client_secret: >-\n    %s", "  \"tokens\": [\n    \"%s\",\n    \"%s\"\n  ],",
	"  \"password\": {\n    \"value\": \"%s\"\n  },", "<password>\n  %s\n</password>", "<key>password</key>\n<string>%s</string>",
	"args:\n- --password\n- %s", "  args:\n  - --token\n  - \"%s\"", "\"args\": [\n  \"--password\",\n  \"%s\",", "mysql --password \\\n  %s db",
	"Content-Disposition: form-data; name=\"password\"\r\n\r\n%s\r\n--x", "Content-Disposition: form-data; name=\"api_key\"\n\n%s\n--x",
	"> Content-Disposition: form-data; name=password\n> Content-Type: text/plain\n> \n> %s",
	"LOG:  execute <unnamed>: UPDATE users SET password = $1 WHERE id = $2\nDETAIL:  parameters: $1 = '%s', $2 = '7'",
	"statement: INSERT INTO users (name, password)\n\tVALUES ($1, $2)\nDETAIL:  Parameters: $1 = 'bob', $2 = '%s'",
	"execute S_1: SELECT id FROM users\n\tWHERE api_token = $2\n\tAND name = $1\nSTATEMENT: x\nDETAIL:  parameters: $1 = NULL, $2 = '%s'",
	"<entry>\n<name>DB_PASSWORD</name>\n<value>%s</value>", "private_key: |\n  %s",
}

// continuedProse are texts whose lines are records of a log without a secret.
var continuedProse = []string{
	"- name: LOG_LEVEL\n  value: debug", "- name: DB_PASSWORD\n  valueFrom:\n    secretKeyRef:\n      name: db\n      key: password\n- name: LOG\n  value: debug",
	"- name: DB_PASSWORD\n- name: LOG_LEVEL\n  value: debug", "Password:\nLast login: Tue Nov 24 on tty1", "Enter password:\nstarted", "unknown key: password\nvalue: 12 s",
	"password:\n  must be at least 12 characters", "password:\n  required", "errors:\n  password:\n    - is too short\n    - is too common", "token:\n  expired",
	"invalid token:\n  at main.go:42", "the following is no password\n  main", "field: password\n  label: New password", "\"name\": \"password\",\n\"type\": \"string\",\n\"required\": true",
	"\"required\": [\n  \"username\",\n  \"password\"\n],\n\"type\": \"object\"", "secrets:\n  db:\n    external: true", "secret:\n  secretName: db", "args:\n- --password-file\n- /run/secrets/db",
	"args:\n- --password\n- --user", "password: |\nuser: bob", "<password>\n</password>", "- name: DB_PASSWORD\nGET /healthz 200\nGET /value: 200\norder value: 12", "password:\n\n  word and more",
	"Content-Disposition: form-data; name=\"password\"\n--x", "Content-Disposition: form-data; name=\"password\"\nGET /healthz 200", "Content-Disposition: form-data; name=\"file\"\n\nmain",
	"execute S_1: SELECT id FROM items WHERE id = $1\nDETAIL:  parameters: $1 = 'monkey'", "the password is required\nDETAIL:  parameters: $1 = 'monkey'",
	"reset password\nvalue: 12", "mysql --password \\\n  --user bob", "tokens:\n- $TOKEN\n- ${OTHER}",
}

// TestSecretsOverSeveralRecordsAreHidden: a value is hidden by the name in a record before it, whatever its
// letters are; records without a secret do not change.
func TestSecretsOverSeveralRecordsAreHidden(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for _, form := range continuedForms {
		for _, secret := range randomSecrets(rng, "any") {
			text := replaceSecret(form, secret)
			out := strings.Join(nextLines(text), "\n")
			if holdsSecret(out, secret) {
				t.Errorf("%s\n    became\n%s", text, out)
			}
			if again := strings.Join(nextLines(out), "\n"); again != out {
				t.Errorf("not idempotent:\n%s\n%s", out, again)
			}
		}
	}
	if out := nextLines("\"pin_secret\":\n  12345,")[1]; out != `  "REDACTED",` {
		t.Errorf("the number became %s", out)
	}
	for _, text := range continuedProse {
		if out := strings.Join(nextLines(text), "\n"); out != text {
			t.Errorf("%s\n    became\n%s", text, out)
		}
	}
	for range 100 { // the prose of one line says nothing about the next
		lines := proseLines(t)
		rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		text := strings.Join(lines, "\n")
		for i, out := range nextLines(text) {
			isPart := i > 0 && strings.Contains(lines[i-1], `form-data; name="password"`) // the value may look like a line of prose
			if out != lines[i] && !isPart {
				t.Fatalf("%s\n%s\n    became %s", lines[max(0, i-1)], lines[i], out)
			}
		}
	}
}

// TestNoExpectationHoldsForEver: a name without its value changes nothing some lines later.
func TestNoExpectationHoldsForEver(t *testing.T) {
	for _, first := range []string{`"password": [`, "password: |", "passwords:", "- name: DB_PASSWORD", "<password>"} {
		var redactor Redactor
		var state LogState
		redactor.NextLine([]byte(first), &state)
		for range maxValueLines {
			redactor.NextLine([]byte("    - word"), &state)
		}
		if state.next.kind != nothing {
			t.Errorf("%s: %+v", first, state.next)
		}
	}
}
