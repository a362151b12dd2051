package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTruncatedListIsAnError: a model could be trained with half of a list, and the loss would go unnoticed.
func TestTruncatedListIsAnError(t *testing.T) {
	dir := t.TempDir()
	// write writes a compressed file without its last bytes.
	write := func(name, text string, cut int) {
		t.Helper()
		var compressed bytes.Buffer
		writer := gzip.NewWriter(&compressed)
		_, _ = writer.Write([]byte(text))
		_ = writer.Close()
		if err := os.WriteFile(filepath.Join(dir, name), compressed.Bytes()[:compressed.Len()-cut], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		samples, sums, err := readSamples(dir, []byte("# a comment\ncrwdcntrl.net\nx8kq2zv7wj1p.cloudfront.net\n"))
		read := err == nil && len(samples) == 3 && len(sums) == 3
		failed := err != nil && strings.Contains(err.Error(), want)
		if want == "" && !read || want != "" && !failed {
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
