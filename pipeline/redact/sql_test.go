package redact

import "testing"

// TestSecretsInSQLAreRedacted: the cases are the forms in which SQL holds secrets, and statements that look
// similar and hold none.
func TestSecretsInSQLAreRedacted(t *testing.T) {
	var redactor Redactor
	check := func(in, want string) {
		t.Helper()
		out, any := redactor.SQL([]byte(in))
		if got := string(out); got != want || any != (in != want) {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
	const x = "'REDACTED'"
	check("CREATE USER 'a'@'%' IDENTIFIED BY 'x'", "CREATE USER 'a'@'%' IDENTIFIED BY "+x)
	check("CREATE USER a IDENTIFIED BY 'x', 'b' IDENTIFIED BY \"y\" REQUIRE SUBJECT 's'", "CREATE USER a IDENTIFIED BY "+x+", 'b' IDENTIFIED BY "+x+" REQUIRE SUBJECT 's'")
	check("create user a identified with 'caching_sha2_password' by 'x'", "create user a identified with 'caching_sha2_password' by "+x)
	check("ALTER USER a IDENTIFIED WITH mysql_native_password AS '*94BD'", "ALTER USER a IDENTIFIED WITH mysql_native_password AS "+x)
	check("ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD('x')", "ALTER USER a IDENTIFIED VIA ed25519 USING PASSWORD("+x+")")
	check("GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD '*94BD'", "GRANT ALL ON *.* TO a IDENTIFIED BY PASSWORD "+x)
	check("ALTER USER USER() IDENTIFIED BY 'new' REPLACE 'old'", "ALTER USER USER() IDENTIFIED BY "+x+" REPLACE "+x)
	check("SET PASSWORD = 'x'", "SET PASSWORD = "+x)
	check("SET PASSWORD FOR 'bob'@'10.%' = PASSWORD('x')", "SET PASSWORD FOR 'bob'@'10.%' = PASSWORD("+x+")")
	check("set password for bob = 'x' ; select 'y' = 'z'", "set password for bob = "+x+" ; select 'y' = 'z'")
	check("SELECT PASSWORD('x'), 'y'", "SELECT PASSWORD("+x+"), 'y'")
	check("SELECT AES_DECRYPT(card, 'key'), 'y'", "SELECT AES_DECRYPT(card, "+x+"), 'y'")
	check("SELECT * FROM u WHERE name = 'bob' AND password = 'x' AND a = 'b'", "SELECT * FROM u WHERE name = 'bob' AND password = "+x+" AND a = 'b'")
	check("SELECT * FROM u WHERE u.`user_password`='x' OR name='a'", "SELECT * FROM u WHERE u.`user_password`="+x+" OR name='a'")
	check("SELECT 1 FROM u WHERE (pwd = MD5('x')) AND n = 'y'", "SELECT 1 FROM u WHERE (pwd = MD5("+x+")) AND n = 'y'")
	check("SELECT 1 FROM u WHERE pass LIKE 'x%' LIMIT 1", "SELECT 1 FROM u WHERE pass LIKE "+x+" LIMIT 1")
	check("SELECT 1 FROM u WHERE token IN ('a', 'b') AND c = 'd'", "SELECT 1 FROM u WHERE token IN ("+x+", "+x+") AND c = 'd'")
	check("UPDATE u SET password='x', email='e' WHERE name='n'", "UPDATE u SET password="+x+", email='e' WHERE name='n'")
	check("UPDATE u SET password = CONCAT('a', 'b'), email = 'e'", "UPDATE u SET password = CONCAT("+x+", "+x+"), email = 'e'")
	check("UPDATE u SET `api_key` := 0xdeadbeef, n = 0x01", "UPDATE u SET `api_key` := "+x+", n = 0x01")
	check(`UPDATE u SET "password" = 'x', "n" = 'y'`, `UPDATE u SET "password" = `+x+`, "n" = 'y'`)
	check("SET @password = 'x', @b = 'y'", "SET @password = "+x+", @b = 'y'")
	check("CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='x', MASTER_PORT=3306", "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD="+x+", MASTER_PORT=3306")
	check("CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'x', HOST 'h')", "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD "+x+", HOST 'h')")
	check("INSERT INTO users (name, password, email) VALUES ('a', 'x', 'e'), ('b', SHA1('y'), 'f')", "INSERT INTO users (name, password, email) VALUES ('a', "+x+", 'e'), ('b', SHA1("+x+"), 'f')")
	check("REPLACE INTO s.`t` (`secret`) VALUES('x') ON DUPLICATE KEY UPDATE n='y'", "REPLACE INTO s.`t` (`secret`) VALUES("+x+") ON DUPLICATE KEY UPDATE n='y'")
	check("INSERT INTO users SET name='a', password='x'", "INSERT INTO users SET name='a', password="+x)
	check("/*!50100 ALTER USER a IDENTIFIED BY 'x' */", "/*!50100 ALTER USER a IDENTIFIED BY "+x+" */")
	check("SELECT 1 /* password = */ , 'x'", "SELECT 1 /* password = */ , 'x'")
	check(`SET PASSWORD = 'it\'s ''x'`, "SET PASSWORD = "+x)
	check(`SET PASSWORD = 'cut of`, "SET PASSWORD = "+x)
	check(`SET PASSWORD = 'ends in \`, "SET PASSWORD = "+x)
	check("SELECT 'password = ', 'x'", "SELECT 'password = ', 'x'")
	check("SELECT id FROM t WHERE name = 'password'", "SELECT id FROM t WHERE name = 'password'")
	check("SELECT compass FROM t WHERE compass = 'n'", "SELECT compass FROM t WHERE compass = 'n'")
	check("SELECT * FROM u WHERE password = ?", "SELECT * FROM u WHERE password = ?")
	check("INSERT INTO t (a, b) VALUES ('x', 'y')", "INSERT INTO t (a, b) VALUES ('x', 'y')")
	check("UPDATE u SET pin = '4821', n = '4822' WHERE id = 123", "UPDATE u SET pin = "+x+", n = '4822' WHERE id = 123")
	check("UPDATE u SET pin = 4821, cvv=123 WHERE id = 456", "UPDATE u SET pin = "+x+", cvv="+x+" WHERE id = 456")
	check(`SELECT 1 FROM u WHERE u.card_pin != 4821 AND "otp" = 482913 AND id = 456`, `SELECT 1 FROM u WHERE u.card_pin != `+x+` AND "otp" = `+x+` AND id = 456`)
	check("SELECT 1 FROM u WHERE tan IN ('4821', 4822) AND id IN (123)", "SELECT 1 FROM u WHERE tan IN ("+x+", "+x+") AND id IN (123)")
	check("INSERT INTO c (id, pin, n) VALUES (123, 4821, 4822), (124, '482', 4822)", "INSERT INTO c (id, pin, n) VALUES (123, "+x+", 4822), (124, "+x+", 4822)")
	check("SELECT tan(482), pin FROM t WHERE id = 4821", "SELECT tan(482), pin FROM t WHERE id = 4821")
	check("UPDATE t SET pin = 12, tan = 0.577, otp = 123456789 WHERE id = 4821", "UPDATE t SET pin = 12, tan = 0.577, otp = 123456789 WHERE id = 4821")
	check("UPDATE gpio SET pin = 488", "UPDATE gpio SET pin = 488")
	check("", "")
	check("'", "'")
}
