package engine

import (
	"context"
	"errors"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/retry"
)

// A part is the run of a block's messages that one insert stores: at first all of them, after the store
// rejected those each half.
type part struct {
	messages []message // aliases the block's messages
	token    insertToken
	// existing are rows of the block that are stored already and are left out. nil: nobody has inserted any
	// yet.
	existing map[pipeline.RowID]struct{}
}

// insertBlock stores the rows of the block: all of them, or those that are missing where an earlier owner of
// the partition may have stored some. That owner may be this process before a restart, or another one, to
// which the partition went while this process was stopped between its intent and now.
func (w *worker) insertBlock(ctx context.Context, b *block) error {
	whole := part{messages: b.messages, token: insertToken{block: w.blockID(b)}}
	if b.replayed || time.Since(b.intentTime) > w.cfg.VerifyAfter {
		var err error
		if whole.existing, err = w.existingRows(ctx, b); err != nil {
			return err
		}
	}
	return w.insertPart(ctx, b, whole)
}

// existingRows asks the store which rows of the block it holds, because it may have forgotten the block's
// token.
func (w *worker) existingRows(ctx context.Context, b *block) (existing map[pipeline.RowID]struct{}, err error) {
	err = w.withRetry(ctx, "query existing rows", func() error {
		existing, err = w.deps.Store.ExistingRows(ctx, w.blockID(b))
		return err
	})
	return existing, err
}

// insertPart stores the rows of a part. It returns when they are stored or dead letters, or with the error
// that ended ctx.
//
// Before each attempt w.rows holds exactly the rows of p.messages that are not in p.existing. That set may
// shrink from one attempt to the next under the same token without harm: as long as a row is missing, no
// insert under the token has been stored, since an insert stores all of its rows or none.
func (w *worker) insertPart(ctx context.Context, b *block, p part) error {
	existingKnownAt := time.Now()
	skipped := w.appendRows(p)
	var backoff retry.Backoff
	for w.rows.Rows() > 0 {
		err := w.rows.Insert(ctx, p.token.String())

		if err == nil {
			inserted := w.rows.Rows()
			// The acknowledgement of the first attempt under an unused token can be trusted. A later one may
			// be acknowledged for the token alone.
			repeated := backoff.Attempts() > 0 || p.existing != nil
			if repeated && !p.token.retry && w.deps.Store.AckedRowsMayBeLost() {
				missing, err := w.insertMissingRows(ctx, b, p)
				if err != nil {
					return err
				}
				inserted -= missing
			}
			w.metrics.rows.Add(uint64(inserted))
			break
		}

		if errors.Is(err, pipeline.ErrRowsRejected) {
			return w.insertHalves(ctx, b, p, err)
		}
		w.metrics.retries.WithLabelValues("insert").Inc()
		w.logWarning(w.throttles.insert, "inserting a block failed, retrying",
			"token", p.token.String(), "attempt", backoff.Attempts()+1, "err", err)
		if err := backoff.Wait(ctx); err != nil {
			return err
		}

		// After a while the store may have stored an earlier attempt and forgotten its token: what exists is
		// looked up before each further attempt of that age.
		if time.Since(existingKnownAt) > w.cfg.VerifyAfter {
			if p.existing, err = w.existingRows(ctx, b); err != nil {
				return err
			}
			skipped = w.appendRows(p)
			existingKnownAt = time.Now()
		}
	}
	if !p.token.retry { // the rows that a retry leaves out were counted by the insert before it
		w.metrics.alreadyStored.Add(uint64(skipped))
	}
	return nil
}

// appendRows fills w.rows with the rows of the part that do not exist and returns how many rows it left out.
func (w *worker) appendRows(p part) (skipped int) {
	w.rows.Reset()
	for i := range p.messages {
		msg := &p.messages[i]
		at := pipeline.Position{Partition: w.source.Partition, Offset: msg.record.Offset, BatchID: msg.id}
		for j, event := range msg.batch.Events {
			at.Index = uint32(j)
			if p.existing != nil {
				if _, ok := p.existing[pipeline.RowID{Offset: at.Offset, Index: at.Index}]; ok {
					skipped++
					continue
				}
			}
			w.rows.Append(event, at, w.source.Topic)
		}
	}
	return skipped
}

// How often, and after which pauses, missing rows are looked up before they are inserted again.
const (
	missingRowLookups = 3
	missingRowPause   = 800 * time.Millisecond
)

// insertMissingRows looks up whether the rows of an acknowledged part are stored, and inserts those that are
// not once more under a token of their own. It returns how many it inserted. A server that was killed may
// remember the token of an insert whose rows it has not kept, since it writes the token first: it then
// acknowledges a repeat and drops the rows. Rows that another connection is still storing are waited for.
func (w *worker) insertMissingRows(ctx context.Context, b *block, p part) (missing int, err error) {
	for lookup := 1; ; lookup++ {
		if p.existing, err = w.existingRows(ctx, b); err != nil {
			return 0, err
		}
		w.appendRows(p)
		if missing = w.rows.Rows(); missing == 0 {
			return 0, nil
		}
		if lookup == missingRowLookups {
			break
		}
		if err := retry.Sleep(ctx, missingRowPause); err != nil {
			return 0, err
		}
	}
	w.log.Error("store acknowledged rows that it does not hold, inserting them again",
		"token", p.token.String(), "rows", missing)
	p.token = p.token.forRetry()
	return missing, w.insertPart(ctx, b, p)
}

// insertHalves inserts both halves of a rejected part by themselves, until the message that the store rejects
// stands alone. That one becomes a dead letter.
func (w *worker) insertHalves(ctx context.Context, b *block, p part, cause error) error {
	if len(p.messages) == 1 {
		msg := &p.messages[0]
		msg.rejected = true
		w.metrics.rejected.Add(uint64(len(msg.batch.Events)))
		return w.writeDeadLetter(ctx, w.newDeadLetter(msg.record, "rejected", cause))
	}
	w.logWarning(w.throttles.bisect, "store rejected a block, bisecting it",
		"from", b.from, "end", b.end, "messages", len(p.messages), "err", cause)

	middle := len(p.messages) / 2
	for _, messages := range [2][]message{p.messages[:middle], p.messages[middle:]} {
		first, last := messages[0].record.Offset, messages[len(messages)-1].record.Offset
		half := part{messages: messages, token: p.token.forPart(first, last), existing: p.existing}
		if err := w.insertPart(ctx, b, half); err != nil {
			return err
		}
	}
	return nil
}

// newDeadLetter returns the dead letter for a record. reason is a word that also labels the metric.
func (w *worker) newDeadLetter(r consumer.Record, reason string, err error) consumer.DeadLetter {
	return consumer.DeadLetter{
		Topic: w.source.Topic, Partition: w.partition.ID, Offset: r.Offset, Stage: "engine", Reason: reason, Err: err,
		Key: r.Key, Value: r.Value,
	}
}

// writeDeadLetter writes l to the dead-letter topic and counts it.
func (w *worker) writeDeadLetter(ctx context.Context, deadLetter consumer.DeadLetter) error {
	if err := consumer.WriteDeadLetter(ctx, w.deps.Kafka, w.log, deadLetter); err != nil {
		return err
	}
	w.metrics.deadLettered.Add(1)
	w.metrics.deadLetters.WithLabelValues(deadLetter.Reason).Inc()
	w.logWarning(w.throttles.deadLetter, "message written to the dead-letter topic",
		"offset", deadLetter.Offset, "reason", deadLetter.Reason, "err", deadLetter.Err)
	return nil
}
