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

// A DeadLetter is a message that could not be dealt with, with what is needed to find and to judge it.
type DeadLetter struct {
	Topic     string
	Partition int
	Offset    int64
	Stage     string // who gave up: engine, alerts/<destination>
	Reason    string // a word, as it stands in the metrics
	Err       error
	Key       []byte
	Value     []byte
}

// maxDeadLetterValue is how much of a value a dead letter carries: the topic takes 4 MiB, compressed.
const maxDeadLetterValue = 3 << 20

// WriteDeadLetter writes l to the dead-letter topic and returns when it is there or ctx has ended. What is too large for the topic is cut, and
// says so; at the last only the headers go.
func WriteDeadLetter(ctx context.Context, client *kafka.Client, log *slog.Logger, l DeadLetter) error {
	value := l.Value[:min(len(l.Value), maxDeadLetterValue)]
	return Retry(ctx, log, "write a dead letter", func() error {
		_, err := client.Produce(ctx, client.Topic(pipeline.TopicDeadLetter), 0, l.kafkaRecord(value))
		if err != nil && kafka.Classify(err) == kafka.Rejected && len(value) > 0 {
			value = value[:len(value)/2]
			return errors.Join(errors.New("dead letter is cut"), err)
		}
		return err
	})
}

func (l DeadLetter) kafkaRecord(value []byte) kafkago.Record {
	why := ""
	if l.Err != nil {
		why = l.Err.Error()
	}
	headers := []kafkago.Header{
		{Key: "topic", Value: []byte(l.Topic)},
		{Key: "partition", Value: strconv.AppendInt(nil, int64(l.Partition), 10)},
		{Key: "offset", Value: strconv.AppendInt(nil, l.Offset, 10)},
		{Key: "stage", Value: []byte(l.Stage)},
		{Key: "reason", Value: []byte(l.Reason)},
		{Key: "error", Value: []byte(why[:min(len(why), 4096)])},
	}
	if len(value) < len(l.Value) {
		headers = append(headers, kafkago.Header{Key: "bytes", Value: strconv.AppendInt(nil, int64(len(l.Value)), 10)})
	}
	return kafkago.Record{Time: time.Now(), Key: kafkago.NewBytes(l.Key), Value: kafkago.NewBytes(value), Headers: headers}
}
