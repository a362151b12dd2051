package ship

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// isMissing reports whether Kafka has answered that the topic has no such partition. Batches keep their partition, and
// a topic that was deleted and created again may have fewer. Such batches are not sent until partitions were added.
func (s *Shipper) isMissing(partition int) bool {
	return s.health.topicKnown.Load() && partition >= len(*s.partitions.Load())
}

// missingPartitions returns the partitions that the topic lacks and for which events wait, and the number of these
// events.
func (s *Shipper) missingPartitions() (partitions []int, events uint64) {
	add := func(partition int, waiting uint64) {
		if waiting > 0 {
			partitions, events = append(partitions, partition), events+waiting
		}
	}
	for _, partition := range s.everyPartition() {
		if s.isMissing(partition.index) {
			add(partition.index, partition.files.bufferedEvents()+partition.packets.bufferedEvents())
		}
	}
	for _, sender := range s.everySender() {
		if s.isMissing(int(sender.partition)) {
			add(int(sender.partition), sender.bufferedEvents())
		}
	}
	slices.Sort(partitions)
	return slices.Compact(partitions), events
}

// missingError returns for which partitions events wait that the topic lacks, and the remedy; nil: for none.
func (s *Shipper) missingError() error {
	partitions, events := s.missingPartitions()
	if len(partitions) == 0 {
		return nil
	}
	const listed = 16
	var names []string
	for _, partition := range partitions[:min(len(partitions), listed)] {
		names = append(names, strconv.Itoa(partition))
	}
	if len(partitions) > listed {
		names = append(names, "…")
	}
	return fmt.Errorf("%d events wait for partitions that topic %s lacks (%s); it has %d: add partitions until it has %d",
		events, s.topic, strings.Join(names, ", "), len(*s.partitions.Load()), partitions[len(partitions)-1]+1)
}
