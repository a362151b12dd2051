package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// The size of a decoded batch is not bounded by the size of its encoding: an empty container takes two bytes
// encoded and 180 decoded, and a record batch of 1,400 bytes can hold eight million of them. So a batch is
// measured before it is decoded.

// A batchSize is the memory that a decoded batch takes, without its encoding, which the decoded strings
// alias.
type batchSize struct {
	events       int // number of events
	bytes        int // of all structs, pointers and lists
	largestEvent int // bytes of the largest event
	shared       int // of the containers and the host, once for each event that refers to them
	labels       int // of the labels in it, as columns
}

// A measurement is the result of measureBatch that stays with a record, as its Note.
type measurement struct {
	batchSize
	err    error
	memory int64 // that the record takes until its block is stored
}

// Memory of the columns, in the buffers of an inserter. The fixed part is that of the columns that have a
// value for each event; the buffers grow by more than they need.
const (
	columnBytesPerEvent = 700
	columnBytesPerByte  = 1
	columnBytesPerLabel = 2 // for each byte of the labels of shared containers
	// copiesOfLongText are the copies of a text beyond that of its column, made while its block is evaluated and stored: in
	// lower case by detectors, in the columns of the driver, and in the buffer of its connection, which grows by doubling.
	// Of an event of up to columnBytesPerEvent bytes they fit into what blockShare leaves.
	copiesOfLongText = 3
)

// measureRecord measures a record, keeps the measurement as its Note, and returns the memory that the record
// takes until its block is stored: its bytes, the decoded batch, and its rows as columns.
func measureRecord(record *consumer.Record) int64 {
	result := &measurement{memory: int64(len(record.Key) + len(record.Value))}
	record.Note = result
	if record.Err != nil {
		return result.memory
	}
	if result.batchSize, result.err = measureBatch(record.Value); result.err == nil && !result.isTooLarge() {
		result.memory += int64(result.bytes + result.events*columnBytesPerEvent + len(record.Value)*columnBytesPerByte +
			result.labels*columnBytesPerLabel)
		result.memory += copiesOfLongText * int64(max(0, len(record.Value)-result.events*columnBytesPerEvent))
	}
	return result.memory
}

// measurementOf returns the measurement of a record.
func measurementOf(record consumer.Record) *measurement { return record.Note.(*measurement) }

// isTooLarge reports whether a batch is refused instead of decoded.
func (s batchSize) isTooLarge() bool {
	return s.events > maxEventsPerBatch || s.bytes+s.shared > maxBatchBytes
}

// measureBatch returns the decoded size of an encoded Batch. It walks over all fields of all messages once,
// without allocation. Its depth is that of the schema, which is not recursive. An error means that the
// decoder fails, too.
func measureBatch(data []byte) (size batchSize, err error) {
	walk := measuring{shared: sharedSizes.Get().(*sharedSize)}
	walk.bytes, err = batchShape.measure(data, &walk)
	walk.shared.release(&walk.batchSize)
	return walk.batchSize, err
}

// measuring is the state of measureBatch.
type measuring struct {
	batchSize
	shared *sharedSize
}

// A messageShape holds what the fields of a message type cost once decoded.
type messageShape struct {
	size  int         // of the Go struct
	costs []fieldCost // by tag: field number and wire type
	// firstBytes holds the bytes with which the tags of lists, messages and references can begin. A message in which
	// none of them occurs has only fields that lie in the struct, and unknown ones.
	firstBytes []byte
}

// A fieldCost is the memory that one occurrence of a field takes beyond the struct of its message. The zero
// value is the cost of a number or of a string, which lie in the struct.
type fieldCost struct {
	message *messageShape // of a message, whose content is measured
	fixed   uint16        // bytes of an element of a list
	perByte uint8         // bytes for each encoded byte of the content
	role    fieldRole
	isKnown bool
}

// unknownField is the cost of a field that this version does not have: the decoder keeps a copy of it, in a
// buffer that grows by doubling.
var unknownField = fieldCost{perByte: 2}

// growth is the factor between the length and the capacity of a list that grew by append, at most.
const growth = 2

// pointerSize is the size of an element of a list of messages.
const pointerSize = 8

// Bounds of mayHoldLists. The unknown fields of a message of shortMessage bytes are not larger than the event
// around it, so they need not be counted.
const (
	shortMessage  = 512
	minSearched   = 48
	maxFirstBytes = 4
)

// batchShape is the shape of pipeline.Batch.
var batchShape = newMessageShape((&pipeline.Batch{}).ProtoReflect().Descriptor())

// newMessageShape returns the shape of a message type, from its descriptor and the sizes of its Go types. It
// panics if the schema is recursive or has a kind of field that it does not know.
func newMessageShape(desc protoreflect.MessageDescriptor) *messageShape {
	messageType, err := protoregistry.GlobalTypes.FindMessageByName(desc.FullName())
	if err != nil {
		panic(err)
	}
	// The allocator rounds a size up by less than an eighth.
	structSize := int(reflect.TypeOf(messageType.Zero().Interface()).Elem().Size())
	shape := &messageShape{size: structSize + structSize/8}

	fields := desc.Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if field.IsMap() || field.Kind() == protoreflect.GroupKind {
			panic(fmt.Sprintf("event.proto: %s cannot be measured", field.FullName()))
		}
		cost := fieldCost{isKnown: true, role: fieldRoles[string(field.FullName())]}
		if field.Message() != nil {
			cost.message = newMessageShape(field.Message())
		}
		if field.IsList() {
			cost.fixed = uint16(growth * elementSize(field))
		}
		wireType := wireTypeOf(field.Kind())
		shape.setCost(field.Number(), wireType, cost)
		if field.IsList() && wireType != wireBytes { // both forms of a list of numbers are decoded
			packed := fieldCost{perByte: uint8(growth * elementSize(field)), isKnown: true}
			shape.setCost(field.Number(), wireBytes, packed)
		}
	}
	return shape
}

func (s *messageShape) setCost(number protoreflect.FieldNumber, wireType int, cost fieldCost) {
	tag := int(number)<<3 | wireType
	for len(s.costs) <= tag {
		s.costs = append(s.costs, unknownField)
	}
	s.costs[tag] = cost
	if cost.fixed > 0 || cost.perByte > 0 || cost.message != nil || cost.role != roleNone {
		if tag < 0x80 {
			s.firstBytes = append(s.firstBytes, byte(tag))
		}
		s.firstBytes = append(s.firstBytes, byte(tag)|0x80) // a tag may be padded to more bytes than it needs
	}
}

// elementSize returns the size of one element of a list in Go.
func elementSize(field protoreflect.FieldDescriptor) int {
	switch field.Kind() {
	case protoreflect.MessageKind:
		return pointerSize
	case protoreflect.StringKind:
		return int(reflect.TypeFor[string]().Size())
	case protoreflect.BytesKind:
		return int(reflect.TypeFor[[]byte]().Size())
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind, protoreflect.Int64Kind,
		protoreflect.Sint64Kind, protoreflect.Uint64Kind:
		return 8
	}
	return 4
}

// The wire types of the protobuf encoding.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// wireTypeOf returns the wire type of one value of a kind.
func wireTypeOf(kind protoreflect.Kind) int {
	switch kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return wireBytes
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return wireFixed64
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return wireFixed32
	}
	return wireVarint
}

// errTruncated is the error of a batch that ends within a field.
var errTruncated = errors.New("the batch ends within a field")

// measure returns the decoded size of one message and adds its events to sum.
func (s *messageShape) measure(data []byte, sum *measuring) (size int, err error) {
	size = s.size
	// Invariant: i is the position of the tag of a field, and size that of all fields before it.
	for i := 0; i < len(data); {
		start := i
		tag := uint64(data[i])
		if i++; tag >= 0x80 {
			var width int
			if tag, width = binary.Uvarint(data[start:]); width <= 0 {
				return 0, errTruncated
			}
			i = start + width
		}
		cost := &unknownField
		if tag < uint64(len(s.costs)) {
			cost = &s.costs[tag]
		}

		// The wire type determines the size of the content; only wireBytes has a length in front.
		switch tag & 7 {
		case wireBytes:
			if i == len(data) {
				return 0, errTruncated
			}
			length := uint64(data[i])
			if i++; length >= 0x80 {
				var width int
				if length, width = binary.Uvarint(data[i-1:]); width <= 0 {
					return 0, errTruncated
				}
				i += width - 1
			}
			if length > uint64(len(data)-i) {
				return 0, errTruncated
			}
			content := data[i : i+int(length)]
			i += int(length)
			size += int(cost.fixed) + int(cost.perByte)*len(content)
			if cost.message != nil {
				inner, err := cost.measureMessage(content, sum)
				if err != nil {
					return 0, err
				}
				size += inner
			}
			continue
		case wireVarint:
			valueAt := i
			for i < len(data) && data[i] >= 0x80 {
				i++
			}
			i++
			if cost.role != roleNone && i <= len(data) {
				index, _ := binary.Uvarint(data[valueAt:i])
				sum.shared.addReference(cost.role, uint64(uint32(index)))
			}
		case wireFixed64:
			i += 8
		case wireFixed32:
			i += 4
		default:
			return 0, fmt.Errorf("unknown wire type %d", tag&7)
		}
		if i > len(data) {
			return 0, errTruncated
		}
		size += int(cost.fixed)
		if !cost.isKnown {
			size += int(cost.perByte) * (i - start)
		}
	}
	return size, nil
}

// measureMessage returns the decoded size of the content of a field that is a message.
func (c *fieldCost) measureMessage(content []byte, sum *measuring) (size int, err error) {
	switch c.role {
	case roleContainer:
		sum.shared.addContainer(content)
	case roleHost:
		sum.shared.host += len(content)
	}
	if len(content) <= shortMessage && !c.message.mayHoldLists(content) {
		return c.message.size, nil
	}
	size, err = c.message.measure(content, sum)
	if c.role == roleEvent {
		sum.events++
		sum.largestEvent = max(sum.largestEvent, size)
	}
	return size, err
}

// mayHoldLists reports whether content may hold a field that is a list, a message or a reference. To search for the first
// bytes of their tags is several times faster than to walk over the fields of an HTTP exchange. It is not in
// a message of a few bytes, such as an endpoint, or for many fields.
func (s *messageShape) mayHoldLists(content []byte) bool {
	if len(s.firstBytes) > 0 && (len(content) < minSearched || len(s.firstBytes) > maxFirstBytes) {
		return true
	}
	for _, first := range s.firstBytes {
		if bytes.IndexByte(content, first) >= 0 {
			return true
		}
	}
	return false
}
