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

// broker starts an in-memory broker and returns its TCP addresses.
func broker(t *testing.T, opts ...kfake.Opt) []string {
	t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster.ListenAddrs()
}

// dial returns a client that is closed at the end of the test.
func dial(t *testing.T, brokers []string, change func(*Config)) *Client {
	t.Helper()
	cfg := Default()
	cfg.Brokers = brokers
	cfg.Timeout = 5 * time.Second
	if change != nil {
		change(&cfg)
	}
	client, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func record(value string) kafka.Record { return kafka.Record{Value: kafka.NewBytes([]byte(value))} }

// roundTrip creates the topics, writes one record and reads it back through the dialer.
func roundTrip(t *testing.T, client *Client) {
	t.Helper()
	ctx := t.Context()
	if _, err := client.EnsureTopics(ctx); err != nil {
		t.Fatal(err)
	}
	topic := client.Topic(pipeline.TopicEvents)
	if _, err := client.Produce(ctx, topic, 2, record("hello")); err != nil {
		t.Fatal(err)
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: client.Brokers(), Topic: topic, Partition: 2, Dialer: client.Dialer(), MaxWait: 100 * time.Millisecond,
	})
	defer reader.Close()
	message, err := reader.ReadMessage(ctx)
	if err != nil || string(message.Value) != "hello" {
		t.Fatalf("read back %q, %v", message.Value, err)
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
	check(func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: config.TLS{CertFile: os.DevNull}} }, "tls.cert_file")
	check(func(c *Config) { c.TLS = config.OptionalTLS{TLS: config.TLS{CAFile: os.DevNull}} }, "tls.enabled")
	check(func(c *Config) { c.SASL = SASL{Username: "x"} }, "sasl.mechanism")
	check(func(c *Config) { c.SASL = SASL{Mechanism: "gssapi"} }, "sasl.mechanism", "sasl.username", "sasl.password")
	check(func(c *Config) {
		c.SASL = SASL{Mechanism: "plain", Username: "u", Password: "a", PasswordFile: os.DevNull}
	}, "sasl.password_file")
	check(func(c *Config) {
		c.SASL = SASL{Mechanism: "plain", Username: "u", PasswordFile: "no-such-file"}
	}, "sasl.password_file")
}

// TestExistingTopicKeepsItsPartitions: the configured number of partitions does not apply to a topic that
// exists.
func TestExistingTopicKeepsItsPartitions(t *testing.T) {
	client := dial(t, broker(t, kfake.SeedTopics(7, "pre.events")), func(c *Config) { c.TopicPrefix = "pre" })
	for range 2 {
		counts, err := client.EnsureTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if counts["events"] != 7 || counts["signals"] != Default().Partitions || counts["alerts"] != 1 || counts["deadletter"] != 1 || len(counts) != 4 {
			t.Fatalf("counts %v", counts)
		}
	}
	if partitions, err := client.Partitions(t.Context(), "pre.events"); partitions != 7 || err != nil {
		t.Errorf("Partitions: %d, %v", partitions, err)
	}
	partitions, err := client.Partitions(t.Context(), "pre.none")
	if !errors.Is(err, kafka.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "pre.none") {
		t.Errorf("Partitions of a topic that does not exist: %d, %v", partitions, err)
	}
}

func TestNewEventsTopicHasTheConfiguredPartitions(t *testing.T) {
	client := dial(t, broker(t), func(c *Config) { c.Partitions = 3 })
	counts, err := client.EnsureTopics(t.Context(), pipeline.TopicEvents)
	if err != nil || counts["events"] != 3 || len(counts) != 1 {
		t.Fatalf("%v, %v", counts, err)
	}
	roundTrip(t, client)
}

// TestTopicOfAnotherClientIsSeenAtOnce: the cached metadata of the Kafka library may be seconds old, so
// partitionCounts must not use them.
func TestTopicOfAnotherClientIsSeenAtOnce(t *testing.T) {
	addrs := broker(t)
	first, second := dial(t, addrs, nil), dial(t, addrs, nil)
	if _, err := second.EnsureTopics(t.Context(), pipeline.TopicAlerts); err != nil {
		t.Fatal(err)
	}
	if _, err := first.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	partitions, err := second.Partitions(t.Context(), second.Topic(pipeline.TopicEvents))
	if partitions != 4 || err != nil {
		t.Fatalf("%d, %v", partitions, err)
	}
}

func TestErrorsNameTheBroker(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // the port is closed from here on
	client := dial(t, []string{listener.Addr().String()}, nil)
	check := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), listener.Addr().String()) || Classify(err) != Retriable {
			t.Errorf("error %v, class %v", err, Classify(err))
		}
	}
	_, err = client.EnsureTopics(t.Context())
	check(err)
	_, err = client.Produce(t.Context(), "x", 0, record("y"))
	check(err)
}

func TestTooLargeMessageIsRejected(t *testing.T) {
	client := dial(t, broker(t), nil)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, maxEventsMessage+1024)
	rand.Read(noise)
	above := kafka.Record{Value: kafka.NewBytes(noise)}
	_, err := client.Produce(t.Context(), client.Topic(pipeline.TopicEvents), 0, above)
	if Classify(err) != Rejected {
		t.Errorf("%v is classified as %v", err, Classify(err))
	}
	below := kafka.Record{Value: kafka.NewBytes(noise[:maxEventsMessage-1024])}
	if _, err = client.Produce(t.Context(), client.Topic(pipeline.TopicEvents), 0, below); err != nil {
		t.Errorf("just below the limit: %v", err)
	}
}

func TestEverySASLMechanismAuthenticates(t *testing.T) {
	// The names in the configuration, and those in the Kafka protocol.
	for mechanism, protocolName := range map[string]string{
		"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512",
	} {
		addrs := broker(t, kfake.EnableSASL(), kfake.Superuser(protocolName, "tide", "secret"))
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		roundTrip(t, dial(t, addrs, func(c *Config) {
			c.SASL = SASL{Mechanism: mechanism, Username: "tide", PasswordFile: file}
		}))

		wrong := dial(t, addrs, func(c *Config) {
			c.SASL = SASL{Mechanism: mechanism, Username: "tide", Password: "wrong"}
		})
		if _, err := wrong.Produce(t.Context(), "x", 0, record("y")); err == nil {
			t.Errorf("%s: a wrong password was accepted", mechanism)
		}
	}
}

func TestTLSChecksTheCertificateAuthority(t *testing.T) {
	ca, pair := certificate(t)
	addrs := broker(t, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	for _, accepting := range []config.TLS{{CAFile: ca}, {InsecureSkipVerify: true}} {
		roundTrip(t, dial(t, addrs, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: accepting} }))
	}

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	withoutCA := dial(t, addrs, func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true} })
	if _, err := withoutCA.EnsureTopics(ctx); err == nil {
		t.Error("a certificate of an unknown authority was accepted")
	}
}

func TestBadFilesAreNamed(t *testing.T) {
	check := func(want string, change func(*Config)) {
		t.Helper()
		cfg := Default()
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %s", err, want)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	withTLS := func(files config.TLS) func(*Config) {
		return func(c *Config) { c.TLS = config.OptionalTLS{Enabled: true, TLS: files} }
	}
	check("kafka.tls.ca_file", withTLS(config.TLS{CAFile: "/nonexistent"}))
	check(empty, withTLS(config.TLS{CAFile: empty}))
	check("kafka.tls.cert_file", withTLS(config.TLS{CertFile: empty, KeyFile: empty}))
	check("kafka.sasl.password_file", func(c *Config) {
		c.SASL = SASL{Mechanism: "plain", Username: "u", PasswordFile: "/nonexistent"}
	})
}

func TestErrorsAreClassified(t *testing.T) {
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

// certificate returns a self-signed certificate for 127.0.0.1, and the path of a PEM file with it.
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
