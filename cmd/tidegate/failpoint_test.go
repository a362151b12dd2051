package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestReleasedBinaryHasNoFailpoints searches the binary that the Makefile builds for the environment variable
// of the failpoints. The binary that the whole-program tests run must have the variable: otherwise the search
// would find it nowhere.
func TestReleasedBinaryHasNoFailpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two binaries")
	}
	variable := []byte("TIDEGATE_" + "FAILPOINT")
	contains := func(path string) bool {
		t.Helper()
		program, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(program, variable)
	}
	released := filepath.Join(t.TempDir(), "tidegate")
	if out, err := exec.Command("go", "build", "-trimpath", "-o", released, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	if contains(released) {
		t.Errorf("the released binary reads %s", variable)
	}
	if !contains(binary(t)) {
		t.Errorf("the binary of the tests does not read %s", variable)
	}
}
