package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/collector/logs/logstest"
)

// TestStopReadsWhatIsUnlinked: a removed file cannot be read after a restart, so it is read to its end before
// the collector stops.
func TestStopReadsWhatIsUnlinked(t *testing.T) {
	cfg, ship := Default(), logstest.NewShipper()
	cfg.DockerDataRoot, cfg.DrainTimeout = t.TempDir(), time.Minute
	id := strings.Repeat("ab", 32)
	dir := filepath.Join(cfg.DockerDataRoot, "containers", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const lines = 100_000
	var out strings.Builder
	for i := range lines {
		fmt.Fprintf(&out, `{"log":"line %d\n","stream":"stdout","time":"2026-01-02T03:04:05.%09dZ"}`+"\n", i, i)
	}
	path := filepath.Join(dir, id+"-json.log")
	if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	open := make(chan struct{})
	ship.Gate = func(string) <-chan struct{} { return open }
	stop := start(t, cfg, nil, ship)
	for ship.Opened() == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	close(open)
	stop()
	ship.Check(t)
	if count := ship.Count(); count != lines {
		t.Errorf("%d lines came, want %d", count, lines)
	}
}
