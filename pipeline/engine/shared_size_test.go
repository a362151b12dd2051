package engine

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/consumer"
)

// sharingBatch returns a batch of events that refer to one container.
func sharingBatch(t *testing.T, events int, container *pipeline.Container) *pipeline.Batch {
	t.Helper()
	batch := (&harness{TB: t, sequences: map[int]uint64{}}).batch(0, events)
	batch.Containers = []*pipeline.Container{container}
	for _, event := range batch.Events {
		event.ContainerIndex = 1
	}
	return batch
}

// labels returns labels of together some size bytes.
func labels(count, size int) (list []*pipeline.Label) {
	for i := range count {
		list = append(list, &pipeline.Label{Key: fmt.Sprint("k", i), Value: strings.Repeat("v", size/count)})
	}
	return list
}

// TestSharedMetadataIsMeasuredForEachEvent: a message of a few kilobytes can become gigabytes of columns, or of alerts.
func TestSharedMetadataIsMeasuredForEachEvent(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	check := func(what, reason string, batch *pipeline.Batch, changeEncoded ...func(data []byte) []byte) {
		t.Helper()
		data := encode(t, batch)
		for _, change := range changeEncoded {
			data = change(data)
		}
		record := consumer.Record{Value: data}
		memory := measureRecord(&record)
		_, got, err := w.decodeBatch(record)
		if got != reason {
			t.Errorf("%s: %q, %v, want %q", what, got, err, reason)
		}
		if reason == "" && memory > 128<<20 {
			t.Errorf("%s: %d bytes of memory", what, memory)
		}
	}

	many := sharingBatch(t, 2000, &pipeline.Container{Id: "c", Labels: labels(20_000, 100_000)})
	check("many labels", "too_large", many)
	// The container stands behind the events that refer to it.
	check("the same in another order", "too_large", sharingBatch(t, 2000, nil), func(events []byte) []byte {
		container, err := many.Containers[0].MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		const containersField = 9
		behind := sharingBatch(t, 2000, nil)
		behind.Containers = nil
		return protowire.AppendBytes(protowire.AppendTag(encode(t, behind), containersField, protowire.BytesType), container)
	})
	long := strings.Repeat("n", 1<<20)
	check("a long name", "too_large", sharingBatch(t, 2000, &pipeline.Container{Id: "c", Name: long}))
	host := sharingBatch(t, 2000, &pipeline.Container{Id: "c"})
	host.Host.Name = long
	check("a long name of the host", "too_large", host)
	endpoints := sharingBatch(t, 2000, &pipeline.Container{Id: "c", Image: long})
	for _, event := range endpoints.Events {
		event.ContainerIndex = 0
		event.Source = &pipeline.Endpoint{Ip: make([]byte, 16), NatIp: make([]byte, 16), Bytes: 1 << 60, Packets: 1 << 60, ContainerIndex: 1}
	}
	check("a long image of endpoints", "too_large", endpoints)

	// What a collector sends: the labels of a container have 12 KiB at most, and a batch 2,000 events.
	check("as many labels as a container may have", "", sharingBatch(t, 2000, &pipeline.Container{
		Id: strings.Repeat("a", 64), Name: "web", Image: "nginx:1.25", Labels: labels(128, 12<<10),
	}))
	check("a container that no event refers to", "", func() *pipeline.Batch {
		batch := sharingBatch(t, 2000, &pipeline.Container{Id: "c", Labels: labels(20_000, 100_000)})
		for i, event := range batch.Events {
			event.ContainerIndex = uint32(2 * (i % 2)) // 2 is out of range
		}
		return batch
	}())
}

// TestMeasuredLabelsAreThoseOfTheColumns: the memory that is charged for labels is at least that of their columns.
func TestMeasuredLabelsAreThoseOfTheColumns(t *testing.T) {
	for _, list := range [][]*pipeline.Label{labels(128, 12<<10), labels(500, 0), make([]*pipeline.Label, 300), labels(1, 5000)} {
		for i := range list {
			if list[i] == nil {
				list[i] = &pipeline.Label{}
			}
		}
		columns := func(labels []*pipeline.Label) int {
			batch := sharingBatch(t, 500, &pipeline.Container{Id: "c", Labels: labels})
			pipeline.ResolveReferences(batch)
			block := clickhouse.NewColumnBlock()
			for _, event := range batch.Events {
				block.Append(event, pipeline.Position{}, "topic")
			}
			return block.Bytes()
		}
		size, err := measureBatch(encode(t, sharingBatch(t, 500, &pipeline.Container{Id: "c", Labels: list})))
		took := columns(list) - columns(nil)
		if err != nil || size.labels < took || size.labels > 4*took {
			t.Errorf("%d labels: measured as %d bytes, the columns take %d, %v", len(list), size.labels, took, err)
		}
	}
}
