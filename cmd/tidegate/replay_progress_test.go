package main

import (
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// TestReplayShowsProgress requires that a replay whose output is no event shows on a terminal which file it reads and
// how far it is, and removes the line at the end.
func TestReplayShowsProgress(t *testing.T) {
	var shown, stdout bytes.Buffer
	job := replay{progress: &terminal{out: &shown, interactive: true}}
	path := filepath.Join(repoRoot, "cmd/tidegate/demo/shop.pcap")
	if err := job.readFiles(t.Context(), []string{path}, &stdout, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := shown.String(); !strings.Contains(got, "shop.pcap · 0 packets · 0 events") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("shown: %q", got)
	}
	if strings.Contains(stdout.String(), " · ") {
		t.Errorf("the table has the line of progress: %q", stdout.String())
	}
}
