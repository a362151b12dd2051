package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLineThatIsTooLongHidesNoEvent: replay names the file, the line and the limit, and reads the lines behind it.
func TestLineThatIsTooLongHidesNoEvent(t *testing.T) {
	line := func(message string) string {
		return `{"@timestamp":"2026-11-28T04:21:06Z","event":{"id":"69f09bd1-cc0c-1d67-223f-f852b9bce1a0","dataset":"log"},"message":"` + message + `"}`
	}
	frame := len(line(""))
	check := func(name, content, wantError string, wantMessages ...string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "events.jsonl")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := (&replay{printEvents: true}).readFiles(t.Context(), []string{path}, &out, io.Discard)
		if wantError == "" && err != nil || wantError != "" && (err == nil || !strings.Contains(err.Error(), path+wantError)) {
			t.Errorf("%s: error %v, want %q", name, err, wantError)
		}
		for _, message := range wantMessages {
			if !strings.Contains(out.String(), `"message":"`+message) {
				t.Errorf("%s: no event %q", name, message)
			}
		}
		if got := strings.Count(out.String(), "\n"); got != len(wantMessages) {
			t.Errorf("%s: %d events, want %d", name, got, len(wantMessages))
		}
	}
	const tooLong = ":2: the line is longer than 16 MiB, the limit for an event"
	long := strings.Repeat("x", maxEventLine)
	check("between others", line("one")+"\n"+line(long)+"\n"+line("three"), tooLong, "one", "three")
	check("the last one", line("one")+"\r\n"+line(long), tooLong, "one")
	check("as long as it may be", line("one")+"\n\n"+line(long[:maxEventLine-frame-1])+"\n"+line("three")+"\n", "", "one", "xxx", "three")
	check("no event", line("one")+"\n{}\n"+line("three")+"\n", ":2: ", "one", "three")

	var zipped bytes.Buffer
	writer := gzip.NewWriter(&zipped)
	_, _ = writer.Write([]byte(line("one") + "\n" + line(long) + "\n" + line("three") + "\n"))
	_ = writer.Close()
	check("compressed", zipped.String(), tooLong, "one", "three")
	check("compressed and cut", zipped.String()[:zipped.Len()-9], ": line 4: unexpected EOF", "one", "three")
}
