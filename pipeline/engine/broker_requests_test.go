package engine

import (
	"context"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
)

// request sends a request that kafka-go does not have.
func (h *harness) request(request kmsg.Request) kmsg.Response {
	h.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(h.client.Brokers()...))
	if err != nil {
		h.Fatal(err)
	}
	defer client.Close()
	response, err := client.Request(context.Background(), request)
	if err != nil {
		h.Fatal(err)
	}
	return response
}

// deleteGroup deletes the consumer group of the engine with its offsets.
func (h *harness) deleteGroup() {
	h.Helper()
	request := kmsg.NewPtrDeleteGroupsRequest()
	request.Groups = []string{"tidegate-engine"}
	waitUntil(h, "a deleted group", func() bool {
		response := h.request(request).(*kmsg.DeleteGroupsResponse)
		return len(response.Groups) == 1 && (response.Groups[0].ErrorCode == 0 ||
			response.Groups[0].ErrorCode == kerr.GroupIDNotFound.Code)
	})
}

// recreateTopic deletes a topic and creates it again. It keeps the messages of the events topic for
// expectedAlerts.
func (h *harness) recreateTopic(name string) {
	h.Helper()
	if name == pipeline.TopicEvents {
		for partition := range h.client.Config().Partitions {
			h.earlier[partition] = append(h.earlier[partition], h.read(name, partition)...)
		}
	}
	h.deleteTopic(name)
	waitUntil(h, "a topic created again", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := h.client.EnsureTopics(ctx, name)
		return err == nil
	})
}

// deleteTopic deletes a topic.
func (h *harness) deleteTopic(name string) {
	h.Helper()
	topic := h.client.Topic(name)
	request := kmsg.NewPtrDeleteTopicsRequest()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = &topic
	request.TopicNames, request.Topics, request.TimeoutMillis = []string{topic}, append(request.Topics, named), 5000
	h.request(request)
}

// deleteRecordsBefore deletes the messages of a partition before offset, as retention does.
func (h *harness) deleteRecordsBefore(name string, partition int, offset int64) {
	h.Helper()
	request := kmsg.NewPtrDeleteRecordsRequest()
	requestPartition := kmsg.NewDeleteRecordsRequestTopicPartition()
	requestPartition.Partition, requestPartition.Offset = int32(partition), offset
	requestTopic := kmsg.NewDeleteRecordsRequestTopic()
	requestTopic.Topic = h.client.Topic(name)
	requestTopic.Partitions = append(requestTopic.Partitions, requestPartition)
	request.Topics = append(request.Topics, requestTopic)
	request.TimeoutMillis = 5000
	waitUntil(h, "deleted messages", func() bool {
		h.request(request)
		first, _ := h.bounds(name, partition)
		return first == offset
	})
}

// setTopicConfig sets a setting of a topic; nil: to its default.
func (h *harness) setTopicConfig(name, key string, value *string) {
	h.Helper()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeTopic, h.client.Topic(name)
	setting := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	setting.Name, setting.Value, setting.Op = key, value, kmsg.IncrementalAlterConfigOpSet
	if value == nil {
		setting.Op = kmsg.IncrementalAlterConfigOpDelete
	}
	resource.Configs = append(resource.Configs, setting)
	request.Resources = append(request.Resources, resource)
	response := h.request(request).(*kmsg.IncrementalAlterConfigsResponse)
	for _, resource := range response.Resources {
		if resource.ErrorCode != 0 {
			h.Fatalf("set %s of %s: error %d", key, resource.ResourceName, resource.ErrorCode)
		}
	}
}

// describeGroup returns the members of the engine's group, and its state.
func (h *harness) describeGroup() kafkago.DescribeGroupsResponseGroup {
	h.Helper()
	response, err := h.client.Kafka().DescribeGroups(context.Background(), &kafkago.DescribeGroupsRequest{
		GroupIDs: []string{"tidegate-engine"},
	})
	if err != nil || len(response.Groups) != 1 {
		h.Fatalf("describe the group: %v", err)
	}
	return response.Groups[0]
}

// removeMembers removes the members of the engine's group, as the broker does when their session expires.
func (h *harness) removeMembers() {
	h.Helper()
	for _, member := range h.describeGroup().Members {
		request := kmsg.NewPtrLeaveGroupRequest()
		request.Group, request.MemberID = "tidegate-engine", member.MemberID
		leaving := kmsg.NewLeaveGroupRequestMember()
		leaving.MemberID = member.MemberID
		request.Members = append(request.Members, leaving)
		h.request(request)
	}
}

// waitGroupEmpty waits until the engine's group has no members.
func (h *harness) waitGroupEmpty() {
	h.Helper()
	waitUntil(h, "a group without members", func() bool { return len(h.describeGroup().Members) == 0 })
}
