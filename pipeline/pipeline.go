// Package pipeline is how an event travels: its type, the table of its fields, what judges it, and what comes of it.
//
// One type goes all the way, *Event: a parser or a log reader fills one in, the collector puts it into a Batch, Kafka carries that,
// the engine's worker has it judged by Detectors and appends it to ClickHouse's columns. The type is generated from event.proto
// (generate.sh); what its fields are called, mean and look like in ClickHouse is in Fields, the one list of them.
//
// The parts are sub-packages: kafka (clients, topics), engine (the worker's loop), clickhouse (schema, blocks, queries), alerts
// (fold, publisher), embedded (the small twins of Kafka and ClickHouse).
package pipeline

// Schema is the version of event.proto that this binary speaks, in Batch.schema.
const Schema = 1

// The topics. Their names begin with a prefix, "tidegate" unless configured.
const (
	TopicEvents     = "events"     // Batch, partition by owner
	TopicAlerts     = "alerts"     // Alert in JSON, key fingerprint
	TopicDeadLetter = "deadletter" // raw bytes; where from and why in headers
)

// A Detector judges a block of events and writes its verdicts onto them (Event.Verdicts). It is called by the worker that owns
// the block, by several workers at once: it does no I/O, never blocks, its cost per event is bounded, and it keeps no reference to
// an event, nor to any string reached from one (they lie in Kafka's buffer and die with the block; what lives longer is cloned).
type Detector interface {
	Evaluate(block []*Event)
}

// A Bundle is the set of detectors that judges a block: immutable, and swapped as a whole between two blocks.
type Bundle struct {
	Version   string // hash of what it was made of; it stands in the intent and is what an engine reports to run
	Detectors []Detector
}

// Position is where an event was read from: its place in Kafka and the stamp of its batch.
type Position struct {
	Partition int32
	Offset    int64  // of the message
	Index     uint32 // within the message
	BatchID
}

// A BatchID names a batch for ever: the same (collector, boot, partition) and sequence is the same batch.
type BatchID struct {
	Collector [16]byte
	Epoch     uint64
	Sequence  uint64
}

// ReleaseBatch gives b and its events back to their pools. The bytes that UnmarshalVTUnsafe made them point at are let go first: a
// pooled slice that still aliased Kafka's buffer would be appended to by its next owner.
func ReleaseBatch(b *Batch) {
	b.Collector = nil
	for _, e := range b.Events {
		detachBuffer(e)
	}
	b.ReturnToVTPool()
}

// ReleaseEvent gives an event that was filled in here, not decoded from a buffer, back to its pool, with the room of its byte fields.
func ReleaseEvent(e *Event) { e.ReturnToVTPool() }

func detachBuffer(e *Event) {
	e.Id, e.CommunityId = nil, nil
	e.Container, e.Host = nil, nil
	for _, p := range [...]*Endpoint{e.Source, e.Destination} {
		if p != nil {
			p.Ip, p.NatIp, p.Container = nil, nil, nil
		}
	}
}

// ResolveReferences lets every event of b name its containers and its host by pointer instead of by index. An index out of range is no
// container.
func ResolveReferences(b *Batch) {
	at := func(i uint32) *Container {
		if i == 0 || int(i) > len(b.Containers) {
			return nil
		}
		return b.Containers[i-1]
	}
	for _, e := range b.Events {
		e.Host = b.Host
		e.Container = at(e.ContainerIndex)
		if s := e.Source; s != nil {
			s.Container = at(s.ContainerIndex)
		}
		if d := e.Destination; d != nil {
			d.Container = at(d.ContainerIndex)
		}
	}
}
