// Package embedded is the small twins of Kafka and ClickHouse that `tidegate run` brings along: real enough to be spoken to over the
// real protocols by the clients that speak to clusters, so nothing else in the program knows whether it runs on one machine.
//
// The broker is kfake with a data folder, in this process. The store is libchdb, ClickHouse as a library, which a child loads
// (cmd/tidegate-clickhouse): a library that aborts takes the child with it and not the engine, and the supervisor starts it again. Both listen on loopback only, keep below a cap on disk, and hold a lock on their folder, which is also what fences the
// static assignment of partitions: one folder, one process.
//
// main calls StartBroker and StartStore where the configuration names no addresses.
package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock that the file at path stands for, waiting up to wait. The kernel lets go of it when the process ends, however
// it ends. The holder writes its pid into the file, so that who is refused can say by whom.
func lockFile(path string, wait time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			b, _ := os.ReadFile(path)
			f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			return nil, &heldError{path: path, pid: strings.TrimSpace(string(b))}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// heldError is a folder that another process works in.
type heldError struct{ path, pid string }

func (e *heldError) Error() string {
	by := "another process"
	if e.pid != "" {
		by = "process " + e.pid
	}
	return fmt.Sprintf("%s is in use by %s", filepath.Dir(e.path), by)
}

// freePort makes sure that a port of 127.0.0.1 can be listened on, and picks one where port is 0. An error names the key that sets it.
func freePort(what, key string, port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return 0, fmt.Errorf("start the embedded %s: port %d on 127.0.0.1 is taken by another program; free it or set %s", what, port, key)
	case err != nil:
		return 0, fmt.Errorf("start the embedded %s: listen on 127.0.0.1:%d: %w", what, port, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// CacheDir is where fetched things are kept: TIDEGATE_CACHE, else the user's cache folder. deploy/fetch-libchdb.sh goes by the same rule.
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

// LibraryPath is where deploy/fetch-libchdb.sh puts the library.
func LibraryPath() string { return filepath.Join(CacheDir(), "libchdb-26.7.3", "libchdb.so") }

// ProgramPath is where tidegate-clickhouse is: what TIDEGATE_CLICKHOUSE names, else beside this program.
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
