package log4j

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

func resolved(text string) string { return string(Resolve(nil, []byte(text))) }

func TestLookupsThatResolveToJNDI(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("${jndi:ldap://x.example/a}"))
	for _, text := range []string{
		"${jndi:ldap://x}", "${JnDi:ldap://x}", "${jndi:ldap://x", "a ${b ${jndi:ldap://x}",
		"${${lower:j}ndi:ldap://x}", "${${lower:${lower:jndi}}:ld${lower:ap}://x}", "${${upper:j}NDI:ldap://x",
		"${${env:BARFOO:-j}ndi${env:BARFOO:-:}ldap://x}", "${${::-j}${::-n}${::-d}${::-i}:${::-r}mi://x}", "${${:-jn}di:dns://x}",
		"${j${k8s:k5:-ND}i${sd:k5:-:}ldap://x}", `${j${main:\k5:-Nd}i${spring:k5:-:}ldap://x}`, "${${what:ever:-j}ndi:ldap://x}",
		"${${date:'j'}${date:'n'}${date:'d'}${date:'i'}:${date:'l'}dap://x}", "${${ctx:x:-j}ndi:ldap://x}",
		"${jnd${upper:ı}:ldap://x}", "${jndi${sys:path.separator}ldap:${sys:file.separator}/x}",
		"${base64:" + encoded + "}", "${base64:" + strings.TrimRight(encoded, "=") + "}",
		"${lower:${jndi:ldap://x}}", "${env:A${jndi:ldap://x}:-harmless}", "${jndi:ldap://x/a:-b}",
		"${${env:A:-${env:B:-${lower:J}}}ndi:ldap://x}", "$${jndi:ldap://x}", "${${env:FIRST}ndi:ldap:x}",
		`\u0024\u007bjndi:ldap://x\u007d`, `\u0024{${lower:j}ndi:ldap://x}`,
		strings.Repeat("${lower:", 80) + "j" + strings.Repeat("}", 80),
		strings.Repeat("${", 70) + "${lower:j}ndi:ldap://x}",
		strings.Repeat("${a ", 30) + "${${lower:j}ndi:ldap://x}",
	} {
		if got := resolved(text); !strings.Contains(got, JNDI) {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestTemplatesAreNoJNDI(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		if got := resolved(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	same := func(text string) { t.Helper(); check(text, text) }
	same("")
	same("jndi:ldap://x")
	same("${HOME}")
	same("${name} and ${other}, {}, }, $}, ${")
	same("`${user.name}: ${items.map(i => `${i.id}`)}`")
	same("${env:HOME}/bin:${sys:user.dir}")
	same("${spring.datasource.url}")
	same("$(ls) $HOME $5 {a: b}")
	same("${${env}.ldap.url}")
	same("${jndi}")
	same("${date:yyyy-MM-dd}")
	same(`C:\users\u00fcber`)
	check("${lower:NAME}", "NAME")
	check("${db.host:localhost}", "${db.host:localhost}")
	check("${PORT:-8080}", "8080")
	check("${A:-${B:-c}}/x", "c/x")
	check("http://${host:-a}:${port:-1}/", "http://a:1/")
	check("${base64:aGVsbG8=} ${base64:%%}", "hello ")
}

func TestMayHoldAgreesWithResolve(t *testing.T) {
	for _, text := range []string{"", "$", "${", "a${b}", `\u0024{a:-b}`, "$a{b}", "no"} {
		if !MayHold(text) && resolved(text) != text {
			t.Errorf("%q changes", text)
		}
	}
}

// FuzzResolve: what is before the output stays, a text without a lookup too, and the time is linear.
func FuzzResolve(f *testing.F) {
	f.Add([]byte("${${lower:j}ndi:ldap://x}"))
	f.Add([]byte("${base64:JHtqbmRpOmxkYXA6Ly94LmV4YW1wbGUvYX0=}"))
	f.Add([]byte(strings.Repeat("${lower:", 70) + `\u0024{a:-b` + strings.Repeat("}", 80)))
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		out := Resolve([]byte("front "), text)
		if !bytes.Equal(text, before) || !bytes.HasPrefix(out, []byte("front ")) {
			t.Fatalf("%q became %q and %q", before, text, out)
		}
		if !MayHold(string(text)) && string(out[len("front "):]) != string(text) {
			t.Fatalf("%q became %q", text, out)
		}
		if bytes.Contains(text, []byte(JNDI)) && !bytes.Contains(out, []byte(JNDI)) {
			t.Fatalf("%q became %q, without the JNDI lookup", text, out)
		}
		lineartest.CheckRepeated(t, lineartest.Default, text, func(in []byte) { Resolve(nil, in) })
	})
}
