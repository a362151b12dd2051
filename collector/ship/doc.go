// Package ship delivers the events of one host to Kafka.
//
// Sources hand events to producers (collector.FileProducer, collector.PacketProducer). The id of an event's
// container selects its partition. The event is encoded at once into the open batch of that partition, and
// its memory is released. A batch is closed by size or age, gets its id (collector, epoch, partition,
// sequence) and is produced to Kafka; several requests per partition may be in flight. The engine drops
// batches whose id it has stored before. cmd/tidegate makes the Shipper, closes it last, and prints its
// Ledger, which accounts for every event.
//
// # Files and packets
//
// Lines of files can be read again, so they wait: Ship blocks while the memory budget of its partition is
// used up, and the file itself is the buffer. Before a batch of lines is produced, the journal (package
// journal) records which lines of which files are in the batch. After a crash the same lines are put into a
// batch with the same id again (replay.go): nothing is lost, and nothing is stored twice.
//
// Packets cannot be captured again. TryShip sheds events in a declared order (shed.go) when memory is short,
// and batches that wait for Kafka go to the spool on disk (package spool). Batches with lines of files that
// were removed go to the spool as well.
//
// Each process has two random epochs, one for files and one for packets, so that a gap in one sequence does
// not delay the other. A batch keeps its partition and its id for ever, also when the number of partitions
// changes or a later process sends the batch.
//
// # The path of a batch
//
//	producer ─▶ batcher ─▶ [journal] ─▶ sender ─▶ Kafka
//	                                      └──▶ spool ──▶ Kafka
//
// A sender holds the batches of one epoch and partition that have a sequence (pendingBatch). The states of
// such a batch:
//
//	recovering ──────▶ ready       all lines of an earlier process's batch were read again, or their loss is in the journal
//	ready ───────────▶ producing   at most MaxInFlight at a time, and one after a failure
//	producing ───────▶ done        acknowledged; or rejected, or damaged in the spool: lost and counted
//	producing ───────▶ ready       the request failed and will be repeated
//	ready ───────────▶ spilling    it has waited for SpoolAfter, or memory is short
//	spilling ────────▶ ready       the spool has the batch; or the write failed and it stays in memory
//
// A batch is confirmed when it is in Kafka or in the spool: its lines are safe then. The checkpoints of its
// files and the journal are updated once, at that moment.
//
// # The states of a file
//
//	idle ────────────▶ open        File: a source (the owner) begins to read it
//	open ────────────▶ gone        SourceGone: its name was removed; the owner may still be reading
//	open, gone ──────▶ idle        Close(true): it may be read again after a restart
//	open, gone ──────▶ closed      Close(false): it will not be read again
//	idle ────────────▶ missing     Prune: a complete listing did not contain it
//	missing ─────────▶ open        File: the file exists after all
//	missing, closed ─▶ (dropped)   when no range of its lines is unfinished
//
// A file recovered from the journal begins as idle, or as closed when a newer file has its name.
//
// # Locks
//
// Locks are taken in the order Shipper.mu, batcher.mu, fileProducer.mu, sender.mu. Shipper.unwrittenMu and
// those of the journal, the spool, a byteBudget and brokerHealth come last: no lock is taken while one of
// them is held. No goroutine waits for Kafka or for memory while it holds a lock. The journal and the spool
// write to the disk while they hold their own locks.
package ship
