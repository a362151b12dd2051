package frame

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestCopyIsCompleteOrNone: what stands in for a second name where the file system has no hard links.
func TestCopyIsCompleteOrNone(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("unreadable"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "unreadable" {
		t.Errorf("the copy is %q, %v", got, err)
	}
	if err := os.WriteFile(from, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v", err)
	}
	if got, _ := os.ReadFile(to); string(got) != "unreadable" {
		t.Errorf("the copy became %q", got)
	}
	missing := filepath.Join(dir, "missing")
	if err := copyFile(missing, missing+".copy"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file that is missing: %v", err)
	}

	// A folder can be opened, and not be read.
	broken := filepath.Join(dir, "broken")
	if err := copyFile(dir, broken); err == nil {
		t.Error("a folder was copied")
	}
	if _, err := os.Stat(broken); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an incomplete copy stays: %v", err)
	}
	if _, err := SetAside(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file is set aside: %v", err)
	}
}
