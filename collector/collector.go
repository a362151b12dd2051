// Package collector is what happens on this host: packets and log lines become events and leave for Kafka.
//
// It holds the contract between what sees (Source) and what sends (Shipper). The parts are sub-packages: capture (ring and capture
// files), sessions (reassembly, NAT), logs (container log files), containers (who is who, by the Docker API) and ship (batches,
// journal, spool, Kafka). A source is started by cmd/tidegate and knows neither Kafka nor ClickHouse.
package collector

import (
	"context"

	"tidegate/pipeline"
)

// A Source watches one thing on this host – the packets of its interfaces, the log files of its containers – and ships
// what it sees until ctx ends. It returns only what stops it for good; trouble with one file or packet it counts and goes on.
type Source interface {
	Run(ctx context.Context, ship Shipper) error
}

// A Shipper hands out lanes, one for each file or capture worker, so that one that is stuck does not hold up the rest.
// The name of a lane outlives the process: what it names can be resumed.
type Shipper interface {
	Lane(name string) Lane
}

// A Checkpoint is a place in a file that can be resumed. At is the offset behind the last record of a line: lines are numbered by it, in
// order. From ≤ At is where reading must begin again to find what is behind At: it is smaller while another stream of the same
// file has begun a line (a partial) that is not complete yet. What completes at or before At has been shipped.
type Checkpoint struct {
	End, ReadFrom int64
}

// A Lane is used by one goroutine. Ship waits for room: what can wait (a file) waits. TryShip never waits: what cannot (a wire)
// sheds, in its declared order, and counts what it sheds. Both take ownership of e.
// All numbers ≤ Acked are safe in Kafka or in the spool, or were dropped and counted: positions may be committed up to there.
type Lane interface {
	// Ship hands over the event that ends at m. The shipper's journal keeps m: after a kill, Resume gives the last one below
	// which everything is safe, and the events behind it are put into the batches in which they were the first time.
	Ship(ctx context.Context, e *pipeline.Event, m Checkpoint) (uint64, error)
	TryShip(e *pipeline.Event) bool
	Acked() uint64
	// Resume tells where the lane of this name had come to in an earlier life; false: it is new.
	Resume() (Checkpoint, bool)
	// Seal tells that what was shipped can not be read again (its file is unlinked): it may go to the spool rather than wait.
	SourceGone()
	// Close tells that no more comes; when all is acknowledged the lane is forgotten, unless keep says that its file may still be
	// there at the next start.
	Close(keep bool)
}
