package redact

import "testing"

// TestSecretsInLinesAreRedacted: the cases are the forms in which logs hold secrets, and lines that look
// similar and hold none.
func TestSecretsInLinesAreRedacted(t *testing.T) {
	var redactor Redactor
	check := func(line, want string) {
		t.Helper()
		got, found := redactor.Line([]byte(line))
		if string(got) != want || found != (line != want) {
			t.Errorf("%q: %q %v, want %q", line, got, found, want)
		}
	}
	check(`password=hunter2 user=bob`, `password=REDACTED user=bob`)
	check(`DB_PASSWORD: "hunter 2", x`, `DB_PASSWORD: "REDACTED", x`)
	check(`{"user":"bob","password":"hun\"ter2","n":1}`, `{"user":"bob","password":"REDACTED","n":1}`)
	check(`msg="{\"password\":\"hunter2\",\"n\":1}"`, `msg="{\"password\":\"REDACTED\",\"n\":1}"`)
	check(`{"token":"abc","a":1}`, `{"token":"REDACTED","a":1}`)
	check(`GET /x?api_key=abc123&y=2 HTTP/1.1`, `GET /x?api_key=REDACTED&y=2 HTTP/1.1`)
	check(`Authorization: Bearer eyJhbGciOi.J9.x`, `Authorization: Bearer REDACTED`)
	check(`Authorization: Basic dXNlcjpwYXNz`, `Authorization: Basic REDACTED`)
	check(`sent "authorization":"Bearer abc.def" ok`, `sent "authorization":"Bearer REDACTED" ok`)
	check(`with Bearer abcdefgh1234 given`, `with Bearer REDACTED given`)
	check(`the bearer of news`, `the bearer of news`)
	check(`Set-Cookie: sid=1; Path=/`, `Set-Cookie: REDACTED`)
	check(`postgres://bob:s3cret@db:5432/x`, `postgres://bob:REDACTED@db:5432/x`)
	check(`http://host:8080/a@b`, `http://host:8080/a@b`)
	check(`CREATE USER 'a' IDENTIFIED BY 'pw1'`, `CREATE USER 'a' IDENTIFIED BY 'REDACTED'`)
	check(`unexpected token: <`, `unexpected token: <`)
	check(`time: 12:00:00 a=b c:d`, `time: 12:00:00 a=b c:d`)
	check(`password=`, `password=`)
	check(`a password=x and secret=y`, `a password=REDACTED and secret=REDACTED`)
	check(``, ``)

	// URLs
	check(`"GET /cb?code=SECRETCODE&otp=123456&sig=abcdef&jwt=eyJhbGciOi&state=1 HTTP/1.1" 302`,
		`"GET /cb?code=REDACTED&otp=REDACTED&sig=REDACTED&jwt=REDACTED&state=1 HTTP/1.1" 302`)
	check(`{"url":"/cb?code=a\u0026sig=b\u0026state=1","n":1}`, `{"url":"/cb?code=REDACTED\u0026sig=REDACTED\u0026state=1","n":1}`)
	check(`to https://h/?next=%2Fcb%3Fcode%3Dabc%26x%3D1 now`, `to https://h/?next=%2Fcb%3Fcode%3DREDACTED%26x%3D1 now`)
	check(`clone https://ghp_abc@github.com/x`, `clone https://REDACTED@github.com/x`)
	check(`status code=200 key=user:4711 session=7`, `status code=200 key=user:4711 session=7`)
	check(`mail to a@b.c about /x?a=b`, `mail to a@b.c about /x?a=b`)

	// SQL
	check(`SELECT PASSWORD('hunter2')`, `SELECT PASSWORD('REDACTED')`)
	check(`SELECT PASSWORD("hunter2"), "y"`, `SELECT PASSWORD("REDACTED"), "y"`)
	check(`12 Query	INSERT INTO u (name, password) VALUES ('bob', 'x'), ('eve', 'y')`,
		`12 Query	INSERT INTO u (name, password) VALUES ('bob', 'REDACTED'), ('eve', 'REDACTED')`)
	check(`{"query":"UPDATE u SET password='x', n='y'","took":"12ms","user":"bob"}`, `{"query":"UPDATE u SET password='REDACTED', n='y'","took":"12ms","user":"bob"}`)
	check(`{"query":"UPDATE u SET password='x'","took":"12ms","user":"bob"}`, `{"query":"UPDATE u SET password='REDACTED'","took":"12ms","user":"bob"}`)
	check(`{"msg":"run:\nSELECT PASSWORD(\"x\")","user":"bob"}`, `{"msg":"run:\nSELECT PASSWORD(\"REDACTED\")","user":"bob"}`)
	check(`it's wrong: INSERT INTO u (password) VALUES ('x')`, `it's wrong: INSERT INTO u (password) VALUES ('REDACTED')`)
	check(`Query "INSERT INTO u (a, token) VALUES ("a", "x")" failed`, `Query "INSERT INTO u (a, token) VALUES ("a", "REDACTED")" failed`)
	check(`{"msg":"set password","n":1,"user":"bob"}`, `{"msg":"set password","n":1,"user":"bob"}`)
	check(`level=info msg="update user" user="bob" n='1'`, `level=info msg="update user" user="bob" n='1'`)
	check(`can't set x: the 'token' is 'y'`, `can't set x: the 'token' is 'y'`)
}

// TestSecretsInLabelsAreRedacted: the whole value of a label with the name of a secret is redacted. The value
// of any other label is redacted as a line is.
func TestSecretsInLabelsAreRedacted(t *testing.T) {
	var redactor Redactor
	check := func(key, value, want string) {
		t.Helper()
		if got := redactor.Label(key, value); got != want {
			t.Errorf("%s=%s: %s, want %s", key, value, got, want)
		}
	}
	check("com.example.db-password", "hunter2", "REDACTED")
	check("DATABASE_URL", "postgres://bob:hunter2@db/x", "postgres://bob:REDACTED@db/x")
	check("com.docker.compose.project", "shop", "shop")
	check("token", "", "")
}

// TestLinesMayEndInAnEscape: a line that ends in an escaped line break is read to its end. Earlier, the search for
// statements read beyond it.
func TestLinesMayEndInAnEscape(t *testing.T) {
	var redactor Redactor
	for _, line := range []string{`failed: "password \n`, `x "\r`, `key 'a\t`} {
		if out, hidden := redactor.Line([]byte(line)); hidden || string(out) != line {
			t.Errorf("%s → %s", line, out)
		}
	}
}

// TestNoSecretStandsBesideAMark: the word that is taken for the secret may be a realm, a message, or the value that another
// one replaces.
func TestNoSecretStandsBesideAMark(t *testing.T) {
	checkLines(t, [][2]string{
		{`password "Auth" "Tr0ub4dor"`, `password "REDACTED" "REDACTED"`},
		{`password 'HTTP Proxy' 'Tr0ub4dor'`, `password 'HTTP Proxy' 'REDACTED'`},
		{`random_password.db: Creation complete, result = "x7#kQz!9"`, `random_password.db: Creation complete, result = "REDACTED"`},
		{`random_password.db: result = "x7#kQz!9"`, `random_password.db: result = "REDACTED"`},
		{`random_password.db: Refreshing state... [id=none]`, `random_password.db: Refreshing state... [id=none]`},
		{`{Host:h User:bob Password:goPw Port:5}`, `{Host:h User:bob Password:REDACTED Port:5}`},
		{`&{User:bob Password:myKey}`, `&{User:bob Password:REDACTED}`},
		{`diff password oldpw1 newpw1`, `diff password REDACTED REDACTED`},
	})
}

// checkLines checks that each line becomes the text behind it.
func checkLines(t *testing.T, lines [][2]string) {
	t.Helper()
	var redactor Redactor
	for _, line := range lines {
		if out, _ := redactor.Line([]byte(line[0])); string(out) != line[1] {
			t.Errorf("%s\n    → %s\n want %s", line[0], out, line[1])
		}
	}
}

// TestUnnamedSecretsAreRedacted: what says that these are secrets is the function, the value beside them, or the words of a
// protocol.
func TestUnnamedSecretsAreRedacted(t *testing.T) {
	checkLines(t, [][2]string{
		{`#0 /db.php(12): PDO->__construct('mysql:host=db', 'root', 'it's me, x')`, `#0 /db.php(12): PDO->__construct('mysql:host=db', 'root', 'REDACTED')`},
		{`#0 x.php(3): ldap_bind(Resource id #1, 'cn=admin', 'Zq8!pdo')`, `#0 x.php(3): ldap_bind(Resource id #1, 'cn=admin', 'REDACTED')`},
		{`Foo->__construct('a', 'b', 'c')`, `Foo->__construct('a', 'b', 'c')`},
		{`PDO->__construct('sqlite::memory:')`, `PDO->__construct('sqlite::memory:')`},
		{`[map[name:DB_PASSWORD value:hunter2x] map[name:TZ value:UTC]]`, `[map[name:DB_PASSWORD value:REDACTED] map[name:TZ value:UTC]]`},
		{`{"field":"password","old":"a","new":"b"}`, `{"field":"password","old":"REDACTED","new":"REDACTED"}`},
		{`x {"old":"a","new":"b","field":"password"}`, `x {"old":"REDACTED","new":"REDACTED","field":"password"}`},
		{`{"field":"email","old":"a","new":"b"}`, `{"field":"email","old":"a","new":"b"}`},
		{`[{"type":"password","label":"x"},{"type":"text","value":"bob"}]`, `[{"type":"password","label":"x"},{"type":"text","value":"bob"}]`},
		{`x: {"type":"password","label":"x"},{"type":"text","value":"bob"}`, `x: {"type":"password","label":"x"},{"type":"text","value":"bob"}`},
		{`C: AUTH LOGIN Ym9iOnBhc3N3b3Jk`, `C: AUTH LOGIN REDACTED`},
		{`AUTH LOGIN disabled`, `AUTH LOGIN disabled`},
		{`password changed from 'a1' to 'b2' by bob`, `password changed from 'REDACTED' to 'REDACTED' by bob`},
		{`Recovery Key 1: sP/4C/fwIDjJmHEC2bi/1Pa43uKhsUQMmiB31GRzFc0R`, `Recovery Key 1: REDACTED`},
	})
}
