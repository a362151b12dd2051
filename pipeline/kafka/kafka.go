// Package kafka is how tidegate speaks to Kafka: one Config, and a Client that hands out what segmentio/kafka-go needs.
//
// The collector's shipper produces batches with Produce; the engine and the alerts' publisher take Kafka() for fetches and offsets
// and Dialer() for consumer groups; all of them name topics with Topic and make sure of them with EnsureTopics. The broker that runs
// inside `tidegate run` is spoken to in the same way.
//
// Errors name the brokers that were asked. Sort tells what an error of Produce means: try again, this content will never be
// taken, or somebody must change a permission.
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
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"tidegate/pipeline"
)

// maxPartitions bounds what we believe of a topic: each costs memory in a collector.
const maxPartitions = 4096

// metadataTTL is how old the picture of who leads which partition may be: after a leader has moved, produces to it fail for
// that long.
const metadataTTL = 2 * time.Second

// A Client speaks to one Kafka cluster. It is safe for concurrent use.
type Client struct {
	cfg       Config
	tls       *tls.Config
	sasl      sasl.Mechanism
	transport *kafka.Transport
	kafka     *kafka.Client
}

// New reads the files that cfg names and prepares a client; it does not speak to a broker yet.
func New(cfg Config) (*Client, error) {
	if err := errors.Join(cfg.Check()...); err != nil {
		return nil, err
	}
	boundCodecs()
	c := &Client{cfg: cfg}
	var err error
	if c.tls, err = cfg.TLS.config(); err != nil {
		return nil, err
	}
	if c.sasl, err = cfg.SASL.mechanism(); err != nil {
		return nil, err
	}
	c.transport = c.newTransport()
	c.kafka = c.newKafkaClient(c.transport)
	return c, nil
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

// Config is what c was made of.
func (c *Client) Config() Config { return c.cfg }

// Brokers are the addresses that were configured.
func (c *Client) Brokers() []string { return c.cfg.Brokers }

// Transport is the pool of connections behind Kafka().
func (c *Client) Transport() *kafka.Transport { return c.transport }

// Kafka is the library's client on our transport: fetches, offsets, everything that has no method here.
func (c *Client) Kafka() *kafka.Client { return c.kafka }

// Dialer makes connections for what does not use a transport: kafka.NewReader and kafka.NewConsumerGroup.
func (c *Client) Dialer() *kafka.Dialer {
	return &kafka.Dialer{
		ClientID:      "tidegate",
		Timeout:       c.dialTimeout(),
		KeepAlive:     15 * time.Second,
		DualStack:     true,
		TLS:           c.tls,
		SASLMechanism: c.sasl,
	}
}

// Topic is the full name of one of our topics: of "events", "tidegate.events".
func (c *Client) Topic(name string) string { return c.cfg.Topic + "." + name }

// Close lets go of idle connections and ends what runs behind them.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// wrapError says which brokers were asked.
func (c *Client) wrapError(what string, err error) error {
	return fmt.Errorf("%s at kafka %s: %w", what, strings.Join(c.cfg.Brokers, ","), err)
}

// Produce writes records to one partition of a topic (its full name), compressed with zstd, and returns when every in-sync replica
// has them, with the offset of the first. After an error they may have been written all the same, and, since the library may go on
// reading them after ctx has ended, their bytes must not be changed ever after.
func (c *Client) Produce(ctx context.Context, topic string, partition int, records ...kafka.Record) (int64, error) {
	r, err := c.kafka.Produce(ctx, &kafka.ProduceRequest{
		Topic:        topic,
		Partition:    partition,
		RequiredAcks: kafka.RequireAll,
		Records:      kafka.NewRecordReader(records...),
		Compression:  kafka.Zstd,
	})
	if err == nil {
		err = r.Error
	}
	if err != nil {
		return 0, c.wrapError(fmt.Sprintf("produce to %s/%d", topic, partition), err)
	}
	return r.BaseOffset, nil
}

func (t TLS) config() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	c, err := t.Config()
	if err != nil {
		return nil, fmt.Errorf("kafka.tls.%w", err)
	}
	return c, nil
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	if s.Mechanism == "" {
		return nil, nil
	}
	password, err := pipeline.Secret(s.Password, s.PasswordFile)
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
	m, err := scram.Mechanism(algorithm, s.Username, password)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	return m, nil
}
