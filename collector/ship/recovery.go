package ship

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
)

// recoverState reads the spool and the journal of earlier processes and makes senders and files of them. No
// other goroutine runs yet.
func (s *Shipper) recoverState() error {
	var err error
	s.journal, err = journal.Open(s.cfg.StateDir, journal.Options{
		Sync: s.cfg.Fsync, Log: s.log, CompactAt: s.failpoints.compactAt, Wrap: s.failpoints.wrapFile,
	})
	if err != nil {
		return err
	}
	if s.journal.Missing() && s.ranBefore() {
		s.log.Warn("a collector has run with this state folder before, but its journal is missing: log files are read "+
			"from their beginning, and lines may be stored twice", "folder", s.cfg.StateDir)
	}

	// The spool is read first: it acknowledges its batches in the journal, so that their lines are not read
	// again.
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

// processStart is the time at which this process was started.
var processStart = time.Now()

// ranBefore reports whether an earlier process has drawn the collector's id. Each process that has started
// has a journal.
func (s *Shipper) ranBefore() bool {
	drawn, err := collector.IDDrawn(s.cfg.StateDir)
	return err == nil && drawn.Before(processStart)
}

// recoverSpool opens the spool and adds its batches to the senders of their epochs.
func (s *Shipper) recoverSpool() error {
	readableBatches := map[batchID]bool{}
	unreadableBatches := map[batchID]datasetCounts{}
	var repeated []spool.Ref
	visit := func(header *spool.Header, ref spool.Ref, readable bool) {
		// A batch is in the spool twice if a process was killed between a write that succeeded and its
		// record, or during a write that was repeated: the first copy may be torn.
		id := batchID{Epoch: header.Epoch, Partition: header.Partition, Sequence: header.Sequence}
		counts := countsOf(header.Counts)
		switch {
		case !readable:
			unreadableBatches[id] = counts
			return
		case readableBatches[id]:
			repeated = append(repeated, ref)
			return
		}
		readableBatches[id] = true
		s.counters.recovered.addCounts(&counts)
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

	// A batch is lost if none of its copies is readable.
	for id, counts := range unreadableBatches {
		if !readableBatches[id] {
			s.counters.recovered.addCounts(&counts)
			s.counters.discarded[lostSpool].addCounts(&counts)
		}
	}
	return nil
}

// recoverJournal makes a fileProducer for each file of the journal. For each batch of the journal it makes a
// pendingBatch that waits until its lines were read again.
func (s *Shipper) recoverJournal(state journal.State) {
	files := make(map[journal.FileID]*fileProducer, len(state.Files))
	for i := range state.Files {
		files[state.Files[i].ID] = s.recoverFile(&state.Files[i])
	}
	for i := range state.Batches {
		s.recoverBatch(&state.Batches[i], files)
	}

	// Every file has the ranges of all its batches now. Drop the files that are not needed any more, and
	// collect those whose lines must be read again.
	for i := range state.Files {
		producer := files[state.Files[i].ID]
		replaced := producer.inState(fileClosed)
		if replaced && !slices.ContainsFunc(producer.ranges, func(r *batchRange) bool { return !r.done }) {
			s.journal.DropFile(producer.id) // a newer file has its name, and no batch waits for its lines
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

// recoverFile returns the producer of a file of an earlier process. It is idle, or closed if a newer file has
// its name.
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

// recoverBatch makes a pending batch that waits until the lines of its ranges were read again.
func (s *Shipper) recoverBatch(batch *journal.Batch, files map[journal.FileID]*fileProducer) {
	if len(batch.Ranges) == 0 { // all of them were abandoned, or the names of their files were damaged
		s.journal.Ack(batch.ID)
		return
	}
	sender := s.senderFor(senderKey{batch.ID.Epoch, batch.ID.Partition}, false)
	pending := &pendingBatch{
		sequence: batch.ID.Sequence, state: stateRecovering, missingRanges: len(batch.Ranges), batch: newBatch(),
		queuedAt: time.Now(), journaled: true,
	}

	// The batch is empty at first and is filled while the lines of its ranges are read again (replay.go).
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

// dispatchRecovered starts to send the batches of earlier processes.
func (s *Shipper) dispatchRecovered() {
	for _, sender := range s.everySender() {
		sender.mu.Lock()
		sender.dispatch()
		sender.mu.Unlock()
	}
}
