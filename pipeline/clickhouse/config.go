package clickhouse

import (
	"regexp"
	"slices"
	"time"

	"tidegate/pipeline/config"
)

// Config holds the address of the store, and how long it keeps events and alerts.
type Config struct {
	// Addresses of the native protocol, host:port. The first that answers is used.
	Addr []string `yaml:"addr"`
	// Address of the HTTP interface, host:port, for queries, and for inserts where protocol is http.
	HTTPAddr string `yaml:"http_addr"`
	// Protocol of inserts and of the engine's own queries: `native` or `http`.
	Protocol string `yaml:"protocol"`
	// Database that holds all tables, and nothing else. It is created if it does not exist.
	Database string `yaml:"database"`
	// User who may create the database and its tables.
	Username string `yaml:"username"`
	// Password of username; or `password_file`.
	Password string `yaml:"password"`
	// File whose first line is the password.
	PasswordFile string             `yaml:"password_file"`
	TLS          config.OptionalTLS `yaml:"tls"`

	// Read-only user with limits, whom the engine creates at its start; empty: none.
	ReadUser string `yaml:"read_user"`
	// Password of read_user; or `read_password_file`.
	ReadPassword string `yaml:"read_password"`
	// File whose first line is the password of read_user.
	ReadPasswordFile string `yaml:"read_password_file"`

	// Days after which events are deleted, counted from their insertion; 0: never.
	TTLDays int `yaml:"ttl_days"`
	// Days after which alerts are deleted; 0: never. Their older revisions are kept for 7 days.
	AlertTTLDays int `yaml:"alert_ttl_days"`
	// Timeout of one attempt to connect.
	Timeout time.Duration `yaml:"timeout"`

	Cluster ClusterConfig `yaml:"cluster"`
}

// ClusterConfig makes the tables replicated ones.
type ClusterConfig struct {
	// Name of the cluster in the server's remote_servers; empty: a single server.
	Name string `yaml:"name"`
}

// Default returns the configuration of a store on this machine.
func Default() Config {
	return Config{
		Addr:         []string{"127.0.0.1:9000"},
		HTTPAddr:     "127.0.0.1:8123",
		Protocol:     "native",
		Database:     "tidegate",
		Username:     "default",
		TTLDays:      30,
		AlertTTLDays: 365,
		Timeout:      10 * time.Second,
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

const identifierForm = "a name of letters, digits and underscores"

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	problems := slices.Concat(
		config.OneOf("protocol", c.Protocol, "native", "http"),
		config.Require(c.Protocol != "native" || len(c.Addr) > 0, "addr",
			"is empty; host:port of the native protocol is needed, 9000 by default"),
		config.Require(c.Protocol != "http" || c.HTTPAddr != "", "http_addr",
			"is empty; host:port of the HTTP interface is needed, 8123 by default"),
		config.Each("addr", c.Addr, config.HostPort),
		config.Match("database", c.Database, identifier, identifierForm),
		config.Require(c.Database != "default" && c.Database != "system", "database",
			"%q is not a database of tidegate's own", c.Database),
		config.NotEmpty("username", c.Username),
		config.Exclusive("password", c.Password, "password_file", c.PasswordFile),
		config.File("password_file", c.PasswordFile),
		config.File("read_password_file", c.ReadPasswordFile),
		config.Range("ttl_days", c.TTLDays, 0, 36500),
		config.Range("alert_ttl_days", c.AlertTTLDays, 0, 36500),
		config.Under("tls", c.TLS.Check()),
	)
	if c.HTTPAddr != "" {
		problems = append(problems, config.HostPort("http_addr", c.HTTPAddr)...)
	}
	if c.ReadUser != "" {
		problems = append(problems, config.Match("read_user", c.ReadUser, identifier, identifierForm)...)
	}
	if c.Cluster.Name != "" {
		problems = append(problems, config.Match("cluster.name", c.Cluster.Name, identifier, identifierForm)...)
	}
	return problems
}
