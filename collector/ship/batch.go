package ship

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/pipeline"
)

// The keys in front of an event and a container in an encoded pipeline.Batch: field number and wire type 2.
const (
	eventKey     = 10<<3 | 2
	containerKey = 9<<3 | 2
)

// maxShared bounds the metadata of containers, once for each of their events, in a batch: an engine has it in
// each row, and refuses a batch that takes more than 64 MiB with its decoded events.
const maxShared = 32 << 20

// maxContainer is the encoded size above which a container's metadata is reduced to its ids and names.
const maxContainer = 16 << 10

var (
	errFull     = errors.New("the batch is full")
	errTooLarge = errors.New("the event is larger than a batch")
)

// A batch is a Kafka message under construction: an encoded pipeline.Batch. Each event is encoded when it is shipped, so
// that the buffered bytes are known and the event can be reused. Protobuf allows fields in any order: the metadata of a
// container stands in front of the first event that refers to it, and the header with the batch's id is appended last.
type batch struct {
	id         uint64 // differs between two uses of one pooled batch
	buf        []byte
	eventCount int
	counts     datasetCounts
	containers map[*pipeline.Container]uint32 // index + 1 of each container in buf
	sizes      []int                          // of the containers, encoded, in the order of their indices
	shared     int                            // sizes of the containers that own the events, once for each event
	ranges     []*batchRange
	openedAt   int64       // when the first event was added, in ns
	charged    int         // bytes that were charged to the budget: the capacity of buf
	unreadable atomic.Bool // it has a line that cannot be read again: it may go to the spool

	bufferShared bool // a request that failed may still be reading buf
}

// A batchRange is the range of lines of one file that a batch holds: those that end behind after, up to end.
//
// end and count grow under the batcher's lock while the batch is open, and do not change afterwards. In a
// recovered range they change when its replay is abandoned, under the file's and the sender's lock.
type batchRange struct {
	file   *fileProducer
	after  int64
	end    collector.Checkpoint
	count  uint32       // lines
	replay *rangeReplay // set if an earlier process made the range

	// Guarded by the file's lock.
	batch *batch // nil: the lines are safe
	done  bool   // the lines are safe, or lost and counted
}

// isRemovable reports whether r can be removed from the file's list of ranges when it is the first of them.
// The file's lock must be held.
func (r *batchRange) isRemovable() bool { return r.done && (r.replay == nil || r.replay.passed) }

// touches reports whether r and next are finished ranges of this process, and next begins where r ends. The
// file's lock must be held.
func (r *batchRange) touches(next *batchRange) bool {
	return r.done && next.done && r.replay == nil && next.replay == nil && r.end.End == next.after
}

// toJournal returns r as a range of the journal.
func (r *batchRange) toJournal() journal.Range {
	return journal.Range{File: r.file.id, After: r.after, End: r.end, Events: r.count}
}

// toJournal returns b as a batch of the journal.
func (b *batch) toJournal(id batchID) journal.Batch {
	out := journal.Batch{ID: id, Ranges: make([]journal.Range, len(b.ranges))}
	for i, lines := range b.ranges {
		out.Ranges[i] = lines.toJournal()
	}
	return out
}

var (
	batchPool = sync.Pool{New: func() any { return &batch{containers: map[*pipeline.Container]uint32{}} }}
	batchIDs  atomic.Uint64
)

func newBatch() *batch {
	b := batchPool.Get().(*batch)
	b.id = batchIDs.Add(1)
	return b
}

// recycle returns b to the pool. The caller holds the only reference. A buffer that a failed request may
// still be reading is not reused.
func (b *batch) recycle() {
	clear(b.containers)
	clear(b.ranges)
	if !b.bufferShared {
		releaseBuffer(b.buf)
	}
	*b = batch{containers: b.containers, sizes: b.sizes[:0], ranges: b.ranges[:0]}
	batchPool.Put(b)
}

// addEvent appends event and replaces its containers by indices. If b would become larger than limit, it
// leaves b and event unchanged and returns errFull, or errTooLarge if b has no event.
func (b *batch) addEvent(event *pipeline.Event, limit int) error {
	// 1. Replace the containers of event by indices. The metadata of containers that are new to b is
	// appended.
	length, known := len(b.buf), len(b.containers)
	owner := event.Container
	event.Container, event.Host, event.Ingested = nil, nil, 0
	event.ContainerIndex = b.internContainer(owner, limit)
	source, destination := b.internEndpoint(event.Source, limit), b.internEndpoint(event.Destination, limit)

	// 2. Undo that if event does not fit.
	size := event.SizeVT()
	if len(b.buf)+size+8 > limit {
		b.truncate(length, known)
		event.Container = owner
		setContainer(event.Source, source)
		setContainer(event.Destination, destination)
		if b.eventCount == 0 {
			return errTooLarge
		}
		return errFull
	}

	// 3. Encode event behind its key and size.
	b.buf = appendKeyAndSize(reserve(b.buf, maxKeyAndSize+size, limit), eventKey, size)
	at := len(b.buf)
	b.buf = b.buf[:at+size]
	if _, err := event.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		b.truncate(length, known)
		return err
	}
	b.eventCount++
	b.counts[datasetIndex(event)]++
	for _, index := range [...]uint32{event.ContainerIndex, event.GetSource().GetContainerIndex(), event.GetDestination().GetContainerIndex()} {
		if index > 0 {
			b.shared += b.sizes[index-1]
		}
	}
	return nil
}

// internEndpoint replaces the container of an endpoint by its index and returns the container.
func (b *batch) internEndpoint(endpoint *pipeline.Endpoint, limit int) *pipeline.Container {
	if endpoint == nil {
		return nil
	}
	container := endpoint.Container
	endpoint.Container = nil
	endpoint.ContainerIndex = b.internContainer(container, limit)
	return container
}

func setContainer(p *pipeline.Endpoint, c *pipeline.Container) {
	if p != nil {
		p.Container = c
	}
}

// internContainer returns the index + 1 of container in b, and appends its metadata if it is new; 0: no
// container.
func (b *batch) internContainer(container *pipeline.Container, limit int) uint32 {
	if container == nil {
		return 0
	}
	if index, ok := b.containers[container]; ok {
		return index
	}
	index := uint32(len(b.containers) + 1)
	b.containers[container] = index

	// Metadata that is too large is reduced to ids and names, each cut to 1 KiB.
	size := container.SizeVT()
	metadata := container
	if size > maxContainer {
		metadata = &pipeline.Container{
			Id: firstKiB(container.Id), Name: firstKiB(container.Name),
			Image: firstKiB(container.Image), ImageId: firstKiB(container.ImageId),
			Demo: container.Demo,
		}
		size = metadata.SizeVT()
	}
	b.sizes = append(b.sizes, size)
	b.buf = appendKeyAndSize(reserve(b.buf, maxKeyAndSize+size, limit), containerKey, size)
	at := len(b.buf)
	b.buf = b.buf[:at+size]
	if _, err := metadata.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		panic("ship: a container that was measured does not fit: " + err.Error())
	}
	return index
}

func firstKiB(s string) string { return s[:min(len(s), 1<<10)] }

// truncate resets b to a state in which its buffer had that length and b had that many containers.
func (b *batch) truncate(length, containers int) {
	b.buf = b.buf[:length]
	if len(b.containers) == containers {
		return
	}
	for container, index := range b.containers {
		if int(index) > containers {
			delete(b.containers, container)
		}
	}
	b.sizes = b.sizes[:containers]
}

// appendHeader appends the header of the batch. A reader uses the last header if there are several.
func (b *batch) appendHeader(header *pipeline.Batch) {
	size := header.SizeVT()
	at := len(b.buf)
	b.buf = reserve(b.buf, size, 0)[:at+size]
	if _, err := header.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		panic("ship: a header that was measured does not fit: " + err.Error())
	}
}

func appendKeyAndSize(buf []byte, key byte, size int) []byte {
	return binary.AppendUvarint(append(buf, key), uint64(size))
}

// maxKeyAndSize is the most that appendKeyAndSize appends.
const maxKeyAndSize = 1 + binary.MaxVarintLen64
