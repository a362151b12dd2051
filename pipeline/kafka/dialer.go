package kafka

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// Dialer returns a dialer for the parts of the library that do not use a transport: NewReader and
// NewConsumerGroup. No request on its connections creates a topic.
func (c *Client) Dialer() *kafka.Dialer {
	return &kafka.Dialer{
		ClientID:      "tidegate",
		Timeout:       c.dialTimeout(),
		DialFunc:      c.dialWithoutCreation,
		SASLMechanism: c.sasl,
	}
}

// dialWithoutCreation connects to a broker, with TLS where that is configured.
func (c *Client) dialWithoutCreation(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{KeepAlive: 15 * time.Second}
	dial := dialer.DialContext
	if c.tls != nil {
		dial = (&tls.Dialer{NetDialer: dialer, Config: c.tls}).DialContext
	}
	conn, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return noCreateConn{conn}, nil
}

// noCreateConn is a connection on which requests for metadata do not create topics. kafka-go sets
// allow_auto_topic_creation in those of a consumer group: a topic that was deleted would come back at once, with the
// broker's default number of partitions.
type noCreateConn struct{ net.Conn }

// The position of allow_auto_topic_creation in a request for metadata: the last byte of versions 4 to 7
// (kafka.apache.org/protocol#The_Messages_Metadata).
const (
	firstCreatingVersion = 4
	lastCreatingVersion  = 7
)

// Write implements net.Conn. kafka-go writes a request for metadata of few topics at once.
func (c noCreateConn) Write(request []byte) (int, error) {
	if isCreatingMetadata(request) {
		request = bytes.Clone(request) // a Writer must not change what it is given
		request[len(request)-1] = 0
	}
	return c.Conn.Write(request)
}

// isCreatingMetadata reports whether request is a whole request for metadata whose last byte is
// allow_auto_topic_creation.
func isCreatingMetadata(request []byte) bool {
	const keyAt, versionAt, headerSize = 4, 6, 14
	if len(request) <= headerSize || binary.BigEndian.Uint32(request) != uint32(len(request)-keyAt) {
		return false
	}
	version := binary.BigEndian.Uint16(request[versionAt:])
	return binary.BigEndian.Uint16(request[keyAt:]) == uint16(protocol.Metadata) &&
		version >= firstCreatingVersion && version <= lastCreatingVersion
}
