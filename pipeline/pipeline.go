// Package pipeline holds the schema of events and the contracts between the stages that an event passes.
//
// One type goes all the way, *Event. A parser or a log reader fills it in, the collector's shipper puts it
// into a Batch, Kafka carries the Batch, a worker of the engine runs Detectors on it and appends it to the
// columns of ClickHouse. The type is generated from event.proto (generate.sh). Two tables describe it:
// Datasets has a row for each kind of event, Fields a row for each property, with its name, getter, place and
// column. Rules, the store, JSON (AppendJSON, FromJSON), shedding and docs/FIELDS.md go by these tables.
//
// The contracts are Detector and Bundle (what evaluates a block), Alert (what comes of verdicts),
// EventInserter and the types of store.go (what stores a block), BatchID and Position (which batch and row an
// event is).
//
// The stages are sub-packages: kafka and consumer (transport), engine (the worker's loop), clickhouse
// (schema, blocks, queries), alerts (grouping and delivery), embedded (the broker and ClickHouse that run
// brings along). Shared machinery is in config, redact, retry, statedir, metrics and logging.
package pipeline

// Schema is the version of event.proto that this binary writes and reads, in Batch.schema.
const Schema = 1

// The short names of the topics. The full names have a prefix, "tidegate" unless configured.
const (
	TopicEvents     = "events"     // Batch; all events of one owner are in one partition
	TopicAlerts     = "alerts"     // Alert in JSON; the key is its fingerprint
	TopicDeadLetter = "deadletter" // the bytes of a record that could not be used; headers say from where, and why
)

// A Detector evaluates a block of events and appends its verdicts to them (Event.Verdicts). Several workers
// call it at once, each with a block of its own. It does no I/O, never blocks, and its cost per event is
// bounded. It keeps no reference to an event or to a string of one: they lie in the buffer of a Kafka record,
// which is reused after the block. It clones what it keeps.
type Detector interface {
	Evaluate(block []*Event)
}

// A Bundle is the set of detectors that evaluate a block. It is immutable; a reload replaces the whole Bundle
// between two blocks.
type Bundle struct {
	Version   string // hash of the rules, feeds and models; part of the write-ahead intent
	Detectors []Detector
}

// A Position says where an event was read from: its place in Kafka and its batch.
type Position struct {
	Partition int32
	Offset    int64  // of the message
	Index     uint32 // within the message
	BatchID
}

// A BatchID names a batch of a partition: two batches of a partition with the same BatchID are the same
// batch. Epoch is drawn at random each time that the collector starts, Sequence counts up from 1.
type BatchID struct {
	Collector [16]byte
	Epoch     uint64
	Sequence  uint64
}

// ReleaseBatch returns b and its events to their pools. It first drops the slices into the record's buffer
// that UnmarshalVTUnsafe set: the next owner of a pooled slice appends to it, and would write into that
// buffer.
func ReleaseBatch(batch *Batch) {
	batch.Collector = nil
	for _, e := range batch.Events {
		detachBuffer(e)
	}
	batch.ReturnToVTPool()
}

// ReleaseEvent returns an event that was not decoded from a buffer to its pool, and keeps the capacity of its
// byte fields.
func ReleaseEvent(e *Event) { e.ReturnToVTPool() }

// detachBuffer drops every byte slice of e, and the messages that e shares with other events.
func detachBuffer(e *Event) {
	e.Id, e.CommunityId = nil, nil
	e.Container, e.Host = nil, nil
	for _, p := range [...]*Endpoint{e.Source, e.Destination} {
		if p != nil {
			p.Ip, p.NatIp, p.Container = nil, nil, nil
		}
	}
}

// ResolveReferences sets the container and host pointers of every event of b from the indexes that the batch
// is encoded with. An index that is out of range stands for no container.
func ResolveReferences(batch *Batch) {
	container := func(index uint32) *Container {
		if index == 0 || int(index) > len(batch.Containers) {
			return nil
		}
		return batch.Containers[index-1]
	}
	for _, event := range batch.Events {
		event.Host = batch.Host
		event.Container = container(event.ContainerIndex)
		if s := event.Source; s != nil {
			s.Container = container(s.ContainerIndex)
		}
		if d := event.Destination; d != nil {
			d.Container = container(d.ContainerIndex)
		}
	}
}
