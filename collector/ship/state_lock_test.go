package ship

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestStateFolderHasOneCollector: a second one is refused, and so is a folder that cannot be locked.
func TestStateFolderHasOneCollector(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockState(dir)
	if err != nil || lock == nil {
		t.Fatalf("%v, %v", lock, err)
	}
	if second, err := lockState(dir); err == nil || second != nil || !strings.Contains(err.Error(), "in use by another collector") {
		t.Errorf("a second lock: %v, %v", second, err)
	}
	if missing, err := lockState(filepath.Join(dir, "missing")); err == nil {
		t.Errorf("the lock of a missing folder: %v, %v", missing, err)
	}
	if first, second := newEpoch(), newEpoch(); first == second {
		t.Errorf("two epochs are %d", first)
	}
}
