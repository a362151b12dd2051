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
// time. It never produces a batch whose sequence is a window or more above the first unfinished one: a reader
// remembers a window of sequences and would take that first batch, when it arrives at last, for a repeat. A
// batch may lie in memory or in the spool and may have been made by an earlier process.
type sender struct {
	shipper   *Shipper
	epoch     uint64
	partition uint32
	packets   bool        // its batches can go to the spool, and are not in the journal
	budget    *byteBudget // that batches in memory were charged to
	batcher   *batcher    // that fills it; nil: the epoch is that of an earlier process

	mu                 sync.Mutex
	pending            []*pendingBatch // by sequence; finished ones leave at the front
	nextSequenceNumber uint64          // sequence of the next batch
	producing          int             // requests that are under way
	backoff            retry.Backoff
	failingSince       time.Time
	retryAt            time.Time // of no use unless the last request failed
	timer              *time.Timer
}

// A batchState is the state of a pendingBatch; the package comment draws the transitions.
type batchState int

const (
	stateRecovering batchState = iota // of an earlier process: its lines are being read again
	stateReady                        // to be produced or spilled
	stateProducing                    // in a produce request
	stateSpilling                     // being written to the spool or the journal
	stateDone                         // acknowledged by Kafka, or lost and counted
)

// A pendingBatch is a batch that has its sequence. Its fields are guarded by the sender's lock; while the
// state is stateProducing or stateSpilling they belong to the goroutine that set it.
type pendingBatch struct {
	sequence      uint64
	state         batchState
	missingRanges int       // ranges whose lines stateRecovering waits for
	batch         *batch    // nil: it lies in the spool
	ref           spool.Ref // where
	counts        datasetCounts
	queuedAt      time.Time // when it got its sequence, or was recovered
	confirmed     bool      // its files know that its lines are safe
	journaled     bool      // the journal has it, although the sender is one of packets
}

func (p *pendingBatch) id(s *sender) batchID {
	return batchID{Epoch: s.epoch, Partition: s.partition, Sequence: p.sequence}
}

// addPacketBatch gives full the next sequence and takes it over in the given state. Both happen under one
// lock: a batch that joined after batches above it were produced could be outside the reader's window.
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
	if s.budget.used.Load() > s.budget.limit()/4 {
		s.shipper.requestMaintenance()
	}
	return pending
}

// nextSequence gives full its sequence. The journal must know the batch before addFileBatch is called. Both
// are called by the batcher's journaling goroutine alone, so batches of files join in order too.
func (s *sender) nextSequence(full *batch) uint64 {
	s.mu.Lock()
	sequence := s.nextSequenceNumber
	s.nextSequenceNumber++
	s.mu.Unlock()
	full.appendHeader(s.shipper.batchHeader(s.epoch, s.partition, sequence))
	return sequence
}

// addFileBatch takes over a batch that has its sequence and is in the journal.
func (s *sender) addFileBatch(full *batch, sequence uint64) {
	s.mu.Lock()
	s.pending = append(s.pending, &pendingBatch{
		sequence: sequence, state: stateReady, batch: full, counts: full.counts, queuedAt: time.Now(),
	})
	s.dispatch()
	s.mu.Unlock()
}

// insertRecovered takes over a batch of an earlier process.
func (s *sender) insertRecovered(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bySequence := func(p *pendingBatch, sequence uint64) int { return cmp.Compare(p.sequence, sequence) }
	position, _ := slices.BinarySearchFunc(s.pending, pending.sequence, bySequence)
	s.pending = slices.Insert(s.pending, position, pending)
}

// windowOpen reports whether the window has room for one more sequence.
func (s *sender) windowOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) == 0 || s.nextSequenceNumber < s.pending[0].sequence+window
}

// dispatch starts the requests that may be sent now; s.mu must be held. After a failure one batch at a time
// tries whether Kafka is available again.
func (s *sender) dispatch() {
	if s.shipper.ctx.Err() != nil || len(s.pending) == 0 {
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

	// Invariant: everything below first is finished, and nothing at or above first+window is ever produced.
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
		shipper.recordProduceResult(err)
	}
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

// bytesOf returns the bytes of pending, from memory or from the spool.
func (s *sender) bytesOf(pending *pendingBatch) ([]byte, error) {
	if pending.batch != nil {
		return pending.batch.buf, nil
	}
	return s.shipper.spool.Read(pending.ref)
}

// retryLater puts pending back after a request that failed, and sets the pause before the next one.
func (s *sender) retryLater(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pending.batch != nil {
		pending.batch.bufferShared = true
	}
	pending.state = stateReady
	s.producing--

	// Requests that were sent together fail together: only the first of them lengthens the pause.
	now := time.Now()
	if s.backoff.Attempts() == 0 {
		s.failingSince = now
	}
	if now.After(s.retryAt) {
		s.retryAt = now.Add(s.backoff.Next())
	}
	s.dispatch()
}

// finishProduced ends a batch that need not be produced again.
func (s *sender) finishProduced(pending *pendingBatch) {
	s.mu.Lock()
	s.producing--
	s.backoff.Reset()
	s.mu.Unlock()
	s.finishBatch(pending)
}

// finishBatch ends a batch that is in Kafka, or lost and counted, and that nobody else touches.
func (s *sender) finishBatch(pending *pendingBatch) {
	// The files learn that their lines are safe before the window moves and the memory is given back.
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

// makeReady lets pending be produced.
func (s *sender) makeReady(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending.state = stateReady
	s.dispatch()
}

// removeBatch marks pending as finished and takes what is finished off the front.
func (s *sender) removeBatch(pending *pendingBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending.state, pending.batch = stateDone, nil

	// A finished batch stays while one before it is unfinished: the first unfinished sequence is where the
	// window begins.
	finished := 0
	for finished < len(s.pending) && s.pending[finished].state == stateDone {
		s.pending[finished] = nil
		finished++
	}
	s.pending = s.pending[finished:]
	s.dispatch()
}

// confirmSafe records, once for each batch, that its lines are safe: in their files and in the journal. full
// is the batch of pending, which nobody else holds; nil: it came from the spool and was safe before.
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

	var droppable []*fileProducer
	for _, r := range full.ranges {
		if r.file.finishRange(r) {
			droppable = append(droppable, r.file)
		}
	}
	if !s.packets || pending.journaled {
		shipper.journal.Ack(pending.id(s))
	} else {
		for _, r := range full.ranges { // lines of files that cannot be read again, among packets
			shipper.journal.Done(r.toJournal())
		}
	}
	for _, f := range droppable {
		shipper.dropFinishedFile(f)
	}
}

func (s *sender) recycleBatch(full *batch) {
	if full.charged > 0 {
		s.budget.refund(full.charged)
	}
	full.recycle()
}

// spillBatches writes batches of packets, and those with lines that cannot be read again, to the spool, in
// the order of their sequences: those that have waited for long, those that memory is needed for or, with
// always, all.
func (s *sender) spillBatches(always bool) {
	for {
		pending := s.nextSpill(always)
		if pending == nil {
			return
		}

		// 1. Write it. In stateSpilling nobody else touches the batch, so no lock is held meanwhile.
		full := pending.batch
		ref, err := s.shipper.spool.Append(&spool.Header{
			Epoch: s.epoch, Partition: s.partition, Sequence: pending.sequence, Packets: s.packets,
			Counts: pending.counts[:],
		}, full.buf)
		if err == nil {
			s.confirmSafe(pending, full)
			s.shipper.counters.spooled.addCounts(&pending.counts)
		}

		// 2. Let it be produced, from the spool or, if the disk refused it, from memory.
		s.mu.Lock()
		pending.state = stateReady
		if err == nil {
			pending.batch, pending.ref = nil, ref
		}
		s.dispatch()
		s.mu.Unlock()
		if err != nil {
			return // the spool has counted and logged it
		}
		s.recycleBatch(full)
	}
}

// nextSpill returns the next batch to be spilled, in stateSpilling; nil if there is none.
func (s *sender) nextSpill(always bool) *pendingBatch {
	s.mu.Lock()
	defer s.mu.Unlock()

	// Packets do not wait for SpoolAfter when their memory fills up: half of it is left for what comes in
	// meanwhile.
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
			return nil // those behind it are younger
		}
		pending.state = stateSpilling
		return pending
	}
	return nil
}

// isUnreachable reports whether Kafka has accepted nothing for so long that Close need not wait for it.
func (s *sender) isUnreachable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backoff.Attempts() > 0 && s.producing == 0 && time.Since(s.failingSince) > s.shipper.cfg.SpoolAfter
}

// isDrained reports whether everything that can be produced has been.
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

// bufferedEvents returns how many events wait in memory or in the spool.
func (s *sender) bufferedEvents() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pending := range s.pending {
		switch pending.state {
		case stateDone:
		case stateRecovering:
			n += uint64(pending.batch.eventCount)
		default:
			n += pending.counts.total()
		}
	}
	return n
}
