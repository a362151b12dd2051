package redact

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

// secret is the value that the tests put in the places of secrets. No redacted text may contain it.
const secret = "hunter2hunter2"

// contexts are log lines that quote URLs and statements.
var contexts = [...]string{
	"%s", "at %s now", `127.0.0.1 - - [24/Nov/2026:23:08:00 +0000] "GET %s HTTP/1.1" 200 5 "-" "curl/8"`, `level=info url=%s took=1ms`,
	`level=info msg="done" url="%s" user="bob"`, `{"level":"info","url":"%s","n":1}`, `it's %s, they say`, `5" of %s`, `("%s")`,
	`{'url': '%s'}`, `select one: %s`, `password=x %s`, "<%s>", "2026-11-24 12 Query\t%s", `update: can't %s`,
}

// urls are URLs and request targets with a secret.
var urls = [...]string{
	"/?password=%s", "/?PassWord=%s&a=b", "/cb?code=%s&state=1", "/cb?a=1&otp=%s", "/x?a=b&sig=%s#f", "/x?jwt=%s",
	"/?user[password]=%s&b=c", "/?user%%5Bpassword%%5D=%s", "/?p%%61ssword=%s", "/?X-Amz-Signature=%s&X-Amz-Date=1", "/?access-token=%s",
	"/?next=%%2Fcb%%3Ftoken%%3D%s%%26x%%3D1&y=2", "/?u=http://h/?code=%s&b=2", "/a;jsessionid=%s/b?c=d", "http://u:%s@h/x",
	"http://u:p@%s@h/x", "http://%s@h/x", "https://h:8080/a?u=https%%3A%%2F%%2Fu%%3A%s%%40h%%2F", "/#access_token=%s", "//u:%s@h",
	"/?a=%%zz%%&token=%s", "/?a=b,key=%s", "/a/b?x=y;sid=%s", "/?pin=%s;x", "redis://:%s@h:6379/0", "?key=%s", "h/x?nonce=%s",
}

// sqlStatements are SQL statements with a secret.
var sqlStatements = [...]string{
	"CREATE USER 'a'@'%%' IDENTIFIED BY '%s'", "CREATE USER a IDENTIFIED BY \"%s\" REQUIRE SUBJECT 's'",
	"ALTER USER a IDENTIFIED WITH mysql_native_password AS '%s'", "ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD('%s')",
	"GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD '%s'", "ALTER USER USER() IDENTIFIED BY 'new' REPLACE '%s'",
	"ALTER USER USER() IDENTIFIED BY \"new\" REPLACE \"%s\"", "SET PASSWORD = '%s'", "SET PASSWORD FOR 'bob'@'10.%%' = PASSWORD('%s')",
	"set password for bob = '%s' ; select 'y' = 'z'", "set password for bob = \"%s\"", "SELECT PASSWORD('%s'), 'y'",
	"SELECT 1, PASSWORD(\"%s\"), 'y'", "SELECT AES_DECRYPT(card, '%s'), 'y'", "SELECT AES_DECRYPT(card, \"%s\"), \"y\"",
	"SELECT * FROM u WHERE name = 'bob' AND password = '%s' AND a = 'b'", "SELECT * FROM u WHERE u.`user_password`='%s' OR name='a'",
	"SELECT 1 FROM u WHERE (pwd = MD5('%s')) AND n = 'y'", "SELECT 1 FROM u WHERE pass LIKE '%s%%' LIMIT 1",
	"SELECT 1 FROM u WHERE pass LIKE \"%s\" LIMIT 1", "SELECT 1 FROM u WHERE pass LIKE CONCAT(a, \"%s\")",
	"SELECT 1 FROM u WHERE token IN ('a', '%s') AND c = 'd'", "SELECT 1 FROM u WHERE token IN (1, \"%s\")",
	"SELECT 1 FROM u WHERE token <> \"%s\"", "UPDATE u SET password='%s', email='e' WHERE name='n'",
	"UPDATE u SET email=\"e\", password=\"%s\" WHERE name='n'", "UPDATE u SET password = CONCAT('a', '%s'), email = 'e'",
	"UPDATE u SET `api_key` := '%s', n = 0x01", "UPDATE u SET `api_key` := \"%s\"", "UPDATE u SET \"password\" = '%s', \"n\" = 'y'",
	"SET @password = '%s', @b = 'y'", "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='%s', MASTER_PORT=3306",
	"CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD '%s', HOST 'h')",
	"CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER \"u\", PASSWORD \"%s\", HOST \"h\")",
	"INSERT INTO users (name, password, email) VALUES ('a', 'b', 'e'), ('b', SHA1('%s'), 'f')",
	"INSERT INTO users (name, password, email) VALUES (\"a\", \"%s\", \"e\")", "REPLACE INTO s.`t` (`secret`) VALUES('%s')",
	"INSERT INTO users SET name='a', password='%s'", "SET PASSWORD = 'it\\'s ''%s'", "SET PASSWORD = '%s cut off",
	"SELECT/**/password/**/(\"%s\")", "select 1 from t where pass\n=\n'%s'",
}

// with returns a form in which value stands for %s, and % for %%.
func with(form, value string) string {
	return strings.ReplaceAll(strings.ReplaceAll(form, "%s", value), "%%", "%")
}

// TestLineHidesWhatURLHides: a secret that URL redacts is redacted in a log line that quotes the URL, too.
func TestLineHidesWhatURLHides(t *testing.T) {
	var redactor Redactor
	for _, form := range urls {
		url := with(form, secret)
		if out, _ := redactor.URL([]byte(url)); strings.Contains(string(out), secret) {
			t.Errorf("URL: %s → %s", url, out)
		}
		for _, context := range contexts {
			line := with(context, url)
			if out, _ := redactor.Line([]byte(line)); strings.Contains(string(out), secret) {
				t.Errorf("Line: %s → %s", line, out)
			}
		}
		line := `{"url":"` + strings.ReplaceAll(url, "&", `\u0026`) + `"}`
		if out, _ := redactor.Line([]byte(line)); strings.Contains(string(out), secret) {
			t.Errorf("Line: %s → %s", line, out)
		}
	}
}

// TestLineHidesAnyParameterThatURLHides: the same holds for random query strings with one secret.
func TestLineHidesAnyParameterThatURLHides(t *testing.T) {
	var redactor Redactor
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"a", "x-y", "page", "state", "q", "id", "monkey", "tokenize", "b%5Bc%5D", "d[e]"}
	secrets := []string{"my.pw", "X-Api-Key", "db_password", "u%5Bpass%5D"}
	secrets = append(secrets, everydayWords[:]...)
	for range 5000 {
		path := []string{"/p", "http://h/p", "/", "//h/a/b", "/a:b/c@d", "h.example/p"}[rng.IntN(6)]
		url := path + []string{"?", "#", "?u=/x?", ";v=1?"}[rng.IntN(4)]
		at, count := rng.IntN(4), 1+rng.IntN(4)
		for i := range count {
			if i > 0 {
				url += string("&&&;,"[rng.IntN(5)])
			}
			if i == at%count {
				url += secrets[rng.IntN(len(secrets))] + "=" + secret
			} else {
				url += names[rng.IntN(len(names))] + "=" + []string{"1", "a%26b", "x:y", "%3D%3D", ""}[rng.IntN(5)]
			}
		}
		if out, _ := redactor.URL([]byte(url)); strings.Contains(string(out), secret) {
			t.Fatalf("URL: %s → %s", url, out)
		}
		line := with(contexts[rng.IntN(len(contexts))], url)
		if out, _ := redactor.Line([]byte(line)); strings.Contains(string(out), secret) {
			t.Fatalf("Line: %s → %s", line, out)
		}
	}
}

// TestLineHidesWhatSQLHides: a secret that SQL redacts is redacted in a log line that quotes the statement,
// plain or escaped as in JSON.
func TestLineHidesWhatSQLHides(t *testing.T) {
	var redactor Redactor
	for _, form := range sqlStatements {
		sql := with(form, secret)
		if out, _ := redactor.SQL([]byte(sql)); strings.Contains(string(out), secret) {
			t.Errorf("SQL: %s → %s", sql, out)
		}
		for _, context := range contexts {
			line := with(context, sql)
			if out, _ := redactor.Line([]byte(line)); strings.Contains(string(out), secret) {
				t.Errorf("Line: %s → %s", line, out)
			}
		}
		escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(sql)
		for _, context := range []string{`{"level":"info","query":"%s","n":1}`, `time=1 query="%s" user="bob"`} {
			line := with(context, escaped)
			if out, _ := redactor.Line([]byte(line)); strings.Contains(string(out), secret) {
				t.Errorf("Line: %s → %s", line, out)
			}
		}
	}
}

// TestRedactingTwiceChangesNothing: a redacted text stays as it is, for all forms of the other tests.
func TestRedactingTwiceChangesNothing(t *testing.T) {
	var redactor Redactor
	check := func(what string, redact func([]byte) ([]byte, bool), in string) {
		t.Helper()
		once, _ := redact([]byte(in))
		first := string(once)
		if twice, _ := redact([]byte(first)); string(twice) != first {
			t.Errorf("%s: %s → %s → %s", what, in, first, twice)
		}
	}
	for _, form := range urls {
		check("URL", redactor.URL, with(form, secret))
		for _, context := range contexts {
			check("Line", redactor.Line, with(context, with(form, secret)))
		}
	}
	for _, form := range sqlStatements {
		check("SQL", redactor.SQL, with(form, secret))
		for _, context := range contexts {
			check("Line", redactor.Line, with(context, with(form, secret)))
		}
	}
}

// linesWithoutSecrets are lines without a secret.
var linesWithoutSecrets = []string{
	`172.17.0.1 - - [24/Nov/2026:23:08:00 +0000] "GET /api/v1/items?page=2 HTTP/1.1" 200 5120 "-" "curl/8.5.0"`,
	`level=info ts=2026-11-24T23:08:00.123Z caller=main.go:42 msg="request done" method=GET path=/healthz took=1.2ms`,
	`2026-11-24 23:08:00.123  INFO 1 --- [nio-8080-exec-1] c.e.OrderService : order 4711 was placed by customer 12`,
	`{"level":"info","ts":1764025680.123,"msg":"cache miss","key":"user:4711","took":0.0012}`,
	`SELECT id, name, price FROM products WHERE category = 'books' AND price < 30 ORDER BY price LIMIT 20`,
	`mail to a@b.example, see https://h.example/a/b?c=d#e`,
}

// TestRedactingDoesNotAllocate: once a Redactor has its buffers, it allocates nothing, with and without a
// secret.
func TestRedactingDoesNotAllocate(t *testing.T) {
	var redactor Redactor
	check := func(text string, redact func([]byte) ([]byte, bool)) {
		t.Helper()
		data := []byte(text)
		redact(data)
		if allocations := testing.AllocsPerRun(50, func() { redact(data) }); allocations > 0 {
			t.Errorf("%v allocations for %s", allocations, text)
		}
	}
	for _, line := range linesWithoutSecrets {
		if out, hidden := redactor.Line([]byte(line)); hidden {
			t.Errorf("%s → %s", line, out)
		}
		check(line, redactor.Line)
		check(line, redactor.URL)
		check(line, redactor.SQL)
	}
	check(with(urls[2], secret), redactor.Line)
	check(with(sqlStatements[0], secret), redactor.Line)
}

// FuzzRedact checks for any text that the input is not changed, that the length of the result is bounded, and
// that a secret behind the text is redacted.
func FuzzRedact(f *testing.F) {
	f.Add([]byte(`a password="x\"y" http://a:b@c Bearer abcdefghi IDENTIFIED BY 'x' cookie: a b`))
	f.Add([]byte("INSERT INTO t (a) VALUES ('x') ;"))
	f.Add([]byte(`{"q":"SELECT \"a\", PASSWORD(\"x\")"} /cb?code=a&u=%2F%2Fa%40b`))
	for _, line := range linesWithoutSecrets {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			var redactor Redactor
			data := bytes.Clone(in)
			for _, redact := range []func([]byte) ([]byte, bool){redactor.URL, redactor.SQL, redactor.Line} {
				out, hidden := redact(data)
				if !bytes.Equal(data, in) || hidden == bytes.Equal(out, in) && !bytes.Contains(in, []byte(Marker)) {
					t.Fatalf("%q → %q %v", in, out, hidden)
				}
				if len(out) > (len(in)+1)*(len(Marker)+3) {
					t.Fatalf("%d bytes became %d", len(in), len(out))
				}
			}
			if len(in) > 0 && !bytes.ContainsAny(in, "'\"`/*#-\\") {
				if out, _ := redactor.SQL([]byte(string(in) + " password = '" + secret + "'")); strings.Contains(string(out), secret) {
					t.Fatalf("SQL: %q", out)
				}
			}
			if out, _ := redactor.Line([]byte(string(in) + " https://h/cb?code=" + secret)); strings.Contains(string(out), secret) {
				t.Fatalf("Line: %q", out)
			}
		})
	})
}

// FuzzPrefilter: the prefilter finds every line in which the passes find a secret.
func FuzzPrefilter(f *testing.F) {
	for _, form := range secretLines {
		f.Add([]byte(replaceSecret(form, secret)))
	}
	for _, form := range secretForms(f) {
		f.Add([]byte(replaceSecret(form.text, secret)))
	}
	for _, line := range append(ordinaryLines, linesWithoutSecrets...) {
		f.Add([]byte(line))
	}
	for _, url := range secretURLs {
		f.Add([]byte("GET " + replaceSecret(url, secret)))
	}
	for _, sql := range secretSQL {
		f.Add([]byte(replaceSecret(sql, secret)))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		checkPrefilter(t, new(Redactor), line)
	})
}

func BenchmarkLine(b *testing.B) {
	for i, line := range append(linesWithoutSecrets[:4:4], `postgres://bob:s3cret@db:5432/x password=hunter2 user=bob`) {
		b.Run([]string{"access", "logfmt", "java", "json", "secret"}[i], func(b *testing.B) {
			var redactor Redactor
			in := []byte(line)
			b.ReportAllocs()
			for b.Loop() {
				redactor.Line(in)
			}
		})
	}
}

func BenchmarkURL(b *testing.B) {
	for name, url := range map[string]string{"clean": "/api/v1/items?page=2&sort=name", "secret": "/cb?code=abcdefgh&state=1"} {
		b.Run(name, func(b *testing.B) {
			var redactor Redactor
			in := []byte(url)
			b.ReportAllocs()
			for b.Loop() {
				redactor.URL(in)
			}
		})
	}
}

func BenchmarkSQL(b *testing.B) {
	for name, sql := range map[string]string{
		"clean":  linesWithoutSecrets[4],
		"secret": "UPDATE users SET password = 'hunter2', updated = NOW() WHERE email = 'a@example.com'",
	} {
		b.Run(name, func(b *testing.B) {
			var redactor Redactor
			in := []byte(sql)
			b.ReportAllocs()
			for b.Loop() {
				redactor.SQL(in)
			}
		})
	}
}
