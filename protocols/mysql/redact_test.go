package mysql

import (
	"strings"
	"testing"
)

// TestSecretsAreRedacted: each line is a form in which secrets are written.
func TestSecretsAreRedacted(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		out, any := redact(nil, []byte(in))
		if got := string(out); got != want || any != (in != want) {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	const r = "'REDACTED'"
	check("CREATE USER 'a'@'%' IDENTIFIED BY 'x'", "CREATE USER 'a'@'%' IDENTIFIED BY "+r)
	check("CREATE USER a IDENTIFIED BY 'x', 'b' IDENTIFIED BY \"y\" REQUIRE SUBJECT 's'", "CREATE USER a IDENTIFIED BY "+r+", 'b' IDENTIFIED BY "+r+" REQUIRE SUBJECT 's'")
	check("create user a identified with 'caching_sha2_password' by 'x'", "create user a identified with 'caching_sha2_password' by "+r)
	check("ALTER USER a IDENTIFIED WITH mysql_native_password AS '*94BD'", "ALTER USER a IDENTIFIED WITH mysql_native_password AS "+r)
	check("ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD('x')", "ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD("+r+")")
	check("GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD '*94BD'", "GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD "+r)
	check("ALTER USER USER() IDENTIFIED BY 'new' REPLACE 'old'", "ALTER USER USER() IDENTIFIED BY "+r+" REPLACE "+r)
	check("SET PASSWORD = 'x'", "SET PASSWORD = "+r)
	check("SET PASSWORD FOR 'bob'@'10.%' = PASSWORD('x')", "SET PASSWORD FOR 'bob'@'10.%' = PASSWORD("+r+")")
	check("set password for bob = 'x' ; select 'y' = 'z'", "set password for bob = "+r+" ; select 'y' = 'z'")
	check("SELECT PASSWORD('x'), 'y'", "SELECT PASSWORD("+r+"), 'y'")
	check("SELECT AES_DECRYPT(card, 'key'), 'y'", "SELECT AES_DECRYPT(card, "+r+"), 'y'")
	check("SELECT * FROM u WHERE name = 'bob' AND password = 'x' AND a = 'b'", "SELECT * FROM u WHERE name = 'bob' AND password = "+r+" AND a = 'b'")
	check("SELECT * FROM u WHERE u.`user_password`='x' OR name='a'", "SELECT * FROM u WHERE u.`user_password`="+r+" OR name='a'")
	check("SELECT 1 FROM u WHERE (pwd = MD5('x')) AND n = 'y'", "SELECT 1 FROM u WHERE (pwd = MD5("+r+")) AND n = 'y'")
	check("SELECT 1 FROM u WHERE pass LIKE 'x%' LIMIT 1", "SELECT 1 FROM u WHERE pass LIKE "+r+" LIMIT 1")
	check("SELECT 1 FROM u WHERE token IN ('a', 'b') AND c = 'd'", "SELECT 1 FROM u WHERE token IN ("+r+", "+r+") AND c = 'd'")
	check("UPDATE u SET password='x', email='e' WHERE name='n'", "UPDATE u SET password="+r+", email='e' WHERE name='n'")
	check("UPDATE u SET password = CONCAT('a', 'b'), email = 'e'", "UPDATE u SET password = CONCAT("+r+", "+r+"), email = 'e'")
	check("UPDATE u SET `api_key` := 0xdeadbeef, n = 0x01", "UPDATE u SET `api_key` := "+r+", n = 0x01")
	check(`UPDATE u SET "password" = 'x', "n" = 'y'`, `UPDATE u SET "password" = `+r+`, "n" = 'y'`)
	check("SET @password = 'x', @b = 'y'", "SET @password = "+r+", @b = 'y'")
	check("CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='x', MASTER_PORT=3306", "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD="+r+", MASTER_PORT=3306")
	check("CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'x', HOST 'h')", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD "+r+", HOST 'h')")
	check("INSERT INTO users (name, password, email) VALUES ('a', 'x', 'e'), ('b', SHA1('y'), 'f')", "INSERT INTO users (name, password, email) VALUES ('a', "+r+", 'e'), ('b', SHA1("+r+"), 'f')")
	check("REPLACE INTO s.`t` (`secret`) VALUES('x') ON DUPLICATE KEY UPDATE n='y'", "REPLACE INTO s.`t` (`secret`) VALUES("+r+") ON DUPLICATE KEY UPDATE n='y'")
	check("INSERT INTO users SET name='a', password='x'", "INSERT INTO users SET name='a', password="+r)
	check("/*!50100 ALTER USER a IDENTIFIED BY 'x' */", "/*!50100 ALTER USER a IDENTIFIED BY "+r+" */")
	check("SELECT 1 /* password = */ , 'x'", "SELECT 1 /* password = */ , 'x'")
	check(`SET PASSWORD = 'it\'s ''x'`, "SET PASSWORD = "+r)
	check(`SET PASSWORD = 'cut of`, "SET PASSWORD = "+r)
	check(`SET PASSWORD = 'ends in \`, "SET PASSWORD = "+r)
	check("SELECT 'password = ', 'x'", "SELECT 'password = ', 'x'")
	check("SELECT id FROM t WHERE name = 'password'", "SELECT id FROM t WHERE name = 'password'")
	check("SELECT compass FROM t WHERE compass = 'n'", "SELECT compass FROM t WHERE compass = 'n'")
	check("SELECT * FROM u WHERE password = ?", "SELECT * FROM u WHERE password = ?")
	check("INSERT INTO t (a, b) VALUES ('x', 'y')", "INSERT INTO t (a, b) VALUES ('x', 'y')")
	check("", "")
	check("'", "'")
}

// TestMethodIsTheFirstWord in upper case, comments and brackets passed.
func TestMethodIsTheFirstWord(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		if got := method([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	check("select 1", "SELECT")
	check("  \n-- a\n# b\n/* c */ (SELECT 1)", "SELECT")
	check("/*!40101 SET NAMES utf8 */", "SET")
	check("Frobnicate x", "FROBNICATE")
	check("SELECT", "SELECT")
	check("", "")
	check("/* never ends", "")
	check("'x'", "")
	check("{\"json\":1}", "")
	check(strings.Repeat("a", 100), "")
}

// FuzzRedact: no panic, and what is behind a password's = never comes out.
func FuzzRedact(f *testing.F) {
	f.Add("SELECT 1 WHERE ")
	f.Add("INSERT INTO t (a) VALUES ('x') ;")
	f.Add("/*!")
	f.Fuzz(func(t *testing.T, front string) {
		redact(nil, []byte(front))
		method([]byte(front))
		s := scanner{b: []byte(front)}
		for s.next() {
			if s.to <= s.from {
				t.Fatal("stands still")
			}
		}
		// Behind whole tokens a secret must go, whatever stands before it.
		if n := len(front); n == 0 || strings.ContainsAny(front, "'\"`/*#-\\") {
			return
		}
		if out, any := redact(nil, []byte(front+" password = 'hunter2hunter2'")); !any || strings.Contains(string(out), "hunter2") {
			t.Fatalf("%q", out)
		}
	})
}

// BenchmarkRedact is a statement with literals but no secret, and one with a secret.
func BenchmarkRedact(b *testing.B) {
	for name, q := range map[string]string{
		"clean":  "SELECT id, name, price FROM products WHERE category = 'books' AND price < 30 ORDER BY price LIMIT 20",
		"secret": "UPDATE users SET password = 'hunter2', updated = NOW() WHERE email = 'a@example.com'",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			in, buf := []byte(q), make([]byte, 0, 256)
			for b.Loop() {
				redact(buf, in)
			}
		})
	}
}
