package ship

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// failNext makes the broker answer the next produce request with an error.
func (h *harness) failNext(cause *kerr.Error) {
	h.broker.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		part := kmsg.NewProduceResponseTopicPartition()
		part.Partition, part.ErrorCode = produce.Topics[0].Partitions[0].Partition, cause.Code
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic, topic.TopicID = produce.Topics[0].Topic, produce.Topics[0].TopicID
		topic.Partitions = append(topic.Partitions, part)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
}

// TestBatchIsLostOnlyIfKafkaRejectsIt: its events are counted and their lines are done. After every other error it is sent again.
func TestBatchIsLostOnlyIfKafkaRejectsIt(t *testing.T) {
	harness := newHarness(t)
	harness.kcfg.Partitions = 1
	harness.cfg.Linger, harness.cfg.SpoolAfter = 20*time.Millisecond, time.Minute
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	file := testFiles(1, 0)[0]
	var want Ledger
	var failures [numErrorClasses]uint64
	for _, test := range []struct {
		cause *kerr.Error
		class kafka.ErrorClass
	}{
		{kerr.MessageTooLarge, kafka.Rejected},
		{kerr.NotLeaderForPartition, kafka.Retriable},
		{kerr.TopicAuthorizationFailed, kafka.Denied},
		{kerr.PolicyViolation, kafka.Rejected},
	} {
		harness.failNext(test.cause)
		file.lines += 10
		if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
			t.Fatal(err)
		}
		want.Read += 10
		if failures[test.class]++; test.class == kafka.Rejected {
			want.Lost += 10
		} else {
			want.Delivered += 10
		}
		eventually(t, "the lines are done", func() bool { return shipper.Ledger() == want })
		eventually(t, "the checkpoint", func() bool { return safeUpTo(shipper.File(file.name)) == int64(file.lines*file.size) })
		for class, count := range failures {
			if got := shipper.counters.produceErrors[class].Load(); got != count {
				t.Errorf("%v: %d errors are %v, want %d", test.cause, got, kafka.ErrorClass(class), count)
			}
		}
	}
	if got := shipper.counters.discarded[lostRejected][pipeline.Dataset_LOG].Load(); got != 20 || shipper.counters.batches.Load() != 2 {
		t.Errorf("%d events are counted as rejected, %d batches as delivered", got, shipper.counters.batches.Load())
	}

	// Of a partition that Kafka does not know the number is asked for again.
	var questions atomic.Int64
	harness.broker.ControlKey(int16(kmsg.Metadata), func(kmsg.Request) (kmsg.Response, error, bool) {
		harness.broker.KeepControl()
		questions.Add(1)
		return nil, nil, false
	})
	harness.failNext(kerr.UnknownTopicOrPartition)
	file.lines += 10
	if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
		t.Fatal(err)
	}
	want.Read, want.Delivered = want.Read+10, want.Delivered+10
	eventually(t, "the lines are delivered", func() bool { return shipper.Ledger() == want })
	eventually(t, "a question for the partitions", func() bool { return questions.Load() > 0 && !shipper.health.topicDoubtful.Load() })
	if got := harness.closeShipper(shipper); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
