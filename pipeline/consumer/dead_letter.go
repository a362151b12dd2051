package consumer

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A DeadLetter is a record that a stage could not process, with its position and the reason.
type DeadLetter struct {
	Topic     string // of the record, as are Partition, Offset, Key and Value
	Partition int
	Offset    int64
	Stage     string // the stage that could not process it: engine, alerts/<destination>
	Reason    string // one word, the same as the label of the stage's metric
	Err       error
	Key       []byte
	Value     []byte
}

// Bounds of a dead letter. The topic takes 4 MiB, compressed.
const (
	maxDeadLetterValue = 3 << 20
	maxDeadLetterError = 4 << 10
)

// WriteDeadLetter writes deadLetter to the dead-letter topic. It returns when the topic has it or ctx has
// ended. A value that is too large for the topic is halved until it fits, and a header holds its full length.
func WriteDeadLetter(ctx context.Context, client *kafka.Client, log *slog.Logger, deadLetter DeadLetter) error {
	value := deadLetter.Value[:min(len(deadLetter.Value), maxDeadLetterValue)]
	return Retry(ctx, log, "write a dead letter", func() error {
		_, err := client.Produce(ctx, client.Topic(pipeline.TopicDeadLetter), 0, deadLetter.kafkaRecord(value))
		if err != nil && kafka.Classify(err) == kafka.Rejected && len(value) > 0 {
			value = value[:len(value)/2]
			return errors.Join(errors.New("dead letter is cut"), err)
		}
		return err
	})
}

// kafkaRecord returns the record of l with the first bytes of its value.
func (l DeadLetter) kafkaRecord(value []byte) kafkago.Record {
	reason := ""
	if l.Err != nil {
		reason = l.Err.Error()
	}
	headers := []kafkago.Header{
		{Key: "topic", Value: []byte(l.Topic)},
		{Key: "partition", Value: strconv.AppendInt(nil, int64(l.Partition), 10)},
		{Key: "offset", Value: strconv.AppendInt(nil, l.Offset, 10)},
		{Key: "stage", Value: []byte(l.Stage)},
		{Key: "reason", Value: []byte(l.Reason)},
		{Key: "error", Value: []byte(reason[:min(len(reason), maxDeadLetterError)])},
	}
	if len(value) < len(l.Value) {
		headers = append(headers, kafkago.Header{Key: "bytes", Value: strconv.AppendInt(nil, int64(len(l.Value)), 10)})
	}
	return kafkago.Record{
		Time: time.Now(), Key: kafkago.NewBytes(l.Key), Value: kafkago.NewBytes(value), Headers: headers,
	}
}
