package ship

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tidegate/collector/logs"
	"tidegate/collector/logs/decode"
	"tidegate/pipeline"
)

// TestTheLongestLinesFitIntoABatch: with the default configuration, no line is too large for a batch, whatever
// redaction and the repair of UTF-8 make of it and however large the metadata of its container is.
func TestTheLongestLinesFitIntoABatch(t *testing.T) {
	folder := t.TempDir()
	container := &pipeline.Container{Id: strings.Repeat("c", 64), Name: strings.Repeat("x", maxContainer-200)}
	for i, part := range []string{"pw=1 ", "a\xff", "\xff ", "token=x&", "日", "x"} {
		path := filepath.Join(folder, strconv.Itoa(i)+".log")
		if err := os.WriteFile(path, []byte(strings.Repeat(part, 3_000_000/len(part))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := 0
		emit := func(event *pipeline.Event) {
			event.Container = container
			if err := newBatch().addEvent(event, int(Default().BatchBytes)); err != nil || !event.Log.Truncated {
				t.Errorf("%q: %v, truncated %v", part, err, event.Log.Truncated)
			}
			lines++
		}
		if err := logs.ReadFile(t.Context(), logs.Default(), path, decode.Text, pipeline.ID{1}, emit); err != nil || lines == 0 {
			t.Errorf("%q: %d lines, %v", part, lines, err)
		}
	}
}
