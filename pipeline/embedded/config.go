package embedded

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"time"

	"tidegate/pipeline/config"
)

// BrokerConfig configures the embedded broker.
type BrokerConfig struct {
	Dir string `yaml:"-"` // its data

	// Address that the broker listens on: 127.0.0.1:port. Port 0: any free port.
	Addr string `yaml:"addr"`
	// Number of partitions of a topic that is created without a number.
	Partitions int `yaml:"partitions"`
	// Maximum size of the messages of all topics on disk. Beyond it the oldest messages are deleted.
	MaxBytes config.Size `yaml:"max_bytes"`
	// Age at which messages are deleted.
	Retention time.Duration `yaml:"retention"`
	// Time between two searches for messages to delete.
	RetentionCheckInterval time.Duration `yaml:"retention_check_interval"`
}

// DefaultBroker returns the configuration of a broker for a small host.
func DefaultBroker() BrokerConfig {
	return BrokerConfig{
		Addr:                   "127.0.0.1:19092",
		Partitions:             4,
		MaxBytes:               2 * config.GiB,
		Retention:              48 * time.Hour,
		RetentionCheckInterval: 5 * time.Second,
	}
}

// Check returns every problem of c.
func (c BrokerConfig) Check() []config.Problem {
	_, err := c.port()
	return slices.Concat(
		config.NotEmpty("dir", c.Dir),
		config.Require(err == nil, "addr",
			"%q is not 127.0.0.1:port; the embedded broker listens on loopback only", c.Addr),
		config.Range("partitions", c.Partitions, 1, 256),
		config.AtLeast("max_bytes", c.MaxBytes, config.Size(c.Partitions)*minSegment*4),
		config.AtLeast("retention", c.Retention, time.Minute),
		config.AtLeast("retention_check_interval", c.RetentionCheckInterval, time.Millisecond),
	)
}

func (c BrokerConfig) port() (int, error) {
	host, port, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return 0, err
	}
	if host != "127.0.0.1" && host != "localhost" {
		return 0, errors.New("not loopback")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return int(n), err
}

// minStoreMemory is the least memory of the store: the server takes 220 MiB of it, and inserts keep their half of the
// rest beside eight analysts (TestAnalystsLeaveMemoryForInserts).
const minStoreMemory = config.GiB

// StoreConfig configures the embedded ClickHouse.
type StoreConfig struct {
	Dir string `yaml:"-"` // its data, passwords and log

	// Path of libchdb.so; empty: where deploy/fetch-libchdb.sh puts it.
	Library string `yaml:"library"`
	// Path of the program tidegate-clickhouse, which loads the library; empty: beside the program tidegate.
	Program string `yaml:"program"`
	// Run the ClickHouse process where the kernel has no Landlock (Linux before 5.19, or switched off) or no seccomp
	// filters, with the one that it has. Whoever may query the store can then read every file that the process can
	// read (without Landlock), or send what it reads to any address (without seccomp). Without them and without this
	// setting the store is not started.
	AllowUnfenced bool `yaml:"allow_unfenced"`
	// User id of the ClickHouse process where tidegate runs as root; 0: that of tidegate.
	UID int `yaml:"uid"`
	// Port of the HTTP interface and of the SQL page /play, on 127.0.0.1. 0: any free port.
	HTTPPort int `yaml:"http_port"`
	// Port of the native protocol, on 127.0.0.1. 0: none; the engine and /play use HTTP
	// ([ADR 7](adr/0007-no-native-port-on-the-embedded-store.md)).
	TCPPort int `yaml:"tcp_port"`
	// Database that holds all tables. Its size counts against max_disk_bytes.
	Database string `yaml:"database"`
	// Maximum memory of the ClickHouse process, at least 1 GiB: with less, the queries of analysts keep out inserts.
	MaxMemoryBytes config.Size `yaml:"max_memory_bytes"`
	// Maximum size of the store on disk; 0: no limit. When the live data exceeds nine tenths of it, the oldest
	// events are deleted, about a twentieth at a time. The rest is for data that merges have just replaced. Queries
	// that do not fit into the memory may write another tenth of it for a while.
	MaxDiskBytes config.Size `yaml:"max_disk_bytes"`
	// Maximum size of the log file of the ClickHouse process. One older file of that size is kept.
	MaxLogBytes config.Size `yaml:"max_log_bytes"`
	// Time between two measurements of the store on disk.
	DiskCheckInterval time.Duration `yaml:"disk_check_interval"`
}

// DefaultStore returns the configuration of a store for a small host. It has no native port: that is for tools that
// have no HTTP (see ADR 7).
func DefaultStore() StoreConfig {
	return StoreConfig{
		UID:               60700, // of no system or user range
		HTTPPort:          18123,
		Database:          "tidegate",
		MaxMemoryBytes:    2 * config.GiB,
		MaxDiskBytes:      10 * config.GiB,
		MaxLogBytes:       8 * config.MiB,
		DiskCheckInterval: 30 * time.Second,
	}
}

// Check returns every problem of c.
func (c StoreConfig) Check() []config.Problem {
	return slices.Concat(
		config.NotEmpty("dir", c.Dir),
		config.Range("uid", c.UID, 0, 1<<31-1),
		config.Range("tcp_port", c.TCPPort, 0, 65535),
		config.Range("http_port", c.HTTPPort, 0, 65535),
		config.Require(c.TCPPort == 0 || c.TCPPort != c.HTTPPort, "http_port", "%d is also tcp_port", c.HTTPPort),
		config.AtLeast("max_memory_bytes", c.MaxMemoryBytes, minStoreMemory),
		config.AtLeastOr("max_disk_bytes", c.MaxDiskBytes, 0, 64*config.MiB),
		config.AtLeast("max_log_bytes", c.MaxLogBytes, 64*config.KiB),
		config.AtLeast("disk_check_interval", c.DiskCheckInterval, time.Millisecond),
	)
}
