// Package kafka connects tidegate to a Kafka cluster: one Config, and a Client on top of segmentio/kafka-go.
//
// The collector's shipper produces batches with Produce, the engine produces alerts, and pipeline/consumer
// takes Kafka() for fetches and offsets and Dialer() for consumer groups. All of them name topics with Topic
// and create them with EnsureTopics. The embedded broker is reached in the same way as a cluster.
//
// An error names the brokers. Classify returns the class of an error of Produce: the record can be produced
// later, after a change of permissions, or never. The codecs of kafka-go are replaced in the whole process by
// ones that bound the decompressed size of a batch.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"tidegate/pipeline/config"
)

// maxPartitions bounds the number of partitions of a topic: each costs memory in a collector.
const maxPartitions = 4096

// metadataTTL is the time for which the leaders of partitions are cached. After a leader has moved, produce
// requests fail for up to that time.
const metadataTTL = 2 * time.Second

// A Client is connected to one Kafka cluster. It is safe for concurrent use.
type Client struct {
	cfg       Config
	tls       *tls.Config
	sasl      sasl.Mechanism
	transport *kafka.Transport
	kafka     *kafka.Client

	availability availability // as the Monitor has it
}

// New reads the files that cfg names and returns a client. It does not connect yet.
func New(cfg Config) (*Client, error) {
	if err := config.Join("kafka", cfg.Check()); err != nil {
		return nil, err
	}
	boundCodecs()
	registerFetch()
	client := &Client{cfg: cfg}
	var err error
	if client.tls, err = loadTLS(cfg.TLS); err != nil {
		return nil, err
	}
	if client.sasl, err = cfg.SASL.mechanism(); err != nil {
		return nil, err
	}
	client.transport = client.newTransport()
	client.kafka = client.newKafkaClient(client.transport)
	return client, nil
}

func (c *Client) newTransport() *kafka.Transport {
	return &kafka.Transport{
		Dial:        (&net.Dialer{Timeout: c.dialTimeout(), KeepAlive: 15 * time.Second}).DialContext,
		DialTimeout: c.dialTimeout(),
		IdleTimeout: time.Minute,
		MetadataTTL: metadataTTL,
		ClientID:    "tidegate",
		TLS:         c.tls,
		SASL:        c.sasl,
	}
}

func (c *Client) newKafkaClient(t *kafka.Transport) *kafka.Client {
	return &kafka.Client{Addr: kafka.TCP(c.cfg.Brokers...), Timeout: c.cfg.Timeout, Transport: t}
}

func (c *Client) dialTimeout() time.Duration { return min(c.cfg.Timeout, 5*time.Second) }

// Config returns the configuration of the client.
func (c *Client) Config() Config { return c.cfg }

// Brokers returns the configured addresses.
func (c *Client) Brokers() []string { return c.cfg.Brokers }

// Kafka returns the library's client, for requests that have no method here.
func (c *Client) Kafka() *kafka.Client { return c.kafka }

// Topic returns the full name of one of our topics: "tidegate.events" for "events".
func (c *Client) Topic(name string) string { return c.cfg.TopicPrefix + "." + name }

// Close closes idle connections and ends their goroutines.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// wrapError adds the operation and the brokers to err. A topic that the library does not find in the metadata
// that it keeps is a topic that the broker does not know.
func (c *Client) wrapError(what string, err error) error {
	if errors.Is(err, protocol.ErrNoTopic) || errors.Is(err, protocol.ErrNoPartition) {
		err = fmt.Errorf("%w: %w", kafka.UnknownTopicOrPartition, err)
	}
	// The library adds the name of its function in front, "kafka.(*Client).Metadata: ", which says less than what.
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "kafka.(*Client).") {
		err = inner
	}
	return fmt.Errorf("%s at kafka %s: %w", what, strings.Join(c.cfg.Brokers, ","), err)
}

// Produce writes records to one partition of a topic (its full name), compressed with zstd. It returns the
// offset of the first record once every in-sync replica has them. After an error the records may have been
// written nevertheless. The library may read them after ctx has ended, so their bytes must never be changed
// after the call.
func (c *Client) Produce(ctx context.Context, topic string, partition int, records ...kafka.Record) (int64, error) {
	produceResponse, err := c.kafka.Produce(ctx, &kafka.ProduceRequest{
		Topic:        topic,
		Partition:    partition,
		RequiredAcks: kafka.RequireAll,
		Records:      kafka.NewRecordReader(records...),
		Compression:  kafka.Zstd,
	})
	if err == nil {
		err = produceResponse.Error
	}
	if err != nil {
		return 0, c.wrapError(fmt.Sprintf("produce to %s/%d", topic, partition), err)
	}
	return produceResponse.BaseOffset, nil
}

// loadTLS returns nil where TLS is not enabled.
func loadTLS(optionalTLS config.OptionalTLS) (*tls.Config, error) {
	if !optionalTLS.Enabled {
		return nil, nil
	}
	cfg, err := optionalTLS.Load()
	if err != nil {
		return nil, config.WithPrefix("kafka.tls", err)
	}
	return cfg, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	if s.Mechanism == "" {
		return nil, nil
	}
	password, err := config.Secret(s.Password, s.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl.password_file: %w", err)
	}
	var algorithm scram.Algorithm
	switch s.Mechanism {
	case plainMechanism:
		return plain.Mechanism{Username: s.Username, Password: password}, nil
	case scram256:
		algorithm = scram.SHA256
	default:
		algorithm = scram.SHA512
	}
	scramMechanism, err := scram.Mechanism(algorithm, s.Username, password)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	return scramMechanism, nil
}
