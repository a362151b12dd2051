package ship

import (
	"testing"

	"tidegate/pipeline"
)

// TestEveryDatasetIsShedWhereItsRowSays checks every value of the enum in event.proto: an event is shed from
// the fill of the packets' memory that its row in pipeline.Datasets names, and counted under its own dataset.
func TestEveryDatasetIsShedWhereItsRowSays(t *testing.T) {
	values := pipeline.Dataset(0).Descriptor().Values()
	for i := range values.Len() {
		if i >= pipeline.NumDatasets {
			t.Fatalf("dataset %s has no row in pipeline.Datasets: add it to pipeline/datasets.go", values.Get(i).Name())
		}
		event := &pipeline.Event{Dataset: pipeline.Dataset(i)}
		at := pipeline.Datasets[i].ShedAt
		if shouldShed(event, at-1, 100) || !shouldShed(event, at, 100) {
			t.Errorf("%s: not shed exactly from %d %% on", event.Dataset.Name(), at)
		}
		if datasetIndex(event) != i {
			t.Errorf("%s: counted as dataset %d", event.Dataset.Name(), datasetIndex(event))
		}
	}
}

// TestBatchThatIsBeingJournaledIsNotSpooled: the head of the queue may have its sequence and be on its way into the
// journal. Only the batches behind it may go to the spool instead.
func TestBatchThatIsBeingJournaledIsNotSpooled(t *testing.T) {
	head, readable, unreadable := &batch{}, &batch{}, &batch{}
	head.unreadable.Store(true)
	unreadable.unreadable.Store(true)
	queue := batcher{queue: []*batch{head, readable, unreadable}, headTaken: true}
	if got := queue.takeUnreadable(); got != unreadable {
		t.Error("the batch with lines that cannot be read again was not taken")
	}
	if got := queue.takeUnreadable(); got != nil {
		t.Error("the head or a batch with lines that can be read again was taken")
	}
	queue.headTaken = false
	if got := queue.takeUnreadable(); got != head {
		t.Error("the head was not taken though nothing works on it")
	}
	if len(queue.queue) != 1 || queue.queue[0] != readable {
		t.Errorf("%d batches are left, want the one with lines that can be read again", len(queue.queue))
	}
}

// TestRangeBehindSafeLinesBeginsBehindThem: lines that are safe or whose batch is known belong to no new range, so that
// the next process knows them by the range that they are in.
func TestRangeBehindSafeLinesBeginsBehindThem(t *testing.T) {
	file := &fileProducer{}
	file.setState(fileOpen)
	first := file.newRange(&batch{})
	file.currentRange = first
	file.skipTo(70)
	if file.currentRange != nil {
		t.Error("a line behind the safe ones would be added to the range before them")
	}
	readable, unreadable := &batch{}, &batch{}
	second := file.newRange(readable)
	file.setState(fileClosed)
	file.newRange(unreadable)
	if readable.unreadable.Load() || !unreadable.unreadable.Load() {
		t.Error("lines of a file that is gone may not wait in the queue, those of an open one may")
	}
	if first.after != 0 || second.after != 70 {
		t.Errorf("ranges begin behind %d and %d, want 0 and 70", first.after, second.after)
	}
}
