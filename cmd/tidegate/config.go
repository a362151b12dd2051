package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"tidegate/collector/capture"
	"tidegate/collector/containers"
	"tidegate/collector/logs"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/detectors/rules"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/config"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/protocols"
)

// Config is the configuration file. Every component has a section of its own, with defaults that run; the
// file is decoded over them.
type Config struct {
	// Folder of everything that outlives the process: identity, journal, spool, and the data of the embedded
	// broker and store.
	DataDir string `yaml:"data_dir"`
	// `host.name` of every event; empty: the name of the machine.
	Host string `yaml:"host"`
	// `orchestrator.cluster.name` of every event.
	Cluster string `yaml:"cluster"`

	Metrics    metricsConfig     `yaml:"metrics"`
	Kafka      kafka.Config      `yaml:"kafka"`      // no brokers: the embedded one
	ClickHouse clickhouse.Config `yaml:"clickhouse"` // no addresses: the embedded one
	Embedded   embeddedConfig    `yaml:"embedded"`

	Collector  collectorConfig   `yaml:"collector"`
	Capture    capture.Config    `yaml:"capture"`
	Sessions   sessions.Config   `yaml:"sessions"`
	Protocols  protocols.Config  `yaml:"protocols"`
	Containers containers.Config `yaml:"containers"`
	Logs       logs.Config       `yaml:"logs"`
	Shipper    ship.Config       `yaml:"shipper"`

	Rules rules.Config `yaml:"rules"`
	// Lists of malicious domains and addresses.
	Feeds      []feeds.Config    `yaml:"feeds"`
	Classifier classifier.Config `yaml:"classifier"`
	Engine     engine.Config     `yaml:"engine"`
	Alerts     alerts.Config     `yaml:"alerts"`
}

// metricsConfig configures the server of the metrics.
type metricsConfig struct {
	// Address, host:port, of /metrics, /healthz, /readyz and /debug/pprof; empty: none.
	Listen string `yaml:"listen"`
}

// collectorConfig configures the collector as a whole.
type collectorConfig struct {
	// Memory of the collector: packet rings, sessions, parsers, NAT mappings, containers, log lines, and events that wait
	// for Kafka. What remains after shipper.buffer_bytes, twice logs.buffer_bytes and 112MiB for the process is for traffic
	// and containers. When that is used up, the part that holds most gives up something: a session, a gap, a waiting
	// request. Each is counted.
	Memory config.Size `yaml:"memory"`
}

// Parts of collectorConfig.Memory.
const (
	// collectorProcess is for the code (28 MiB), stacks and state of some 2,000 logs (12 KiB each), metrics, and what the
	// garbage collector has not freed or cannot use: with less it takes half of the CPU time under a flood.
	collectorProcess = 112 * config.MiB
	minTrafficMemory = 32 * config.MiB
)

// trafficMemory returns the memory that is left for packet rings, sessions, parsers, NAT mappings and containers.
func (c *Config) trafficMemory() config.Size {
	left := c.Collector.Memory - collectorProcess - c.Shipper.BufferBytes
	if c.Logs.Enabled {
		left -= 2 * c.Logs.BufferBytes // read buffers, and lines that are not complete
	}
	return left
}

// embeddedConfig configures the broker and the store that `run` embeds.
type embeddedConfig struct {
	Broker embedded.BrokerConfig `yaml:"broker"`
	Store  embedded.StoreConfig  `yaml:"store"`
}

// dataDirVariable is the environment variable that replaces the default of data_dir.
const dataDirVariable = "TIDEGATE_DATA_DIR"

// defaultConfig returns the configuration of an empty file.
func defaultConfig() Config {
	dataDir := "/var/lib/tidegate"
	if dir := os.Getenv(dataDirVariable); dir != "" {
		dataDir = dir
	}
	cfg := Config{
		DataDir:    dataDir,
		Metrics:    metricsConfig{Listen: "127.0.0.1:9464"},
		Kafka:      kafka.Default(),
		ClickHouse: clickhouse.Default(),
		Embedded:   embeddedConfig{embedded.DefaultBroker(), embedded.DefaultStore()},
		Collector:  collectorConfig{Memory: 256 * config.MiB},
		Capture:    capture.Default(),
		Sessions:   liveSessions(),
		Protocols:  protocols.Default(),
		Containers: containers.Default(),
		Logs:       logs.Default(),
		Shipper:    ship.Default(),
		Rules:      defaultRules(),
		Classifier: classifier.Default(),
		Engine:     engine.Default(),
		Alerts:     alerts.Default(),
	}
	// Without addresses the broker and the store are embedded.
	cfg.Kafka.Brokers, cfg.ClickHouse.Addr, cfg.ClickHouse.HTTPAddr = nil, nil, ""
	return cfg
}

// defaultConfigPath is the file that is read without --config, if it exists.
const defaultConfigPath = "/etc/tidegate/tidegate.yaml"

// loadConfig decodes the file at path over the defaults. If path is "", it decodes the file at
// defaultConfigPath, if there is one. override is applied after the file and before the checks, which are
// those of the roles. The error holds every problem, one a line.
func loadConfig(path string, roles roleSet, override func(*Config)) (Config, error) {
	cfg := defaultConfig()
	explicit := path != ""
	if !explicit {
		path = defaultConfigPath
	}
	text, err := readConfigFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		path = "configuration" // the name in error messages; text is empty
	case err != nil:
		return cfg, fmt.Errorf("read the configuration: %w", err)
	}

	doc := config.Parse(path, text)
	doc.Decode(&cfg)
	failed := doc.Err() != nil
	override(&cfg)
	problems := cfg.deriveAndCheck(roles)
	if failed {
		problems = doc.ProblemsOfNamedKeys(problems)
	}
	doc.AddProblems(problems)
	return cfg, doc.Err()
}

// readConfigFile reads the configuration. It may come through a pipe, as in --config <(envsubst <template.yaml).
func readConfigFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return config.ReadLimited(file, path)
}

// deriveAndCheck sets the fields that are derived from other sections and returns the problems of the sections
// that the roles use. All processes may have the same file: a collector needs neither a valid section of the
// engine nor the files that it names.
func (c *Config) deriveAndCheck(roles roleSet) []config.Problem {
	abs, err := filepath.Abs(c.DataDir)
	if err != nil {
		return config.Invalid("data_dir", "%w", err)
	}
	c.DataDir = abs
	if c.Host == "" {
		if c.Host, err = os.Hostname(); err != nil {
			return config.Invalid("host", "the machine has no name: %w", err)
		}
	}
	c.Embedded.Broker.Dir = filepath.Join(c.DataDir, "broker")
	c.Embedded.Store.Dir = filepath.Join(c.DataDir, "store")
	c.Shipper.StateDir, c.Shipper.Host, c.Shipper.Cluster = filepath.Join(c.DataDir, "collector"), c.Host, c.Cluster
	for i := range c.Feeds {
		if feed := &c.Feeds[i]; feed.URL != "" && feed.Path == "" {
			feed.Path = filepath.Join(c.DataDir, "feeds", url.PathEscape(feed.Name)+".feed")
		}
	}
	return slices.Concat(c.checkNamedServers(roles.named), c.check(roles.all))
}

// embeddedBroker reports whether Kafka is the embedded broker.
func (c *Config) embeddedBroker() bool { return len(c.Kafka.Brokers) == 0 }

// embeddedStore reports whether ClickHouse is the embedded store.
func (c *Config) embeddedStore() bool {
	return len(c.ClickHouse.Addr) == 0 && c.ClickHouse.HTTPAddr == ""
}

// eventRoom is the part of a batch that is left for the fields of a log line besides its text: its container's
// metadata above all.
const eventRoom = 64 * config.KiB

// check returns the problems of the sections that the roles use, and those between sections.
func (c *Config) check(roles role) []config.Problem {
	var problems []config.Problem
	if c.Metrics.Listen != "" {
		problems = config.ListenAddress("metrics.listen", c.Metrics.Listen)
	}
	if roles&^roleStore != 0 {
		problems = append(problems, c.checkKafka()...)
	}
	if roles&(roleStore|roleEngine) != 0 {
		problems = append(problems, c.checkClickHouse()...)
	}
	if roles&roleCollector != 0 {
		problems = append(problems, c.checkCollector()...)
	}
	if roles&roleEngine != 0 {
		problems = slices.Concat(problems,
			config.Each("feeds", c.Feeds, func(key string, feed feeds.Config) []config.Problem {
				return config.Under(key, feed.Check())
			}),
			config.Under("rules", c.Rules.Check()),
			config.Under("classifier", c.Classifier.Check()),
			config.Under("engine", c.Engine.Check()),
		)
	}
	if roles&rolePublisher != 0 {
		problems = append(problems, config.Under("alerts", c.Alerts.Check())...)
	}
	return problems
}

// maxName bounds the names of the host and the cluster: an engine refuses messages that are too large with the names in
// each of their events.
const maxName = 255

// checkCollector returns the problems of the sections of the collector.
func (c *Config) checkCollector() []config.Problem {
	problems := slices.Concat(
		config.Require(len(c.Host) <= maxName, "host", "has %d bytes, at most %d are allowed", len(c.Host), maxName),
		config.Require(len(c.Cluster) <= maxName, "cluster", "has %d bytes, at most %d are allowed", len(c.Cluster), maxName),
		config.Under("capture", c.Capture.Check()),
		config.Under("sessions", c.Sessions.Check()),
		config.Under("protocols", c.Protocols.Check()),
		config.Under("containers", c.Containers.Check()),
		config.Under("logs", c.Logs.Check()),
		config.Under("shipper", c.Shipper.Check()),
	)
	problems = append(problems, config.Require(c.trafficMemory() >= minTrafficMemory, "collector.memory",
		"%s leave less than %s for traffic, besides twice logs.buffer_bytes, shipper.buffer_bytes and %s for the process",
		c.Collector.Memory, minTrafficMemory, collectorProcess)...)
	if c.Logs.Enabled {
		problems = append(problems, config.Require(c.Logs.MaxLineBytes+eventRoom <= c.Shipper.BatchBytes, "logs.max_line_bytes",
			"%s and %s for the rest of an event are more than shipper.batch_bytes, %s: longer lines would be dropped instead of shortened",
			c.Logs.MaxLineBytes, eventRoom, c.Shipper.BatchBytes)...)
	}
	return problems
}

// checkNamedServers returns a problem for an embedded server that --only names while the configuration has the
// address of another one: the process would start and not serve anything.
func (c *Config) checkNamedServers(named role) []config.Problem {
	const form = "is set, so `--only %s` has no %s to run: remove the key, or %s from --only"
	storeKey := "clickhouse.addr"
	if len(c.ClickHouse.Addr) == 0 {
		storeKey = "clickhouse.http_addr"
	}
	return slices.Concat(
		config.Require(named&roleBroker == 0 || c.embeddedBroker(), "kafka.brokers", form,
			"broker", "embedded broker", "broker"),
		config.Require(named&roleStore == 0 || c.embeddedStore(), storeKey, form, "store", "embedded store", "store"),
	)
}

// checkKafka returns the problems of the broker that is used, embedded or not.
func (c *Config) checkKafka() []config.Problem {
	if c.embeddedBroker() {
		return config.Under("embedded.broker", c.Embedded.Broker.Check())
	}
	return config.Under("kafka", c.Kafka.Check())
}

// checkClickHouse returns the problems of the store that is used, embedded or not.
func (c *Config) checkClickHouse() []config.Problem {
	if !c.embeddedStore() {
		return config.Under("clickhouse", c.ClickHouse.Check())
	}
	// The retention times of the section clickhouse also apply to the embedded store, so its keys are checked
	// as if it were the address of that store.
	retention := c.ClickHouse
	retention.Protocol, retention.HTTPAddr = "http", "127.0.0.1:8123"
	return slices.Concat(
		config.Under("embedded.store", c.Embedded.Store.Check()),
		config.Under("clickhouse", retention.Check()),
	)
}

// liveSessions returns the defaults of the sessions of a live capture. Those of a capture file have no events while
// they are open.
func liveSessions() sessions.Config {
	cfg := sessions.Default()
	cfg.OpenInterval = time.Minute
	return cfg
}
