package ship

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/logs"
	"tidegate/collector/logs/decode"
	"tidegate/pipeline"
)

// TestTheLongestLinesFitIntoABatch: with the default configuration, no line is too large for a batch, whatever
// redaction and the repair of UTF-8 make of it and however large the metadata of its container is.
func TestTheLongestLinesFitIntoABatch(t *testing.T) {
	folder := t.TempDir()
	container := &pipeline.Container{Id: strings.Repeat("c", 64), Name: strings.Repeat("x", maxContainer-200)}
	for i, part := range []string{"pw=1 ", "a\xff", "\xff ", "token=x&", "日", "x"} {
		path := filepath.Join(folder, strconv.Itoa(i)+".log")
		if err := os.WriteFile(path, []byte(strings.Repeat(part, 3_000_000/len(part))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		lines := 0
		emit := func(event *pipeline.Event) {
			event.Container = container
			if err := newBatch().addEvent(event, int(Default().BatchBytes)); err != nil || !event.Log.Truncated {
				t.Errorf("%q: %v, truncated %v", part, err, event.Log.Truncated)
			}
			lines++
		}
		if err := logs.ReadFile(t.Context(), logs.Default(), path, decode.Text, pipeline.ID{1}, emit); err != nil || lines == 0 {
			t.Errorf("%q: %d lines, %v", part, lines, err)
		}
	}
}

// TestEventsThatFillABatchUnevenlyAreAllDelivered: an event that does not fit into what is left of a batch begins the
// next one.
func TestEventsThatFillABatchUnevenlyAreAllDelivered(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.Linger = time.Minute
	shipper := h.startShipper(failpoints{})
	file, packets := testFiles(1, 9)[0], shipper.Packets("packets")
	producer := shipper.File(file.name)
	text := strings.Repeat("x", 2*int(h.cfg.BatchBytes)/5)
	for i := range file.lines {
		event, at := file.event(i), int64(i+1)
		event.Log.Message = text + event.Log.Message
		if err := producer.Ship(t.Context(), event, collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
		query := dnsEvent(i, nil)
		query.Dns.QuestionName = text
		if !packets.TryShip(query) {
			t.Errorf("query %d was dropped", i)
		}
	}
	ledger := h.closeShipper(shipper)
	if ledger.Delivered != 18 || ledger.Dropped != 0 || shipper.counters.batches.Load() < 10 {
		t.Errorf("%+v, %d batches", ledger, shipper.counters.batches.Load())
	}
}

// TestShipThatIsInterruptedIsAnError: the line is neither counted nor taken, and comes again.
func TestShipThatIsInterruptedIsAnError(t *testing.T) {
	h := newHarness(t)
	h.cfg.BufferBytes = 8 * h.cfg.BatchBytes
	shipper := h.withoutKafka()
	file := testFiles(1, 6000)[0]
	producer := shipper.File(file.name).(*fileProducer)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	last := -1
	go func() {
		for i := range file.lines {
			at := int64(i+1) * int64(file.size)
			if err := producer.Ship(ctx, file.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
				last = i
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	eventually(t, "the budget is used up", producer.blocked.Load)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || last <= 0 {
		t.Fatalf("Ship of line %d: %v", last, err)
	}
	if read := shipper.counters.read.total(); read != uint64(last) {
		t.Errorf("%d lines are counted as read, want the %d before the interrupted one", read, last)
	}
	h.startBroker()
	for i := last; i < file.lines; i++ {
		at := int64(i+1) * int64(file.size)
		if err := producer.Ship(t.Context(), file.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all is safe", func() bool { return safeUpTo(producer) == int64(file.lines*file.size) })
	h.closeShipper(shipper)
	h.checkExactlyOnce(file)
}
