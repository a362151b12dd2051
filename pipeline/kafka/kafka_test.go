package kafka

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// broker starts a broker in this process, which is reached over TCP.
func broker(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.ListenAddrs()
}

func dial(t *testing.T, brokers []string, change func(*Config)) *Client {
	t.Helper()
	cfg := Default()
	cfg.Brokers = brokers
	cfg.Timeout = 5 * time.Second
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func record(s string) kafka.Record { return kafka.Record{Value: kafka.NewBytes([]byte(s))} }

// roundTrip creates the topics, writes one record and reads it back through the dialer.
func roundTrip(t *testing.T, c *Client) {
	t.Helper()
	ctx := t.Context()
	if _, err := c.EnsureTopics(ctx); err != nil {
		t.Fatal(err)
	}
	topic := c.Topic(pipeline.TopicEvents)
	if _, err := c.Produce(ctx, topic, 2, record("hello")); err != nil {
		t.Fatal(err)
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.Brokers(), Topic: topic, Partition: 2, Dialer: c.Dialer(), MaxWait: 100 * time.Millisecond})
	defer r.Close()
	m, err := r.ReadMessage(ctx)
	if err != nil || string(m.Value) != "hello" {
		t.Fatalf("read back %q, %v", m.Value, err)
	}
}

func TestDefaultIsValid(t *testing.T) {
	if errs := Default().Check(); errs != nil {
		t.Error(errs)
	}
}

func TestCheckNamesEveryBadKey(t *testing.T) {
	check := func(change func(*Config), keys ...string) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		errs := cfg.Check()
		if len(errs) != len(keys) {
			t.Errorf("%d errors %v, want those of %v", len(errs), errs, keys)
			return
		}
		for i, key := range keys {
			if errs[i].Key != key {
				t.Errorf("%v does not name %s", errs[i], key)
			}
		}
	}
	check(func(c *Config) { c.Brokers = nil }, "brokers")
	check(func(c *Config) { c.Brokers = []string{"host", ":9092", "host:0", "host:99999"} }, "brokers[0]", "brokers[1]", "brokers[2]", "brokers[3]")
	check(func(c *Config) { c.Brokers = []string{"[::1]:9092", "kafka.example:9092"} })
	check(func(c *Config) { c.TopicPrefix = "a/b" }, "topic_prefix")
	check(func(c *Config) { c.TopicPrefix = "" }, "topic_prefix")
	check(func(c *Config) { c.TopicPrefix = "é" }, "topic_prefix")
	check(func(c *Config) { c.Partitions, c.ReplicationFactor, c.Assign = 0, 0, "x" }, "partitions", "replication_factor", "assign")
	check(func(c *Config) { c.Timeout = 0 }, "timeout")
	check(func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CertFile: "x"}} }, "tls.cert_file")
	check(func(c *Config) { c.TLS = config.OptionalTLS{TLS: config.TLS{CAFile: "x"}} }, "tls.enabled")
	check(func(c *Config) { c.SASL = SASL{Username: "x"} }, "sasl.mechanism")
	check(func(c *Config) { c.SASL = SASL{Mechanism: "gssapi"} }, "sasl.mechanism", "sasl.username", "sasl.password")
	check(func(c *Config) { c.SASL = SASL{Mechanism: "plain", Username: "u", Password: "a", PasswordFile: "b"} }, "sasl.password_file")
}

func TestTopicsAreMadeOnceAndTheirOwnCountCounts(t *testing.T) {
	c := dial(t, broker(t, kfake.SeedTopics(7, "pre.events")), func(c *Config) { c.TopicPrefix = "pre" })
	for range 2 {
		n, err := c.EnsureTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n["events"] != 7 || n["alerts"] != 1 || n["deadletter"] != 1 || len(n) != 3 {
			t.Fatalf("counts %v", n)
		}
	}
	if n, err := c.Partitions(t.Context(), "pre.events"); n != 7 || err != nil {
		t.Errorf("Partitions: %d, %v", n, err)
	}
	if n, err := c.Partitions(t.Context(), "pre.none"); !errors.Is(err, kafka.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "pre.none") {
		t.Errorf("Partitions of a topic that is not there: %d, %v", n, err)
	}
}

func TestNewEventsTopicHasTheConfiguredPartitions(t *testing.T) {
	c := dial(t, broker(t), func(c *Config) { c.Partitions = 3 })
	n, err := c.EnsureTopics(t.Context(), pipeline.TopicEvents)
	if err != nil || n["events"] != 3 || len(n) != 1 {
		t.Fatalf("%v, %v", n, err)
	}
	roundTrip(t, c)
}

// TestTopicMadeByAnotherIsSeenAtOnce: the library's metadata may be seconds old; partitionCounts must not use
// it.
func TestTopicMadeByAnotherIsSeenAtOnce(t *testing.T) {
	addrs := broker(t)
	a, b := dial(t, addrs, nil), dial(t, addrs, nil)
	if _, err := b.EnsureTopics(t.Context(), pipeline.TopicAlerts); err != nil {
		t.Fatal(err)
	}
	if _, err := a.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Partitions(t.Context(), b.Topic(pipeline.TopicEvents)); n != 4 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
}

func TestErrorsNameTheBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // the port is closed from here on
	c := dial(t, []string{l.Addr().String()}, nil)
	check := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || Classify(err) != Retriable {
			t.Errorf("error %v, sort %v", err, Classify(err))
		}
	}
	_, err = c.EnsureTopics(t.Context())
	check(err)
	_, err = c.Produce(t.Context(), "x", 0, record("y"))
	check(err)
}

func TestTooLargeIsRefused(t *testing.T) {
	c := dial(t, broker(t), nil)
	if _, err := c.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, maxEventsMessage+1024)
	rand.Read(noise)
	_, err := c.Produce(t.Context(), c.Topic(pipeline.TopicEvents), 0, kafka.Record{Value: kafka.NewBytes(noise)})
	if Classify(err) != Rejected {
		t.Errorf("%v sorts as %v", err, Classify(err))
	}
	if _, err = c.Produce(t.Context(), c.Topic(pipeline.TopicEvents), 0, kafka.Record{Value: kafka.NewBytes(noise[:maxEventsMessage-1024])}); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
}

func TestSASL(t *testing.T) {
	for ours, theirs := range map[string]string{"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"} {
		addrs := broker(t, kfake.EnableSASL(), kfake.Superuser(theirs, "tide", "secret"))
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, dial(t, addrs, func(c *Config) { c.SASL = SASL{Mechanism: ours, Username: "tide", PasswordFile: file} }))

		wrong := dial(t, addrs, func(c *Config) { c.SASL = SASL{Mechanism: ours, Username: "tide", Password: "wrong"} })
		if _, err := wrong.Produce(t.Context(), "x", 0, record("y")); err == nil {
			t.Errorf("%s: a wrong password was taken", ours)
		}
	}
}

func TestTLS(t *testing.T) {
	ca, pair := certificate(t)
	addrs := broker(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	roundTrip(t, dial(t, addrs, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CAFile: ca}} }))
	roundTrip(t, dial(t, addrs, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{InsecureSkipVerify: true}} }))

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stranger := dial(t, addrs, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true} })
	if _, err := stranger.EnsureTopics(ctx); err == nil {
		t.Error("a certificate of an unknown authority was believed")
	}
}

func TestBadFilesAreNamed(t *testing.T) {
	check := func(want string, change func(*Config)) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %s", err, want)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("kafka.tls.ca_file", func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CAFile: "/nonexistent"}} })
	check(empty, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CAFile: empty}} })
	check("kafka.tls.cert_file", func(c *Config) {
		c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CertFile: empty, KeyFile: empty}}
	})
	check("kafka.sasl.password_file", func(c *Config) { c.SASL = SASL{Mechanism: "plain", Username: "u", PasswordFile: "/nonexistent"} })
}

func TestSort(t *testing.T) {
	check := func(err error, want ErrorClass) {
		t.Helper()
		if got := Classify(fmt.Errorf("produce: %w", err)); got != want {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
	check(kafka.NotLeaderForPartition, Retriable)
	check(kafka.UnknownTopicOrPartition, Retriable)
	check(kafka.NotEnoughReplicas, Retriable)
	check(context.DeadlineExceeded, Retriable)
	check(kafka.TopicAuthorizationFailed, Denied)
	check(kafka.SASLAuthenticationFailed, Denied)
	check(kafka.MessageSizeTooLarge, Rejected)
	check(kafka.InvalidRecord, Denied)
	check(kafka.InvalidTimestamp, Denied)
}

// certificate creates a self-signed certificate for 127.0.0.1 and returns the file with its CA.
func certificate(t *testing.T) (string, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
