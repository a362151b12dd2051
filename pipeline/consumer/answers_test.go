package consumer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline/kafka"
)

// newLog returns a logger without times and what it has written.
func newLog() (*slog.Logger, *bytes.Buffer) {
	logged := &bytes.Buffer{}
	return slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{ReplaceAttr: withoutTime})), logged
}

func withoutTime(_ []string, attr slog.Attr) slog.Attr {
	if attr.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return attr
}

// The answers to requests about one partition, with an error for it.

func answerOffsetFetch(request kmsg.Request, partition int32, code int16) kmsg.Response {
	fetch := request.(*kmsg.OffsetFetchRequest)
	response := fetch.ResponseKind().(*kmsg.OffsetFetchResponse)
	part := kmsg.NewOffsetFetchResponseTopicPartition()
	part.Partition, part.ErrorCode, part.Offset = partition, code, 99
	topic := kmsg.NewOffsetFetchResponseTopic()
	for _, asked := range fetch.Topics {
		topic.Topic = asked.Topic
	}
	topic.Partitions = append(topic.Partitions, part)
	response.Topics = append(response.Topics, topic)
	return response
}

func answerOffsetCommit(request kmsg.Request, partition int32, code int16) kmsg.Response {
	commit := request.(*kmsg.OffsetCommitRequest)
	response := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
	part := kmsg.NewOffsetCommitResponseTopicPartition()
	part.Partition, part.ErrorCode = partition, code
	topic := kmsg.NewOffsetCommitResponseTopic()
	topic.Topic = commit.Topics[0].Topic
	topic.Partitions = append(topic.Partitions, part)
	response.Topics = append(response.Topics, topic)
	return response
}

func answerListOffsets(request kmsg.Request, partition int32, code int16) kmsg.Response {
	list := request.(*kmsg.ListOffsetsRequest)
	response := list.ResponseKind().(*kmsg.ListOffsetsResponse)
	part := kmsg.NewListOffsetsResponseTopicPartition()
	part.Partition, part.ErrorCode = partition, code
	topic := kmsg.NewListOffsetsResponseTopic()
	topic.Topic = list.Topics[0].Topic
	topic.Partitions = append(topic.Partitions, part)
	response.Topics = append(response.Topics, topic)
	return response
}

func answerFetch(request kmsg.Request, partition int32, code int16, batches []byte) kmsg.Response {
	fetch := request.(*kmsg.FetchRequest)
	response := fetch.ResponseKind().(*kmsg.FetchResponse)
	part := kmsg.NewFetchResponseTopicPartition()
	part.Partition, part.ErrorCode, part.HighWatermark, part.RecordBatches = partition, code, 100, batches
	topic := kmsg.NewFetchResponseTopic()
	topic.Topic = fetch.Topics[0].Topic
	topic.Partitions = append(topic.Partitions, part)
	response.Topics = append(response.Topics, topic)
	return response
}

// rawBatch returns a record batch from offset first to last that has records at offsets only: compaction has removed the others.
// The value of a record is its offset.
func rawBatch(first, last int64, attributes int16, offsets ...int64) []byte {
	var body []byte
	for _, offset := range offsets {
		record := kmsg.Record{OffsetDelta: int32(offset - first), Value: fmt.Append(nil, offset)}
		record.Length = int32(len(record.AppendTo(nil)) - 1)
		body = record.AppendTo(body)
	}
	batch := kmsg.RecordBatch{
		FirstOffset: first, Magic: 2, Attributes: attributes, LastOffsetDelta: int32(last - first), ProducerID: -1, ProducerEpoch: -1,
		FirstSequence: -1, NumRecords: int32(len(offsets)), Records: body,
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}

// damaged returns a record batch with a checksum that is wrong.
func damaged(batch []byte) []byte {
	out := bytes.Clone(batch)
	out[len(out)-1] ^= 1
	return out
}

// TestTemporaryErrorsOfKafkaAreRetried, and the first one is logged with what was requested. What the broker answers with an error is
// not used.
func TestTemporaryErrorsOfKafkaAreRetried(t *testing.T) {
	cluster, partition, client := newBroker(t)
	log, logged := newLog()
	partition.log = log
	produceOne(t, client, partition.Topic(), 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	code, about := kerr.CoordinatorLoadInProgress.Code, int32(0)
	var requests atomic.Int32
	check := func(what, request string, key kmsg.Key, fail func(kmsg.Request) kmsg.Response, call func() (string, error), want string) {
		t.Helper()
		logged.Reset()
		requests.Store(0)
		cluster.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) { // the first one only
			requests.Add(1)
			return fail(request), nil, true
		})
		got, err := call()
		line := fmt.Sprintf("level=WARN msg=retrying what=\"%s %s\" attempt=1 err=", request, partition)
		if err != nil || got != want || requests.Load() != 1 || strings.Count(logged.String(), "\n") != 1 || !strings.HasPrefix(logged.String(), line) {
			t.Errorf("%s: %s, %v, want %s; logged %s", what, got, err, want, logged)
		}
	}
	commit := func() (string, error) {
		if err := partition.Commit(ctx, 2, "m"); err != nil {
			return "", err
		}
		offset, metadata, err := partition.Committed(ctx)
		return fmt.Sprint(offset, " ", metadata), err
	}
	committed := func() (string, error) {
		offset, metadata, err := partition.Committed(ctx)
		return fmt.Sprint(offset, " ", metadata), err
	}
	bounds := func() (string, error) {
		first, end, err := partition.Bounds(ctx)
		return fmt.Sprint(first, " ", end), err
	}
	offsetAt := func() (string, error) {
		offset, err := partition.OffsetAt(ctx, time.Now().Add(-time.Hour))
		return fmt.Sprint(offset), err
	}
	read := func() (string, error) {
		record, found, err := partition.ReadRecord(ctx, 1)
		return fmt.Sprint(record.Offset, found), err
	}
	fetch := func() (string, error) {
		loop, _ := newFetchLoop(partition, 1)
		response, err := loop.fetch(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(response.HighWatermark, loop.pending.End, loop.identity.isInDoubt), nil
	}
	onCommit := func(request kmsg.Request) kmsg.Response { return answerOffsetCommit(request, about, code) }
	onCommitted := func(request kmsg.Request) kmsg.Response { return answerOffsetFetch(request, about, code) }
	onList := func(request kmsg.Request) kmsg.Response { return answerListOffsets(request, about, code) }
	onFetch := func(request kmsg.Request) kmsg.Response { return answerFetch(request, about, code, nil) }
	check("commit", "commit offset of", kmsg.OffsetCommit, onCommit, commit, "2 m")
	check("committed", "fetch committed offset of", kmsg.OffsetFetch, onCommitted, committed, "2 m")
	check("committed, of all partitions", "fetch committed offset of", kmsg.OffsetFetch, func(request kmsg.Request) kmsg.Response {
		response := answerOffsetFetch(request, about, 0).(*kmsg.OffsetFetchResponse)
		response.ErrorCode = code
		return response
	}, committed, "2 m")
	code = kerr.NotLeaderForPartition.Code
	check("bounds", "list offsets of", kmsg.ListOffsets, onList, bounds, "0 3")
	check("offset at a time", "seek by time in", kmsg.ListOffsets, onList, offsetAt, "0")
	check("a record", "read a record of", kmsg.Fetch, onFetch, read, "1 true")
	check("a fetch", "fetch", kmsg.Fetch, onFetch, fetch, "3 3 true")

	// An answer about another partition is none.
	code, about = 0, 7
	check("commit of another partition", "commit offset of", kmsg.OffsetCommit, onCommit, commit, "2 m")
	if !strings.Contains(logged.String(), "the response does not name the partition") {
		t.Error(logged)
	}
	check("committed of another partition", "fetch committed offset of", kmsg.OffsetFetch, onCommitted, committed, "2 m")
	if !strings.Contains(logged.String(), "the response does not name the partition") {
		t.Error(logged)
	}
}

// TestFencedCommitIsNotRetried: another member owns the partition. Every other error is temporary.
func TestFencedCommitIsNotRetried(t *testing.T) {
	cluster, partition, _ := newBroker(t)
	for cause, fenced := range map[*kerr.Error]bool{
		kerr.IllegalGeneration: true, kerr.UnknownMemberID: true, kerr.RebalanceInProgress: true,
		kerr.CoordinatorNotAvailable: false, kerr.OffsetMetadataTooLarge: false, kerr.GroupAuthorizationFailed: false,
	} {
		cluster.ControlKey(int16(kmsg.OffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return answerOffsetCommit(request, 0, cause.Code), nil, true
		})
		if err := partition.commitOnce(t.Context(), 1, ""); errors.Is(err, ErrFenced) != fenced || !errors.Is(err, kafkago.Error(cause.Code)) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// TestOffsetWithoutARecordHasNone: compaction has removed it, it is the mark of a transaction, or its batch cannot be read.
func TestOffsetWithoutARecordHasNone(t *testing.T) {
	cluster, partition, _ := newBroker(t)
	check := func(what string, batches []byte, offset int64, want string) {
		t.Helper()
		cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return answerFetch(request, 0, 0, batches), nil, true
		})
		record, found, err := partition.ReadRecord(t.Context(), offset)
		if err != nil || found != (want != "") || string(record.Value) != want || found && record.Offset != offset {
			t.Errorf("%s: %d %q, %t, %v, want %q", what, record.Offset, record.Value, found, err, want)
		}
	}
	compacted := rawBatch(10, 19, 0, 12, 13, 17)
	check("a record", compacted, 13, "13")
	check("the last record", compacted, 17, "17")
	check("before the first record", compacted, 11, "")
	check("between two records", compacted, 14, "")
	check("behind the last record", compacted, 19, "")
	check("behind another batch", append(rawBatch(0, 9, 0, 9), compacted...), 12, "12")
	check("before the batch", compacted, 9, "")
	check("behind the batch", compacted, 20, "")
	const control = 0x20
	check("the mark of a transaction", rawBatch(10, 10, control, 10), 10, "")
	check("a damaged batch", damaged(compacted), 13, "")
	check("no batch", nil, 13, "")
}

// TestDamagedBatchIsFetchedAgain: the batches before it are used; after six times it is one unreadable record, which is logged.
func TestDamagedBatchIsFetchedAgain(t *testing.T) {
	cluster, partition, _ := newBroker(t)
	log, logged := newLog()
	partition.log = log
	good, bad, behind := rawBatch(10, 12, 0, 10, 11, 12), damaged(rawBatch(13, 15, 0, 13, 14, 15)), rawBatch(16, 16, 0, 16)
	loop, chunks := newFetchLoop(partition, 11)
	step := func(what, want string, retries int, next int64) {
		t.Helper()
		cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return answerFetch(request, 0, 0, bytes.Join([][]byte{good, bad, behind}, nil)), nil, true
		})
		response, err := loop.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err = loop.sendBatches(t.Context(), response)
		if paused := time.Since(began) >= damagePause; err != nil || paused != (retries > 0) {
			t.Errorf("%s: %v, paused %t", what, err, paused)
		}
		chunk := <-chunks
		var got []string
		for _, record := range chunk.Records {
			if record.Err != nil {
				if !errors.Is(record.Err, kafka.ErrDamaged) || !bytes.Equal(record.Value, bad) {
					t.Errorf("%s: %v, %q", what, record.Err, record.Value)
				}
				record.Value = []byte("unreadable")
			}
			got = append(got, fmt.Sprintf("%d:%s", record.Offset, record.Value))
		}
		if text := strings.Join(got, " "); text != want || loop.retries != retries || loop.next != next || chunk.Next != next || chunk.End != 100 || len(chunks) != 0 {
			t.Errorf("%s: %s, retries %d, next %d, %+v", what, text, loop.retries, loop.next, chunk)
		}
	}
	step("damaged", "11:11 12:12", 1, 13)
	step("damaged again", "", 2, 13)
	if logged.Len() > 0 {
		t.Errorf("logged %s", logged)
	}
	loop.retries = retriesOfDamaged
	step("damaged for good", "15:unreadable 16:16", 0, 17)
	want := fmt.Sprintf("level=ERROR msg=\"record batch is unreadable\" topic=%s partition=0 from=13 to=15 err=", partition.Topic())
	if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, want) {
		t.Errorf("logged %s, want %s", got, want)
	}
}

// TestOldestMarkOfALogIsCompared: if the log holds it, the newest one is the next to be compared.
func TestOldestMarkOfALogIsCompared(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 3)
	identity := &logIdentity{}
	if err := identity.begin(t.Context(), partition, 1); err != nil || identity.anchor.last != 0 || identity.anchor.checksum == 0 || identity.newest != identity.anchor {
		t.Fatalf("%+v, %v", identity, err)
	}
	batch, found, err := partition.readBatchAt(t.Context(), 2)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	identity.addBatch(batch)
	identity.addBatch(kafka.RecordBatch{First: 9, Last: 9}) // it has no checksum
	if identity.anchor.last != 0 || identity.newest.last != 2 {
		t.Errorf("%+v", identity)
	}
	compare := func(what, want string) {
		t.Helper()
		identity.isInDoubt = true
		err := identity.compare(t.Context(), partition)
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrLogReplaced) || !strings.HasSuffix(err.Error(), want)) || identity.isInDoubt != (err != nil) {
			t.Errorf("%s: %v, in doubt %t, want %s", what, err, identity.isInDoubt, want)
		}
	}
	identity.newest.checksum++
	compare("the oldest mark is in the log", "")
	if identity.anchor != identity.newest {
		t.Errorf("%+v", identity)
	}
	compare("another batch", "it has another record batch at offset 2")
	identity.anchor = logMark{first: 3, last: 3, checksum: 1}
	compare("behind the end", "it ends at offset 3, 3 was read")
	identity.anchor = logMark{}
	compare("no oldest mark", "it has another record batch at offset 2")
	identity.newest = logMark{}
	compare("no mark", "")
}

// answerGroups returns the answer to a question for a group in a state, whose members own partitions of topics.
func answerGroups(request kmsg.Request, state string, code int16, topics []string, members ...[]int32) *kmsg.DescribeGroupsResponse {
	response := request.ResponseKind().(*kmsg.DescribeGroupsResponse)
	group := kmsg.NewDescribeGroupsResponseGroup()
	group.Group, group.State, group.ErrorCode, group.ProtocolType, group.Protocol = "g", state, code, "consumer", "range"
	for i, partitions := range members {
		assignment := kmsg.NewConsumerMemberAssignment()
		assignment.Topics = append(assignment.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: topics[i], Partitions: partitions})
		metadata := kmsg.NewConsumerMemberMetadata()
		metadata.Topics = topics[i : i+1]
		member := kmsg.NewDescribeGroupsResponseGroupMember()
		member.MemberID, member.MemberAssignment, member.ProtocolMetadata = fmt.Sprint(i), assignment.AppendTo(nil), metadata.AppendTo(nil)
		group.Members = append(group.Members, member)
	}
	response.Groups = append(response.Groups, group)
	return response
}

// newThreePartitions returns a broker whose events topic has three partitions.
func newThreePartitions(t *testing.T, assign string) (*kfake.Cluster, Config) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign, cfg.Partitions = cluster.ListenAddrs(), assign, 3
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	return cluster, Config{Client: client, Topic: client.Topic("events"), Group: "g"}
}

// TestPartitionsWithAnOwnerAreCounted, each once and those of the topic only, while the group is stable.
func TestPartitionsWithAnOwnerAreCounted(t *testing.T) {
	cluster, cfg := newThreePartitions(t, kafka.AssignGroup)
	check := func(what string, want int, ok bool, answer func(request kmsg.Request) *kmsg.DescribeGroupsResponse) {
		t.Helper()
		cluster.ControlKey(int16(kmsg.DescribeGroups), func(request kmsg.Request) (kmsg.Response, error, bool) {
			return answer(request), nil, true
		})
		partitions, assigned, err := cfg.countAssigned(t.Context())
		if ok && (partitions != 3 || assigned != want || err != nil) || !ok && (err == nil || partitions != 0 || assigned != 0) {
			t.Errorf("%s: %d of %d, %v", what, assigned, partitions, err)
		}
	}
	of := func(state string, code int16, topics []string, members ...[]int32) func(kmsg.Request) *kmsg.DescribeGroupsResponse {
		return func(request kmsg.Request) *kmsg.DescribeGroupsResponse {
			return answerGroups(request, state, code, topics, members...)
		}
	}
	topic := cfg.Topic
	check("all of one member", 3, true, of("Stable", 0, []string{topic}, []int32{0, 1, 2}))
	check("of two members", 3, true, of("Stable", 0, []string{topic, topic}, []int32{0, 2}, []int32{1}))
	check("one has two owners", 2, true, of("Stable", 0, []string{topic, topic}, []int32{0, 2}, []int32{2}))
	check("of another topic", 1, true, of("Stable", 0, []string{"other", topic}, []int32{0, 1, 2}, []int32{1}))
	check("no member", 0, true, of("Stable", 0, nil))
	check("rebalancing", 0, false, of("PreparingRebalance", 0, []string{topic}, []int32{0, 1, 2}))
	check("an error", 0, false, of("Stable", kerr.GroupAuthorizationFailed.Code, []string{topic}, []int32{0, 1, 2}))
	cluster.ControlKey(int16(kmsg.DescribeGroups), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("the connection is lost"), true
	})
	if partitions, assigned, err := cfg.countAssigned(t.Context()); partitions != 0 || assigned != 0 || err == nil {
		t.Errorf("no answer: %d of %d, %v", assigned, partitions, err)
	}
	check("no group", 0, false, func(request kmsg.Request) *kmsg.DescribeGroupsResponse {
		return request.ResponseKind().(*kmsg.DescribeGroupsResponse)
	})
}

// TestGroupIsJoinedAgainAfterTwoLooks in a row at which a partition had no owner. One look may be between two generations.
func TestGroupIsJoinedAgainAfterTwoLooks(t *testing.T) {
	lookOften(t)
	watchInterval = 5 * time.Millisecond
	cluster, cfg := newThreePartitions(t, kafka.AssignGroup)
	log, logged := newLog()
	all, some := []int32{0, 1, 2}, []int32{0, 1}
	states := []struct {
		state    string
		assigned []int32
	}{{"Stable", some}, {"PreparingRebalance", all}, {"Stable", some}, {"Stable", all}, {"Stable", some}, {"Stable", some}, {"Stable", all}}
	var looks atomic.Int32
	cluster.ControlKey(int16(kmsg.DescribeGroups), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		now := states[min(int(looks.Add(1))-1, len(states)-1)]
		return answerGroups(request, now.state, 0, []string{cfg.Topic}, now.assigned), nil, true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg.watchAssignment(ctx, log)
	want := "level=ERROR msg=\"partitions of the topic belong to no member of the group, joining it again\" group=g topic=" + cfg.Topic +
		" partitions=3 assigned=2\n"
	if ctx.Err() != nil || looks.Load() != 6 || logged.String() != want {
		t.Errorf("%d looks, %v, logged %s, want %s", looks.Load(), ctx.Err(), logged, want)
	}
	logged.Reset()
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	cfg.watchAssignment(short, log)
	if short.Err() == nil || looks.Load() < 7 || logged.Len() > 0 {
		t.Errorf("a group with all partitions: %d looks, logged %s", looks.Load(), logged)
	}
}
