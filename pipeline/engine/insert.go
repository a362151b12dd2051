package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// rowSet is which (offset, index) the store holds of a block.
type rowSet map[[2]int64]struct{}

// processBlock carries a gathered block through. It returns ErrFenced when the partition is somebody else's, or that ctx has ended; then
// the intent, if it stands, says to the next owner what is to be repeated.
func (w *worker) processBlock(ctx context.Context, b *block) error {
	defer b.release()
	ctx, cancel := withGrace(ctx)
	defer cancel()
	for _, l := range b.deadLetters {
		if err := w.writeDeadLetter(ctx, l); err != nil {
			return err
		}
	}
	if b.rows > 0 || b.replayed {
		if err := w.storeBlock(ctx, b); err != nil {
			return err
		}
	}
	w.nextOffset = b.end
	w.intentClosed = false
	w.setNextOffset(w.p.ID, w.nextOffset)
	w.metrics.blocks.Add(1)
	w.metrics.blockRows.Observe(float64(b.rows))
	w.updateLagMetrics()
	return nil
}

// withGrace is a context that ends a grace later than ctx.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(stopGrace, cancel)
		context.AfterFunc(out, func() { t.Stop() })
	})
	return out, func() { stop(); cancel() }
}

// storeBlock judges, commits the intent, inserts, and lets the alerts out.
func (w *worker) storeBlock(ctx context.Context, b *block) error {
	w.evaluate(b)
	if !b.replayed {
		w.deps.Failpoint(BeforeIntent)
		it := intent{end: b.end, time: b.time, shard: w.cfg.Shard, bundle: bundleVersion(b.bundle)}
		b.intentTime = time.Now()
		if err := w.p.Commit(ctx, b.from, it.String()); err != nil {
			return err
		}
	}
	w.deps.Failpoint(AfterIntent)
	began := time.Now()
	if err := w.insertBlock(ctx, b); err != nil {
		return err
	}
	w.metrics.stageSeconds.WithLabelValues("insert").Observe(time.Since(began).Seconds())
	w.deps.Failpoint(AfterInsert)
	return w.raiseAlerts(ctx, b)
}

// token names the block to the store. Its time, which stands in the intent, goes with the borders: on a topic that was made anew the
// offsets alone would name an older block too.
func (w *worker) token(b *block) string {
	return fmt.Sprintf("%s/%d/%d-%d@%d", w.topic, w.partition, b.from, b.end, b.time)
}

// insertBlock stores the block's rows: all of them under one token or, where a former life may have stored them, those that lack. The next
// owner may have stored them too, if this process stood still after its intent.
func (w *worker) insertBlock(ctx context.Context, b *block) error {
	var held rowSet
	if b.replayed || time.Since(b.intentTime) > w.cfg.Ask {
		var err error
		if held, err = w.existingRows(ctx, b); err != nil {
			return err
		}
	}
	return w.insertRange(ctx, b, 0, len(b.messages), w.token(b), held)
}

// existingRows asks the store which rows of the block it holds: it may have forgotten the token.
func (w *worker) existingRows(ctx context.Context, b *block) (held rowSet, err error) {
	err = w.retry(ctx, "ask for the rows of a block", func() error {
		held, err = w.deps.Store.ExistingRows(ctx, w.topic, w.partition, b.from, b.end, b.time)
		return err
	})
	return held, err
}

// insertRange inserts the messages [lo,hi) of the block. Errors that pass are waited out; a refusal for good halves the range until
// the culprit is alone, which becomes a dead letter. The token of a part names its messages: while any row of them lacks, no insert
// under that token has been stored.
func (w *worker) insertRange(ctx context.Context, b *block, lo, hi int, token string, held rowSet) error {
	began := time.Now()
	skipped := w.appendRows(b, lo, hi, held)
	for n := 0; w.columns.Rows() > 0; n++ {
		err := w.deps.Store.Insert(ctx, w.columns, token)
		if err == nil {
			rows := w.columns.Rows()
			if (n > 0 || held != nil) && w.deps.Store.AckedRowsMayBeLost() {
				lack, err := w.verifyRows(ctx, b, lo, hi, token)
				if err != nil {
					return err
				}
				rows -= lack
			}
			w.metrics.rows.Add(uint64(rows))
			break
		}
		if w.deps.Store.IsPermanent(err) {
			return w.bisect(ctx, b, lo, hi, held, err)
		}
		w.metrics.retries.WithLabelValues("insert").Inc()
		w.warnings.log(w.log, "insert is tried again", "token", token, "attempt", n+1, "err", err)
		if err := consumer.Pause(ctx, n); err != nil {
			return err
		}
		if time.Since(began) > w.cfg.Ask {
			if held, err = w.existingRows(ctx, b); err != nil {
				return err
			}
			skipped = w.appendRows(b, lo, hi, held)
			began = time.Now()
		}
	}
	w.metrics.alreadyStored.Add(uint64(skipped))
	return nil
}

// verifyRows asks whether the rows of the messages [lo,hi) are there, after an insert that was not the first of its token. A server that was
// killed may remember a token whose rows it has not kept, for it writes one before the other: it then takes the rows and drops them.
// What lacks is inserted under a token of its own, once. What is only on its way is waited for.
func (w *worker) verifyRows(ctx context.Context, b *block, lo, hi int, token string) (lack int, err error) {
	if strings.HasSuffix(token, "~") {
		return 0, nil
	}
	for n := 0; ; n++ {
		held, err := w.existingRows(ctx, b)
		if err != nil {
			return 0, err
		}
		w.appendRows(b, lo, hi, held)
		if lack = w.columns.Rows(); lack == 0 {
			return 0, nil
		}
		if n == verifyAttempts {
			w.log.Error("store took rows and does not have them; inserting them again", "token", token, "rows", lack)
			return lack, w.insertRange(ctx, b, lo, hi, token+"~", held)
		}
		if err := consumer.Pause(ctx, verifyPause); err != nil {
			return 0, err
		}
	}
}

// Rows that lack are looked for so often again, after pauses of so many doublings, before they are inserted again.
const (
	verifyAttempts = 2
	verifyPause    = 4
)

// appendRows appends the rows of the messages [lo,hi) that are not held, and counts those that are.
func (w *worker) appendRows(b *block, lo, hi int, held rowSet) (skipped int) {
	w.columns.Reset()
	for i := lo; i < hi; i++ {
		m := &b.messages[i]
		at := pipeline.Position{Partition: w.partition, Offset: m.record.Offset, BatchID: m.stamp}
		for j, e := range m.batch.Events {
			if held != nil {
				if _, ok := held[[2]int64{m.record.Offset, int64(j)}]; ok {
					skipped++
					continue
				}
			}
			at.Index = uint32(j)
			w.columns.Append(e, at, w.topic)
		}
	}
	return skipped
}

// bisect inserts both halves of what was refused.
func (w *worker) bisect(ctx context.Context, b *block, lo, hi int, held rowSet, cause error) error {
	if hi-lo == 1 {
		m := &b.messages[lo]
		m.deadLettered = true
		w.metrics.rejected.Add(uint64(len(m.batch.Events)))
		return w.writeDeadLetter(ctx, w.newDeadLetter(m.record, "refused", cause))
	}
	w.warnings.log(w.log, "store refused a block for good, bisecting", "from", b.from, "end", b.end, "messages", hi-lo, "err", cause)
	mid := lo + (hi-lo)/2
	for _, part := range [2][2]int{{lo, mid}, {mid, hi}} {
		token := fmt.Sprintf("%s#%d-%d", w.token(b), b.messages[part[0]].record.Offset, b.messages[part[1]-1].record.Offset)
		if err := w.insertRange(ctx, b, part[0], part[1], token, held); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) writeDeadLetter(ctx context.Context, l consumer.DeadLetter) error {
	if err := consumer.WriteDeadLetter(ctx, w.deps.Kafka, w.log, l); err != nil {
		return err
	}
	w.metrics.deadLettered.Add(1)
	w.metrics.deadLetters.WithLabelValues(l.Reason).Inc()
	w.warnings.log(w.log, "message put on the dead-letter topic", "offset", l.Offset, "reason", l.Reason, "err", l.Err)
	return nil
}
