package engine

import (
	"context"
	"time"

	"tidegate/pipeline/consumer"
)

// gatherBlock forms the next block from nextOffset on. It reports true when the block holds messages and is
// full or has lingered, and false when no message came for the idle time. The error is that ctx has ended;
// the messages that were gathered until then have no intent, and the next owner of the partition gathers them
// again.
func (w *worker) gatherBlock(ctx context.Context) (gathered bool, err error) {
	block := &w.block
	block.reset(w.nextOffset)
	began := time.Now() // of the wait for the first message
	idle := time.NewTimer(w.cfg.CommitIdleAfter)
	defer idle.Stop()
	var linger <-chan time.Time // set when the block holds its first message

	for lingered := false; !lingered; {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		full, err := w.fillBlock(ctx, block)
		if err != nil {
			return false, err
		}
		if full {
			break
		}

		// Every record that was received is in the block now.
		isEmpty := block.end == block.from
		if isEmpty {
			began = time.Now()
		} else if linger == nil {
			timer := time.NewTimer(w.cfg.Linger)
			defer timer.Stop()
			linger = timer.C
		}

		chunk, woken := w.waitForChunk(idle.C, linger)
		switch woken {
		case chunkReceived:
			w.receiveChunk(chunk)
		case fetcherClosed:
			return false, context.Cause(ctx)
		case idleElapsed:
			if isEmpty {
				return false, nil
			}
		case lingerElapsed:
			lingered = true
		}
	}
	w.metrics.observeStage("gather", began)
	return true, nil
}

// A wakeUp is the reason for which waitForChunk returned.
type wakeUp int

const (
	chunkReceived wakeUp = iota
	fetcherClosed        // ctx of the fetcher has ended
	idleElapsed
	lingerElapsed
)

// waitForChunk waits for the next chunk, for the idle time or for the end of the linger time. A chunk that is
// there already comes first, so that what is fetched goes into a block that has lingered meanwhile; select
// alone would choose at random.
func (w *worker) waitForChunk(idle, linger <-chan time.Time) (consumer.Chunk, wakeUp) {
	received := func(chunk consumer.Chunk, ok bool) (consumer.Chunk, wakeUp) {
		if !ok {
			return consumer.Chunk{}, fetcherClosed
		}
		return chunk, chunkReceived
	}
	select {
	case chunk, ok := <-w.fetcher.C:
		return received(chunk, ok)
	default:
	}
	select {
	case chunk, ok := <-w.fetcher.C:
		return received(chunk, ok)
	case <-idle:
		return consumer.Chunk{}, idleElapsed
	case <-linger:
		return consumer.Chunk{}, lingerElapsed
	}
}

// gatherReplay forms the block that an intent names: all messages from nextOffset to end. Where the log was
// truncated before end, the block holds what is left.
func (w *worker) gatherReplay(ctx context.Context, end int64) error {
	block := &w.block
	block.reset(w.nextOffset)
	for {
		for len(w.records) > 0 {
			if w.records[0].Offset >= end {
				return nil // the next block begins here
			}
			events, countErr := countEvents(w.records[0].Value)
			if err := w.addRecord(ctx, block, w.records[0], events, countErr); err != nil {
				return err
			}
			w.popRecord()
		}
		if block.end >= end {
			return nil
		}

		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case chunk, ok := <-w.fetcher.C:
			if !ok {
				return context.Cause(ctx)
			}
			w.receiveChunk(chunk)
			if len(w.records) == 0 && chunk.Next >= end {
				return nil // the rest of the block was deleted or could not be read
			}
			if len(chunk.Records) == 0 && chunk.Lost == 0 && chunk.End < end {
				w.metrics.lost.Add(uint64(end - max(block.end, chunk.End)))
				w.log.Error("log ends within a block that was begun, the end of the block is lost",
					"topic", w.source.Topic, "from", block.from, "end", end, "log_end", chunk.End)
				return nil
			}
		}
	}
}

// receiveChunk appends the records of a fetch to those that wait for a block.
func (w *worker) receiveChunk(chunk consumer.Chunk) {
	w.fetcher.Consumed(chunk.Bytes)
	w.logEnd = chunk.End
	if chunk.Lost > 0 {
		w.metrics.lost.Add(uint64(chunk.Lost))
		w.log.Error("messages were deleted by retention before they were read",
			"topic", w.source.Topic, "messages", chunk.Lost)
	}
	w.metrics.lost.Add(uint64(chunk.Skipped)) // the consumer has logged these
	if len(w.records) == 0 {
		w.records = chunk.Records
	} else {
		w.records = append(w.records, chunk.Records...)
	}
	w.updateLagMetrics()
}

// fillBlock moves records into the block until there are none left or the block is full, and reports whether
// it is full. A record that would exceed a bound is left for the next block, unless the block is empty. The
// error is that ctx has ended.
func (w *worker) fillBlock(ctx context.Context, b *block) (full bool, err error) {
	for len(w.records) > 0 {
		if w.isFull(b) {
			return true, nil
		}
		record := w.records[0]
		events, countErr := countEvents(record.Value)
		fits := b.rows+events <= w.cfg.BlockRows && b.bytes+int64(len(record.Value)) <= int64(w.cfg.BlockBytes)
		if !fits && b.end > b.from {
			return true, nil
		}
		if err := w.addRecord(ctx, b, record, events, countErr); err != nil {
			return false, err
		}
		w.popRecord()
	}
	return w.isFull(b), nil
}

func (w *worker) isFull(b *block) bool {
	return b.rows >= w.cfg.BlockRows || b.bytes >= int64(w.cfg.BlockBytes)
}

// popRecord removes the first waiting record and drops the reference to its bytes, which now belong to the
// block.
func (w *worker) popRecord() {
	w.records[0] = consumer.Record{}
	w.records = w.records[1:]
}

// updateLagMetrics sets the gauges of the partition: the messages behind the last finished block, and the age
// of its newest message.
func (w *worker) updateLagMetrics() {
	behind := max(0, w.logEnd-w.nextOffset)
	age := 0.0
	if behind > 0 && w.block.newestTime > 0 {
		age = max(0, time.Since(time.Unix(0, w.block.newestTime)).Seconds())
	}
	w.metrics.lag.WithLabelValues(w.label).Set(float64(behind))
	w.metrics.lagSeconds.WithLabelValues(w.label).Set(age)
	w.metrics.openWindows.WithLabelValues(w.label).Set(float64(w.grouper.OpenWindows()))
}
