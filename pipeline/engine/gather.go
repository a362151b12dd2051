package engine

import (
	"cmp"
	"context"
	"time"

	"tidegate/pipeline/consumer"
)

// gatherBlock forms the next block from nextOffset on. It returns true when the block holds messages and is
// full or has waited for the linger time, and false when no message arrived for the idle time.
//
// gatherBlock fails only if ctx has ended, with consumer.ErrLogReplaced, or with errRestart: the signals topic has
// fewer partitions than before. The messages of the unfinished
// block have no intent then, so the next owner of the partition gathers them again.
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

		// Invariant: w.records is empty, every received record is in the block. The linger time starts with
		// the first record; as long as the block is empty, only the idle time ends the wait.
		isEmpty := block.end == block.from
		if isEmpty {
			began = time.Now()
			w.skipUnfetched(block)
			if err := w.writeIdleWatermark(ctx); err != nil {
				return false, err
			}
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
			// The records of a log that was replaced are stored before the error is returned.
			if err := w.fetcher.Err(); err == nil || isEmpty {
				return false, cmp.Or(err, context.Cause(ctx))
			}
			lingered = true
		case idleElapsed:
			if isEmpty {
				return false, nil
			}
			// The block holds records: the linger time ends the wait.
		case lingerElapsed:
			lingered = true
		case memoryShort:
			lingered = !isEmpty && w.memory.isShort(block.memory)
		}
	}
	w.metrics.observeStage("gather", began)
	return true, nil
}

// A wakeUp is the reason for which waitForChunk returned.
type wakeUp int

const (
	chunkReceived wakeUp = iota
	fetcherClosed        // ctx of the fetcher has ended, or the log was replaced
	idleElapsed
	lingerElapsed
	memoryShort // the fetcher waits for memory
)

// waitForChunk waits for the next chunk, for the end of the idle time or for the end of the linger time. A
// fetched chunk takes precedence over both times, so that it still goes into the block; a single select would
// choose at random.
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
	case <-w.memory.short:
		return consumer.Chunk{}, memoryShort
	}
}

// gatherReplay forms the block of an intent: all messages from nextOffset up to, but not including, end. If
// messages of the block were deleted meanwhile, the block holds the remaining ones.
func (w *worker) gatherReplay(ctx context.Context, end int64) error {
	block := &w.block
	block.reset(w.nextOffset)
	for {
		// Move the received records below end into the block. No bound applies: the block has the size that
		// it had in the first run.
		for len(w.records) > 0 {
			if w.records[0].Offset >= end {
				return nil // the record belongs to the next block
			}
			if err := w.addRecord(ctx, block, w.records[0]); err != nil {
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
				return cmp.Or(w.fetcher.Err(), context.Cause(ctx))
			}
			w.receiveChunk(chunk)
			if len(w.records) == 0 && chunk.Next >= end {
				return nil // the rest of the block was deleted
			}
			// An empty answer below end: the log was truncated inside the block, and no fetch can complete
			// it.
			if len(chunk.Records) == 0 && chunk.Lost == 0 && chunk.End < end {
				w.metrics.lost.Add(uint64(end - max(block.end, chunk.End)))
				w.log.Error("log ends inside a block that is replayed, the rest of the block is lost",
					"topic", w.source.Topic, "from", block.from, "end", end, "log_end", chunk.End)
				return nil
			}
		}
	}
}

// receiveChunk appends the records of a chunk to w.records and counts the lost ones.
func (w *worker) receiveChunk(chunk consumer.Chunk) {
	w.fetcher.Consumed(chunk.Bytes)
	w.logEnd, w.fetched = chunk.End, chunk.Next
	if chunk.Next >= chunk.End && !chunk.At.IsZero() {
		w.signals.caughtUp = chunk.At.UnixNano()
	}
	w.metrics.lag.answered(w.partition.ID)
	if chunk.Lost > 0 {
		w.recordLost(chunk.Lost)
	}
	if len(w.records) == 0 {
		w.records = chunk.Records
	} else {
		w.records = append(w.records, chunk.Records...)
	}
	w.updateLagMetrics()
}

// skipUnfetched moves an empty block behind messages that were deleted before they were fetched, or that the
// broker does not hand out. The offset behind them is committed when the intent is closed, so that the next
// owner neither waits for them nor counts them as lost again.
func (w *worker) skipUnfetched(block *block) {
	if w.fetched <= w.nextOffset {
		return
	}
	w.nextOffset, w.intentClosed = w.fetched, false
	w.setNextOffset(w.partition.ID, w.nextOffset)
	block.from, block.end = w.nextOffset, w.nextOffset
	w.updateLagMetrics()
}

// recordLost counts and logs messages that were deleted before they were read.
func (w *worker) recordLost(messages int64) {
	w.metrics.lost.Add(uint64(messages))
	w.log.Error("messages were deleted before they were read", "topic", w.source.Topic, "messages", messages)
}

// fillBlock moves records from w.records into the block until none is left or the block is full, and reports
// whether it is full. A record that would exceed a bound stays for the next block, unless the block is empty.
// fillBlock fails only if ctx has ended.
func (w *worker) fillBlock(ctx context.Context, block *block) (full bool, err error) {
	for len(w.records) > 0 {
		if w.isFull(block) {
			return true, nil
		}
		record := w.records[0]
		fits := block.rows+measurementOf(record).events <= w.cfg.BlockRows && block.bytes+int64(len(record.Value)) <= int64(w.cfg.BlockBytes)
		if !fits && block.end > block.from {
			return true, nil
		}
		if err := w.addRecord(ctx, block, record); err != nil {
			return false, err
		}
		w.popRecord()
	}
	return w.isFull(block), nil
}

// isFull reports whether the block has reached a bound.
func (w *worker) isFull(block *block) bool {
	return block.rows >= w.cfg.BlockRows || block.bytes >= int64(w.cfg.BlockBytes)
}

// popRecord removes the first record of w.records. It clears the slot, so that the record's bytes can be
// freed together with the block.
func (w *worker) popRecord() {
	w.records[0] = consumer.Record{}
	w.records = w.records[1:]
}

// updateLagMetrics sets the gauges of the partition: messages after the last finished block, age of the
// newest message in the block, and open alert windows.
func (w *worker) updateLagMetrics() {
	w.metrics.lag.set(w.partition.ID, max(0, w.logEnd-w.nextOffset), w.block.newestTime)
}
