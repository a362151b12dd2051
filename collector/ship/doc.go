// Package ship delivers the events of one host to Kafka.
//
// Sources hand events to producers (collector.FileProducer, collector.PacketProducer). An event is encoded at
// once into the open batch of its partition, which is that of its container, and is free again. A batch is
// closed by size or age, gets its id (collector, epoch, partition, sequence) and is produced, several at a
// time for each partition. The engine drops batches whose id it has seen. cmd/tidegate makes the Shipper,
// closes it last, and prints its Ledger, in which every event has its place.
//
// # Files and packets
//
// Lines of files can be read again, so they wait: Ship blocks while the memory of its partition is used up,
// and the file itself is the buffer. Before a batch of lines is produced, the journal (package journal) says
// which lines of which files are in it. After a crash the same lines are put into a batch with the same id
// again (replay.go): nothing is lost, and nothing is stored twice.
//
// Packets cannot be captured again. TryShip sheds events in a declared order (shed.go) when memory is short,
// and batches that wait for Kafka go to the spool on disk (package spool). So do batches with lines of files
// that were removed.
//
// The epoch is drawn at random for each process, one for files and one for packets: a gap in one sequence
// does not hold up the other. A batch keeps its partition and its id for ever, in the journal and in the
// spool too, also when the number of partitions changes or another process sends it.
//
// # The way of a batch
//
//	producer ─▶ batcher ─▶ [journal] ─▶ sender ─▶ Kafka
//	                                      └──▶ spool ──▶ Kafka
//
// A sender holds the batches of one epoch and partition that have their sequence (pendingBatch). Their
// states:
//
//	recovering ──────▶ ready       all lines of an earlier process's batch were read again, or are given up
//	ready ───────────▶ producing   at most MaxInFlight at a time, and one after a failure
//	producing ───────▶ done        acknowledged; or rejected, or damaged in the spool: lost and counted
//	producing ───────▶ ready       the request failed and will be repeated
//	ready ───────────▶ spilling    it waited for long, or memory is needed
//	spilling ────────▶ ready       it lies in the spool now; or the disk refused it
//
// A batch is confirmed, that is its lines are safe, when it is first in Kafka or in the spool. The files and
// the journal learn of it once.
//
// # The states of a file
//
//	idle ────────────▶ open        File: its owner begins to read
//	open ────────────▶ gone        SourceGone: its name was removed, and its owner goes on reading
//	open, gone ──────▶ idle        Close(true): it may be read again after a restart
//	open, gone ──────▶ closed      Close(false): nobody will read it again
//	idle ────────────▶ missing     Prune: a complete listing did not contain it
//	missing ─────────▶ open        File: it is there after all
//	missing, closed ─▶ (dropped)   when no range of its lines is unfinished
//
// A file of the journal is idle at first, or closed when its name means another file since.
//
// # Locks
//
// Locks are taken in the order Shipper.mu, batcher.mu, fileProducer.mu, sender.mu. Those of the journal, the
// spool, a byteBudget and brokerHealth come last: none is taken while one of them is held. Nothing waits for
// Kafka or for memory while it holds a lock; the journal and the spool write to the disk under their own.
package ship
