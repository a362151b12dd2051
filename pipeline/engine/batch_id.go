package engine

import (
	"google.golang.org/protobuf/encoding/protowire"

	"tidegate/pipeline"
)

// Numbers of the fields of Batch in event.proto that are its id. TestBatchIDIsReadFromTheEncoding compares them with
// the generated code.
const (
	batchCollectorField = 3
	batchEpochField     = 4
	batchSequenceField  = 6
)

// readBatchID returns the id in an encoded Batch without decoding its events; a batch that cannot be decoded has the
// zero id.
func readBatchID(data []byte) (id pipeline.BatchID) {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeField(data)
		if size < 0 {
			return pipeline.BatchID{}
		}
		_, _, tagSize := protowire.ConsumeTag(data)
		value := data[tagSize:size]
		switch {
		case number == batchCollectorField && kind == protowire.BytesType:
			collector, _ := protowire.ConsumeBytes(value)
			id.Collector = [16]byte{}
			copy(id.Collector[:], collector)
		case number == batchEpochField && kind == protowire.Fixed64Type:
			id.Epoch, _ = protowire.ConsumeFixed64(value)
		case number == batchSequenceField && kind == protowire.VarintType:
			id.Sequence, _ = protowire.ConsumeVarint(value)
		}
		data = data[size:]
	}
	return id
}
