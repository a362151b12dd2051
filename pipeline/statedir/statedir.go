// Package statedir guards the folders in which the program keeps state on disk: one process a folder, and
// files that are replaced whole or not at all.
//
// The collector's shipper, the embedded broker, the embedded store and the commands that need a folder for
// themselves call NewLock at their start and Unlock at their end. A killed process leaves no lock behind: the
// kernel releases it.
package statedir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/pipeline/retry"
)

// ErrLocked is matched by the error of NewLock and Wait when another process holds the lock.
var ErrLocked = errors.New("in use by another process")

// A LockedError names the lock file and the process that holds the lock. errors.Is(err, ErrLocked) matches
// it.
type LockedError struct {
	Path string
	PID  string // as the holder wrote it; "" when it wrote none
}

func (e *LockedError) Error() string {
	if e.PID == "" {
		return fmt.Sprintf("%s: %v", e.Path, ErrLocked)
	}
	return fmt.Sprintf("%s: %v (process %s)", e.Path, ErrLocked, e.PID)
}

// Is reports whether target is ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// A Lock is an exclusive lock on a file. It ends with Unlock or with the process.
type Lock struct{ file *os.File }

// NewLock locks the file at path, which it creates if need be, and writes the process id into it. It returns
// a LockedError at once if another process holds the lock.
func NewLock(path string) (*Lock, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder := make([]byte, 32)
		n, _ := file.ReadAt(holder, 0)
		return nil, &LockedError{Path: path, PID: strings.TrimSpace(string(holder[:n]))}
	}

	// The process id is for people only. A disk that is full must not keep a process from starting.
	if err := file.Truncate(0); err == nil {
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &Lock{file: file}, nil
}

// Wait is NewLock, repeated for up to patience while another process holds the lock.
func Wait(ctx context.Context, path string, patience time.Duration) (*Lock, error) {
	deadline := time.Now().Add(patience)
	for {
		lock, err := NewLock(path)
		if err == nil || !errors.Is(err, ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		if err := retry.Sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Unlock releases the lock. The file stays: a file that is removed could be locked by two processes, one
// under the old inode.
func (l *Lock) Unlock() error { return l.file.Close() }

// WriteFile replaces the file at path by data, whole or not at all: it writes a temporary file beside path,
// syncs it, renames it and syncs the folder.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	return Replace(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Replace is WriteFile for content that write produces. An error of write leaves the old file as it was.
func Replace(path string, perm os.FileMode, write func(w io.Writer) error) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-")
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	defer os.Remove(file.Name())

	err = write(file)
	err = errors.Join(err, file.Chmod(perm), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err == nil {
		err = SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// SyncDir makes the names in dir durable: files that were created, renamed or removed there.
func SyncDir(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Holder returns the id of the process that holds the lock at path, as the process wrote it. It returns false
// if nobody does. It takes no lock and creates no file, so it disturbs no process that starts meanwhile.
func Holder(path string) (pid string, held bool) {
	info, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	text, err := os.ReadFile(path)
	pid = strings.TrimSpace(string(text))
	if _, atoiErr := strconv.Atoi(pid); err != nil || atoiErr != nil {
		return "", false
	}

	// A line of /proc/locks is "1: FLOCK ADVISORY WRITE pid major:minor:inode 0 EOF".
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return "", false
	}
	inode := ":" + strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
	for line := range strings.Lines(string(locks)) {
		fields := strings.Fields(line)
		if len(fields) > 5 && fields[1] == "FLOCK" && fields[4] == pid && strings.HasSuffix(fields[5], inode) {
			return pid, true
		}
	}
	return "", false
}
