package redact

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// usedCPU returns the CPU time of the process.
func usedCPU(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// TestRedactionTakesLinearTime: no repetition costs more than linear time. Earlier, `token:` took 35 s for
// 256 KiB, and each = before a quote went back to the last blank.
func TestRedactionTakesLinearTime(t *testing.T) {
	size := 128 << 10
	if testing.Short() {
		size = 32 << 10
	}
	var redactor Redactor
	for _, part := range []string{
		`="`, `x="`, `\:=`, `=\`, `\u0026,=`, `%2f="`, "token:", "token: a ", "token: aaaa ", "cookie: a ", "Authorization: ", "Authorization: Bearer x ",
		"password=", "password=,", "password=,a", "password=)", "pw=1 ", "pw=\"", "pw='a", "pw=[", "pw={a:", "a=a", ":", "=", "//", "//@", "//a:b@", "//a:b/", "http://a:b/c ",
		"%25", "%2525", "%3D", "pw%3D", "\\", "\\\"", "\\\\\"", "\\u0061", "\x1b[1m", "\x1b[", "-", "--", " --p", " -p", " --password ", "mysql -p", "eyJ", "eyJa.", "ghp_", "AKIA", "$2y$", "$$",
		"-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "bearer ", "Bearer a", "AUTH a ", "'", "select '", "select password '", "select \"", "insert into u (", "(", "((", "identified by ", "identified by '",
		"/*", "/* password='", "-- ", "<", "<password>", "<password>x", "/bot1:", "/services/", "/reset-password/", "a&b=", "?a=b&", ";a=", "{\"a\":", "[", "[\"a\",", "{", "{\"password\":[", "\"", "\" ", " \"", "a\"",
		"requirepass ", "master", "user:pass@", "postgres://", "postgres://a:b/c", "@a/", "@", "'@", "x'y@", "jdbc:oracle:", "= ", ": ", "    ", "\t", "é=", "\xff", "password\xff=", "value:", "\"value\":1,", "0x", "password=0x", ",password=a", "password=a,b=",
		"password is a ", "password for a: ", "set password ", "token a1b2c3d4 ", "password: |",
		"('password', 'a'), ", "['a',", "\"a\",", "\\\"a\\\",", "login a/b ", "a:b@", "a:b1c2d3e4@h:1 ",
		"root:x@tcp(", "scp a:b1c2d3@h ", "echo a | passwd --stdin ", "echo a|", "|", "CONFIG SET a b ",
		"config set ", "\"AUTH\" \"a\" ", "] \"AUTH\" ", "] \"SET\" \"token\" \"", "HELLO 3 AUTH ", "user a on >b ",
		"MIGRATE ", "curl -u ", "curl -ua:b ", "mysql -p'", "htpasswd -b ", "vault login ", "net use ",
		"openssl -passin pass:", "name=password value=a ", "<a name=\"password\" value=\"", "<value>",
		"LS0tLS1CRUdJTi", "hvs.", "SG.", "Basic ", "Basic YTpi", "%20password%20", "%2520", "session=a", "PASS: a ",
		"authorization bearer ", "identified by '", "secret_a_", "dapi0",
		"password+is+a1b2c3d4+", "a+", "&quot;", "&amp;", "&amp;amp;", "&lt;password&gt;", "%2b", "\\u002b", "\\/", "\\t", "value=a ",
		"value=a name=password ", "password...", "password....... ", "api key ", "api key: a1b2c3d4 ", "Secret(\"", "setPassword('a'",
		"password: a -> ", "password = \"a\" -> \"b\" -> ", "password: !a ", "password: string = ", "| password | a |", "password | ",
		"<![CDATA[", "<password><![CDATA[a", "<key>password</key>", "пароль: ", "hello auth ", "xfreerdp /p:", "b'", "rb\"", "login\t",
		"password is monkey. ", "password set to ", "mysqladmin password ",
		"password='a''", "password=''", "password='''a", "password='a'\"'\"'", "''a", "password=a b ", "password: a b ", "pass phrase ", "session id ", "|password|a", "| password || ",
		"form-data; name=password", "form-data; name=password\n\n", "form-data; name=\"password\"\r\n\r\na", "密码：", "密码 ", "密码：a ", "密码は", "：", "“", "ｐａ", "\xef\xbc", "clave: ",
		"s:8:\"password\";", "s:1:\"a\";", "s:1:\"", "Digest response=", "digest ", "response=", "call login('a',", "login('a', ", "exec login ", "s3('a', ", "s3(", "mysql('", "login(", "postgres://a:b ",
		"postgres://a:b c ", "a/b@", "a/b@//", "conn a/b@", "sqlplus -s ", ":pserver:a:", "?verify=a1b2c3d4", "?sign=a", "&policy=", "schtasks /rp ", "rar -hp", "net use \\\\h ", "--pin ",
		"(a, password) ", "(password)('", "(password)('a", "(password", "password $1 parameters: $1 = 'a', ", "parameters: $1 = '", "$1 = 'a', ", "$1 password ",
		":5432:", ":*:", "a:5432:b:c:d", "a:5432:b:c:null ", "*:*:*:*:", "id|password\n", "1|password\n", "id\tpassword\n1\t", "|\n", "session id is a ",
		"value='", `value=\"`, `value="'`, "api key: 'a", "password: Just \"", "password: a(b) 'c", "name=a value=b(", "password: a -> '",
	} {
		for _, front := range []string{"", "{\"a\":\"", "password=", "select a ", "?"} {
			line := []byte(front + strings.Repeat(part, size/len(part)))
			for i, redact := range []func([]byte) ([]byte, bool){redactor.Line, redactor.URL, redactor.SQL} {
				start := usedCPU(t)
				redact(line)
				if took := usedCPU(t) - start; took > time.Second {
					t.Errorf("%d KiB of %s behind %s: %v in function %d", size>>10, part, front, took, i)
				}
			}
		}
	}
}
