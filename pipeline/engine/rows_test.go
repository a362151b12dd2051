package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// TestRowsNameTheirMessage: offset, index and batch; the time at which it was shipped only where the event claims to be younger.
func TestRowsNameTheirMessage(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	w.source.Partition = 3
	producer := &harness{TB: t, epoch: 9, sequences: map[int]uint64{}}
	var messages []message
	for offset := range int64(2) {
		batch := producer.batch(0, 3)
		batch.Shipped = batch.Events[1].Timestamp // the third event is younger
		id := pipeline.BatchID{Collector: testCollector, Epoch: 9, Sequence: batch.Sequence}
		messages = append(messages, message{record: consumer.Record{Offset: 5 + offset}, batch: batch, id: id})
	}
	rows := func() (list []string) {
		for _, row := range w.rows.(*fakeInserter).rows {
			shipped := ""
			if row.Shipped != 0 {
				shipped = fmt.Sprintf(" shipped %+d", row.Shipped-testStart)
			}
			list = append(list, fmt.Sprintf("%d/%d/%d of %d%s", row.Partition, row.Offset, row.Index, row.Sequence, shipped))
		}
		return list
	}
	if skipped := w.appendRows(part{messages: messages}); skipped != 0 {
		t.Errorf("%d rows are left out", skipped)
	}
	want := []string{"3/5/0 of 1", "3/5/1 of 1", "3/5/2 of 1 shipped +1000000000", "3/6/0 of 2", "3/6/1 of 2", "3/6/2 of 2 shipped +4000000000"}
	if got := rows(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	existing := map[pipeline.RowID]struct{}{{Offset: 5, Index: 2}: {}, {Offset: 6, Index: 0}: {}, {Offset: 7, Index: 1}: {}}
	if skipped := w.appendRows(part{messages: messages, existing: existing}); skipped != 2 {
		t.Errorf("%d rows are left out", skipped)
	}
	if got := rows(); !slices.Equal(got, []string{want[0], want[1], want[4], want[5]}) {
		t.Errorf("%q", got)
	}
}

// countingDetector counts its calls and their events.
type countingDetector struct{ calls, events int }

func (d *countingDetector) Evaluate(block []*pipeline.Event) {
	d.calls++
	d.events += len(block)
}

// TestEventsAreEvaluatedMessageByMessage, with their containers, their host and the time of their block. A message without events is not.
func TestEventsAreEvaluatedMessageByMessage(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	b := &block{time: testStart + 77, bundle: &pipeline.Bundle{}}
	detectors := []*countingDetector{{}, {}}
	for _, detector := range detectors {
		b.bundle.Detectors = append(b.bundle.Detectors, detector)
	}
	for _, events := range []int{3, 0, 2} {
		b.messages = append(b.messages, message{batch: producer.batch(0, events)})
	}
	w.evaluate(b)
	for i, detector := range detectors {
		if *detector != (countingDetector{calls: 2, events: 5}) {
			t.Errorf("detector %d: %+v", i, detector)
		}
	}
	for _, msg := range b.messages {
		for _, event := range msg.batch.Events {
			if event.Ingested != testStart+77 || event.Host.GetName() != "host1" || event.Container.GetName() != []string{"web", "db"}[event.Id[15]%2] {
				t.Errorf("event %x: ingested %d, host %v, container %v", event.Id, event.Ingested, event.Host, event.Container)
			}
		}
	}
}

// TestMessageThatTheTableTakesLaterIsNoDeadLetter: the table was repaired after it had rejected the message.
func TestMessageThatTheTableTakesLaterIsNoDeadLetter(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	repaired := false
	store.insert = func(rows []fakeRow, token string) error {
		alone := strings.HasSuffix(token, "#2-2")
		for _, row := range rows {
			if row.Offset == 2 && !repaired {
				repaired = alone // it is rejected once more when it stands alone
				return errPermanent
			}
		}
		return nil
	}
	harness.send(0, 4, 10)
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 4)
	stop()
	checkExactlyOnce(t, store.rows, 40)
	if ledger := engine.Ledger(); ledger.Rows != 40 || ledger.Rejected != 0 || ledger.DeadLettered != 0 || ledger.Verdicts != 4 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.readDeadLetters(0)
}

// TestReferencesOutOfRangeAreOfNoContainer, and cost nothing.
func TestReferencesOutOfRangeAreOfNoContainer(t *testing.T) {
	shared := &sharedSize{}
	for _, index := range []uint64{0, maxReferences, 1 << 40} {
		shared.addReference(roleOwnerIndex, index)
	}
	if len(shared.references) != 0 || shared.at(0) != nil || shared.at(maxReferences) != nil || shared.at(maxReferences-1) == nil {
		t.Errorf("%d references", len(shared.references))
	}
	shared = &sharedSize{}
	label := protowire.AppendBytes(protowire.AppendTag(nil, labelsField, protowire.BytesType), make([]byte, 10))
	container := append(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, 20)), label...)
	shared.addContainer(container)
	shared.addContainer(container[:22]) // without the label
	for range 3 {
		shared.addReference(roleOwnerIndex, 1)
	}
	shared.addReference(roleEndpointIndex, 1)
	shared.addReference(roleOwnerIndex, 2)
	shared.host = 100
	size := batchSize{events: 4}
	labels := len(label) + labelOverhead
	if shared.release(&size); size.shared != 4*100+3*len(container)+len(container)-labels+22 || size.labels != 3*labels {
		t.Errorf("%d bytes are shared, %d of labels", size.shared, size.labels)
	}
	if got := labelColumnBytes(append(slices.Clone(container), 0xff)); got != labels {
		t.Errorf("labels of a damaged container take %d bytes, want %d", got, labels)
	}
}
