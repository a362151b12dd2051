package consumer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/retry"
)

// watchInterval is the pause between two looks at the partitions of a topic.
var watchInterval = 5 * time.Second

// watchAssignment returns when partitions of the topic belong to no member of the group, or when ctx ends. Its return
// ends the generation, and the members join again.
//
// A group assigns the partitions that its leader knows of. A leader that joins at the moment at which the topic is
// away assigns none, and kafka-go does not always notice when the topic is back: all members would be idle for good.
func (c Config) watchAssignment(ctx context.Context, log *slog.Logger) {
	// The first look may be at a moment between two generations, so the second decides.
	for unassignedBefore := false; retry.Sleep(ctx, watchInterval) == nil; {
		partitions, assigned, err := c.countAssigned(ctx)
		if err != nil {
			unassignedBefore = false // the methods of the partitions report an error that stays
			continue
		}
		isUnassigned := assigned < partitions
		if isUnassigned && unassignedBefore {
			log.Error("partitions of the topic belong to no member of the group, joining it again",
				"group", c.Group, "topic", c.Topic, "partitions", partitions, "assigned", assigned)
			return
		}
		unassignedBefore = isUnassigned
	}
}

// errRebalancing is returned while the group is not stable.
var errRebalancing = errors.New("the group is rebalancing")

// countAssigned returns the number of partitions of the topic, and how many of them belong to a member of the group.
func (c Config) countAssigned(ctx context.Context) (partitions, assigned int, err error) {
	if partitions, err = c.Client.Partitions(ctx, c.Topic); err != nil {
		return 0, 0, err
	}
	response, err := c.Client.Kafka().DescribeGroups(ctx, &kafkago.DescribeGroupsRequest{GroupIDs: []string{c.Group}})
	if err != nil {
		return 0, 0, err
	}
	if len(response.Groups) != 1 || response.Groups[0].Error != nil || response.Groups[0].GroupState != "Stable" {
		return 0, 0, errRebalancing
	}
	owned := map[int]bool{}
	for _, member := range response.Groups[0].Members {
		for _, topic := range member.MemberAssignments.Topics {
			if topic.Topic != c.Topic {
				continue
			}
			for _, partition := range topic.Partitions {
				owned[partition] = true
			}
		}
	}
	return partitions, len(owned), nil
}
