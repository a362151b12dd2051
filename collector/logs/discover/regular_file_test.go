package discover

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLinksLeadToTheirFiles: what is read is a regular file, under the name that it has without links.
func TestLinksLeadToTheirFiles(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": "file", "second": "link", "broken": "missing", "folder": ".", "loop": "loop"} {
		if err := os.Symlink(target, path(name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"file": "file", "link": "file", "second": "file"} {
		if got, ok := regularFile(path(name)); !ok || got != path(want) {
			t.Errorf("%s leads to %s, %t; want %s", name, got, ok, want)
		}
	}
	for _, name := range []string{"broken", "folder", "loop", "missing", ""} {
		if got, ok := regularFile(path(name)); ok {
			t.Errorf("%q leads to the file %s", name, got)
		}
	}
}
