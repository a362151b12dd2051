package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/pipeline/redact"
)

// redactText runs `tidegate redact` with arguments over a text.
func redactText(t *testing.T, input string, args ...string) (out, summary string, err error) {
	t.Helper()
	cmd := rootCommand()
	var outBuf, errBuf bytes.Buffer
	cmd.SetIn(strings.NewReader(input))
	cmd.SetOut(&outBuf)
	cmd.SetErr(&errBuf)
	cmd.SetArgs(append([]string{"redact"}, args...))
	err = cmd.ExecuteContext(t.Context())
	return outBuf.String(), errBuf.String(), err
}

// TestRedactShowsWhatIsHiddenAndWhy: each line with a secret is printed with its number, the rules and the redacted
// text. The exit code says whether there were any.
func TestRedactShowsWhatIsHiddenAndWhy(t *testing.T) {
	const input = "started\npassword=hunter2 user=bob\nGET /cb?code=hunter2 for postgres://u:hunter2@db/x\n\x1b[31mtoken\x1b[0m=hunter2\r\n" +
		"-----BEGIN PRIVATE KEY-----\nMIIEhunter2\n-----END PRIVATE KEY-----\ndone\n"
	out, summary, err := redactText(t, input)
	if exitCode(err) != 1 || !errors.Is(err, errFindings) {
		t.Errorf("error %v", err)
	}
	want := "     2  name:10           password=REDACTED user=bob\n" +
		"     3  parameter:14      GET /cb?code=REDACTED for postgres://u:REDACTED@db/x\n" +
		"        userinfo:39\n"
	if !strings.HasPrefix(out, want) || strings.Contains(out, "hunter2") || strings.Contains(out, "\x1b") || strings.Contains(out, "started") {
		t.Errorf("%q, want %q", out, want)
	}
	if !strings.Contains(out, "     6  private-key:1     REDACTED\n") {
		t.Errorf("the private key: %q", out)
	}
	if want := "4 of 8 lines have secrets: name 2, parameter 1, private-key 1, userinfo 1\n"; summary != want {
		t.Errorf("%q, want %q", summary, want)
	}

	// The text is that of the event: JSON stays JSON.
	for _, input := range []string{`{"password":8}`, `{"password":"8","pin":1,"token":77777}`, "SELECT PASSWORD(0x41)"} {
		var redactor redact.Redactor
		event, _ := redactor.Line([]byte(input))
		if out, _, _ := redactText(t, input+"\n"); !strings.Contains(out, "  "+string(event)+"\n") {
			t.Errorf("%q, and the event has %q", out, event)
		}
	}

	// The other lines, the secrets themselves, JSON.
	if out, _, _ := redactText(t, input, "--all"); strings.Count(out, "\n") != 9 {
		t.Errorf("--all: %q", out)
	}
	if out, _, _ := redactText(t, input, "--show"); !strings.Contains(out, "password=«hunter2» user=bob") {
		t.Errorf("--show: %q", out)
	}
	out, _, _ = redactText(t, input, "-o", "json")
	var line redactedLine
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &line); err != nil || line.Line != 2 ||
		len(line.Findings) != 1 || line.Findings[0] != (redactedFinding{9, 16, "name"}) {
		t.Errorf("json: %+v, %v", line, err)
	}
}

// TestRedactReadsAFile: the file is named, or standard input. Without a secret the exit code is 0.
func TestRedactReadsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte("all is well\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, summary, err := redactText(t, "", path); err != nil || out != "" || summary != "0 of 1 lines have secrets\n" {
		t.Errorf("%q %q %v", out, summary, err)
	}
	if _, _, err := redactText(t, "pw=x1234\n", "-"); exitCode(err) != 1 {
		t.Errorf("standard input: %v", err)
	}
	if _, _, err := redactText(t, "", path+".missing"); err == nil || exitCode(err) != 2 {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := redactText(t, "", "-o", "xml"); err == nil || exitCode(err) != 2 {
		t.Errorf("an unknown output: %v", err)
	}
	if _, _, err := redactText(t, strings.Repeat("x", maxRedactLine+1)); err == nil || exitCode(err) != 2 {
		t.Errorf("a line that is too long: %v", err)
	}

	// Colours only on a terminal.
	var out bytes.Buffer
	err := redactLines(strings.NewReader("pw=x1234\n"), &out, &bytes.Buffer{}, redactOptions{colour: true, output: "text"})
	if !errors.Is(err, errFindings) || !strings.Contains(out.String(), "pw="+hiddenColour+"REDACTED"+noColour) {
		t.Errorf("%q %v", out.String(), err)
	}
}

// TestRedactReadsLogsOfContainers: the messages of Docker's and of CRI's records are read, compressed or not,
// with their parts joined; a private key extends over the records of its stream.
func TestRedactReadsLogsOfContainers(t *testing.T) {
	const (
		body   = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
		docker = `{"log":"password=hunter2\n","stream":"stdout","time":"2026-03-01T12:00:00Z"}` + "\n" +
			`{"log":"-----BEGIN PRIVATE KEY-----\n","stream":"stdout","time":"2026-03-01T12:00:00Z"}` + "\n" +
			`{"log":"all is well\n","stream":"stderr","time":"2026-03-01T12:00:00Z"}` + "\n" +
			`{"log":"` + body + `\n","stream":"stdout","time":"2026-03-01T12:00:00Z"}` + "\n"
		cri = "2026-03-01T12:00:00.1Z stdout F password=hunter2\n2026-03-01T12:00:00.1Z stdout F -----BEGIN PRIVATE KEY-----\n" +
			"2026-03-01T12:00:00.1Z stderr F all is well\n2026-03-01T12:00:00.1Z stdout F " + body + "\n"
		parts = "2026-03-01T12:00:00.1Z stdout P pass\n2026-03-01T12:00:00.1Z stderr F word\n2026-03-01T12:00:00.1Z stdout F word=hunter2\n"
	)
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	_, _ = writer.Write([]byte(docker))
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	const want = "     1  name:10           password=REDACTED\n     4  private-key:1     REDACTED\n"
	check := func(input, want string) {
		t.Helper()
		if out, _, err := redactText(t, input); out != want || exitCode(err) != 1 {
			t.Errorf("%q %v, want %q", out, err, want)
		}
	}
	check(docker, want)
	check(cri, want)
	check(compressed.String(), want)
	check(parts, "     3  name:10           password=REDACTED\n")
	check("2026-03-01T12:00:00.1Z stdout P password=hunter2\n", "     1  name:10           password=REDACTED\n")
	if _, _, err := redactText(t, compressed.String()[:20]); err == nil || exitCode(err) != 2 {
		t.Errorf("a damaged archive: %v", err)
	}
}
