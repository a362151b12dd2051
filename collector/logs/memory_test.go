package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"tidegate/collector/logs/logstest"
)

// TestWaitingLogsHoldNoCopiesOfTheirLines: logs whose lines wait, because Kafka is away, hold their read buffers, which
// are within their budget, and neither the events nor the buffers for redaction, also if the lines are long and escaped.
func TestWaitingLogsHoldNoCopiesOfTheirLines(t *testing.T) {
	const logs = 150
	dir, ship := t.TempDir(), logstest.NewShipper()
	cfg := configAt(t.TempDir())
	cfg.Files = []string{dir + "/*.log"}
	cfg.BufferBytes = 4 << 20
	line := append(bytes.Repeat([]byte(`\"pass\u0077ord=%41bc `), 4_000), '\n')
	for i := range logs {
		text := append([]byte(fmt.Sprintf("line of log %d, password=%d\n", i, i)), line...)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.log", i)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gate := make(chan struct{})
	waiting := make(chan struct{}, 10*logs)
	ship.Gate = func(string) <-chan struct{} {
		waiting <- struct{}{}
		return gate
	}
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC() // pools are emptied by the second one
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before := heap()
	stop := start(t, cfg, nil, ship)
	for range logs {
		<-waiting
	}
	// The first line of each has passed, and its second, long one waits.
	for range logs {
		gate <- struct{}{}
	}
	most := int64(0)
	for range 10 { // some wait at the gate, the others for a larger read buffer
		time.Sleep(50 * time.Millisecond)
		most = max(most, heap()-before)
	}
	t.Logf("%d logs that wait hold %d KiB each", logs, most/logs>>10)
	if most > 12<<20 {
		t.Errorf("they hold more than %d KiB each", 12<<10/logs)
	}
	close(gate)
	ship.Wait(t, 2*logs)
	stop()
	ship.Check(t)
}
