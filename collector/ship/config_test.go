package ship

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/config"
)

// TestDefaultsOfTheShipperAreThoseOfTheReference: docs/CONFIG.md has them.
func TestDefaultsOfTheShipperAreThoseOfTheReference(t *testing.T) {
	want := Config{
		BatchEvents: 2000, BatchBytes: 512 << 10, Linger: 150 * time.Millisecond, MaxInFlight: 4, BufferBytes: 48 << 20, SpoolBytes: 256 << 20,
		SpoolAfter: 2 * time.Second, ResumeTimeout: time.Minute,
	}
	if got := Default(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestCheckNamesEveryProblemOfTheShipper: the first and the last value of each range are allowed, those behind them are named.
func TestCheckNamesEveryProblemOfTheShipper(t *testing.T) {
	check := func(key string, set func(c *Config, n int64), values ...int64) {
		t.Helper()
		for i, value := range values {
			cfg := Default()
			set(&cfg, value)
			var keys []string
			for _, problem := range cfg.Check() {
				keys = append(keys, problem.Key)
			}
			want := ""
			if i%2 == 1 {
				want = key
			}
			if got := strings.Join(keys, " "); got != want {
				t.Errorf("%s %d: problems of %q, want %q", key, value, got, want)
			}
		}
	}
	check("batch_events", func(c *Config, n int64) { c.BatchEvents = int(n) }, 1, 0, 100_000, 100_001)
	check("batch_bytes", func(c *Config, n int64) { c.BatchBytes = config.Size(n) }, 4<<10, 4<<10-1, 1<<20, 1<<20+1)
	check("linger", func(c *Config, n int64) { c.Linger = time.Duration(n) }, 1e6, 1e6-1, 60e9, 60e9+1)
	check("max_in_flight", func(c *Config, n int64) { c.MaxInFlight = int(n) }, 1, 0, 64, 65)
	check("buffer_bytes", func(c *Config, n int64) { c.BufferBytes = config.Size(n) }, 2<<20, 2<<20-1, 1<<40, 1<<40+1) // four batches
	check("spool_bytes", func(c *Config, n int64) { c.SpoolBytes = config.Size(n) }, 0, 1, 2<<20, 2<<20-1, 1<<40, 1<<40+1)
	check("spool_after", func(c *Config, n int64) { c.SpoolAfter = time.Duration(n) }, 10e6, 10e6-1, 3600e9, 3600e9+1)
	check("resume_timeout", func(c *Config, n int64) { c.ResumeTimeout = time.Duration(n) }, 100e6, 100e6-1, 24*3600e9, 24*3600e9+1)
}
