package sessions

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/config"
)

// TestCheckReportsEveryProblem: the defaults have none, and each value outside of its range has one that names its key.
func TestCheckReportsEveryProblem(t *testing.T) {
	if problems := Default().Check(); len(problems) > 0 {
		t.Errorf("the defaults: %v", problems)
	}
	for key, change := range map[string]func(*Config){
		"max_sessions":                 func(c *Config) { c.MaxSessions = 15 },
		"reassembly_bytes_per_session": func(c *Config) { c.ReassemblyBytesPerSession = 64*config.KiB - 1 },
		"reassembly_bytes":             func(c *Config) { c.ReassemblyBytes = 17 * config.GiB },
		"fragment_bytes":               func(c *Config) { c.FragmentBytes = 127 * config.KiB },
		"max_pending_events":           func(c *Config) { c.MaxPendingEvents = 0 },
		"tcp_idle_timeout":             func(c *Config) { c.TCPIdleTimeout = 8 * 24 * time.Hour },
		"syn_timeout":                  func(c *Config) { c.SYNTimeout = 2 * time.Hour },
		"udp_idle_timeout":             func(c *Config) { c.UDPIdleTimeout = time.Millisecond },
		"open_interval":                func(c *Config) { c.OpenInterval = -time.Second },
		"fragment_timeout":             func(c *Config) { c.FragmentTimeout = 3 * time.Minute },
		"close_linger":                 func(c *Config) { c.CloseLinger = 2 * time.Minute },
		"reorder_grace":                func(c *Config) { c.ReorderGrace, c.GapTimeout = 11*time.Second, 12*time.Second },
		"gap_timeout":                  func(c *Config) { c.GapTimeout = c.ReorderGrace - 1 },
		"nat_timeout":                  func(c *Config) { c.NATTimeout = 2 * time.Minute },
		"overlap_policy":               func(c *Config) { c.OverlapPolicy = "frist" },
	} {
		problems := configWith(change).Check()
		if len(problems) != 1 || !strings.Contains(problems[0].Key, key) {
			t.Errorf("%s: %v", key, problems)
		}
	}
}
