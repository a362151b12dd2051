package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTruncatedListIsAnError: half of a list would train a model too, and nobody would notice.
func TestTruncatedListIsAnError(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, cut int) {
		t.Helper()
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(text))
		_ = z.Close()
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes()[:b.Len()-cut], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		samples, sums, err := readSamples(dir)
		if want == "" && (err != nil || len(samples) != 2 || len(sums) != 2) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %d samples, %v; want %q", len(samples), err, want)
		}
	}
	write("dga.csv.gz", "domain,family\nx8kq2zv7wj1p.net,random\n", 0)
	write("benign.txt.gz", "wikipedia.org\nWIKIPEDIA.org\nshort.de\n", 0)
	check("")
	write("benign.txt.gz", "wikipedia.org\n", 8)
	check("read benign.txt.gz")
	write("benign.txt.gz", "wikipedia.org\n"+strings.Repeat("x", 1<<17)+"\n", 0)
	check("read benign.txt.gz")
}
