// Package embedded runs the Kafka-compatible broker and the ClickHouse that `tidegate run` includes. Clients
// reach both over their real protocols, so the rest of the program is the same on one machine and with a
// cluster.
//
// The broker is kfake with a data folder, in this process. The store is libchdb, ClickHouse as a library, in
// a child process (cmd/tidegate-clickhouse): a library that aborts ends the child and not the engine, and a
// supervisor restarts the child. Both listen on loopback only, stay below a cap on disk, and hold a lock on
// their folder. The lock also fences the static assignment of partitions: one process works in a folder.
//
// The child listens for HTTP on a port of its own, which this program uses. Analysts use the port for queries
// (query_port.go), which hands on whole requests only.
//
// main calls StartBroker and StartStore where the configuration names no addresses. A StoreServer has three
// goroutines: the supervisor, which owns the child from start to end; one that waits for the end of the
// child; and one that watches the disk. Its mutex guards only the child's process handle. The port for queries has the
// goroutines of an http.Server and a mutex of its own; neither is held while the other is locked.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"tidegate/pipeline/statedir"
)

// LockFile is the file in the folder of the broker, and of the store, that the process of it locks.
const LockFile = "lock"

// lockFolder locks a folder by the file of that name in it, and waits up to patience for a process that is
// ending.
func lockFolder(ctx context.Context, dir, name string, patience time.Duration) (*statedir.Lock, error) {
	lock, err := statedir.Wait(ctx, filepath.Join(dir, name), patience)
	if locked, ok := errors.AsType[*statedir.LockedError](err); ok {
		holder := "another process"
		if locked.PID != "" {
			holder = "process " + locked.PID
		}
		return nil, fmt.Errorf("%s is in use by %s", dir, holder)
	}
	return lock, err
}

// freePort checks that a port of 127.0.0.1 is free, and picks a free one where port is 0. Its error names the
// configuration key.
func freePort(what, key string, port int) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, listenError(what, key, port, err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

// listenError describes why a port of 127.0.0.1 cannot be listened on; nil for no error.
func listenError(what, key string, port int, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("start the embedded %s: port %d on 127.0.0.1 is taken by another program; free it or set %s",
			what, port, key)
	case err != nil:
		return fmt.Errorf("start the embedded %s: listen on 127.0.0.1:%d: %w", what, port, err)
	}
	return nil
}

// CacheDir returns the folder of downloaded files: TIDEGATE_CACHE, else the user's cache folder.
// deploy/fetch-libchdb.sh has the same rule.
func CacheDir() string {
	if d := os.Getenv("TIDEGATE_CACHE"); d != "" {
		return d
	}
	if d := os.Getenv("XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "tidegate")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "tidegate")
	}
	return filepath.Join(home, ".cache", "tidegate")
}

// LibraryPath returns where deploy/fetch-libchdb.sh puts the library.
func LibraryPath() string { return filepath.Join(CacheDir(), "libchdb-26.7.3", "libchdb.so") }

// ProgramPath returns the path of tidegate-clickhouse: TIDEGATE_CLICKHOUSE, else the folder of this program.
func ProgramPath() string {
	if p := os.Getenv("TIDEGATE_CLICKHOUSE"); p != "" {
		return p
	}
	self, err := os.Executable()
	if err != nil {
		return "tidegate-clickhouse"
	}
	return filepath.Join(filepath.Dir(self), "tidegate-clickhouse")
}
