// Package tail reads logs that rotate, from their first line to the last, each line once.
//
// The input is the logs that a Discovery lists: a base file and the files that rotation makes of it. The
// output is one Line for each line, to the Handler of its log, which makes an event of it and ships it on the
// producer of the line's file. The package is independent of formats: a decode.Decoder turns the bytes
// between two newlines into a record. collector/logs is its only caller.
//
// # Goroutines and locks
//
// A Group has one goroutine (Run), which lists logs, receives events of inotify and opens files, and one
// goroutine for each log (Tailer.readLoop), which reads its files in order. A new file is opened at once,
// also while the reader is blocked. The two goroutines share the list of files and their state, guarded by
// Tailer.mu. While Tailer.mu is held, only the locks inside the Shipper and its producers are taken. The
// reader never blocks in Handler.Ship with Tailer.mu held. watcher.mu is taken alone.
//
// # How nothing is lost
//
// One inotify instance watches the folder of each log. A new file is opened at once and its descriptor is
// held until the file has been read to its end, so that rotation may rename or unlink it at any time. If there
// are more logs than descriptors, idle files are closed and opened again (descriptors.go). A
// Tailer has the files of its log, oldest first. A file is complete when its end is read while a newer file
// is in the list.
//
// Every second all folders are checked again, in case inotify has lost an event, or has no free instance. A listing is used only if no
// file was renamed while it was made (scanFolder): otherwise a file that it missed would be read in the wrong
// order, or treated as removed.
//
// A producer that blocks stops its own log only. When an open file has lost its name, SourceGone of its
// producer is called: its lines may then go to the spool.
//
// # How nothing comes twice
//
// A file is identified by its first record (identity.go), which survives renaming, compression, copying and
// the reuse of an inode. Within the process, names are matched to files by file handle. Positions count
// uncompressed bytes. The producer has the checkpoint from which to resume; lines that end up to its End are
// read again and not shipped again.
//
// # States of a file
//
//	listed      a name was found and opened: it has a handle, no identity yet (registerFile)
//	waiting     it is not the oldest unread file of its log, or its first record is not complete
//	copy        it holds the same as a newer file, which was copied to be truncated (copytruncate). It is not
//	            read, unless the truncation comes before the newer file was read to its end: then the newer
//	            file goes on as the copy (handleTruncation)
//	reading     it has an identity and a producer, and is the oldest unread file (resumeFile)
//	released    as reading, without a descriptor, because other logs wait for one (descriptors.go)
//	done        it was read to its end (finishFile); the descriptor is closed, and the producer is kept until
//	            the file is gone
//	dropped     it is done and has no name any more: its checkpoint is dropped (dropMissing)
//
// # Lines of several records
//
// A line ends with a record whose Ends is set, or before a record of another Group. Both depend on the bytes
// only, so that a second reading splits lines at the same positions. Only a line behind which no record
// follows is ended by a timeout: it is flushed 2 s after its writer stopped, or after Config.PartialTimeout.
// The next record then begins a new line.
//
// The number of a line is the offset behind its last record. The number of a flushed line is a few bytes
// higher than the end of the file, which is within the next record. The lines that end with the next record
// are numbered by its end, and by the byte before its end, so that all numbers differ.
package tail

import (
	"context"
	"time"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/discover"
)

// Config holds the limits and timeouts of reading.
type Config struct {
	LineMax        int           // maximum bytes of a line; of a longer one the head and the tail are kept
	PartialTimeout time.Duration // time after which an incomplete line is flushed
	MaxOpen        int           // open files; 0: the limit of the process minus a reserve
	Memory         int           // bytes for read buffers, and as many again for incomplete lines
	NotBefore      int64         // ns since 1970; older records are skipped
	DrainTimeout   time.Duration // time to read unlinked files to their end after the context of Run has ended
}

// A Discovery lists the logs that exist. Its methods are called by the goroutine of Group.Run.
type Discovery interface {
	// Folders returns the folders in which new logs appear. List is called after each change there.
	Folders() []string

	// List returns the logs that exist. complete is false where some may be missing from the list.
	List() (logs []discover.Log, complete bool)

	// Handler returns the handler of a log that is about to be tailed; nil: the log is not to be read now.
	Handler(log discover.Log) Handler
}

// A Handler takes the lines of one log. The goroutine of the log's reader calls its methods, except State.
type Handler interface {
	// Ready waits until lines can be handled. A value from changed means that State may have changed. It
	// returns false when ctx ends, and when the log is not to be read.
	Ready(ctx context.Context, changed <-chan struct{}) bool

	// Refresh updates the metadata that is added to lines. It is called before each stretch of lines.
	Refresh()

	// Ship makes an event of line and ships it on producer. The line is valid until Ship returns.
	Ship(ctx context.Context, producer collector.FileProducer, line *Line, at collector.Checkpoint) error

	// State returns the state of the program that writes the log. It may be called by any goroutine.
	State() State
}

// A State is the state of the program that writes a log, as far as it is known.
type State struct {
	Stopped  bool // it does not run: nothing will be added to its last line
	Excluded bool // its log is not to be read
}

// A Line is one complete line of a log.
type Line struct {
	File      Identity // of the file in which it begins
	Start     int64    // offset of its first record in File, uncompressed
	Time      int64    // ns since 1970
	Stream    decode.Stream
	Text      []byte
	Bytes     uint64 // of the whole line; more than len(Text) if it was truncated
	Truncated bool   // it is longer than Config.LineMax
	Partial   bool   // its end was not seen, or it is not a record of the format
}
