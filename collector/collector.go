// Package collector turns the packets and the log lines of a host into events and sends them to Kafka.
//
// This file holds the contract between a Source, which observes, and a Shipper, which delivers; identity.go
// holds the id under which a host's events are sent. The parts are sub-packages: capture (rings and capture
// files), sessions (reassembly and NAT), conntrack, logs (container log files), containers (which container
// owns an address, by the Docker API) and ship (batches, journal, spool, Kafka). cmd/tidegate connects them:
// a Source depends on neither Kafka nor ClickHouse.
//
// There are two kinds of sources. A file can be read again, so its reader waits while memory is short and
// resumes from a Checkpoint after a crash: it ships through a FileProducer. A packet cannot be captured
// again, so its source never waits, and events are shed when memory is short: it ships through a
// PacketProducer.
package collector

import (
	"context"

	"tidegate/pipeline"
)

// A Source observes one thing on this host, such as the packets of its interfaces or the log files of its
// containers, and ships events until ctx ends. Run returns an error only if the source cannot continue; an
// error with one file or packet is counted.
type Source interface {
	Run(ctx context.Context, ship Shipper) error
}

// A Shipper delivers events. It hands out one producer for each file and each capture worker, so that a
// producer that waits does not delay the others.
type Shipper interface {
	// File returns the producer of the file of that name. The name identifies the file over restarts.
	File(name string) FileProducer

	// Packets returns a producer for events that cannot be read again. The name is for diagnostics.
	Packets(name string) PacketProducer

	// Files returns the names of files without an open producer that have a stored checkpoint and begin with
	// prefix.
	Files(prefix string) []string

	// Prune drops the state of files that do not exist any more. A file counts as gone when no producer has
	// it open and exists returns false for its name. A source of files calls Prune once, after its first
	// complete listing.
	Prune(exists func(name string) bool)
}

// A Checkpoint is a position in a file from which reading can resume.
type Checkpoint struct {
	// End is the offset behind the last record of a line. It numbers the lines of a file, in order.
	End int64

	// ReadFrom ≤ End is the offset at which reading must begin to find every line that ends behind End. It is
	// smaller than End while a line of another stream of the same file has begun and is not complete. Lines
	// that end at or before End have been shipped.
	ReadFrom int64

	// Sample is of bytes that were read from the file by then, which need not end at End. With Size 0 it is
	// not known.
	Sample Sample
}

// A Sample is a hash of some bytes of a file. A file that has other bytes there is another one.
type Sample struct {
	Start int64  // offset of the first of the bytes
	Size  int    // number of bytes
	Hash  uint64 // XXH3 of the bytes
}

// A FileProducer ships the events of one file in the order of their checkpoints. One goroutine uses it;
// SourceGone may be called by another.
type FileProducer interface {
	// Wait waits while memory is short, before the event that ends at c is made. container is that of the
	// event. Ship waits, too, but while it does, the event takes memory.
	Wait(ctx context.Context, container *pipeline.Container, c Checkpoint) error

	// Ship takes ownership of e, the event that ends at c, and waits while memory is short. c.End is positive
	// and grows from call to call. An event whose End was shipped before, also by a process that was killed,
	// is recognised and not sent again.
	Ship(ctx context.Context, e *pipeline.Event, c Checkpoint) error

	// Resume returns the last checkpoint up to which everything is in Kafka, in the spool, or dropped and
	// counted. It reports false for a file without a stored checkpoint. Its Sample is that of the last line
	// that was shipped at all, which may be behind the checkpoint.
	Resume() (Checkpoint, bool)

	// SourceGone reports to the Shipper that the file was deleted and cannot be read again after a restart.
	// Its events may then go to the spool instead of waiting for Kafka.
	SourceGone()

	// Close ends the use of the producer. keep reports whether the file may still exist at the next start. If
	// it may not, its checkpoint is dropped as soon as all its events are delivered, spooled or dropped.
	Close(keep bool)
}

// A PacketProducer ships events that cannot be read again. It is used by one goroutine.
type PacketProducer interface {
	// TryShip takes ownership of e and never waits. It reports false when e was shed for lack of memory,
	// which is counted by dataset and reason.
	TryShip(e *pipeline.Event) bool

	// Close ends the use of the producer.
	Close()
}
