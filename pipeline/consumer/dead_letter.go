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
	maxDeadLetterKey   = 64 << 10
	maxDeadLetterError = 4 << 10
)

// ErrUnwritable is returned by WriteDeadLetter for a dead letter that the topic rejects however short it is. The
// record is lost; the caller counts it and goes on.
var ErrUnwritable = errors.New("the dead-letter topic rejects the record in every length")

// WriteDeadLetter writes deadLetter to the dead-letter topic. It returns when the topic has it, when ctx has ended,
// or ErrUnwritable. A value and a key that are too large for the topic are halved until they fit, and headers hold
// their full lengths. A topic that does not exist any more is created.
func WriteDeadLetter(ctx context.Context, client *kafka.Client, log *slog.Logger, deadLetter DeadLetter) error {
	value := deadLetter.Value[:min(len(deadLetter.Value), maxDeadLetterValue)]
	key := deadLetter.Key[:min(len(deadLetter.Key), maxDeadLetterKey)]
	unwritable := false
	err := retryUnless(ctx, log, "write a dead letter", client.ReportFailure, func() error {
		// Cut the dead letter until the topic takes it. Some 40 cuts reach nothing.
		for {
			_, err := client.Produce(ctx, client.Topic(pipeline.TopicDeadLetter), 0, deadLetter.kafkaRecord(key, value))
			switch {
			case errors.Is(err, kafkago.UnknownTopicOrPartition):
				_, createErr := client.EnsureTopics(ctx, pipeline.TopicDeadLetter)
				return errors.Join(err, createErr)
			case err == nil || kafka.Classify(err) != kafka.Rejected:
				return err
			case len(value) > 0:
				value = value[:len(value)/2]
			case len(key) > 0:
				key = key[:len(key)/2]
			default:
				unwritable = true
				return nil
			}
		}
	})
	if err == nil && unwritable {
		return ErrUnwritable
	}
	return err
}

// kafkaRecord returns the record of l with the first bytes of its key and value.
func (l DeadLetter) kafkaRecord(key, value []byte) kafkago.Record {
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
	if len(key) < len(l.Key) {
		headers = append(headers, kafkago.Header{Key: "key_bytes", Value: strconv.AppendInt(nil, int64(len(l.Key)), 10)})
	}
	return kafkago.Record{
		Time: time.Now(), Key: kafkago.NewBytes(key), Value: kafkago.NewBytes(value), Headers: headers,
	}
}
