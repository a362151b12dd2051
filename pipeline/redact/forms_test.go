package redact

import (
	"encoding/base64"
	"strings"
	"testing"
)

// secretLines are lines of logs with a secret, %s.
var secretLines = []string{
	`C: A0042 LOGIN "bob@shop.example" "%s"`, `b'KEJN1 LOGIN bob "%s"'`,
	// Names, marks and quotes.
	"DB_PASS=%s", "smtp_pass=%s", "SMTP_PASS: %s", `{"pass":"%s"}`, "MYSQL_PWD=%s", "SECRET_KEY_BASE=%s", `{"credentials":"%s"}`,
	"password:\t%s", "password:\t\"%s\"", "password\t=\t%s", "password = %s", "password : %s", "password => %s", "password := %s", "password==%s",
	":password => \"%s\"", "passwd=%s", "passphrase: %s", "passwort=%s", "userPassword=%s", "passwordRepeat=%s", "password2=%s", "new_pass=%s",
	"db.password=%s", "spring.datasource.password=%s", "my-app.api-key=%s", "apiKey: %s", "API_KEY=%s", "x-api-key: %s", "clientSecret=%s",
	"client_secret: '%s'", "private_key=%s", "ENCRYPTION_KEY=%s", "AWS_SECRET_ACCESS_KEY=%s", "aws_session_token=%s", "access_token=%s",
	"refresh_token: %s", "csrf_token=%s", "jwt=%s", "otp=%s1", "pw=%s", "pwd=%s", "dbpwd=%s", "rootpw=%s", "REDIS_AUTH=%s", "wsrep_sst_auth=root:%s",
	"AccountKey=%s", "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=%s==;EndpointSuffix=core", "Server=db;User Id=sa;Password=%s;Encrypt=true",
	"token: %s9", "secret: %s9", "sessionid=%s", "session_token=%s", "password_digest=%s", "token_hash: \"%s\"", "requirepass=%s", "sig=%s",
	`ENV['DB_PASS'] = '%s'`, `$ENV{"DB_PASS"} = "%s"`, `client_secret":"%s"`, `os.environ["API_TOKEN"] = '%s'`,
	// Partial values.
	"password=ab,%s", "password=ab;%s", "password=ab)%s", "password=ab}%s", "password=ab]%s", "password=ab&%s", `password=ab"%s`, "password=ab'%s",
	"password={bcrypt}$2a$%s", "password=a:%s", "password=a=%s", "password=a|%s", "password=<%s", "(password=ab)%s)", "[password=ab,%s]",
	"{password=ab}%s, user=bob}", `msg="login password=ab,%s" user=bob`, "password=%s, user=bob", "password=(%s", "password=${%s!x}",
	// Structures.
	`"password":["%s"]`, `password: ["%s"]`, `{"password":{"value":"%s"}}`, `{"password":{"a":[{"b":"%s"}]}}`, "passwords={a: %s, b: %s}", "password: {value: '%s'}",
	`{"token":["a","%s"]}`, `{"Authorization":["Bearer %s"]}`, `{"name":"DB_PASSWORD","value":"%s"}`, `{"key":"api_key","value":"%s"}`, "secrets: [a, %s]",
	`{"a":"{\"password\":\"%s\"}"}`, `{"a":"{\"b\":\"{\\\"password\\\":\\\"%s\\\"}\"}"}`, `msg="{\"password\":\"%s\"}"`, `body={\"token\":\"%s\"}`,
	`{"p\u0061ssword":"%s"}`, `{"headers":{"cookie":"sid=%s"}}`, `{"headers":{"x-auth-token":"%s"}}`, "<password>%s</password>", `<Password type="x">%s</Password>`,
	`<add key="x" password="%s"/>`, "User(name=bob, password=%s)", "User{name='bob', password='%s'}", "User [name=bob, password=%s]", "{'password': '%s'}", "{u'password': u'%s'}",
	// Headers.
	"Authorization: Bearer %s", "authorization: bearer %s", "Authorization: Basic %s", "Authorization: %s", "> Authorization: %s", "authorization=%s status=200",
	"authorization=Bearer %s status=200", "Authorization: Token %s", "Authorization: Digest username=\"bob\", response=\"%s\"", "Proxy-Authorization: Basic %s",
	"Authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=%s", "Cookie: a=b; sid=%s", "Set-Cookie: a=\"x\"; sid=%s; Path=/", "cookie: sid=%s",
	`"Set-Cookie": "sid=%s; HttpOnly"`, "headers={'cookie': 'sid=%s'}", "X-Auth-Token: %s", "x-vault-token: %s", "got header bearer %s1", "Bearer %s", "BEARER %s1", "-H 'Authorization: Bearer %s'",
	// Commands.
	"helm --password %s", "helm --token %s --x y", "--password=%s", "--db-password %s", "--api-key \"%s\"", "args=[\"--token\", \"%s\"]", `["--token","%s"]`, "mysql -u root -p%s shop",
	"mysqldump -uroot -p'%s' db", "sshpass -p %s ssh x", "curl -u admin:%s http://x/", "curl --user admin:%s http://x/", `["redis-cli","-a","%s","PING"]`, "redis-cli -a %s ping",
	`["mysql","-uroot","-p%s"]`, "ldapsearch -D cn=x -w %s", "passwd '%s'", "password '%s'", "password \"%s\"", "AUTH %s9", "AUTH default %s9", "requirepass %s", "masterauth %s",
	"Running: sh -c \"mysql -p%s\"", "docker login -u bob -p %s",
	// Tokens and keys.
	"using eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.%s", "cloned with ghp_%s", "token github_pat_%s", "glpat-%s used", "slack xoxb-1-%s", "stripe sk_live_%s", "key AIza%s0",
	"using sk-ant-api03-%s", "basicauth bob:$apr1$abcd$%s", "hash $2y$05$%s", "crypt $6$salt$%s", "-----BEGIN PRIVATE KEY-----%s-----END PRIVATE KEY-----",
	"-----BEGIN RSA PRIVATE KEY-----\\n%s\\n-----END RSA PRIVATE KEY-----", `{"key":"-----BEGIN EC PRIVATE KEY-----\n%s\n-----END EC PRIVATE KEY-----\n"}`, "shpat_%s", "whsec_%s",
	// URLs.
	"postgres://app:%s@db/shop", "postgres://app:p@%s@db/shop", "postgres://app:a/%s@db:5432/shop", "postgres://app:a?%s@db:5432/shop", "url='amqp://app:x'%s@rabbit/'",
	"redis://:%s@cache:6379/0", "https://ghp_%s@github.com/x", "jdbc:mysql://db/shop?user=app&password=%s", "jdbc:oracle:thin:app/%s@//db:1521/x", "https://u:a%%40%s@h/x",
	`"GET /cb?code=%s&state=1 HTTP/1.1" 302`, `"GET /x?X-Amz-Signature=%s HTTP/1.1" 200`, `"GET /x?sig=%s&se=1 HTTP/1.1"`, `"GET /x?key=%s HTTP/1.1" 200`, `"GET /x?user%%5Bpassword%%5D=%s HTTP/1.1"`,
	`"POST /bot123456:%s/sendMessage HTTP/1.1" 200`, "POST https://hooks.slack.com/services/T000/B000/%s", "https://discord.com/api/webhooks/123456/%s", `"GET /reset-password/%s1 HTTP/1.1" 200`, `"GET /invite/%s1 HTTP/1.1" 200`, `"GET /verify-email/%s1?a=b HTTP/1.1" 200`, `"GET /magic-link/%s1 HTTP/1.1" 200`,
	"to https://h/?u=https%%253A%%252F%%252Fx%%252F%%253Ftoken%%253D%s", "body: grant_type=password&username=bob&client_assertion=%s", `{"url":"/cb?code=%s\u0026state=1"}`,
	// SQL.
	`INSERT INTO u (a,token) VALUES (1,"%s")`, "WITH PASSWORD '%s'", "ALTER ROLE bob WITH PASSWORD '%s'", "SET PASSWORD FOR bob = PASSWORD('%s')", "CREATE USER a IDENTIFIED BY \"%s\"", "create user a identified with x by '%s'",
	"statement: INSERT INTO u (name, password) VALUES ('a', '%s')", "SELECT 1 FROM u WHERE password NOT LIKE '%s'",
	// Colours.
	"\x1b[3mpassword\x1b[0m\x1b[2m=\x1b[0m%s", "\x1b[31mtoken\x1b[0m=%s", "\x1b[36mapi_key=\x1b[0m%s", "pass\x1b[1mword=%s", "\x1b[2mPOST\x1b[0m /x?code=\x1b[33m%s\x1b[0m",
}

// ordinaryLines are lines of logs without a secret. They do not change.
var ordinaryLines = []string{
	`172.17.0.1 - - [24/Nov/2026:23:08:00 +0000] "GET /api/v1/items?page=2 HTTP/1.1" 200 5120 "-" "curl/8.5.0"`,
	`10.0.0.7 - bob [24/Nov/2026:23:08:00 +0000] "POST /login HTTP/1.1" 302 0 "https://shop.example/login?next=/cart" "Mozilla/5.0 (X11; Linux x86_64)"`,
	`level=info ts=2026-11-24T23:08:00.123Z caller=main.go:42 msg="request done" method=GET path=/healthz took=1.2ms`,
	`2026-11-24 23:08:00.123  INFO 1 --- [nio-8080-exec-1] c.e.OrderService : order 4711 was placed by customer 12`,
	`{"level":"info","ts":1764025680.123,"msg":"cache miss","key":"user:4711","took":0.0012}`,
	`SELECT id, name, price FROM products WHERE category = 'books' AND price < 30 ORDER BY price LIMIT 20`,
	`mail to a@b.example, see https://h.example/a/b?c=d#e`, "unexpected token: < in JSON at position 0", "SyntaxError: Unexpected token: punc (})", "password: changed for user 7",
	"password must be at least 12 characters", "Password: required", "password authentication failed for user \"bob\"", "user bob has no password set", "invalid password for bob from 10.0.0.1",
	"time: 12:04:05 key: value", "tokens=128 prompt_tokens=5", "max_tokens: 4096", `{"usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}`, "cookie banner shown: yes",
	"secretary: Ann", "the bearer of news", "Bearer authentication enabled", "sig=11", "exit sig: 9", "bearer certificate was accepted", "status code=200 key=user:4711 session=7", "exit code: 137", "error code 0x80070005", "zip_code=10115 country_code=DE",
	"token expired", "token: expired", "token is invalid: not a JWT", "refreshing token for user 12", "the access token was rotated", "no auth required", "auth: ok", "auth=none", "authentication succeeded for bob",
	"author: Jane Doe", "authority=shop.example", "monkey=1 keyboard=us turkey=2", "primary_key=id foreign_key=order_id", "cache_key=items:2", "partition key: 7", "sort_key=price", "keys=12 values=12",
	"compass=north bypass=true", "tests passed: 12, failed: 0", "pass: 3 fail: 1", "pass_rate=0.98", "passenger=12", "passive=true", "password_changed_at=2026-11-24", "password_policy=strict", "token_type=Bearer",
	"token_count=12", "tokenizer=bpe", "secret_name=db", "credential_type=oauth", "PasswordAuthentication no", "password reset mail sent to bob", "cookie: disabled", "signature verified", "signature: invalid",
	"PWD=/usr/src/app", "OLDPWD=/", "PATH=/usr/local/bin:/usr/bin", "HOME=/root", "password=", "password=***", "password=REDACTED", "password=<hidden>", "password=${DB_PASSWORD}", "password: null", "token=None",
	"2026/11/24 23:08:00 [error] 12#12: *1 open() \"/usr/share/nginx/html/favicon.ico\" failed (2: No such file or directory), client: 172.17.0.1, server: localhost, request: \"GET /favicon.ico HTTP/1.1\"",
	"2026-11-24 23:08:00.123 UTC [1] LOG:  database system is ready to accept connections", "2026-11-24T23:08:00.123456Z 0 [Note] mysqld: ready for connections. Version: '8.0.36'  socket: '/var/run/mysqld/mysqld.sock'  port: 3306",
	"1:M 24 Nov 2026 23:08:00.123 * Ready to accept connections tcp", "I1124 23:08:00.123456       1 main.go:5] Starting controller", "http://host:8080/a@b", "https://registry.example/@scope/pkg@1.2.3", "git clone ssh://git@github.com/x/y.git",
	"npm WARN deprecated @types/node@1.2.3", "Traceback (most recent call last):", "  File \"/app/main.py\", line 12, in <module>", "KeyError: 'session'", "ValueError: invalid literal for int() with base 10: 'abc'",
	"at com.example.Main.run(Main.java:42)", "Caused by: java.net.ConnectException: Connection refused", "can't open file 'x': No such file", "it's 12 o'clock, don't panic", "GET /search?q=keyboard&page=2 200", "GET /docs/tokens/overview 200",
	"GET /auth/login 302", "POST /api/session 201", "GET /verify 200", "deployed 3f2a9c0 to prod-eu-1", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "id=550e8400-e29b-41d4-a716-446655440000",
	"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "mkdir -p /var/lib/mysql", "psql -p 5432 -U bob", "docker run -p 8080:80 nginx", "--- a/main.go", "-- comment", "--verbose --output json", "curl -u bob http://x/",
	"docker login -u a --password-stdin", "sk-learn 1.4 loaded", "task_id=42 run_id=7", "x_test_y a_b_c", "rate=12.5/s p99=1.2ms", "SELECT u.token FROM users u JOIN s ON u.token = s.token", "UPDATE orders SET code = 'A1' WHERE id = 7",
	"level=warn msg=\"slow query\" query=\"SELECT * FROM items WHERE id = $1\" took=1.2s", "{\"event\":\"login\",\"user\":\"bob\",\"ok\":true,\"session\":7}", "{\"a\":[1,2,{\"b\":null}],\"c\":\"d\\n\\\"e\\\"\"}", "<html><body>Bad gateway</body></html>",
	"<token/> <password></password>", "ping 1.1.1.1: 12 ms", "eth0: link up", "AUTH failed for bob", "AUTH service started", "key generated, see docs/auth.md#tokens", "user@host:~$ ls -la", "foo=bar&baz=1", "a=1;b=2;c=3", "state=open", "  ", "",
}

// secretURLs are request targets and URLs with a secret, as events of HTTP have them.
var secretURLs = []string{
	"/?password2=%s", "/?password_confirmation=%s", "/?user[password_confirmation]=%s", "/?new_pass=%s", "/?user_pass=%s", "/?db_pass=%s", "/?pwd1=%s", "/?passwordRepeat=%s", "/?client_assertion=%s",
	"/?auth_key=%s", "/?appkey=%s", "/?license_key=%s", "/?connect.sid=%s", "/?oauth_verifier=%s", "/?authcode=%s", "/?session_key=%s", "/?access_token2=%s", "/?passwords=%s", "/?token[0]=%s", "/?token[]=%s",
	"/?j=%%7B%%22password%%22:%%22%s%%22%%7D", "/?j=%%7B%%22password%%22%%3A%%22%s%%22%%7D", "/?u=https%%253A%%252F%%252Fx%%252F%%253Ftoken%%253D%s", "/?u=https%%3A%%2F%%2Fx%%2F%%3Ftoken%%3D%s",
	"/?u=https%%25253A%%25252F%%25252Fx%%25252F%%25253Ftoken%%25253D%s", "/?x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.%s", "/a/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.%s/b", "/?x=ghp_%s", "/x/sk_live_%s", "/?a=xoxb-1-%s",
	"/bot123456:%s/sendMessage", "/services/T000/B000/%s", "/reset-password/%s1", "/api/webhooks/123456/%s", "/verify-email/%s1", "/invite/%s1", "/?code=%s", "/?key=%s", "/?sig=%s", "/?pin=%s", "/?nonce=%s", "/?PASS=%s",
	"/a;jsessionid=%s", "/;sid=%s/b", "/#access_token=%s", "http://u:%s@h/", "http://%s@h/", "/?next=http://u:%s@h/", "/?next=http%%3A%%2F%%2Fu%%3A%s%%40h", "/?p%%61ssword=%s", "/?%%70assword=%s", "/?X-Amz-Credential=AKIA%s00&x=1",
	"/?SAMLResponse=%s", "/?passwort=%s", "/?secretKey=%s", "/?csrf-token=%s", "/?jwt=%s&x", "/?hub.verify_token=%s", "/?user%%5Bpassword%%5D=%s", "/?a=b&c=d&credentials=%s", "/?otp=%s", "/?apiKey=%s",
}

// ordinaryURLs are request targets without a secret.
var ordinaryURLs = []string{
	"/", "/?a=b", "/api/v1/items?page=2&sort=name", "/mail?to=a@b.c", "/?keyboard=x&monkey=y&tokenize=z", "/?password=", "/search?q=password", "/docs/tokens", "/auth/login", "/reset-password", "/services/web",
	"/verify/", "/?token_type=bearer", "/?password_policy=1", "/a/b/c.html", "/@scope/pkg", "/?q=%20%2F%2C", "/img/logo-2026.png", "/?zip_code=1", "/?country_code=DE", "/?state=1", "/?redirect=%2Fcart%3Fa%3Db", "/?sort_key=price",
	"/2026/11/24/title-of-a-post", "/v2/library/nginx/manifests/1.27", "/?max_tokens=4", "/session", "/token", "/users/12/keys", "http://h:8080/x", "//h/x", "*", "h:443", "/activate", "/?cache_key=1", "/confirm/order", "/?id=550e8400-e29b-41d4-a716-446655440000",
}

// secretSQL are statements with a secret.
var secretSQL = []string{
	"SELECT 1 /* password='%s' */", "SELECT 1 -- password='%s'", "SELECT 1 # password='%s'", "UPDATE u SET password_digest='%s'", "UPDATE u SET pw = '%s'", "UPDATE u SET token_hash = '%s' WHERE id=1",
	"PREPARE s FROM 'SET PASSWORD = \"%s\"'", "SET GLOBAL wsrep_sst_auth = 'root:%s'", "SELECT 1 FROM u WHERE (name,password)=('a','%s')", "SELECT 1 FROM u WHERE password NOT LIKE '%s'", "SELECT 1 FROM u WHERE password REGEXP '%s'",
	"SELECT 1 FROM u WHERE lower(password)='%s'", "SELECT 1 FROM u WHERE MD5(password) = '%s'", "INSERT INTO u (a, password) SELECT 'x', '%s'", "INSERT INTO users VALUES (1, 'bob', '%s')", "INSERT INTO accounts VALUES ('bob', '%s')",
	"CREATE TABLE t (a int) CONNECTION='mysql://fed:%s@h/db'", "CREATE TABLE t (a int) COMMENT='user \"fed\", password \"%s\"'", "INSERT INTO log (doc) VALUES ('{\"password\":\"%s\"}')", "UPDATE u SET doc = '{\\\"token\\\":\\\"%s\\\"}'",
	"CREATE USER a IDENTIFIED BY '%s'", "CREATE USER a IDENTIFIED BY %s", "CREATE USER a IDENTIFIED WITH x BY '%s'", "ALTER ROLE bob WITH PASSWORD '%s'", "CREATE ROLE bob LOGIN PASSWORD '%s'", "CALL set_password('bob', '%s')",
	"SELECT crypt('%s', gen_salt('bf'))", "SELECT pgp_sym_encrypt('x', '%s')", "SELECT AES_ENCRYPT('x', '%s')", "SET PASSWORD = '%s'", "SET @api_key = '%s'", "UPDATE u SET password = CONCAT('a', '%s')", "SELECT 1 FROM u WHERE password BINARY '%s'",
	"SELECT 1 FROM u WHERE token IN ('a', '%s')", "SELECT 1 FROM u WHERE password != '%s'", "SELECT 1 FROM u WHERE BINARY password = '%s'", "UPDATE u SET `api-key` = '%s'", "REPLACE INTO s (k, secret) VALUES (1, '%s'), (2, '%s')",
	"CHANGE MASTER TO MASTER_PASSWORD='%s'", "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='%s'", "SELECT 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.%s'", "SELECT 1 FROM s WHERE id = 'ghp_%s'", "CREATE SERVER s OPTIONS (PASSWORD '%s')",
}

// ordinarySQL are statements without a secret.
var ordinarySQL = []string{
	"SELECT id, name FROM products WHERE category = 'books'", "SELECT 1 FROM u WHERE name = 'password'", "SELECT 'password = ', 'x'", "UPDATE orders SET state = 'open' WHERE id = 7", "INSERT INTO t (a, b) VALUES ('x', 'y')",
	"SELECT compass FROM t WHERE compass = 'n'", "SELECT * FROM u WHERE password = ?", "SELECT * FROM u WHERE token = $1", "SELECT u.token FROM u JOIN s ON u.token = s.token", "SELECT 'it''s', \"x\" FROM t", "DELETE FROM sessions WHERE expires < '2026-11-24'",
	"SHOW VARIABLES LIKE 'max_connections'", "SELECT * FROM keys WHERE `key` = 'a'", "/* hint */ SELECT 1 -- comment", "INSERT INTO orders VALUES (1, 'x')", "CREATE INDEX i ON users (name)", "SELECT COUNT(*) FROM users WHERE name LIKE 'a%'", "SET NAMES 'utf8mb4'",
	"SELECT code FROM countries WHERE code = 'DE'", "SELECT author FROM books WHERE author = 'x'", "", "'", "COMMIT", "SELECT (1, 'a') = (1, 'a')", "SELECT password FROM u", "GRANT SELECT ON db.* TO 'bob'@'%'",
}

// replaceSecret returns form with value for %s, and % for %%.
func replaceSecret(form, value string) string {
	return strings.ReplaceAll(strings.ReplaceAll(form, "%s", value), "%%", "%")
}

// TestFormsOfSecrets: no place of a secret leaks it, in lines, URLs and SQL; what holds none does not change.
func TestFormsOfSecrets(t *testing.T) {
	var redactor Redactor
	forms := 0
	check := func(place string, redact func([]byte) ([]byte, bool), secrets, ordinary []string) {
		forms += len(secrets) + len(ordinary)
		for _, form := range secrets {
			text := replaceSecret(form, secret)
			out, hidden := redact([]byte(text))
			if strings.Contains(string(out), secret) || !hidden {
				t.Errorf("%s leaks: %s\n    → %s", place, text, out)
			}
			for _, rest := range []string{secret[:7], secret[7:]} {
				if strings.Count(string(out), rest) > 0 {
					t.Errorf("%s leaks a part: %s\n    → %s", place, text, out)
					break
				}
			}
			once := string(out)
			if twice, _ := redact([]byte(once)); string(twice) != once {
				t.Errorf("%s: not idempotent: %s\n    → %s\n    → %s", place, text, once, twice)
			}
		}
		for _, text := range ordinary {
			if out, hidden := redact([]byte(text)); hidden || string(out) != text {
				t.Errorf("%s changes: %s\n    → %s", place, text, out)
			}
		}
	}
	check("line", redactor.Line, secretLines, ordinaryLines)
	check("URL", redactor.URL, secretURLs, ordinaryURLs)
	check("SQL", redactor.SQL, secretSQL, ordinarySQL)
	if forms < 400 {
		t.Errorf("%d forms", forms)
	}
}

// TestFormsOfLabels: labels of containers leave the host with their secrets hidden.
func TestFormsOfLabels(t *testing.T) {
	var redactor Redactor
	for _, label := range [][2]string{
		{"db.password", "%s"},
		{"traefik.http.middlewares.a.basicauth.users", "bob:$apr1$abcd$%s"},
		{"traefik.http.middlewares.a.basicauth.users", "bob:$$2y$$05$$%s"},
		{"ofelia.job-exec.backup.command", "mysqldump -uroot -p%s db"},
		{"env", "API_TOKEN=%s"},
		{"url", "postgres://app:%s@db/x"},
		{"com.example.api-key", "%s"},
		{"x.client_secret", "%s"},
		{"job.command", "sh -c 'curl -u a:%s http://x'"},
		{"config", `{"password":"%s"}`},
		{"a.webhook", "https://hooks.slack.com/services/T000/B000/%s"},
		{"SMTP_PASS", "%s"},
	} {
		if out := redactor.Label(label[0], replaceSecret(label[1], secret)); strings.Contains(out, secret) {
			t.Errorf("%s: %s", label[0], out)
		}
	}
	for _, label := range [][2]string{
		{"com.docker.compose.project", "shop"},
		{"traefik.http.routers.a.rule", "Host(`shop.example`) && PathPrefix(`/api`)"},
		{"token", ""},
		{"max_tokens", "4096"},
		{"maintainer", "Jane <jane@example>"},
		{"org.opencontainers.image.source", "https://github.com/x/y"},
		{"auth.enabled", "true"},
		{"com.docker.compose.config-hash", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
	} {
		if out := redactor.Label(label[0], label[1]); out != label[1] {
			t.Errorf("%s: %s became %s", label[0], label[1], out)
		}
	}
}

// TestUserNamesThatAreTokens: services take a token as the user of HTTP's Basic authentication.
func TestUserNamesThatAreTokens(t *testing.T) {
	check := func(user, password string, want bool) {
		t.Helper()
		if got := UserNameIsSecret([]byte(user), []byte(password)); got != want {
			t.Errorf("%s:%s: %v", user, password, got)
		}
	}
	check("sk_live_"+secret, "", true)
	check("ghp_"+secret, "x-oauth-basic", true)
	check("ghp_"+secret, "x", true)
	check("ghp_"+secret, "anything", true)
	check("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "y", true)
	check("4f2a9c0d8e7b6a5f4e3d2c1b", "api", true)
	check(base64.RawURLEncoding.EncodeToString([]byte(secret+secret)), "p", true)
	check("bob", "", true)
	check("bob", "pw", false)
	check("admin", "admin", false)
	check("jane.doe2@example.com", "pw", false)
	check("service-account", "pw", false)
	check("", "pw", false)
}
