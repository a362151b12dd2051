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
func (p *packetProducer) TryShip(e *pipeline.Event) bool {
	s := p.shipper
	index := dataset(e)
	s.counters.read[index].Add(1)
	if s.closing.Load() {
		s.counters.discarded[dropClosed][index].Add(1)
		pipeline.ReleaseEvent(e)
		return false
	}
	if sheds(e, s.packetBudget.used.Load(), s.packetBudget.limit()) {
		s.counters.discarded[s.shedReason()][index].Add(1)
		pipeline.ReleaseEvent(e)
		return false
	}
	return p.router.partitionOf(e).packets.addPacketEvent(e)
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
func (c *partitionCache) partitionOf(e *pipeline.Event) *partition {
	partitions := c.shipper.partitions.Load()
	if c.home == nil || c.partitions != partitions || c.owner != e.Container {
		key := c.shipper.host.Id
		if e.Container != nil {
			key = e.Container.Id
		}
		c.partitions, c.owner = partitions, e.Container
		c.home = (*partitions)[partitionFor(key, len(*partitions))]
	}
	return c.home
}
