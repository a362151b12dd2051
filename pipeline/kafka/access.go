package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

// A Use is a set of the ways in which a process uses a topic.
type Use int

// The uses of a topic.
const (
	ToProduce Use = 1 << iota
	ToFetch
)

// CheckTopic checks that this client may use a topic (its short name), without changing anything, and reports
// whether the topic exists. Of a topic that does not exist yet, it checks that the client may create it.
func (c *Client) CheckTopic(ctx context.Context, name string, use Use) (exists bool, err error) {
	_, missing, err := c.findTopics(ctx, []string{name})
	if err != nil {
		return false, err
	}
	if len(missing) > 0 {
		return c.checkCreate(ctx, name)
	}
	if use&ToProduce != 0 {
		if err := c.checkProduce(ctx, c.Topic(name)); err != nil {
			return true, c.wrapError("produce to "+c.Topic(name), err)
		}
	}
	if use&ToFetch != 0 {
		if err := c.checkFetch(ctx, c.Topic(name)); err != nil {
			return true, c.wrapError("fetch from "+c.Topic(name), err)
		}
	}
	return true, nil
}

// validateTimeout bounds a request to validate the creation of a topic. After the answer, kafka-go waits until
// the topic appears in the cluster, which it never does.
const validateTimeout = 2 * time.Second

// checkCreate asks the cluster to validate the creation of a topic, and not to create it.
func (c *Client) checkCreate(ctx context.Context, name string) (exists bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, validateTimeout)
	defer cancel()
	response, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{c.topicConfig(name)}, ValidateOnly: true,
	})
	if err != nil {
		return false, c.wrapError("create topics", err)
	}
	switch err := response.Errors[c.Topic(name)]; {
	case err == nil:
		return false, nil
	case errors.Is(err, kafka.TopicAlreadyExists): // the cluster lists only topics that the user may describe
		return true, c.wrapError("describe topic "+c.Topic(name), kafka.TopicAuthorizationFailed)
	default:
		return false, c.wrapError("create topic "+c.Topic(name), err)
	}
}

// checkProduce sends a batch with a wrong checksum. A broker checks the permission first and then rejects the
// batch; nothing is written.
func (c *Client) checkProduce(ctx context.Context, topic string) error {
	response, err := c.kafka.RawProduce(ctx, &kafka.RawProduceRequest{
		Topic: topic, RequiredAcks: kafka.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(damagedBatch())},
	})
	if err == nil {
		err = response.Error
	}
	return onlyDenied(err)
}

// damagedBatch returns a record batch without records whose checksum is wrong
// (kafka.apache.org/documentation/#recordbatch).
func damagedBatch() []byte {
	const headerSize, lengthAt, magicAt, checksumAt, attributesAt = 61, 8, 16, 17, 21
	batch := make([]byte, headerSize)
	binary.BigEndian.PutUint32(batch[lengthAt:], headerSize-lengthAt-4)
	batch[magicAt] = 2
	sum := crc32.Checksum(batch[attributesAt:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(batch[checksumAt:], ^sum)
	return batch
}

// checkFetch fetches an offset of the first partition that does not exist.
func (c *Client) checkFetch(ctx context.Context, topic string) error {
	_, err := c.Fetch(ctx, FetchRequest{Topic: topic, Offset: math.MaxInt64, MaxBytes: 1024, MaxWait: time.Millisecond})
	return onlyDenied(err)
}

// CheckGroup checks that this client may read the offsets of a consumer group.
func (c *Client) CheckGroup(ctx context.Context, group, name string) error {
	response, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{c.Topic(name): {0}},
	})
	if err == nil {
		err = response.Error
	}
	if err = onlyDenied(err); err != nil {
		return c.wrapError("join group "+group, err)
	}
	return nil
}

// onlyDenied returns err if it is about a permission, and nil for every other answer of a broker.
func onlyDenied(err error) error {
	var code kafka.Error
	if errors.As(err, &code) && (Classify(err) != Denied || errors.Is(code, kafka.InvalidRecord)) {
		return nil
	}
	return err
}
