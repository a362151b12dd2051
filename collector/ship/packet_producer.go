package ship

import (
	"tidegate/collector"
	"tidegate/pipeline"
)

// A packetProducer ships events that cannot be read again.
type packetProducer struct {
	shipper *Shipper
	router  partitionCache
}

var _ collector.PacketProducer = (*packetProducer)(nil)

// TryShip encodes e into the batch of its partition. It reports false when e was shed or does not fit into a
// batch.
func (p *packetProducer) TryShip(event *pipeline.Event) bool {
	shipper := p.shipper
	index := datasetIndex(event)
	shipper.counters.read[index].Add(1)
	if shipper.closing.Load() {
		shipper.counters.discarded[dropClosed][index].Add(1)
		pipeline.ReleaseEvent(event)
		return false
	}
	if shouldShed(event, shipper.packetBudget.used.Load(), shipper.packetBudget.limit()) {
		shipper.counters.discarded[shipper.shedReason()][index].Add(1)
		pipeline.ReleaseEvent(event)
		return false
	}
	return p.router.partitionOf(event).packets.addPacketEvent(event)
}

// Close has nothing to release: the events of p are in batches of the partitions.
func (p *packetProducer) Close() {}

// A partitionCache finds the partition of an event and remembers the last answer: events that follow one
// another are often of one container.
type partitionCache struct {
	shipper    *Shipper
	partitions *[]*partition // of which home is one
	owner      *pipeline.Container
	home       *partition // the partition of owner; nil: nothing is remembered
}

// partitionOf returns the partition of e. The events of one container are always in one partition.
func (c *partitionCache) partitionOf(event *pipeline.Event) *partition {
	partitions := c.shipper.partitions.Load()
	if c.home == nil || c.partitions != partitions || c.owner != event.Container {
		key := c.shipper.host.Id
		if event.Container != nil {
			key = event.Container.Id
		}
		c.partitions, c.owner = partitions, event.Container
		c.home = (*partitions)[partitionFor(key, len(*partitions))]
	}
	return c.home
}
