package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
)

// A FetchRequest names the records that a fetch returns.
type FetchRequest struct {
	Topic     string // full name
	Partition int
	Offset    int64
	MaxBytes  int // of the response; the first record batch is returned whole
	MaxWait   time.Duration
}

// A FetchResponse holds record batches as the broker stores them. kafka-go decompresses a whole response
// before it returns the first record, and 4 MiB can become 40 GB. NextBatch leaves that to the caller, batch
// by batch.
type FetchResponse struct {
	HighWatermark int64         // the offset behind the last record of the partition
	Throttle      time.Duration // for which the broker held the response back

	rest []byte // the batches that NextBatch has not returned
}

// fetchResponse is the response of kafka-go with the record batches as bytes.
type fetchResponse struct {
	ThrottleTimeMs int32                `kafka:"min=v1,max=v11"`
	ErrorCode      int16                `kafka:"min=v7,max=v11"`
	SessionID      int32                `kafka:"min=v7,max=v11"`
	Topics         []fetchResponseTopic `kafka:"min=v0,max=v11"`
}

// ApiKey implements protocol.Message.
func (*fetchResponse) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:revive,staticcheck // the name is the library's

type fetchResponseTopic struct {
	Topic      string                   `kafka:"min=v0,max=v11"`
	Partitions []fetchResponsePartition `kafka:"min=v0,max=v11"`
}

type fetchResponsePartition struct {
	Partition            int32                          `kafka:"min=v0,max=v11"`
	ErrorCode            int16                          `kafka:"min=v0,max=v11"`
	HighWatermark        int64                          `kafka:"min=v0,max=v11"`
	LastStableOffset     int64                          `kafka:"min=v4,max=v11"`
	LogStartOffset       int64                          `kafka:"min=v5,max=v11"`
	AbortedTransactions  []fetchapi.ResponseTransaction `kafka:"min=v4,max=v11"`
	PreferredReadReplica int32                          `kafka:"min=v11,max=v11"`
	RecordSet            []byte                         `kafka:"min=v0,max=v11"`
}

// registerFetch makes kafka-go decode the responses to fetch requests as fetchResponse. Its own Client.Fetch
// must not be used in this process; its Reader has a decoder of its own.
var registerFetch = sync.OnceFunc(func() { protocol.Register(&fetchapi.Request{}, &fetchResponse{}) })

// Fetch returns the record batches from an offset on. It waits for up to MaxWait if there are none.
func (c *Client) Fetch(ctx context.Context, request FetchRequest) (*FetchResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout+request.MaxWait)
	defer cancel()
	message, err := c.transport.RoundTrip(ctx, c.kafka.Addr, &fetchapi.Request{
		ReplicaID: -1, MaxWaitTime: int32(request.MaxWait.Milliseconds()), MinBytes: 1, MaxBytes: int32(request.MaxBytes),
		SessionID: -1, SessionEpoch: -1,
		Topics: []fetchapi.RequestTopic{{
			Topic: request.Topic,
			Partitions: []fetchapi.RequestPartition{{
				Partition: int32(request.Partition), CurrentLeaderEpoch: -1, FetchOffset: request.Offset, LogStartOffset: -1,
				PartitionMaxBytes: int32(request.MaxBytes),
			}},
		}},
	})
	if err != nil {
		return nil, c.wrapError(fmt.Sprintf("fetch %s/%d", request.Topic, request.Partition), err)
	}

	response, ok := message.(*fetchResponse)
	if !ok || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, errors.New("the response to a fetch does not name the partition")
	}
	partition := &response.Topics[0].Partitions[0]
	for _, code := range []int16{partition.ErrorCode, response.ErrorCode} {
		if code != 0 {
			return nil, c.wrapError(fmt.Sprintf("fetch %s/%d", request.Topic, request.Partition), kafka.Error(code))
		}
	}
	return &FetchResponse{
		HighWatermark: partition.HighWatermark, Throttle: time.Duration(response.ThrottleTimeMs) * time.Millisecond,
		rest: partition.RecordSet,
	}, nil
}
