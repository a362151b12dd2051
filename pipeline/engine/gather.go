package engine

import (
	"context"
	"time"

	"tidegate/pipeline/consumer"
)

// gatherBlock fills the block until it is full, has waited long enough, or nothing came for the idle time (then it is empty and got is
// false).
func (w *worker) gatherBlock(ctx context.Context) (got bool, err error) {
	b := &w.block
	b.reset(w.nextOffset)
	began := time.Now()
	quiet := time.NewTimer(w.cfg.Idle)
	defer quiet.Stop()
	var linger <-chan time.Time
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx) // what was gathered has no intent: the next owner gathers it
		}
		full, err := w.fillBlock(ctx, b)
		if err != nil {
			return false, err
		}
		if full {
			break
		}
		if linger == nil && b.end > b.from {
			t := time.NewTimer(w.cfg.Linger)
			defer t.Stop()
			linger = t.C
		}
		if linger == nil {
			began = time.Now()
		}
		select {
		case chunk, ok := <-w.fetcher.C:
			if !ok {
				return false, context.Cause(ctx)
			}
			w.receiveChunk(chunk)
			continue
		default:
		}
		select {
		case chunk, ok := <-w.fetcher.C:
			if !ok {
				return false, context.Cause(ctx)
			}
			w.receiveChunk(chunk)
			continue
		case <-quiet.C:
			if b.end == b.from {
				return false, nil
			}
			continue
		case <-linger:
		}
		break
	}
	w.metrics.stageSeconds.WithLabelValues("gather").Observe(time.Since(began).Seconds())
	return true, nil
}

// gatherReplay fills the block with all messages before end: the borders of an intent. Where the log ends before (it was cut), what
// there is must do.
func (w *worker) gatherReplay(ctx context.Context, end int64) error {
	b := &w.block
	b.reset(w.nextOffset)
	for {
		for len(w.records) > 0 {
			if w.records[0].Offset >= end {
				return nil
			}
			n, err := countEvents(w.records[0].Value)
			if err := w.addRecord(ctx, b, w.records[0], n, err); err != nil {
				return err
			}
			w.records[0] = consumer.Record{}
			w.records = w.records[1:]
		}
		if b.end >= end {
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
				return nil // the rest of the block is not there any more
			}
			if len(chunk.Records) == 0 && chunk.Lost == 0 && chunk.End < end {
				w.metrics.lost.Add(uint64(end - max(b.end, chunk.End)))
				w.log.Error("the log ends inside a block that was begun: its end is lost", "topic", w.topic, "from", b.from, "end", end, "log_end", chunk.End)
				return nil
			}
		}
	}
}

// receiveChunk keeps what a fetch brought.
func (w *worker) receiveChunk(c consumer.Chunk) {
	w.fetcher.Consumed(c.Bytes)
	w.logEnd = c.End
	if c.Lost > 0 {
		w.metrics.lost.Add(uint64(c.Lost))
		w.log.Error("messages were deleted by retention before they were read", "topic", w.topic, "messages", c.Lost)
	}
	w.metrics.lost.Add(uint64(c.Skipped)) // consumer has said so
	if len(w.records) == 0 {
		w.records = c.Records
	} else {
		w.records = append(w.records, c.Records...)
	}
	w.updateLagMetrics()
}

// fillBlock moves records into the block and tells whether it is full. An error says that ctx has ended.
func (w *worker) fillBlock(ctx context.Context, b *block) (full bool, err error) {
	for len(w.records) > 0 {
		r := w.records[0]
		if b.rows >= w.cfg.BlockRows || b.bytes >= w.cfg.BlockBytes {
			return true, nil
		}
		n, bad := countEvents(r.Value)
		if b.end > b.from && (b.rows+n > w.cfg.BlockRows || b.bytes+int64(len(r.Value)) > w.cfg.BlockBytes) {
			return true, nil
		}
		if err := w.addRecord(ctx, b, r, n, bad); err != nil {
			return false, err
		}
		w.records[0] = consumer.Record{}
		w.records = w.records[1:]
	}
	return b.rows >= w.cfg.BlockRows || b.bytes >= w.cfg.BlockBytes, nil
}

// updateLagMetrics sets the lag: what Kafka holds behind the last finished block, and how old that block's messages are.
func (w *worker) updateLagMetrics() {
	w.positions.Store(w.partition, w.nextOffset)
	behind := max(0, w.logEnd-w.nextOffset)
	w.metrics.lag.WithLabelValues(w.label).Set(float64(behind))
	age := 0.0
	if behind > 0 && w.block.newestShipped > 0 {
		age = max(0, time.Since(time.Unix(0, w.block.newestShipped)).Seconds())
	}
	w.metrics.lagSeconds.WithLabelValues(w.label).Set(age)
	w.metrics.openWindows.WithLabelValues(w.label).Set(float64(w.grouper.OpenWindows()))
}
