// Package clickhouse keeps events and alerts in ClickHouse: it creates the tables from pipeline.Fields,
// encodes events as columns, inserts them so that a repeat changes nothing, and answers what an engine must
// know when it takes a partition over.
//
// In: evaluated events and revisions of alerts, from the engine, whose Store interface *Store implements.
// Out: rows; for the engine the rows, batches and alerts that exist. Query runs SQL for people: `tidegate
// query` and the embedded store use it.
//
// A ColumnBlock holds events in ClickHouse's own columnar encoding from the first Append on: clickhouse-go's
// typed columns box every value, and its LowCardinality looks each one up in a map[any]int. The driver sends
// the encoded bytes as they are over HTTP (FORMAT Native). Over the native protocol it decodes them into its
// own columns, which is a copy. The embedded store is reached by HTTP, because a client that is killed there
// cannot take the server with it; over native TCP it did, once in 24 times.
//
// The files: clickhouse.go (configuration, connection), schema.go and migrate.go (tables), column_block.go,
// field_columns.go and columns.go (encoding), insert.go, dedup_queries.go, alerts.go and alert_fields.go,
// query.go (SQL over HTTP), errors.go.
package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/metrics"
)

// Config says where the store is and how long it keeps things.
type Config struct {
	Addr         []string  `yaml:"addr"`          // host:port of the native protocol; the first that answers is used
	HTTPAddr     string    `yaml:"http_addr"`     // host:port of the HTTP interface: for queries, and for inserts with protocol http
	Protocol     string    `yaml:"protocol"`      // native or http: what inserts and look-ups go by
	Database     string    `yaml:"database"`      // ours alone; it is made when it is missing
	Username     string    `yaml:"username"`      // may create the database and its tables
	Password     string    `yaml:"password"`      // or
	PasswordFile string    `yaml:"password_file"` // the file that holds it
	TLS          TLSConfig `yaml:"tls"`

	ReadUser         string `yaml:"read_user"`          // made by Migrate, reads our database only, with limits; "" makes none
	ReadPassword     string `yaml:"read_password"`      // or
	ReadPasswordFile string `yaml:"read_password_file"` // the file that holds it

	TTLDays      int           `yaml:"ttl_days"`       // events are dropped that long after they were taken up; 0 keeps them
	AlertTTLDays int           `yaml:"alert_ttl_days"` // the same for alerts
	Timeout      time.Duration `yaml:"timeout"`        // of a connection attempt
	Cluster      ClusterConfig `yaml:"cluster"`
}

// TLSConfig is how the connection is made safe.
type TLSConfig struct {
	Enabled      bool `yaml:"enabled"`
	pipeline.TLS `yaml:",inline"`
}

// ClusterConfig makes the tables replicated ones.
type ClusterConfig struct {
	Name string `yaml:"name"` // of the cluster in the server's remote_servers; "" is one server
}

// Default is a store on this machine.
func Default() Config {
	return Config{
		Addr: []string{"127.0.0.1:9000"}, HTTPAddr: "127.0.0.1:8123", Protocol: "native", Database: "tidegate",
		Username: "default", TTLDays: 30, AlertTTLDays: 365, Timeout: 10 * time.Second,
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Check names every key that cannot be right.
func (c Config) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("clickhouse.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	switch c.Protocol {
	case "native":
		if len(c.Addr) == 0 {
			bad("addr", "no address; host:port of the native protocol is needed, 9000 by default")
		}
	case "http":
		if c.HTTPAddr == "" {
			bad("http_addr", "no address; host:port of the HTTP interface is needed, 8123 by default")
		}
	default:
		bad("protocol", "%q is neither native nor http", c.Protocol)
	}
	for _, a := range c.Addr {
		if _, _, err := net.SplitHostPort(a); err != nil {
			bad("addr", "%q is not host:port", a)
		}
	}
	if c.HTTPAddr != "" {
		if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
			bad("http_addr", "%q is not host:port", c.HTTPAddr)
		}
	}
	if !identifier.MatchString(c.Database) || c.Database == "default" || c.Database == "system" {
		bad("database", "%q: letters, digits and underscores are meant, and a database of our own", c.Database)
	}
	if c.Username == "" {
		bad("username", "is empty")
	}
	if c.ReadUser != "" && !identifier.MatchString(c.ReadUser) {
		bad("read_user", "%q: letters, digits and underscores are meant", c.ReadUser)
	}
	if c.Password != "" && c.PasswordFile != "" {
		bad("password_file", "give password or password_file, not both")
	}
	if c.Cluster.Name != "" && !identifier.MatchString(c.Cluster.Name) {
		bad("cluster.name", "%q: letters, digits and underscores are meant", c.Cluster.Name)
	}
	if c.TTLDays < 0 || c.TTLDays > 36500 {
		bad("ttl_days", "%d: 0 (for ever) to 36500 is meant", c.TTLDays)
	}
	if c.AlertTTLDays < 0 || c.AlertTTLDays > 36500 {
		bad("alert_ttl_days", "%d: 0 (for ever) to 36500 is meant", c.AlertTTLDays)
	}
	for _, err := range c.TLS.Check() {
		key, problem, _ := strings.Cut(err.Error(), ": ")
		bad("tls."+key, "%s", problem)
	}
	return errs
}

// Store is a connection to ClickHouse, safe for concurrent use.
type Store struct {
	cfg     Config
	useHTTP bool
	driver  driver.Conn
	log     *slog.Logger
	metrics storeMetrics
}

type storeMetrics struct {
	rows, bytes prometheus.Counter
	inserts     *prometheus.CounterVec
	seconds     prometheus.Histogram
}

func newStoreMetrics(reg prometheus.Registerer) storeMetrics {
	factory := metrics.With(reg)
	return storeMetrics{
		rows: factory.Counter("tidegate_clickhouse_rows_total",
			"Rows of events that ClickHouse acknowledged, including those that it dropped because it knew their token."),
		bytes: factory.Counter("tidegate_clickhouse_bytes_total",
			"Bytes of the blocks of events that ClickHouse acknowledged, before compression."),
		inserts: factory.CounterVec("tidegate_clickhouse_inserts_total",
			"Inserts of events by result: ok, retriable (failed, will be repeated) or rejected (ClickHouse does not accept the rows).", "result"),
		seconds: factory.Histogram("tidegate_clickhouse_insert_seconds",
			"Seconds that a successful insert of events took.", prometheus.ExponentialBuckets(0.005, 2, 14)),
	}
}

// Open connects and logs in. Its error is one sentence that names the address. Open does not create the
// database; Migrate does.
func Open(ctx context.Context, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Store, error) {
	if errs := cfg.Check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	password, err := pipeline.Secret(cfg.Password, cfg.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.password_file: %w", err)
	}
	opt, err := driverOptions(cfg, password)
	if err != nil {
		return nil, err
	}
	conn, err := driver.Open(opt)
	if err != nil {
		return nil, describeError(err, cfg)
	}
	s := &Store{cfg: cfg, useHTTP: cfg.Protocol == "http", driver: conn, log: log}
	if err := conn.Ping(ctx); err != nil {
		conn.Close()
		return nil, describeError(err, cfg)
	}
	s.metrics = newStoreMetrics(reg)
	return s, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.driver.Close() }

// Config returns the configuration with which the store was opened.
func (s *Store) Config() Config { return s.cfg }

// driverOptions returns the options for the configured protocol. The native protocol is compressed unless the
// server is on this host.
func driverOptions(cfg Config, password string) (*driver.Options, error) {
	opt := &driver.Options{
		Addr: cfg.Addr, Auth: driver.Auth{Username: cfg.Username, Password: password},
		DialTimeout: cfg.Timeout, ReadTimeout: 5 * time.Minute,
		MaxOpenConns: 16, MaxIdleConns: 8,
		ClientInfo: driver.ClientInfo{Products: []struct{ Name, Version string }{{Name: "tidegate"}}},
	}
	if cfg.Protocol == "http" {
		opt.Protocol, opt.Addr = driver.HTTP, []string{cfg.HTTPAddr}
	} else if !allLoopback(cfg.Addr) {
		opt.Compression = &driver.Compression{Method: driver.CompressionLZ4}
	}
	if cfg.TLS.Enabled {
		var err error
		if opt.TLS, err = cfg.TLS.clientConfig(); err != nil {
			return nil, err
		}
	}
	return opt, nil
}

// allLoopback reports whether every address is one of this host.
func allLoopback(addrs []string) bool {
	for _, a := range addrs {
		host, _, _ := net.SplitHostPort(a)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// clientConfig returns the TLS configuration of a client.
func (t TLSConfig) clientConfig() (*tls.Config, error) {
	c, err := t.Config()
	if err != nil {
		return nil, fmt.Errorf("clickhouse.tls.%w", err)
	}
	return c, nil
}
