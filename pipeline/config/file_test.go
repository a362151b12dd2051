package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml/lexer"
)

// TestOnlyRegularFilesAreOpened: what has no end, or waits for a writer, is an error.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	dir := t.TempDir()
	fifo, file, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(
		syscall.Mkfifo(fifo, 0o600), os.WriteFile(file, []byte("text"), 0o600), os.Symlink("/dev/zero", link),
		os.WriteFile(filepath.Join(dir, "large"), make([]byte, MaxFileBytes+1), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{fifo, link, dir} {
		if _, err := ReadRegular(name); !errors.Is(err, errNotRegular) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want an error with the path", name, err)
		}
	}
	if data, err := ReadRegular(file); err != nil || string(data) != "text" {
		t.Errorf("a file: %q, %v", data, err)
	}
	if _, err := ReadRegular(filepath.Join(dir, "large")); err == nil {
		t.Error("a file beyond MaxFileBytes was read")
	}

	names := []string{}
	err := fs.WalkDir(RegularFS(dir), ".", func(name string, _ fs.DirEntry, err error) error {
		names = append(names, name)
		return err
	})
	if err != nil || strings.Join(names, " ") != ". fifo file large link" {
		t.Errorf("files %q, %v", names, err)
	}
	if _, err := fs.ReadFile(RegularFS(dir), "fifo"); !errors.Is(err, errNotRegular) {
		t.Errorf("a FIFO of a folder: %v", err)
	}
	if _, err := fs.ReadFile(RegularFS(dir), "../file"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a path out of the folder: %v", err)
	}
}

// TestKeysOfAMappingAreBounded: the parser's time is quadratic in them.
func TestKeysOfAMappingAreBounded(t *testing.T) {
	many := strings.Repeat("k: 1\n", maxKeys)
	for _, test := range []struct {
		name, text string
		refused    bool
	}{
		{"too many", many + "k: 1\n", true},
		{"too many in an item", "a:\n  - b:\n      c: 1\n" + strings.Repeat("    k: 1\n", maxKeys), true},
		{"items", "a:\n" + strings.Repeat("  - k: 1\n    l: 2\n", maxKeys), false},
		{"items that are not indented", "a:\n" + strings.Repeat("- k: 1\n  l:\n    m: 2\n", maxKeys), false},
	} {
		document := &Document{File: "f", data: []byte(test.text)}
		if accepted := document.checkTokens(lexer.Tokenize(test.text)); accepted == test.refused {
			t.Errorf("%s: accepted %v, %v", test.name, accepted, document.Err())
		}
	}
}
