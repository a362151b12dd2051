package collector

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tidegate/pipeline"
)

// TestIDIsCreatedOnce: concurrent first starts get the same ID, and a damaged file is an error.
func TestIDIsCreatedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var wg sync.WaitGroup
	ids := make([]pipeline.ID, 8)
	for i := range ids {
		wg.Go(func() {
			var err error
			if ids[i], err = LoadID(dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == (pipeline.ID{}) {
			t.Fatalf("ids %x", ids)
		}
	}
	for _, text := range []string{"", "12", strings.Repeat("z", 32), strings.Repeat("a", 34)} {
		if err := os.WriteFile(filepath.Join(dir, idFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := LoadID(dir); err == nil || !strings.Contains(err.Error(), idFile) {
			t.Errorf("%q: %x, %v", text, id, err)
		}
	}
}
