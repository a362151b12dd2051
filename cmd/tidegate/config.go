package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml/parser"

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
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/protocols"
)

// Config is the configuration file. Every part has its own, with defaults that run; the file is decoded over them.
type Config struct {
	State   string `yaml:"state"`   // folder of everything that outlives the process
	Host    string `yaml:"host"`    // host.name; "" is the machine's
	Cluster string `yaml:"cluster"` // orchestrator.cluster.name
	Listen  string `yaml:"listen"`  // address of /metrics, /healthz, /readyz and /debug/pprof; "" is none

	Kafka      kafka.Config      `yaml:"kafka"`      // no brokers: the embedded one
	ClickHouse clickhouse.Config `yaml:"clickhouse"` // no addresses: the embedded one
	Embedded   embeddedConfig    `yaml:"embedded"`

	Capture    capture.Config    `yaml:"capture"`
	Sessions   sessions.Config   `yaml:"sessions"`
	Protocols  protocols.Config  `yaml:"protocols"`
	Containers containers.Config `yaml:"containers"`
	Logs       logs.Config       `yaml:"logs"`
	Ship       ship.Config       `yaml:"ship"`

	Rules      rules.Config      `yaml:"rules"`
	Feeds      []feeds.Config    `yaml:"feeds"`
	Classifier classifier.Config `yaml:"classifier"`
	Engine     engine.Config     `yaml:"engine"`
	Alerts     alerts.Config     `yaml:"alerts"`
}

type embeddedConfig struct {
	Broker embedded.BrokerConfig `yaml:"broker"`
	Store  embedded.StoreConfig  `yaml:"store"`
}

func defaultConfig() Config {
	state := "/var/lib/tidegate"
	if s := os.Getenv("TIDEGATE_STATE"); s != "" {
		state = s
	}
	c := Config{
		State: state, Listen: "127.0.0.1:9464",
		Kafka: kafka.Default(), ClickHouse: clickhouse.Default(), Embedded: embeddedConfig{embedded.DefaultBroker(), embedded.DefaultStore()},
		Capture: capture.Default(), Sessions: sessions.Default(), Protocols: protocols.Default(), Containers: containers.Default(), Logs: logs.Default(), Ship: ship.Default(),
		Rules: rules.Default(), Classifier: classifier.Default(),
		Engine: engine.Default(), Alerts: alerts.Default(),
	}
	c.Kafka.Brokers, c.ClickHouse.Addr, c.ClickHouse.HTTPAddr = nil, nil, ""
	return c
}

// defaultConfigPath is read where no --config is given, if it is there.
const defaultConfigPath = "/etc/tidegate/tidegate.yaml"

// loadConfig reads path over the defaults, or, where path is "", the default path if there is one. override has the last word.
func loadConfig(path string, override func(*Config)) (Config, error) {
	c := defaultConfig()
	explicit := path != ""
	if !explicit {
		path = defaultConfigPath
	}
	b, err := os.ReadFile(path)
	keys := map[string]keyPlace{}
	switch {
	case errors.Is(err, fs.ErrNotExist) && !explicit:
		path = "configuration"
	case err != nil:
		return c, fmt.Errorf("read the configuration: %w", err)
	default:
		if err := decodeStrict(path, b, &c); err != nil {
			return c, err
		}
		if file, err := parser.ParseBytes(b, 0); err == nil {
			keys = keyPlaces(file)
		}
	}
	override(&c)
	var errs []error
	for _, err := range c.deriveAndCheck() {
		errs = append(errs, locate(path, keys, err))
	}
	return c, errors.Join(errs...)
}

// deriveAndCheck derives what one part takes from another and checks all of it. Every error begins with the key that is wrong.
func (c *Config) deriveAndCheck() []error {
	abs, err := filepath.Abs(c.State)
	if err != nil {
		return []error{fmt.Errorf("state: %w", err)}
	}
	c.State = abs
	if c.Host == "" {
		if c.Host, err = os.Hostname(); err != nil {
			return []error{fmt.Errorf("host: the machine has no name: %w", err)}
		}
	}
	c.Embedded.Broker.Dir = filepath.Join(c.State, "broker")
	c.Embedded.Store.Dir = filepath.Join(c.State, "store")
	c.Ship.StateDir, c.Ship.Host, c.Ship.Cluster = filepath.Join(c.State, "collector"), c.Host, c.Cluster
	return c.check()
}

// embeddedBroker tells whether Kafka is ours.
func (c *Config) embeddedBroker() bool { return len(c.Kafka.Brokers) == 0 }

// embeddedStore tells whether ClickHouse is ours.
func (c *Config) embeddedStore() bool {
	return len(c.ClickHouse.Addr) == 0 && c.ClickHouse.HTTPAddr == ""
}

func (c *Config) check() []error {
	var errs []error
	add := func(part string, list []error) {
		for _, err := range list {
			if !strings.HasPrefix(err.Error(), part+".") { // most parts write their own name
				err = fmt.Errorf("%s.%w", part, err)
			}
			errs = append(errs, err)
		}
	}
	if c.embeddedBroker() {
		add("embedded.broker", c.Embedded.Broker.Check())
	} else {
		add("kafka", c.Kafka.Check())
	}
	if c.embeddedStore() {
		add("embedded.store", c.Embedded.Store.Check())
		kept := c.ClickHouse // how long things are kept counts there too
		kept.Protocol, kept.HTTPAddr = "http", "127.0.0.1:8123"
		add("clickhouse", kept.Check())
	} else {
		add("clickhouse", c.ClickHouse.Check())
	}
	add("capture", c.Capture.Check())
	add("sessions", c.Sessions.Check())
	add("protocols", c.Protocols.Check())
	add("containers", c.Containers.Check())
	add("logs", c.Logs.Check())
	add("ship", c.Ship.Check())
	for i, f := range c.Feeds {
		add(fmt.Sprintf("feeds[%d]", i), f.Check())
	}
	add("rules", c.Rules.Check())
	add("classifier", c.Classifier.Check())
	add("engine", c.Engine.Check())
	add("alerts", c.Alerts.Check())
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q is not host:port", c.Listen))
		}
	}
	return errs
}

// stopTimeout bounds an orderly stop.
const stopTimeout = 9 * time.Second
