package engine

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/alerts"
	"tidegate/pipeline/config"
)

// TestDefaultsOfTheEngineAreThoseOfTheReference: docs/CONFIG.md has them.
func TestDefaultsOfTheEngineAreThoseOfTheReference(t *testing.T) {
	want := Config{
		Shard: "0", Memory: 1 << 30, BlockRows: 100_000, BlockBytes: 64 << 20, Linger: 300 * time.Millisecond, PrefetchBytes: 32 << 20,
		CommitIdleAfter: time.Second, VerifyAfter: time.Minute, DedupLookback: 48 * time.Hour, MaxProducers: 65536,
		Grouping: alerts.GrouperConfig{Window: 5 * time.Minute, AllowedLateness: time.Hour, MaxOpen: 20000, MaxPerRule: 5000},
	}
	if got := Default(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestCheckNamesEveryProblemOfTheEngine: the first and the last value of each range are allowed, those behind them are named.
func TestCheckNamesEveryProblemOfTheEngine(t *testing.T) {
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
	shards := []string{"a", "", strings.Repeat("s", 64), strings.Repeat("s", 65), "~!", "a b", "a-b", "ä"}
	check("shard", func(c *Config, n int64) { c.Shard = shards[n] }, 0, 1, 2, 3, 4, 5, 6, 7)
	check("memory", func(c *Config, n int64) { c.Memory = config.Size(n) }, 256<<20, 256<<20-1, 1<<40, 1<<40+1)
	check("block_rows", func(c *Config, n int64) { c.BlockRows = int(n) }, 1, 0, 1_000_000, 1_000_001)
	check("block_bytes", func(c *Config, n int64) { c.BlockBytes = config.Size(n) }, 1<<20, 1<<20-1, 1<<30, 1<<30+1)
	check("linger", func(c *Config, n int64) { c.Linger = time.Duration(n) }, 1e6, 1e6-1, 60e9, 60e9+1)
	check("prefetch_bytes", func(c *Config, n int64) { c.PrefetchBytes = config.Size(n) }, 0, -1, 1<<30, 1<<30+1)
	check("commit_idle_after", func(c *Config, n int64) { c.CommitIdleAfter = time.Duration(n) }, 10e6, 10e6-1, 3600e9, 3600e9+1)
	check("verify_after", func(c *Config, n int64) { c.VerifyAfter = time.Duration(n) }, 1e6, 1e6-1, 3600e9, 3600e9+1)
	check("dedup_lookback", func(c *Config, n int64) { c.DedupLookback = time.Duration(n) }, 60e9, 60e9-1, 10*365*24*3600e9, 10*365*24*3600e9+1)
	check("max_producers", func(c *Config, n int64) { c.MaxProducers = int(n) }, 1, 0)
	check("grouping.max_open", func(c *Config, n int64) { c.Grouping.MaxOpen = int(n) }, 1, 0)

	if _, err := New(Config{}, Deps{}, discardLog, nil); err == nil || !strings.HasPrefix(err.Error(), "engine.shard: ") {
		t.Errorf("an engine without a configuration: %v", err)
	}
}
