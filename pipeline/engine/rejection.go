package engine

import (
	"context"
	"errors"
	"fmt"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// errBlockRejected is the error of a block of which the store rejects every message. Most likely the messages are
// not at fault but the table is: a column that was changed, a constraint that was added. Such a block becomes no
// dead letters, see withdrawBlock.
var errBlockRejected = errors.New("the store rejects every message of the block")

// recordStoredDespiteError counts and logs an insert that failed although the store holds its rows. A
// materialized view on the table that fails is the usual cause.
func (w *worker) recordStoredDespiteError(block *block, rows int, p part, cause error) {
	block.counts.rows += uint64(rows)
	w.metrics.storedDespiteError.Add(1)
	if errors.Is(cause, pipeline.ErrRowsRejected) {
		w.logWarning(w.throttles.view, "rows are stored, but a materialized view on the table rejects them",
			"token", p.token.String(), "rows", rows, "err", cause)
		return
	}
	w.logWarning(w.throttles.view, "rows are stored, although the insert failed",
		"token", p.token.String(), "rows", rows, "err", cause)
}

// insertHalves inserts both halves of a rejected part separately, and so bisects down to the messages that the
// store rejects. None of the rows in p is stored. A rejected part of one message is marked as rejected.
func (w *worker) insertHalves(ctx context.Context, block *block, p part, cause error) error {
	if len(p.messages) == 1 {
		p.messages[0].rejection = cause
		return nil
	}
	w.logWarning(w.throttles.bisect, "store rejected a block, bisecting it",
		"from", block.from, "end", block.end, "messages", len(p.messages), "err", cause)

	middle := len(p.messages) / 2
	for _, messages := range [2][]message{p.messages[:middle], p.messages[middle:]} {
		first, last := messages[0].record.Offset, messages[len(messages)-1].record.Offset
		half := part{messages: messages, token: p.token.forPart(first, last), existing: p.existing}
		if err := w.insertPart(ctx, block, half); err != nil {
			return err
		}
	}
	return nil
}

// writeRejected writes the messages of the block that the store rejects again to the dead-letter topic, after the store
// has accepted others. It returns errBlockRejected if the store has rejected all messages.
func (w *worker) writeRejected(ctx context.Context, block *block) error {
	rejected, accepted := 0, 0
	var cause error
	for i := range block.messages {
		switch msg := &block.messages[i]; {
		case msg.rejection != nil:
			rejected++
			cause = msg.rejection
		case len(msg.batch.Events) > 0:
			accepted++
		}
	}
	if rejected > 0 && accepted == 0 {
		return fmt.Errorf("%w: %w", errBlockRejected, cause)
	}

	for i := range block.messages {
		msg := &block.messages[i]
		if msg.rejection == nil {
			continue
		}
		// The table may have been repaired since the message was rejected, so it is inserted once more.
		msg.rejection = nil
		token := insertToken{block: w.blockID(block)}.forPart(msg.record.Offset, msg.record.Offset)
		if err := w.insertPart(ctx, block, part{messages: block.messages[i : i+1], token: token}); err != nil {
			return err
		}
		if msg.rejection == nil {
			continue
		}
		block.counts.rejected += uint64(len(msg.batch.Events))
		if err := w.writeDeadLetter(ctx, w.newDeadLetter(msg.record, "rejected", msg.rejection)); err != nil {
			return err
		}
	}
	return nil
}

// withdrawBlock removes the intent of a block of which the store rejects every message, and returns errRestart.
// The worker gathers the messages again after a pause, together with those that have arrived meanwhile. So it
// waits until the table is repaired, or until another message is accepted, which shows that the rejected ones are
// at fault. Nothing of the block is stored, so it needs neither its bounds nor its time any more.
func (w *worker) withdrawBlock(ctx context.Context, block *block, cause error) error {
	w.metrics.rejectedBlocks.Add(1)
	if suppressed, ok := w.throttles.rejected.Allow(); ok {
		w.log.Error("store rejects every message, so its table is taken for the cause; "+
			"nothing is stored until the table accepts a row",
			"from", block.from, "end", block.end, "messages", len(block.messages), "suppressed", suppressed, "err", cause)
	}
	if err := w.partition.Commit(ctx, block.first, ""); err != nil {
		return err
	}
	return errRestart
}

// newDeadLetter returns the dead letter for a record. reason is one word, also the label of the metric.
func (w *worker) newDeadLetter(record consumer.Record, reason string, err error) consumer.DeadLetter {
	return consumer.DeadLetter{
		Topic: w.source.Topic, Partition: w.partition.ID, Offset: record.Offset, Stage: "engine", Reason: reason, Err: err,
		Key: record.Key, Value: record.Value,
	}
}

// writeDeadLetter writes and counts a dead letter.
func (w *worker) writeDeadLetter(ctx context.Context, deadLetter consumer.DeadLetter) error {
	err := consumer.WriteDeadLetter(ctx, w.deps.Kafka, w.log, deadLetter)
	if errors.Is(err, consumer.ErrUnwritable) {
		w.metrics.deadLettered.Add(1)
		w.metrics.deadLetters.WithLabelValues("unwritable").Inc()
		w.log.Error("message is lost: it can be processed no more than its dead letter can be written",
			"offset", deadLetter.Offset, "reason", deadLetter.Reason, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	w.metrics.deadLettered.Add(1)
	w.metrics.deadLetters.WithLabelValues(deadLetter.Reason).Inc()
	w.logWarning(w.throttles.deadLetter, "message written to the dead-letter topic",
		"offset", deadLetter.Offset, "reason", deadLetter.Reason, "err", deadLetter.Err)
	return nil
}
