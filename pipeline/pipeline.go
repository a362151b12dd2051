// Package pipeline holds the schema of events and the contracts between the stages that an event passes.
//
// One type, *Event, passes through all stages. A parser or a log reader fills it in, the collector's shipper
// puts it into a Batch, Kafka carries the Batch, and a worker of the engine runs Detectors on the event and
// appends it to the columns of ClickHouse. Event is generated from event.proto (generate.sh).
//
// Two tables describe events. Datasets has a row for each kind of event. Fields has a row for each property,
// with its name, getter, path and column. The rule compiler, the store, JSON (AppendJSON, FromJSON), shedding
// and docs/FIELDS.md are driven by these tables.
//
// The contracts are Detector and Bundle (evaluation of a block), Alert (the result of grouping verdicts),
// EventInserter and the other types of store.go (storage of a block), BatchID and Position (identity of a
// batch and of a row).
//
// The stages are sub-packages: kafka and consumer (transport), engine (the worker's loop), clickhouse
// (schema, blocks, queries), alerts (grouping and delivery), embedded (the broker and the ClickHouse of
// `tidegate run`). Shared machinery is in config, redact, retry, statedir, metrics and logging.
package pipeline

// Schema is the version of event.proto that this binary writes and reads, in Batch.schema.
const Schema = 1

// The short names of the topics. The full names have a prefix, "tidegate" unless configured.
const (
	TopicEvents     = "events"     // Batch; all events of one container, or of the host, are in one partition
	TopicSignals    = "signals"    // SignalBlock; all signals of one group of a rule are in one partition
	TopicAlerts     = "alerts"     // Alert in JSON; the key is its fingerprint
	TopicDeadLetter = "deadletter" // records that could not be processed; headers hold their position and the reason

	TopicBundles = "bundles" // signed bundles of rules and feeds, compacted; the key has the sequence of the bundle
	TopicEngines = "engines" // what each engine runs, in JSON, compacted; the key is the engine
)

// A Detector evaluates a block of events and appends its verdicts to Event.Verdicts. Several workers call a
// Detector concurrently, each with its own block. A Detector does no I/O, never blocks, and has a bounded
// cost per event. It must clone every string that it keeps, and must not keep an event: strings alias the
// buffer of a Kafka record, and events are pooled and reused after the block.
type Detector interface {
	Evaluate(block []*Event)
}

// A Bundle is the set of detectors that evaluate a block. It is immutable; a reload replaces the whole Bundle
// between two blocks.
type Bundle struct {
	Version   string // hash of the rules, feeds and models; part of the write-ahead intent
	Detectors []Detector
	// Policies say how the matches of some rules become alerts, by rule.
	Policies map[string]AlertPolicy
}

// A Position locates an event in the events topic: the message in Kafka, the index within the message, and
// the batch, with its time where the event needs it.
type Position struct {
	Partition int32
	Offset    int64  // of the message
	Index     uint32 // of the event within the message
	BatchID
	// Shipped is when the batch was shipped, ns since 1970, if the event has a later time; else 0. The window
	// of an alert begins at the earlier one.
	Shipped int64
}

// A BatchID identifies a batch within a partition: two batches of a partition with the same BatchID are
// copies. Epoch is a random number, new at each start of the collector, Sequence counts up from 1.
type BatchID struct {
	Collector [16]byte
	Epoch     uint64
	Sequence  uint64
}

// Bounds of what a pool keeps. A pooled object keeps the capacity of its lists, so that without a bound one
// large message after the other would make all objects large.
const (
	maxPooledEvents     = 8192 // of a batch
	maxPooledContainers = 1024 // of a batch
	maxPooledList       = 64   // elements of a list of an event
)

// ReleaseBatch returns batch and its events to their pools. It first clears the byte slices and strings that
// UnmarshalVTUnsafe made alias the record's buffer: the next owner of a pooled slice appends to it and would
// overwrite that buffer, and a string in the unused capacity of a list would keep the buffer in memory. What
// is large is left to the garbage collector.
func ReleaseBatch(batch *Batch) {
	batch.Collector = nil
	for _, event := range batch.Events {
		detachBuffer(event)
	}
	if cap(batch.Containers) > maxPooledContainers {
		batch.Containers = nil
	}
	if cap(batch.Events) > maxPooledEvents {
		batch.Events = nil
	}
	batch.ReturnToVTPool()
}

// ReleaseEvent returns an event to its pool. The event must not be decoded from a buffer, because its byte
// fields keep their capacity.
func ReleaseEvent(e *Event) { e.ReturnToVTPool() }

// detachBuffer clears every byte slice and every list of the event, and its pointers to messages that events
// share.
func detachBuffer(event *Event) {
	event.Id, event.CommunityId = nil, nil
	event.Container, event.Host = nil, nil
	for _, endpoint := range [...]*Endpoint{event.Source, event.Destination} {
		if endpoint != nil {
			endpoint.Ip, endpoint.NatIp, endpoint.Container = nil, nil, nil
		}
	}
	if tunnel := event.Tunnel; tunnel != nil {
		tunnel.SourceIp, tunnel.DestinationIp = nil, nil
	}
	clearList(&event.Interfaces)
	clearList(&event.Tags)
	clearList(&event.Verdicts)
	if m := event.Dns; m != nil {
		clearList(&m.HeaderFlags)
		clearList(&m.AnswersName)
		clearList(&m.AnswersType)
		clearList(&m.AnswersData)
		clearList(&m.AnswersTtl)
		clearList(&m.ResolvedIp)
	}
	if m := event.Http; m != nil {
		clearList(&m.XForwardedFor)
		clearList(&m.Authorization)
		clearList(&m.RequestMarkers)
	}
	if m := event.Redis; m != nil {
		clearList(&m.Args)
	}
	if m := event.Tls; m != nil {
		clearList(&m.ClientAlpn)
		clearList(&m.ServerNames)
	}
	if m := event.Memcached; m != nil {
		clearList(&m.Keys)
	}
}

// clearList empties a list. It keeps the capacity unless it is large.
func clearList[T any](list *[]T) {
	if cap(*list) > maxPooledList {
		*list = nil
		return
	}
	clear(*list)
	*list = (*list)[:0]
}

// ResolveReferences sets the container and host pointers of every event of batch from the encoded container
// indexes. An index that is out of range stands for no container.
func ResolveReferences(batch *Batch) {
	// Indexes count from 1; 0 stands for no container.
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
