package engine

import (
	"sync"

	"google.golang.org/protobuf/encoding/protowire"

	"tidegate/pipeline"
)

// Events refer to the containers and the host of their batch by index, in two bytes. Each row and each alert
// has them anew, so they are measured once for each event.

// A fieldRole is what a field means for the size of what events share.
type fieldRole uint8

const (
	roleNone          fieldRole = iota
	roleEvent                   // Batch.events
	roleContainer               // Batch.containers
	roleHost                    // Batch.host
	roleOwnerIndex              // Event.container_index
	roleEndpointIndex           // Endpoint.container_index
)

// fieldRoles are the roles by the full names of the fields.
var fieldRoles = map[string]fieldRole{
	"tidegate.v1.Batch.events":             roleEvent,
	"tidegate.v1.Batch.containers":         roleContainer,
	"tidegate.v1.Batch.host":               roleHost,
	"tidegate.v1.Event.container_index":    roleOwnerIndex,
	"tidegate.v1.Endpoint.container_index": roleEndpointIndex,
}

// sharedSize gathers what the events of one batch share, in any order of the fields.
type sharedSize struct {
	host       int
	containers int
	references []containerReferences // by index; 0 is none
}

// containerReferences are the sizes of a container and the numbers of its references.
type containerReferences struct {
	encoded, labels  int // bytes of all fields, and those of its labels as columns
	owned, endpoints int // events that it owns, and endpoints that it is
}

// maxReferences bounds the table of references. A batch with more containers takes more than maxBatchBytes.
const maxReferences = maxBatchBytes / 128

// sharedSizes is a pool of tables.
var sharedSizes = sync.Pool{New: func() any { return &sharedSize{} }}

// at returns the entry of an index; nil: no container of a batch that is accepted has it.
func (s *sharedSize) at(index uint64) *containerReferences {
	if index == 0 || index >= maxReferences {
		return nil
	}
	for uint64(len(s.references)) <= index {
		s.references = append(s.references, containerReferences{})
	}
	return &s.references[index]
}

// addContainer adds the next container of the batch.
func (s *sharedSize) addContainer(content []byte) {
	s.containers++
	if entry := s.at(uint64(s.containers)); entry != nil {
		entry.encoded, entry.labels = len(content), labelColumnBytes(content)
	}
}

// addReference adds a reference in a field of the given role to a container.
func (s *sharedSize) addReference(role fieldRole, index uint64) {
	entry := s.at(index)
	switch {
	case entry == nil:
	case role == roleOwnerIndex:
		entry.owned++
	default:
		entry.endpoints++
	}
}

// release adds the size to that of the batch and returns s to the pool.
func (s *sharedSize) release(size *batchSize) {
	size.shared = s.host * size.events
	for _, entry := range s.references {
		size.shared += entry.encoded*entry.owned + max(0, entry.encoded-entry.labels)*entry.endpoints
		size.labels += entry.labels * entry.owned
	}
	*s = sharedSize{references: s.references[:0]}
	sharedSizes.Put(s)
}

// labelOverhead is what a label takes as columns, at most, beyond its encoding: the key is a number of a
// dictionary.
const labelOverhead = 4

var labelsField = (&pipeline.Container{}).ProtoReflect().Descriptor().Fields().ByName("labels").Number()

// labelColumnBytes returns what the labels of an encoded container take as columns, in each row.
func labelColumnBytes(container []byte) (size int) {
	for len(container) > 0 {
		number, _, length := protowire.ConsumeField(container)
		if length < 0 {
			return size // the decoder fails, too
		}
		if number == labelsField {
			size += length + labelOverhead
		}
		container = container[length:]
	}
	return size
}
