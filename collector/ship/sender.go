package ship

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/collector/ship/spool"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
	diskRetry  = time.Second
)

// A sender produces the batches of one epoch and partition in the order of their sequences, several at a
// time. It never produces a batch whose sequence is window or more above the first unfinished one: the engine
// keeps that many sequences and would drop the first batch as a duplicate when it arrives. A batch is in
// memory or in the spool, and may have been made by an earlier process.
type sender struct {
	shipper   *Shipper
	epoch     uint64
	partition uint32
	packets   bool        // it sends batches of packets: they can go to the spool and are not in the journal
	budget    *byteBudget // budget to which its batches in memory are charged
	batcher   *batcher    // source of its batches; nil: the epoch is that of an earlier process

	mu                 sync.Mutex
	pending            []*pendingBatch // ordered by sequence; finished ones are removed at the front
	nextSequenceNumber uint64          // sequence of the next batch
	producing          int             // requests in flight
	backoff            retry.Backoff
	failingSince       time.Time   // time of the first failure in a row
	retryAt            time.Time   // no request before this time if the last one failed
	timer              *time.Timer // calls dispatchAgain at retryAt
}

// A batchState is the state of a pendingBatch; the package comment draws the transitions.
type batchState int

const (
	stateRecovering batchState = iota // made by an earlier process: its lines are being read again
	stateReady                        // to be produced or spilled
	stateProducing                    // in a produce request
	stateSpilling                     // being written to the spool or the journal
	stateDone                         // acknowledged by Kafka, or lost and counted
)

// A pendingBatch is a batch that has a sequence. Its fields are guarded by the sender's lock. While the state
// is stateProducing or stateSpilling, the goroutine that set the state owns the other fields.
type pendingBatch struct {
	sequence      uint64
	state         batchState
	missingRanges int       // in stateRecovering: ranges whose replay has not ended
	batch         *batch    // nil: it is in the spool
	ref           spool.Ref // its position in the spool
	counts        datasetCounts
	queuedAt      time.Time // when it got its sequence, or was recovered
	confirmed     bool      // it is safe, and its files and the journal were updated
	journaled     bool      // it is in the journal, even if the sender is one of packets (moveUnreadable)
}

func (p *pendingBatch) id(s *sender) batchID {
	return batchID{Epoch: s.epoch, Partition: s.partition, Sequence: p.sequence}
}

// addPacketBatch sets the next sequence of full and appends it to pending in the given state. Both happen
// under one lock: if a batch with a higher sequence were produced before full is in pending, full could fall
// out of the window.
func (s *sender) addPacketBatch(full *batch, state batchState) *pendingBatch {
	s.mu.Lock()
	full.appendHeader(s.shipper.batchHeader(s.epoch, s.partition, s.nextSequenceNumber))
	pending := &pendingBatch{
		sequence: s.nextSequenceNumber, state: state, batch: full, counts: full.counts, queuedAt: time.Now(),
	}
	s.nextSequenceNumber++
	s.pending = append(s.pending, pending)
	s.dispatch()
	s.mu.Unlock()
	// A batch in stateSpilling comes from the maintenance itself (moveUnreadable).
	if state != stateSpilling && s.budget.used.Load() > s.budget.limit()/4 {
		s.shipper.requestMaintenance()
	}
	return pending
}

// nextSequence sets the next sequence of full and appends its header. The caller writes full to the journal
// before it calls addFileBatch. Only the goroutine of journalBatches calls the two, so that pending stays in
// order.
func (s *sender) nextSequence(full *batch) uint64 {
	s.mu.Lock()
	sequence := s.nextSequenceNumber
	s.nextSequenceNumber++
	s.mu.Unlock()
	full.appendHeader(s.shipper.batchHeader(s.epoch, s.partition, sequence))
	return sequence
}

// addFileBatch appends a batch that has its sequence and is in the journal.
func (s *sender) addFileBatch(full *batch, sequence uint64) {
	s.mu.Lock()
	s.pending = append(s.pending, &pendingBatch{
		sequence: sequence, state: stateReady, batch: full, counts: full.counts, queuedAt: time.Now(),
	})
	s.dispatch()
	s.mu.Unlock()
}

// insertRecovered inserts a batch of an earlier process in the order of the sequences.
func (s *sender) insertRecovered(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bySequence := func(p *pendingBatch, sequence uint64) int { return cmp.Compare(p.sequence, sequence) }
	position, _ := slices.BinarySearchFunc(s.pending, pending.sequence, bySequence)
	s.pending = slices.Insert(s.pending, position, pending)
}

// windowOpen reports whether the next sequence is within the window.
func (s *sender) windowOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) == 0 || s.nextSequenceNumber < s.pending[0].sequence+window
}

// dispatch starts the requests that may be sent now; s.mu must be held. After a failure it sends one batch at
// a time until a request succeeds.
func (s *sender) dispatch() {
	if s.shipper.ctx.Err() != nil || len(s.pending) == 0 || s.shipper.isMissing(int(s.partition)) {
		return
	}

	// Wait for the end of the pause after a failure.
	limit := s.shipper.cfg.MaxInFlight
	if s.backoff.Attempts() > 0 {
		limit = 1
		if left := time.Until(s.retryAt); left > 0 {
			if s.timer == nil {
				s.timer = time.AfterFunc(left, s.dispatchAgain)
			} else {
				s.timer.Reset(left)
			}
			return
		}
	}

	// Invariant: all batches below first are finished, and no batch at or above first+window is produced.
	first := s.pending[0].sequence
	for _, pending := range s.pending {
		if s.producing >= limit || pending.sequence >= first+window {
			return
		}
		if pending.state == stateReady {
			pending.state = stateProducing
			s.producing++
			s.shipper.producing.Add(1)
			go s.produceBatch(pending)
		}
	}
}

// dispatchAgain is dispatch for the timer.
func (s *sender) dispatchAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dispatch()
}

// produceBatch sends pending once and acts on the result.
func (s *sender) produceBatch(pending *pendingBatch) {
	shipper := s.shipper
	defer shipper.producing.Done()

	// A batch that cannot be read from the spool is lost.
	value, err := s.bytesOf(pending)
	if errors.Is(err, spool.ErrDamaged) {
		shipper.counters.discarded[lostSpool].addCounts(&pending.counts)
		s.finishProduced(pending)
		return
	}

	if err == nil {
		failpoint(shipper.failpoints.beforeProduce, pending.id(s))
		ctx, cancel := context.WithTimeout(shipper.ctx, shipper.kafka.Config().Timeout)
		record := kafkago.Record{Value: kafkago.NewBytes(value)}
		_, err = shipper.kafka.Produce(ctx, shipper.topic, int(s.partition), record)
		cancel()
		if err == nil {
			failpoint(shipper.failpoints.afterProduce, pending.id(s))
		}
		if errors.Is(err, kafkago.UnknownTopicOrPartition) {
			shipper.health.topicDoubtful.Store(true)
		}
		shipper.recordProduceResult(err)
	}

	// Only a batch that Kafka will never accept is lost; every other error is temporary.
	switch {
	case err == nil:
		shipper.counters.delivered.addCounts(&pending.counts)
		shipper.counters.batches.Add(1)
		s.finishProduced(pending)
	case kafka.Classify(err) == kafka.Rejected:
		shipper.counters.discarded[lostRejected].addCounts(&pending.counts)
		s.finishProduced(pending)
	default:
		s.retryLater(pending)
	}
}

// bytesOf returns the encoded bytes of pending, from memory or from the spool.
func (s *sender) bytesOf(pending *pendingBatch) ([]byte, error) {
	if pending.batch != nil {
		return pending.batch.buf, nil
	}
	return s.shipper.spool.Read(pending.ref)
}

// retryLater makes pending ready again after a failed request and sets the pause before the next request.
func (s *sender) retryLater(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A request that timed out may still be writing the buffer to its connection.
	if pending.batch != nil {
		pending.batch.bufferShared = true
	}
	pending.state = stateReady
	s.producing--

	// Requests in flight together fail together: only the first failure lengthens the pause.
	now := time.Now()
	if s.backoff.Attempts() == 0 {
		s.failingSince = now
	}
	if now.After(s.retryAt) {
		s.retryAt = now.Add(s.backoff.Next())
	}
	s.dispatch()
}

// finishProduced finishes a batch whose request has ended and will not be repeated, and resets the back-off.
func (s *sender) finishProduced(pending *pendingBatch) {
	s.mu.Lock()
	s.producing--
	s.backoff.Reset()
	s.mu.Unlock()
	s.finishBatch(pending)
}

// finishBatch releases a batch that is in Kafka, or lost and counted. The caller owns pending
// (stateProducing).
func (s *sender) finishBatch(pending *pendingBatch) {
	// The checkpoints and the journal are updated first: confirmSafe reads the batch, and removeBatch opens
	// the window for later batches.
	full, ref := pending.batch, pending.ref
	s.confirmSafe(pending, full)
	s.removeBatch(pending)
	if full != nil {
		s.recycleBatch(full)
	} else {
		s.shipper.spool.Release(ref)
	}
	if s.batcher != nil && !s.packets {
		s.batcher.wakeJournaling()
	}
	s.shipper.signalProgress()
}

// makeReady sets pending, which was in stateSpilling, to stateReady.
func (s *sender) makeReady(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending.state = stateReady
	s.dispatch()
}

// removeBatch marks pending as done and removes the done batches at the front of the list.
func (s *sender) removeBatch(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending.state, pending.batch = stateDone, nil

	// A done batch stays while an earlier one is unfinished: the window begins at the first unfinished
	// sequence.
	finished := 0
	for finished < len(s.pending) && s.pending[finished].state == stateDone {
		s.pending[finished] = nil
		finished++
	}
	s.pending = s.pending[finished:]
	s.dispatch()
}

// confirmSafe records that the lines of a batch are safe, in the checkpoints of their files and in the
// journal. It does so once for each batch. full is the batch of pending, owned by the caller; nil: pending
// was in the spool and is confirmed.
func (s *sender) confirmSafe(pending *pendingBatch, full *batch) {
	if pending.confirmed || full == nil {
		return
	}
	pending.confirmed = true
	shipper := s.shipper
	shipper.counters.safe.addCounts(&pending.counts)
	if shipper.failpoints.afterConfirm != nil {
		shipper.failpoints.afterConfirm(full.buf)
	}

	// Finish the ranges of the files, then record that in the journal. A batch of packets that is not in the
	// journal may hold lines of removed files: these are recorded as done.
	var droppable []*fileProducer
	for _, lines := range full.ranges {
		if lines.file.finishRange(lines) {
			droppable = append(droppable, lines.file)
		}
	}
	if !s.packets || pending.journaled {
		shipper.journal.Ack(pending.id(s))
	} else {
		for _, lines := range full.ranges { // lines of files that cannot be read again, in a batch of packets
			shipper.journal.Done(lines.toJournal())
		}
	}
	for _, file := range droppable {
		shipper.dropFinishedFile(file)
	}
}

// recycleBatch returns the memory of full to the budget, and full to the pool.
func (s *sender) recycleBatch(full *batch) {
	if full.charged > 0 {
		s.budget.refund(full.charged)
	}
	full.recycle()
}

// spillBatches writes batches to the spool, in the order of their sequences: batches of packets, and batches
// with lines that cannot be read again. It takes those that have waited for Config.SpoolAfter, all while
// memory is short, and all with always.
func (s *sender) spillBatches(always bool) {
	for {
		pending := s.nextSpill(always)
		if pending == nil {
			return
		}

		// 1. Write the batch. In stateSpilling this goroutine owns it, so that no lock is held during the
		// write.
		full := pending.batch
		ref, err := s.shipper.spool.Append(&spool.Header{
			Epoch: s.epoch, Partition: s.partition, Sequence: pending.sequence, Packets: s.packets,
			Counts: pending.counts[:],
		}, full.buf)
		if err == nil {
			s.confirmSafe(pending, full)
			s.shipper.counters.spooled.addCounts(&pending.counts)
		}

		// 2. Make it ready: it is produced from the spool or, if the write failed, from memory.
		s.mu.Lock()
		pending.state = stateReady
		if err == nil {
			pending.batch, pending.ref = nil, ref
		}
		s.dispatch()
		s.mu.Unlock()
		if err != nil {
			return // the spool has counted and logged the error
		}
		s.recycleBatch(full)
	}
}

// nextSpill returns the next batch to be spilled and sets it to stateSpilling; nil: there is none.
func (s *sender) nextSpill(always bool) *pendingBatch {
	s.mu.Lock()
	defer s.mu.Unlock()

	// Packets do not wait for SpoolAfter while more than half of their memory is used, or a quarter while
	// Kafka is unavailable: the rest is left for packets that arrive during the writes.
	if !always && s.packets {
		used, limit := s.budget.used.Load(), s.budget.limit()
		always = used > limit/2 || s.backoff.Attempts() > 0 && used > limit/4
	}
	for _, pending := range s.pending {
		if pending.state != stateReady || pending.batch == nil {
			continue
		}
		if !s.packets && !pending.batch.unreadable.Load() {
			continue
		}
		if !always && time.Since(pending.queuedAt) < s.shipper.cfg.SpoolAfter {
			return nil // the batches behind it are younger
		}
		pending.state = stateSpilling
		return pending
	}
	return nil
}

// isFailing reports whether the last request of s has failed.
func (s *sender) isFailing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backoff.Attempts() > 0
}

// isUnreachable reports whether the topic lacks the partition of s, or Kafka is unavailable and has accepted no batch
// of s for longer than SpoolAfter: Close then does not wait for it.
func (s *sender) isUnreachable() bool {
	if s.shipper.isMissing(int(s.partition)) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shipper.health.unavailable.Load() && s.backoff.Attempts() > 0 && s.producing == 0 && time.Since(s.failingSince) > s.shipper.cfg.SpoolAfter
}

// isDrained reports whether all batches are done, except those that wait for lines of an earlier process.
func (s *sender) isDrained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pending := range s.pending {
		if pending.state != stateRecovering && pending.state != stateDone {
			return false
		}
	}
	return true
}

// bufferedEvents returns the number of events that wait in memory or in the spool.
func (s *sender) bufferedEvents() (events uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pending := range s.pending {
		switch pending.state {
		case stateDone:
		case stateRecovering:
			events += uint64(pending.batch.eventCount)
		default:
			events += pending.counts.total()
		}
	}
	return events
}
