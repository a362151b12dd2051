package rules

import (
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

// keyedValue returns the value of key in text.
func keyedValue(text, key string) string {
	var buf []byte
	return valueInto(&buf, text, key)
}

// TestValueOfKey reads keys of records as Kubernetes, OpenCanary, auditd (ausearch(8), audit-userspace's log format
// specification), Sysmon for Linux and sudo write them.
func TestValueOfKey(t *testing.T) {
	check := func(line, key, want string) {
		t.Helper()
		if got := keyedValue(line, key); got != want {
			t.Errorf("value of %q in %s: got %q, want %q", key, line, got, want)
		}
	}
	audit := `{"kind":"Event","verb":"create","user":{"username":"a\"b\u00e9\ud83d\ude00"},"objectRef":{"resource":"pods","subresource":"exec"},` +
		`"requestObject":{"spec":{"containers":[{"name":"a"},{"name":"b","securityContext":{"privileged":true}}]}},"code":201,"none":null,"a.b":"dotted"}`
	check(audit, "verb", "create")
	check(audit, "objectRef.subresource", "exec")
	check(audit, "user.username", `a"bé😀`)
	check(audit, "requestObject.spec.containers.securityContext.privileged", "true")
	check(audit, "requestObject.spec.containers.name", "a")
	check(audit, "code", "201")
	check(audit, "none", "")
	check(audit, "a.b", "dotted")
	check(audit, "objectRef", `{"resource":"pods","subresource":"exec"}`)
	check(audit, "resource", "")
	check(`  { "a" : [ ] , "b" : "x" }`, "b", "x")
	check(`{"a":"cut off`, "a", "cut off")
	check(`{"a":{"b":`, "a.b", "")

	execve := `type=EXECVE msg=audit(1700000000.123:45): argc=3 a0="bash" a1="-c" a2=6563686F2022612062222031`
	check(execve, "type", "EXECVE")
	check(execve, "a0", "bash")
	check(execve, "a2", `echo "a b" 1`)
	check(execve, "a3", "")
	check(execve, "msg", "audit(1700000000.123:45):")
	check(`type=SYSCALL msg=audit(1.2:3): syscall=59 a0=7FFD a1=10 exe="/usr/bin/id" key=(null) ARCH=x86_64`+"\x1d"+`SYSCALL=execve`, "a0", "7FFD")
	check(`type=SYSCALL msg=audit(1.2:3): syscall=59 exe="/usr/bin/id"`+"\x1d"+`SYSCALL=execve AUID="root"`, "SYSCALL", "execve")
	check(`type=PROCTITLE msg=audit(1.2:3): proctitle=6C73002D6C`, "proctitle", "ls -l")
	check(`type=USER_CMD msg=audit(1.2:3): pid=1 msg='cwd="/" cmd=6C73 terminal=pts/0 res=success'`, "res", "success")
	check(`time=x level=info user="a \"b\" c" next=1`, "user", `a "b" c`)
	check(`sudo: bob : TTY=pts/0 ; PWD=/home/bob ; USER=root ; COMMAND=/bin/ls`, "USER", "root")
	check(`xa=1 a=2`, "a", "2")

	// A text of the line that somebody else chooses, between double quotes, holds no keys.
	check(`type=SYSCALL msg=audit(1.2:3): comm="exe=/bin/ls" exe="/tmp/evil"`, "exe", "/tmp/evil")
	check(`path="/x status=200" status=500`, "status", "500")
	check(`ua="<Event><status>200<" status=500`, "status", "500")
	check(`a="x\" status=200 \\" b="status=201" status=500`, "status", "500")
	check(`a="it does not end status=500`, "status", "500")
	check(`a="x" status=500 b="y"`, "status", "500")

	sysmon := `<Event><System><EventID>1</EventID></System><EventData><Data Name="Image">/usr/bin/curl</Data>` +
		`<Data Name="CommandLine">curl &lt;&amp;lt;&quot;x&quot;</Data></EventData></Event>`
	check(sysmon, "EventID", "1")
	check("Nov 28 12:00:00 host sysmon: "+sysmon, "Image", "/usr/bin/curl")
	check(sysmon, "CommandLine", `curl <&lt;"x"`)
	check(sysmon, "ParentImage", "")
}

// TestValueIsARuleFunction compares the value of a key in rules, with the index and without.
func TestValueIsARuleFunction(t *testing.T) {
	set, err := compileText(t, ruleYAML("exec", `value(message, "objectRef.subresource") == "exec"`)+
		ruleYAML("folded", `lower(value(message, "verb")) contains ["create", "update"]`))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range set.Rules() {
		if !rule.Indexed {
			t.Errorf("%s has no index key", rule.ID)
		}
	}
	for _, wrong := range []string{`value(message) == ""`, `value(message, "") == ""`, `value(message, url.path) == ""`, `value(source.port, "a") == ""`} {
		if _, err := compileText(t, ruleYAML("wrong", wrong)); err == nil {
			t.Errorf("%s compiles", wrong)
		}
	}
}

// FuzzValue checks that the work for a line is linear.
func FuzzValue(f *testing.F) {
	f.Add(`{"a":{"b":[{"c":"d"}]}}`, "a.b.c")
	f.Add(`type=EXECVE msg=audit(1.2:3): a0="x" a1=4142`, "a1")
	f.Add(`<Event><Data Name="Image">x&amp;y</Data></Event>`, "Image")
	f.Add(strings.Repeat(`{"a":`, 50), "a.a.a.a")
	f.Fuzz(func(t *testing.T, line, key string) {
		if key == "" || len(key) > maxKeyBytes {
			return
		}
		lineartest.CheckRepeated(t, lineartest.Default, line, func(line string) { keyedValue(line, key) })
	})
}
