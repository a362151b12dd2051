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

// TryShip encodes event into the open batch of its partition. It returns false if event was shed, is larger
// than a batch, or was shipped after Close.
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
	return p.router.partitionOf(event.Container).packets.addPacketEvent(event)
}

// Close does nothing: p holds no events.
func (p *packetProducer) Close() {}

// A partitionCache finds the partition of an event. It caches the partition of the last container, because
// successive events often belong to one container.
type partitionCache struct {
	shipper    *Shipper
	partitions *[]*partition       // the partitions in use when home was found
	owner      *pipeline.Container // container of the last event; nil: the host
	home       *partition          // the partition of owner; nil: the cache is empty
}

// partitionOf returns the partition of the events of container: a hash of its id, or of the host's id without a
// container. Events of one container have one partition while the number of partitions does not change.
func (c *partitionCache) partitionOf(container *pipeline.Container) *partition {
	partitions := c.shipper.partitions.Load()
	if c.home == nil || c.partitions != partitions || c.owner != container {
		key := c.shipper.host.Id
		if container != nil {
			key = container.Id
		}
		c.partitions, c.owner = partitions, container
		c.home = (*partitions)[partitionFor(key, len(*partitions))]
	}
	return c.home
}
