package kafka

import (
	"regexp"
	"slices"
	"time"

	"tidegate/pipeline/config"
)

// Config holds the addresses of Kafka, and how topics are named and created.
type Config struct {
	// Addresses, host:port, of some of the brokers. The others are discovered.
	Brokers []string `yaml:"brokers"`
	// Prefix of the names of topics and consumer groups.
	TopicPrefix string `yaml:"topic_prefix"`
	// Number of partitions of the events topic, if tidegate creates it.
	Partitions int `yaml:"partitions"`
	// Replication factor of topics that tidegate creates; -1: the broker's default.
	ReplicationFactor int `yaml:"replication_factor"`
	// How partitions are assigned: `group`, by a consumer group, or `static`, all of them to this process.
	Assign string `yaml:"assign"`
	// Timeout of one request.
	Timeout time.Duration `yaml:"timeout"`

	TLS  config.OptionalTLS `yaml:"tls"`
	SASL SASL               `yaml:"sasl"`
}

// SASL holds the mechanism and the credentials with which the client authenticates itself.
type SASL struct {
	// Mechanism: `plain`, `scram-sha-256` or `scram-sha-512`; empty: no authentication.
	Mechanism string `yaml:"mechanism"`
	// User name.
	Username string `yaml:"username"`
	// Password; or `password_file`.
	Password string `yaml:"password"`
	// File whose first line is the password. It is read at each start.
	PasswordFile string `yaml:"password_file"`
}

// The values of Config.Assign.
const (
	AssignGroup  = "group"
	AssignStatic = "static"
)

// The values of SASL.Mechanism.
const (
	plainMechanism = "plain"
	scram256       = "scram-sha-256"
	scram512       = "scram-sha-512"
)

// Default returns the configuration for one broker on this machine, without encryption.
func Default() Config {
	return Config{
		Brokers:           []string{"127.0.0.1:9092"},
		TopicPrefix:       "tidegate",
		Partitions:        4,
		ReplicationFactor: 1,
		Assign:            AssignGroup,
		Timeout:           10 * time.Second,
	}
}

// topicPrefix is shorter than Kafka's limit of 249 characters, because words are appended to it.
var topicPrefix = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Require(len(c.Brokers) > 0, "brokers", "is empty; at least one host:port is needed"),
		config.Each("brokers", c.Brokers, config.HostPort),
		config.Require(topicPrefix.MatchString(c.TopicPrefix) && c.TopicPrefix != "." && c.TopicPrefix != "..",
			"topic_prefix", "%q is not 1 to 200 of the characters a-z A-Z 0-9 . _ -", c.TopicPrefix),
		config.Range("partitions", c.Partitions, 1, maxPartitions),
		config.RangeOr("replication_factor", c.ReplicationFactor, -1, 1, 32),
		config.OneOf("assign", c.Assign, AssignGroup, AssignStatic),
		config.Range("timeout", c.Timeout, 100*time.Millisecond, 10*time.Minute),
		config.Under("tls", c.TLS.Check()),
		config.Under("sasl", c.SASL.check()),
	)
}

func (s SASL) check() []config.Problem {
	if s.Mechanism == "" {
		return config.Require(s == SASL{}, "mechanism", "is empty, but other keys of sasl are set")
	}
	return slices.Concat(
		config.OneOf("mechanism", s.Mechanism, plainMechanism, scram256, scram512),
		config.NotEmpty("username", s.Username),
		config.Require(s.Password != "" || s.PasswordFile != "", "password", "is empty; set password or password_file"),
		config.Exclusive("password", s.Password, "password_file", s.PasswordFile),
		config.File("password_file", s.PasswordFile),
	)
}
