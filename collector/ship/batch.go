package ship

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"tidegate/collector"
	"tidegate/pipeline"
)

// The keys in front of an event and a container in a Batch: field number and wire type 2.
const (
	eventKey     = 10<<3 | 2
	containerKey = 9<<3 | 2
)

// maxContainer is how much a container may say of itself in a batch before its labels are left out.
const maxContainer = 16 << 10

var (
	errFull     = errors.New("the batch is full")
	errTooLarge = errors.New("the event is larger than a batch")
)

// A batch is one message for Kafka in the making. Events are encoded the moment they are shipped, so what waits is bytes, counted
// exactly, and the event is free for its next use. Protobuf lets fields come in any order: containers stand in front of the first
// event that names them, and the head of the batch, which has its stamp, is put behind everything when that is known.
type batch struct {
	id           uint64 // tells two lives of a pooled batch apart
	buf          []byte
	events       int
	counts       datasetCounts
	containers   map[*pipeline.Container]uint32
	ranges       []*batchRange
	openedAt     int64       // when the first event was added
	charged      int         // bytes that its room has been told of
	unreadable   atomic.Bool // something in it can not be read again
	bufferShared bool        // a request that failed may still be reading buf
}

// A batchRange is what a batch holds of one file: the lines that end behind after, up to end.
type batchRange struct {
	file  *fileProducer
	batch *batch // nil: the lines are safe
	after int64
	end   collector.Checkpoint
	count uint32
	done  bool // the lines are safe, or lost and counted

	replay *rangeReplay // of a batch that an earlier process made; else nil
}

// mayLeave reports whether the list of the file's ranges does not need r any more, once everything before r has
// left. The file's lock must be held.
func (r *batchRange) mayLeave() bool {
	switch {
	case !r.done:
		return false
	case r.replay == nil:
		return true
	case r.file.shipper == nil: // the journal is being read
		return r.after <= r.file.checkpoint.End
	}
	return r.replay.passed
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

// recycle gives b back. Nobody may hold it.
func (b *batch) recycle() {
	clear(b.containers)
	clear(b.ranges)
	buf := b.buf[:0]
	if b.bufferShared {
		buf = nil
	}
	*b = batch{buf: buf, containers: b.containers, ranges: b.ranges[:0]}
	batchPool.Put(b)
}

// addEvent encodes e behind what is there, with its containers as indices. It leaves b as it was if that would make it larger than limit.
func (b *batch) addEvent(e *pipeline.Event, limit int) error {
	was, known := len(b.buf), len(b.containers)
	owner := e.Container
	e.Container, e.Host, e.Ingested = nil, nil, 0
	e.ContainerIndex = b.internContainer(owner)
	source, destination := b.internEndpoint(e.Source), b.internEndpoint(e.Destination)
	size := e.SizeVT()
	if len(b.buf)+size+8 > limit {
		b.truncate(was, known)
		e.Container = owner
		restore(e.Source, source)
		restore(e.Destination, destination)
		if b.events == 0 {
			return errTooLarge
		}
		return errFull
	}
	b.buf = appendKeyAndSize(b.buf, eventKey, size)
	at := len(b.buf)
	b.buf = extend(b.buf, size)
	if _, err := e.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		b.truncate(was, known)
		return err
	}
	b.events++
	b.counts[dataset(e)]++
	return nil
}

func (b *batch) internEndpoint(p *pipeline.Endpoint) *pipeline.Container {
	if p == nil {
		return nil
	}
	c := p.Container
	p.Container = nil
	p.ContainerIndex = b.internContainer(c)
	return c
}

func restore(p *pipeline.Endpoint, c *pipeline.Container) {
	if p != nil {
		p.Container = c
	}
}

// internContainer gives the index + 1 of c in the batch, and puts it there when it is new.
func (b *batch) internContainer(c *pipeline.Container) uint32 {
	if c == nil {
		return 0
	}
	if i, ok := b.containers[c]; ok {
		return i
	}
	i := uint32(len(b.containers) + 1)
	b.containers[c] = i
	size := c.SizeVT()
	said := c
	if size > maxContainer {
		said = &pipeline.Container{Id: firstKiB(c.Id), Name: firstKiB(c.Name), Image: firstKiB(c.Image), ImageId: firstKiB(c.ImageId), Demo: c.Demo}
		size = said.SizeVT()
	}
	b.buf = appendKeyAndSize(b.buf, containerKey, size)
	at := len(b.buf)
	b.buf = extend(b.buf, size)
	if _, err := said.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		panic("ship: a container that was measured does not fit: " + err.Error())
	}
	return i
}

func firstKiB(s string) string { return s[:min(len(s), 1<<10)] }

// truncate takes back what was appended since the buffer was `was` long and held `known` containers.
func (b *batch) truncate(was, known int) {
	b.buf = b.buf[:was]
	if len(b.containers) == known {
		return
	}
	for c, i := range b.containers {
		if int(i) > known {
			delete(b.containers, c)
		}
	}
}

// appendHeader puts the head of the batch behind its events.
func (b *batch) appendHeader(head *pipeline.Batch) {
	size := head.SizeVT()
	at := len(b.buf)
	b.buf = extend(b.buf, size)
	if _, err := head.MarshalToSizedBufferVT(b.buf[at:]); err != nil {
		panic("ship: a head that was measured does not fit: " + err.Error())
	}
}

func appendKeyAndSize(buf []byte, key byte, size int) []byte {
	return binary.AppendUvarint(append(buf, key), uint64(size))
}

// extend makes b n longer; what is new is not cleared.
func extend(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		b = append(make([]byte, 0, max(2*cap(b), len(b)+n, 16<<10)), b...)
	}
	return b[:len(b)+n]
}

// datasetCounts are numbers of events by dataset.
type datasetCounts [pipeline.NumDatasets]uint32

// datasets is the number of counters in the head of a spooled batch.
const datasets = 10

// The head of a spooled batch has one counter for each dataset; this does not compile when the numbers differ.
var _ = [1]struct{}{}[datasets-pipeline.NumDatasets]

func (c *datasetCounts) sum() (n uint64) {
	for _, v := range c {
		n += uint64(v)
	}
	return n
}

// dataset returns the index of the dataset of e in datasetCounts.
func dataset(e *pipeline.Event) int { return e.Dataset.Index() }
