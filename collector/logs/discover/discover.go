// Package discover finds logs: which files of this host belong to which log, and in which order rotation has
// put them.
//
// A log is a base file with the files that rotation makes of it. There are two discoverers: Docker lists the
// log of each container below Docker's data-root (docker.go), Glob lists the plain text files that match
// patterns (glob.go). The logs source calls List every second and whenever a folder of Folders changes;
// package tail reads the listed logs. A discoverer reads names of files, never their contents, and keeps no
// state; one goroutine calls it.
package discover

import (
	"os"

	"tidegate/collector/logs/decode"
)

// A Log is one log that exists now.
type Log struct {
	// ID identifies the log and never changes: checkpoints and event ids depend on it.
	ID string

	// Container is the id of the container that writes the log; "" for a log of the host.
	Container string

	Dir  string
	Base string // name of the current file in Dir, from which rotation derives the names of the older ones

	// Rank returns the position of the file of that name in the log; false: the file belongs to another log.
	Rank func(name string) (Rank, bool)

	// BaseOf returns the base name of the log to which a file of the folder belongs by its name. It is the same
	// function for all logs of a folder that have one: the files of thousands of logs are then found in one pass.
	// nil: only Rank is asked.
	BaseOf func(name string) string

	Format decode.Format
}

// A Rank is the position of a file in its log. A file with a higher Age is older; the current file has Age 0.
type Rank struct {
	Age        int64
	Compressed bool   // gzip
	Plain      string // name of the file that was compressed into this one
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
