package ship

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
)

// recoverState takes over what earlier processes left in the state folder. No other goroutine runs yet.
func (s *Shipper) recoverState() error {
	var err error
	s.journal, err = journal.Open(s.cfg.StateDir, journal.Options{
		Sync: s.cfg.Fsync, Log: s.log, CompactAt: s.failpoints.compactAt, Wrap: s.failpoints.wrapFile,
	})
	if err != nil {
		return err
	}

	// What is in the spool is safe, whatever the journal says, so the spool comes first.
	if err := s.recoverSpool(); err != nil {
		return err
	}
	state := s.journal.State()
	s.recoverJournal(state)
	if err := s.journal.Start(); err != nil {
		return err
	}
	s.setPartitions(max(min(state.Partitions, maxPartitions), 1))
	return nil
}

// recoverSpool opens the spool and gives its batches to the senders of their epochs.
func (s *Shipper) recoverSpool() error {
	seen := map[batchID]bool{}
	var repeated []spool.Ref
	visit := func(header *spool.Header, ref spool.Ref, readable bool) {
		// A batch is there twice when a process was killed before it knew that the first write had succeeded.
		id := batchID{Epoch: header.Epoch, Partition: header.Partition, Sequence: header.Sequence}
		if seen[id] {
			repeated = append(repeated, ref)
			return
		}
		seen[id] = true

		counts := countsOf(header.Counts)
		s.counters.recovered.addCounts(&counts)
		if !readable {
			s.counters.discarded[lostSpool].addCounts(&counts)
			return
		}
		s.journal.Ack(id)
		sender := s.senderFor(senderKey{id.Epoch, id.Partition}, header.Packets)
		sender.insertRecovered(&pendingBatch{
			sequence: id.Sequence, state: stateReady, ref: ref, counts: counts, queuedAt: time.Now(), confirmed: true,
		})
	}

	var err error
	s.spool, err = spool.Open(filepath.Join(s.cfg.StateDir, "spool"), spool.Options{
		Limit: int64(s.cfg.SpoolBytes), Sync: s.cfg.Fsync, Log: s.log, Wrap: s.failpoints.wrapFile,
	}, visit)
	if err != nil {
		return fmt.Errorf("open spool: %w", err)
	}
	for _, ref := range repeated {
		s.spool.Release(ref)
	}
	return nil
}

// recoverJournal makes a fileProducer of each file of the journal, and a pendingBatch that waits for its
// lines of each batch.
func (s *Shipper) recoverJournal(state journal.State) {
	files := make(map[journal.FileID]*fileProducer, len(state.Files))
	for i := range state.Files {
		files[state.Files[i].ID] = s.recoverFile(&state.Files[i])
	}
	for i := range state.Batches {
		s.recoverBatch(&state.Batches[i], files)
	}

	// The ranges of all batches are known now: drop the files that are of no use any more, and note those
	// whose lines must be read again.
	for i := range state.Files {
		producer := files[state.Files[i].ID]
		replaced := producer.inState(fileClosed)
		if replaced && !slices.ContainsFunc(producer.ranges, func(r *batchRange) bool { return !r.done }) {
			s.journal.DropFile(producer.id) // another file has its name, and no batch waits for it
			continue
		}
		producer.unpassedRanges.Store(int32(len(producer.ranges)))
		if len(producer.ranges) > 0 {
			s.filesToReplay = append(s.filesToReplay, producer)
		}
		if !replaced {
			s.files[producer.name] = producer
		}
	}
}

// recoverFile returns the producer of a file of an earlier process, which nobody has open.
func (s *Shipper) recoverFile(file *journal.File) *fileProducer {
	producer := newFileProducer(s, file.Name, file.ID)
	producer.checkpoint, producer.hasCheckpoint = file.Checkpoint, file.HasCheckpoint
	producer.lastEnd, producer.rangeEnd = file.Checkpoint.End, file.Checkpoint.End
	if file.Replaced {
		producer.state.Store(int32(fileClosed))
	}
	for _, done := range file.Done {
		producer.insertRange(&batchRange{
			file: producer, after: done.After, end: done.End, done: true, replay: &rangeReplay{},
		})
	}
	return producer
}

// recoverBatch makes a batch that waits until its lines have been read again.
func (s *Shipper) recoverBatch(batch *journal.Batch, files map[journal.FileID]*fileProducer) {
	if len(batch.Ranges) == 0 { // all of them were abandoned, or nobody knows of which files they were
		s.journal.Ack(batch.ID)
		return
	}
	sender := s.senderFor(senderKey{batch.ID.Epoch, batch.ID.Partition}, false)
	pending := &pendingBatch{
		sequence: batch.ID.Sequence, state: stateRecovering, missingRanges: len(batch.Ranges), batch: newBatch(),
		queuedAt: time.Now(),
	}

	// The batch is empty and fills up while the lines of its ranges are read again (replay.go).
	for _, journaled := range batch.Ranges {
		producer := files[journaled.File]
		recovered := &batchRange{
			file: producer, batch: pending.batch, after: journaled.After, end: journaled.End, count: journaled.Events,
			replay: &rangeReplay{sender: sender, pending: pending},
		}
		pending.batch.ranges = append(pending.batch.ranges, recovered)
		producer.insertRange(recovered)
	}
	sender.insertRecovered(pending)
}

// dispatchRecovered starts to send what earlier processes left.
func (s *Shipper) dispatchRecovered() {
	for _, sender := range s.everySender() {
		sender.mu.Lock()
		sender.dispatch()
		sender.mu.Unlock()
	}
}
