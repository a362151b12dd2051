package redact

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// randomJSON returns a random document and adds its names to names.
func randomJSON(rng *rand.Rand, depth int, names map[string]bool) any {
	words := []string{
		"a", "level", "password", "token", "Authorization", "db_pass", "msg", "user[password]", "cookie", "key", "value", "name", "x=y", "p\"q", "url", "é", "args",
		"password=foo bar", "http://u:p@h/", "a\\b", "ghp_abcdefghijkl", "-----BEGIN PRIVATE KEY-----x-----END PRIVATE KEY-----", "",
	}
	texts := []string{
		"", "hello", "password=hunter2, x", "login \"password\": \"hunter2\" ok", "{\"password\":\"hunter2\",\"n\":1}", "GET /cb?code=hunter2&a=b HTTP/1.1", "Bearer hunter2hunter2", "a\\nb\nc\td", "postgres://u:p\"w@h/db",
		"UPDATE u SET password = 'hunter2' WHERE n = \"x\"", "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", "\u0000\u001b[31mtoken\u001b[0m=abc1", "--password", "hunter2", "mysql -phunter2", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
		"https://h/?u=https%3A%2F%2Fx%2F%3Ftoken%3Dabc", "password: [\"hunter2\", {\"a\":\"b\"}]", "password=\"unterminated", "secret='x\\'y'", "<password>x</password>", "é日😀", "\\", "\\\\\"", "token: \\\"x", "curl -u a:b", "password={", "pw=)",
	}
	switch kind := rng.IntN(8); {
	case kind < 2 && depth > 0:
		object := map[string]any{}
		for range rng.IntN(5) {
			name := words[rng.IntN(len(words))]
			names[name] = true
			object[name] = randomJSON(rng, depth-1, names)
		}
		return object
	case kind < 3 && depth > 0:
		list := []any{}
		for range rng.IntN(4) {
			list = append(list, randomJSON(rng, depth-1, names))
		}
		return list
	case kind == 3:
		return rng.IntN(100000)
	case kind == 4:
		return []any{nil, true, false, 1.5, -2e10}[rng.IntN(5)]
	}
	text := texts[rng.IntN(len(texts))]
	if rng.IntN(3) == 0 {
		text += texts[rng.IntN(len(texts))]
	}
	return text
}

// namesOf adds the paths of the names in a document to paths.
func namesOf(document any, path string, paths map[string]bool) {
	switch value := document.(type) {
	case map[string]any:
		for name, member := range value {
			paths[path+"/"+name] = true
			namesOf(member, path+"/"+name, paths)
		}
	case []any:
		for i, element := range value {
			namesOf(element, fmt.Sprintf("%s/%d", path, i), paths)
		}
	}
}

// TestJSONStaysJSON: a valid document stays valid, with the same names, however its strings are escaped.
func TestJSONStaysJSON(t *testing.T) {
	var redactor Redactor
	rng := rand.New(rand.NewPCG(3, 4))
	hidden := 0
	for range 20_000 {
		names := map[string]bool{}
		document := map[string]any{"d": randomJSON(rng, 4, names), "e": randomJSON(rng, 3, names)}
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 {
			text = []byte(strings.ReplaceAll(strings.ReplaceAll(string(text), "\",\"", "\", \n\""), ":", " : "))
			if !json.Valid(text) {
				continue // a colon in a string
			}
		}
		out, changed := redactor.Line(text)
		if !json.Valid(out) {
			t.Fatalf("no JSON any more:\n%s\n%s", text, out)
		}
		var before, after any
		if json.Unmarshal(text, &before) != nil || json.Unmarshal(out, &after) != nil {
			t.Fatal("not decoded")
		}
		wantNames, gotNames := map[string]bool{}, map[string]bool{}
		namesOf(before, "", wantNames)
		namesOf(after, "", gotNames)
		if !maps.Equal(wantNames, gotNames) {
			t.Fatalf("other names:\n%s\n%s\n%q", text, out, slices.Sorted(maps.Keys(gotNames)))
		}
		if changed {
			hidden++
		}
	}
	if hidden < 5000 {
		t.Errorf("only %d documents had secrets", hidden)
	}
}

// TestSecretNumbersBecomeStrings: a password may be a number.
func TestSecretNumbersBecomeStrings(t *testing.T) {
	var redactor Redactor
	for in, want := range map[string]string{
		`{"password":12345,"n":1}`:             `{"password":"REDACTED","n":1}`,
		`{"password":[1234,{"a":-5.5}],"n":1}`: `{"password":["REDACTED",{"a":"REDACTED"}],"n":1}`,
		`{"password":null,"token":true}`:       `{"password":null,"token":true}`,
		`{"max_tokens":4096,"pass":3}`:         `{"max_tokens":4096,"pass":3}`,
		`{"a":"{\"password\":12345}"}`:         `{"a":"{\"password\":REDACTED}"}`, // the document around it stays one
	} {
		if out, _ := redactor.Line([]byte(in)); string(out) != want {
			t.Errorf("%s: %s, want %s", in, out, want)
		}
	}
}

// TestPrivateKeyOverSeveralLines: each line of a key is a record of a log.
func TestPrivateKeyOverSeveralLines(t *testing.T) {
	var redactor Redactor
	var state LogState
	const body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
	check := func(in, want string) {
		t.Helper()
		if out, _ := redactor.NextLine([]byte(in), &state); string(out) != want {
			t.Errorf("%s: %s, want %s", in, out, want)
		}
	}
	check("loading key:", "loading key:")
	check("-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----")
	check("Proc-Type: 4,ENCRYPTED", Marker)
	check("", "")
	check(body, Marker)
	check("  "+body[:20], "  "+Marker)
	check("abc=", Marker)
	check("-----END RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----")
	check("started", "started")
	check("key: -----BEGIN PRIVATE KEY-----", "key: -----BEGIN PRIVATE KEY-----")
	check("this is prose, not a key", "this is prose, not a key")
	check("word", "word")
	check("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----")
	check("abc=", "abc=")
	// A start of the collector within a key.
	check(body, Marker)
	check("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
}
