package engine

import (
	"context"
	"errors"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/retry"
)

// A part is a run of a block's messages that one insert stores. The first part of a block holds all messages;
// a part that the store rejects is split into halves.
type part struct {
	messages []message // aliases the block's messages
	token    insertToken
	// existing holds the rows of the block that are already stored and must be left out. It is nil if no
	// insert of the block can have been attempted before.
	existing map[pipeline.RowID]struct{}
}

// insertBlock stores the rows of the block. If another run may have stored some of them, it inserts only the
// missing rows. That run is an earlier owner of the partition (the block is replayed), or a later owner that
// replayed the block while this process was stopped between the intent and the insert.
func (w *worker) insertBlock(ctx context.Context, block *block) error {
	whole := part{messages: block.messages, token: insertToken{block: w.blockID(block)}}
	if block.replayed || elapsed(block.intentTime, w.deps.Now()) > w.cfg.VerifyAfter {
		var err error
		if whole.existing, err = w.existingRows(ctx, block); err != nil {
			return err
		}
	}
	if err := w.insertPart(ctx, block, whole); err != nil {
		return err
	}
	return w.writeRejected(ctx, block)
}

// existingRows queries which rows of the block are stored. It is needed when the store may have dropped the
// block's token from its window.
func (w *worker) existingRows(ctx context.Context, block *block) (existing map[pipeline.RowID]struct{}, err error) {
	err = w.withRetry(ctx, "query existing rows", func() error {
		existing, err = w.deps.Store.ExistingRows(ctx, w.blockID(block))
		return err
	})
	return existing, err
}

// insertPart stores the rows of a part. It returns nil when every row is stored or its message is marked as
// rejected. It fails only if ctx has ended or the partition belongs to another process.
//
// Invariant: before each attempt w.rows holds exactly the rows of p.messages that are not in p.existing. The
// set of rows may shrink between attempts under the same token: an insert stores all of its rows or none, so
// while a row is missing, no insert under the token has been stored.
func (w *worker) insertPart(ctx context.Context, block *block, p part) error {
	existingKnownAt := time.Now()
	skipped := w.appendRows(p)
	var backoff retry.Backoff
	for w.rows.Rows() > 0 {
		if err := w.confirmOwnership(ctx, block); err != nil {
			return err
		}
		err := w.rows.Insert(ctx, p.token.String())

		// Acknowledged. The first attempt under an unused token has stored the rows. A later attempt may be
		// acknowledged only because the store holds the token, so its rows are verified.
		if err == nil {
			inserted := w.rows.Rows()
			repeated := backoff.Attempts() > 0 || p.existing != nil
			if repeated && !p.token.retry && w.deps.Store.AckedRowsMayBeLost() {
				missing, err := w.insertMissingRows(ctx, block, p)
				if err != nil {
					return err
				}
				inserted -= missing
			}
			block.counts.rows += uint64(inserted)
			break
		}

		// Temporary: wait, then repeat under the same token.
		cause, rejected := err, errors.Is(err, pipeline.ErrRowsRejected)
		if !rejected {
			w.metrics.retries.WithLabelValues("insert").Inc()
			w.logWarning(w.throttles.insert, "inserting a block failed, retrying",
				"token", p.token.String(), "attempt", backoff.Attempts()+1, "err", err)
			if err := backoff.Wait(ctx); err != nil {
				return err
			}
		}

		if rejected || backoff.Attempts() > 1 || time.Since(existingKnownAt) > w.cfg.VerifyAfter {
			existingKnownAt = time.Now()
			found, err := w.skipStored(ctx, block, &p, cause)
			if err != nil {
				return err
			}
			if w.rows.Rows() == 0 {
				break
			}
			skipped = found
		}
		if rejected {
			return w.insertHalves(ctx, block, p, cause)
		}
	}
	if !p.token.retry { // the insert before a retry has counted the rows that the retry leaves out
		block.counts.alreadyStored += uint64(skipped)
	}
	return nil
}

// skipStored takes those rows out of w.rows that are stored although an insert of a part failed because of cause, and
// returns their number.
//
// They may be stored although the insert failed: the store commits the rows of the table before a view on the table
// fails, the answer may have been lost, and after VerifyAfter the store may have dropped the token of an attempt that it
// stored.
func (w *worker) skipStored(ctx context.Context, block *block, p *part, cause error) (stored int, err error) {
	attempted := w.rows.Rows()
	if p.existing, err = w.existingRows(ctx, block); err != nil {
		return 0, err
	}
	stored = w.appendRows(*p)
	if w.rows.Rows() == 0 {
		w.recordStoredDespiteError(block, attempted, *p, cause)
	}
	return stored, nil
}

// appendRows fills w.rows with the rows of the part that are not in p.existing. It returns the number of rows
// that it left out.
func (w *worker) appendRows(p part) (skipped int) {
	w.rows.Reset()
	for i := range p.messages {
		msg := &p.messages[i]
		at := pipeline.Position{Partition: w.source.Partition, Offset: msg.record.Offset, BatchID: msg.id}
		shipped := msg.shippedTime()
		for j, event := range msg.batch.Events {
			at.Index, at.Shipped = uint32(j), 0
			if event.Timestamp > shipped {
				at.Shipped = shipped
			}
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

// Number of queries for missing rows before they are inserted again, and the pause between two queries.
const (
	missingRowLookups = 3
	missingRowPause   = 800 * time.Millisecond
)

// insertMissingRows queries whether the rows of an acknowledged part are stored, inserts the missing ones
// once more under a retry token, and returns their number.
//
// Rows can be missing because ClickHouse writes the token before the rows: a server that was killed in
// between holds the token, acknowledges the repeat and drops its rows.
func (w *worker) insertMissingRows(ctx context.Context, block *block, p part) (missing int, err error) {
	// Missing rows are queried several times: another connection may still be storing them.
	for lookup := 1; ; lookup++ {
		if p.existing, err = w.existingRows(ctx, block); err != nil {
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
	return missing, w.insertPart(ctx, block, p)
}
