package kafka

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline"
)

// Config says where Kafka is and how to speak to it.
type Config struct {
	Brokers           []string      `yaml:"brokers"`            // host:port of some of the brokers; the rest is learnt from them
	Topic             string        `yaml:"topic"`              // what the names of our topics begin with
	Partitions        int           `yaml:"partitions"`         // of the events topic, where it is created by us
	ReplicationFactor int           `yaml:"replication_factor"` // of topics that are created by us; -1: the broker's default
	Assign            string        `yaml:"assign"`             // group: partitions are shared out by a consumer group; static: all are ours
	Timeout           time.Duration `yaml:"timeout"`            // of one request
	TLS               TLS           `yaml:"tls"`
	SASL              SASL          `yaml:"sasl"`
}

// TLS is how connections are encrypted and who is believed.
type TLS struct {
	Enabled      bool `yaml:"enabled"`
	pipeline.TLS `yaml:",inline"`
}

// SASL is how we say who we are.
type SASL struct {
	Mechanism    string `yaml:"mechanism"` // "", plain, scram-sha-256 or scram-sha-512
	Username     string `yaml:"username"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"` // its first line; read again at each start
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

// Default is one broker on this machine, without encryption.
func Default() Config {
	return Config{
		Brokers:           []string{"127.0.0.1:9092"},
		Topic:             "tidegate",
		Partitions:        4,
		ReplicationFactor: 1,
		Assign:            AssignGroup,
		Timeout:           10 * time.Second,
	}
}

// Check reports every problem of c.
func (c Config) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("kafka.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if len(c.Brokers) == 0 {
		bad("brokers", "is empty, at least one host:port is needed")
	}
	for _, b := range c.Brokers {
		if err := checkAddress(b); err != nil {
			bad("brokers", "%q: %v", b, err)
		}
	}
	if !validTopic(c.Topic) {
		bad("topic", "%q is not 1 to 200 of the characters a-z A-Z 0-9 . _ -", c.Topic)
	}
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		bad("partitions", "%d is not between 1 and %d", c.Partitions, maxPartitions)
	}
	if c.ReplicationFactor != -1 && (c.ReplicationFactor < 1 || c.ReplicationFactor > 32) {
		bad("replication_factor", "%d is neither -1 nor between 1 and 32", c.ReplicationFactor)
	}
	if c.Assign != AssignGroup && c.Assign != AssignStatic {
		bad("assign", "%q is neither group nor static", c.Assign)
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > 10*time.Minute {
		bad("timeout", "%s is not between 100ms and 10m", c.Timeout)
	}
	c.TLS.check(bad)
	c.SASL.check(bad)
	return errs
}

func (t TLS) check(bad func(key, format string, args ...any)) {
	for _, err := range t.Check() {
		key, problem, _ := strings.Cut(err.Error(), ": ")
		bad("tls."+key, "%s", problem)
	}
	if !t.Enabled && (t != TLS{}) {
		bad("tls.enabled", "is false, yet other keys of tls are set")
	}
}

func (s SASL) check(bad func(key, format string, args ...any)) {
	if s.Mechanism == "" {
		if (s != SASL{}) {
			bad("sasl.mechanism", "is empty, yet other keys of sasl are set")
		}
		return
	}
	if !slices.Contains([]string{plainMechanism, scram256, scram512}, s.Mechanism) {
		bad("sasl.mechanism", "%q is none of plain, scram-sha-256, scram-sha-512", s.Mechanism)
	}
	if s.Username == "" {
		bad("sasl.username", "is empty")
	}
	if (s.Password == "") == (s.PasswordFile == "") {
		bad("sasl.password", "or password_file must be set, and only one of them")
	}
}

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("want host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return fmt.Errorf("want host:port with a port between 1 and 65535")
	}
	return nil
}

// validTopic tells whether s and the words that we append to it make a name that Kafka takes (249 characters).
func validTopic(s string) bool {
	if s == "" || len(s) > 200 || s == "." || s == ".." {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool { return !topicRune(r) }) < 0
}

func topicRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}
