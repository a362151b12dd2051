package statedir

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSecondLockIsRefusedAndNamesTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := NewLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewLock(path)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("second lock: %v, want ErrLocked with our pid", err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	second, err := NewLock(path)
	if err != nil {
		t.Fatalf("after Unlock: %v", err)
	}
	defer second.Unlock()
	if _, err := NewLock(filepath.Join(path, "below-a-file")); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("a path that cannot be created: %v", err)
	}
}

func TestWaitGetsALockThatIsReleased(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := NewLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Wait(t.Context(), path, 30*time.Millisecond); !errors.Is(err, ErrLocked) {
		t.Errorf("the lock is held for longer than Wait waits: %v", err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		_ = first.Unlock()
	}()
	second, err := Wait(t.Context(), path, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Unlock()
}

func TestFailedReplaceLeavesTheOldFileOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("half written")
	err := Replace(path, 0o640, func(w io.Writer) error {
		_, _ = io.WriteString(w, "ne")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Replace: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("file holds %q, %v", data, err)
	}

	if err := WriteFile(path, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(path); string(data) != "new" {
		t.Errorf("file holds %q", data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("%d files are left in the folder, want 1", len(names))
	}
}

func TestHolderNamesTheProcessThatHoldsALock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	check := func(want bool) {
		t.Helper()
		pid, held := Holder(path)
		if held != want || held && pid != strconv.Itoa(os.Getpid()) {
			t.Errorf("the holder is %q, %v; want %v", pid, held, want)
		}
	}
	check(false)
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was created")
	}
	lock, err := NewLock(path)
	if err != nil {
		t.Fatal(err)
	}
	check(true)
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	check(false)
}
