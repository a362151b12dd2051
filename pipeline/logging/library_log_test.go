package logging

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"
)

// TestLinesOfLibrariesAreThrottledAndCut: a peer decides how many there are and what they say.
func TestLinesOfLibrariesAreThrottledAndCut(t *testing.T) {
	var out bytes.Buffer
	library := log.New(LibraryWriter(slog.New(slog.NewTextHandler(&out, nil))), "", 0)
	for range 100 {
		library.Print("Unsolicited response \x1b[31m" + strings.Repeat("x", 4096))
	}
	if text := out.String(); strings.Count(text, "\n") != 1 || len(text) > 2*maxLibraryLine ||
		!strings.Contains(text, "level=WARN") || strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
}
