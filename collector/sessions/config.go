package sessions

import (
	"slices"
	"time"

	"tidegate/pipeline/config"
)

// Config bounds the memory and the time-outs of a Table. Durations are measured in packet time.
type Config struct {
	// Maximum number of connections in the session table of a worker. Beyond it the least valuable of a few
	// candidates is evicted.
	MaxSessions int `yaml:"max_sessions"`
	// Maximum number of out-of-order bytes that wait in one session. It also bounds the copies of bytes that their
	// receiver has not acknowledged: a quarter of it for each direction. They are given up first.
	ReassemblyBytesPerSession config.Size `yaml:"reassembly_bytes_per_session"`
	// Maximum number of out-of-order bytes that wait in all sessions of a worker.
	ReassemblyBytes config.Size `yaml:"reassembly_bytes"`
	// Maximum number of bytes of IP fragments that wait in a worker.
	FragmentBytes config.Size `yaml:"fragment_bytes"`
	// Maximum number of events of a worker that wait until it is known whether their session is also seen on
	// a bridge.
	MaxPendingEvents int `yaml:"max_pending_events"`

	// Idle time after which a TCP connection counts as ended.
	TCPIdleTimeout time.Duration `yaml:"tcp_idle_timeout"`
	// Time after which a TCP connection that was never answered counts as ended.
	SYNTimeout time.Duration `yaml:"syn_timeout"`
	// Idle time after which an exchange of UDP datagrams counts as ended.
	UDPIdleTimeout time.Duration `yaml:"udp_idle_timeout"`
	// Interval of the events of an open session, which have the state `open` and its counts so far; 0: a session
	// has one event, at its end.
	OpenInterval time.Duration `yaml:"open_interval"`
	// How long an IP datagram waits for its missing fragments. Linux waits for 60 s with IPv6, 30 s with IPv4.
	FragmentTimeout time.Duration `yaml:"fragment_timeout"`
	// How long a closed TCP connection waits for late packets before its session event is made.
	CloseLinger time.Duration `yaml:"close_linger"`
	// How long bytes that the receiver has acknowledged may still be on their way to the capture.
	ReorderGrace time.Duration `yaml:"reorder_grace"`
	// How long bytes wait behind a gap that the receiver has not acknowledged.
	GapTimeout time.Duration `yaml:"gap_timeout"`
	// How long the events of a session wait for the NAT mapping of the connection tracker.
	NATTimeout time.Duration `yaml:"nat_timeout"`

	// Which bytes count where waiting TCP segments overlap: `first` or `last`.
	OverlapPolicy string `yaml:"overlap_policy"`
}

// Default returns a configuration that suits a busy host.
func Default() Config {
	return Config{
		MaxSessions:               64 << 10,
		ReassemblyBytesPerSession: 4 * config.MiB,
		ReassemblyBytes:           32 * config.MiB,
		FragmentBytes:             4 * config.MiB,
		MaxPendingEvents:          16 << 10,

		TCPIdleTimeout:  15 * time.Minute,
		SYNTimeout:      30 * time.Second,
		UDPIdleTimeout:  30 * time.Second,
		FragmentTimeout: time.Minute,
		CloseLinger:     time.Second,
		ReorderGrace:    10 * time.Millisecond,
		GapTimeout:      2 * time.Second,
		NATTimeout:      time.Second,

		OverlapPolicy: "first",
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Range("max_sessions", c.MaxSessions, 16, 16<<20),
		config.Range("reassembly_bytes_per_session", c.ReassemblyBytesPerSession, 64*config.KiB, config.GiB),
		config.Range("reassembly_bytes", c.ReassemblyBytes, 128*config.KiB, 16*config.GiB),
		config.Range("fragment_bytes", c.FragmentBytes, 128*config.KiB, config.GiB),
		config.Range("max_pending_events", c.MaxPendingEvents, 1, 1<<24),
		config.Range("tcp_idle_timeout", c.TCPIdleTimeout, time.Second, 7*24*time.Hour),
		config.Range("syn_timeout", c.SYNTimeout, time.Second, time.Hour),
		config.Range("udp_idle_timeout", c.UDPIdleTimeout, time.Second, time.Hour),
		config.Range("open_interval", c.OpenInterval, 0, 24*time.Hour),
		config.Range("fragment_timeout", c.FragmentTimeout, time.Second, 2*time.Minute),
		config.Range("close_linger", c.CloseLinger, 0, time.Minute),
		config.Range("reorder_grace", c.ReorderGrace, 10*time.Millisecond, 10*time.Second),
		config.Range("gap_timeout", c.GapTimeout, c.ReorderGrace, time.Minute),
		config.Range("nat_timeout", c.NATTimeout, 0, time.Minute),
		config.OneOf("overlap_policy", c.OverlapPolicy, "first", "last"),
	)
}
