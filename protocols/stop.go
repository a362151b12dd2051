package protocols

import "tidegate/pipeline"

// stopDir stands for the direction in the id of an event of emitStop, so that no event of a message has it.
const stopDir = 2

// Stop emits an event that says why the rest of the connection is not parsed, and drops it. tag is the reason,
// one of pipeline.Tags. A parser calls Stop instead of Drop if the observed party has the choice: compression,
// a version that is not supported.
func (c *Conn) Stop(tag string) {
	c.emitStop(tag)
	c.Drop()
}

// emitStop emits an event that says that bytes of the connection were not parsed. It belongs to the dataset of
// the protocol. Of a connection that is stopped again and again it emits the first event, the second, the
// fourth and so on.
func (c *Conn) emitStop(tag string) {
	c.stops++
	if c.lastProto == noProtocol || c.emit == nil || c.stops&(c.stops-1) != 0 {
		return
	}
	dir := c.lastSender
	event := c.newEvent(dir^c.flip, 0)
	id := pipeline.TransactionID(c.info.Session, stopDir, uint64(c.stops))
	event.Id = append(event.Id[:0], id[:]...)
	event.Dataset = c.set.list[c.lastProto].Dataset
	event.Timestamp = c.streams[dir].lastAt
	event.Partial = true
	event.AddTag(pipeline.TagParsingStopped)
	event.AddTag(tag)
	if newBody := pipeline.Datasets[event.Dataset.Index()].NewBody; newBody != nil {
		newBody(event)
	}
	c.Emit(event)
}
